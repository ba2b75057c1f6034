# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""Messages of a WebSocket that are taken piece by piece, as they come; those that are deflated are inflated as they are taken."""
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.memoryview cimport PyMemoryView_FromObject
from cpython.ref cimport Py_DECREF, Py_INCREF, PyObject
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.string cimport memcpy

from .channel cimport ChannelBase
from .connection cimport BATCH, NEXT, OPEN, PIECE, WITH_CONTROL, Failure, Recv
from .frame_reader cimport FrameReader, deflated_bound, not_utf8
from .frames cimport NOT_UTF8, TEXT, TOO_BIG, portico_utf8_rest
from .ring cimport Slot, ring_pop

from portico.errors import MessageTooLarge, ProtocolError

cdef enum:
    INFLATED_SIZE = 64 * 1024       # bytes of a piece that was deflated, however much it would become
    SQUEEZED_SIZE = 256 * 1024      # bytes that are inflated bit by bit: zlib copies those that it has yet to take each time


cdef object as_text(bytes data):
    try:
        return PyUnicode_DecodeUTF8(PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), NULL)
    except UnicodeDecodeError as error:
        raise not_utf8(error.start) from None


cdef class Piece:
    """A part of a message, in the queue."""

    cdef Piece front(self, bytes data):
        """Return one for the first of `data`, before this one."""
        cdef Piece piece = Piece.__new__(Piece)
        piece.text, piece.squeezed, piece.begun = self.text, self.squeezed, self.begun
        piece.data = PyBytes_FromStringAndSize(PyBytes_AS_STRING(data), SQUEEZED_SIZE)
        return piece


cdef class PieceReader(FrameReader):
    """What `fragments` takes from."""

    def receive_in_pieces(self):
        """Hand out from now on what has come of a message that does not come at once; `max_size` bounds only those that
        are taken whole. Pieces that nobody took of a message are dropped."""
        self.in_pieces = True
        if self.taking_pieces:
            self.drop_pieces()

    def recv_piece(self):
        """Await the next piece of the next message: (str or bytes, whether it is the last one). Errors as `recv`."""
        return self.new_recv(PIECE)

    # as they come

    cdef int cut_what_came(self) except -1:
        if self.body_size and self.opcode and not self.unwanted and self.read_state == OPEN:
            self.cut_piece(False)
        return 0

    cdef int cut_piece(self, bint last) except -1:
        cdef Piece piece = Piece.__new__(Piece)
        cdef Py_ssize_t size, rest = 0
        piece.text, piece.squeezed, piece.last = self.opcode == TEXT, self.compressed, last
        if piece.squeezed and last:
            self.put_inflate_tail()
        size = self.body_size
        data = self.body_bytes()
        if piece.text and not piece.squeezed:
            rest = portico_utf8_rest(PyBytes_AS_STRING(data), size)
            if rest:
                self.grow_body(rest)
                memcpy(<char*>PyBytes_AS_STRING(<object>self.body), PyBytes_AS_STRING(data) + size - rest, rest)
                self.body_size = rest
            size -= rest
            data = PyUnicode_DecodeUTF8(PyBytes_AS_STRING(data), size, NULL)
        if not last and not size:
            return 0
        piece.begun = self.message_begun
        if piece.squeezed:
            while size > SQUEEZED_SIZE and not self.skipping:
                self.push(piece.front(data), SQUEEZED_SIZE)
                data = data[SQUEEZED_SIZE:]
                size -= SQUEEZED_SIZE
        elif self.frames.memoryviews and not piece.text:
            data = PyMemoryView_FromObject(data)
        piece.data = data
        self.cut = not last
        self.message_begun = 0 if last else self.active     # the next piece has its own time
        if last:
            self.settings.messages_received += 1
        if self.skipping:
            self.skipping = not last
            return self.let_go(piece)
        return self.push(piece, size)

    # as they are taken

    cdef int take(self, Recv recv, PyObject** answer) except -1:
        if not self.in_pieces:
            return ChannelBase.take(self, recv, answer)
        if self.taking_pieces and recv.kind != PIECE:
            self.drop_pieces()
        if recv.kind == PIECE:
            return self.take_piece(answer)
        if not self.messages.count:
            return 0
        if type(<object>self.messages.slots[self.messages.first].item) is Piece:
            return self.join_pieces(recv, answer)
        self.check_first()
        if recv.kind != BATCH:
            return ChannelBase.take(self, recv, answer)
        recv.kind = NEXT        # one at a time, as pieces may follow
        try:
            ChannelBase.take(self, recv, answer)
        finally:
            recv.kind = BATCH
        message = <object>answer[0]
        Py_DECREF(message)
        batch = [message]
        Py_INCREF(batch)
        answer[0] = <PyObject*>batch
        return 1

    cdef int check_first(self) except -1:
        """Drop the first message of the queue if it is too large to be taken whole."""
        cdef Slot slot = self.messages.slots[self.messages.first]
        if slot.size <= self.frames.max_size:
            return 0
        self.let_go_first()
        raise MessageTooLarge(slot.size, self.frames.max_size)

    cdef int take_piece(self, PyObject** answer) except -1:
        cdef Slot slot
        while True:
            if not self.messages.count:
                self.cut_what_came()
            if not self.messages.count:
                return 0
            item = <object>self.messages.slots[self.messages.first].item
            if type(item) is not Piece or not (<Piece>item).squeezed:
                break
            if self.take_inflated(<Piece>item, answer):
                return 1
        slot = ring_pop(&self.messages)
        Py_DECREF(item)
        self.took(slot.size)
        if type(item) is Failure:
            raise (<Failure>item).error
        taken = (item, True)
        if type(item) is Piece:
            self.taking_pieces = not (<Piece>item).last
            taken = ((<Piece>item).data, (<Piece>item).last)
        Py_INCREF(taken)
        answer[0] = <PyObject*>taken
        return 1

    cdef int take_inflated(self, Piece piece, PyObject** answer) except -1:
        """Take some of the first piece of the queue, which is deflated; 0: nothing comes of it, and it is gone."""
        cdef Slot slot
        cdef bint over = False
        try:
            data = self.inflate_some(piece, &over)
        except ProtocolError as error:
            self.spoilt(NOT_UTF8, error)
            raise
        last = over and piece.last
        if over:
            slot = ring_pop(&self.messages)
            Py_DECREF(piece)
            self.took(slot.size)
        if not data and not last:
            if self.cut and self.message_begun:     # nothing came of it, so it was no sign of life
                self.message_begun = min(self.message_begun, piece.begun)
                self.set_deadline()
            return 0
        self.taking_pieces = not last
        taken = (PyMemoryView_FromObject(data) if self.frames.memoryviews and not piece.text else data, last)
        Py_INCREF(taken)
        answer[0] = <PyObject*>taken
        return 1

    cdef object inflate_some(self, Piece piece, bint* over):
        """Return the next part of what `piece` inflates to, str or bytes, and leave the rest in it.

        :raises ProtocolError: it is not deflated, or no text"""
        data, piece.data = self.inflate(piece.data, INFLATED_SIZE)
        over[0] = len(data) < INFLATED_SIZE
        if piece.text:
            data = self.characters(data, over[0] and piece.last)
        if over[0] and piece.last:
            self.end_inflating()
        return as_text(data) if piece.text else data

    cdef bytes characters(self, bytes data, bint last):
        """Return what was begun and `data`, but for the front of a character at its end, which is kept for the next call."""
        cdef int rest = 0
        if self.begun is not None:
            data, self.begun = self.begun + data, None
        if not last:
            rest = portico_utf8_rest(PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
        if rest:
            self.begun = PyBytes_FromStringAndSize(PyBytes_AS_STRING(data) + PyBytes_GET_SIZE(data) - rest, rest)
            data = PyBytes_FromStringAndSize(PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data) - rest)
        return data

    cdef int spoilt(self, int code, object error) except -1:
        """Close because of `error`, behind which nothing can be understood. Returns 1."""
        ChannelBase.drop_received(self)
        return 1 if self.closing else self.break_off(code, error)

    cdef int join_pieces(self, Recv recv, PyObject** answer) except -1:
        """Put a message together of its pieces, if all are there."""
        cdef Py_ssize_t i, size = 0, limit = self.frames.max_size
        cdef Slot slot
        cdef Piece piece
        cdef list parts = []
        cdef bint whole = False
        for i in range(self.messages.count):
            slot = self.messages.slots[(self.messages.first + i) & (self.messages.capacity - 1)]
            if type(<object>slot.item) is not Piece:
                break
            piece = <Piece>slot.item
            size += slot.size
            parts.append(piece.data)
            whole = piece.last
            if whole:
                break
        if piece.squeezed:
            limit = deflated_bound(limit)
        if size > limit or (not whole and self.read_state != OPEN):
            self.drop_pieces()
            if size > limit:
                raise MessageTooLarge(size, self.frames.max_size)
            return 0
        if not whole:
            self.resume_reading()
            return 0
        for i in range(len(parts)):
            slot = ring_pop(&self.messages)
            Py_DECREF(<object>slot.item)
            self.took(slot.size)
        message = self.joined(parts, piece.squeezed, piece.text)
        if recv.kind == WITH_CONTROL:
            message = (message, [])
        elif recv.kind == BATCH:
            message = [message]
        Py_INCREF(message)
        answer[0] = <PyObject*>message
        return 1

    cdef object joined(self, list parts, bint squeezed, bint text):
        """Return the message whose parts those are."""
        if text and not squeezed:
            return "".join(parts)
        message = b"".join(parts)
        if squeezed:
            try:
                message, _ = self.inflate(message, self.frames.max_size + 1)
                message = self.characters(message, True)    # some of it may have been inflated for who gave up then
                if len(message) > self.frames.max_size:
                    raise MessageTooLarge(len(message), self.frames.max_size)
                if text:
                    message = as_text(message)
            except (ProtocolError, MessageTooLarge) as error:
                self.spoilt(TOO_BIG if isinstance(error, MessageTooLarge) else NOT_UTF8, error)
                raise
            self.end_inflating()
            if text:
                return message
        return PyMemoryView_FromObject(message) if self.frames.memoryviews else message

    # what nobody wants

    def drop_received(self):
        """Let go of the messages that wait to be taken, and of the rest of the one that is coming."""
        while self.messages.count:
            self.let_go_first()
        ChannelBase.drop_received(self)
        self.taking_pieces = False
        if self.cut:
            self.drop_rest()

    cdef int drop_rest(self) except -1:
        """Let go of what has yet to come of the message that is coming."""
        self.skipping = self.compressed and self.frames.in_takeover and self.read_state == OPEN and not self.closing
        self.unwanted = not self.skipping
        if self.unwanted:
            self.end_inflating()
            self.begun = None
            self.drop_body()
        return 0

    cdef int drop_pieces(self) except -1:
        """Let go of the rest of a message of which only a part was taken."""
        cdef bint last = False
        self.taking_pieces = False
        while self.messages.count and not last:
            item = <object>self.messages.slots[self.messages.first].item
            if type(item) is not Piece:
                return 0
            last = (<Piece>item).last
            self.let_go_first()
        return self.drop_rest() if self.opcode and not last else 0

    cdef int let_go_first(self) except -1:
        """Let go of the first item of the queue."""
        cdef Slot slot = ring_pop(&self.messages)
        item = <object>slot.item
        Py_DECREF(item)
        self.took(slot.size)
        return self.let_go(<Piece>item) if type(item) is Piece and (<Piece>item).squeezed else 0

    cdef int let_go(self, Piece piece) except -1:
        """Inflate `piece` if only for the window, to which later messages refer; `max_size` bounds what that may take."""
        cdef bint more = self.frames.in_takeover
        while more:
            try:
                data, piece.data = self.inflate(piece.data, INFLATED_SIZE)
            except ProtocolError as error:
                return self.spoilt(NOT_UTF8, error)
            self.skipped += len(data)
            if self.skipped > self.frames.max_size:
                return self.spoilt(TOO_BIG, MessageTooLarge(self.skipped, self.frames.max_size))
            more = len(data) == INFLATED_SIZE
        if piece.last:
            self.end_inflating()
            self.begun = None
            self.skipped = 0
        return 0
