# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""The seam between bytes and messages: what any transport offers to the connection above it."""
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE

from cpython.ref cimport PyObject

from .hub cimport Flushable, Hub
from .output cimport Part


cdef class Sink(Flushable):
    cdef int bytes_arrived(self, const char* data, Py_ssize_t size) except -1:
        """Take `size` bytes; the memory is the caller's again afterwards."""
        return 0

    cdef int wire_ended(self) except -1:
        """The peer sends no more; writing goes on."""
        return 0

    cdef int wire_lost(self, object error) except -1:
        """The wire is gone, for a reason or (None) as wanted. Called once, never from within a call to the wire."""
        return 0

    cdef int wire_room(self) except -1:
        """Something of the wire's backlog has left."""
        return 0

    cdef int packet_arrived(self, const char* data, Py_ssize_t size, Arrival* arrival) except -1:
        """Take a packet; the memory is the caller's again afterwards."""
        return 0

    cdef int packet_failed(self, object target, int code, bytes data, Py_ssize_t size, unsigned int mtu) except -1:
        """A packet of `size` bytes for `target` (an Endpoint; None: the peer), of which `data` is quoted, was not delivered;
        `mtu`: of the path, where it was too large for that, else 0."""
        return 0


cdef Sink NOWHERE = Sink.__new__(Sink)      # for the time between two owners


cdef class Wire(Sink):
    def fileno(self):
        """Return the descriptor of the socket below, or -1."""
        return -1

    cdef int attach(self, Sink sink) except -1:
        """Hand everything that comes to `sink` from now on; the first call starts reading."""
        self.sink = sink
        return 0

    cdef int write(self, const char* data, Py_ssize_t size) except -1:
        """Send in order; what cannot leave now is kept. Failures reach the sink, later."""
        raise NotImplementedError

    cdef Py_ssize_t write_parts(self, Part* parts, int count) except -1:
        """Send as much as can leave at once from where it lies, and return how much; the rest is for `write_chunks`."""
        return 0

    cdef int write_chunks(self, list chunks) except -1:
        """Send bytes objects in order, without copying where that is possible."""
        for chunk in chunks:
            self.write(PyBytes_AS_STRING(chunk), PyBytes_GET_SIZE(chunk))
        return 0

    cdef int pause(self) except -1:
        """Stop reading until `resume`."""
        raise NotImplementedError

    cdef int resume(self) except -1:
        raise NotImplementedError

    cdef int end_writing(self, bint closing) except -1:
        """Send the end of this direction behind the backlog; `closing`: nothing that comes matters any more."""
        raise NotImplementedError

    cdef int shut(self) except -1:
        """Close for good, the backlog being empty; the sink hears `wire_lost(None)`."""
        raise NotImplementedError

    cdef int drop(self) except -1:
        """Close for good at once, losing what is on the way; the sink hears `wire_lost(None)`."""
        raise NotImplementedError

    cdef int measure(self) except -1:
        """Bring `backlog` up to date where the wire is not told of each byte that leaves."""
        return 0

    cdef bint unconfirmed(self) noexcept:
        """Whether the peer's machine has not confirmed all that was written, as far as can be known."""
        return self.backlog > 0

    cdef char* open_record(self, Py_ssize_t most) except NULL:
        """Return where to write a packet of up to `most` bytes; `close_record` follows."""
        raise NotImplementedError

    cdef int close_record(self, Py_ssize_t size) except -1:
        """Queue the packet that was written, `size` bytes of it."""
        raise NotImplementedError

    cdef int flush_records(self, bint now) except -1:
        """Send the packets that are queued."""
        return 0

    def detach_socket(self):
        """Give the socket up: return it, and hear and write no more.

        :raises UnsupportedError: there is none, or something lies between"""
        from portico.errors import UnsupportedError
        raise UnsupportedError("a TLS or memory connection has no socket that could be used without it")


cdef class BottomWire(Wire):
    cdef int shut(self) except -1:
        return self.finish(None)

    cdef int drop(self) except -1:
        return self.finish(None)

    cdef int finish(self, object cause) except -1:
        if not self.closed:
            self.closed = True
            self.cause = cause
            self.release()
            if self.attached:
                self.hub.mark_dirty(self)
        return 0

    cdef int release(self) except -1:
        """Give back what the operating system gave."""
        raise NotImplementedError

    def discard(self):
        """Close what never got a connection above it."""
        self.finish(None)

    cdef int end_turn(self) except -1:
        """Tell of the loss, outside of any call from above."""
        if self.closed and self.sink is not NOWHERE:
            sink, self.sink = self.sink, NOWHERE
            (<Sink>sink).wire_lost(self.cause)
        return 0
