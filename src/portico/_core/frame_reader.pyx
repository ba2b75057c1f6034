# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""How the messages of a WebSocket come: frames that are whole, in parts, or deflated (RFC 6455, RFC 7692)."""
import zlib

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.memoryview cimport PyMemoryView_FromObject
from cpython.ref cimport Py_DECREF, Py_XDECREF, PyObject
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.string cimport memcpy

from .channel cimport ChannelBase
from .connection cimport OPEN, PIECE, Connection, ReadState
from .frames cimport (BINARY, CONTINUATION, CONTROL_SIZE, FIN, NOT_UTF8, POLICY, PONG, PROTOCOL_BROKEN, RESERVED, RSV1, TEXT,
                      TOO_BIG, UNSUPPORTED, portico_frame,
                      portico_frame_head, portico_mask, portico_rotated, portico_utf8_goes_on)
from .spares cimport SMALLEST, spares_of

from portico.errors import BusyError, LimitError, MessageTooLarge, ProtocolError


cdef extern from "bytes.h":
    void portico_bytes_cut(PyObject* body, Py_ssize_t size) noexcept
    int _PyBytes_Resize(PyObject** data, Py_ssize_t size) except -1
    char* PyBytes_Data "PyBytes_AS_STRING"(PyObject* data) noexcept
    PyObject* PyUnicode_New(Py_ssize_t size, unsigned int highest) except NULL
    void* PyUnicode_DATA(PyObject* text) noexcept

cdef enum:
    COMMIT = 64             # memory is set aside for at most that many times as much as has come; untouched, it costs none
    WASTE = 8               # a message may leave one in so many of its bytes unused
    MAX_ENDS = 8            # final blocks in one message; nobody sends more than one
    PIECE_SIZE = 16 * 1024  # bytes that are worth a piece while nobody waits for one

cdef bytes INFLATE_TAIL = b"\x00\x00\xff\xff"    # RFC 7692 section 7.2.2


cdef class FrameReader(ChannelBase):
    """A channel that receives frames; what they say beside messages is for its subclass."""

    def __dealloc__(self):
        Py_XDECREF(self.body)

    cdef int control(self, int opcode, const char* data, Py_ssize_t size) except -1:
        """Obey a control frame, whose payload is masked still."""
        raise NotImplementedError

    cdef int break_off(self, int code, object error) except -1:
        """Say what is wrong, and close; the messages that came before stay readable. Returns 1."""
        raise NotImplementedError

    cdef int cut_what_came(self) except -1:
        """Queue what has come of a message that is not whole, if it is to be had in pieces."""
        raise NotImplementedError

    cdef int cut_piece(self, bint last) except -1:
        """Queue what has come of a message since it was cut last."""
        raise NotImplementedError

    cdef int stop_reading(self, ReadState state) except -1:
        """End the queue of messages; the frames after it are still told apart, for one of them says good-bye."""
        return Connection.stop_reading(self, state)

    def take_received(self):
        """Say that there is nothing but messages, which have to be taken before."""
        if self.opcode or self.frame_left:
            raise BusyError("a message has come in part: receive it first")
        return ChannelBase.take_received(self)

    # receiving

    cdef int bytes_arrived(self, const char* data, Py_ssize_t size) except -1:
        try:
            return self.take_in(data, size)
        except MemoryError:     # what came is in part lost: nothing that follows could be told
            self.break_off(TOO_BIG, LimitError("there is no memory for what a peer sends"))
            return self.announce(self.reader is not None)

    cdef int take_in(self, const char* data, Py_ssize_t size) except -1:
        cdef bint reader_waits = self.reader is not None and self.messages.count == 0
        cdef Py_ssize_t used, wanted
        if self.close_received or self.failing or self.lost or (self.read_state != OPEN and not self.closing):
            return 0
        self.active = self.heard = self.hub.now
        self.settings.bytes_received += size
        while self.carry_size and size:     # only the front of a frame is ever kept: complete it, leave the rest where it is
            wanted = min(self.missing_front(), size)
            self.keep(data, wanted)
            data, size = data + wanted, size - wanted
            used = self.parse(self.carry + self.carry_start, self.carry_size)
            if used and self.carry_size:
                self.clear_carry_front(min(used, self.carry_size))
        if size and not self.close_received and not self.failing:
            used = self.parse(data, size)
            if used < size and not self.close_received and not self.failing:
                self.keep(data + used, size - used)
        if self.carry_size or self.opcode:
            if not self.message_begun:
                self.message_begun = self.active
                self.set_deadline()
        else:
            self.message_begun = 0
        if self.in_pieces and (self.body_size >= PIECE_SIZE or (reader_waits and self.reader.kind == PIECE)):
            self.cut_what_came()
        return 0 if self.closing else self.announce(reader_waits)

    cdef Py_ssize_t missing_front(self) noexcept:
        """Return how many bytes there must be at least before `parse` can take up what is in the carry."""
        cdef portico_frame frame
        if not portico_frame_head(self.carry + self.carry_start, self.carry_size, &frame):
            return frame.size - self.carry_size
        return frame.size + <Py_ssize_t>frame.length - self.carry_size     # a control frame, or it would be taken up

    cdef Py_ssize_t parse(self, const char* data, Py_ssize_t size) except -1:
        """Take the frames in `data`, return how many bytes were used: all but the front of a frame."""
        cdef Py_ssize_t used = 0, length
        cdef portico_frame frame
        while used < size:
            if self.frame_left:
                length = min(self.frame_left, size - used)
                self.take_payload(data + used, length)
                used += length
            else:
                if not portico_frame_head(data + used, size - used, &frame):
                    return used
                if frame.first & 8 and frame.length <= CONTROL_SIZE and <Py_ssize_t>frame.length > size - used - frame.size:
                    return used
                if self.begin_frame(&frame):
                    return size
                used += frame.size
                length = <Py_ssize_t>frame.length
                if frame.first & 8:
                    self.control(frame.first & 15, data + used, length)
                    used += length
                elif self.opcode and self.final and not self.fragments and length <= size - used and not self.compressed \
                        and not self.unwanted and length < SMALLEST:
                    self.take_whole(data + used, &frame)
                    used += length
                elif not length and self.final and self.opcode:
                    self.end_message()
                else:
                    self.frame_left = length
            if self.close_received or self.failing:
                return size
        return used

    cdef int begin_frame(self, portico_frame* frame) except -1:
        """Check the head of a frame and take up what it says; return 1 where it broke the rules."""
        cdef int opcode = frame.first & 15
        if frame.masked == self.frames.client:
            return self.break_off(PROTOCOL_BROKEN, ProtocolError(
                "a server must not mask its frames" if self.frames.client else "a client must mask its frames"))
        if frame.first & RESERVED or (frame.first & RSV1 and (self.frames.deflate is None or opcode not in (TEXT, BINARY))):
            return self.break_off(PROTOCOL_BROKEN, ProtocolError("a frame has a reserved bit that no extension uses"))
        if not frame.minimal or frame.length >> 63:
            return self.break_off(PROTOCOL_BROKEN, ProtocolError("the length of a frame is not in its shortest form"))
        self.key = frame.key
        self.masked = frame.masked
        if opcode & 8:
            if opcode > PONG:
                return self.break_off(PROTOCOL_BROKEN, ProtocolError(f"there are no frames with the opcode {opcode}"))
            if not frame.first & FIN or frame.length > CONTROL_SIZE:
                return self.break_off(PROTOCOL_BROKEN, ProtocolError(
                    "a control frame is whole and has at most 125 bytes, but one came in parts or longer"))
            return 0
        if opcode > BINARY:
            return self.break_off(PROTOCOL_BROKEN, ProtocolError(f"there are no frames with the opcode {opcode}"))
        if (opcode == CONTINUATION) != (self.opcode != 0):
            return self.break_off(PROTOCOL_BROKEN, ProtocolError(
                "a continuation frame came where no message had begun" if opcode == CONTINUATION
                else "a message began before the one before it had ended"))
        return self.begin_payload(frame, opcode)

    cdef int begin_payload(self, portico_frame* frame, int opcode) except -1:
        """Take up a data frame within its message; return 1 where that becomes too large."""
        cdef Py_ssize_t limit = self.frames.max_size
        self.final = frame.first & FIN != 0
        if opcode and self.frames.only and opcode != self.frames.only and not self.closing:
            return self.break_off(UNSUPPORTED, ProtocolError(
                f"a {'text' if opcode == TEXT else 'binary'} message came where only the other kind is taken"))
        if opcode:
            self.opcode = opcode
            self.compressed = frame.first & RSV1 != 0
            self.unwanted = self.closing
            self.fragments = 0
            self.utf8.missing = 0
        else:
            self.fragments += 1
            if self.fragments >= self.frames.max_fragments and not self.unwanted and not self.in_pieces:
                return self.break_off(POLICY, ProtocolError(
                    f"a message came in more than {self.frames.max_fragments} frames: raise max_fragments to allow it"))
        if self.unwanted or self.in_pieces:
            return 0
        if self.compressed:
            limit = deflated_bound(limit)
        if <Py_ssize_t>frame.length > limit - self.body_size:
            return self.break_off(TOO_BIG, MessageTooLarge(self.body_size + <Py_ssize_t>frame.length, self.frames.max_size))
        return 0

    cdef int take_whole(self, const char* data, portico_frame* frame) except -1:
        """Make a message of a frame that is one, and is here."""
        cdef Py_ssize_t size = <Py_ssize_t>frame.length
        cdef PyObject* made
        cdef unsigned char seen
        cdef bint is_text = self.opcode == TEXT
        self.opcode = 0
        if not is_text:
            message = PyBytes_FromStringAndSize(NULL, size)
            if frame.masked:
                portico_mask(PyBytes_AS_STRING(message), data, size, frame.key)
            else:
                memcpy(PyBytes_AS_STRING(message), data, size)
            return self.announce_message(PyMemoryView_FromObject(message) if self.frames.memoryviews else message, size)
        if not size:
            return self.announce_message("", 0)
        made = PyUnicode_New(size, 127)
        text = <object>made
        Py_DECREF(text)
        seen = portico_mask(<char*>PyUnicode_DATA(made), data, size, frame.key if frame.masked else 0)
        if seen >= 128:
            try:
                text = PyUnicode_DecodeUTF8(<char*>PyUnicode_DATA(made), size, NULL)
            except UnicodeDecodeError as error:
                return self.break_off(NOT_UTF8, not_utf8(error.start))
        return self.announce_message(text, size)

    cdef int announce_message(self, object message, Py_ssize_t size) except -1:
        self.settings.messages_received += 1
        self.message_begun = 0
        return self.push(message, size)

    cdef int take_payload(self, const char* data, Py_ssize_t size) except -1:
        """Add to the message what came of the payload of its frame."""
        cdef char* place
        self.frame_left -= size
        if not self.unwanted:
            self.grow_body(size)
            place = PyBytes_Data(self.body) + self.body_size
            portico_mask(place, data, size, self.key if self.masked else 0)
            self.key = portico_rotated(self.key, size)
            self.body_size += size
            if self.opcode == TEXT and not self.compressed and not portico_utf8_goes_on(&self.utf8, place, size):
                self.break_off(NOT_UTF8, not_utf8(self.body_size))
                return 0
        if not self.frame_left and self.final:
            self.end_message()
        return 0

    cdef int grow_body(self, Py_ssize_t more) except -1:
        """Make room for `more` bytes, and at once for all that the frame announces, unless most of that has yet to come or
        goes on in pieces."""
        cdef Py_ssize_t needed = self.body_size + more + PyBytes_GET_SIZE(INFLATE_TAIL), most = COMMIT * needed
        cdef Py_ssize_t announced = 0 if self.in_pieces else self.frame_left
        if needed <= self.body_capacity:
            return 0
        needed = min(max(needed + min(announced, most), 2 * self.body_capacity), most)
        if self.body is NULL:
            self.body = spares_of(self.hub).take(needed, &self.body_capacity)
            return 0
        try:
            _PyBytes_Resize(&self.body, needed)
        except MemoryError:
            self.drop_body()
            raise
        self.body_capacity = needed
        return 0

    cdef int drop_body(self) except -1:
        Py_XDECREF(self.body)
        self.body = NULL
        self.body_size = self.body_capacity = 0
        return 0

    cdef object body_bytes(self):
        """Return the body as bytes, and have none any more."""
        cdef PyObject* body = self.body
        cdef Py_ssize_t size = self.body_size, capacity = self.body_capacity
        if body is NULL:
            return b""
        self.body = NULL
        self.body_size = self.body_capacity = 0
        if capacity - size > capacity // WASTE:
            _PyBytes_Resize(&body, size)
            capacity = size
        else:
            portico_bytes_cut(body, size)
        whole = <object>body
        Py_DECREF(whole)
        spares_of(self.hub).give(body, capacity)
        return whole

    cdef int end_message(self) except -1:
        """The last frame of a message is whole."""
        cdef int opcode = self.opcode
        cdef Py_ssize_t size
        self.opcode = self.fragments = 0
        if self.unwanted:
            self.cut = False
            self.message_begun = 0
            return self.drop_body()
        if self.cut or (self.in_pieces and self.compressed):
            if opcode == TEXT and not self.compressed and self.utf8.missing:
                return self.break_off(NOT_UTF8, not_utf8(self.body_size))
            self.opcode = opcode
            self.cut_piece(True)
            self.opcode = 0
            return 0
        if self.compressed:
            message = self.inflated()
            if message is None:
                return 0
        elif opcode == TEXT and self.utf8.missing:
            return self.break_off(NOT_UTF8, not_utf8(self.body_size))
        else:
            message = self.body_bytes()
        size = PyBytes_GET_SIZE(message)
        if opcode == TEXT:
            try:
                message = PyUnicode_DecodeUTF8(PyBytes_AS_STRING(message), size, NULL)
            except UnicodeDecodeError as error:
                return self.break_off(NOT_UTF8, not_utf8(error.start))
        elif self.frames.memoryviews:
            message = PyMemoryView_FromObject(message)
        return self.announce_message(message, size)

    cdef int put_inflate_tail(self) except -1:
        """End the body as inflating wants it."""
        if self.body is NULL:
            self.grow_body(0)
        memcpy(PyBytes_Data(self.body) + self.body_size, PyBytes_AS_STRING(INFLATE_TAIL), PyBytes_GET_SIZE(INFLATE_TAIL))
        self.body_size += PyBytes_GET_SIZE(INFLATE_TAIL)
        return 0

    cdef bytes inflated(self):
        """Return the body inflated; None: it cannot be, and that was dealt with."""
        self.put_inflate_tail()
        try:
            whole, _ = self.inflate(self.body_bytes(), self.frames.max_size + 1)
        except ProtocolError as error:
            self.break_off(NOT_UTF8, error)
            return None
        self.end_inflating()
        if len(whole) > self.frames.max_size:
            self.break_off(TOO_BIG, MessageTooLarge(len(whole), self.frames.max_size))
            return None
        return whole

    cdef tuple inflate(self, bytes data, Py_ssize_t limit):
        """Return `limit` bytes that `data` inflates to, and the rest of it; if fewer, that is all.

        :raises ProtocolError: it is not deflated"""
        cdef bytes whole
        inflater = self.inflater
        if inflater is None or inflater.eof:
            inflater = self.frames.decompressor()
        try:
            whole = inflater.decompress(data, limit)
            while inflater.eof and inflater.unused_data and len(whole) < limit:     # a block said that it is the last one
                self.ends += 1
                if self.ends > MAX_ENDS:
                    raise ValueError("it ends again and again")
                rest = inflater.unused_data
                inflater = self.frames.decompressor()
                whole += inflater.decompress(rest, limit - len(whole))
        except (zlib.error, ValueError) as error:
            raise ProtocolError(f"a compressed message cannot be inflated: {error}") from None
        self.inflater = inflater
        return whole, inflater.unused_data if inflater.eof else inflater.unconsumed_tail

    cdef int end_inflating(self) except -1:
        """The message is over; what comes next may refer to it, or not."""
        self.ends = 0
        if not self.frames.in_takeover:
            self.inflater = None
        return 0


cdef Py_ssize_t deflated_bound(Py_ssize_t size) noexcept:
    """Return how long a message of that size may be when it is deflated, though badly."""
    return size + size // 1000 + 1024


cdef object not_utf8(Py_ssize_t offset):
    return ProtocolError("a text message is not UTF-8", offset)
