from cpython.ref cimport PyObject

from .hub cimport Hub
from .timers cimport Timed

cdef enum:
    SLOTS = 64
    SMALLEST = 128 * 1024               # bytes; the allocator itself keeps what is smaller (mallopt(3), M_MMAP_THRESHOLD)


cdef struct Spare:
    PyObject* body                      # owned, and perhaps by others
    Py_ssize_t capacity                 # bytes that it was allocated with


cdef class Spares(Timed):
    cdef Hub hub
    cdef Spare slots[SLOTS]
    cdef int count
    cdef readonly Py_ssize_t size       # bytes of all together
    cdef double used

    cdef PyObject* take(self, Py_ssize_t needed, Py_ssize_t* capacity) except NULL
    cdef int give(self, PyObject* body, Py_ssize_t capacity) except -1
    cdef int drop(self, int place) except -1


cdef Spares spares_of(Hub hub)
