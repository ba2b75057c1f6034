/* Closed-loop load on a UDP echo server: a window of packets is out; for each that comes back a new one goes. Every
 * packet has a number of its own, and what comes back must be one that is out, byte for byte. One that does not come back
 * in time is counted as lost and sent again.
 *
 * datagrams --port P --pid SERVER --depth N --size BYTES --seconds S --warm-up S
 */
#define _GNU_SOURCE
#include "common.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define MAX_DEPTH 1024
#define MAX_SIZE 2048
#define LOST_NS 200000000u /* an answer that takes longer is lost */

struct slot {
    uint64_t sent_ns;
    char data[MAX_SIZE]; /* the number in 8 bytes, the rest goes with the number */
};

static int fd;
static size_t depth, size;
static struct slot slots[MAX_DEPTH]; /* what is out: the one with number n in slot n % depth */
static char input[MAX_DEPTH][MAX_SIZE];
static struct mmsghdr outgoing[MAX_DEPTH], incoming[MAX_DEPTH];
static struct iovec outgoing_parts[MAX_DEPTH], incoming_parts[MAX_DEPTH];
static struct window window;

static uint64_t number_of(const char *data)
{
    uint64_t number;
    memcpy(&number, data, sizeof number);
    return number;
}

/* Makes a packet with another number, and bytes that go with it. */
static void renew(struct slot *slot, uint64_t number)
{
    uint64_t state = number;
    memcpy(slot->data, &number, sizeof number);
    for (size_t i = sizeof number; i < size; i += sizeof state) {
        state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        memcpy(slot->data + i, &state, sizeof state); /* up to 7 bytes too many, for which there is room */
    }
}

/* Lines a packet up to be sent as number `index` of a batch. */
static void line_up(struct slot *slot, unsigned index, uint64_t now)
{
    slot->sent_ns = now;
    outgoing_parts[index] = (struct iovec){slot->data, size};
    outgoing[index].msg_hdr = (struct msghdr){.msg_iov = &outgoing_parts[index], .msg_iovlen = 1};
}

static void send_batch(unsigned count)
{
    for (unsigned sent = 0; sent < count;) {
        int done = sendmmsg(fd, outgoing + sent, count - sent, 0);
        if (done < 0)
            die("sendmmsg: %s", strerror(errno));
        sent += (unsigned)done;
    }
}

/* True when the packet that came back is out, and then another one takes its place. */
static bool answered(const char *data, size_t count, uint64_t now)
{
    if (count != size)
        die("a packet of %zu bytes came back, %zu were sent", count, size);
    uint64_t number = number_of(data);
    struct slot *slot = &slots[number % depth];
    if (number < number_of(slot->data) && window.lost > 0)
        return false; /* it was given up too early and its twin was faster */
    if (memcmp(data, slot->data, size) != 0)
        die("a packet came back that was not sent so, or twice");
    count_messages(&window, 1, now - slot->sent_ns);
    renew(slot, number + depth);
    return true;
}

static int receive_batch(void)
{
    for (size_t i = 0; i < depth; i++) {
        incoming_parts[i] = (struct iovec){input[i], MAX_SIZE};
        incoming[i].msg_hdr = (struct msghdr){.msg_iov = &incoming_parts[i], .msg_iovlen = 1};
    }
    int count = recvmmsg(fd, incoming, (unsigned)depth, MSG_WAITFORONE, NULL);
    if (count < 0 && errno != EAGAIN)
        die("recvmmsg: %s", strerror(errno));
    return count < 0 ? 0 : count;
}

/* Sends again what has not come back for too long. */
static void resend_lost(uint64_t now)
{
    unsigned count = 0;
    for (size_t i = 0; i < depth; i++)
        if (now - slots[i].sent_ns > LOST_NS)
            line_up(&slots[i], count++, now);
    window.lost += count;
    send_batch(count);
}

int main(int argc, char **argv)
{
    struct timeval patience = {.tv_usec = LOST_NS / 1000};
    depth = (size_t)option(argc, argv, "depth", 64);
    size = (size_t)option(argc, argv, "size", 100);
    if (depth < 1 || depth > MAX_DEPTH || size < sizeof(uint64_t) || size > MAX_SIZE - sizeof(uint64_t))
        die("depth must be 1 to %d, size 8 to %zu", MAX_DEPTH, MAX_SIZE - sizeof(uint64_t));
    fd = udp_to((int)option(argc, argv, "port", 0));
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    window_start(&window, (pid_t)option(argc, argv, "pid", 0), option(argc, argv, "warm-up", 0.5),
                 option(argc, argv, "seconds", 2));
    uint64_t looked_ns = now_ns();
    for (size_t i = 0; i < depth; i++) {
        renew(&slots[i], i);
        line_up(&slots[i], (unsigned)i, looked_ns);
    }
    send_batch((unsigned)depth);
    while (!window_over(&window)) {
        int count = receive_batch();
        unsigned next = 0;
        uint64_t now = now_ns();
        for (int i = 0; i < count; i++)
            if (answered(input[i], incoming[i].msg_len, now))
                line_up(&slots[number_of(input[i]) % depth], next++, now);
        send_batch(next);
        if (now - looked_ns > LOST_NS) {
            resend_lost(now);
            looked_ns = now;
        }
    }
    window_report(&window);
    return 0;
}
