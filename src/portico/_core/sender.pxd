from .codec cimport Codec, Payload
from .hub cimport Hub, Wait
from .output cimport Output
from .wire cimport Sink, Wire


cdef enum:
    ROOM, LEAVING, ALL_SENT, OVER   # what a Room waits for
    SPLICE_SIZE = 8192      # bytes of a payload from which on it is sent from where it is


cdef class Settings:
    """The limits that many connections share, and what they moved together."""
    cdef readonly Py_ssize_t read_limit, high_water, low_water, max_unsent
    cdef readonly double idle_timeout, message_timeout, send_timeout, close_timeout     # seconds; INFINITY: none
    cdef public long long bytes_received, bytes_sent, messages_received, messages_sent, timeouts


cdef class Sender(Sink):
    cdef readonly Hub hub
    cdef readonly Wire wire
    cdef readonly Settings settings
    cdef readonly object cause          # why it was lost
    cdef readonly Sender successor      # what took over the wire
    cdef Output output
    cdef list waiters
    cdef object setback                 # a failure that the next call tells of
    cdef object watcher                 # called when something came, left or ended
    cdef bint records, eof_wanted, eof_sent, closing, lingering, lost
    cdef double active                  # seconds of the hub's clock: when something last came or went

    cpdef object closed_error(self)
    cdef int check_sending(self) except -1
    cdef int put(self, Codec codec, Payload* payload) except -1
    cdef int put_shared(self, Payload* payload) except -1
    cdef int put_record(self, Codec codec, Payload* payload) except -1
    cdef Py_ssize_t leaving_size(self) noexcept
    cdef Py_ssize_t unsent_size(self) noexcept
    cdef bint has_room(self) noexcept
    cdef object sent(self)
    cdef object leaving(self)
    cdef Room new_room(self, int what)
    cdef int wake_waiters(self) except -1
    cdef int write_out(self) except -1
    cdef int flush_records(self, bint now) except -1
    cdef int write_parts(self) except -1
    cdef int drop_output(self) except -1


cdef class Room(Wait):
    cdef Sender connection
    cdef int what
