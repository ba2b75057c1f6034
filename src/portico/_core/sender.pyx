# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""The sending half of a connection: output that leaves at the end of the turn, and waiting for room."""
from cpython.bytes cimport PyBytes_CheckExact
from cpython.ref cimport Py_INCREF, PyObject
from libc.math cimport INFINITY
from libc.string cimport memcpy

from .codec cimport MAX_HEAD, Codec, Payload
from .hub cimport Hub, Wait, portico_install_send, wait_send
from .output cimport (MAX_PARTS, Output, Part, output_chunks, output_clear, output_parts, output_reserve, output_size,
                      output_splice)
from .wire cimport Sink, Wire

from portico.errors import ClosedError, LimitError, MessageTooLarge


cdef class Settings:
    def __init__(self, *, read_limit=64 * 1024, high_water=64 * 1024, low_water=16 * 1024, max_unsent=16 << 20,
                 idle_timeout=None, message_timeout=None, send_timeout=None, close_timeout=10.0):
        self.read_limit = read_limit
        self.high_water = high_water
        self.low_water = min(low_water, high_water)
        self.max_unsent = max(max_unsent, high_water)
        self.idle_timeout = INFINITY if idle_timeout is None else idle_timeout
        self.message_timeout = INFINITY if message_timeout is None else message_timeout
        self.send_timeout = INFINITY if send_timeout is None else send_timeout
        self.close_timeout = close_timeout


cdef class Sender(Sink):
    """What a connection needs to send."""

    cpdef object closed_error(self):
        """Return why nothing can be sent or received any more."""
        raise NotImplementedError

    cdef int check_sending(self) except -1:
        if self.lost or self.closing or self.eof_wanted or self.successor is not None:
            if self.successor is None and self.eof_wanted and not self.lost and not self.closing:
                raise ClosedError("this side was ended by send_eof()", clean=True)
            raise self.closed_error()
        if self.setback is not None:
            setback, self.setback = self.setback, None
            raise setback
        if self.unsent_size() > self.settings.max_unsent:
            raise LimitError(f"{self.unsent_size()} bytes wait for a peer that does not read; the limit is max_unsent = "
                             f"{self.settings.max_unsent} bytes: await what send() returns", "max_unsent")
        return 0

    cdef int put(self, Codec codec, Payload* payload) except -1:
        """Queue one message; it leaves at the end of the turn."""
        cdef Output* output = &self.output
        if self.records:
            return self.put_record(codec, payload)
        cdef bint splice = payload.size >= SPLICE_SIZE and payload.owner is not NULL \
            and PyBytes_CheckExact(<object>payload.owner)
        output_reserve(output, 2 * MAX_HEAD + (0 if splice else payload.size))
        if not self.dirty:
            self.hub.mark_dirty(self)
        if codec is not None:
            output.size += codec.head(payload.size, output.data + output.size)
        if splice:
            output_splice(output, <object>payload.owner)
        else:
            memcpy(output.data + output.size, payload.data, payload.size)
            output.size += payload.size
        if codec is not None:
            output.size += codec.tail(output.data + output.size)
        return 0

    cdef int put_shared(self, Payload* payload) except -1:
        """As `put`, for a frame that many connections send: where it is alone it needs no copy."""
        if self.records or output_size(&self.output) or not payload.size:
            return self.put(None, payload)
        if not self.dirty:
            self.hub.mark_dirty(self)
        return output_splice(&self.output, <object>payload.owner)

    cdef int put_record(self, Codec codec, Payload* payload) except -1:
        """As `put`, for a wire that keeps packets apart."""
        cdef Py_ssize_t most = self.wire.max_record, size
        cdef char* place = self.wire.open_record(payload.size + 2 * MAX_HEAD)
        size = 0 if codec is None else codec.head(payload.size, place)
        memcpy(place + size, payload.data, payload.size)
        size += payload.size
        if codec is not None:
            size += codec.tail(place + size)
        if most and size > most:
            raise MessageTooLarge(size, most, hint="no packet is larger")
        self.settings.bytes_sent += size
        self.wire.close_record(size)
        return 0 if self.dirty else self.hub.mark_dirty(self)

    cdef Py_ssize_t leaving_size(self) noexcept:
        """Return the bytes on their way out."""
        return output_size(&self.output) + self.wire.backlog

    cdef Py_ssize_t unsent_size(self) noexcept:
        """Return the bytes that were sent and are here still, those included that wait for others to leave."""
        return self.leaving_size()

    cdef bint has_room(self) noexcept:
        return self.unsent_size() <= self.settings.high_water

    cdef object sent(self):
        """Return what send() answers: something to await for room."""
        return DONE if self.has_room() else self.new_room(ROOM)

    cdef object leaving(self):
        """As `sent`, for what others wait to leave behind."""
        return DONE if self.leaving_size() <= self.settings.high_water else self.new_room(LEAVING)

    cdef Room new_room(self, int what):
        cdef Room room = Room.__new__(Room)
        room.hub = self.hub
        room.connection = self
        room.what = what
        return room

    cdef int wake_waiters(self) except -1:
        cdef Room room
        if self.watcher is not None and (self.lost or self.has_room()):
            self.watcher()
        if self.waiters is not None and (self.lost or self.leaving_size() <= self.settings.low_water):
            waiters, self.waiters = self.waiters, None
            for room in waiters:
                room.wake()
        return 0

    cdef int flush_records(self, bint now) except -1:
        self.wire.flush_records(now)
        if not self.wire.backlog:
            self.active = self.hub.now
        return 0 if self.waiters is None else self.wake_waiters()

    cdef int write_out(self) except -1:
        self.settings.bytes_sent += output_size(&self.output)
        if self.output.splice_count:
            self.write_parts()
        else:
            self.wire.write(self.output.data, self.output.size)
        if not self.wire.backlog:
            self.active = self.hub.now
        return 0

    cdef int write_parts(self) except -1:
        """Write what lies in several places; objects are made only of what does not leave now."""
        cdef Part parts[MAX_PARTS]
        cdef int count = output_parts(&self.output, parts)
        cdef Py_ssize_t sent = self.wire.write_parts(parts, count) if count else 0
        if sent < output_size(&self.output):
            self.wire.write_chunks(output_chunks(&self.output, sent))
        return 0

    cdef int drop_output(self) except -1:
        return output_clear(&self.output)


cdef class Room(Wait):
    """Room to send more, or that all was sent, or the end of the connection."""

    cdef int attempt(self, PyObject** answer) except -1:
        cdef Sender connection = self.connection
        while connection.successor is not None:
            self.connection = connection = connection.successor
        if connection.lost:
            if self.what != OVER:
                raise connection.closed_error()
        elif self.what == OVER or (self.what == ROOM and not connection.has_room()) \
                or (self.what == LEAVING and connection.leaving_size() > connection.settings.high_water) \
                or (self.what == ALL_SENT and connection.unsent_size()):
            if connection.waiters is None:
                connection.waiters = []
            connection.waiters.append(self)
            return 0
        Py_INCREF(None)
        answer[0] = <PyObject*>None
        return 1

    cdef int withdraw(self, bint given_up) except -1:
        if self.connection.waiters is not None and self in self.connection.waiters:
            self.connection.waiters.remove(self)
        return 0


cdef class Done(Wait):
    """Answers at once: there is room."""

    cdef int attempt(self, PyObject** answer) except -1:
        Py_INCREF(None)
        answer[0] = <PyObject*>None
        return 1


cdef Done DONE = Done.__new__(Done)

for kind in (Room, Done):
    portico_install_send(kind, <void*>wait_send)
del kind
