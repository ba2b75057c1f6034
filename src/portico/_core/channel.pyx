# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""A connection that carries whole messages: its bytes are cut by a codec as they arrive."""
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.ref cimport Py_DECREF, Py_INCREF, PyObject
from cpython.unicode cimport PyUnicode_CheckExact

from .codec cimport TOO_LARGE, Codec, Payload, Span, failure, open_bytes, release
from .connection cimport (BATCH, CLOSED, ENDED, FAILED, ITERATE, NEXT, OPEN, WITH_CONTROL, Connection, Failure, ReadState, Recv)
from .ring cimport Slot, ring_pop
from .sender cimport Settings
from .wire cimport Arrival, Sink, Wire

from portico.errors import BusyError, ConfigurationError, EndOfStream, MessageTooLarge, ProtocolError

cdef extern from "Python.h":
    Py_ssize_t PY_SSIZE_T_MAX

cdef enum:
    BURST = 4       # times `read_limit` that may come before a receiver that waits gets its turn: a pause might lose packets


cdef class Accompanied:
    """A message in the queue, with the control messages that came with it."""
    cdef object message
    cdef list beside


cdef class ChannelBase(Connection):
    """Messages of `codec` upon `wire`, or upon that of `predecessor`, with what that has received."""

    def __init__(self, Wire wire not None, Codec codec not None, Settings settings not None, owner=None,
                 Connection predecessor=None):
        super().__init__(wire, settings, owner)
        if codec.for_records and not self.records:
            raise ConfigurationError(f"{codec!r} is for sockets that keep packets apart; bytes in a row need a codec such "
                                     "as Lines()")
        self.codec = codec
        self.take_over(predecessor)

    @classmethod
    def __class_getitem__(cls, item):
        return cls

    # receiving

    cdef int bytes_arrived(self, const char* data, Py_ssize_t size) except -1:
        cdef bint reader_waits = self.reader is not None and self.messages.count == 0
        cdef Py_ssize_t used
        if self.read_state != OPEN:
            return 0
        self.active = self.hub.now
        self.settings.bytes_received += size
        if self.wire.arriving is not None:
            self.take_beside()
        if not self.codec.native:
            self.parse_in_python(data, size)
        elif self.carry_size == 0:
            used = self.parse(data, size)
            if used < size and self.read_state == OPEN:
                self.keep(data + used, size - used)
        else:
            self.keep(data, size)
            used = self.parse(self.carry + self.carry_start, self.carry_size)
            if used:
                self.drop_front(used)
        if self.carry_size or self.skip:
            if not self.message_begun:
                self.message_begun = self.active
                self.set_deadline()
        else:
            self.message_begun = 0
        return self.announce(reader_waits)

    cdef int announce(self, bint reader_waits) except -1:
        """Tell whoever waits that messages came."""
        if self.messages.count:
            if self.reader is not None:
                self.reader.wake()
            if self.watcher is not None:
                self.watcher()
        if self.queued_size > self.settings.read_limit and not reader_waits:
            self.pause_reading()
        return 0

    cdef int packet_arrived(self, const char* data, Py_ssize_t size, Arrival* arrival) except -1:
        """Take the messages of one packet: what is broken or cut short costs that packet only."""
        cdef bint reader_waits = self.reader is not None and self.queued_size <= BURST * self.settings.read_limit
        cdef Py_ssize_t used
        cdef Span span
        if self.read_state != OPEN:
            return 0
        self.active = self.hub.now
        self.settings.bytes_received += size
        if arrival.control is not NULL:
            self.wire.arriving = <list>arrival.control
            self.take_beside()
        if arrival.whole_size > size:
            self.push_failure(MessageTooLarge(arrival.whole_size, size, hint="the rest of the packet is lost"))
        elif self.codec.for_records:
            if size > self.codec.max_size:
                self.push_failure(MessageTooLarge(size, self.codec.max_size))
            else:
                self.push_message(self.codec.load(data, size), size)
        elif self.codec.native:
            used = self.parse(data, size)
            if used < size and not self.skip:
                used = self.codec.finish(data + used, size - used, &span)
                if used > 0:
                    self.push_message(self.codec.load(data + size - used + span.start, span.size), span.size)
                else:
                    self.push_failure(failure(self.codec, used, &span))
            self.skip = self.searched = 0
        elif size:
            self.parse_in_python(data, size)
            if self.carry_size:
                self.push_failure(ProtocolError("the packet ends within a message"))
                self.drop_carry()
            self.skip = self.needed = 0
        return self.announce(reader_waits)

    cdef int push_message(self, object message, Py_ssize_t size) except -1:
        """Queue what `load` gave: bytes, str or the error that it is."""
        cdef Accompanied accompanied
        self.settings.messages_received += 1
        if not (PyBytes_CheckExact(message) or PyUnicode_CheckExact(message)):
            return self.push_failure(message)
        if self.beside is not None:
            accompanied = Accompanied.__new__(Accompanied)
            accompanied.message = message
            accompanied.beside, self.beside = self.beside, None
            message = accompanied
        return self.push(message, size)

    def take_received(self):
        """Say that there is nothing but messages, which have to be taken before."""
        if self.messages.count or self.carry_size:
            raise BusyError("messages wait to be taken: receive them first")
        return b""

    def drop_received(self):
        """Let go of the messages that wait to be taken."""
        cdef Slot slot
        self.setback = None
        while self.messages.count:
            slot = ring_pop(&self.messages)
            Py_DECREF(<object>slot.item)
            self.took(slot.size)

    cdef int drop_front(self, Py_ssize_t size) except -1:
        cdef Py_ssize_t searched = self.searched
        self.message_begun = 0
        if self.read_state != OPEN:
            return 0
        self.clear_carry_front(min(size, self.carry_size))
        if self.carry_size:
            self.searched = searched
        return 0

    cdef Py_ssize_t parse(self, const char* data, Py_ssize_t size) except -1:
        """Queue the messages in `data`, return how many bytes they took."""
        cdef Py_ssize_t used = 0, frame
        cdef Span span
        cdef Codec codec = self.codec
        while used < size:
            if self.skip:
                used += self.skip_some(data + used, size - used)
                if self.skip:
                    return used
                continue
            frame = codec.next(data + used, size - used, &self.searched, &span)
            if frame > 0:
                self.searched = 0
                self.push_message(codec.load(data + used + span.start, span.size), span.size)
                used += frame
            elif frame == 0:
                return used
            elif frame == TOO_LARGE:
                self.searched = 0
                self.skip = span.frame
                self.push_failure(failure(codec, frame, &span))
            else:
                self.fail(failure(codec, frame, &span))
                return size
        return used

    cdef Py_ssize_t skip_some(self, const char* data, Py_ssize_t size) except -1:
        cdef Py_ssize_t dropped
        if self.skip > 0:
            dropped = min(self.skip, size)
            self.skip -= dropped
        elif self.codec.resync(data, size, &dropped):
            self.skip = 0
        return dropped

    cdef int parse_in_python(self, const char* data, Py_ssize_t size) except -1:
        """As `parse`, for a codec whose `decode` is Python: it is shown a copy, of which it may keep parts."""
        cdef Py_ssize_t used = 0, total, frame
        if self.skip:
            used = min(self.skip, size)
            self.skip -= used
            if used == size:
                return 0
            data, size, used = data + used, size - used, 0
        if self.carry_size + size < self.needed:
            return self.keep(data, size)
        if self.carry_size:
            self.keep(data, size)
            copy = PyBytes_FromStringAndSize(self.carry + self.carry_start, self.carry_size)
            self.drop_carry()
        else:
            copy = PyBytes_FromStringAndSize(data, size)
        self.needed = 0
        self.message_begun = 0
        view = memoryview(copy)
        total = PyBytes_GET_SIZE(copy)
        while used < total and self.read_state == OPEN:
            try:
                answer = self.codec.decode(view[used:])
                if not isinstance(answer, tuple):
                    self.needed = answer or 0
                    break
                message, taken = answer
                frame = taken
            except MessageTooLarge as error:
                if not isinstance(error.frame, int) or error.frame < 1:
                    return self.fail(error)
                self.push_failure(error)
                frame = min(error.frame, total - used)
                self.skip = min(error.frame, PY_SSIZE_T_MAX) - frame
                used += frame
                continue
            except ProtocolError as error:
                return self.fail(error)
            except Exception as error:
                failure = ProtocolError(f"the codec {type(self.codec).__name__} failed: {type(error).__name__}: {error}")
                failure.__cause__ = error
                return self.fail(failure)
            if not 0 < frame <= total - used:
                return self.fail(ProtocolError(f"the codec {type(self.codec).__name__} took {taken} of {total - used} bytes"))
            used += frame
            self.settings.messages_received += 1
            self.push(message, frame)
        if used < total and self.read_state == OPEN:
            self.keep(PyBytes_AS_STRING(copy) + used, total - used)
        return 0

    cdef int stop_reading(self, ReadState state) except -1:
        if self.read_state == OPEN and state != ENDED:
            self.drop_carry()
        return Connection.stop_reading(self, state)

    cdef int fail(self, object error) except -1:
        """What comes from here on cannot be understood; what is queued stays readable."""
        if self.records:
            return self.push_failure(error)
        self.failure = error
        self.message_begun = 0
        self.stop_reading(FAILED)
        return self.pause_reading()

    cdef int take(self, Recv recv, PyObject** answer) except -1:
        cdef Slot slot
        cdef list batch
        if recv.kind == BATCH and self.messages.count:
            batch = []
            while self.messages.count and type(<object>self.messages.slots[self.messages.first].item) is not Failure:
                slot = ring_pop(&self.messages)
                message = <object>slot.item
                Py_DECREF(message)
                batch.append((<Accompanied>message).message if type(message) is Accompanied else message)
                self.took(slot.size)
            if batch:
                Py_INCREF(batch)
                answer[0] = <PyObject*>batch
                return 1
        if not self.messages.count:
            return 0
        slot = ring_pop(&self.messages)
        self.took(slot.size)
        if PyBytes_CheckExact(<object>slot.item) and recv.kind != WITH_CONTROL:
            answer[0] = slot.item
            return 1
        return self.hand_out(recv, slot.item, answer)

    cdef int hand_out(self, Recv recv, PyObject* item, PyObject** answer) except -1:
        """As `take`, for what may be more or less than a message."""
        message = <object>item
        Py_DECREF(message)
        beside = None
        if type(message) is Failure:
            raise (<Failure>message).error
        if type(message) is Accompanied:
            beside, message = (<Accompanied>message).beside, (<Accompanied>message).message
        if recv.kind == WITH_CONTROL:
            message = (message, beside or [])
        Py_INCREF(message)
        answer[0] = <PyObject*>message
        return 1

    cdef object end(self, Recv recv):
        cdef bint iterating = recv.kind == ITERATE or recv.kind == BATCH
        if self.successor is not None:
            raise self.closed_error()
        if self.read_state == FAILED:
            raise self.failure.with_traceback(None)
        if self.read_state == CLOSED:
            if iterating and self.cause is None:
                raise StopAsyncIteration
            raise self.closed_error()
        if self.carry_size:
            raise EndOfStream(PyBytes_FromStringAndSize(self.carry + self.carry_start, self.carry_size))
        if iterating:
            raise StopAsyncIteration
        raise EndOfStream()

    def recv(self):
        """Await the next message. Cancelled, it loses none.

        :raises EndOfStream: the peer ended its side; `.partial` is what it sent of an unfinished message
        :raises ClosedError: the connection was closed or lost
        :raises MessageTooLarge: a message was over the codec's `max_size`; it was dropped, the next ones can be read
        :raises ProtocolError: what came is no message
        :raises BusyError: another task is receiving"""
        return self.new_recv(NEXT)

    def recv_with_control(self):
        """As `recv`, but the answer is the message and a list of the control messages that came with it."""
        return self.new_recv(WITH_CONTROL)

    def __aiter__(self):
        return self

    def __anext__(self):
        return self.new_recv(ITERATE)

    def batches(self):
        """Iterate over lists of all the messages that are there at the time: cheapest at high rates."""
        cdef Batches batches = Batches.__new__(Batches)
        batches.channel = self
        return batches

    def end_receiving(self):
        """Take in no more: what waits can be received, then comes the end, and sending goes on."""
        if self.read_state == OPEN and not self.lost:
            self.wire.pause()
            self.stop_reading(ENDED)

    # sending

    def send(self, message):
        """Queue a message now; it leaves at the end of the loop's turn. Await the result to wait for room.

        :raises ClosedError: the connection is closed or lost, or `send_eof` was called
        :raises MessageTooLarge: the message is over the codec's `max_size`
        :raises LimitError: `max_unsent` bytes wait already"""
        cdef Payload payload
        self.check_sending()
        self.codec.open(message, &payload)
        try:
            if self.codec.native:
                self.codec.check(payload.size)
                self.put(self.codec, &payload)
            else:
                self.put(None, &payload)
        finally:
            release(&payload)
        self.settings.messages_sent += 1
        return self.sent()

    def send_encoded(self, data):
        """As `send`, for bytes that `codec.encode` made: so a message for many is encoded once."""
        cdef Payload payload
        self.check_sending()
        open_bytes(data, &payload)
        try:
            self.put(None, &payload)
        finally:
            release(&payload)
        self.settings.messages_sent += 1
        return self.sent()


cdef class Batches:
    cdef ChannelBase channel

    def __aiter__(self):
        return self

    def __anext__(self):
        return self.channel.new_recv(BATCH)


def send_all(list members not None, bytes data not None, skip=None):
    """Send the frame `data` to every channel of `members` but `skip`; return those that have no room or cannot send."""
    cdef ChannelBase channel
    cdef Payload payload
    cdef list refused = []
    open_bytes(data, &payload)
    try:
        for channel in members:
            if channel is skip:
                continue
            if channel.lost or channel.closing or channel.eof_wanted or channel.successor is not None \
                    or not channel.has_room():
                refused.append(channel)
                continue
            channel.put_shared(&payload)
            channel.settings.messages_sent += 1
    finally:
        release(&payload)
    return refused
