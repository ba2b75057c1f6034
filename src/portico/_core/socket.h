/* System calls of stream sockets on Linux, in the forms that the epoll set needs. */
#ifndef PORTICO_SOCKET_H
#define PORTICO_SOCKET_H
#include <Python.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#define PORTICO_MAX_VECTORS 64
#define PORTICO_MAX_EVENTS 256
#define PORTICO_MAX_PASSED 253      /* SCM_MAX_FD of the kernel */

static inline int portico_epoll_change(int set, int operation, int fd, uint32_t events) {
    struct epoll_event event;
    memset(&event, 0, sizeof event);
    event.events = events;
    event.data.fd = fd;
    return epoll_ctl(set, operation, fd, &event);
}

/* Sends `count` parts (struct Part of output.pxd, laid out as an iovec) in one call. */
static inline Py_ssize_t portico_send_parts(int fd, void *parts, int count) {
    struct msghdr message = {0};
    if (count == 1) {
        struct iovec *only = parts;
        return send(fd, only->iov_base, only->iov_len, MSG_NOSIGNAL | MSG_DONTWAIT);
    }
    message.msg_iov = parts;
    message.msg_iovlen = (size_t)count;
    return sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* Sends from chunks[first] on in one call; returns what send(2) returns. All items must be bytes. */
static inline Py_ssize_t portico_send_chunks(int fd, PyObject *chunks, Py_ssize_t first, Py_ssize_t offset) {
    struct iovec vectors[PORTICO_MAX_VECTORS];
    struct msghdr message = {0};
    Py_ssize_t left = PyList_GET_SIZE(chunks) - first, count = left < PORTICO_MAX_VECTORS ? left : PORTICO_MAX_VECTORS;
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *chunk = PyList_GET_ITEM(chunks, first + i);
        vectors[i].iov_base = PyBytes_AS_STRING(chunk) + (i ? 0 : offset);
        vectors[i].iov_len = (size_t)(PyBytes_GET_SIZE(chunk) - (i ? 0 : offset));
    }
    message.msg_iov = vectors;
    message.msg_iovlen = (size_t)count;
    return sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* Receives bytes and at most PORTICO_MAX_PASSED descriptors; `truncated` tells that the kernel dropped some. */
static inline Py_ssize_t portico_receive_passed(int fd, char *data, size_t size, int *passed, int *count, int *truncated) {
    union { struct cmsghdr align; char room[CMSG_SPACE(PORTICO_MAX_PASSED * sizeof(int))]; } control;
    struct iovec vector = {data, size};
    struct msghdr message = {0};
    Py_ssize_t received;
    message.msg_iov = &vector;
    message.msg_iovlen = 1;
    message.msg_control = control.room;
    message.msg_controllen = sizeof control.room;
    *count = 0;
    received = recvmsg(fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (received < 0) return received;
    *truncated = (message.msg_flags & MSG_CTRUNC) != 0;
    for (struct cmsghdr *head = CMSG_FIRSTHDR(&message); head; head = CMSG_NXTHDR(&message, head))
        if (head->cmsg_level == SOL_SOCKET && head->cmsg_type == SCM_RIGHTS) {
            *count = (int)((head->cmsg_len - CMSG_LEN(0)) / sizeof(int));
            memcpy(passed, CMSG_DATA(head), (size_t)*count * sizeof(int));
        }
    return received;
}

/* Sends bytes and descriptors together. */
static inline Py_ssize_t portico_send_passed(int fd, const char *data, size_t size, const int *passed, int count) {
    union { struct cmsghdr align; char room[CMSG_SPACE(PORTICO_MAX_PASSED * sizeof(int))]; } control;
    struct iovec vector = {(void *)data, size};
    struct msghdr message = {0};
    struct cmsghdr *head;
    memset(&control, 0, sizeof control);
    message.msg_iov = &vector;
    message.msg_iovlen = 1;
    message.msg_control = control.room;
    message.msg_controllen = CMSG_SPACE((size_t)count * sizeof(int));
    head = CMSG_FIRSTHDR(&message);
    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_RIGHTS;
    head->cmsg_len = CMSG_LEN((size_t)count * sizeof(int));
    memcpy(CMSG_DATA(head), passed, (size_t)count * sizeof(int));
    return sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static inline int portico_socket_error(int fd) {
    int code = 0;
    socklen_t size = sizeof code;
    return getsockopt(fd, SOL_SOCKET, SO_ERROR, &code, &size) ? errno : code;
}

static inline int portico_set_reset(int fd) {
    struct linger linger = {1, 0};
    return setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
}
#endif
