/* The limit for packets: recvmmsg and sendmmsg on epoll. It sends each packet back, or counts packets and bytes and tells
 * who asks with a packet of one byte. With "gro" the kernel hands over trains of packets as one (UDP_GRO) and cuts what
 * goes to one address (UDP_SEGMENT).
 *
 * echo_udp PORT udp-echo|udp-receive [gro]
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <linux/udp.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define BATCH 256
#define TRAINS 64 /* of 64 KiB, at a time with GRO */
#define LARGEST (1 << 16)
#define MAX_SEGMENTS 64
#define RECEIVE_BUFFER (4 << 20)

union control {
    char space[CMSG_SPACE(sizeof(int))];
    struct cmsghdr aligned;
};

static int fd;
static bool coalesces;
static char *input;
static struct mmsghdr incoming[BATCH], outgoing[BATCH];
static struct iovec parts[BATCH];
static struct sockaddr_in peers[BATCH];
static union control received_control[BATCH], sent_control[BATCH];
static unsigned long long packets, bytes;

static void open_socket(int port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int size = RECEIVE_BUFFER, on = 1;
    fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
    if ((coalesces && setsockopt(fd, IPPROTO_UDP, UDP_GRO, &on, sizeof on) != 0)
        || bind(fd, (struct sockaddr *)&address, sizeof address) != 0) {
        perror("bind");
        exit(1);
    }
}

/* Makes the first messages ready to receive into again. */
static void prepare(int count)
{
    size_t room = coalesces ? LARGEST : LARGEST / 32;
    for (int i = 0; i < count; i++) {
        parts[i] = (struct iovec){input + (size_t)i * room, room};
        incoming[i].msg_hdr = (struct msghdr){.msg_name = &peers[i],
                                              .msg_namelen = sizeof peers[i],
                                              .msg_iov = &parts[i],
                                              .msg_iovlen = 1,
                                              .msg_control = coalesces ? &received_control[i] : NULL,
                                              .msg_controllen = coalesces ? sizeof received_control[i] : 0};
    }
}

/* The size of the packets in a train; the size of the packet when it is alone. */
static unsigned segment_size(struct mmsghdr *message)
{
    struct cmsghdr *control = coalesces ? CMSG_FIRSTHDR(&message->msg_hdr) : NULL;
    int size;
    if (control == NULL || control->cmsg_level != IPPROTO_UDP || control->cmsg_type != UDP_GRO)
        return message->msg_len;
    memcpy(&size, CMSG_DATA(control), sizeof size);
    return (unsigned)size;
}

static void count(int received)
{
    char answer[64];
    for (int i = 0; i < received; i++) {
        unsigned size = incoming[i].msg_len, segment = segment_size(&incoming[i]);
        packets += segment == 0 ? 1 : (size + segment - 1) / segment;
        bytes += size;
        if (size == 1) {
            int length = snprintf(answer, sizeof answer, "%llu %llu", packets, bytes);
            sendto(fd, answer, (size_t)length, 0, (struct sockaddr *)&peers[i], sizeof peers[i]);
        }
    }
}

/* Has the kernel cut what is sent into packets of `size`. */
static void cut(struct msghdr *message, union control *control, unsigned size)
{
    uint16_t segment = (uint16_t)size;
    message->msg_control = control;
    message->msg_controllen = CMSG_SPACE(sizeof segment);
    struct cmsghdr *header = CMSG_FIRSTHDR(message);
    header->cmsg_level = IPPROTO_UDP;
    header->cmsg_type = UDP_SEGMENT;
    header->cmsg_len = CMSG_LEN(sizeof segment);
    memcpy(CMSG_DATA(header), &segment, sizeof segment);
}

/* True when the packet before `next` and `next` can leave as one. A packet that is a train already leaves alone. */
static bool goes_with(int next, unsigned segments)
{
    struct mmsghdr *before = &incoming[next - 1], *after = &incoming[next];
    return segments < MAX_SEGMENTS && before->msg_len == after->msg_len && segment_size(before) == before->msg_len
           && segment_size(after) == after->msg_len && peers[next - 1].sin_port == peers[next].sin_port
           && peers[next - 1].sin_addr.s_addr == peers[next].sin_addr.s_addr
           && (segments + 1) * after->msg_len < LARGEST - 64;
}

static void echo(int received)
{
    unsigned messages = 0;
    for (int i = 0; i < received; messages++) {
        struct msghdr *message = &outgoing[messages].msg_hdr;
        unsigned segments = 1, size = segment_size(&incoming[i]);
        parts[i].iov_len = incoming[i].msg_len;
        *message = (struct msghdr){.msg_name = &peers[i], .msg_namelen = sizeof peers[i], .msg_iov = &parts[i]};
        for (i++; coalesces && i < received && goes_with(i, segments); i++, segments++)
            parts[i].iov_len = incoming[i].msg_len;
        message->msg_iovlen = segments;
        if (segments > 1 || size < parts[i - 1].iov_len)
            cut(message, &sent_control[messages], size);
    }
    for (unsigned sent = 0; sent < messages;) {
        int done = sendmmsg(fd, outgoing + sent, messages - sent, 0);
        if (done < 0) {
            perror("sendmmsg");
            return;
        }
        sent += (unsigned)done;
    }
}

int main(int argc, char **argv)
{
    if (argc < 3) {
        fputs("usage: echo_udp PORT udp-echo|udp-receive [gro]\n", stderr);
        return 2;
    }
    coalesces = argc > 3 && strcmp(argv[3], "gro") == 0;
    int batch = coalesces ? TRAINS : BATCH;
    input = malloc((size_t)LARGEST * TRAINS);
    prepare(batch);
    bool counts = strcmp(argv[2], "udp-receive") == 0;
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN};
    open_socket(atoi(argv[1]));
    epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
    printf("ready %s\n", argv[1]);
    fflush(stdout);
    for (;;) {
        epoll_wait(epoll, &event, 1, -1);
        int received = recvmmsg(fd, incoming, (unsigned)batch, MSG_DONTWAIT, NULL);
        if (counts)
            count(received);
        else
            echo(received);
        prepare(received);
    }
}
