/* System calls of stream sockets on Linux, in the forms that the epoll set needs. */
#ifndef PORTICO_SOCKET_H
#define PORTICO_SOCKET_H
#include <Python.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <linux/sockios.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#define PORTICO_MAX_VECTORS 64
#define PORTICO_MAX_EVENTS 256

static inline int portico_epoll_change(int set, int operation, int fd, uint32_t events) {
    struct epoll_event event;
    memset(&event, 0, sizeof event);
    event.events = events;
    event.data.fd = fd;
    return epoll_ctl(set, operation, fd, &event);
}

/* Bytes that were sent and that the other machine has not acknowledged (tcp(7)); 0 where nobody can tell. */
static inline int portico_unacknowledged(int fd) {
    int size = 0;
    return ioctl(fd, SIOCOUTQ, &size) ? 0 : size;
}

/* Sends `count` parts (struct Part of output.pxd, laid out as an iovec) in one call; a file has writev(2) for that. */
static inline Py_ssize_t portico_send_parts(int fd, void *parts, int count, int is_file) {
    struct msghdr message = {0};
    if (is_file) return writev(fd, parts, count);
    if (count == 1) {
        struct iovec *only = parts;
        return send(fd, only->iov_base, only->iov_len, MSG_NOSIGNAL | MSG_DONTWAIT);
    }
    message.msg_iov = parts;
    message.msg_iovlen = (size_t)count;
    return sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* Sends from chunks[first] on in one call; returns what send(2) returns. All items must be bytes. */
static inline Py_ssize_t portico_send_chunks(int fd, PyObject *chunks, Py_ssize_t first, Py_ssize_t offset, int is_file) {
    struct iovec vectors[PORTICO_MAX_VECTORS];
    struct msghdr message = {0};
    Py_ssize_t left = PyList_GET_SIZE(chunks) - first, count = left < PORTICO_MAX_VECTORS ? left : PORTICO_MAX_VECTORS;
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *chunk = PyList_GET_ITEM(chunks, first + i);
        vectors[i].iov_base = PyBytes_AS_STRING(chunk) + (i ? 0 : offset);
        vectors[i].iov_len = (size_t)(PyBytes_GET_SIZE(chunk) - (i ? 0 : offset));
    }
    if (is_file) return writev(fd, vectors, (int)count);
    message.msg_iov = vectors;
    message.msg_iovlen = (size_t)count;
    return sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* Room for control messages: SCM_MAX_FD descriptors, credentials and a few numbers. */
struct portico_control {
    union { struct cmsghdr align; char room[1344]; } control;
    struct iovec vector;
};

/* Receives bytes and the control messages that come with them, which `message` refers to. */
static inline Py_ssize_t portico_receive_control(int fd, char *data, size_t size, struct msghdr *message, struct portico_control *control) {
    memset(message, 0, sizeof *message);
    control->vector.iov_base = data;
    control->vector.iov_len = size;
    message->msg_iov = &control->vector;
    message->msg_iovlen = 1;
    message->msg_control = control->control.room;
    message->msg_controllen = sizeof control->control.room;
    return recvmsg(fd, message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
}

/* Sends bytes and control messages together. */
static inline Py_ssize_t portico_send_control(int fd, const char *data, size_t size, const char *control, size_t control_size) {
    struct iovec vector = {(void *)data, size};
    struct msghdr message = {0};
    message.msg_iov = &vector;
    message.msg_iovlen = 1;
    if (control_size) {
        message.msg_control = (void *)control;
        message.msg_controllen = control_size;
    }
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
