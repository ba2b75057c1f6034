# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""A WebSocket (RFC 6455): a channel of messages that is kept alive, and whose end is spoken of."""
from cpython.bytes cimport PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_AsUTF8String, PyUnicode_DecodeUTF8
from libc.stdint cimport uint32_t
from libc.string cimport memcpy

from .channel cimport ChannelBase
from .codec cimport Codec, Payload, open_bytes, release
from .connection cimport ENDED, FAILED, OPEN, Connection
from .frame_reader cimport not_utf8
from .frames cimport (CLOSE, CONTINUATION, CONTROL_SIZE, FIN, FRAME_HEAD, NOT_UTF8, PING, POLICY, PONG, PROTOCOL_BROKEN, RSV1,
                      SYNC_FLUSH, Frames, deflated, fresh_key, open_message, portico_mask, portico_write_head)
from .hub cimport portico_monotonic
from .output cimport output_reserve, output_splice
from .pieces cimport PieceReader
from .sender cimport SPLICE_SIZE, Settings
from .wire cimport Wire

from portico.errors import ClosedError, LimitError, MessageTooLarge, ProtocolError, UnsupportedError

cdef enum:
    NORMAL = 1000           # RFC 6455 section 7.4.1
    GOING_AWAY = 1001
    NO_CODE = 1005
    NO_GOODBYE = 1006
    INTERNAL = 1011
    PING_SIZE = 8

cdef dict MEANINGS = {
    1000: "normal closure", 1001: "going away", 1002: "protocol error", 1003: "unsupported data", 1005: "no status code",
    1006: "no closing handshake", 1007: "invalid payload data", 1008: "policy violation", 1009: "message too big",
    1010: "extension needed", 1011: "internal error", 1012: "service restart", 1013: "try again later", 1014: "bad gateway",
}

cdef bytes CUT_OFF = b"a message could not be ended"

cdef double PATIENCE = 1.0      # seconds for answers to what came before the end
cdef double DISMISSAL = 2.0     # seconds for the closing handshake of who has to go


cdef bint may_be_sent(int code) noexcept:
    """Whether a close frame may carry `code` (RFC 6455 section 7.4)."""
    return 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999


cdef class WebSocketBase(PieceReader):
    """The messages of `predecessor`'s connection, or of `wire`, in frames as `frames` says."""

    def __init__(self, Wire wire not None, Frames frames not None, Settings settings not None, owner=None,
                 Connection predecessor=None):
        self.frames = frames
        self.closing_reason = b""
        self.close_reason = ""
        self.heard = portico_monotonic()
        self.ping_due = self.heard + frames.ping_interval
        ChannelBase.__init__(self, wire, frames, settings, owner, predecessor)

    # control frames

    cdef int control(self, int opcode, const char* data, Py_ssize_t size) except -1:
        cdef char payload[CONTROL_SIZE]
        portico_mask(payload, data, size, self.key if self.masked else 0)
        if opcode == CLOSE:
            return self.peer_closes(payload, size)
        if opcode == PONG:
            return self.pong_came(PyBytes_FromStringAndSize(payload, size))
        self.late_pong = PyBytes_FromStringAndSize(payload, size)
        return self.put_pong()

    cdef int put_pong(self) except -1:
        """Answer the last ping, once there is room: who floods us and reads nothing makes one answer wait, not all."""
        if self.late_pong is not None and not self.close_sent and self.has_room():
            payload, self.late_pong = self.late_pong, None
            self.put_control(PONG, payload)
        return 0

    cdef int wake_waiters(self) except -1:
        if self.late_pong is not None and not self.lost:
            self.put_pong()
        return ChannelBase.wake_waiters(self)

    cdef int pong_came(self, bytes payload) except -1:
        cdef double now = portico_monotonic(), sent
        if self.ping_sent and payload == self.own_ping():
            self.latency = now - self.ping_sent
            self.ping_due = self.ping_sent + self.frames.ping_interval
            self.ping_sent = 0
            self.set_deadline()
        if self.pings is None or payload not in self.pings:
            return 0
        for each in list(self.pings):       # one pong may answer several pings (RFC 6455 section 5.5.3)
            sent, waiting = self.pings.pop(each)
            self.latency = now - sent
            if not waiting.done():
                waiting.set_result(now - sent)
            if each == payload:
                break
        return 0

    cdef bytes own_ping(self):
        return PyBytes_FromStringAndSize(<char*>&self.ping_sent, PING_SIZE)

    cdef int keep_alive(self, double now) except -1:
        """Send the ping that is due, or see that the last one was never answered."""
        if not self.ping_sent:
            self.ping_sent = now
            self.ping_due = now + self.frames.ping_timeout
            return self.put_control(PING, self.own_ping())
        if self.heard >= self.ping_sent or (self.reading_paused and not self.wire.unconfirmed()):
            self.ping_sent = 0              # it speaks, or its machine took the ping while nobody receives here
            self.ping_due = now + self.frames.ping_interval
            return 0
        self.closing_code = INTERNAL
        return self.time_out(f"the peer did not answer a ping within {self.frames.ping_timeout:g} s (ping_timeout)")

    cdef double next_due(self) noexcept:
        cdef double due = ChannelBase.next_due(self)
        if self.closing:
            return due
        return min(due, self.verdict_due if self.verdict_due else self.ping_due)

    cdef int expire(self, double now) except -1:
        if self.verdict_due:
            if now >= self.verdict_due and not self.closing and not self.lost:
                self.begin_closing()
        elif now >= self.ping_due and not self.closing and not self.lost:
            self.keep_alive(now)
        return ChannelBase.expire(self, now)

    cdef int time_out(self, str reason) except -1:
        if not self.closing_code:
            self.closing_code = GOING_AWAY if self.message_begun == 0 else POLICY
        return ChannelBase.time_out(self, reason)

    def send_ping(self, bytes payload not None, waiting):
        """Send a ping; `waiting`, a Future, gets the seconds until its pong.

        :raises ClosedError: the connection is closed or lost"""
        self.check_sending()
        if PyBytes_GET_SIZE(payload) > CONTROL_SIZE:
            raise MessageTooLarge(PyBytes_GET_SIZE(payload), CONTROL_SIZE, hint="a ping has no more")
        self.pings = {each: ping for each, ping in (self.pings or {}).items() if not ping[1].done()}
        if payload in self.pings:
            raise ProtocolError("a ping with this payload is on its way already: give each its own")
        self.pings[payload] = (portico_monotonic(), waiting)
        self.put_control(PING, payload)

    # the end

    cdef int peer_closes(self, const char* data, Py_ssize_t size) except -1:
        """A close frame came (RFC 6455 section 7)."""
        cdef int code = NO_CODE
        reason = ""
        if size == 1:
            return self.break_off(PROTOCOL_BROKEN, ProtocolError("a close frame has a code of two bytes, or none"))
        if size:
            code = <unsigned char>data[0] << 8 | <unsigned char>data[1]
            if not may_be_sent(code):
                return self.break_off(PROTOCOL_BROKEN, ProtocolError(f"a close frame carries the code {code}, which none may"))
            try:
                reason = PyUnicode_DecodeUTF8(data + 2, size - 2, NULL)
            except UnicodeDecodeError as error:
                return self.break_off(NOT_UTF8, not_utf8(error.start))
        self.close_received = True
        self.closed_first = self.close_sent
        self.close_code, self.close_reason = code, reason
        if code in (NORMAL, GOING_AWAY, NO_CODE):
            self.stop_reading(ENDED)
        else:
            self.failure = self.goodbye()
            self.stop_reading(FAILED)
        if not self.close_sent:
            self.closing_code = code
        return self.hub.mark_dirty(self)    # the end of the turn goes on with it: what came before is answered before

    cdef object goodbye(self):
        """Return the error that tells what was said at the end, by whom."""
        who, code, reason = "the peer", self.close_code, self.close_reason
        if self.closed_first:
            who, code, reason = "this side", self.closing_code, self.closing_reason.decode("utf-8", "ignore")
        said = f"{code} {MEANINGS.get(code, '')}".rstrip()
        if reason:
            said += f": {reason}"
        return ClosedError(f"{who} closed the WebSocket with {said}", code=code, clean=True)

    cdef int break_off(self, int code, object error) except -1:
        """Say what is wrong, and close; the messages that came before stay readable. Returns 1."""
        if not self.closing:
            self.failure = error
            self.stop_reading(FAILED)
            self.closing_code = code
            self.closing_reason = PyUnicode_AsUTF8String(str(error))[:CONTROL_SIZE - 2]
        self.failing = True
        self.frame_left = self.opcode = self.fragments = 0
        self.drop_body()
        self.drop_carry()
        self.hub.mark_dirty(self)           # as for `peer_closes`
        return 1

    cdef bint ought_to_close(self) noexcept:
        return (self.close_received or self.failing) and not self.closing and not self.lost

    cdef int end_turn(self) except -1:
        if self.ought_to_close():
            if not self.messages.count:
                self.begin_closing()
            elif not self.verdict_due:      # somebody may answer what came before the end
                self.verdict_due = portico_monotonic() + PATIENCE
                self.set_deadline()
        return ChannelBase.end_turn(self)

    cdef int took(self, Py_ssize_t size) except -1:
        if self.verdict_due and not self.messages.count and self.ought_to_close():
            self.hub.mark_dirty(self)
        return ChannelBase.took(self, size)

    cdef int put_close(self, int code, bytes reason) except -1:
        cdef bytes payload = b""
        self.close_sent = True
        if code != NO_CODE:
            payload = bytes((code >> 8, code & 255)) + reason.decode("utf-8", "ignore").encode()
        return self.put_control(CLOSE, payload)

    cdef int begin_closing(self) except -1:
        if self.closing or self.lost:
            return 0
        if not self.close_sent:
            if self.sending_pieces and not self.close_received and not self.failing:
                self.closing_code, self.closing_reason = INTERNAL, CUT_OFF
            elif not self.closing_code:
                self.closing_code = GOING_AWAY if self.draining else NORMAL
            self.put_close(self.closing_code, self.closing_reason)
        if self.read_state == OPEN:
            self.unwanted = True        # of the message that is coming only the end matters
            self.drop_body()
        return ChannelBase.begin_closing(self)

    cdef int finish_closing(self) except -1:
        if self.peer_ended or (not self.frames.client and (self.close_received or self.failing)):
            return ChannelBase.finish_closing(self)
        if self.close_received or self.failing:     # the server closes the connection (RFC 6455 section 7.1.1)
            self.lingering = True
            self.close_due = min(self.close_due, portico_monotonic() + DISMISSAL)
            return self.set_deadline()
        return 0

    cdef int miss_goodbye(self) except -1:
        """The connection is over: say so to who receives, unless that was spoken of."""
        if not self.close_received and not self.closing and not self.failing:
            self.failure = ClosedError("the connection ended without a closing handshake", code=NO_GOODBYE)
            self.stop_reading(FAILED)
            self.close_sent = self.failing = True
            self.closing_code = NO_GOODBYE
        return 0

    cdef int wire_ended(self) except -1:
        if self.close_code is None:
            self.close_code = NO_GOODBYE
        self.miss_goodbye()
        ChannelBase.wire_ended(self)
        return 0 if self.lingering else self.hub.mark_dirty(self)

    cdef int wire_lost(self, object error) except -1:
        if self.close_code is None:
            self.close_code = NO_GOODBYE
        if error is None:
            self.miss_goodbye()
        self.drop_body()
        self.held = None
        self.held_size = 0
        ChannelBase.wire_lost(self, error)
        self.deflater = None
        if not self.messages.count:     # what waits in pieces is inflated with it yet
            self.inflater = None
        pings, self.pings = self.pings, None
        if pings:
            for _, waiting in pings.values():
                if not waiting.done():
                    waiting.set_exception(self.closed_error())
        return 0

    cpdef object closed_error(self):
        if self.close_received:
            return self.goodbye()
        if self.cause is None and self.successor is None and self.failure is not None:
            if isinstance(self.failure, ClosedError):       # told anew, as errors keep where they were raised
                return ClosedError(self.failure.reason, code=self.failure.code)
            error = ClosedError(f"the WebSocket is closed: {self.failure}", code=self.closing_code)
            error.__cause__ = self.failure
            return error
        error = ChannelBase.closed_error(self)
        if self.cause is not None:
            error.code = NO_GOODBYE
        return error

    cdef bint may_choose(self) noexcept:
        """Whether it is still open what the close frame will say."""
        return not (self.closing or self.lost or self.close_received or self.failing)

    def close(self, code=None, reason=""):
        """Close with a closing handshake, which `close_timeout` bounds: what is queued leaves first, then `code` and
        `reason` (at most 123 bytes of UTF-8). Await the result to wait for the end. May be called again at any time.

        `code`: default 1000 (normal closure), or 1001 (going away) while the server drains. Where a message in pieces is
        not whole it is 1011, and what waits behind that is lost.

        :raises ProtocolError: a code that may not be sent (RFC 6455 section 7.4), or too long a reason"""
        cdef bytes encoded
        if code is not None and (not isinstance(code, int) or not 0 < code < 5000 or not may_be_sent(code)):
            raise ProtocolError(f"{code} cannot be sent as a close code: 1000 to 1003, 1007 to 1014 and 3000 to 4999 can")
        try:
            encoded = reason.encode()
        except UnicodeEncodeError as error:
            raise ProtocolError(f"the reason for closing cannot be sent as UTF-8: {error.reason}", error.start) from None
        if len(encoded) > CONTROL_SIZE - 2:
            raise ProtocolError(f"the reason for closing has at most {CONTROL_SIZE - 2} bytes, not {len(encoded)}")
        if self.may_choose():
            self.closing_code, self.closing_reason = code or 0, encoded
        return ChannelBase.close(self)

    def close_after(self, error):
        """Close with 1011, as the handler has failed with `error`; with 1008 where that is a LimitError."""
        if self.may_choose():
            self.closing_code = INTERNAL
            if isinstance(error, LimitError):
                self.closing_code, self.closing_reason = POLICY, str(error).encode()[:CONTROL_SIZE - 2]
        return ChannelBase.close(self)

    def dismiss(self):
        """Close with 1001, and within two seconds."""
        if not self.closing_code:
            self.closing_code = GOING_AWAY
        self.begin_closing()
        if not self.lost:
            self.close_due = min(self.close_due, portico_monotonic() + DISMISSAL)
            self.set_deadline()

    def send_eof(self):
        """Not for WebSockets: their closing handshake ends both directions.

        :raises UnsupportedError: unless it is closed already"""
        if not self.closing and not self.lost:
            raise UnsupportedError("a WebSocket cannot close one side only: close() ends both")

    # sending

    cdef int put_frame(self, int first, Payload* payload) except -1:
        """Queue one frame; it leaves at the end of the turn."""
        cdef bint client = self.frames.client
        cdef uint32_t key
        cdef bint splice = payload.size >= SPLICE_SIZE and not client and payload.owner is not NULL \
            and PyBytes_CheckExact(<object>payload.owner)
        output_reserve(&self.output, FRAME_HEAD + (0 if splice else payload.size))
        if not self.dirty:
            self.hub.mark_dirty(self)
        self.output.size += portico_write_head(self.output.data + self.output.size, first, client, payload.size)
        if client:
            key = fresh_key()
            memcpy(self.output.data + self.output.size, &key, 4)
            portico_mask(self.output.data + self.output.size + 4, payload.data, payload.size, key)
            self.output.size += 4 + payload.size
        elif splice:
            output_splice(&self.output, <object>payload.owner)
        else:
            memcpy(self.output.data + self.output.size, payload.data, payload.size)
            self.output.size += payload.size
        return 0

    cdef int put_control(self, int opcode, bytes data) except -1:
        cdef Payload payload
        if self.lost or self.successor is not None or self.hub.loop.is_closed():
            return 0
        open_bytes(data, &payload)
        try:
            return self.put_frame(FIN | opcode, &payload)
        finally:
            release(&payload)

    cdef int put_message(self, object message, object compress) except -1:
        cdef Frames frames = self.frames
        cdef Payload payload
        cdef int opcode = open_message(message, &payload)
        try:
            frames.check(payload.size)
            if self.sending_pieces:
                return self.hold(frames.encode(message, compress))
            if not frames.squeezes(payload.size, compress):
                return self.put_frame(FIN | opcode, &payload)
            smaller = self.squeezed(&payload)
        finally:
            release(&payload)
        open_bytes(smaller, &payload)
        try:
            return self.put_frame(FIN | RSV1 | opcode, &payload)
        finally:
            release(&payload)

    cdef bytes squeezed(self, Payload* payload):
        if not self.frames.out_takeover:
            return self.frames.deflated_alone(payload)
        if self.deflater is None:
            self.deflater = self.frames.compressor()
        return deflated(self.deflater, payload, SYNC_FLUSH)

    cdef int put_shared(self, Payload* payload) except -1:
        if self.sending_pieces:
            return self.hold(PyBytes_FromStringAndSize(payload.data, payload.size))
        self.deflater = None        # what comes next must not refer to what the peer saw before this frame
        return ChannelBase.put_shared(self, payload)

    cdef int put(self, Codec codec, Payload* payload) except -1:
        if self.sending_pieces:
            return self.hold(PyBytes_FromStringAndSize(payload.data, payload.size))
        self.deflater = None
        return ChannelBase.put(self, codec, payload)

    cdef int hold(self, bytes frame) except -1:
        """Keep a frame until the message that is being sent in pieces is whole."""
        if self.held is None:
            self.held = []
        self.held.append(frame)
        self.held_size += PyBytes_GET_SIZE(frame)
        return 0

    cdef Py_ssize_t unsent_size(self) noexcept:
        return ChannelBase.unsent_size(self) + self.held_size

    def send(self, message, compress=None):
        """Queue a message now, a str as text or anything with a buffer as binary; it leaves at the end of the loop's
        turn. Await the result to wait for room.

        `compress`: whether to, where that was agreed; None: from the threshold that was set on.

        :raises ClosedError: the connection is closed or lost
        :raises MessageTooLarge: the message is over `max_size`
        :raises LimitError: `max_unsent` bytes wait already"""
        self.check_sending()
        self.put_message(message, compress)
        self.settings.messages_sent += 1
        return self.sent()

    def send_piece(self, piece, bint last):
        """Queue a part of a message, as `send`; other messages wait until its `last` one was given.

        :raises TypeError: text within a binary message, or the other way round"""
        cdef Payload payload
        cdef int opcode
        cdef list held
        self.check_sending()
        opcode = open_message(piece, &payload)
        try:
            if self.sending_pieces and opcode != self.sending_pieces and payload.size:
                raise TypeError("the pieces of one message are all str or all bytes")
            first = CONTINUATION if self.sending_pieces else opcode
            self.put_frame((FIN if last else 0) | first, &payload)
            self.sending_pieces = 0 if last else self.sending_pieces or opcode
        finally:
            release(&payload)
        if last:
            self.settings.messages_sent += 1
            held, self.held, self.held_size = self.held, None, 0
            for frame in held or ():
                open_bytes(frame, &payload)
                try:
                    self.put(None, &payload)
                finally:
                    release(&payload)
        return self.leaving()       # what waits behind this message must not hold it up
