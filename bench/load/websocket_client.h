/* The client's side of WebSocket (RFC 6455): the opening handshake, masked frames out, unmasked ones in. */
#ifndef BENCH_WEBSOCKET_CLIENT_H
#define BENCH_WEBSOCKET_CLIENT_H

#include "common.h"

#define FIN_BINARY 0x82
#define RSV1 0x40 /* the message is compressed (RFC 7692) */
#define LARGEST_HEAD 14

enum offer {
    NO_DEFLATE,
    AS_BROWSERS_DO,      /* permessage-deflate; client_max_window_bits */
    NO_CONTEXT_TAKEOVER, /* and asks that neither side keeps a window between messages */
};

struct agreement {
    bool deflate, server_takes_over;
    int client_window_bits;
};

/* Greets the server on a blocking socket. Ends the program when it does not answer with 101 and the right key, does
 * not take the extension that was offered or takes one that was not. */
struct agreement websocket_handshake(int fd, enum offer offer);

/* Writes a masked frame with a mask of its own; returns its size. `first` is the first byte of the head. */
size_t put_frame(char *to, unsigned first, const char *payload, size_t size);

/* Writes the head of the frame that a server answers with; returns its size. */
size_t put_answer_head(char *to, unsigned first, size_t size);

/* The sizes of the head and the payload of an unmasked frame that starts at `data`; false when the head is not whole. */
bool parse_head(const char *data, size_t size, size_t *head, size_t *payload);

#endif
