/* Holds connections that do nothing. Takes commands on standard input and answers each with a line:
 * "open N" opens N more, "echo" sends a line on every connection and checks what comes back.
 *
 * idle --port P
 */
#define _GNU_SOURCE
#include "common.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define CONNECTIONS_PER_ADDRESS 500
#define AT_ONCE 100

static int *connections;
static size_t count;

static void open_more(int port, size_t more)
{
    connections = realloc(connections, (count + more) * sizeof *connections);
    for (size_t i = 0; i < more; i++, count++)
        connections[count] = connect_to(port, 2 + (unsigned)(count / CONNECTIONS_PER_ADDRESS));
    printf("opened %zu\n", count);
}

static void say(size_t index)
{
    char line[32];
    size_t size = (size_t)snprintf(line, sizeof line, "connection %zu\n", index);
    if (send(connections[index], line, size, MSG_NOSIGNAL) != (ssize_t)size)
        die("send on connection %zu: %s", index, strerror(errno));
}

static void hear(size_t index)
{
    char line[32], heard[32];
    size_t size = (size_t)snprintf(line, sizeof line, "connection %zu\n", index);
    struct timeval patience = {.tv_sec = STALL_SECONDS};
    setsockopt(connections[index], SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    if (recv(connections[index], heard, size, MSG_WAITALL) != (ssize_t)size || memcmp(line, heard, size) != 0)
        die("connection %zu was not answered with its own line", index);
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
