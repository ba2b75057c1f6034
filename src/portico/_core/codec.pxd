from cpython.ref cimport PyObject

cdef enum:
    TOO_LARGE = -1
    INVALID = -2
    DEFAULT_MAX_SIZE = 1 << 20  # as `websockets` has it
    MAX_HEAD = 16           # room that a codec has for what goes before or after a payload


cdef struct Span:
    Py_ssize_t start        # of the payload, from the start of the frame
    Py_ssize_t size         # of the payload; of what is too large, as far as known
    Py_ssize_t frame        # of what is too large: the bytes to skip; -1: until the codec finds the end
    const char* reason      # why the bytes are not valid


cdef struct Payload:
    const char* data
    Py_ssize_t size
    PyObject* owner         # an owned bytes or str that holds the data, or NULL where `view` does
    Py_buffer view


cdef class Codec:
    """How messages are cut out of bytes. One object serves all connections: it holds settings, no state."""
    cdef readonly Py_ssize_t max_size
    cdef readonly bint native   # its frames are found by `next`, without a Python object
    cdef readonly bint for_records  # a packet is a message, so bytes in a row are nothing for it

    cdef Py_ssize_t next(self, const char* data, Py_ssize_t size, Py_ssize_t* searched, Span* span) noexcept
    cdef Py_ssize_t finish(self, const char* data, Py_ssize_t size, Span* span) noexcept
    cdef bint resync(self, const char* data, Py_ssize_t size, Py_ssize_t* dropped) noexcept
    cdef object load(self, const char* data, Py_ssize_t size)
    cdef int open(self, object message, Payload* payload) except -1
    cdef int head(self, Py_ssize_t size, char* out) noexcept
    cdef int tail(self, char* out) noexcept
    cdef Py_ssize_t check(self, Py_ssize_t size) except -1


cdef class Records(Codec):
    cdef readonly bint text


cdef int open_bytes(object message, Payload* payload) except -1
cdef void release(Payload* payload) noexcept
cdef object failure(Codec codec, Py_ssize_t code, Span* span)
