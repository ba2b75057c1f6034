/* A flood of packets that a server counts: trains of 64, cut by the kernel (UDP_SEGMENT), as fast as one core goes.
 * At both edges of the window the flood rests until the server has read all and sleeps; then a packet of one byte asks the
 * server what it has got, and it answers "PACKETS BYTES", the question included. What it did not get the kernel must
 * have dropped (the column `drops` of /proc/net/udp). A server that drops some itself answers "PACKETS BYTES DROPS", with
 * the kernel's drops in it, or "PACKETS BYTES ?" when it does not count them.
 *
 * flood --port P --pid SERVER --size BYTES --seconds S --warm-up S
 */
#define _GNU_SOURCE
#include "common.h"

#include <errno.h>
#include <inttypes.h>
#include <linux/udp.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define TRAIN 64 /* packets in a train */
#define TRAINS 8 /* trains between two looks at the clock */

struct tally {
    uint64_t received, dropped;
    bool counts_drops;
};

static int fd, port;
static pid_t server;
static size_t size;
static char *data;
static uint64_t sent;

static void send_trains(void)
{
    for (int i = 0; i < TRAINS; i++) {
        if (send(fd, data, TRAIN * size, 0) != (ssize_t)(TRAIN * size))
            die("send: %s", strerror(errno));
        sent += TRAIN;
    }
}

/* Reads how many bytes wait in the server's socket, and how often the kernel had no room for more. */
static void read_kernel(unsigned long *waiting, uint64_t *dropped)
{
    char line[512];
    unsigned local_port;
    unsigned long long drops;
    FILE *table = fopen("/proc/net/udp", "r");
    if (table == NULL)
        die("/proc/net/udp: %s", strerror(errno));
    while (fgets(line, sizeof line, table) != NULL) {
        if (sscanf(line, " %*u: 0100007F:%x %*s %*s %*x:%lx %*s %*s %*u %*u %*u %*u %*s %llu", &local_port, waiting,
                   &drops) == 3 && local_port == (unsigned)port) {
            *dropped = drops;
            fclose(table);
            return;
        }
    }
    die("the server has no socket at 127.0.0.1:%d", port);
}

static bool sleeps(pid_t pid)
{
    char path[32], line[256], *state = NULL;
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *file = fopen(path, "r");
    if (file != NULL && fgets(line, sizeof line, file) != NULL)
        state = strrchr(line, ')'); /* the state stands behind the name */
    if (file != NULL)
        fclose(file);
    return state != NULL && state[2] == 'S';
}

/* Waits until the server has read all and is done with it; returns how often the kernel had no room. */
static uint64_t rest(void)
{
    unsigned long waiting;
    uint64_t dropped, patience = now_ns() + STALL_SECONDS * UINT64_C(1000000000);
    for (read_kernel(&waiting, &dropped); waiting != 0 || !sleeps(server); read_kernel(&waiting, &dropped)) {
        struct timespec pause = {.tv_nsec = 200000};
        if (now_ns() > patience)
            die("the server does not read what was sent");
        nanosleep(&pause, NULL);
    }
    return dropped;
}

/* What the server says it has got, without the questions, and what it has dropped beside the kernel's drops. */
static struct tally ask(uint64_t kernel_drops)
{
    char answer[64] = {0}, drops[32] = {0};
    unsigned long long packets, bytes;
    struct tally tally = {0};
    if (send(fd, "?", 1, 0) != 1)
        die("send: %s", strerror(errno));
    if (recv(fd, answer, sizeof answer - 1, 0) <= 0)
        die("the server did not say what it has got: %s", strerror(errno));
    if (sscanf(answer, "%llu %llu %31s", &packets, &bytes, drops) < 2)
        die("the server said %s", answer);
    uint64_t questions = bytes % size;
    if (bytes != (packets - questions) * size + questions)
        die("%llu bytes are not %llu packets of %zu", bytes, packets, size);
    tally.received = packets - questions;
    tally.counts_drops = drops[0] != '?';
    if (drops[0] != 0 && tally.counts_drops)
        tally.dropped = strtoull(drops, NULL, 10) - kernel_drops;
    return tally;
}

/* What the server has received so far, when that and what was dropped is all that was sent. Where GRO is on, a train that
 * finds no room counts as one drop of the kernel. */
static struct tally take_stock(void)
{
    uint64_t drops = rest();
    struct tally tally = ask(drops);
    uint64_t missing = sent - tally.received - tally.dropped;
    if (!tally.counts_drops && tally.received + drops <= sent)
        tally.dropped = missing - drops;
    else if (missing != drops && missing != drops * TRAIN)
        die("%" PRIu64 " packets sent, %" PRIu64 " received, but the kernel dropped %" PRIu64 ", the server %" PRIu64, sent,
            tally.received, drops, tally.dropped);
    return tally;
}

static void flood_until(uint64_t time_ns)
{
    while (now_ns() < time_ns)
        send_trains();
}

int main(int argc, char **argv)
{
    server = (pid_t)option(argc, argv, "pid", 0);
    port = (int)option(argc, argv, "port", 0);
    size = (size_t)option(argc, argv, "size", 100);
    data = malloc(TRAIN * size);
    memset(data, 'x', TRAIN * size);
    fd = udp_to(port);
    int segment = (int)size;
    if (setsockopt(fd, IPPROTO_UDP, UDP_SEGMENT, &segment, sizeof segment) != 0)
        die("UDP_SEGMENT: %s", strerror(errno));
    flood_until(now_ns() + (uint64_t)(option(argc, argv, "warm-up", 0.5) * 1e9));
    struct tally before = take_stock();
    uint64_t sent_before = sent, cpu_ns = process_cpu_ns(server), opens_ns = now_ns();
    flood_until(opens_ns + (uint64_t)(option(argc, argv, "seconds", 2) * 1e9));
    struct tally after = take_stock();
    cpu_ns = process_cpu_ns(server) - cpu_ns;
    double seconds = (double)(now_ns() - opens_ns) / 1e9;
    uint64_t received = after.received - before.received, dropped = after.dropped - before.dropped;
    if (received == 0)
        die("the server got nothing");
    printf("{\"messages\": %" PRIu64 ", \"seconds\": %.6f, \"cpu_seconds\": %.9f, \"sent\": %" PRIu64
           ", \"dropped\": %" PRIu64 "}\n", received, seconds, (double)cpu_ns / 1e9, sent - sent_before, dropped);
    return 0;
}
