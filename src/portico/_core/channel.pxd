from cpython.ref cimport PyObject

from .codec cimport Codec
from .connection cimport Connection, Recv


cdef class ChannelBase(Connection):
    cdef readonly Codec codec
    cdef Py_ssize_t skip            # bytes to drop of a message that is too large; -1: until the codec finds its end
    cdef Py_ssize_t needed          # bytes that a codec in Python wants to see first

    cdef int announce(self, bint reader_waits) except -1
    cdef int push_message(self, object message, Py_ssize_t size) except -1
    cdef int drop_front(self, Py_ssize_t size) except -1
    cdef Py_ssize_t parse(self, const char* data, Py_ssize_t size) except -1
    cdef Py_ssize_t skip_some(self, const char* data, Py_ssize_t size) except -1
    cdef int parse_in_python(self, const char* data, Py_ssize_t size) except -1
    cdef int fail(self, object error) except -1
    cdef int hand_out(self, Recv recv, PyObject* item, PyObject** answer) except -1
