# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""A packet port by what any loop and platform offers: one packet in one call."""
import asyncio
import socket as _socket

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.ref cimport PyObject
from libc.errno cimport ENODEV

from .hub cimport Flushable, Hub
from .packets cimport Endpoint, PacketPort
from .wire cimport NOWHERE, Arrival, Sink, Wire

cdef enum:
    MAX_PACKETS = 64        # taken at once before others get their turn
    MAX_SIZE = 262144

cdef tuple AGAIN = (BlockingIOError, InterruptedError)


cdef class LoopPort(PacketPort):
    cdef object pack, loop, task
    cdef bint reading, writing

    def __init__(self, Hub hub not None, sock not None, names, pack, *, bint is_connected=False):
        """Own the socket object `sock`, not blocking; `pack(family, address)` makes a struct sockaddr of Python's address."""
        self.hub, self.loop = hub, hub.loop
        self.socket, self.names, self.pack = sock, names, pack
        self.is_connected = is_connected
        self.is_ordered = sock.type == _socket.SOCK_SEQPACKET
        self.is_internet = sock.family in (_socket.AF_INET, _socket.AF_INET6)
        self.sink = NOWHERE

    cdef int start(self, Sink sink) except -1:
        self.sink = sink
        self.started = True
        return self.watch()

    cdef int watch(self) except -1:
        cdef bint read = self.started and not self.paused and not self.closed
        cdef bint write = self.started and self.count > 0 and not self.blocked and not self.closed
        if read != self.reading:
            self.reading = read
            self.watch_reading(read)
        if write != self.writing and self.task is None:
            self.writing = write
            if write:
                self.loop.add_writer(self.socket, self._writable)
            else:
                self.loop.remove_writer(self.socket)
        return 0

    cdef int watch_reading(self, bint read) except -1:
        if self.task is not None:
            self.task.cancel()
            self.task = None
        elif not read:
            self.loop.remove_reader(self.socket)
        if read:
            try:
                self.loop.add_reader(self.socket, self._readable)
            except NotImplementedError:     # the proactor of Windows
                self.task = self.loop.create_task(self._read_one_by_one())
        return 0

    cdef int pause(self) except -1:
        self.paused = True
        return self.watch()

    cdef int resume(self) except -1:
        self.paused = False
        return self.watch()

    def _writable(self):
        self.flush_waiting()

    async def _read_one_by_one(self):
        while True:
            try:
                data, address = await self.loop.sock_recvfrom(self.socket, MAX_SIZE)
            except OSError as error:
                self.failed(error.errno or 0)
            else:
                self.arrived(data, address, False)

    def _readable(self):
        cdef int count
        for count in range(MAX_PACKETS):
            if self.closed or self.paused:
                break
            try:
                data, address, truncated = self.take()
            except AGAIN:
                break
            except OSError as error:
                if self.reading:    # uvloop no longer waits for a socket that had an error
                    self.watch_reading(False)
                    self.watch_reading(True)
                self.failed(error.errno or 0)
                break
            if self.is_ordered and not data and self.has_ended():
                self.reading = False
                self.watch_reading(False)
                self.paused = True
                self.sink.wire_ended()
                break
            self.arrived(data, address, truncated)

    cdef tuple take(self):
        """Return a packet, who sent it, and whether it was longer (where that is told: not on Windows)."""
        if not hasattr(self.socket, "recvmsg"):
            return *self.socket.recvfrom(MAX_SIZE), False
        data, _, flags, address = self.socket.recvmsg(MAX_SIZE)
        return data, address, flags & _socket.MSG_TRUNC

    cdef bint has_ended(self) except -1:
        """Whether an empty record is the end: where that can be told apart (Linux), the peer has shut down and nothing with
        bytes is left to read."""
        import select
        if not hasattr(select, "POLLRDHUP"):
            return True
        import fcntl
        import termios
        poll = select.poll()
        poll.register(self.socket, select.POLLRDHUP)
        try:
            return len(poll.poll(0)) > 0 and not any(fcntl.ioctl(self.socket, termios.FIONREAD, b"\0\0\0\0"))
        except OSError:
            return False        # the next read says what it is

    cdef int arrived(self, bytes data, object address, bint truncated) except -1:
        cdef Arrival arrival
        origin = Endpoint(self.pack(self.socket.family, address), self.names)
        arrival.origin, arrival.control = <PyObject*>origin, NULL
        arrival.whole_size, arrival.stamp = PyBytes_GET_SIZE(data) + truncated, 0
        arrival.ttl = arrival.tos = -1
        return self.sink.packet_arrived(PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), &arrival)

    cdef int read_rest(self) except -1:
        self._readable()
        return 0

    cdef int transmit(self) except -1:
        cdef Py_ssize_t size
        cdef bint excused = False
        while self.count and not self.closed:
            size = self.waiting[self.first].size
            data = PyBytes_FromStringAndSize(self.store + self.store_start, size)
            target = None if self.waiting[self.first].target is NULL else <object>self.waiting[self.first].target
            try:
                if target is None:
                    self.socket.send(data)
                else:
                    self.socket.sendto(data, target.address.sockaddr)
            except AGAIN:
                return self.wait_for_room()
            except ConnectionRefusedError as error:
                if self.is_connected and not self.is_ordered and not excused:
                    excused = True      # it was pending, for an earlier packet
                    self.failed(error.errno or 0)
                else:
                    self.fail_first(error.errno, 0)
            except OSError as error:
                self.fail_first(error.errno or 0, 0)
            except ValueError:      # AddressError: the interface is gone
                self.fail_first(ENODEV, 0)
            else:
                self.leave(1)
        return self.watch()

    cdef int wait_for_room(self) except -1:
        if self.task is not None or (self.socket.family == getattr(_socket, "AF_UNIX", None) and not self.is_connected):
            self.blocked = True     # nothing tells when there is room
            self.loop.call_later(0.002, self._writable)
        return self.watch()

    def send_control(self, bytes data not None, bytes control not None, Endpoint target):
        """See `PacketPort.send_control`.

        :raises UnsupportedError: there are control messages"""
        from portico.errors import UnsupportedError
        if control:
            raise UnsupportedError("control messages need Portico's own sockets on Linux")
        if self.closed or self.count:
            return False
        try:
            if target is None:
                self.socket.send(data)
            else:
                self.socket.sendto(data, target.address.sockaddr)
        except AGAIN:
            return False
        return True

    cdef int shut_writing(self) except -1:
        try:
            self.socket.shutdown(_socket.SHUT_WR)
        except OSError:
            pass        # the peer is gone already
        return 0

    cdef int close(self) except -1:
        if not self.closed:
            self.detach_socket().close()
        return 0

    def detach_socket(self):
        """See `PacketPort.detach_socket`."""
        self.closed = True
        if not self.loop.is_closed():
            self.watch()
        self.sink = NOWHERE
        return self.socket
