# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""Two wires that are each other's peer, within one loop and without a socket."""
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.errno cimport ECONNRESET, EPIPE

from .hub cimport Flushable, Hub
from .wire cimport NOWHERE, Sink, Wire


cdef class MemoryWire(Wire):
    """One end of a pair; the bytes it was given lie with its peer until that reads."""
    cdef MemoryWire peer
    cdef list inbox
    cdef Py_ssize_t offset          # of what was delivered in the first of them
    cdef bint paused, attached, ended, ended_told, closed, lost_told, room_made
    cdef object cause

    def __init__(self, Hub hub not None):
        self.hub = hub
        self.inbox = []
        self.sink = NOWHERE
        self.can_half_close = True

    cdef int attach(self, Sink sink) except -1:
        self.sink = sink
        self.attached = True
        return self.hub.mark_dirty(self)

    cdef int write(self, const char* data, Py_ssize_t size) except -1:
        return self.hand_over(PyBytes_FromStringAndSize(data, size))

    cdef int write_chunks(self, list chunks) except -1:
        for chunk in chunks:
            self.hand_over(bytes(chunk))
        return 0

    cdef int hand_over(self, bytes data) except -1:
        cdef MemoryWire peer = self.peer
        if self.closed:
            return 0
        if peer is None:
            return self.finish(BrokenPipeError(EPIPE, "the other end of the pair is closed"))
        peer.inbox.append(data)
        self.backlog += PyBytes_GET_SIZE(data)
        return self.hub.mark_dirty(peer)

    cdef int end_turn(self) except -1:
        """Deliver what the peer wrote, outside of any call of its."""
        if not self.attached:
            return 0
        if self.room_made:
            self.room_made = False
            self.sink.wire_room()
        if self.inbox:
            self.deliver()
        if self.inbox:      # paused
            return 0
        if self.ended and not self.ended_told and not self.closed:
            self.ended_told = True
            self.sink.wire_ended()
        if self.closed and not self.lost_told:
            self.lost_told = True
            sink, self.sink = self.sink, NOWHERE
            (<Sink>sink).wire_lost(self.cause)
        return 0

    cdef int deliver(self) except -1:
        cdef Py_ssize_t size = 0, i = 0, piece
        cdef list inbox = self.inbox
        while i < len(inbox) and (self.closed or not self.paused):
            data = inbox[i]
            piece = min(PyBytes_GET_SIZE(data) - self.offset, self.hub.scratch_size)
            self.sink.bytes_arrived(PyBytes_AS_STRING(data) + self.offset, piece)
            size += piece
            self.offset += piece
            if self.offset == PyBytes_GET_SIZE(data):
                self.offset = 0
                i += 1
        del inbox[:i]
        if size and self.peer is not None:
            self.peer.backlog -= size
            self.peer.make_room()
        return 0

    cdef int make_room(self) except -1:
        self.room_made = True
        return self.hub.mark_dirty(self)

    cdef int pause(self) except -1:
        self.paused = True
        return 0

    cdef int resume(self) except -1:
        self.paused = False
        return self.hub.mark_dirty(self)

    cdef int end_writing(self, bint closing) except -1:
        if self.peer is not None:
            self.peer.ended = True
            self.hub.mark_dirty(self.peer)
        return 0

    cdef int shut(self) except -1:
        cdef MemoryWire peer = self.peer
        self.end_writing(True)
        self.inbox = []
        self.peer = None
        if peer is not None:
            peer.peer = None
            peer.backlog = 0
            peer.make_room()
        return self.finish(None)

    cdef int drop(self) except -1:
        cdef MemoryWire peer = self.peer
        self.peer = None
        if peer is not None:
            peer.peer = None
            peer.finish(ConnectionResetError(ECONNRESET, "the other end of the pair was aborted"))
        self.inbox = []
        return self.finish(None)

    cdef int finish(self, object cause) except -1:
        if not self.closed:
            self.closed = True
            self.cause = cause
            self.backlog = 0
            self.hub.mark_dirty(self)
        return 0


def memory_wires(Hub hub not None):
    """Return two wires, each the peer of the other."""
    cdef MemoryWire one = MemoryWire(hub), other = MemoryWire(hub)
    one.peer, other.peer = other, one
    return one, other
