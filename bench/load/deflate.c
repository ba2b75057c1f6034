#define _GNU_SOURCE
#include "deflate.h"

#include "websocket_client.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#ifdef WITH_ZLIB
#include <zlib.h>
#endif

static const char *const WORDS[] = {
    "about",  "again",  "anchor", "before", "bridge", "carry", "channel", "cloud",  "copper",  "count", "deliver",
    "distant", "early", "engine", "every",  "fallow", "first", "gentle",  "harbor", "hollow",  "island", "journey",
    "kettle", "ladder", "letter", "linger", "market", "mellow", "message", "narrow", "nobody", "number", "open",
    "orchard", "paper", "people", "quiet",  "rather", "river", "sailor",  "second", "signal",  "silver", "slowly",
    "stream", "summer", "temper", "thread", "timber", "travel", "under",  "valley", "village", "water", "weather",
    "window", "winter", "wonder", "yellow", "yonder",
};

static unsigned draw(unsigned below)
{
    static uint32_t state = 7;
    state = state * 1664525u + 1013904223u;
    return (state >> 8) % below;
}

static const char *word(void)
{
    return WORDS[draw(sizeof WORDS / sizeof *WORDS)];
}

void fill_json(char *to, size_t size)
{
    static unsigned serial;
    char text[4096];
    size_t used = (size_t)snprintf(
        text, sizeof text,
        "{\"id\":%u,\"key\":\"%08x%08x\",\"time\":\"2026-%02u-%02uT%02u:%02u:%02u.%03uZ\",\"user\":{\"name\":\"%s %s\","
        "\"email\":\"%s@%s.example.org\",\"age\":%u},\"position\":{\"latitude\":%u.%06u,\"longitude\":%u.%06u},"
        "\"tags\":[\"%s\",\"%s\",\"%s\"],\"scores\":[%u,%u,%u,%u],\"active\":%s,\"text\":\"",
        ++serial, draw(1u << 24), draw(1u << 24), 1 + draw(12), 1 + draw(28), draw(24), draw(60), draw(60), draw(1000),
        word(), word(), word(), word(), 18 + draw(60), draw(90), draw(1000000), draw(180), draw(1000000), word(), word(),
        word(), draw(1000), draw(1000), draw(1000), draw(1000), draw(2) ? "true" : "false");
    while (used < size)
        used += (size_t)snprintf(text + used, sizeof text - used, "%s ", word());
    memcpy(to, text, size - 2);
    memcpy(to + size - 2, "\"}", 2);
}

#ifdef WITH_ZLIB
static const unsigned char TAIL[] = {0, 0, 0xff, 0xff};

struct inflater {
    z_stream stream;
    bool keeps;
    char *room;
    size_t capacity;
};

size_t deflate_message(char *to, const char *message, size_t size, int window_bits)
{
    z_stream stream = {.next_in = (Bytef *)message, .avail_in = (uInt)size};
    stream.next_out = (Bytef *)to;
    stream.avail_out = (uInt)size + 64;
    if (window_bits < 9 || deflateInit2(&stream, 6, Z_DEFLATED, -window_bits, 8, Z_DEFAULT_STRATEGY) != Z_OK)
        die("cannot deflate with a window of %d bits", window_bits);
    if (deflate(&stream, Z_SYNC_FLUSH) != Z_OK || stream.avail_in != 0 || stream.avail_out == 0)
        die("deflate failed");
    size_t used = size + 64 - stream.avail_out;
    deflateEnd(&stream);
    return used - sizeof TAIL;
}

struct inflater *new_inflater(bool server_takes_over)
{
    struct inflater *inflater = calloc(1, sizeof *inflater);
    inflater->keeps = server_takes_over;
    if (inflateInit2(&inflater->stream, -15) != Z_OK)
        die("inflateInit2 failed");
    return inflater;
}

static void feed(z_stream *stream, const void *data, size_t size)
{
    stream->next_in = (Bytef *)data;
    stream->avail_in = (uInt)size;
    int result = inflate(stream, Z_SYNC_FLUSH);
    if ((result != Z_OK && result != Z_BUF_ERROR) || stream->avail_in != 0)
        die("the server sent what does not inflate, or too much");
}

void expect_deflated(struct inflater *inflater, const char *data, size_t head, size_t payload, const char *message,
                     size_t size)
{
    if ((unsigned char)data[0] != (FIN_BINARY | RSV1))
        die("the server sent no compressed binary message but one that starts with %#x", (unsigned char)data[0]);
    if (inflater->capacity < size + 1) {
        inflater->capacity = size + 1;
        inflater->room = realloc(inflater->room, inflater->capacity);
    }
    if (!inflater->keeps)
        inflateReset(&inflater->stream);
    inflater->stream.next_out = (Bytef *)inflater->room;
    inflater->stream.avail_out = (uInt)size + 1;
    feed(&inflater->stream, data + head, payload);
    feed(&inflater->stream, TAIL, sizeof TAIL);
    if (inflater->stream.avail_out != 1 || memcmp(inflater->room, message, size) != 0)
        die("the server sent other bytes than it got");
}
#else
static _Noreturn void missing(void)
{
    die("built without zlib: install its headers (zlib1g-dev)");
}

size_t deflate_message(char *to, const char *message, size_t size, int window_bits)
{
    (void)to, (void)message, (void)size, (void)window_bits;
    missing();
}

struct inflater *new_inflater(bool server_takes_over)
{
    (void)server_takes_over;
    missing();
}

void expect_deflated(struct inflater *inflater, const char *data, size_t head, size_t payload, const char *message,
                     size_t size)
{
    (void)inflater, (void)data, (void)head, (void)payload, (void)message, (void)size;
    missing();
}
#endif
