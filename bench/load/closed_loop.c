#define _GNU_SOURCE
#include "closed_loop.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

static const struct exchange *exchange;
static struct connection *connections;
static char *input;
static int epoll;
static struct window window;

static ssize_t put(struct connection *c, const char *data, size_t size)
{
    return exchange->put != NULL ? exchange->put(c, data, size) : send(c->fd, data, size, MSG_NOSIGNAL);
}

static ssize_t get(struct connection *c)
{
    return exchange->get != NULL ? exchange->get(c, input, READ_SIZE) : recv(c->fd, input, READ_SIZE, 0);
}

static void wait_for_room(struct connection *c, bool wanted)
{
    if (c->wants_room == wanted)
        return;
    c->wants_room = wanted;
    watch(epoll, c->fd, EPOLL_CTL_MOD, EPOLLIN | (wanted ? EPOLLOUT : 0u), (uint64_t)(c - connections));
}

static void push(struct connection *c)
{
    while (c->sent < c->batch_size) {
        ssize_t count = put(c, c->batch + c->sent, c->batch_size - c->sent);
        if (count < 0 && errno != EAGAIN)
            die("send: %s", strerror(errno));
        if (count <= 0) {
            wait_for_room(c, true);
            return;
        }
        c->sent += (size_t)count;
    }
    wait_for_room(c, false);
}

static void send_batch(struct connection *c)
{
    exchange->next(c);
    c->turn++;
    c->sent = c->received = 0;
    c->sent_ns = now_ns();
    push(c);
}

/* Reads what is there; false when nothing is left to read. */
static bool pull(struct connection *c)
{
    ssize_t count = get(c);
    if (count < 0 && errno == EAGAIN)
        return false;
    if (count <= 0)
        die("the server closed a connection: %s", count < 0 ? strerror(errno) : "end of stream");
    if (exchange->check(c, input, (size_t)count)) {
        if (c->sent < c->batch_size)
            die("the server answered what it did not get yet");
        count_messages(&window, exchange->depth, now_ns() - c->sent_ns);
        send_batch(c);
    }
    return exchange->get != NULL;
}

bool check_bytes(struct connection *c, const char *data, size_t size, const char *expected, size_t total)
{
    if (c->received + size > total)
        die("the server sent more than it got");
    if (memcmp(data, expected + c->received, size) != 0)
        die("the server sent other bytes than it got");
    c->received += size;
    return c->received == total;
}

void fill_letters(char *to, size_t size)
{
    static uint32_t state = 1;
    for (size_t i = 0; i < size; i++) {
        state = state * 1664525u + 1013904223u;
        to[i] = (char)('!' + (state >> 16) % 90);
    }
}

void closed_loop(const struct exchange *with, int argc, char **argv)
{
    int port = (int)option(argc, argv, "port", 0);
    size_t count = (size_t)option(argc, argv, "connections", 50);
    exchange = with;
    input = malloc(READ_SIZE);
    connections = calloc(count, sizeof *connections);
    epoll = epoll_create1(EPOLL_CLOEXEC);
    raise_descriptor_limit();
    for (size_t i = 0; i < count; i++) {
        struct connection *c = &connections[i];
        c->fd = connect_to(port, 0);
        c->turn = (unsigned)i;
        if (exchange->greet != NULL)
            exchange->greet(c);
        set_nonblocking(c->fd);
        watch(epoll, c->fd, EPOLL_CTL_ADD, EPOLLIN, i);
    }
    window_start(&window, (pid_t)option(argc, argv, "pid", 0), option(argc, argv, "warm-up", 0.5),
                 option(argc, argv, "seconds", 2));
    for (size_t i = 0; i < count; i++)
        send_batch(&connections[i]);
    while (!window_over(&window)) {
        struct epoll_event events[512];
        int ready = epoll_wait(epoll, events, 512, 100);
        for (int i = 0; i < ready; i++) {
            struct connection *c = &connections[events[i].data.u64];
            if (events[i].events & EPOLLOUT)
                push(c);
            if (events[i].events & ~(uint32_t)EPOLLOUT)
                while (pull(c))
                    ;
        }
    }
    window_report(&window);
}
