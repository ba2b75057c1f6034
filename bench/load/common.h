/* What every load generator shares: clocks, sockets, a latency histogram and the report. */
#ifndef BENCH_COMMON_H
#define BENCH_COMMON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define STALL_SECONDS 10 /* no answer for so long is a failure */
#define UDP_BUFFER (4 << 20) /* bytes of a receive buffer (SO_RCVBUF), in all servers too */

/* Prints "error: ..." on standard error and ends the program with status 1. */
_Noreturn void die(const char *format, ...) __attribute__((format(printf, 1, 2)));

uint64_t now_ns(void);

/* CPU time used so far by all threads of another process, user and kernel. */
uint64_t process_cpu_ns(pid_t pid);

/* A blocking connection to 127.0.0.1:port with TCP_NODELAY. source 0 leaves the source address to
 * the kernel, another number n binds it to 127.0.0.n. */
int connect_to(int port, unsigned source);

/* The same without waiting: the connection is there when epoll reports EPOLLOUT. */
int start_connect(int port, unsigned source);

/* A blocking UDP socket that is connected to 127.0.0.1:port, with a receive buffer as large as the servers'. Receiving
 * gives up after STALL_SECONDS. */
int udp_to(int port);

void set_nonblocking(int fd);
void watch(int epoll, int fd, int operation, uint32_t events, uint64_t data);
void raise_descriptor_limit(void);

/* Latencies in nanoseconds, in buckets that are 1/64 wide. */
#define BUCKETS (64 * 40)
struct histogram {
    uint64_t count[BUCKETS];
    uint64_t total;
};
void record(struct histogram *histogram, uint64_t ns);
double quantile_us(const struct histogram *histogram, double fraction);

/* The measured time: a warm-up, then a window in which messages are counted. */
struct window {
    pid_t server;
    uint64_t opens_ns, closes_ns, progress_ns, cpu_ns;
    uint64_t messages;
    uint64_t lost; /* packets, since the start */
    bool open;
    struct histogram latencies;
};
void window_start(struct window *window, pid_t server, double warm_up, double seconds);
/* To be called once a turn; true when the window is over. Ends the program when nothing moves. */
bool window_over(struct window *window);
void count_messages(struct window *window, uint64_t messages, uint64_t latency_ns);
/* One line of JSON: messages, packets lost, seconds, CPU of the server, latencies. */
void window_report(struct window *window);

/* "--name value" pairs; an option that is not there has its fallback. */
double option(int argc, char **argv, const char *name, double fallback);

#endif
