/* Closed-loop load on an echo server: each connection sends `depth` messages in one write, waits until
 * all of them are back, compares every byte, and sends the next ones.
 *
 * stream --port P --pid SERVER --connections N --size BYTES --depth N --seconds S --warm-up S --tls 0|1
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
#ifdef WITH_TLS
#include <openssl/err.h>
#include <openssl/ssl.h>
#else
typedef void SSL;
#endif

#define BATCHES 16 /* different contents that connections take in turn */
#define READ_SIZE (1 << 18)

struct connection {
    int fd;
    SSL *ssl;
    const char *batch;
    size_t sent, received;
    uint64_t sent_ns;
    unsigned next_batch;
    bool wants_room;
};

static struct connection *connections;
static char *batches, *input;
static size_t batch_size, depth;
static int epoll;
static struct window window;

#ifdef WITH_TLS
static SSL *start_tls(int fd)
{
    static SSL_CTX *context;
    if (context == NULL) {
        context = SSL_CTX_new(TLS_client_method());
        SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
        SSL_CTX_set_read_ahead(context, 1);
    }
    SSL *ssl = SSL_new(context);
    SSL_set_fd(ssl, fd);
    if (SSL_connect(ssl) != 1)
        die("TLS handshake: %s", ERR_reason_error_string(ERR_get_error()));
    return ssl;
}

/* Bytes moved, 0 at the end of the stream, -1 with EAGAIN when the socket is not ready. */
static ssize_t tls_result(SSL *ssl, int result)
{
    if (result > 0)
        return result;
    int error = SSL_get_error(ssl, result);
    if (error == SSL_ERROR_ZERO_RETURN)
        return 0;
    errno = error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE ? EAGAIN : EPROTO;
    return -1;
}
#else
static SSL *start_tls(int fd)
{
    (void)fd;
    die("built without OpenSSL: install its headers (libssl-dev)");
}
#endif

static ssize_t put(struct connection *c, const char *data, size_t size)
{
#ifdef WITH_TLS
    if (c->ssl != NULL)
        return tls_result(c->ssl, SSL_write(c->ssl, data, (int)size));
#endif
    return send(c->fd, data, size, MSG_NOSIGNAL);
}

static ssize_t get(struct connection *c)
{
#ifdef WITH_TLS
    if (c->ssl != NULL)
        return tls_result(c->ssl, SSL_read(c->ssl, input, READ_SIZE));
#endif
    return recv(c->fd, input, READ_SIZE, 0);
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
    while (c->sent < batch_size) {
        ssize_t count = put(c, c->batch + c->sent, batch_size - c->sent);
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
    c->batch = batches + batch_size * (c->next_batch++ % BATCHES);
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
    if (c->received + (size_t)count > c->sent)
        die("the server sent more than it got");
    if (memcmp(input, c->batch + c->received, (size_t)count) != 0)
        die("the server sent other bytes than it got");
    c->received += (size_t)count;
    if (c->received == batch_size) {
        count_messages(&window, depth, now_ns() - c->sent_ns);
        send_batch(c);
    }
    return c->ssl != NULL; /* TLS may hold more than the socket shows */
}

/* Each batch holds `depth` lines of `size` bytes, newline included, with letters that differ everywhere. */
static void fill_batches(size_t size)
{
    uint32_t state = 1;
    batches = malloc(batch_size * BATCHES);
    for (size_t i = 0; i < batch_size * BATCHES; i++) {
        state = state * 1664525u + 1013904223u;
        batches[i] = i % size == size - 1 ? '\n' : (char)('!' + (state >> 16) % 90);
    }
}

int main(int argc, char **argv)
{
    int port = (int)option(argc, argv, "port", 0);
    size_t count = (size_t)option(argc, argv, "connections", 50), size = (size_t)option(argc, argv, "size", 100);
    depth = (size_t)option(argc, argv, "depth", 1);
    batch_size = size * depth;
    fill_batches(size);
    input = malloc(READ_SIZE);
    connections = calloc(count, sizeof *connections);
    epoll = epoll_create1(EPOLL_CLOEXEC);
    raise_descriptor_limit();
    for (size_t i = 0; i < count; i++) {
        struct connection *c = &connections[i];
        c->fd = connect_to(port, 0);
        c->next_batch = (unsigned)i;
        if (option(argc, argv, "tls", 0) != 0)
            c->ssl = start_tls(c->fd);
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
    return 0;
}
