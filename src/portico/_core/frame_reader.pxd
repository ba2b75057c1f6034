from cpython.ref cimport PyObject
from libc.stdint cimport uint32_t

from .channel cimport ChannelBase
from .frames cimport Frames, portico_frame, portico_utf8


cdef class FrameReader(ChannelBase):
    cdef readonly Frames frames
    cdef bint close_received, failing   # nothing that comes matters any more
    cdef double heard                   # seconds of the hub's clock: when something last came
    # the frame that is coming
    cdef Py_ssize_t frame_left          # bytes of its payload that have not come
    cdef uint32_t key                   # for the next of them
    cdef bint masked, final
    # its message
    cdef int opcode                     # 0: there is none
    cdef bint compressed, unwanted
    cdef portico_utf8 utf8
    cdef PyObject* body                 # bytes, owned, of which body_size are filled
    cdef Py_ssize_t body_size, body_capacity, fragments
    cdef object inflater                # whose window outlives a message
    cdef int ends                       # final blocks that it had so far
    cdef bint in_pieces                 # what does not come at once is handed out piece by piece
    cdef bint cut                       # a part of the message was queued before

    cdef int take_in(self, const char* data, Py_ssize_t size) except -1
    cdef int control(self, int opcode, const char* data, Py_ssize_t size) except -1
    cdef int break_off(self, int code, object error) except -1
    cdef Py_ssize_t missing_front(self) noexcept
    cdef int begin_frame(self, portico_frame* frame) except -1
    cdef int begin_payload(self, portico_frame* frame, int opcode) except -1
    cdef int announce_message(self, object message, Py_ssize_t size) except -1
    cdef int take_whole(self, const char* data, portico_frame* frame) except -1
    cdef int take_payload(self, const char* data, Py_ssize_t size) except -1
    cdef int grow_body(self, Py_ssize_t more) except -1
    cdef int drop_body(self) except -1
    cdef object body_bytes(self)
    cdef int end_message(self) except -1
    cdef int put_inflate_tail(self) except -1
    cdef bytes inflated(self)
    cdef tuple inflate(self, bytes data, Py_ssize_t limit)
    cdef int end_inflating(self) except -1
    cdef int cut_what_came(self) except -1
    cdef int cut_piece(self, bint last) except -1


cdef Py_ssize_t deflated_bound(Py_ssize_t size) noexcept
cdef object not_utf8(Py_ssize_t offset)
