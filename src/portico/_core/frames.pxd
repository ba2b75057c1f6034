from libc.stdint cimport uint32_t, uint64_t

from .codec cimport Codec, Payload


cdef extern from "frames.h":
    ctypedef struct portico_frame:
        unsigned char first
        int masked, size, minimal
        uint32_t key
        uint64_t length
    ctypedef struct portico_utf8:
        unsigned char missing, low, high
    bint portico_frame_head(const char* data, Py_ssize_t size, portico_frame* frame) noexcept
    int portico_write_head(char* out, int first, bint masked, uint64_t length) noexcept
    uint32_t portico_rotated(uint32_t key, Py_ssize_t size) noexcept
    unsigned char portico_mask(char* out, const char* data, Py_ssize_t size, uint32_t key) noexcept
    bint portico_utf8_goes_on(portico_utf8* state, const char* data, Py_ssize_t size) noexcept
    int portico_utf8_rest(const char* data, Py_ssize_t size) noexcept

cdef enum:
    CONTINUATION = 0        # RFC 6455 section 5.2
    TEXT = 1
    BINARY = 2
    CLOSE = 8
    PING = 9
    PONG = 10
    FIN = 0x80
    RSV1 = 0x40
    RESERVED = 0x30
    CONTROL_SIZE = 125      # bytes of a control frame's payload, at most
    FRAME_HEAD = 14
    PROTOCOL_BROKEN = 1002  # RFC 6455 section 7.4.1
    UNSUPPORTED = 1003
    NOT_UTF8 = 1007
    POLICY = 1008
    TOO_BIG = 1009
    SYNC_FLUSH = 2          # zlib.Z_SYNC_FLUSH


cdef class Frames(Codec):
    cdef readonly bint client, memoryviews, deflates
    cdef readonly Py_ssize_t max_fragments, threshold
    cdef readonly double ping_interval, ping_timeout    # seconds; INFINITY: none
    cdef readonly object deflate
    cdef int only                       # the opcode of the messages that are taken; 0: both
    cdef int level, memory_level, out_bits, in_bits
    cdef bint out_takeover, in_takeover
    cdef object lone                    # the compressor of messages that stand alone, while nobody uses it

    cdef Py_ssize_t frame(self, int first, const char* data, Py_ssize_t size, char* out) except -1
    cdef bint squeezes(self, Py_ssize_t size, object compress) except -1
    cdef bytes whole_frame(self, int first, Payload* payload)
    cdef bytes deflated_alone(self, Payload* payload)
    cdef object compressor(self)
    cdef object decompressor(self)


cdef int open_message(object message, Payload* payload) except -1
cdef bytes deflated(object compressor, Payload* payload, int flush)
cdef uint32_t fresh_key() except? 0
