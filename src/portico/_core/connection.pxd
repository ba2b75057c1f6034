from cpython.ref cimport PyObject

from .codec cimport Codec, Payload
from .hub cimport Hub, Wait
from .output cimport Output
from .ring cimport Ring
from .wire cimport Sink, Wire


cdef enum ReadState:
    OPEN, ENDED, FAILED, CLOSED

cdef enum RecvKind:
    NEXT, ITERATE, BATCH, EXACTLY, UNTIL

cdef enum:
    MESSAGE_COST = 64       # bytes of memory that a queued message takes beside its payload


cdef class Settings:
    """The limits that many connections share, and what they moved together."""
    cdef readonly Py_ssize_t read_limit, high_water, low_water, max_unsent
    cdef readonly double idle_timeout, message_timeout, send_timeout, close_timeout     # seconds; INFINITY: none
    cdef public long long bytes_received, bytes_sent, messages_received, messages_sent, timeouts


cdef class Connection(Sink):
    cdef readonly Hub hub
    cdef readonly Wire wire
    cdef readonly Settings settings
    cdef public object owner            # told by `owner(connection)` when the connection is over
    cdef readonly object cause          # why it was lost
    cdef readonly Connection successor  # what took over the wire
    # receiving
    cdef char* carry                    # bytes of a message whose end has not come
    cdef Py_ssize_t carry_start, carry_size, carry_capacity, searched
    cdef Ring messages
    cdef Py_ssize_t queued_size
    cdef Recv reader, spare
    cdef ReadState read_state
    cdef object failure                 # what recv() raises in the state FAILED
    cdef bint reading_paused, peer_ended
    cdef unsigned long long share_turn
    cdef int share_taken
    # sending
    cdef Output output
    cdef list waiters
    cdef bint eof_wanted, eof_sent, closing, lingering, lost
    # time, in seconds of the hub's clock
    cdef double active, message_begun, stalled_since, close_due

    cdef int keep(self, const char* data, Py_ssize_t size) except -1
    cdef int drop_carry(self) except -1
    cdef int clear_carry_front(self, Py_ssize_t size) except -1
    cdef int push(self, object message, Py_ssize_t size) except -1
    cdef int stop_reading(self, ReadState state) except -1
    cdef int pause_reading(self) except -1
    cdef int resume_reading(self) except -1
    cdef int excuse_silence(self, double now) except -1
    cdef int took(self, Py_ssize_t size) except -1
    cdef int take(self, Recv recv, PyObject** answer) except -1
    cdef object end(self, Recv recv)
    cpdef object closed_error(self)
    cdef Recv new_recv(self, RecvKind kind)
    cdef int take_over(self, Connection predecessor) except -1
    cdef int check_idle(self) except -1
    cdef bytes hand_on(self, Connection successor)
    cdef int check_sending(self) except -1
    cdef int put(self, Codec codec, Payload* payload) except -1
    cdef int put_shared(self, Payload* payload) except -1
    cdef Py_ssize_t unsent_size(self) noexcept
    cdef bint has_room(self) noexcept
    cdef object sent(self)
    cdef Room new_room(self, int what)
    cdef int wake_waiters(self) except -1
    cdef int write_out(self) except -1
    cdef int write_parts(self) except -1
    cdef int drop_output(self) except -1
    cdef int begin_closing(self) except -1
    cdef int finish_closing(self) except -1
    cdef double next_due(self) noexcept
    cdef int set_deadline(self) except -1
    cdef int time_out(self, str reason) except -1


cdef class Recv(Wait):
    cdef Connection connection
    cdef RecvKind kind
    cdef Py_ssize_t amount, searched
    cdef bytes separator


cdef class Room(Wait):
    cdef Connection connection
    cdef int what
