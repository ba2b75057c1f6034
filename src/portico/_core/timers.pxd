cdef class Timed:
    """Something that is to be told when a time has come."""
    cdef double due             # in the seconds of the monotonic clock, while `place` is not 0
    cdef Py_ssize_t place       # in the heap, from 1; 0: none

    cdef int expire(self, double now) except -1


cdef class Timers:
    cdef list heap              # a list, so that the garbage collector sees what it refers to

    cdef int put(self, Timed item, double due) except -1
    cdef int remove(self, Timed item) except -1
    cdef double earliest(self) noexcept
    cdef Timed pop_due(self, double now)
    cdef int _rise(self, Py_ssize_t place) except -1
    cdef int _sink(self, Py_ssize_t place) except -1
