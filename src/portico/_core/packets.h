/* System calls of packet sockets on Linux: many packets in one call, what the kernel tells of each, and its error queue. */
#ifndef PORTICO_PACKETS_H
#define PORTICO_PACKETS_H
#include <Python.h>
#include <errno.h>
#include <netinet/in.h>
#include <linux/errqueue.h>
#include <linux/if_packet.h>
#include <linux/sockios.h>
#include <poll.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>

#ifndef SOL_UDP
#define SOL_UDP 17
#endif
#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103             /* linux/udp.h, since Linux 4.18 */
#endif
#ifndef UDP_GRO
#define UDP_GRO 104                 /* since Linux 5.0 */
#endif

#define PORTICO_BATCH 64            /* packets in one call */
#define PORTICO_PACKET 65536        /* bytes of the largest packet over IP, and of 64 that GRO has joined */
#define PORTICO_RECORD 262144       /* over a Unix socket they are bounded by its buffers only */
#define PORTICO_GAP 704             /* between two slots, so that they do not fall into the same lines of the cache */
#define PORTICO_CONTROL 1344        /* 253 descriptors, credentials and a few numbers */
#define PORTICO_SEND_CONTROL 64     /* packet information of IPv6 and the size of a segment */
#define PORTICO_MAX_SEGMENTS 64     /* UDP_MAX_SEGMENTS of the kernel until 6.9 */
#define PORTICO_MAX_GSO 65000       /* bytes that are handed over as one to be cut into segments */

struct portico_batch {
    struct mmsghdr messages[PORTICO_BATCH];
    struct iovec vectors[PORTICO_BATCH];
    struct sockaddr_storage names[PORTICO_BATCH];
    union { struct cmsghdr align; char room[PORTICO_CONTROL]; } control[PORTICO_BATCH];
    char *data;
};

/* What control messages told of one packet. */
struct portico_told {
    int64_t stamp;                  /* ns since 1970, 0: not told */
    int ttl, tos;                   /* -1: not told */
    int segment;                    /* size of the packets that GRO has joined, 0: just one */
    uint32_t dropped;               /* by the kernel so far, for want of room */
    unsigned int interface;
    int local_size, source_size;    /* 0: not told; of `local`, where it came to, and `source`, where an answer leaves from */
    unsigned char local[16], source[16];
    int others;                     /* control messages that are none of these */
};

static inline struct portico_batch *portico_new_batch(void) {
    struct portico_batch *batch = calloc(1, sizeof *batch);
    if (batch && !(batch->data = malloc((size_t)PORTICO_BATCH * (PORTICO_PACKET + PORTICO_GAP)))) {
        free(batch);
        return NULL;
    }
    return batch;
}

static inline void portico_free_batch(struct portico_batch *batch) {
    if (batch) free(batch->data);
    free(batch);
}

/* Receives up to `count` packets of up to `size` bytes each; the memory holds 64 of PORTICO_PACKET or 16 of PORTICO_RECORD. */
static inline int portico_receive_packets(int fd, struct portico_batch *batch, int count, size_t size, int family) {
    for (int i = 0; i < count; i++) {
        struct msghdr *head = &batch->messages[i].msg_hdr;
        batch->vectors[i].iov_base = batch->data + (size_t)i * (size + PORTICO_GAP);
        batch->vectors[i].iov_len = size;
        head->msg_iov = &batch->vectors[i];
        head->msg_iovlen = 1;
        head->msg_name = &batch->names[i];
        head->msg_namelen = sizeof batch->names[i];
        head->msg_control = &batch->control[i];
        head->msg_controllen = PORTICO_CONTROL;
    }
    /* Descriptors come by Unix sockets only, and a packet socket refuses a flag that is none of its own. */
    return recvmmsg(fd, batch->messages, (unsigned)count,
                    MSG_DONTWAIT | MSG_TRUNC | (family == AF_UNIX ? MSG_CMSG_CLOEXEC : 0), NULL);
}

static inline int portico_number(struct cmsghdr *head) {
    int number = 0;
    if (head->cmsg_len == CMSG_LEN(1)) return *CMSG_DATA(head);
    if (head->cmsg_len >= CMSG_LEN(sizeof number)) memcpy(&number, CMSG_DATA(head), sizeof number);
    return number;
}

static inline int portico_read_internet(struct cmsghdr *head, struct portico_told *told) {
    if (head->cmsg_level == IPPROTO_IP) {
        switch (head->cmsg_type) {
            case IP_TTL: told->ttl = portico_number(head); return 1;
            case IP_TOS: told->tos = portico_number(head); return 1;
            case IP_PKTINFO: {
                struct in_pktinfo info;
                memcpy(&info, CMSG_DATA(head), sizeof info);
                if (told->local_size == 16) return 1;       /* a dual-stack socket told it in IPv6's form, too */
                told->interface = (unsigned)info.ipi_ifindex;
                told->local_size = told->source_size = 4;
                memcpy(told->local, &info.ipi_addr, 4);
                memcpy(told->source, &info.ipi_spec_dst, 4);
                return 1;
            }
        }
    } else if (head->cmsg_level == IPPROTO_IPV6) {
        switch (head->cmsg_type) {
            case IPV6_HOPLIMIT: told->ttl = portico_number(head); return 1;
            case IPV6_TCLASS: told->tos = portico_number(head); return 1;
            case IPV6_PKTINFO: {
                struct in6_pktinfo info;
                memcpy(&info, CMSG_DATA(head), sizeof info);
                told->interface = info.ipi6_ifindex;
                told->local_size = 16;
                memcpy(told->local, &info.ipi6_addr, 16);
                told->source_size = IN6_IS_ADDR_MULTICAST(&info.ipi6_addr) ? 0 : 16;
                memcpy(told->source, &info.ipi6_addr, 16);
                return 1;
            }
        }
    }
    return 0;
}

static inline void portico_read_told(struct msghdr *message, struct portico_told *told) {
    memset(told, 0, offsetof(struct portico_told, local));
    told->ttl = told->tos = -1;
    told->others = 0;
    for (struct cmsghdr *head = CMSG_FIRSTHDR(message); head; head = CMSG_NXTHDR(message, head)) {
        if (head->cmsg_level == SOL_SOCKET && head->cmsg_type == SCM_TIMESTAMPNS) {
            struct timespec stamp;
            memcpy(&stamp, CMSG_DATA(head), sizeof stamp);
            told->stamp = (int64_t)stamp.tv_sec * 1000000000 + stamp.tv_nsec;
        } else if (head->cmsg_level == SOL_SOCKET && head->cmsg_type == SO_RXQ_OVFL) {
            memcpy(&told->dropped, CMSG_DATA(head), sizeof told->dropped);
        } else if (head->cmsg_level == SOL_UDP && head->cmsg_type == UDP_GRO) {
            told->segment = portico_number(head);
        } else if (!portico_read_internet(head, told)) told->others++;
    }
}

/* Adds what says from which address a packet leaves; `source` is 4 or 16 bytes. */
static inline size_t portico_put_source(char *room, int family, const unsigned char *source, int size, unsigned interface) {
    struct cmsghdr *head = (struct cmsghdr *)room;
    if (family == AF_INET6) {
        struct in6_pktinfo info;
        memset(&info, 0, sizeof info);
        if (size == 16) memcpy(&info.ipi6_addr, source, 16);
        else {
            info.ipi6_addr.s6_addr[10] = info.ipi6_addr.s6_addr[11] = 0xff;
            memcpy(info.ipi6_addr.s6_addr + 12, source, 4);
        }
        if (IN6_IS_ADDR_LINKLOCAL(&info.ipi6_addr)) info.ipi6_ifindex = interface;
        head->cmsg_level = IPPROTO_IPV6;
        head->cmsg_type = IPV6_PKTINFO;
        head->cmsg_len = CMSG_LEN(sizeof info);
        memcpy(CMSG_DATA(head), &info, sizeof info);
        return CMSG_SPACE(sizeof info);
    } else {
        struct in_pktinfo info;
        memset(&info, 0, sizeof info);
        memcpy(&info.ipi_spec_dst, source, 4);
        head->cmsg_level = IPPROTO_IP;
        head->cmsg_type = IP_PKTINFO;
        head->cmsg_len = CMSG_LEN(sizeof info);
        memcpy(CMSG_DATA(head), &info, sizeof info);
        return CMSG_SPACE(sizeof info);
    }
}

static inline size_t portico_put_segment(char *room, unsigned size) {
    struct cmsghdr *head = (struct cmsghdr *)room;
    uint16_t segment = (uint16_t)size;
    head->cmsg_level = SOL_UDP;
    head->cmsg_type = UDP_SEGMENT;
    head->cmsg_len = CMSG_LEN(sizeof segment);
    memcpy(CMSG_DATA(head), &segment, sizeof segment);
    return CMSG_SPACE(sizeof segment);
}

static inline int portico_send_packets(int fd, struct mmsghdr *messages, int count) {
    return sendmmsg(fd, messages, (unsigned)count, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static inline unsigned portico_interface(const struct sockaddr_storage *name) {
    return (unsigned)((const struct sockaddr_ll *)name)->sll_ifindex;
}

/* Takes one report off the error queue: whom a packet was for, how much of it is quoted, and what became of it.
   Returns the bytes quoted, or -1: there is none; `code` is 0 where it reports no failure. `is_local`: the kernel itself. */
static inline Py_ssize_t portico_receive_error(int fd, char *data, size_t size, struct sockaddr_storage *name, socklen_t *name_size,
                                               int *code, unsigned *mtu, int *is_local) {
    union { struct cmsghdr align; char room[512]; } control;
    struct iovec vector = {data, size};
    struct msghdr message = {0};
    Py_ssize_t received;
    message.msg_iov = &vector;
    message.msg_iovlen = 1;
    message.msg_name = name;
    message.msg_namelen = sizeof *name;
    message.msg_control = &control;
    message.msg_controllen = sizeof control;
    *code = *is_local = 0;
    *mtu = 0;
    received = recvmsg(fd, &message, MSG_ERRQUEUE | MSG_DONTWAIT);
    if (received < 0) return -1;
    *name_size = message.msg_namelen;
    for (struct cmsghdr *head = CMSG_FIRSTHDR(&message); head; head = CMSG_NXTHDR(&message, head)) {
        struct sock_extended_err report;
        if (!((head->cmsg_level == IPPROTO_IP && head->cmsg_type == IP_RECVERR)
              || (head->cmsg_level == IPPROTO_IPV6 && head->cmsg_type == IPV6_RECVERR))) continue;
        memcpy(&report, CMSG_DATA(head), sizeof report);
        if (report.ee_origin != SO_EE_ORIGIN_LOCAL && report.ee_origin != SO_EE_ORIGIN_ICMP
            && report.ee_origin != SO_EE_ORIGIN_ICMP6) continue;
        *code = (int)report.ee_errno;
        *is_local = report.ee_origin == SO_EE_ORIGIN_LOCAL;
        if (report.ee_errno == EMSGSIZE) *mtu = report.ee_info;
    }
    return received;
}

/* Whether an empty record is the end of a seqpacket connection: the peer has shut down, and nothing more waits. */
static inline int portico_is_end(int fd) {
    struct pollfd item = {fd, POLLRDHUP, 0};
    int waiting = 0;
    if (poll(&item, 1, 0) < 0 || !(item.revents & (POLLRDHUP | POLLHUP))) return 0;
    return ioctl(fd, SIOCINQ, &waiting) < 0 || waiting == 0;
}

static inline uint64_t portico_dropped(int fd) {
    uint32_t memory[9] = {0};       /* SK_MEMINFO_DROPS is the ninth (linux/sock_diag.h) */
    socklen_t size = sizeof memory;
    return getsockopt(fd, SOL_SOCKET, 55 /* SO_MEMINFO */, memory, &size) || size < sizeof memory ? 0 : memory[8];
}
#endif
