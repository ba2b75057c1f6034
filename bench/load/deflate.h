/* Messages of JSON, compressed as permessage-deflate wants it (RFC 7692 section 7.2). */
#ifndef BENCH_DEFLATE_H
#define BENCH_DEFLATE_H

#include "common.h"

/* Writes a JSON object of exactly `size` bytes, each one another; the same in each run. */
void fill_json(char *to, size_t size);

/* Compresses a message on its own, with a window of 2 ** `window_bits` bytes; returns its size. `to` has room for
 * `size` + 64 bytes. */
size_t deflate_message(char *to, const char *message, size_t size, int window_bits);

/* What the messages of a server are inflated with, one for each connection where it takes over its window. */
struct inflater;
struct inflater *new_inflater(bool server_takes_over);

/* Ends the program unless the frame at `data` (head included, whole) is a compressed one of this very message. */
void expect_deflated(struct inflater *inflater, const char *data, size_t head, size_t payload, const char *message,
                     size_t size);

#endif
