# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""How messages lie in a stream of bytes: the base of every codec, and those that run without Python objects."""
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.ref cimport Py_DECREF, Py_INCREF, PyObject
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdio cimport snprintf
from libc.string cimport memchr, memcmp, memcpy

from portico.errors import MessageTooLarge, ProtocolError


cdef extern from "Python.h":
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* size) except NULL
    bint PyUnicode_Check(object item)

cdef enum:
    MAX_DIGITS = 10                 # of a netstring's length
    MAX_VARINT = 9                  # bytes of a varint's length, which hold 63 bits


cdef int open_bytes(object message, Payload* payload) except -1:
    """Let `payload` show the bytes of `message`, any object with a buffer; to be released."""
    payload.owner = NULL
    if PyBytes_CheckExact(message):
        payload.data = PyBytes_AS_STRING(message)
        payload.size = PyBytes_GET_SIZE(message)
        Py_INCREF(message)
        payload.owner = <PyObject*>message
        return 0
    if PyUnicode_Check(message):
        raise TypeError("this codec sends bytes, not str: encode the text, or use a codec that does")
    PyObject_GetBuffer(message, &payload.view, PyBUF_SIMPLE)
    payload.data = <const char*>payload.view.buf
    payload.size = payload.view.len
    return 0


cdef int open_text(object message, Payload* payload, str what, str codec) except -1:
    """Let `payload` show the UTF-8 of the str `message`; to be released."""
    if not PyUnicode_Check(message):
        raise TypeError(f"{codec} of text sends str, not {type(message).__name__}; {codec}(text=False) sends bytes")
    try:
        payload.data = PyUnicode_AsUTF8AndSize(message, &payload.size)
    except UnicodeEncodeError as error:
        raise ProtocolError(f"a {what} cannot be sent as UTF-8: {error.reason}", error.start) from None
    Py_INCREF(message)
    payload.owner = <PyObject*>message
    return 0


cdef object load_text(const char* data, Py_ssize_t size, str what):
    """Return the text of UTF-8, or the error that it is none."""
    try:
        return PyUnicode_DecodeUTF8(data, size, NULL)
    except UnicodeDecodeError as error:
        return ProtocolError(f"a {what} is not UTF-8: {error.reason} at byte {error.start}", error.start)


cdef void release(Payload* payload) noexcept:
    if payload.owner is not NULL:
        Py_DECREF(<object>payload.owner)
        payload.owner = NULL
    else:
        PyBuffer_Release(&payload.view)


cdef object failure(Codec codec, Py_ssize_t code, Span* span):
    """Return the error for what `next` found wrong."""
    if code == TOO_LARGE:
        return MessageTooLarge(span.size, codec.max_size)
    return ProtocolError((<bytes>span.reason).decode(), span.start)


cdef class Codec:
    """Base of all codecs; a codec in Python overrides `encode` and `decode`.

    `max_size` bounds a message's payload in bytes, both ways; the default is 1 MiB."""

    def __init__(self, max_size=DEFAULT_MAX_SIZE):
        if max_size < 1:
            raise ValueError(f"max_size must be at least 1 byte, not {max_size}")
        self.max_size = max_size

    def __class_getitem__(cls, item):
        return cls

    def encode(self, message):
        """Return `message` as the bytes of one frame.

        :raises MessageTooLarge: it is over `max_size`"""
        cdef Payload payload
        cdef char frame[MAX_HEAD]
        cdef int size
        if not self.native:
            raise NotImplementedError(f"{type(self).__name__} must define encode(message)")
        self.open(message, &payload)
        try:
            self.check(payload.size)
            size = self.head(payload.size, frame)
            encoded = PyBytes_FromStringAndSize(frame, size) + payload.data[:payload.size]
            size = self.tail(frame)
            return encoded + PyBytes_FromStringAndSize(frame, size) if size else encoded
        finally:
            release(&payload)

    def decode(self, data):
        """Return the first message in `data` and how many bytes its frame took, or how many bytes must be there
        before it is worth another try (0: any more).

        :raises MessageTooLarge: the message is over `max_size`
        :raises ProtocolError: the bytes are no frame"""
        cdef Py_ssize_t searched = 0, frame
        cdef Span span
        cdef const unsigned char[::1] view
        if not self.native:
            raise NotImplementedError(f"{type(self).__name__} must define decode(data)")
        view = data
        if not view.shape[0]:
            return 0
        frame = self.next(<const char*>&view[0], view.shape[0], &searched, &span)
        if frame < 0:
            raise failure(self, frame, &span)
        if not frame:
            return 0
        message = self.load(<const char*>&view[0] + span.start, span.size)
        if isinstance(message, ProtocolError):
            raise message
        return message, frame

    cdef Py_ssize_t check(self, Py_ssize_t size) except -1:
        if size > self.max_size:
            raise MessageTooLarge(size, self.max_size)
        return size

    cdef Py_ssize_t next(self, const char* data, Py_ssize_t size, Py_ssize_t* searched, Span* span) noexcept:
        """Return the size of the first frame in `data` and where its payload lies; 0: more bytes are needed.

        `searched` bytes of `data` were searched by earlier calls, so that dribbled bytes cost linear time."""
        return 0

    cdef Py_ssize_t finish(self, const char* data, Py_ssize_t size, Span* span) noexcept:
        """As `next`, for what is left at the end of a packet: nothing follows."""
        span.start, span.reason = 0, b"the packet ends within a message"
        return INVALID

    cdef bint resync(self, const char* data, Py_ssize_t size, Py_ssize_t* dropped) noexcept:
        """Say how many bytes belong to a message that is too large, and whether it ends with them."""
        dropped[0] = size
        return False

    cdef object load(self, const char* data, Py_ssize_t size):
        """Return the message of a payload, bytes or str, or the error that it is."""
        return PyBytes_FromStringAndSize(data, size)

    cdef int open(self, object message, Payload* payload) except -1:
        """Let `payload` show the bytes of `message`; to be released."""
        if self.native:
            return open_bytes(message, payload)
        return open_bytes(self.encode(message), payload)

    cdef int head(self, Py_ssize_t size, char* out) noexcept:
        """Write what goes before a payload of `size` bytes, return its size."""
        return 0

    cdef int tail(self, char* out) noexcept:
        """Write what goes after a payload, return its size."""
        return 0


cdef class Records(Codec):
    """A packet is a message: for sockets that keep packets apart (UDP, Unix datagram and seqpacket, raw).

    `text` makes the messages str, encoded as UTF-8; else they are bytes."""

    def __init__(self, *, text=False, max_size=DEFAULT_MAX_SIZE):
        super().__init__(max_size)
        self.native = self.for_records = True
        self.text = text

    def __repr__(self):
        return f"Records(text={self.text}, max_size={self.max_size})"

    def decode(self, data):
        """Return all of `data` as one message, and its size."""
        cdef const unsigned char[::1] view = data
        if self.check(view.shape[0]) == 0:
            return ("" if self.text else b""), 0
        message = self.load(<const char*>&view[0], view.shape[0])
        if isinstance(message, ProtocolError):
            raise message
        return message, view.shape[0]

    cdef object load(self, const char* data, Py_ssize_t size):
        return load_text(data, size, "packet") if self.text else PyBytes_FromStringAndSize(data, size)

    cdef int open(self, object message, Payload* payload) except -1:
        return open_text(message, payload, "packet", "Records") if self.text else open_bytes(message, payload)


cdef class Lines(Codec):
    """Messages that end with a separator, which is not part of them: it is taken off what arrives and added to what
    is sent.

    `text` makes them str, encoded as UTF-8; else they are bytes. `separator` is 1 to 16 bytes (or ASCII text)."""
    cdef readonly bint text
    cdef readonly bytes separator
    cdef char mark[MAX_HEAD]
    cdef int mark_size

    def __init__(self, *, text=True, separator="\n", max_size=DEFAULT_MAX_SIZE):
        super().__init__(max_size)
        self.native = True
        self.text = text
        if not isinstance(separator, (str, bytes)):
            raise TypeError(f"a separator is str or bytes, not {type(separator).__name__}")
        self.separator = separator.encode() if isinstance(separator, str) else bytes(separator)
        if not 1 <= len(self.separator) <= MAX_HEAD:
            raise ValueError(f"a separator has 1 to {MAX_HEAD} bytes, not {len(self.separator)}")
        self.mark_size = <int>len(self.separator)
        memcpy(self.mark, PyBytes_AS_STRING(self.separator), self.mark_size)

    def __repr__(self):
        return f"Lines(text={self.text}, separator={self.separator!r}, max_size={self.max_size})"

    cdef const char* find(self, const char* data, Py_ssize_t size) noexcept:
        cdef const char* place
        cdef const char* end = data + size - (self.mark_size - 1)
        while data < end:
            place = <const char*>memchr(data, self.mark[0], end - data)
            if place is NULL or self.mark_size == 1 or memcmp(place, self.mark, self.mark_size) == 0:
                return place
            data = place + 1
        return NULL

    cdef Py_ssize_t next(self, const char* data, Py_ssize_t size, Py_ssize_t* searched, Span* span) noexcept:
        cdef const char* place = self.find(data + searched[0], size - searched[0])
        span.start = 0
        span.size = max(size - (self.mark_size - 1), 0) if place is NULL else place - data
        if span.size > self.max_size:
            span.frame = -1 if place is NULL else span.size + self.mark_size
            return TOO_LARGE
        searched[0] = span.size
        return 0 if place is NULL else span.size + self.mark_size

    cdef Py_ssize_t finish(self, const char* data, Py_ssize_t size, Span* span) noexcept:
        """The end of a packet ends a line, too."""
        span.start, span.size = 0, size
        if size > self.max_size:
            span.frame = size
            return TOO_LARGE
        return size

    cdef bint resync(self, const char* data, Py_ssize_t size, Py_ssize_t* dropped) noexcept:
        cdef const char* place = self.find(data, size)
        dropped[0] = max(size - (self.mark_size - 1), 0) if place is NULL else place - data + self.mark_size
        return place is not NULL

    cdef object load(self, const char* data, Py_ssize_t size):
        return load_text(data, size, "line") if self.text else PyBytes_FromStringAndSize(data, size)

    cdef int open(self, object message, Payload* payload) except -1:
        if self.text:
            open_text(message, payload, "line", "Lines")
        else:
            open_bytes(message, payload)
        if self.find(payload.data, payload.size) is not NULL or self.ends_early(payload.data, payload.size):
            release(payload)
            raise ProtocolError("a line cannot contain its separator: send it as several lines", 0)
        return 0

    cdef bint ends_early(self, const char* data, Py_ssize_t size) noexcept:
        """Whether the end of a line reads as a separator together with the start of the one behind it."""
        cdef int shared
        for shared in range(1, <int>min(size, self.mark_size - 1) + 1):
            if memcmp(data + size - shared, self.mark, shared) == 0 \
                    and memcmp(self.mark, self.mark + shared, self.mark_size - shared) == 0:
                return True
        return False

    cdef int tail(self, char* out) noexcept:
        memcpy(out, self.mark, self.mark_size)
        return self.mark_size


cdef class LengthPrefix(Codec):
    """Messages of bytes, each after its length in `size` bytes (1, 2, 4 or 8), most significant first or last, or as
    a varint (`size="varint"`: 7 bits a byte, the least significant first, as Protocol Buffers have it)."""
    cdef readonly object size
    cdef readonly str byteorder
    cdef int width
    cdef bint big, varint

    def __init__(self, size=4, *, byteorder="big", max_size=DEFAULT_MAX_SIZE):
        super().__init__(max_size)
        if size not in (1, 2, 4, 8, "varint"):
            raise ValueError(f"size must be 1, 2, 4, 8 or 'varint', not {size!r}")
        if byteorder not in ("big", "little"):
            raise ValueError(f"byteorder must be 'big' or 'little', not {byteorder!r}")
        self.native = True
        self.size, self.byteorder = size, byteorder
        self.varint = size == "varint"
        self.width = MAX_VARINT if self.varint else size
        self.big = byteorder == "big"
        if self.width < 8:
            self.max_size = min(self.max_size, (<Py_ssize_t>1 << 8 * self.width) - 1)

    def __repr__(self):
        return f"LengthPrefix({self.size!r}, byteorder={self.byteorder!r}, max_size={self.max_size})"

    cdef Py_ssize_t next(self, const char* data, Py_ssize_t size, Py_ssize_t* searched, Span* span) noexcept:
        cdef const unsigned char* prefix = <const unsigned char*>data
        cdef unsigned long long length = 0
        cdef int i, width = self.width
        if self.varint:
            for i in range(MAX_VARINT):
                if i == size:
                    return 0
                length |= <unsigned long long>(prefix[i] & 127) << 7 * i
                if prefix[i] < 128:
                    break
            else:
                span.start = MAX_VARINT - 1
                span.reason = b"a varint length has more than 63 bits"
                return INVALID
            width = i + 1
        else:
            if size < width:
                return 0
            for i in range(width):
                length = length << 8 | prefix[i if self.big else width - 1 - i]
        span.start = width
        if length > <unsigned long long>self.max_size:
            span.size = <Py_ssize_t>min(length, <unsigned long long>((1 << 62) - 1))
            span.frame = span.size + width
            return TOO_LARGE
        span.size = <Py_ssize_t>length
        return width + span.size if size - width >= span.size else 0

    cdef int head(self, Py_ssize_t size, char* out) noexcept:
        cdef unsigned long long length = size
        cdef int i = 0
        if self.varint:
            while length > 127:
                out[i] = <char>(length & 127 | 128)
                length >>= 7
                i += 1
            out[i] = <char>length
            return i + 1
        for i in range(self.width):
            out[self.width - 1 - i if self.big else i] = <char>(length & 255)
            length >>= 8
        return self.width


cdef class Netstrings(Codec):
    """Messages of bytes as `5:hello,`: their length in digits, a colon, the bytes, a comma (cr.yp.to/proto)."""

    def __init__(self, *, max_size=DEFAULT_MAX_SIZE):
        super().__init__(max_size)
        self.native = True
        self.max_size = min(self.max_size, 9_999_999_999)

    def __repr__(self):
        return f"Netstrings(max_size={self.max_size})"

    cdef Py_ssize_t next(self, const char* data, Py_ssize_t size, Py_ssize_t* searched, Span* span) noexcept:
        cdef Py_ssize_t length = 0, i = 0
        span.reason = b"a netstring starts with its length in digits and a colon"
        while i < size and data[i] != c":":
            if data[i] < c"0" or data[i] > c"9" or i == MAX_DIGITS or (i == 1 and data[0] == c"0"):
                span.start = i
                return INVALID
            length = 10 * length + data[i] - c"0"
            i += 1
        if i == size:
            return 0
        span.start = i
        if i == 0:
            return INVALID
        span.start = i + 1
        span.size = length
        span.frame = span.start + length + 1
        if length > self.max_size:
            return TOO_LARGE
        if size < span.frame:
            return 0
        if data[span.frame - 1] != c",":
            span.start = span.frame - 1
            span.reason = b"a netstring ends with a comma"
            return INVALID
        return span.frame

    cdef int head(self, Py_ssize_t size, char* out) noexcept:
        return snprintf(out, MAX_HEAD, b"%zd:", size)

    cdef int tail(self, char* out) noexcept:
        out[0] = c","
        return 1
