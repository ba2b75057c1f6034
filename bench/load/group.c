/* Receivers of a group. Each member says "join" and hears "joined"; then one more connection says
 * "send BURST" and the server sends BURST lines to every member. When all members have all of them, byte
 * for byte, it says so again. A line is a running number of ten digits, filled up with 'x'. With --websocket 1 all
 * these are binary messages without a newline.
 *
 * group --port P --pid SERVER --members N --burst N --size BYTES --seconds S --warm-up S --websocket 0|1
 */
#define _GNU_SOURCE
#include "common.h"
#include "websocket_client.h"

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
static size_t burst, size; /* of a message on the wire */
static bool websocket;
static struct window window;

static int connect_and_greet(int port, unsigned source)
{
    int fd = connect_to(port, source);
    if (websocket)
        websocket_handshake(fd, NO_DEFLATE);
    return fd;
}

/* Sends a command as a line or as a message. */
static void say(int fd, const char *text)
{
    char data[64];
    size_t count = websocket ? put_frame(data, FIN_BINARY, text, strlen(text))
                             : (size_t)snprintf(data, sizeof data, "%s\n", text);
    if (send(fd, data, count, MSG_NOSIGNAL) != (ssize_t)count)
        die("send: %s", strerror(errno));
}

static void join(struct member *member, int port, unsigned source)
{
    const char *answer = websocket ? "\x82\x06joined" : "joined\n";
    ssize_t answer_size = (ssize_t)strlen(answer);
    char heard[16] = {0};
    member->fd = connect_and_greet(port, source);
    say(member->fd, "join");
    struct timeval patience = {.tv_sec = STALL_SECONDS};
    setsockopt(member->fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    if (recv(member->fd, heard, (size_t)answer_size, MSG_WAITALL) != answer_size || strcmp(heard, answer) != 0)
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

static void expect_next(size_t payload)
{
    static unsigned serial;
    char number[16];
    for (size_t i = 0; i < burst; i++) {
        char *line = expected + i * size, *end = line + size;
        snprintf(number, sizeof number, "%010u", ++serial);
        if (websocket)
            line += put_answer_head(line, FIN_BINARY, payload);
        else
            *--end = '\n';
        memset(line, 'x', (size_t)(end - line));
        memcpy(line, number, 10);
    }
}

int main(int argc, char **argv)
{
    int port = (int)option(argc, argv, "port", 0), epoll = epoll_create1(EPOLL_CLOEXEC);
    size_t count = (size_t)option(argc, argv, "members", 1000), waiting = 0;
    burst = (size_t)option(argc, argv, "burst", 1);
    websocket = option(argc, argv, "websocket", 0) != 0;
    char head[LARGEST_HEAD];
    size_t payload = (size_t)option(argc, argv, "size", 100);
    size = payload + (websocket ? put_answer_head(head, FIN_BINARY, payload) : 0);
    members = calloc(count, sizeof *members);
    expected = malloc(burst * size);
    input = malloc(burst * size + 1);
    raise_descriptor_limit();
    for (size_t i = 0; i < count; i++) {
        join(&members[i], port, 2 + (unsigned)(i / MEMBERS_PER_ADDRESS));
        watch(epoll, members[i].fd, EPOLL_CTL_ADD, EPOLLIN, i);
    }
    char command[32];
    snprintf(command, sizeof command, "send %zu", burst);
    int control = connect_and_greet(port, 0);
    uint64_t asked_ns = 0;
    window_start(&window, (pid_t)option(argc, argv, "pid", 0), option(argc, argv, "warm-up", 0.5),
                 option(argc, argv, "seconds", 2));
    for (;;) {
        if (waiting == 0) {
            if (asked_ns != 0)
                count_messages(&window, count * burst, now_ns() - asked_ns);
            if (window_over(&window)) /* between two bursts, so that all CPU belongs to counted messages */
                break;
            expect_next(payload);
            for (size_t i = 0; i < count; i++)
                members[i].received = 0;
            waiting = count;
            asked_ns = now_ns();
            say(control, command);
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
