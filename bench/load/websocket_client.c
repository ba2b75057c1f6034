#define _GNU_SOURCE
#include "websocket_client.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>

/* The sample of RFC 6455 section 1.3, so that nothing must be hashed here. */
static const char KEY[] = "dGhlIHNhbXBsZSBub25jZQ==", ACCEPT[] = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
static const char *const OFFERS[] = {
    [NO_DEFLATE] = "",
    [AS_BROWSERS_DO] = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n",
    [NO_CONTEXT_TAKEOVER] = "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; "
                            "client_no_context_takeover; client_max_window_bits\r\n",
};

/* Reads to the end of the head; behind it a server says nothing before it is spoken to. */
static void read_head(int fd, char *head, size_t room)
{
    struct timeval patience = {.tv_sec = STALL_SECONDS};
    size_t size = 0;
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    do {
        ssize_t count = recv(fd, head + size, room - 1 - size, 0);
        if (count <= 0)
            die("no answer to the handshake: %s", count < 0 ? strerror(errno) : "end of stream");
        size += (size_t)count;
        head[size] = 0;
    } while (strstr(head, "\r\n\r\n") == NULL && size < room - 1);
    if (size < 4 || strcmp(head + size - 4, "\r\n\r\n") != 0)
        die("the answer to the handshake has no end, or more follows it");
}

static const char *value_of(const char *head, const char *name)
{
    const char *found = strcasestr(head, name);
    return found == NULL ? NULL : found + strlen(name);
}

struct agreement websocket_handshake(int fd, enum offer offer)
{
    char request[512], head[2048];
    int size = snprintf(request, sizeof request,
                        "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                        "Sec-WebSocket-Key: %s\r\nSec-WebSocket-Version: 13\r\n%s\r\n",
                        KEY, OFFERS[offer]);
    if (send(fd, request, (size_t)size, MSG_NOSIGNAL) != size)
        die("send: %s", strerror(errno));
    read_head(fd, head, sizeof head);
    if (strncmp(head, "HTTP/1.1 101 ", 13) != 0)
        die("the handshake was answered with %.40s", head);
    const char *accepted = value_of(head, "\r\nSec-WebSocket-Accept: ");
    if (accepted == NULL || strncmp(accepted, ACCEPT, sizeof ACCEPT - 1) != 0)
        die("the handshake was answered with a wrong key");
    const char *extension = value_of(head, "\r\nSec-WebSocket-Extensions: ");
    if ((extension != NULL) != (offer != NO_DEFLATE))
        die("%s", extension != NULL ? "an extension that was not offered" : "the server does not deflate");
    struct agreement agreement = {.deflate = extension != NULL, .client_window_bits = 15};
    if (extension != NULL) {
        const char *bits = value_of(extension, "client_max_window_bits=");
        agreement.client_window_bits = bits == NULL ? 15 : atoi(bits);
        agreement.server_takes_over = strcasestr(extension, "server_no_context_takeover") == NULL;
    }
    return agreement;
}

static size_t put_size(unsigned char *to, unsigned masked, size_t size)
{
    if (size < 126) {
        to[0] = (unsigned char)(masked | size);
        return 1;
    }
    size_t bytes = size < 65536 ? 2 : 8;
    to[0] = (unsigned char)(masked | (bytes == 2 ? 126 : 127));
    for (size_t i = 0; i < bytes; i++)
        to[1 + i] = (unsigned char)(size >> (8 * (bytes - 1 - i)));
    return 1 + bytes;
}

size_t put_answer_head(char *to, unsigned first, size_t size)
{
    to[0] = (char)first;
    return 1 + put_size((unsigned char *)to + 1, 0, size);
}

size_t put_frame(char *to, unsigned first, const char *payload, size_t size)
{
    to[0] = (char)first;
    size_t head = 1 + put_size((unsigned char *)to + 1, 0x80, size);
    char *mask = to + head;
    if (getrandom(mask, 4, 0) != 4)
        die("getrandom: %s", strerror(errno));
    for (size_t i = 0; i < size; i++)
        mask[4 + i] = payload[i] ^ mask[i & 3];
    return head + 4 + size;
}

bool parse_head(const char *data, size_t size, size_t *head, size_t *payload)
{
    const unsigned char *bytes = (const unsigned char *)data;
    if (size < 2)
        return false;
    if (bytes[1] & 0x80)
        die("the server sent a masked frame");
    size_t more = bytes[1] == 126 ? 2 : bytes[1] == 127 ? 8 : 0;
    if (size < 2 + more)
        return false;
    *head = 2 + more;
    *payload = more == 0 ? bytes[1] : 0;
    for (size_t i = 0; i < more; i++)
        *payload = *payload << 8 | bytes[2 + i];
    return true;
}
