# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""What every connection has, whatever it carries: a bounded input queue, deadlines, and one way to close."""
import os

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.ref cimport Py_INCREF, PyObject
from libc.errno cimport EACCES, EDESTADDRREQ, EINVAL, EMSGSIZE, ENOTCONN
from libc.math cimport INFINITY
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, memmove

from .hub cimport Flushable, Hub, Wait, portico_install_send, portico_monotonic, portico_prefetch, wait_send
from .output cimport output_clear, output_size
from .ring cimport Ring, Slot, ring_free, ring_push
from .sender cimport ALL_SENT, OVER, Room, Sender, Settings
from .wire cimport Sink, Wire

from portico.errors import BusyError, ClosedError, DeliveryError, MessageTooLarge, describe


cdef extern from "Python.h":
    Py_ssize_t Py_REFCNT(PyObject* item)

cdef enum:
    SHARE = 256             # messages that a connection may take per turn while others wait
    MAX_BESIDE = 64         # control messages that wait for somebody to take them

cdef double LINGER = 2.0    # seconds to wait for the peer's end after ours, so that no reset overtakes our last bytes


cdef class Connection(Sender):
    """All of a Stream or Channel but how its bytes are received."""

    def __init__(self, Wire wire not None, Settings settings not None, owner=None):
        self.hub = wire.hub
        self.wire = wire
        self.records = wire.keeps_records
        self.settings = settings
        self.owner = owner
        self.active = clock_of(self.hub)

    def __dealloc__(self):
        free(self.carry)
        output_clear(&self.output)
        ring_free(&self.messages)

    cdef int take_over(self, Connection predecessor) except -1:
        """Start to receive, with what `predecessor` had received; called once the object is whole."""
        cdef bytes rest
        if predecessor is None:
            self.set_deadline()
            return self.wire.attach(self)
        rest = predecessor.hand_on(self)
        if self.wire.backlog:
            self.stalled_since = self.active
        self.set_deadline()
        if rest:
            self.settings.bytes_received -= PyBytes_GET_SIZE(rest)      # counted when they came
            self.bytes_arrived(PyBytes_AS_STRING(rest), PyBytes_GET_SIZE(rest))
        self.wire.attach(self)
        if predecessor.peer_ended:
            self.wire_ended()
        return 0

    # what the wire calls

    cdef int wire_ended(self) except -1:
        self.peer_ended = True
        self.stop_reading(ENDED)
        if self.lingering:
            self.finish_closing()
        return 0

    cdef int wire_room(self) except -1:
        self.active = self.hub.now
        self.stalled_since = self.hub.now if self.wire.backlog else 0
        self.wake_waiters()
        if self.closing and not self.lingering and not self.wire.backlog and not self.dirty:
            self.finish_closing()
        return 0

    cdef int wire_lost(self, object error) except -1:
        self.lost = True
        self.hub.set_timer(self, INFINITY)
        self.spare = None               # it refers to this object
        if self.cause is None and not self.lingering:       # what happens after all was sent is nobody's loss
            self.cause = error
        self.drop_output()
        self.stop_reading(ENDED if self.cause is None and not self.closing else CLOSED)
        if self.watcher is not None:        # the end of reading may have been told of before
            self.watcher()
        self.wake_waiters()
        owner, self.owner = self.owner, None
        if owner is not None:
            owner(self)
        return 0

    # receiving

    cdef int keep(self, const char* data, Py_ssize_t size) except -1:
        """Add to the bytes of the unfinished message."""
        cdef Py_ssize_t needed = self.carry_start + self.carry_size + size
        if needed > self.carry_capacity:
            if self.carry_start:
                memmove(self.carry, self.carry + self.carry_start, self.carry_size)
                needed -= self.carry_start
                self.carry_start = 0
            if needed > self.carry_capacity:
                self.carry = grown(self.carry, &self.carry_capacity, needed)
        memcpy(self.carry + self.carry_start + self.carry_size, data, size)
        self.carry_size += size
        return 0

    cdef int clear_carry_front(self, Py_ssize_t size) except -1:
        """Drop `size` bytes of the unfinished message from its front."""
        self.carry_size -= size
        if self.carry_size == 0:
            return self.drop_carry()
        self.carry_start += size
        self.searched = 0
        return 0

    cdef int drop_carry(self) except -1:
        free(self.carry)
        self.carry = NULL
        self.carry_start = self.carry_size = self.carry_capacity = self.searched = 0
        return 0

    cdef int push(self, object message, Py_ssize_t size) except -1:
        self.queued_size += size + MESSAGE_COST
        return ring_push(&self.messages, message, size)

    cdef int push_failure(self, object error) except -1:
        cdef Failure failure = Failure.__new__(Failure)
        failure.error = error
        self.queued_size += MESSAGE_COST
        return ring_push(&self.messages, failure, 0)

    cdef int take_beside(self) except -1:
        """Keep the control messages that came with the bytes at hand; the oldest are dropped when nobody takes them."""
        arriving, self.wire.arriving = self.wire.arriving, None
        self.beside = arriving if self.beside is None else self.beside + arriving
        if len(self.beside) > MAX_BESIDE:
            del self.beside[:len(self.beside) - MAX_BESIDE]
        return 0

    cdef int packet_failed(self, object target, int code, bytes data, Py_ssize_t size, unsigned int mtu) except -1:
        """Tell whoever receives, or else whoever calls next, and go on."""
        error = self.failure_of(target, code, data, size, mtu)
        if self.reader is not None and not self.messages.count:
            self.push_failure(error)
            self.reader.wake()
        else:
            self.setback = error
        if self.watcher is not None:
            self.watcher()
        return 0

    cdef object failure_of(self, object target, int code, bytes data, Py_ssize_t size, unsigned int mtu):
        if code == EMSGSIZE:
            if mtu and size <= mtu:     # a report quotes the front of the packet only
                size = mtu + 1
            return MessageTooLarge(size, mtu or self.wire.max_record, hint="no larger packet can take this way")
        address, hint = None if target is None else target.address, ""
        if code == EDESTADDRREQ or code == ENOTCONN:
            hint = ": say to whom, send(data, to=...)"
        elif code == EINVAL and address is not None and address.scheme == "unixgram" and not address.path:
            hint = ": who sent from a socket without a name cannot be answered"
        elif code == EACCES and address is not None and address.scheme == "udp":
            hint = " (a broadcast address needs the option broadcast)"
        return DeliveryError(code, os.strerror(code).lower() + hint, address, data=data, size=size)

    cdef int stop_reading(self, ReadState state) except -1:
        """End the queue of messages; what is in it stays readable."""
        if self.read_state != OPEN:
            return 0
        self.read_state = state
        if self.reader is not None:
            self.reader.wake()
        if self.watcher is not None:
            self.watcher()
        return 0

    cdef int pause_reading(self) except -1:
        if not self.reading_paused and not self.closing and not self.lost:
            self.reading_paused = True
            self.wire.pause()
        return 0

    cdef int resume_reading(self) except -1:
        if self.reading_paused and not self.lost:
            self.reading_paused = False
            self.excuse_silence(clock_of(self.hub))
            self.wire.resume()
        return 0

    cdef int excuse_silence(self, double now) except -1:
        """While reading was paused, it was not the peer's fault that nothing came."""
        self.active = now
        if self.message_begun:
            self.message_begun = now
        return 0

    cdef int took(self, Py_ssize_t size) except -1:
        """Account for a message of `size` bytes that left the queue."""
        self.queued_size -= size + MESSAGE_COST
        if self.reading_paused and self.queued_size <= self.settings.read_limit // 2 and self.read_state == OPEN:
            self.resume_reading()
        return 0

    cdef int take(self, Recv recv, PyObject** answer) except -1:
        """Put what `recv` asks for (a new reference) and return 1, or return 0: it is not there yet."""
        raise NotImplementedError

    cdef object end(self, Recv recv):
        """Return what recv() answers after the last message, or raise."""
        raise NotImplementedError

    cpdef object closed_error(self):
        if self.successor is not None:
            return ClosedError("this object has handed its connection on; use the one that took it over", clean=True)
        if self.cause is None:
            return ClosedError("the connection is closed", clean=True)
        error = ClosedError(f"the connection was lost: {describe(self.cause)}")
        error.__cause__ = self.cause
        return error

    cdef Recv new_recv(self, RecvKind kind):
        cdef Recv recv
        if self.spare is not None and Py_REFCNT(<PyObject*>self.spare) == 1:    # nobody else holds it
            recv = self.spare
        else:
            recv = Recv.__new__(Recv)
            recv.hub = self.hub
            recv.connection = self
            if not self.lost:
                self.spare = recv
        recv.kind = kind
        recv.searched = 0
        return recv

    # sending

    cdef int end_turn(self) except -1:
        """Let everything that was queued leave in one write."""
        if self.lost or self.successor is not None:
            return 0
        try:
            if output_size(&self.output):
                self.write_out()
            if self.records:
                self.flush_records(False)
            if self.eof_wanted and not self.eof_sent:
                self.eof_sent = True
                self.wire.end_writing(False)
            if self.closing and not self.lingering and not self.wire.backlog:
                self.finish_closing()
        except BaseException as error:
            if self.cause is None:
                self.cause = error
            self.wire.drop()
            raise
        finally:
            self.drop_output()
        if self.wire.backlog and not self.stalled_since:
            self.stalled_since = self.hub.now
            self.set_deadline()
        return self.wake_waiters()

    cdef void warm(self) noexcept:
        portico_prefetch(<void*>self.wire, 5)

    def flush(self):
        """Let what is queued leave now instead of at the end of the turn. Await the result to wait until the
        operating system has taken all of it.

        :raises ClosedError: (when awaited) the connection was lost before"""
        if self.successor is None and not self.lost and output_size(&self.output):
            self.hub.now = clock_of(self.hub)
            try:
                self.write_out()
            finally:
                self.drop_output()
        elif self.records and self.successor is None and not self.lost:
            self.hub.now = clock_of(self.hub)
            self.flush_records(True)
        return self.new_room(ALL_SENT)

    # closing

    def send_eof(self):
        """End this side after what is queued (half-close); receiving goes on. A second call changes nothing.

        :raises UnsupportedError: the transport below cannot close one side only"""
        if self.successor is not None:
            return self.successor.send_eof()
        if self.eof_wanted or self.closing or self.lost:
            return
        if not self.wire.can_half_close:
            from portico.errors import UnsupportedError
            raise UnsupportedError("this transport cannot close one side only")
        self.hub.mark_dirty(self)
        self.eof_wanted = True
        if self.watcher is not None:
            self.watcher()

    def close(self):
        """Send what is queued, end the connection; `close_timeout` bounds how long that takes. Await the result to
        wait for it. May be called again at any time; never raises."""
        if self.successor is not None:
            return self.successor.close()
        self.begin_closing()
        return self.new_room(OVER)

    cdef int begin_closing(self) except -1:
        if self.closing or self.lost:
            return 0
        self.stop_reading(CLOSED)
        self.beside = None          # which closes descriptors that nobody has taken
        self.resume_reading()       # to see the peer's end
        self.closing = True
        if self.watcher is not None:
            self.watcher()
        if self.hub.loop.is_closed():       # a handler may end when its loop is gone
            self.wire.drop()
            return 0
        self.close_due = clock_of(self.hub) + self.settings.close_timeout
        self.set_deadline()
        return self.hub.mark_dirty(self)

    cdef int finish_closing(self) except -1:
        """The output has left: end our side, and close when the peer has ended its, or after a while."""
        if self.peer_ended or self.wire.is_endless:
            return self.wire.shut()
        self.lingering = True
        self.close_due = min(self.close_due, clock_of(self.hub) + LINGER)
        self.set_deadline()
        return self.wire.end_writing(True)

    def abort(self):
        """Close at once and drop what is queued; over TCP the peer sees a reset. May be called again at any time."""
        if self.successor is not None:
            self.successor.abort()
        elif not self.lost:
            self.closing = True
            self.drop_output()
            self.stop_reading(CLOSED)
            self.beside = None
            self.wire.drop()

    def close_after(self, error):
        """As `close`, where a handler has failed with `error`, which some protocols tell the peer."""
        return self.successor.close_after(error) if self.successor is not None else self.close()

    def dismiss(self):
        """As `abort`, but a protocol that says good-bye may take two seconds for it."""
        if self.successor is not None:
            self.successor.dismiss()
        else:
            self.abort()

    def wait_closed(self):
        """Await the end of the connection; never raises."""
        return self.successor.wait_closed() if self.successor is not None else self.new_room(OVER)

    # time

    cdef double next_due(self) noexcept:
        cdef double due
        if self.closing:
            return self.close_due
        due = self.active + self.settings.idle_timeout
        if self.message_begun:
            due = min(due, self.message_begun + self.settings.message_timeout)
        if self.stalled_since:
            due = min(due, self.stalled_since + self.settings.send_timeout)
        return due

    cdef int set_deadline(self) except -1:
        """Make sure to be woken in time; a deadline that moved away is noticed when its old time has come."""
        cdef double due = self.next_due()
        if due != INFINITY and (not self.place or due < self.due):
            self.hub.set_timer(self, due)
        return 0

    cdef int expire(self, double now) except -1:
        cdef double due = self.next_due()
        if self.lost or self.successor is not None:
            return 0
        if self.reading_paused and not self.closing:
            self.excuse_silence(now)
            due = self.next_due()
        if due <= now and self.stalled_since:
            self.wire.measure()         # it may have taken some since
            due = self.next_due()
        if due > now:
            return self.set_deadline()
        if self.lingering:
            return self.wire.shut()
        if self.closing:
            return self.wire.drop()
        if self.stalled_since and self.stalled_since + self.settings.send_timeout <= now:
            self.time_out(f"the peer took nothing for {self.settings.send_timeout:g} s (send_timeout)")
            return self.wire.drop()     # what is queued cannot leave
        if self.message_begun and self.message_begun + self.settings.message_timeout <= now:
            return self.time_out(f"a message did not end within {self.settings.message_timeout:g} s (message_timeout)")
        return self.time_out(f"nothing came or went for {self.settings.idle_timeout:g} s (idle_timeout)")

    cdef int time_out(self, str reason) except -1:
        self.settings.timeouts += 1
        self.cause = TimeoutError(reason)
        return self.begin_closing()

    # the outside view

    @property
    def flags(self):
        """Whether (reading is open, writing is open, it is closing, it is over)."""
        if self.successor is not None:
            return self.successor.flags
        return (self.read_state == OPEN, not self.eof_wanted, self.closing and not self.lost, self.lost)

    @property
    def queued(self):
        """Bytes received and not taken, bytes sent that have not left."""
        if self.successor is not None:
            return self.successor.queued
        return self.queued_size + self.carry_size, self.unsent_size()

    cdef int check_idle(self) except -1:
        """Raise where the wire cannot change hands now."""
        if self.reader is not None and not self.reader.is_cancelled():
            raise BusyError("a task is receiving from this connection")
        if self.lost or self.closing or self.successor is not None:
            raise self.closed_error()
        return 0

    cdef bytes hand_on(self, Connection successor):
        """Give the wire up to `successor`, and return the bytes that were received."""
        cdef Room room
        self.check_idle()
        rest = self.take_received()
        if output_size(&self.output):
            self.write_out()
            self.drop_output()
        self.hub.set_timer(self, INFINITY)
        self.resume_reading()
        self.successor = successor
        self.stop_reading(CLOSED)
        if self.watcher is not None:
            self.watcher()
        successor.owner, self.owner = self.owner, None
        successor.beside, self.beside = self.beside, None
        successor.eof_sent = self.eof_sent
        if self.eof_wanted:
            successor.eof_wanted = True
            self.hub.mark_dirty(successor)
        self.spare = None
        waiters, self.waiters = self.waiters, None
        for room in waiters or ():      # they go on to wait for the successor
            room.wake()
        return rest

    def take_received(self):
        raise NotImplementedError

    def take_socket(self):
        """Give up the socket at once: return it, and the bytes that were received and not taken. This object is closed then.

        :raises BusyError: a task is receiving, bytes wait to leave (await `flush()` before), or messages to be taken
        :raises UnsupportedError: a TLS or memory connection has no socket that could be used without it
        :raises ClosedError: the connection is closed"""
        self.check_idle()
        if self.unsent_size():
            raise BusyError("bytes wait to leave: await flush() first")
        rest = self.take_received()
        sock = self.wire.detach_socket()
        self.stop_reading(CLOSED)
        self.wire_lost(None)
        return sock, rest

    def watch(self, watcher):
        """Have `watcher()` called when `readiness` may have changed; None: no more. There is one watcher at most."""
        self.watcher = watcher

    @property
    def readiness(self):
        """Whether receiving would answer at once (with something, the end or an error), and whether sending would."""
        return (self.read_state != OPEN or self.has_something(),
                self.lost or self.closing or self.eof_wanted or self.successor is not None or self.has_room())

    cdef bint has_something(self) noexcept:
        return self.messages.count > 0 or self.setback is not None

    @property
    def ancillary(self):
        """The control messages that came and were not taken."""
        return [] if self.beside is None else self.beside


cdef double clock_of(Hub hub):
    return hub.now if hub.turning else portico_monotonic()


cdef char* grown(char* data, Py_ssize_t* capacity, Py_ssize_t needed) except NULL:
    cdef Py_ssize_t size = max(needed, 2 * capacity[0])
    data = <char*>realloc(data, size)
    if data is NULL:
        raise MemoryError
    capacity[0] = size
    return data


cdef class Recv(Wait):
    """One message, or the end."""

    cdef int attempt(self, PyObject** answer) except -1:
        cdef Connection connection = self.connection
        if connection.reader is not None and not connection.reader.is_cancelled():
            raise BusyError("another task is receiving from this connection")
        if connection.messages.count:
            if connection.share_turn != self.hub.turn_number:
                connection.share_turn = self.hub.turn_number
                connection.share_taken = 0
            if connection.share_taken < SHARE:
                connection.share_taken += 1
                if connection.take(self, answer):
                    return 1
            else:
                self.hub.postpone(self)
                connection.reader = self
                return 0
        elif connection.setback is not None:
            setback, connection.setback = connection.setback, None
            raise setback
        elif self.kind >= BATCH or connection.carry_size:
            if connection.take(self, answer):
                return 1
        if connection.read_state != OPEN:
            end = connection.end(self)
            Py_INCREF(end)
            answer[0] = <PyObject*>end
            return 1
        connection.reader = self
        return 0

    cdef int withdraw(self, bint given_up) except -1:
        if self.connection.reader is self:
            self.connection.reader = None
        return 0


portico_install_send(Recv, <void*>wait_send)
