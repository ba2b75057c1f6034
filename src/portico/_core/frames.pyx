# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""WebSocket messages in bytes (RFC 6455 section 5): frames, masks, and messages that are deflated (RFC 7692)."""
import os
import zlib

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.ref cimport Py_INCREF, PyObject
from cpython.unicode cimport PyUnicode_CheckExact
from libc.math cimport INFINITY
from libc.stdint cimport uint32_t
from libc.string cimport memcpy

from .codec cimport DEFAULT_MAX_SIZE, Codec, Payload, open_bytes, release

from portico.errors import ProtocolError


cdef extern from "Python.h":
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* size) except NULL

cdef enum:
    KEYS = 4096             # bytes of randomness that are fetched at a time
    FULL_FLUSH = 3          # zlib.Z_FULL_FLUSH: what follows refers to nothing before it

cdef bytes keys = b""
cdef Py_ssize_t keys_used = 0


cdef uint32_t fresh_key() except? 0:
    """Return four bytes that nobody can foresee (RFC 6455 section 10.3)."""
    global keys, keys_used
    cdef uint32_t key
    if keys_used + 4 > PyBytes_GET_SIZE(keys):
        keys, keys_used = os.urandom(KEYS), 0
    memcpy(&key, PyBytes_AS_STRING(keys) + keys_used, 4)
    keys_used += 4
    return key


def _forget_keys():
    global keys
    keys = b""


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_keys)      # or parent and child would use the same ones


cdef int open_message(object message, Payload* payload) except -1:
    """Let `payload` show the bytes of `message`, to be released; return the opcode that says what it is."""
    if not PyUnicode_CheckExact(message) and not isinstance(message, str):
        open_bytes(message, payload)
        return BINARY
    try:
        payload.data = PyUnicode_AsUTF8AndSize(message, &payload.size)
    except UnicodeEncodeError as error:
        raise ProtocolError(f"a message cannot be sent as UTF-8: {error.reason}", error.start) from None
    Py_INCREF(message)
    payload.owner = <PyObject*>message
    return TEXT


cdef bytes deflated(object compressor, Payload* payload, int flush):
    """Return the payload as it leaves where messages are deflated (RFC 7692 section 7.2.1)."""
    cdef bytes whole = compressor.compress(PyBytes_FromStringAndSize(payload.data, payload.size)) \
        + compressor.flush(flush)
    return whole[:PyBytes_GET_SIZE(whole) - 4]      # 00 00 ff ff, which the peer puts there again


cdef class Frames(Codec):
    """What both ends of a WebSocket agreed upon; one object serves many connections.

    :param client: whether this side is the client, which masks what it sends.
    :param max_size: bytes of a message, both ways (1 MiB), after inflating.
    :param max_fragments: frames that one message may come in (16384).
    :param memoryviews: binary messages arrive as memoryview.
    :param only: "text" or "binary": the other kind is refused with 1003; None: both are taken.
    :param deflate: what was agreed of permessage-deflate: `server_no_context_takeover`, `client_no_context_takeover`,
        `server_max_window_bits`, `client_max_window_bits`, and `settings` with `level`, `memory_level`, `threshold`.
    :param ping_interval: seconds between two pings of ours (20); None: none are sent.
    :param ping_timeout: seconds in which something must come after a ping (20); None: no end."""

    def __init__(self, *, bint client=False, max_size=DEFAULT_MAX_SIZE, max_fragments=1 << 14, bint memoryviews=False,
                 only=None, deflate=None, ping_interval=20.0, ping_timeout=20.0):
        super().__init__(max_size)
        if max_fragments < 1:
            raise ValueError(f"max_fragments must be at least 1, not {max_fragments}")
        self.native = True
        self.client = client
        self.max_fragments = max_fragments
        self.memoryviews = memoryviews
        self.only = {None: 0, "text": TEXT, "binary": BINARY}[only]
        self.ping_interval = INFINITY if ping_interval is None else ping_interval
        self.ping_timeout = INFINITY if ping_timeout is None else ping_timeout
        self.deflate = deflate
        if deflate is not None:
            server = (deflate.server_max_window_bits, not deflate.server_no_context_takeover)
            remote = (deflate.client_max_window_bits, not deflate.client_no_context_takeover)
            out, into = (remote, server) if client else (server, remote)
            # zlib has no windows of 256 bytes; with one of 512 it looks back 250 (deflate.h: MAX_DIST), which fits
            self.out_bits, self.out_takeover = max(out[0], 9), out[1]
            self.in_bits, self.in_takeover = max(into[0], 9), into[1]
            self.deflates = True
            self.level, self.memory_level = deflate.settings.level, deflate.settings.memory_level
            self.threshold = deflate.settings.threshold

    def __repr__(self):
        return (f"Frames(client={self.client}, max_size={self.max_size}, max_fragments={self.max_fragments}, "
                f"memoryviews={self.memoryviews}, only={self.only}, deflate={self.deflate!r}, ping_interval={self.ping_interval:g}, "
                f"ping_timeout={self.ping_timeout:g})")

    def encode(self, message, compress=None):
        """Return `message`, str or bytes-like, as one frame; deflated where that was agreed and `compress` says so, or
        says nothing and the message is large enough.

        :raises MessageTooLarge: it is over `max_size`"""
        cdef Payload payload, squeezed
        cdef int opcode = open_message(message, &payload)
        try:
            self.check(payload.size)
            if not self.squeezes(payload.size, compress):
                return self.whole_frame(FIN | opcode, &payload)
            smaller = self.deflated_alone(&payload)
            open_bytes(smaller, &squeezed)
            try:
                return self.whole_frame(FIN | RSV1 | opcode, &squeezed)
            finally:
                release(&squeezed)
        finally:
            release(&payload)

    cdef bint squeezes(self, Py_ssize_t size, object compress) except -1:
        """Say whether a message of `size` bytes is deflated."""
        if not self.deflates or not size or compress is False:
            return False
        return compress is not None or size >= self.threshold

    cdef bytes whole_frame(self, int first, Payload* payload):
        cdef bytes frame = PyBytes_FromStringAndSize(NULL, FRAME_HEAD + payload.size)
        cdef Py_ssize_t size = self.frame(first, payload.data, payload.size, PyBytes_AS_STRING(frame))
        return frame[:size]

    cdef Py_ssize_t frame(self, int first, const char* data, Py_ssize_t size, char* out) except -1:
        """Write a whole frame, return its size."""
        cdef int head = portico_write_head(out, first, self.client, size)
        cdef uint32_t key
        if self.client:
            key = fresh_key()
            memcpy(out + head, &key, 4)
            head += 4
            portico_mask(out + head, data, size, key)
        else:
            memcpy(out + head, data, size)
        return head + size

    def decode(self, data):
        """Not for frames: what they mean depends on those before them.

        :raises TypeError: always"""
        raise TypeError("frames are decoded by the WebSocket that they come to")

    cdef bytes deflated_alone(self, Payload* payload):
        """Return the payload deflated without reference to any other; one compressor does it for all connections."""
        compressor, self.lone = self.lone or self.compressor(), None
        cdef bytes smaller = deflated(compressor, payload, FULL_FLUSH)
        self.lone = compressor      # not after an error, which might leave a part of this message in it
        return smaller

    cdef object compressor(self):
        return zlib.compressobj(self.level, zlib.DEFLATED, -self.out_bits, self.memory_level)

    cdef object decompressor(self):
        return zlib.decompressobj(-self.in_bits)
