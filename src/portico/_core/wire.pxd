from cpython.ref cimport PyObject

from .hub cimport Flushable, Hub
from .output cimport Part


cdef struct Arrival:        # what came with a packet
    PyObject* origin        # Endpoint: who sent it, or NULL: the one that the socket is connected to
    PyObject* control       # list of its control messages, or NULL
    Py_ssize_t whole_size   # of the packet, of which only the front may be here
    long long stamp         # ns since 1970, 0: not known
    int ttl, tos            # -1: not known


cdef class Sink(Flushable):
    """What a wire hands its bytes to: a connection, or TLS on the way to one."""

    cdef int bytes_arrived(self, const char* data, Py_ssize_t size) except -1
    cdef int wire_ended(self) except -1
    cdef int wire_lost(self, object error) except -1
    cdef int wire_room(self) except -1
    cdef int packet_arrived(self, const char* data, Py_ssize_t size, Arrival* arrival) except -1
    cdef int packet_failed(self, object target, int code, bytes data, Py_ssize_t size, unsigned int mtu) except -1


cdef class Wire(Sink):
    """Moves bytes in order, both ways; it is a sink itself because TLS is a wire upon another."""
    cdef readonly Hub hub
    cdef Sink sink
    cdef Py_ssize_t backlog         # bytes taken by `write` that are still here
    cdef bint can_half_close
    cdef readonly bint keeps_records    # what is written and read are whole packets, not bytes in a row
    cdef bint is_endless            # the peer cannot tell that it ends
    cdef readonly Py_ssize_t max_record     # bytes of the largest packet; 0: not known
    cdef list arriving              # the control messages that came with what is being handed on

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
    cdef bint unconfirmed(self) noexcept
    cdef char* open_record(self, Py_ssize_t most) except NULL
    cdef int close_record(self, Py_ssize_t size) except -1
    cdef int flush_records(self, bint now) except -1


cdef class BottomWire(Wire):
    """A wire that nothing lies beneath but the operating system: it ends once, and tells of it in the next turn."""
    cdef object cause
    cdef bint attached, ended, closed

    cdef int finish(self, object cause) except -1
    cdef int release(self) except -1


cdef Sink NOWHERE
