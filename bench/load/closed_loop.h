/* The closed loop of the load generators of streams: each connection sends a batch in one write, waits until all
 * of it is answered and checked, and sends the next one. */
#ifndef BENCH_CLOSED_LOOP_H
#define BENCH_CLOSED_LOOP_H

#include "common.h"

#define READ_SIZE (1 << 18)

struct connection {
    int fd;
    const char *batch; /* what goes out; `next` sets it and its size */
    size_t batch_size, sent, received;
    uint64_t sent_ns;
    unsigned turn; /* of the batches, which comes next */
    bool wants_room;
    void *own; /* what the program keeps for it */
};

struct exchange {
    size_t depth; /* messages of a batch */
    /* Greets the server on a new connection, which still blocks; NULL for none. */
    void (*greet)(struct connection *c);
    void (*next)(struct connection *c);
    /* Ends the program for a byte that is wrong; true when the batch is answered to its end. */
    bool (*check)(struct connection *c, const char *data, size_t size);
    /* Instead of send and recv, with their results; NULL for those. `get` may hold more than the socket shows. */
    ssize_t (*put)(struct connection *c, const char *data, size_t size);
    ssize_t (*get)(struct connection *c, char *data, size_t size);
};

/* --port P --pid SERVER --connections N --seconds S --warm-up S: runs to the end of the window and reports. */
void closed_loop(const struct exchange *exchange, int argc, char **argv);

/* The check of an echo: the next `size` bytes of `expected`, of which there are `total`. */
bool check_bytes(struct connection *c, const char *data, size_t size, const char *expected, size_t total);

/* Bytes that differ everywhere, none of them a newline; the same in each run. */
void fill_letters(char *to, size_t size);

#endif
