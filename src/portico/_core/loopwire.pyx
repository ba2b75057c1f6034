# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""A wire upon a transport of the event loop: any platform, any loop."""
import asyncio
import os
import socket
import struct

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE

from .hub cimport Flushable, Hub, portico_monotonic
from .wire cimport NOWHERE, Sink, Wire

cdef bytes RESET = struct.pack("ii", 1, 0)      # SO_LINGER of no time: close(2) resets the connection


cdef class TransportWire(Wire):
    """All of `LoopWire` but the base class that asyncio looks for."""
    cdef object transport, cause
    cdef readonly bytes peer        # its socket address, as the kernel has it
    cdef bytes early                # what came before `attach`: uvloop reads on though it was paused in connection_made
    cdef bint lost, lost_told, paused, attached, ended, end_told

    def __init__(self, Hub hub not None, bytes peer=None):
        self.hub = hub
        self.peer = peer
        self.sink = NOWHERE

    # what the transport calls

    def connection_made(self, transport):
        self.transport = transport
        self.can_half_close = transport.can_write_eof()
        transport.set_write_buffer_limits(0)
        transport.pause_reading()

    def get_buffer(self, hint):
        return self.hub.scratch_view

    def buffer_updated(self, Py_ssize_t size):
        cdef bint in_place
        if not self.attached or self.early is not None:
            self.early = (self.early or b"") + PyBytes_FromStringAndSize(self.hub.scratch, size)
            if self.attached:
                self.tell_early()
            else:
                self.transport.pause_reading()
            return
        in_place = self.hub.begin_arrival(self)
        try:
            self.sink.bytes_arrived(self.hub.scratch, size)
        finally:
            if in_place:
                self.hub.turn()

    def eof_received(self):
        self.ended = True
        if self.attached:
            self.tell_early()
        return True

    def pause_writing(self):
        pass

    def resume_writing(self):
        self.backlog = 0
        self.hub.now = portico_monotonic()
        self.sink.wire_room()

    def connection_lost(self, error):
        self.lost = True
        self.transport = None
        if self.cause is None:
            self.cause = error
        self.tell_lost()

    cdef int tell_early(self) except -1:
        """Hand on what came before there was anybody to take it, and the end."""
        cdef bytes early = self.early
        self.early = None
        if early is not None:
            self.sink.bytes_arrived(PyBytes_AS_STRING(early), PyBytes_GET_SIZE(early))
        if self.ended and not self.end_told:
            self.end_told = True
            self.sink.wire_ended()
        return 0

    cdef int tell_lost(self) except -1:
        if self.attached and not self.lost_told:
            self.tell_early()
            self.lost_told = True
            sink, self.sink = self.sink, NOWHERE
            (<Sink>sink).wire_lost(self.cause)
        return 0

    # what the connection calls

    def fileno(self):
        if self.transport is None:
            return -1
        sock = self.transport.get_extra_info("socket")
        return -1 if sock is None else sock.fileno()

    def get_extra_info(self, name, default=None):
        return default if self.transport is None else self.transport.get_extra_info(name, default)

    def detach_socket(self):
        """See `Wire.detach_socket`: it is a copy of the transport's own."""
        sock = socket.socket(fileno=os.dup(self.transport.get_extra_info("socket").fileno()))
        self.sink = NOWHERE
        self.transport.abort()
        return sock

    cdef int attach(self, Sink sink) except -1:
        self.sink = sink
        if self.attached:
            return 0
        self.attached = True
        if self.lost or self.ended or self.early is not None:
            self.hub.mark_dirty(self)
        return self.resume_transport()

    cdef int resume_transport(self) except -1:
        if self.transport is not None and not self.paused and not self.transport.is_closing():
            self.transport.resume_reading()
        return 0

    cdef int end_turn(self) except -1:
        return self.tell_lost() if self.lost else self.tell_early()

    cdef int write(self, const char* data, Py_ssize_t size) except -1:
        return self.hand_over(PyBytes_FromStringAndSize(data, size))

    cdef int write_chunks(self, list chunks) except -1:
        return self.hand_over(chunks[0] if len(chunks) == 1 else b"".join(chunks))

    cdef int hand_over(self, object data) except -1:
        if self.transport is not None and not self.transport.is_closing():  # then an empty buffer means no room
            self.transport.write(data)
            self.backlog = self.transport.get_write_buffer_size()
        return 0

    cdef int measure(self) except -1:
        cdef Py_ssize_t left
        if self.transport is not None and not self.transport.is_closing():
            left = self.transport.get_write_buffer_size()
            if left < self.backlog:
                self.backlog = left
                self.sink.wire_room()
        return 0

    cdef int pause(self) except -1:
        if not self.paused:
            self.paused = True
            if self.transport is not None and not self.transport.is_closing():
                self.transport.pause_reading()
        return 0

    cdef int resume(self) except -1:
        if self.paused:
            self.paused = False
            self.resume_transport()
        return 0

    cdef int end_writing(self, bint closing) except -1:
        if self.transport is not None and self.can_half_close and not self.transport.is_closing():
            try:
                self.transport.write_eof()
            except OSError:
                pass        # reset meanwhile: connection_lost tells of it
        return 0

    cdef int shut(self) except -1:
        if self.transport is not None:
            self.transport.close()
        return 0

    cdef int drop(self) except -1:
        if self.transport is not None:
            sock = self.transport.get_extra_info("socket")
            if sock is not None:
                try:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                except OSError:
                    pass        # the peer hears of an end then
            self.transport.abort()
        return 0


class LoopWire(TransportWire, asyncio.BufferedProtocol):
    """What a transport of the loop gets as its protocol. The stdlib's loop tells a BufferedProtocol by its class."""

    __slots__ = ()
