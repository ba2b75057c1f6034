/* Holds connections that do nothing. Takes commands on standard input and answers each with a line:
 * "open N" opens N more, "echo" sends a message on every connection and checks what comes back. A message is a line; with
 * --websocket 1 it is a binary message of 1 KiB of JSON, compressed with --deflate 1: then the offer asks that no
 * side keeps a window between messages.
 *
 * idle --port P --websocket 0|1 --deflate 0|1
 */
#define _GNU_SOURCE
#include "common.h"
#include "deflate.h"
#include "websocket_client.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define CONNECTIONS_PER_ADDRESS 500
#define AT_ONCE 100
#define JSON_SIZE 1024
#define JSON_MESSAGES 64

struct held {
    int fd;
    struct inflater *inflater; /* of one whose server takes over its window */
};

static struct held *connections;
static size_t count;
static bool websocket, deflates;
static int window_bits = 15;
static char messages[JSON_MESSAGES][JSON_SIZE];

static void greet(struct held *held)
{
    struct agreement agreement = websocket_handshake(held->fd, deflates ? NO_CONTEXT_TAKEOVER : NO_DEFLATE);
    window_bits = agreement.client_window_bits;
    static struct inflater *shared;
    if (deflates && shared == NULL)
        shared = new_inflater(false);
    held->inflater = agreement.server_takes_over ? new_inflater(true) : shared;
}

static void open_more(int port, size_t more)
{
    connections = realloc(connections, (count + more) * sizeof *connections);
    for (size_t i = 0; i < more; i++, count++) {
        struct held *held = &connections[count];
        held->fd = connect_to(port, 2 + (unsigned)(count / CONNECTIONS_PER_ADDRESS));
        held->inflater = NULL;
        if (websocket)
            greet(held);
    }
    printf("opened %zu\n", count);
}

/* The message of a connection. */
static size_t message_of(size_t index, char *to)
{
    if (!websocket)
        return (size_t)sprintf(to, "connection %zu\n", index);
    memcpy(to, messages[index % JSON_MESSAGES], JSON_SIZE);
    return JSON_SIZE;
}

static void say(size_t index)
{
    char message[JSON_SIZE], payload[JSON_SIZE + 64], frame[JSON_SIZE + 64 + LARGEST_HEAD];
    const char *data = message;
    size_t size = message_of(index, message);
    if (websocket) {
        if (deflates)
            size = deflate_message(payload, message, size, window_bits);
        size = put_frame(frame, FIN_BINARY | (deflates ? RSV1 : 0), deflates ? payload : message, size);
        data = frame;
    }
    if (send(connections[index].fd, data, size, MSG_NOSIGNAL) != (ssize_t)size)
        die("send on connection %zu: %s", index, strerror(errno));
}

static void take(size_t index, char *to, size_t size)
{
    if (recv(connections[index].fd, to, size, MSG_WAITALL) != (ssize_t)size)
        die("connection %zu was not answered", index);
}

static void hear(size_t index)
{
    char message[JSON_SIZE], heard[JSON_SIZE + 64 + LARGEST_HEAD];
    size_t size = message_of(index, message), head = 0, payload = size;
    struct timeval patience = {.tv_sec = STALL_SECONDS};
    setsockopt(connections[index].fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    while (websocket && !parse_head(heard, head, &head, &payload))
        take(index, heard + head++, 1);
    if (payload > size + 64)
        die("connection %zu got more than it sent", index);
    take(index, heard + head, payload);
    if (deflates)
        expect_deflated(connections[index].inflater, heard, head, payload, message, size);
    else if (payload != size || (websocket && (unsigned char)heard[0] != FIN_BINARY) ||
             memcmp(message, heard + head, size) != 0)
        die("connection %zu was not answered with its own message", index);
}

static void echo(void)
{
    for (size_t first = 0; first < count; first += AT_ONCE) {
        size_t last = first + AT_ONCE < count ? first + AT_ONCE : count;
        for (size_t i = first; i < last; i++)
            say(i);
        for (size_t i = first; i < last; i++)
            hear(i);
    }
    printf("echoed %zu\n", count);
}

int main(int argc, char **argv)
{
    int port = (int)option(argc, argv, "port", 0);
    char line[64];
    websocket = option(argc, argv, "websocket", 0) != 0;
    deflates = option(argc, argv, "deflate", 0) != 0;
    for (size_t i = 0; i < JSON_MESSAGES; i++)
        fill_json(messages[i], JSON_SIZE);
    raise_descriptor_limit();
    while (fgets(line, sizeof line, stdin) != NULL) {
        if (strncmp(line, "open ", 5) == 0)
            open_more(port, (size_t)atol(line + 5));
        else if (strcmp(line, "echo\n") == 0)
            echo();
        else
            die("unknown command: %s", line);
        fflush(stdout);
    }
    return 0;
}
