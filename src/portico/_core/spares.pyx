# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""Large bytes objects that were messages, for the next ones: fresh memory costs a page fault for every 4 KiB."""
from cpython.ref cimport Py_DECREF, Py_INCREF, PyObject

from .hub cimport Hub, portico_monotonic

cdef extern from "bytes.h":
    bint portico_has_one_owner(PyObject* body) noexcept
    PyObject* PyBytes_FromSize "PyBytes_FromStringAndSize"(const char* data, Py_ssize_t size) except NULL

cdef enum:
    TOGETHER = 16 * 1024 * 1024     # bytes that are kept at most

cdef double KEPT = 1.0              # seconds after the last use


cdef class Spares(Timed):
    """The large messages of a hub's connections: one that nobody else refers to any more lends its memory to the next."""

    def __init__(self, Hub hub not None):
        self.hub = hub

    def __dealloc__(self):
        while self.count:
            self.drop(0)

    cdef PyObject* take(self, Py_ssize_t needed, Py_ssize_t* capacity) except NULL:
        """Return bytes with room for `needed` that nobody else refers to, and tell how many they have room for."""
        cdef int place
        cdef PyObject* body
        if needed >= SMALLEST:
            for place in range(self.count):
                if portico_has_one_owner(self.slots[place].body) and needed <= self.slots[place].capacity <= 2 * needed:
                    body, capacity[0] = self.slots[place].body, self.slots[place].capacity
                    Py_INCREF(<object>body)
                    self.drop(place)
                    return body
        capacity[0] = needed
        return PyBytes_FromSize(NULL, needed)

    cdef int give(self, PyObject* body, Py_ssize_t capacity) except -1:
        """Remember bytes that become a message, with the capacity that they have: they can be taken once it is let go of."""
        if not SMALLEST <= capacity <= TOGETHER:
            return 0
        while self.count == SLOTS or self.size + capacity > TOGETHER:
            self.drop(0)
        self.used = portico_monotonic()
        if not self.count:
            self.hub.set_timer(self, self.used + KEPT)
        Py_INCREF(<object>body)
        self.slots[self.count] = Spare(body, capacity)
        self.count += 1
        self.size += capacity
        return 0

    cdef int drop(self, int place) except -1:
        """Forget one of them; the order of the others stays, oldest first."""
        cdef PyObject* body = self.slots[place].body
        self.size -= self.slots[place].capacity
        self.count -= 1
        for place in range(place, self.count):
            self.slots[place] = self.slots[place + 1]
        Py_DECREF(<object>body)
        return 0

    cdef int expire(self, double now) except -1:
        if now < self.used + KEPT:
            return self.hub.set_timer(self, self.used + KEPT)
        while self.count:
            self.drop(0)
        return 0


cdef Spares spares_of(Hub hub):
    if hub.spares is None:
        hub.spares = Spares(hub)
    return <Spares>hub.spares
