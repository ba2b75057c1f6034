# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""Deadlines in a binary heap whose items know their place, so that moving or dropping one costs no search."""
from cpython.list cimport PyList_GET_ITEM, PyList_GET_SIZE
from cpython.ref cimport PyObject
from libc.math cimport INFINITY


cdef extern from *:
    """
    /* Moves a reference within a list; the counts stay right because every item is put back somewhere. */
    #define portico_list_move(list, index, item) (((PyListObject *)(list))->ob_item[index] = (PyObject *)(item))
    """
    void portico_list_move(object items, Py_ssize_t index, PyObject* item)


cdef class Timed:
    cdef int expire(self, double now) except -1:
        """Called once the time has come; the item is no longer in the heap and may put itself back."""
        return 0


cdef inline double due_at(list heap, Py_ssize_t place):
    return (<Timed>PyList_GET_ITEM(heap, place - 1)).due


cdef inline int settle(list heap, Py_ssize_t place, Timed item) except -1:
    portico_list_move(heap, place - 1, <PyObject*>item)
    item.place = place
    return 0


cdef class Timers:
    def __cinit__(self):
        self.heap = []

    def __len__(self):
        return len(self.heap)

    cdef int put(self, Timed item, double due) except -1:
        """Set when `item` expires, whether it is waiting already or not."""
        item.due = due
        if not item.place:
            self.heap.append(item)
            item.place = PyList_GET_SIZE(self.heap)
            return self._rise(item.place)
        self._rise(item.place)
        return self._sink(item.place)

    cdef int remove(self, Timed item) except -1:
        cdef Py_ssize_t place = item.place
        cdef Timed last
        if not place:
            return 0
        item.place = 0
        last = self.heap.pop()
        if last is not item:
            self.heap[place - 1] = last
            last.place = place
            self._rise(place)
            self._sink(last.place)
        return 0

    cdef double earliest(self) noexcept:
        return due_at(self.heap, 1) if PyList_GET_SIZE(self.heap) else INFINITY

    cdef Timed pop_due(self, double now):
        cdef Timed item
        if self.earliest() > now:
            return None
        item = self.heap[0]
        self.remove(item)
        return item

    cdef int _rise(self, Py_ssize_t place) except -1:
        cdef Timed item = <Timed>PyList_GET_ITEM(self.heap, place - 1), parent
        while place > 1:
            parent = <Timed>PyList_GET_ITEM(self.heap, (place >> 1) - 1)
            if parent.due <= item.due:
                break
            settle(self.heap, place, parent)
            place >>= 1
        return settle(self.heap, place, item)

    cdef int _sink(self, Py_ssize_t place) except -1:
        cdef Timed item = <Timed>PyList_GET_ITEM(self.heap, place - 1), child
        cdef Py_ssize_t below = place << 1, count = PyList_GET_SIZE(self.heap)
        while below <= count:
            if below < count and due_at(self.heap, below + 1) < due_at(self.heap, below):
                below += 1
            child = <Timed>PyList_GET_ITEM(self.heap, below - 1)
            if item.due <= child.due:
                break
            settle(self.heap, place, child)
            place = below
            below = place << 1
        return settle(self.heap, place, item)
