/* What a WebSocket frame needs of the machine: heads, masks, and UTF-8 that comes in pieces (RFC 6455, RFC 3629). */
#ifndef PORTICO_FRAMES_H
#define PORTICO_FRAMES_H
#include <stdint.h>
#include <string.h>

#if defined(__GNUC__) && !defined(__clang__)
#define PORTICO_VECTORISED __attribute__((optimize("O3"), unused))
#elif defined(__GNUC__)
#define PORTICO_VECTORISED __attribute__((unused))
#else
#define PORTICO_VECTORISED
#endif

typedef struct {
    unsigned char first;    /* FIN, RSV1-3 and opcode */
    int masked;
    int size;               /* of the head */
    int minimal;            /* the length is in the shortest form */
    uint32_t key;           /* as it lies in memory */
    uint64_t length;        /* of the payload */
} portico_frame;

/* Read the head of a frame: 1, or 0 with `frame->size` saying how many bytes there must be. */
static inline int portico_frame_head(const char *data, Py_ssize_t size, portico_frame *frame) {
    const unsigned char *bytes = (const unsigned char *)data;
    int i, more;
    if (size < 2) { frame->size = 2; return 0; }
    frame->first = bytes[0];
    frame->masked = bytes[1] >> 7;
    frame->length = bytes[1] & 127;
    more = frame->length == 126 ? 2 : frame->length == 127 ? 8 : 0;
    frame->size = 2 + more + (frame->masked ? 4 : 0);
    if (size < frame->size) return 0;
    frame->minimal = 1;
    if (more) {
        frame->length = 0;
        for (i = 0; i < more; i++) frame->length = frame->length << 8 | bytes[2 + i];
        frame->minimal = frame->length >= (more == 2 ? 126 : 65536);
    }
    if (frame->masked) memcpy(&frame->key, bytes + 2 + more, 4);
    return 1;
}

/* Write the head of a frame but for its mask; return its size. */
static inline int portico_write_head(char *out, int first, int masked, uint64_t length) {
    unsigned char *bytes = (unsigned char *)out;
    int i, more = length < 126 ? 0 : length < 65536 ? 2 : 8;
    bytes[0] = (unsigned char)first;
    bytes[1] = (unsigned char)((masked ? 128 : 0) | (more == 0 ? (int)length : more == 2 ? 126 : 127));
    for (i = 0; i < more; i++) bytes[2 + i] = (unsigned char)(length >> 8 * (more - 1 - i));
    return 2 + more;
}

/* The key for what follows after `size` bytes. */
static inline uint32_t portico_rotated(uint32_t key, Py_ssize_t size) {
    unsigned char from[4], to[4];
    int i;
    memcpy(from, &key, 4);
    for (i = 0; i < 4; i++) to[i] = from[(size + i) & 3];
    memcpy(&key, to, 4);
    return key;
}

/* Copy `size` bytes and mask them; return the bitwise or of what was written: under 0x80, it is ASCII. */
PORTICO_VECTORISED
static unsigned char portico_mask(char *out, const char *data, Py_ssize_t size, uint32_t key) {
    uint64_t wide = (uint64_t)key << 32 | key, seen = 0, word;
    unsigned char bytes[4], all = 0;
    Py_ssize_t i = 0;
    for (; i + 8 <= size; i += 8) {
        memcpy(&word, data + i, 8);
        word ^= wide;
        memcpy(out + i, &word, 8);
        seen |= word;
    }
    memcpy(bytes, &key, 4);
    for (; i < size; i++) {
        unsigned char each = (unsigned char)data[i] ^ bytes[i & 3];
        out[i] = (char)each;
        all |= each;
    }
    return all | (seen & 0x8080808080808080ULL ? 0x80 : 0);
}

typedef struct {
    unsigned char missing;      /* bytes of a character that has begun */
    unsigned char low, high;    /* between which the next one of them must be */
} portico_utf8;

/* Go on with UTF-8: 1, or 0 as soon as it is none (RFC 3629 section 4). */
static inline int portico_utf8_goes_on(portico_utf8 *state, const char *data, Py_ssize_t size) {
    const unsigned char *at = (const unsigned char *)data, *end = at + size;
    uint64_t word;
    while (at < end) {
        unsigned char each;
        if (!state->missing) {
            while (end - at >= 8) {
                memcpy(&word, at, 8);
                if (word & 0x8080808080808080ULL) break;
                at += 8;
            }
            if (at == end) break;
            each = *at++;
            if (each < 0x80) continue;
            if (each < 0xC2 || each > 0xF4) return 0;
            state->missing = each < 0xE0 ? 1 : each < 0xF0 ? 2 : 3;
            state->low = each == 0xE0 ? 0xA0 : each == 0xF0 ? 0x90 : 0x80;
            state->high = each == 0xED ? 0x9F : each == 0xF4 ? 0x8F : 0xBF;
        } else {
            each = *at++;
            if (each < state->low || each > state->high) return 0;
            state->missing--;
            state->low = 0x80;
            state->high = 0xBF;
        }
    }
    return 1;
}

/* How many bytes at the end belong to a character that has begun and not ended. */
static inline int portico_utf8_rest(const char *data, Py_ssize_t size) {
    int back;
    for (back = 1; back <= 3 && back <= size; back++) {
        unsigned char each = (unsigned char)data[size - back];
        if (each < 0x80) return 0;
        if (each >= 0xC0) return (each < 0xE0 ? 2 : each < 0xF0 ? 3 : 4) > back ? back : 0;
    }
    return 0;
}
#endif
