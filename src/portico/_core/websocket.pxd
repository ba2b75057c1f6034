from .codec cimport Payload
from .pieces cimport PieceReader


cdef class WebSocketBase(PieceReader):
    cdef object deflater                # whose window outlives a message
    # sending a message in pieces
    cdef int sending_pieces             # its opcode; 0: there is none
    cdef list held                      # frames that leave behind it
    cdef Py_ssize_t held_size
    # the end
    cdef bint close_sent
    cdef bint closed_first              # before the peer did
    cdef int closing_code                       # that a close frame will have; 0: nobody has chosen
    cdef bytes closing_reason
    cdef readonly object close_code     # what the peer said, 1005 where it gave none, 1006 where it said nothing
    cdef readonly str close_reason
    # the other end's health
    cdef readonly object latency        # seconds that the last ping and its pong took; None: not known yet
    cdef double ping_due, ping_sent
    cdef double verdict_due             # when the end is spoken of, though messages before it wait here; 0: there is none
    cdef bytes late_pong                # what to answer the last ping with, when there is room
    cdef dict pings                     # payload -> (when, Future)

    cdef int peer_closes(self, const char* data, Py_ssize_t size) except -1
    cdef object goodbye(self)
    cdef int miss_goodbye(self) except -1
    cdef bint ought_to_close(self) noexcept
    cdef bint may_choose(self) noexcept
    cdef int put_pong(self) except -1
    cdef int pong_came(self, bytes payload) except -1
    cdef bytes own_ping(self)
    cdef int keep_alive(self, double now) except -1
    cdef int put_frame(self, int first, Payload* payload) except -1
    cdef int put_control(self, int opcode, bytes data) except -1
    cdef int put_close(self, int code, bytes reason) except -1
    cdef int put_message(self, object message, object compress) except -1
    cdef bytes squeezed(self, Payload* payload)
    cdef int hold(self, bytes frame) except -1
