/* The limit with TLS: an echo server on epoll and OpenSSL.
 *
 * echo_tls PORT MODE, certificate and key in $BENCH_CERTIFICATE and $BENCH_KEY
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

static char input[1 << 16];

static SSL_CTX *make_context(void)
{
    SSL_CTX *context = SSL_CTX_new(TLS_server_method());
    const char *certificate = getenv("BENCH_CERTIFICATE"), *key = getenv("BENCH_KEY");
    if (certificate == NULL || key == NULL || SSL_CTX_use_certificate_chain_file(context, certificate) != 1
        || SSL_CTX_use_PrivateKey_file(context, key, SSL_FILETYPE_PEM) != 1) {
        fputs("no usable certificate\n", stderr);
        exit(1);
    }
    SSL_CTX_set_read_ahead(context, 1);
    return context;
}

static int listen_on(int port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) != 0 || listen(fd, 4096) != 0) {
        perror("listen");
        exit(1);
    }
    return fd;
}

static void accept_all(int epoll, int listener, SSL_CTX *context)
{
    int fd, on = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        SSL *ssl = SSL_new(context);
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = ssl};
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        SSL_set_fd(ssl, fd);
        SSL_set_accept_state(ssl);
        epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
    }
}

static void echo(SSL *ssl)
{
    int size;
    while ((size = SSL_read(ssl, input, sizeof input)) > 0)
        if (SSL_write(ssl, input, size) != size)
            break;
    if (SSL_get_error(ssl, size) != SSL_ERROR_WANT_READ) {
        close(SSL_get_fd(ssl));
        SSL_free(ssl);
    }
}

int main(int argc, char **argv)
{
    if (argc < 3) {
        fputs("usage: echo_tls PORT MODE\n", stderr);
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    SSL_CTX *context = make_context();
    int listener = listen_on(atoi(argv[1])), epoll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL}, events[512];
    epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event);
    printf("ready %s\n", argv[1]);
    fflush(stdout);
    for (;;) {
        int ready = epoll_wait(epoll, events, 512, -1);
        for (int i = 0; i < ready; i++) {
            if (events[i].data.ptr == NULL)
                accept_all(epoll, listener, context);
            else
                echo(events[i].data.ptr);
        }
    }
}
