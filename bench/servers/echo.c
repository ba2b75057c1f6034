/* The limit: an echo server on epoll, with no framing. In group mode it reads "join" and "send N" and sends N
 * lines to every member in one write.
 *
 * echo PORT MODE
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define LINE 100
#define MAX_MEMBERS 65536

static char input[1 << 18];
static int members[MAX_MEMBERS], member_count;

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

static void accept_all(int epoll, int listener)
{
    int fd, on = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
    }
}

static void broadcast(int burst)
{
    static unsigned serial;
    char lines[64 * LINE], number[16];
    burst = burst > 64 ? 64 : burst;
    memset(lines, 'x', sizeof lines);
    for (int i = 0; i < burst; i++) {
        snprintf(number, sizeof number, "%010u", ++serial);
        memcpy(lines + i * LINE, number, 10);
        lines[(i + 1) * LINE - 1] = '\n';
    }
    for (int i = 0; i < member_count; i++)
        if (write(members[i], lines, (size_t)burst * LINE) < 0)
            perror("write");
}

static void command(int fd, ssize_t size)
{
    input[size] = 0;
    if (strncmp(input, "send ", 5) == 0) {
        broadcast(atoi(input + 5));
    } else if (member_count < MAX_MEMBERS) {
        members[member_count++] = fd;
        if (write(fd, "joined\n", 7) != 7)
            perror("write");
    }
}

static void echo(int fd, ssize_t size)
{
    /* The closed loop of the load keeps less in flight than a socket buffer holds. */
    if (write(fd, input, (size_t)size) != size)
        close(fd);
}

int main(int argc, char **argv)
{
    if (argc < 3) {
        fputs("usage: echo PORT MODE\n", stderr);
        return 2;
    }
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    int grouped = strcmp(argv[2], "group") == 0;
    int listener = listen_on(atoi(argv[1])), epoll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = listener}, events[512];
    epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event);
    printf("ready %s\n", argv[1]);
    fflush(stdout);
    for (;;) {
        int ready = epoll_wait(epoll, events, 512, -1);
        for (int i = 0; i < ready; i++) {
            int fd = events[i].data.fd;
            if (fd == listener) {
                accept_all(epoll, listener);
                continue;
            }
            ssize_t size = read(fd, input, sizeof input - 1);
            if (size <= 0)
                close(fd);
            else if (grouped)
                command(fd, size);
            else
                echo(fd, size);
        }
    }
}
