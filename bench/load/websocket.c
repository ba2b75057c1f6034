/* Closed-loop load on a WebSocket server that echoes binary messages: a batch is `depth` masked frames. With
 * --deflate 1 the messages are JSON, offered and sent compressed, and every answer must be compressed too.
 *
 * websocket --port P --pid SERVER --connections N --size BYTES --depth N --seconds S --warm-up S --deflate 0|1
 */
#define _GNU_SOURCE
#include "closed_loop.h"
#include "deflate.h"
#include "websocket_client.h"

#include <stdlib.h>
#include <string.h>

#define LARGEST_SET (64 << 20) /* bytes of all batches; there are fewer of them when messages are large */

struct batch {
    char *frames, *answer; /* the answer as it is on the wire, but the messages alone when they are compressed */
    size_t frames_size, answer_size;
};

/* What came of the answers that are compressed. */
struct answers {
    struct inflater *inflater;
    char *data; /* of a frame that is not whole */
    size_t size, done;
};

static struct batch *batches;
static size_t count, depth, size;
static int deflates;

static void fill_batch(struct batch *batch, int window_bits)
{
    char *payload = malloc(size + 64), *message = payload;
    batch->frames = malloc(depth * (size + 64 + LARGEST_HEAD));
    batch->answer = malloc(depth * (size + LARGEST_HEAD));
    for (size_t i = 0; i < depth; i++) {
        unsigned first = FIN_BINARY | (deflates ? RSV1 : 0);
        size_t used = size;
        if (!deflates)
            batch->answer_size += put_answer_head(batch->answer + batch->answer_size, first, size);
        message = batch->answer + batch->answer_size;
        batch->answer_size += size;
        if (deflates) {
            fill_json(message, size);
            used = deflate_message(payload, message, size, window_bits);
        } else {
            fill_letters(message, size);
        }
        batch->frames_size +=
            put_frame(batch->frames + batch->frames_size, first, deflates ? payload : message, used);
    }
    free(payload);
}

static void fill_batches(int window_bits)
{
    count = deflates ? 256 : 16;
    if (count * size * depth > LARGEST_SET)
        count = LARGEST_SET / (size * depth);
    batches = calloc(count, sizeof *batches);
    for (size_t i = 0; i < count; i++)
        fill_batch(&batches[i], window_bits);
}

static void greet(struct connection *c)
{
    static int window_bits;
    struct agreement agreement = websocket_handshake(c->fd, deflates ? AS_BROWSERS_DO : NO_DEFLATE);
    if (batches == NULL)
        fill_batches(window_bits = agreement.client_window_bits);
    if (agreement.client_window_bits != window_bits)
        die("the server asks for another window on each connection");
    if (deflates) {
        struct answers *answers = c->own = calloc(1, sizeof *answers);
        answers->inflater = new_inflater(agreement.server_takes_over);
        answers->data = malloc(depth * (size + 64) + READ_SIZE);
    }
}

static void next(struct connection *c)
{
    struct batch *batch = &batches[c->turn % count];
    c->batch = batch->frames;
    c->batch_size = batch->frames_size;
}

/* The batch that is under way: `next` has moved on. */
static struct batch *awaited(const struct connection *c)
{
    return &batches[(c->turn - 1) % count];
}

static bool check(struct connection *c, const char *data, size_t got)
{
    return check_bytes(c, data, got, awaited(c)->answer, awaited(c)->answer_size);
}

static bool check_deflated(struct connection *c, const char *data, size_t got)
{
    struct answers *answers = c->own;
    size_t used = 0, head, payload;
    memcpy(answers->data + answers->size, data, got);
    answers->size += got;
    while (parse_head(answers->data + used, answers->size - used, &head, &payload)) {
        if (payload > size + 64 || answers->done == depth)
            die("the server sent more than it got");
        if (answers->size - used < head + payload)
            break;
        expect_deflated(answers->inflater, answers->data + used, head, payload,
                        awaited(c)->answer + answers->done * size, size);
        answers->done++;
        used += head + payload;
    }
    answers->size -= used;
    memmove(answers->data, answers->data + used, answers->size);
    if (answers->done < depth)
        return false;
    if (answers->size != 0)
        die("the server sent more than it got");
    answers->done = 0;
    return true;
}

int main(int argc, char **argv)
{
    size = (size_t)option(argc, argv, "size", 100);
    depth = (size_t)option(argc, argv, "depth", 1);
    deflates = option(argc, argv, "deflate", 0) != 0;
    struct exchange exchange = {
        .depth = depth, .greet = greet, .next = next, .check = deflates ? check_deflated : check};
    closed_loop(&exchange, argc, argv);
    return 0;
}
