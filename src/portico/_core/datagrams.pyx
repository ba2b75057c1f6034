# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""A socket that sends packets to anyone, and receives from anyone: a connection whose messages are packets."""
from cpython.bytes cimport PyBytes_GET_SIZE
from cpython.ref cimport Py_DECREF, PyObject
from libc.errno cimport ECONNREFUSED, EMSGSIZE
from libc.string cimport memcpy

from .channel cimport ChannelBase
from .codec cimport Payload, Records, open_bytes, release
from .connection cimport OPEN, Connection, Recv
from .hub cimport portico_monotonic
from .packets cimport Endpoint, PortWire, make_packet, origin_of
from .ring cimport ring_pop
from .sender cimport Settings
from .wire cimport Arrival, Wire

from portico.errors import MessageTooLarge

cdef enum:
    MAX_TARGETS = 4096      # addresses that are remembered as the kernel wants them
    MAX_FAILURES = 1024     # reports that wait for the next packet to the same address

cdef enum:
    PAUSE, DROP_NEW, DROP_OLD

cdef dict POLICIES = {"pause": PAUSE, "drop-new": DROP_NEW, "drop-old": DROP_OLD}


cdef class DatagramsBase(ChannelBase):
    """Packets upon a port."""
    cdef dict targets, failures
    cdef object locate
    cdef Py_ssize_t most_packets
    cdef int policy
    cdef readonly unsigned long long dropped
    cdef readonly unsigned long long failed

    def __init__(self, PortWire wire not None, Settings settings not None, locate, *, Py_ssize_t max_packets, str when_full, owner=None):
        """`locate(to)` makes an Endpoint of what a user gives as an address; `max_packets` and the `read_limit` of `settings`
        bound what waits to be received, `when_full` says what then ("pause", "drop-new", "drop-old")."""
        self.targets, self.failures = {}, {}
        self.locate = locate
        self.most_packets = max_packets
        self.policy = POLICIES[when_full]
        super().__init__(wire, Records(max_size=1 << 30), settings, owner)

    @property
    def port(self):
        """What sends and receives the packets."""
        return (<PortWire>self.wire).port

    # receiving

    cdef int packet_arrived(self, const char* data, Py_ssize_t size, Arrival* arrival) except -1:
        cdef bint reader_waits = self.reader is not None and self.messages.count == 0
        if self.read_state != OPEN:
            return 0
        self.active = self.hub.now
        self.settings.bytes_received += size
        self.settings.messages_received += 1
        if self.messages.count >= self.most_packets or self.queued_size > self.settings.read_limit:
            if self.policy == DROP_OLD:
                while self.messages.count and (self.messages.count >= self.most_packets
                                               or self.queued_size > self.settings.read_limit):
                    self.drop_first()
            elif self.policy == DROP_NEW:
                self.dropped += 1
                return 0
        self.push(make_packet(data, size, arrival), size)
        if reader_waits:        # else it has been woken already
            self.reader.wake()
        if self.watcher is not None:
            self.watcher()
        if self.policy == PAUSE and not reader_waits \
                and (self.messages.count >= self.most_packets or self.queued_size > self.settings.read_limit):
            self.pause_reading()
        return 0

    cdef int drop_first(self) except -1:
        slot = ring_pop(&self.messages)
        Py_DECREF(<object>slot.item)
        self.took(slot.size)
        self.dropped += 1
        return 0

    cdef int hand_out(self, Recv recv, PyObject* item, PyObject** answer) except -1:
        answer[0] = item
        if origin_of(<object>item) is not None:
            return 1
        return ChannelBase.hand_out(self, recv, item, answer)

    # sending

    cdef Endpoint target(self, to):
        """Return whom `to` means; None: whom the socket is connected to."""
        cdef Endpoint endpoint
        if to is None:
            return None
        endpoint = origin_of(to)
        if endpoint is None:
            endpoint = self.targets.get(to)
            if endpoint is None:
                endpoint = self.locate(to)
                if len(self.targets) >= MAX_TARGETS:
                    self.targets.clear()
                self.targets[to] = endpoint
        return endpoint

    cdef int queue(self, data, Endpoint target) except -1:
        cdef Payload payload
        cdef Py_ssize_t most = self.wire.max_record
        open_bytes(data, &payload)
        try:
            if most and payload.size > most:
                raise MessageTooLarge(payload.size, most, hint="no packet is larger")
            memcpy((<PortWire>self.wire).port.reserve(payload.size), payload.data, payload.size)
            (<PortWire>self.wire).port.add(payload.size, target, self.wire)
            self.settings.bytes_sent += payload.size
            self.settings.messages_sent += 1
        finally:
            release(&payload)
        return 0

    cdef int leave(self, Endpoint target) except -1:
        """Send what is queued now, and raise what is known to have failed on the way to `target`."""
        cdef PortWire wire = <PortWire>self.wire
        wire.port.flush()
        if wire.port.is_internet and not wire.backlog:
            wire.port.read_errors()     # what this machine itself reports is there at once
        self.active = self.hub.now if self.hub.turning else portico_monotonic()
        if self.waiters is not None:
            self.wake_waiters()
        if self.failures:
            error = self.failures.pop(b"" if target is None else target.packed, None)
            if error is not None:
                raise error
        return 0

    def send(self, data, to=None):
        """Send one packet now. Await the result to wait for room.

        :param to: an Address, its text, or a Packet to answer; default: whom the socket is connected to.
        :raises DeliveryError: the kernel refused it, or the network has reported since that an earlier packet to the same
            address did not arrive (ICMP); the socket goes on
        :raises MessageTooLarge: it is larger than a packet can be, or than the path takes
        :raises AddressError: `to` is a name, or of another kind than the socket
        :raises LimitError: `max_unsent` bytes wait already
        :raises ClosedError: the socket is closed"""
        cdef Endpoint target = self.target(to)
        self.check_sending()
        self.queue(data, target)
        self.leave(target)
        return self.sent()

    def send_many(self, packets, to=None):
        """Send packets in as few system calls as possible: `(data, to)` each, or all to one address: data each, and `to`.
        Await the result to wait for room.

        Packets of one size that follow each other to one address cost least: the kernel cuts them (GSO).

        :raises DeliveryError: one of them failed, as for `send`; the others were sent
        :raises MessageTooLarge: one is larger than a packet can be; those before it were sent"""
        cdef Endpoint target = self.target(to), last = target
        cdef list targets = [target]
        self.check_sending()
        try:
            if to is not None:
                for data in packets:
                    self.queue(data, target)
            else:
                for data, each in packets:
                    target = self.target(each)
                    self.queue(data, target)
                    if target is not last:
                        targets.append(target)
                        last = target
        finally:
            self.leave(target)
        if self.failures:
            for target in targets:
                error = self.failures.pop(b"" if target is None else target.packed, None)
                if error is not None:
                    raise error
        return self.sent()

    def send_encoded(self, data):
        """As `send(data)`."""
        return self.send(data)

    def send_control(self, bytes data not None, bytes control not None, to=None):
        """Send one packet with control messages now; say whether there was room."""
        cdef Py_ssize_t size = PyBytes_GET_SIZE(data), most = self.wire.max_record
        self.check_sending()
        if most and size > most:
            raise MessageTooLarge(size, most, hint="no packet is larger")
        if not (<PortWire>self.wire).port.send_control(data, control, self.target(to)):
            return False
        self.settings.bytes_sent += size
        self.settings.messages_sent += 1
        self.active = portico_monotonic()
        return True

    cdef int packet_failed(self, object target, int code, bytes data, Py_ssize_t size, unsigned int mtu) except -1:
        """Keep it for the send to the same address that is under way, or the next one."""
        self.failed += 1
        if code != ECONNREFUSED and code != EMSGSIZE:
            self.targets.clear()    # the number of an interface may have changed
        if len(self.failures) < MAX_FAILURES:
            name = b"" if target is None else (<Endpoint>target).packed
            self.failures[name] = self.failure_of(target, code, data, size, mtu)
        return 0

    def take_failures(self):
        """Return what is known to have failed and no `send` has raised, and forget it."""
        failures, self.failures = self.failures, {}
        return list(failures.values())
