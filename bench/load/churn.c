/* Connections that come and go: connect, one line there and back, close. `concurrency` of them at a
 * time, from 200 loopback addresses. An orderly close sends an end of stream and waits for the
 * server's; with --reset 1 the connection is reset instead, as by a client that crashed.
 *
 * churn --port P --pid SERVER --concurrency N --seconds S --warm-up S --reset 0|1
 */
#define _GNU_SOURCE
#include "common.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define SOURCES 200

enum step { CONNECTING, ANSWER, END };

struct connection {
    int fd;
    enum step step;
    uint64_t started_ns;
    char line[32];
    size_t size, received;
};

static struct connection *connections;
static int epoll, port;
static bool reset;
static struct window window;

static void begin(struct connection *c)
{
    static unsigned serial;
    serial++;
    c->started_ns = now_ns();
    c->step = CONNECTING;
    c->received = 0;
    c->size = (size_t)snprintf(c->line, sizeof c->line, "hello %u\n", serial);
    c->fd = start_connect(port, 2 + serial % SOURCES);
    if (reset) {
        struct linger now = {.l_onoff = 1, .l_linger = 0};
        setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    }
    watch(epoll, c->fd, EPOLL_CTL_ADD, EPOLLOUT, (uint64_t)(c - connections));
}

static void finish(struct connection *c)
{
    count_messages(&window, 1, now_ns() - c->started_ns);
    close(c->fd);
    begin(c);
}

static void greet(struct connection *c)
{
    int error = 0;
    socklen_t length = sizeof error;
    getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &length);
    if (error != 0)
        die("connect: %s", strerror(error));
    if (send(c->fd, c->line, c->size, MSG_NOSIGNAL) != (ssize_t)c->size)
        die("send: %s", strerror(errno));
    c->step = ANSWER;
    watch(epoll, c->fd, EPOLL_CTL_MOD, EPOLLIN, (uint64_t)(c - connections));
}

static void hear(struct connection *c)
{
    char input[64];
    ssize_t count = recv(c->fd, input, sizeof input, 0);
    if (count < 0 && errno == EAGAIN)
        return;
    if (c->step == END) {
        if (count != 0)
            die("no end of stream from the server: %s", count < 0 ? strerror(errno) : "more bytes");
        finish(c);
        return;
    }
    if (count <= 0)
        die("refused or lost before the answer: %s", count < 0 ? strerror(errno) : "end of stream");
    if (c->received + (size_t)count > c->size || memcmp(input, c->line + c->received, (size_t)count) != 0)
        die("the server sent other bytes than it got");
    c->received += (size_t)count;
    if (c->received < c->size)
        return;
    if (reset) {
        finish(c);
        return;
    }
    c->step = END;
    shutdown(c->fd, SHUT_WR);
}

int main(int argc, char **argv)
{
    size_t count = (size_t)option(argc, argv, "concurrency", 32);
    port = (int)option(argc, argv, "port", 0);
    reset = option(argc, argv, "reset", 0) != 0;
    epoll = epoll_create1(EPOLL_CLOEXEC);
    connections = calloc(count, sizeof *connections);
    window_start(&window, (pid_t)option(argc, argv, "pid", 0), option(argc, argv, "warm-up", 0.5),
                 option(argc, argv, "seconds", 2));
    for (size_t i = 0; i < count; i++)
        begin(&connections[i]);
    while (!window_over(&window)) {
        struct epoll_event events[512];
        int ready = epoll_wait(epoll, events, 512, 100);
        for (int i = 0; i < ready; i++) {
            struct connection *c = &connections[events[i].data.u64];
            if (c->step == CONNECTING)
                greet(c);
            else
                hear(c);
        }
    }
    window_report(&window);
    return 0;
}
