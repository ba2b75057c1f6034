#define _GNU_SOURCE
#include "common.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

void die(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fputs("error: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(1);
}

uint64_t now_ns(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

uint64_t process_cpu_ns(pid_t pid)
{
    clockid_t clock;
    struct timespec time;
    if (clock_getcpuclockid(pid, &clock) != 0 || clock_gettime(clock, &time) != 0)
        die("the server (process %d) is gone", (int)pid);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static int open_socket(int port, unsigned source, int flags)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | flags, 0);
    if (fd < 0)
        die("socket: %s", strerror(errno));
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    struct sockaddr_in address = {.sin_family = AF_INET};
    if (source != 0) {
        setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK - 1 + source);
        if (bind(fd, (struct sockaddr *)&address, sizeof address) != 0)
            die("bind to 127.0.0.%u: %s", source, strerror(errno));
    }
    address.sin_port = htons((uint16_t)port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) != 0 && errno != EINPROGRESS)
        die("connect: %s", strerror(errno));
    return fd;
}

int connect_to(int port, unsigned source)
{
    return open_socket(port, source, 0);
}

int start_connect(int port, unsigned source)
{
    return open_socket(port, source, SOCK_NONBLOCK);
}

int udp_to(int port)
{
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), size = UDP_BUFFER;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    struct timeval patience = {.tv_sec = STALL_SECONDS};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) != 0)
        die("UDP socket: %s", strerror(errno));
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    return fd;
}

void set_nonblocking(int fd)
{
    if (fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) != 0)
        die("fcntl: %s", strerror(errno));
}

void watch(int epoll, int fd, int operation, uint32_t events, uint64_t data)
{
    struct epoll_event event = {.events = events, .data.u64 = data};
    if (epoll_ctl(epoll, operation, fd, &event) != 0)
        die("epoll_ctl: %s", strerror(errno));
}

void raise_descriptor_limit(void)
{
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

void record(struct histogram *histogram, uint64_t ns)
{
    unsigned bucket = (unsigned)ns;
    if (ns >= 64) {
        unsigned shift = 57u - (unsigned)__builtin_clzll(ns);
        bucket = shift * 64 + (unsigned)(ns >> shift);
    }
    histogram->count[bucket < BUCKETS ? bucket : BUCKETS - 1]++;
    histogram->total++;
}

double quantile_us(const struct histogram *histogram, double fraction)
{
    uint64_t wanted = (uint64_t)((double)histogram->total * fraction), seen = 0;
    for (unsigned bucket = 0; bucket < BUCKETS; bucket++) {
        seen += histogram->count[bucket];
        if (seen > wanted) {
            if (bucket < 64)
                return bucket / 1000.0;
            return (double)((uint64_t)(64 + bucket % 64) << (bucket / 64 - 1)) / 1000.0;
        }
    }
    return 0;
}

void window_start(struct window *window, pid_t server, double warm_up, double seconds)
{
    memset(window, 0, sizeof *window);
    window->server = server;
    window->progress_ns = now_ns();
    window->opens_ns = window->progress_ns + (uint64_t)(warm_up * 1e9);
    window->closes_ns = window->opens_ns + (uint64_t)(seconds * 1e9);
}

bool window_over(struct window *window)
{
    uint64_t now = now_ns();
    if (now - window->progress_ns > STALL_SECONDS * UINT64_C(1000000000))
        die("no answer for %d seconds", STALL_SECONDS);
    if (!window->open && now >= window->opens_ns) {
        window->open = true;
        window->opens_ns = now;
        window->messages = 0;
        memset(&window->latencies, 0, sizeof window->latencies);
        window->cpu_ns = process_cpu_ns(window->server);
    }
    if (!window->open || now < window->closes_ns || window->messages == 0)
        return false;
    window->cpu_ns = process_cpu_ns(window->server) - window->cpu_ns;
    window->closes_ns = now;
    return true;
}

void count_messages(struct window *window, uint64_t messages, uint64_t latency_ns)
{
    window->messages += messages;
    window->progress_ns = now_ns();
    record(&window->latencies, latency_ns);
}

void window_report(struct window *window)
{
    printf("{\"messages\": %llu, \"lost\": %llu, \"seconds\": %.6f, \"cpu_seconds\": %.9f, \"p50_us\": %.2f, "
           "\"p99_us\": %.2f}\n",
           (unsigned long long)window->messages, (unsigned long long)window->lost,
           (double)(window->closes_ns - window->opens_ns) / 1e9, (double)window->cpu_ns / 1e9,
           quantile_us(&window->latencies, 0.5), quantile_us(&window->latencies, 0.99));
}

double option(int argc, char **argv, const char *name, double fallback)
{
    for (int i = 1; i + 1 < argc; i += 2)
        if (strncmp(argv[i], "--", 2) == 0 && strcmp(argv[i] + 2, name) == 0)
            return atof(argv[i + 1]);
    return fallback;
}
