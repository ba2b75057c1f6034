from .hub cimport Flushable, Hub
from .output cimport Part


cdef class Sink(Flushable):
    """What a wire hands its bytes to: a connection, or TLS on the way to one."""

    cdef int bytes_arrived(self, const char* data, Py_ssize_t size) except -1
    cdef int wire_ended(self) except -1
    cdef int wire_lost(self, object error) except -1
    cdef int wire_room(self) except -1


cdef class Wire(Sink):
    """Moves bytes in order, both ways; it is a sink itself because TLS is a wire upon another."""
    cdef readonly Hub hub
    cdef Sink sink
    cdef Py_ssize_t backlog         # bytes taken by `write` that are still here
    cdef bint can_half_close

    cdef int attach(self, Sink sink) except -1
    cdef int write(self, const char* data, Py_ssize_t size) except -1
    cdef Py_ssize_t write_parts(self, Part* parts, int count) except -1
    cdef int write_chunks(self, list chunks) except -1
    cdef int pause(self) except -1
    cdef int resume(self) except -1
    cdef int end_writing(self, bint closing) except -1
    cdef int shut(self) except -1
    cdef int drop(self) except -1
    cdef int measure(self) except -1


cdef Sink NOWHERE
