# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""The packet port of Linux: many packets in one system call, joined and cut by the kernel where it can (GRO, GSO)."""
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.ref cimport PyObject
from libc.errno cimport (EAGAIN, EBADF, ECONNREFUSED, EHOSTUNREACH, EINTR, EINVAL, EIO, EMSGSIZE, ENETUNREACH, ENOBUFS, ENOPROTOOPT,
                         ENOTSOCK, EOPNOTSUPP, EPROTO, errno)
from libc.stdint cimport int64_t, uint32_t
from libc.string cimport memcmp, memcpy, memset

from .control cimport Allowance, control_list
from .epoll cimport EpollItem, EpollSet, set_of
from .hub cimport Flushable, Hub, portico_monotonic
from .packets cimport Endpoint, Outgoing, PacketPort
from .wire cimport NOWHERE, Arrival, Sink, Wire

import os
import socket

from portico.errors import MessageTooLarge

cdef str TOO_LARGE = "no larger packet can take this way"


cdef extern from "packets.h" nogil:
    enum: PORTICO_BATCH
    enum: PORTICO_PACKET
    enum: PORTICO_RECORD
    enum: PORTICO_GAP
    enum: PORTICO_SEND_CONTROL
    enum: PORTICO_MAX_SEGMENTS
    enum: PORTICO_MAX_GSO
    ctypedef unsigned int socklen_t
    struct iovec:
        void* iov_base
        size_t iov_len
    struct sockaddr_storage:
        pass
    struct msghdr:
        void* msg_name
        socklen_t msg_namelen
        iovec* msg_iov
        size_t msg_iovlen
        void* msg_control
        size_t msg_controllen
        int msg_flags
    struct mmsghdr:
        msghdr msg_hdr
        unsigned int msg_len
    struct portico_batch:
        mmsghdr messages[64]
        iovec vectors[64]
        sockaddr_storage names[64]
        char* data
    struct portico_told:
        int64_t stamp
        int ttl, tos, segment
        uint32_t dropped
        unsigned int interface
        int local_size, source_size
        unsigned char local[16]
        unsigned char source[16]
        int others
    int AF_INET, AF_INET6, AF_PACKET, AF_UNIX, MSG_NOSIGNAL, MSG_DONTWAIT, SHUT_WR
    portico_batch* portico_new_batch()
    void portico_free_batch(portico_batch* batch)
    int portico_receive_packets(int fd, portico_batch* batch, int count, size_t size, int family)
    unsigned int portico_interface(const sockaddr_storage* name)
    void portico_read_told(msghdr* message, portico_told* told)
    size_t portico_put_source(char* room, int family, const unsigned char* source, int size, unsigned int interface)
    size_t portico_put_segment(char* room, unsigned int size)
    int portico_send_packets(int fd, mmsghdr* messages, int count)
    Py_ssize_t portico_receive_error(int fd, char* data, size_t size, sockaddr_storage* name, socklen_t* name_size,
                                     int* code, unsigned int* mtu, int* is_local)
    int portico_is_end(int fd)
    unsigned long long portico_dropped(int fd)
    ssize_t sendmsg(int fd, msghdr* message, int flags)
    int shutdown(int fd, int how)

cdef extern from "Python.h":
    Py_ssize_t PY_SSIZE_T_MAX

cdef extern from "socket.h" nogil:
    unsigned int EPOLLIN, EPOLLOUT, EPOLLERR, EPOLLHUP
    int portico_socket_error(int fd)

cdef enum:
    MAX_ROUNDS = 4          # full batches taken from one socket before the others get their turn
    KNOWN = 256             # endpoints that are recognised without making an object; a power of two
    MAX_ERRORS = 64         # reports taken off the error queue at once
    QUOTED = 512            # bytes of a packet that a report may quote

cdef double RETRY = 0.002   # seconds after which a send is tried again where the kernel cannot tell of room


cdef class Batch:
    """Where the packets of all ports of a hub are received: 4 MiB, of which only the pages in use cost memory."""
    cdef portico_batch* memory

    def __init__(self):
        self.memory = portico_new_batch()
        if self.memory is NULL:
            raise MemoryError

    def __dealloc__(self):
        portico_free_batch(self.memory)


cdef class PortItem(EpollItem):
    """The port's place in the epoll set."""
    cdef NativePort port

    cdef int ready(self, unsigned int events) except -1:
        return self.port.ready(events)

    cdef bint guess(self) except -1:
        return self.events & EPOLLIN and self.port.receive()


cdef class NativePort(PacketPort):
    cdef PortItem item
    cdef EpollSet set
    cdef Batch batch
    cdef list known                 # endpoints by the hash of their bytes
    cdef Endpoint last
    cdef Allowance allowance
    cdef int fd, family, slots
    cdef size_t slot
    cdef bint reports, told_end
    cdef Py_ssize_t taken, joined   # packets at this event, and lately in one message (GRO)
    cdef bint crowded               # the interface's queue was full, where the kernel may lose parts of what it has cut
    cdef unsigned int mtu           # payload that takes the way of the last packet that was too large for it
    cdef Py_ssize_t max_segment     # bytes of the packets that are sent as one, each, at most
    cdef unsigned int headers       # bytes of IP's and UDP's before it

    def __init__(self, Hub hub not None, sock not None, names, *, bint is_connected=False, bint reports=False, int max_passed=0):
        """Own the socket object `sock`, not blocking. `reports`: it has an error queue (IP_RECVERR), which is read."""
        cdef bint is_unix = sock.family == AF_UNIX
        self.hub = hub
        self.socket, self.names = sock, names
        self.fd, self.family = sock.fileno(), sock.family
        self.is_connected, self.reports = is_connected, reports
        self.is_ordered = sock.type == socket.SOCK_SEQPACKET
        self.is_internet = self.family == AF_INET or self.family == AF_INET6
        self.headers = (20 if self.family == AF_INET else 40) + (8 if sock.type == socket.SOCK_DGRAM else 0)
        self.sink = NOWHERE
        self.joined = 1
        self.most_at_once = self.max_segment = PY_SSIZE_T_MAX
        self.set = set_of(hub)
        self.slot = PORTICO_RECORD if is_unix else PORTICO_PACKET
        self.slots = PORTICO_BATCH * (PORTICO_PACKET + PORTICO_GAP) // (<int>self.slot + PORTICO_GAP)
        self.allowance = Allowance(max_passed)
        self.known = None if is_connected else [None] * KNOWN
        if hub.batch is None:
            hub.batch = Batch()
        self.batch = hub.batch
        self.item = PortItem.__new__(PortItem)
        self.item.hub, self.item.fd, self.item.port = hub, self.fd, self

    @property
    def dropped_by_kernel(self):
        """See `PacketPort.dropped_by_kernel`."""
        if not self.closed:
            self.kernel_dropped = max(self.kernel_dropped, portico_dropped(self.fd))
        return self.kernel_dropped

    cdef int start(self, Sink sink) except -1:
        self.sink = sink
        self.started = True
        return self.watch()

    cdef int watch(self) except -1:
        cdef unsigned int events = 0
        if self.closed or not self.started:
            return 0
        if not self.paused and not self.told_end:
            events |= EPOLLIN
        if self.count and not self.blocked:
            events |= EPOLLOUT
        if self.set.holds(self.item):
            return self.set.change(self.item, events)
        return self.set.add(self.item, events)      # even for no event: the error queue is told of always

    cdef int pause(self) except -1:
        self.paused = True
        return self.watch()

    cdef int resume(self) except -1:
        self.paused = False
        return self.watch()

    cdef int ready(self, unsigned int events) except -1:
        if events & EPOLLERR and self.read_errors() == 0:
            self.lose(portico_socket_error(self.fd))
        if events & EPOLLOUT and not self.closed:
            self.flush_waiting()
        if self.closed:
            return 0
        if self.item.events & EPOLLIN:
            if events & (EPOLLIN | EPOLLHUP):
                self.receive()
        elif events & EPOLLHUP:
            self.set.remove(self.item)      # the kernel would report it for ever; `resume` reads what is left
        return 0

    # receiving

    cdef bint receive(self) except -1:
        """Take batches of packets, and say whether there was any."""
        cdef int rounds = 0, count, slots, i
        cdef Py_ssize_t before
        cdef portico_batch* batch = self.batch.memory
        self.taken = 0
        while rounds < MAX_ROUNDS and self.taken < self.most_at_once and not self.closed and not self.paused \
                and not self.told_end:
            before = self.taken
            slots = <int>max(1, min(self.slots, (self.most_at_once - before) // self.joined))
            count = portico_receive_packets(self.fd, batch, slots, self.slot, self.family)
            if count < 0:
                if errno != EAGAIN and errno != EINTR:
                    self.lose(errno)
                    return True
                break
            for i in range(count):
                if self.closed or self.told_end:
                    break       # what lies behind is lost, as it would be in a socket that is closed
                self.received(batch, i, count)
            rounds += 1
            self.joined = max(1, (self.taken - before) // count)
            if count < slots:
                break
        return rounds > 0

    cdef bint has_ended(self, portico_batch* batch, int i, int count) noexcept:
        """Whether an empty record is the end of the connection: nothing with bytes lies behind it, here or with the kernel."""
        for i in range(i + 1, count):
            if batch.messages[i].msg_len:
                return False
        return portico_is_end(self.fd)

    cdef int received(self, portico_batch* batch, int i, int count) except -1:
        cdef mmsghdr* message = &batch.messages[i]
        cdef Py_ssize_t whole = message.msg_len, size = min(whole, <Py_ssize_t>self.slot), place = 0, segment
        cdef char* data = <char*>batch.vectors[i].iov_base
        cdef portico_told told
        cdef Arrival arrival
        cdef list control = None
        if self.is_ordered and whole == 0 and self.has_ended(batch, i, count):
            self.told_end = True
            self.watch()
            return self.sink.wire_ended()
        portico_read_told(&message.msg_hdr, &told)
        if self.family == AF_PACKET:
            told.interface = portico_interface(&batch.names[i])
        if told.others or self.wants_control or message.msg_hdr.msg_flags & CUT_CONTROL:
            control = control_list(&message.msg_hdr, self.allowance)
        origin = self.origin(&batch.names[i], message.msg_hdr.msg_namelen, &told)
        arrival.origin = <PyObject*>origin
        arrival.control = <PyObject*>control if control is not None else NULL
        arrival.stamp, arrival.ttl, arrival.tos = told.stamp, told.ttl, told.tos
        if told.dropped > self.kernel_dropped:
            self.kernel_dropped = told.dropped
        segment = told.segment if 0 < told.segment < size else size
        while True:
            self.taken += 1
            arrival.whole_size = min(segment, whole - place) if told.segment else whole
            self.sink.packet_arrived(data + place, min(segment, size - place), &arrival)
            place += segment
            if place >= size or self.closed:
                return 0

    cdef Endpoint origin(self, const void* name, socklen_t size, portico_told* told):
        """Return the endpoint that this packet came from; one that is known costs no new object."""
        cdef Endpoint known = self.last
        cdef unsigned int place = 0, i
        if size == 0 and self.family == AF_UNIX:        # a socket without a name
            (<unsigned short*>name)[0] = AF_UNIX
            size = sizeof(unsigned short)
        if size > 128:
            size = 128
        if known is not None and is_same(known, name, size, told):
            return known
        for i in range(size):
            place = place * 31 + (<const unsigned char*>name)[i]
        place &= KNOWN - 1
        known = None if self.known is None else self.known[place]
        if known is None or not is_same(known, name, size, told):
            known = Endpoint.__new__(Endpoint)
            memcpy(known.name, name, size)
            known.name_size = size
            known.names = self.names
            known.local_size, known.interface_index = told.local_size, told.interface
            memcpy(known.local, told.local, told.local_size)
            known.source_size = told.source_size
            memcpy(known.source, told.source, told.source_size)
            if self.known is not None:
                self.known[place] = known
        self.last = known
        return known

    # errors

    cdef int read_rest(self) except -1:
        self.receive()
        return 0

    cdef int lose(self, int code) except -1:
        """As `failed`, for an error that reading met: one that would come for ever ends the socket, too."""
        if code == EINVAL or code == EBADF or code == ENOTSOCK or code == EOPNOTSUPP:
            return self.sink.wire_lost(OSError(code, os.strerror(code)))
        return self.failed(code)

    cdef int read_errors(self) except -1:
        """Take the reports off the error queue; return how many there were."""
        cdef char data[QUOTED]
        cdef sockaddr_storage name
        cdef socklen_t name_size
        cdef Py_ssize_t size
        cdef unsigned int mtu
        cdef int code, is_local, count = 0
        cdef portico_told told
        if not self.reports:
            return 0
        memset(&told, 0, sizeof(told))
        while count < MAX_ERRORS and not self.closed:
            size = portico_receive_error(self.fd, data, QUOTED, &name, &name_size, &code, &mtu, &is_local)
            if size < 0:
                break
            count += 1
            if mtu:
                mtu = max(mtu, self.headers + 1) - self.headers
            if is_local:        # sendmsg(2) says so, too, and knows of which packet
                self.mtu = mtu
            elif code:
                target = self.origin(&name, name_size, &told) if name_size else None
                self.sink.packet_failed(target, code, PyBytes_FromStringAndSize(data, size), size, mtu)
        return count

    # sending

    cdef int transmit(self) except -1:
        cdef mmsghdr messages[PORTICO_BATCH]
        cdef iovec vectors[PORTICO_BATCH]
        cdef size_t control[512]        # PORTICO_SEND_CONTROL bytes for each, aligned as control messages must be
        cdef int grouped[PORTICO_BATCH]
        cdef int count, sent, i, code
        cdef Py_ssize_t left
        cdef bint excused = False
        while self.count and not self.closed:
            count = self.prepare(messages, vectors, <char*>control, grouped)
            sent = portico_send_packets(self.fd, messages, count)
            code = errno
            if sent > 0:
                left = 0
                for i in range(sent):
                    left += grouped[i]
                self.leave(left)
                excused = False
            elif code == EAGAIN or code == ENOBUFS:
                return self.wait_for_room(code)
            elif code != EINTR and not self.excuse(code, grouped[0], self.waiting[self.first].size, &excused):
                self.fail_first(code, self.mtu if code == EMSGSIZE else 0)
                excused = False
        self.crowded = False
        return self.watch() if self.item.events & EPOLLOUT else 0

    cdef int prepare(self, mmsghdr* messages, iovec* vectors, char* control, int* grouped) except -1:
        """Lay out the next packets; those of one size for one target go as one, which the kernel cuts (GSO)."""
        cdef Py_ssize_t place = self.first, end = self.first + self.count, size, total
        cdef char* data = self.store + self.store_start
        cdef char* room
        cdef Outgoing* item
        cdef Endpoint target
        cdef int count = 0
        cdef size_t used
        while count < PORTICO_BATCH and place < end:
            item = &self.waiting[place]
            size = total = item.size
            grouped[count] = 1
            place += 1
            if self.coalesces and 0 < size <= self.max_segment and not self.crowded:
                while place < end and grouped[count] < PORTICO_MAX_SEGMENTS and 0 < self.waiting[place].size <= size \
                        and self.waiting[place].target is item.target and total + self.waiting[place].size <= PORTICO_MAX_GSO:
                    total += self.waiting[place].size
                    grouped[count] += 1
                    place += 1
                    if self.waiting[place - 1].size < size:
                        break
            vectors[count].iov_base = data
            vectors[count].iov_len = total
            data += total
            memset(&messages[count], 0, sizeof(mmsghdr))
            messages[count].msg_hdr.msg_iov = &vectors[count]
            messages[count].msg_hdr.msg_iovlen = 1
            room = control + count * PORTICO_SEND_CONTROL
            used = 0
            if item.target is not NULL:
                target = <Endpoint>item.target
                messages[count].msg_hdr.msg_name = target.name
                messages[count].msg_hdr.msg_namelen = target.name_size
                if self.answers_from_source and target.source_size:
                    used = portico_put_source(room, self.family, target.source, target.source_size, target.interface_index)
            if grouped[count] > 1:
                used += portico_put_segment(room + used, <unsigned int>size)
            if used:
                messages[count].msg_hdr.msg_control = room
                messages[count].msg_hdr.msg_controllen = used
            count += 1
        return count

    cdef bint excuse(self, int code, int grouped, Py_ssize_t size, bint* excused) except -1:
        """Say whether it is worth another try: the error may belong to an earlier packet, or to packets sent as one."""
        if grouped > 1 and (code == EINVAL or code == EMSGSIZE):
            self.max_segment = size - 1     # the path takes no packets of that size uncut, which it may do one by one
            return True
        if grouped > 1 and (code == EIO or code == EOPNOTSUPP or code == ENOPROTOOPT):
            self.coalesces = False
            return True
        self.mtu = 0
        if code == EMSGSIZE:
            self.read_errors()
            if self.mtu:
                return False
        if excused[0]:
            return False
        if code == ECONNREFUSED or code == EHOSTUNREACH or code == ENETUNREACH or code == EPROTO or code == ENOPROTOOPT \
                or code == EMSGSIZE:
            excused[0] = True
            if self.read_errors() or self.is_connected:
                if not self.reports and code != EMSGSIZE:
                    self.failed(code)       # of a connected socket: it was pending, and is taken now
                return True
        return False

    cdef int wait_for_room(self, int code) except -1:
        """Where epoll cannot tell when there is room, try again after a while: of a Unix socket without a peer it is the
        receiver's, and ENOBUFS says that the interface's queue is full."""
        if code == ENOBUFS or (self.family == AF_UNIX and not self.is_connected):
            self.blocked = True
            self.crowded = code == ENOBUFS
            self.hub.set_timer(self, portico_monotonic() + RETRY)
        return self.watch()

    cdef int expire(self, double now) except -1:
        return 0 if self.closed else self.flush_waiting()

    def send_control(self, bytes data not None, bytes control not None, Endpoint target):
        """See `PacketPort.send_control`.

        :raises MessageTooLarge: the packet is too large for its way
        :raises OSError: as sendmsg(2) has it"""
        cdef msghdr message
        cdef iovec vector
        cdef char source[PORTICO_SEND_CONTROL]
        cdef bint excused = False
        cdef int code
        if self.closed or self.count:
            return False
        if target is not None and self.answers_from_source and target.source_size:
            control = source[:portico_put_source(source, self.family, target.source, target.source_size,
                                                 target.interface_index)] + control
        memset(&message, 0, sizeof(message))
        vector.iov_base = PyBytes_AS_STRING(data)
        vector.iov_len = PyBytes_GET_SIZE(data)
        message.msg_iov = &vector
        message.msg_iovlen = 1
        if target is not None:
            message.msg_name = target.name
            message.msg_namelen = target.name_size
        if control:
            message.msg_control = PyBytes_AS_STRING(control)
            message.msg_controllen = PyBytes_GET_SIZE(control)
        while sendmsg(self.fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT) < 0:
            code = errno
            if code == EAGAIN or code == EINTR or code == ENOBUFS:
                return False
            if not self.excuse(code, 1, 0, &excused):
                if code == EMSGSIZE:
                    raise MessageTooLarge(PyBytes_GET_SIZE(data), self.mtu, hint=TOO_LARGE)
                raise OSError(code, os.strerror(code))
        return True

    cdef int shut_writing(self) except -1:
        shutdown(self.fd, SHUT_WR)
        return 0

    cdef int close(self) except -1:
        if not self.closed:
            self.detach_socket().close()
        return 0

    def detach_socket(self):
        """See `PacketPort.detach_socket`."""
        self.kernel_dropped = max(self.kernel_dropped, portico_dropped(self.fd))
        self.closed = True
        self.hub.set_timer(self, float("inf"))
        if self.started:
            self.set.remove(self.item)
        self.sink = NOWHERE
        self.item.port = None
        self.last = self.known = None
        return self.socket


cdef int CUT_CONTROL = socket.MSG_CTRUNC


cdef inline bint is_same(Endpoint known, const void* name, socklen_t size, portico_told* told) noexcept:
    return known.name_size == size and memcmp(known.name, name, size) == 0 and known.local_size == told.local_size \
        and known.interface_index == told.interface and memcmp(known.local, told.local, told.local_size) == 0
