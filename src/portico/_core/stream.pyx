# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""A connection that carries bytes: taken as they come, by number, or up to a separator."""
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.ref cimport Py_DECREF, Py_INCREF, PyObject

from libc.string cimport memcpy, memmove

from .codec cimport Payload, open_bytes, release
from .connection cimport (CLOSED, EXACTLY, ITERATE, MESSAGE_COST, NEXT, OPEN, UNTIL, WITH_CONTROL, Connection, Recv)
from .output cimport output_size
from .ring cimport Slot, ring_pop
from .secure cimport TLSWire
from .sender cimport Settings
from .wire cimport Sink, Wire

from portico.errors import EndOfStream, MessageTooLarge


cdef extern from "Python.h":
    Py_ssize_t PY_SSIZE_T_MAX

cdef extern from *:
    """
    #include <string.h>
    /* memmem(3) without its GNU guard; a separator is short. */
    static const char *portico_find(const char *data, Py_ssize_t size, const char *mark, Py_ssize_t mark_size) {
        const char *end = data + size - mark_size + 1, *place;
        while (data < end && (place = memchr(data, mark[0], (size_t)(end - data)))) {
            if (!memcmp(place, mark, (size_t)mark_size)) return place;
            data = place + 1;
        }
        return NULL;
    }
    """
    const char* portico_find(const char* data, Py_ssize_t size, const char* mark, Py_ssize_t mark_size) noexcept

cdef enum:
    DEFAULT_UNTIL = 1 << 20


cdef class StreamBase(Connection):
    """Bytes upon `wire`."""

    def __init__(self, Wire wire not None, Settings settings not None, owner=None):
        super().__init__(wire, settings, owner)
        self.take_over(None)

    # receiving

    cdef int bytes_arrived(self, const char* data, Py_ssize_t size) except -1:
        cdef bint reader_waits = self.reader is not None
        if self.read_state != OPEN:
            return 0
        self.active = self.hub.now
        self.settings.bytes_received += size
        if self.wire.arriving is not None:
            self.take_beside()
        if reader_waits and self.reader.kind >= EXACTLY:
            self.keep(data, size)
            if self.reader.kind == UNTIL or self.carry_size >= self.reader.amount:
                self.reader.wake()
        else:
            self.push(PyBytes_FromStringAndSize(data, size), size)
            if reader_waits:
                self.reader.wake()
        if self.watcher is not None:
            self.watcher()
        if not reader_waits and self.queued_size + self.carry_size > self.settings.read_limit:
            self.pause_reading()
        return 0

    cdef int gather(self, Py_ssize_t enough) except -1:
        """Move queued chunks to the carry until that holds `enough` bytes."""
        cdef Slot slot
        while self.messages.count and self.carry_size < enough:
            slot = ring_pop(&self.messages)
            chunk = <object>slot.item
            Py_DECREF(chunk)
            self.queued_size -= slot.size + MESSAGE_COST
            self.keep(PyBytes_AS_STRING(chunk), slot.size)
        return 0

    cdef object cut(self, Py_ssize_t size, Py_ssize_t drop):
        """Take `size` bytes off the carry, and `drop` more that nobody gets."""
        taken = PyBytes_FromStringAndSize(self.carry + self.carry_start, size)
        self.clear_carry_front(size + drop)
        if self.reading_paused and self.queued_size + self.carry_size <= self.settings.read_limit // 2 \
                and self.read_state == OPEN:
            self.resume_reading()
        return taken

    cdef int take(self, Recv recv, PyObject** answer) except -1:
        taken = None
        if recv.kind == EXACTLY:
            taken = self.take_exactly(recv)
        elif recv.kind == UNTIL:
            taken = self.take_until(recv)
        else:
            taken = self.take_some(recv)
        if taken is None:
            return 0
        if recv.kind == WITH_CONTROL:
            taken = (taken, self.take_control())
        Py_INCREF(taken)
        answer[0] = <PyObject*>taken
        return 1

    cdef object take_some(self, Recv recv):
        cdef Slot slot
        if self.carry_size:
            return self.cut(min(self.carry_size, recv.amount), 0)
        if not self.messages.count:
            return None
        slot = ring_pop(&self.messages)
        chunk = <object>slot.item
        Py_DECREF(chunk)
        self.took(slot.size)
        if slot.size <= recv.amount:
            return chunk
        self.keep(PyBytes_AS_STRING(chunk) + recv.amount, slot.size - recv.amount)
        return chunk[:recv.amount]

    cdef object take_exactly(self, Recv recv):
        cdef Slot slot
        if self.carry_size == 0 and self.messages.count and self.messages.slots[self.messages.first].size == recv.amount:
            slot = ring_pop(&self.messages)
            chunk = <object>slot.item
            Py_DECREF(chunk)
            self.took(slot.size)
            return chunk
        self.gather(recv.amount)
        if self.carry_size >= recv.amount:
            return self.cut(recv.amount, 0)
        self.resume_reading()
        return None

    cdef object take_until(self, Recv recv):
        cdef Py_ssize_t mark_size = PyBytes_GET_SIZE(recv.separator), size
        cdef const char* place
        while True:
            if self.carry_size > recv.searched:
                place = portico_find(self.carry + self.carry_start + recv.searched, self.carry_size - recv.searched,
                                     PyBytes_AS_STRING(recv.separator), mark_size)
                size = self.carry_size - mark_size + 1 if place is NULL else place - self.carry - self.carry_start
                if size > recv.amount:
                    raise MessageTooLarge(size, recv.amount)
                if place is not NULL:
                    recv.searched = 0
                    return self.cut(size, mark_size)
                recv.searched = max(self.carry_size - mark_size + 1, 0)
            if not self.messages.count:
                self.resume_reading()
                return None
            self.gather(self.carry_size + 1)

    cdef object end(self, Recv recv):
        if self.successor is not None or self.read_state == CLOSED:
            if recv.kind == ITERATE and self.cause is None and self.successor is None:
                raise StopAsyncIteration
            raise self.closed_error()
        if recv.kind >= EXACTLY:
            raise EndOfStream(PyBytes_FromStringAndSize(self.carry + self.carry_start, self.carry_size))
        if recv.kind == ITERATE:
            raise StopAsyncIteration
        return (b"", self.take_control()) if recv.kind == WITH_CONTROL else b""

    def recv(self, max_bytes=None):
        """Await what has come, at most `max_bytes`; `b""` is the end of the peer's side. Cancelled, it loses nothing.

        :raises ClosedError: the connection was closed or lost
        :raises BusyError: another task is receiving"""
        cdef Recv recv
        if max_bytes is not None and max_bytes < 1:
            raise ValueError(f"max_bytes must be at least 1, not {max_bytes}")
        recv = self.new_recv(NEXT)
        recv.amount = PY_SSIZE_T_MAX if max_bytes is None else max_bytes
        return recv

    def recv_with_control(self, max_bytes=None):
        """As `recv`, but the answer is the bytes and a list of the control messages that have come with them."""
        cdef Recv recv = self.recv(max_bytes)
        recv.kind = WITH_CONTROL
        return recv

    cdef list take_control(self):
        beside, self.beside = self.beside, None
        return [] if beside is None else beside

    def recv_exactly(self, Py_ssize_t size):
        """Await exactly `size` bytes.

        :raises EndOfStream: the peer ended its side before; `.partial` has what came, which stays readable
        :raises ClosedError: the connection was closed or lost
        :raises BusyError: another task is receiving"""
        cdef Recv recv
        if size < 0:
            raise ValueError(f"size must not be negative: {size}")
        recv = self.new_recv(EXACTLY)
        recv.amount = size
        return recv

    def recv_until(self, bytes separator not None, Py_ssize_t max_bytes=DEFAULT_UNTIL):
        """Await the bytes before the next `separator`, which is taken, too, but not returned.

        :raises MessageTooLarge: more than `max_bytes` (default: 1 MiB) came without it; they stay readable
        :raises EndOfStream: the peer ended its side before; `.partial` has what came, which stays readable
        :raises ClosedError: the connection was closed or lost
        :raises BusyError: another task is receiving"""
        cdef Recv recv
        if not separator:
            raise ValueError("the separator must not be empty")
        recv = self.new_recv(UNTIL)
        recv.amount = max_bytes
        recv.separator = separator
        return recv

    def __aiter__(self):
        return self

    def __anext__(self):
        cdef Recv recv = self.new_recv(ITERATE)
        recv.amount = PY_SSIZE_T_MAX
        return recv

    def take_received(self):
        """Return all that was received and not taken; it is no longer here."""
        self.gather(PY_SSIZE_T_MAX)
        rest = PyBytes_FromStringAndSize(self.carry + self.carry_start, self.carry_size)
        self.drop_carry()
        return rest

    def unread(self, bytes data not None):
        """Give back bytes that were received from here and not used: they come first again.

        :raises ClosedError: the connection was handed on, or closed by this side"""
        cdef Py_ssize_t size = PyBytes_GET_SIZE(data), held = self.carry_size
        if self.successor is not None or self.read_state == CLOSED:
            raise self.closed_error()
        if not size:
            return
        self.keep(PyBytes_AS_STRING(data), size)        # room for it, behind the rest
        if held:
            memmove(self.carry + self.carry_start + size, self.carry + self.carry_start, held)
            memcpy(self.carry + self.carry_start, PyBytes_AS_STRING(data), size)
        self.searched = 0
        if self.reader is not None:
            self.reader.wake()
        if self.watcher is not None:
            self.watcher()

    cdef bint has_something(self) noexcept:
        return self.carry_size > 0 or Connection.has_something(self)

    # sending

    def send(self, data):
        """Queue bytes now; they leave at the end of the loop's turn. Await the result to wait for room.

        :raises ClosedError: the connection is closed or lost, or `send_eof` was called
        :raises LimitError: `max_unsent` bytes wait already"""
        cdef Payload payload
        self.check_sending()
        open_bytes(data, &payload)
        try:
            self.put(None, &payload)
        finally:
            release(&payload)
        return self.sent()

    # TLS on the way

    def upgrade(self, context, *, bint server_side, server_name=None, double timeout, on_handshake):
        """Put TLS under this stream; what came already is the start of the handshake.

        `on_handshake(error)` is called when it is over; after an error the stream is lost."""
        cdef TLSWire wire
        self.check_idle()
        if self.eof_wanted:
            raise self.closed_error()
        rest = self.take_received()
        if output_size(&self.output):
            self.write_out()
            self.drop_output()
        wire = TLSWire(self.wire, context, server_side=server_side, server_name=server_name, timeout=timeout,
                       on_handshake=on_handshake)
        wire.attach(self)
        self.wire = wire
        wire.start(rest)
        if self.peer_ended:
            wire.wire_ended()
        self.resume_reading()
