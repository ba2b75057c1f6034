from cpython.ref cimport PyObject

from .connection cimport Recv
from .frame_reader cimport FrameReader


cdef class Piece:
    cdef object data                    # str or bytes; maybe empty
    cdef bint last
    cdef bint squeezed, text            # data is to be inflated, to text
    cdef double begun                   # when the message, or the piece before it, had come

    cdef Piece front(self, bytes data)


cdef class PieceReader(FrameReader):
    cdef bint taking_pieces             # somebody took some of the first message in the queue, but not its last
    cdef bint skipping                  # the rest of the message that is coming is inflated, but nobody wants it
    cdef bytes begun                    # the front of a character, of the text that is being inflated
    cdef Py_ssize_t skipped             # bytes that it was

    cdef bytes characters(self, bytes data, bint last)
    cdef object inflate_some(self, Piece piece, bint* over)
    cdef int let_go(self, Piece piece) except -1
    cdef int let_go_first(self) except -1
    cdef int spoilt(self, int code, object error) except -1
    cdef int check_first(self) except -1
    cdef int drop_pieces(self) except -1
    cdef int drop_rest(self) except -1
    cdef int take_piece(self, PyObject** answer) except -1
    cdef int take_inflated(self, Piece piece, PyObject** answer) except -1
    cdef int join_pieces(self, Recv recv, PyObject** answer) except -1
    cdef object joined(self, list parts, bint squeezed, bint text)
