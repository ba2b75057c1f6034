from cpython.ref cimport PyObject

from .timers cimport Timed, Timers


cdef extern from "native.h":
    int PYGEN_RETURN, PYGEN_ERROR, PYGEN_NEXT
    double portico_monotonic() noexcept
    void portico_prefetch(const void* item, int lines) noexcept
    void portico_install_send(object type, void* send)


cdef class Flushable(Timed):
    """Something with output that leaves at the end of the turn."""
    cdef bint dirty

    cdef int end_turn(self) except -1
    cdef void warm(self) noexcept


cdef class Hub:
    cdef readonly object loop
    cdef object context, run_callback, timer, timer_callback
    cdef double timer_due
    cdef readonly object scratch_view   # the receive buffer that all connections share
    cdef char* scratch
    cdef Py_ssize_t scratch_size
    cdef list ready                     # drivers to step
    cdef list postponed                 # waits that used up their share of this turn
    cdef list dirty
    cdef list late                      # sockets that many of those share: they leave after them
    cdef Driver running                 # whose coroutine is being stepped
    cdef bint scheduled, turning
    cdef readonly unsigned long long turn_number
    cdef double now                     # when this turn began
    cdef Timers timers
    cdef object epoll                   # the sockets that are read without the loop's transports
    cdef object batch                   # where packets are received, all ports alike
    cdef readonly object spares         # the memory of large messages that are over
    cdef public bint native_sockets     # whether new sockets go there
    cdef PyObject* last_arrival         # compared, never followed
    cdef int streak

    cdef int schedule(self) except -1
    cdef int postpone(self, Wait wait) except -1
    cdef int mark_dirty(self, Flushable item) except -1
    cdef int mark_late(self, Flushable item) except -1
    cdef bint begin_arrival(self, object connection) except -1
    cdef int turn(self) except -1
    cdef int flush_dirty(self) except -1
    cdef int flush_late(self) except -1
    cdef bint in_task(self) except -1
    cdef object suspend(self, Wait wait)
    cdef int set_timer(self, Timed item, double due) except -1
    cdef int arm(self) except -1


cdef class Wait:
    """One await on an object of a hub; subclasses say what for."""
    cdef Hub hub
    cdef Driver driver      # to step when woken, or
    cdef object future      # to complete when woken
    cdef bint waiting

    cdef int attempt(self, PyObject** answer) except -1
    cdef int withdraw(self, bint given_up) except -1
    cdef int leave(self, bint given_up) except -1
    cdef int wake(self) except -1
    cdef bint is_cancelled(self) except -1


cdef class Driver:
    cdef Hub hub
    cdef readonly object coro
    cdef object task, context, park, value, on_done
    cdef int outcome
    cdef bint parked, queued, cancelled_itself

    cdef int bind(self) except -1
    cdef int drive(self, PyObject* value, PyObject** answer) except -1
    cdef int deliver(self, PyObject** answer) except -1
    cdef int step(self) except -1
    cdef int step_in_task(self) except -1
    cdef object take_outcome(self)
    cdef bint ended(self, object error) except -1


cpdef Hub hub_of(object loop)
cdef int wait_send(PyObject* self_, PyObject* value, PyObject** answer) except -1
