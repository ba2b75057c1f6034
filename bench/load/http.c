/* Closed-loop load on an HTTP server: each connection asks for /small.txt, waits until the whole answer is there,
 * compares its body with the file and asks again. The file's path is in the environment as BENCH_FILE.
 *
 * http --port P --pid SERVER --connections N --seconds S --warm-up S
 */
#define _GNU_SOURCE
#include "closed_loop.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ROOM 65536

struct answer {
    char data[ROOM];
    size_t size;
};

static char request[256], *body;
static size_t body_size;

static void read_file(void)
{
    const char *path = getenv("BENCH_FILE");
    FILE *file = path == NULL ? NULL : fopen(path, "rb");
    if (file == NULL)
        die("BENCH_FILE names no file");
    body = malloc(ROOM / 2);
    body_size = fread(body, 1, ROOM / 2, file);
    fclose(file);
}

static void greet(struct connection *c)
{
    c->own = calloc(1, sizeof(struct answer));
}

static void next(struct connection *c)
{
    c->batch = request;
    c->batch_size = strlen(request);
}

static void check_head(char *head)
{
    if (strncmp(head, "HTTP/1.1 200 ", 13) != 0)
        die("the server answered %.40s", head);
    const char *length = strcasestr(head, "\r\nContent-Length:");
    if (length == NULL || strtoull(length + 17, NULL, 10) != body_size)
        die("the server does not say that the body has %zu bytes", body_size);
    if (strcasestr(head, "\r\nDate:") == NULL || strcasestr(head, "\r\nContent-Type: text/plain") == NULL)
        die("the answer has no date or no type");
}

static bool check(struct connection *c, const char *data, size_t got)
{
    struct answer *answer = c->own;
    if (answer->size + got >= ROOM)
        die("the server sent more than the file");
    memcpy(answer->data + answer->size, data, got);
    answer->size += got;
    answer->data[answer->size] = 0;
    char *end = memmem(answer->data, answer->size, "\r\n\r\n", 4);
    if (end == NULL)
        return false;
    size_t head = (size_t)(end - answer->data) + 4;
    if (answer->size < head + body_size)
        return false;
    *end = 0;
    check_head(answer->data);
    if (answer->size != head + body_size || memcmp(answer->data + head, body, body_size) != 0)
        die("the server sent other bytes than those of the file");
    answer->size = 0;
    return true;
}

int main(int argc, char **argv)
{
    struct exchange exchange = {.depth = 1, .greet = greet, .next = next, .check = check};
    snprintf(request, sizeof request, "GET /small.txt HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n",
             (int)option(argc, argv, "port", 0));
    read_file();
    closed_loop(&exchange, argc, argv);
    return 0;
}
