from cpython.ref cimport PyObject

from .hub cimport Wait
from .ring cimport Ring
from .sender cimport Sender


cdef enum ReadState:
    OPEN, ENDED, FAILED, CLOSED

cdef enum RecvKind:
    NEXT, ITERATE, WITH_CONTROL, BATCH, PIECE, EXACTLY, UNTIL

cdef enum:
    MESSAGE_COST = 64       # bytes of memory that a queued message takes beside its payload


cdef class Connection(Sender):
    cdef public object scheme, draining, _local, _remote    # what the face above knows of it
    cdef public object owner            # told by `owner(connection)` when the connection is over
    # receiving
    cdef char* carry                    # bytes of a message whose end has not come
    cdef Py_ssize_t carry_start, carry_size, carry_capacity, searched
    cdef Ring messages
    cdef Py_ssize_t queued_size
    cdef Recv reader, spare
    cdef ReadState read_state
    cdef object failure                 # what recv() raises in the state FAILED
    cdef bint reading_paused, peer_ended
    cdef list beside                    # control messages that came and nobody has taken
    cdef unsigned long long share_turn
    cdef int share_taken
    # time, in seconds of the hub's clock
    cdef double message_begun, stalled_since, close_due

    cdef int keep(self, const char* data, Py_ssize_t size) except -1
    cdef int drop_carry(self) except -1
    cdef int clear_carry_front(self, Py_ssize_t size) except -1
    cdef int push(self, object message, Py_ssize_t size) except -1
    cdef int push_failure(self, object error) except -1
    cdef int take_beside(self) except -1
    cdef object failure_of(self, object target, int code, bytes data, Py_ssize_t size, unsigned int mtu)
    cdef int stop_reading(self, ReadState state) except -1
    cdef int pause_reading(self) except -1
    cdef int resume_reading(self) except -1
    cdef int excuse_silence(self, double now) except -1
    cdef int took(self, Py_ssize_t size) except -1
    cdef int take(self, Recv recv, PyObject** answer) except -1
    cdef object end(self, Recv recv)
    cdef bint has_something(self) noexcept
    cdef Recv new_recv(self, RecvKind kind)
    cdef int take_over(self, Connection predecessor) except -1
    cdef int check_idle(self) except -1
    cdef bytes hand_on(self, Connection successor)
    cdef int begin_closing(self) except -1
    cdef int finish_closing(self) except -1
    cdef double next_due(self) noexcept
    cdef int set_deadline(self) except -1
    cdef int time_out(self, str reason) except -1


cdef class Failure:
    """Stands in the queue for a message that could not be read."""
    cdef object error


cdef class Recv(Wait):
    cdef Connection connection
    cdef RecvKind kind
    cdef Py_ssize_t amount, searched
    cdef bytes separator
