/* Receivers of a group. Each member says "join" and hears "joined"; then one more connection says
 * "send BURST" and the server sends BURST lines to every member. When all members have all of them, byte
 * for byte, it says so again. A line is a running number of ten digits, filled up with 'x'.
 *
 * group --port P --pid SERVER --members N --burst N --size BYTES --seconds S --warm-up S
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

#define MEMBERS_PER_ADDRESS 500

struct member {
    int fd;
    size_t received;
};

static struct member *members;
static char *expected, *input;
static size_t burst, size;
static struct window window;

static void join(struct member *member, int port, unsigned source)
{
    static const char answer[] = "joined\n";
    char heard[sizeof answer] = {0};
    member->fd = connect_to(port, source);
    if (send(member->fd, "join\n", 5, MSG_NOSIGNAL) != 5)
        die("send: %s", strerror(errno));
    struct timeval patience = {.tv_sec = STALL_SECONDS};
    setsockopt(member->fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    if (recv(member->fd, heard, sizeof answer - 1, MSG_WAITALL) != sizeof answer - 1 || strcmp(heard, answer) != 0)
        die("the server did not answer \"join\" with \"joined\"");
    set_nonblocking(member->fd);
}

/* True when the member has got the whole burst with these bytes. */
static bool pull(struct member *member)
{
    ssize_t count = recv(member->fd, input, burst * size + 1, 0);
    if (count < 0 && errno == EAGAIN)
        return false;
    if (count <= 0)
        die("the server closed a member: %s", count < 0 ? strerror(errno) : "end of stream");
    if (member->received + (size_t)count > burst * size)
        die("a member got more than was sent");
    if (memcmp(input, expected + member->received, (size_t)count) != 0)
        die("a member got other bytes than were sent");
    member->received += (size_t)count;
    return member->received == burst * size;
}

static void expect_next(void)
{
    static unsigned serial;
    char number[16];
    for (size_t i = 0; i < burst; i++) {
        char *line = expected + i * size;
        snprintf(number, sizeof number, "%010u", ++serial);
        memset(line, 'x', size - 1);
        memcpy(line, number, 10);
        line[size - 1] = '\n';
    }
}

int main(int argc, char **argv)
{
    int port = (int)option(argc, argv, "port", 0), epoll = epoll_create1(EPOLL_CLOEXEC);
    size_t count = (size_t)option(argc, argv, "members", 1000), waiting = 0;
    burst = (size_t)option(argc, argv, "burst", 1);
    size = (size_t)option(argc, argv, "size", 100);
    members = calloc(count, sizeof *members);
    expected = malloc(burst * size);
    input = malloc(burst * size + 1);
    raise_descriptor_limit();
    for (size_t i = 0; i < count; i++) {
        join(&members[i], port, 2 + (unsigned)(i / MEMBERS_PER_ADDRESS));
        watch(epoll, members[i].fd, EPOLL_CTL_ADD, EPOLLIN, i);
    }
    char command[32];
    size_t command_size = (size_t)snprintf(command, sizeof command, "send %zu\n", burst);
    int control = connect_to(port, 0);
    uint64_t asked_ns = 0;
    window_start(&window, (pid_t)option(argc, argv, "pid", 0), option(argc, argv, "warm-up", 0.5),
                 option(argc, argv, "seconds", 2));
    for (;;) {
        if (waiting == 0) {
            if (asked_ns != 0)
                count_messages(&window, count * burst, now_ns() - asked_ns);
            if (window_over(&window)) /* between two bursts, so that all CPU belongs to counted messages */
                break;
            expect_next();
            for (size_t i = 0; i < count; i++)
                members[i].received = 0;
            waiting = count;
            asked_ns = now_ns();
            if (send(control, command, command_size, MSG_NOSIGNAL) != (ssize_t)command_size)
                die("send: %s", strerror(errno));
        }
        struct epoll_event events[512];
        int ready = epoll_wait(epoll, events, 512, STALL_SECONDS * 1000);
        if (ready == 0)
            die("%zu of %zu members wait for more", waiting, count);
        for (int i = 0; i < ready; i++)
            waiting -= pull(&members[events[i].data.u64]);
    }
    window_report(&window);
    return 0;
}
