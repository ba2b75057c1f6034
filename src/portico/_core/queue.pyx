# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""A queue between tasks of one loop whose getters park as cheaply as receivers do."""
import asyncio
from collections import deque

from cpython.ref cimport Py_INCREF, PyObject

from .hub cimport Hub, Wait, hub_of, portico_install_send, wait_send


cdef class Queue:
    """Messages between tasks of one loop; `put` never waits."""
    cdef Hub hub
    cdef object items, getters

    def __init__(self):
        self.hub = hub_of(asyncio.get_running_loop())
        self.items = deque()
        self.getters = deque()

    def __class_getitem__(cls, item):
        return cls

    def put(self, item):
        """Add `item`; the first of those that wait gets it."""
        self.items.append(item)
        self.wake_one()

    def get(self):
        """Await the next item. Cancelled, it loses none."""
        cdef Get get = Get.__new__(Get)
        get.hub = self.hub
        get.queue = self
        return get

    def __len__(self):
        return len(self.items)

    cdef int wake_one(self) except -1:
        cdef Get get
        if self.items and self.getters:
            get = self.getters.popleft()
            get.enrolled = False
            get.wake()
        return 0


cdef class Get(Wait):
    cdef Queue queue
    cdef bint enrolled

    cdef int attempt(self, PyObject** answer) except -1:
        if not self.queue.items:
            self.queue.getters.append(self)
            self.enrolled = True
            return 0
        item = self.queue.items.popleft()
        self.queue.wake_one()
        Py_INCREF(item)
        answer[0] = <PyObject*>item
        return 1

    cdef int withdraw(self, bint given_up) except -1:
        if self.enrolled:
            self.enrolled = False
            self.queue.getters.remove(self)
        elif given_up:
            self.queue.wake_one()   # it was woken for an item that it will not take
        return 0


portico_install_send(Get, <void*>wait_send)
