# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""An epoll set of our own, nested in any event loop: one callback reads every ready socket, then runs one turn."""
import os
import socket

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.list cimport PyList_GET_ITEM, PyList_GET_SIZE
from cpython.ref cimport PyObject
from libc.errno cimport EAGAIN, EINTR, ENOBUFS, ENOTCONN, EPIPE, errno

from .control cimport Allowance, control_list
from .hub cimport Flushable, Hub, hub_of, portico_monotonic
from .output cimport Part
from .wire cimport BottomWire, NOWHERE, Sink, Wire


cdef extern from "socket.h" nogil:
    enum: PORTICO_MAX_VECTORS
    enum: PORTICO_MAX_EVENTS
    ctypedef unsigned int socklen_t
    cdef struct sockaddr:
        pass
    cdef struct sockaddr_storage:
        pass
    cdef struct epoll_data_t "epoll_data":
        int fd
    cdef struct epoll_event:
        unsigned int events
        epoll_data_t data
    int MSG_NOSIGNAL, MSG_DONTWAIT, SHUT_WR, SOCK_NONBLOCK, SOCK_CLOEXEC
    unsigned int EPOLLIN, EPOLLOUT, EPOLLERR, EPOLLHUP
    int EPOLL_CTL_ADD, EPOLL_CTL_MOD, EPOLL_CTL_DEL, EPOLL_CLOEXEC
    int epoll_create1(int flags)
    int epoll_wait(int set, epoll_event* events, int count, int timeout)
    int portico_epoll_change(int set, int operation, int fd, unsigned int events)
    int portico_socket_error(int fd)
    int portico_set_reset(int fd)
    struct msghdr:
        pass
    ssize_t recv(int fd, void* data, size_t size, int flags)
    ssize_t send(int fd, const void* data, size_t size, int flags)
    ssize_t read(int fd, void* data, size_t size)
    ssize_t write(int fd, const void* data, size_t size)
    int accept4(int fd, sockaddr* address, socklen_t* size, int flags)
    int shutdown(int fd, int how)
    int close(int fd)

cdef extern from "socket.h":
    int portico_unacknowledged(int fd) noexcept
    Py_ssize_t portico_send_parts(int fd, Part* parts, int count, bint is_file)
    Py_ssize_t portico_send_chunks(int fd, object chunks, Py_ssize_t first, Py_ssize_t offset, bint is_file)
    struct portico_control:
        pass
    Py_ssize_t portico_receive_control(int fd, char* data, size_t size, msghdr* message, portico_control* control)
    Py_ssize_t portico_send_control(int fd, const char* data, size_t size, const char* control, size_t control_size)

cdef enum:
    ACCEPTS_PER_TURN = 64
    MAX_GUESSES = 8                 # the others must not wait for long
    MAX_LAST_READ = 1 << 20         # bytes still taken from a socket whose other direction failed


cdef object os_error(int code):
    return OSError(code, os.strerror(code))


cdef class EpollItem(BottomWire):
    cdef int ready(self, unsigned int events) except -1:
        return 0

    cdef bint guess(self) except -1:
        """Try to receive, and say whether there was anything."""
        return False


cdef class EpollSet:
    """The sockets of one hub. It holds a descriptor only while there are any."""

    def __init__(self, Hub hub):
        self.hub = hub
        self.loop = hub.loop
        self.items = []
        self.fd = -1

    def __dealloc__(self):
        if self.fd >= 0:
            close(self.fd)

    cdef bint holds(self, EpollItem item) noexcept:
        return item.fd < PyList_GET_SIZE(self.items) and <PyObject*>item is PyList_GET_ITEM(self.items, item.fd)

    cdef int add(self, EpollItem item, unsigned int events) except -1:
        if self.fd < 0:
            self.fd = epoll_create1(EPOLL_CLOEXEC)
            if self.fd < 0:
                raise os_error(errno)
            self.loop.add_reader(self.fd, self._ready)
        while PyList_GET_SIZE(self.items) <= item.fd:
            self.items.append(None)
        if portico_epoll_change(self.fd, EPOLL_CTL_ADD, item.fd, events):
            raise os_error(errno)
        self.items[item.fd] = item
        item.events = events
        self.count += 1
        return 0

    cdef int change(self, EpollItem item, unsigned int events) except -1:
        if item.events != events:
            item.events = events
            if portico_epoll_change(self.fd, EPOLL_CTL_MOD, item.fd, events):
                raise os_error(errno)
        return 0

    cdef int remove(self, EpollItem item) except -1:
        """Forget `item`; to be called before its descriptor is closed."""
        if not self.holds(item):
            return 0
        self.items[item.fd] = None
        portico_epoll_change(self.fd, EPOLL_CTL_DEL, item.fd, 0)
        if self.lone is item:
            self.lone = None
        self.count -= 1
        if self.count == 0:
            if not self.loop.is_closed():
                self.loop.remove_reader(self.fd)
            close(self.fd)
            self.fd = -1
        return 0

    def _ready(self):
        cdef Hub hub = self.hub
        hub.now = portico_monotonic()
        hub.turning = True
        try:
            if not self.serve_lone():
                self.serve_ready()
        finally:
            hub.turn()

    cdef bint serve_lone(self) except -1:
        """Serve the one that alone was ready last time, most likely again: that saves a system call."""
        cdef EpollItem item = self.lone
        if item is None or self.guesses == MAX_GUESSES:
            return False
        self.guesses += 1
        try:
            return item.guess()
        except BaseException as error:
            self.hub.report("a socket could not be served", error)
            return True

    cdef int serve_ready(self) except -1:
        cdef epoll_event events[PORTICO_MAX_EVENTS]
        cdef int i, count = epoll_wait(self.fd, events, PORTICO_MAX_EVENTS, 0)
        self.lone = self.items[events[0].data.fd] if count == 1 else None
        self.guesses = 0
        for i in range(count):
            item = self.items[events[i].data.fd]
            if item is not None:        # closed by one before it in this batch
                try:
                    (<EpollItem>item).ready(events[i].events)
                except BaseException as error:
                    self.hub.report("a socket could not be served", error)
        return 0


cdef EpollSet set_of(Hub hub):
    if hub.epoll is None:
        hub.epoll = EpollSet(hub)
    return <EpollSet>hub.epoll


cdef class SocketWire(EpollItem):
    """A connected stream socket, TCP or Unix, read and written by plain system calls."""

    def __init__(self, Hub hub not None, int fd, bytes peer=None, *, int max_passed=0, bint is_file=False,
                 bint can_half_close=True, bint only_writes=False):
        """Own the connected, non-blocking socket `fd`; `max_passed`: how many passed descriptors may wait here.
        `is_file`: it is no socket, but can be waited for as one can; `only_writes`: nothing ever comes."""
        self.hub = hub
        self.set = set_of(hub)
        self.sink = NOWHERE
        self.fd = fd
        self.peer = peer
        self.can_half_close = can_half_close
        self.with_control = max_passed > 0
        self.allowance = Allowance(max_passed) if max_passed else None
        self.is_file = self.is_endless = is_file
        self.only_writes = only_writes

    def __dealloc__(self):
        if self.fd >= 0 and self.owner is None:
            close(self.fd)

    def fileno(self):
        return self.fd

    @property
    def socket(self):
        """The socket as Python's own object, made on first use; its close belongs to the connection."""
        if self.owner is None and self.fd >= 0 and not self.is_file:
            self.owner = socket.socket(fileno=self.fd)
            self.owner.setblocking(False)
        return self.owner

    cdef int attach(self, Sink sink) except -1:
        self.sink = sink
        if not self.attached:
            self.attached = True
            if self.closed:
                return self.hub.mark_dirty(self)
            self.watch()
        if self.only_writes:
            self.sink.wire_ended()
        return 0

    cdef int watch(self) except -1:
        """Register for what is wanted now."""
        cdef unsigned int events = 0
        if self.fd < 0 or not self.attached:
            return 0
        if not self.paused and not self.ended and not self.only_writes:
            events |= EPOLLIN
        if self.chunks is not None:
            events |= EPOLLOUT
        if self.set.holds(self):
            return self.set.change(self, events)
        return self.set.add(self, events) if events or self.only_writes else 0    # a reader that leaves is told always

    # receiving

    cdef int ready(self, unsigned int events) except -1:
        if self.chunks is not None and events & (EPOLLOUT | EPOLLERR | EPOLLHUP):
            self.send_backlog()
        if self.fd < 0:
            return 0
        if self.events & EPOLLIN:
            if events & (EPOLLIN | EPOLLERR | EPOLLHUP):
                self.receive()
        elif events & (EPOLLERR | EPOLLHUP) and self.chunks is None:
            self.hung_up(events)
        return 0

    cdef int hung_up(self, unsigned int events) except -1:
        """The kernel reports this for ever: leave the set. What is unread is read on `resume`, and then the error."""
        cdef int code
        self.set.remove(self)
        if (self.ended or self.only_writes) and events & EPOLLERR:
            code = EPIPE if self.is_file else portico_socket_error(self.fd)
            if code:
                return self.finish(os_error(code))
        return 0

    cdef bint guess(self) except -1:
        return self.events & EPOLLIN and self.chunks is None and self.receive()

    cdef bint receive(self) except -1:
        """Read once, and say whether there was anything: bytes, the end or an error."""
        cdef Py_ssize_t size
        if self.with_control:
            size = self.receive_with_control()
        elif self.is_file:
            size = read(self.fd, self.hub.scratch, self.hub.scratch_size)
        else:
            size = recv(self.fd, self.hub.scratch, self.hub.scratch_size, MSG_DONTWAIT)
        if size > 0:
            self.sink.bytes_arrived(self.hub.scratch, size)
        elif size == 0:
            self.ended = True
            self.watch()
            self.sink.wire_ended()
        elif errno == EAGAIN or errno == EINTR:
            return False
        else:
            self.finish(os_error(errno))
        return True

    cdef Py_ssize_t receive_with_control(self) except -2:
        cdef portico_control control
        cdef msghdr message
        cdef Py_ssize_t size
        size = portico_receive_control(self.fd, self.hub.scratch, self.hub.scratch_size, &message, &control)
        if size >= 0:
            found = control_list(&message, self.allowance)
            if found is not None:
                self.arriving = found if self.arriving is None else self.arriving + found
        return size

    def expect_control(self):
        """Take in the control messages that come with the bytes from now on, too."""
        self.with_control = not self.is_file

    cdef bint unconfirmed(self) noexcept:
        return self.backlog > 0 or (self.fd >= 0 and portico_unacknowledged(self.fd) > 0)

    cdef int pause(self) except -1:
        if not self.paused:
            self.paused = True
            return self.watch()
        return 0

    cdef int resume(self) except -1:
        if self.paused:
            self.paused = False
            return self.watch()
        return 0

    # sending

    cdef int write(self, const char* data, Py_ssize_t size) except -1:
        cdef Py_ssize_t sent = 0
        if self.fd < 0:
            return 0
        if self.chunks is None:
            if self.is_file:
                sent = write(self.fd, data, size)
            else:
                sent = send(self.fd, data, size, MSG_NOSIGNAL | MSG_DONTWAIT)
            if sent == size:
                return 0
            if sent < 0:
                if errno != EAGAIN and errno != EINTR and errno != ENOBUFS:
                    return self.send_failed(errno)
                sent = 0
        return self.keep(PyBytes_FromStringAndSize(data + sent, size - sent), 0)

    cdef Py_ssize_t write_parts(self, Part* parts, int count) except -1:
        cdef Py_ssize_t sent
        if self.fd < 0 or self.chunks is not None:
            return 0
        sent = portico_send_parts(self.fd, parts, count, self.is_file)
        if sent < 0:
            if errno != EAGAIN and errno != EINTR and errno != ENOBUFS:
                self.send_failed(errno)
            return 0
        return sent

    cdef int write_chunks(self, list chunks) except -1:
        cdef Py_ssize_t first = 0, offset = 0, sent, i
        if self.fd < 0:
            return 0
        while self.chunks is None and first < len(chunks):
            sent = portico_send_chunks(self.fd, chunks, first, offset, self.is_file)
            if sent < 0:
                if errno != EAGAIN and errno != EINTR and errno != ENOBUFS:
                    return self.send_failed(errno)
                break
            offset += sent
            while first < len(chunks) and offset >= PyBytes_GET_SIZE(chunks[first]):
                offset -= PyBytes_GET_SIZE(chunks[first])
                first += 1
        for i in range(first, len(chunks)):
            self.keep(chunks[i], offset)
            offset = 0
        return 0

    def send_control(self, bytes data not None, bytes control not None):
        """Send `data` with control messages if nothing waits before it; returns how many bytes left, -1: there is no room.

        :raises OSError: as sendmsg(2) has it"""
        cdef Py_ssize_t sent
        if self.fd < 0 or self.chunks is not None:
            return -1
        sent = portico_send_control(self.fd, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), PyBytes_AS_STRING(control),
                                    PyBytes_GET_SIZE(control))
        if sent < 0 and errno != EAGAIN and errno != EINTR and errno != ENOBUFS:
            raise os_error(errno)
        return sent

    cdef int keep(self, object data, Py_ssize_t offset) except -1:
        if self.chunks is None:
            self.chunks = []
            self.first, self.offset = 0, offset
            self.chunks.append(data)
            self.backlog = PyBytes_GET_SIZE(data) - offset
            return self.watch()
        self.chunks.append(data)
        self.backlog += PyBytes_GET_SIZE(data)
        return 0

    cdef int send_backlog(self) except -1:
        cdef Py_ssize_t sent = portico_send_chunks(self.fd, self.chunks, self.first, self.offset, self.is_file)
        if sent < 0:
            if errno != EAGAIN and errno != EINTR and errno != ENOBUFS:
                return self.send_failed(errno)
            return 0
        self.backlog -= sent
        self.offset += sent
        while self.first < len(self.chunks) and self.offset >= PyBytes_GET_SIZE(self.chunks[self.first]):
            self.offset -= PyBytes_GET_SIZE(self.chunks[self.first])
            self.chunks[self.first] = b""       # give it free at once
            self.first += 1
        if self.first == len(self.chunks):
            self.chunks = None
            self.watch()
            if self.end_wanted and self.only_writes:
                return self.finish(None)
            if self.end_wanted and not self.is_file:
                shutdown(self.fd, SHUT_WR)
        elif self.first >= PORTICO_MAX_VECTORS:
            del self.chunks[:self.first]
            self.first = 0
        return self.sink.wire_room()

    cdef int send_failed(self, int code) except -1:
        """The peer may have said its last words before it went: read them, then report the loss."""
        cdef Py_ssize_t size = 0, total = 0
        self.chunks = None
        self.backlog = 0
        while not self.ended and self.attached and not self.is_file and total < MAX_LAST_READ:
            size = recv(self.fd, self.hub.scratch, self.hub.scratch_size, MSG_DONTWAIT)
            if size <= 0:
                break
            total += size
            self.sink.bytes_arrived(self.hub.scratch, size)
        if size == 0 and code == EPIPE and self.attached and not self.ended:    # a reset would not be EPIPE
            self.ended = True
            self.sink.wire_ended()
        return self.finish(os_error(code))

    # closing

    cdef int end_writing(self, bint closing) except -1:
        if self.end_wanted or self.fd < 0:
            return 0
        self.end_wanted = True
        if self.only_writes:        # to close is the only way to tell an end
            return 0 if self.chunks is not None else self.finish(None)
        if self.chunks is None and not self.is_file and shutdown(self.fd, SHUT_WR) and errno != ENOTCONN:
            self.finish(os_error(errno))
        return 0

    cdef int drop(self) except -1:
        if self.fd >= 0:
            portico_set_reset(self.fd)
        return self.finish(None)

    cdef int release(self) except -1:
        """Close the descriptor."""
        cdef int fd = self.leave_set()
        if fd < 0:
            return 0
        if self.owner is not None:
            self.owner.close()
        else:
            close(fd)
        return 0

    cdef int leave_set(self) except -2:
        """Let go of the descriptor, and return it."""
        cdef int fd = self.fd
        if fd >= 0:
            if self.attached:
                self.set.remove(self)
            self.fd = -1
            self.chunks = self.arriving = None
            self.backlog = 0
        return fd

    def detach_socket(self):
        """See `Wire.detach_socket`; of a file it is the descriptor."""
        owner = self.socket
        self.closed = True
        self.sink = NOWHERE
        fd = self.leave_set()
        return fd if owner is None else owner


cdef class Acceptor(EpollItem):
    """A listening socket in the set: `accepted(fd, address)` is called for each new connection, `failed(code)` when
    accept(2) fails."""
    cdef object accepted, failed
    cdef EpollSet set
    cdef readonly bint paused

    def __init__(self, loop, int fd, accepted, failed):
        self.hub = hub_of(loop)
        self.set = set_of(self.hub)
        self.sink = NOWHERE
        self.fd = fd
        self.accepted, self.failed = accepted, failed
        self.set.add(self, EPOLLIN)

    def pause_accepting(self):
        if not self.paused:
            self.paused = True
            self.set.remove(self)

    def resume_accepting(self):
        if self.paused and self.fd >= 0:
            self.paused = False
            self.set.add(self, EPOLLIN)

    def stop(self):
        """Stop for good; the descriptor stays its owner's."""
        self.pause_accepting()
        self.fd = -1
        self.accepted = self.failed = None

    cdef int ready(self, unsigned int events) except -1:
        cdef sockaddr_storage address
        cdef socklen_t size
        cdef int i, fd
        for i in range(ACCEPTS_PER_TURN):
            size = sizeof(address)
            fd = accept4(self.fd, <sockaddr*>&address, &size, SOCK_NONBLOCK | SOCK_CLOEXEC)
            if fd < 0:
                if errno != EAGAIN and errno != EINTR:
                    self.failed(errno)
                return 0
            self.accepted(fd, PyBytes_FromStringAndSize(<char*>&address, min(size, sizeof(address))))
            if self.paused:
                return 0
        return 0
