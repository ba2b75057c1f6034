from .wire cimport Sink, Wire


cdef class TLSWire(Wire):
    cdef Wire below
    cdef object incoming, outgoing      # ssl.MemoryBIO: what came, what is to leave
    cdef readonly object ssl_object
    cdef object on_handshake, cause, pending
    cdef list early                     # plain text that waits for the handshake
    cdef bint established, ended, end_wanted, end_sent, end_closing, failed, lost_told, below_lost, below_ended, attached, unread_at_attach, shutting

    cdef int handshake(self) except -1
    cdef int establish(self) except -1
    cdef int read_records(self) except -1
    cdef int encrypt(self, object data) except -1
    cdef int send_records(self) except -1
    cdef int fail(self, object error) except -1
    cdef int count_backlog(self) except -1
