# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""Packet sockets: a port sends and receives packets, and hands them to one connection or to one for each peer."""
cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.ref cimport Py_INCREF, Py_XDECREF, PyObject
from libc.errno cimport ECONNREFUSED, ECONNRESET, ENOTCONN, EPIPE
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, memmove

from .hub cimport Flushable, Hub
from .wire cimport NOWHERE, Arrival, BottomWire, Sink, Wire

import os

cdef enum:
    FIRST_STORE = 2048
    FIRST_WAITING = 16
    AT_ONCE = 256               # packets for peers before their handlers run: what finds a full queue is lost


cdef class Endpoint:
    def __init__(self, bytes name not None, names):
        """`name`: the struct sockaddr; `names`: who makes addresses of what the kernel says."""
        if PyBytes_GET_SIZE(name) > MAX_NAME:
            raise ValueError("a socket address is at most 128 bytes long")
        memcpy(self.name, PyBytes_AS_STRING(name), PyBytes_GET_SIZE(name))
        self.name_size = <unsigned int>PyBytes_GET_SIZE(name)
        self.names = names

    @property
    def packed(self):
        """The struct sockaddr."""
        return PyBytes_FromStringAndSize(self.name, self.name_size)

    @property
    def address(self):
        """The other side's address."""
        if self.remote is None:
            self.remote = self.names.remote(self.packed)
        return self.remote

    @property
    def local_address(self):
        """The address that a packet came to; that of the socket, where it is not told."""
        if self.here is None:
            self.here = self.names.local(PyBytes_FromStringAndSize(<char*>self.local, self.local_size), self.interface_index)
        return self.here

    @property
    def interface(self):
        """The index of the interface that a packet came through; 0: not told."""
        return self.interface_index


@cython.final
@cython.no_gc       # what it refers to never refers back
@cython.freelist(256)
cdef class Packet:
    """One packet that was received."""
    cdef readonly bytes data
    cdef readonly Endpoint origin
    cdef list told
    cdef readonly long long timestamp_ns
    cdef short hops, service
    cdef readonly bint truncated

    @property
    def address(self):
        """Who sent it, an Address."""
        return self.origin.address

    @property
    def local_address(self):
        """The address that it was sent to."""
        return self.origin.local_address

    @property
    def interface(self):
        """The name of the interface that it came through, where that is told, else None."""
        return self.origin.names.interface(self.origin.interface_index) if self.origin.interface_index else None

    @property
    def ttl(self):
        """How many more routers it might have crossed (TTL, hop limit), where that is told, else None."""
        return None if self.hops < 0 else self.hops

    @property
    def tos(self):
        """DSCP and ECN bits (RFC 2474), where they are told, else None."""
        return None if self.service < 0 else self.service

    @property
    def timestamp(self):
        """When the kernel received it, in seconds since 1970, where that is told, else None."""
        return self.timestamp_ns / 1e9 if self.timestamp_ns else None

    @property
    def control(self):
        """The control messages that have no field here: `(level, type, data)` each."""
        return [] if self.told is None else self.told

    def __repr__(self):
        cut = ", truncated" if self.truncated else ""
        return f"<Packet of {len(self.data)} bytes{cut} from {self.address}>"


cdef object make_packet(const char* data, Py_ssize_t size, Arrival* arrival):
    cdef Packet packet = Packet.__new__(Packet)
    packet.data = PyBytes_FromStringAndSize(data, size)
    packet.origin = <Endpoint>arrival.origin
    packet.told = None if arrival.control is NULL else <list>arrival.control
    packet.timestamp_ns = arrival.stamp
    packet.hops = <short>arrival.ttl
    packet.service = <short>arrival.tos
    packet.truncated = arrival.whole_size > size
    return packet


cdef Endpoint origin_of(object packet):
    """Return whom an answer to `packet` goes to; None: it is no Packet."""
    return (<Packet>packet).origin if type(packet) is Packet else None


cdef class PacketPort(Flushable):
    def __dealloc__(self):
        while self.count:
            self.leave(1)
        free(self.store)
        free(self.waiting)

    def fileno(self):
        return -1 if self.closed else self.socket.fileno()

    # what a kind of port defines

    @property
    def dropped_by_kernel(self):
        """Packets that the kernel has dropped for want of room in the receive buffer; 0 where it does not tell."""
        return 0

    cdef int start(self, Sink sink) except -1:
        """Begin to read, for `sink`; or let another one take over."""
        raise NotImplementedError

    cdef int pause(self) except -1:
        """Leave what arrives with the kernel."""
        raise NotImplementedError

    cdef int resume(self) except -1:
        raise NotImplementedError

    cdef int transmit(self) except -1:
        """Send what waits, as far as the kernel takes it; see to it that `flush_waiting` is called for the rest."""
        raise NotImplementedError

    cdef int read_errors(self) except -1:
        """Hand on what the network has reported."""
        return 0

    cdef int shut_writing(self) except -1:
        return 0

    cdef int close(self) except -1:
        """Let go of the socket, and close it."""
        raise NotImplementedError

    def detach_socket(self):
        """Let go of the socket, and return it."""
        raise NotImplementedError

    def send_control(self, data, bytes control not None, Endpoint target):
        """Send one packet with control messages now, if nothing waits before it and there is room; say whether."""
        raise NotImplementedError

    # what waits to leave

    cdef char* reserve(self, Py_ssize_t most) except NULL:
        """Return room for a packet of up to `most` bytes behind those that wait."""
        cdef Py_ssize_t needed = self.store_start + self.store_size + most
        if needed > self.store_capacity and self.store_start:
            memmove(self.store, self.store + self.store_start, self.store_size)
            needed -= self.store_start
            self.store_start = 0
        if needed > self.store_capacity or self.store is NULL:
            needed = max(needed, 2 * self.store_capacity, <Py_ssize_t>FIRST_STORE)
            store = <char*>realloc(self.store, needed)
            if store is NULL:
                raise MemoryError
            self.store, self.store_capacity = store, needed
        return self.store + self.store_start + self.store_size

    cdef int add(self, Py_ssize_t size, Endpoint target, Wire wire) except -1:
        """Queue the packet that was written where `reserve` said."""
        cdef Outgoing* item
        cdef Py_ssize_t capacity
        if self.first + self.count == self.capacity:
            if self.first:
                memmove(self.waiting, self.waiting + self.first, self.count * sizeof(Outgoing))
                self.first = 0
            else:
                capacity = max(2 * self.capacity, <Py_ssize_t>FIRST_WAITING)
                waiting = <Outgoing*>realloc(self.waiting, capacity * sizeof(Outgoing))
                if waiting is NULL:
                    raise MemoryError
                self.waiting, self.capacity = waiting, capacity
        item = &self.waiting[self.first + self.count]
        item.size = size
        item.target = <PyObject*>target if target is not None else NULL
        item.wire = <PyObject*>wire
        if target is not None:
            Py_INCREF(target)
        Py_INCREF(wire)
        self.count += 1
        self.store_size += size
        wire.backlog += max(size, <Py_ssize_t>1)
        return 0

    cdef Wire leave(self, Py_ssize_t count):
        """Forget the first `count` packets; return the wire of the last one."""
        cdef Outgoing* item
        cdef Wire wire = None
        while count:
            item = &self.waiting[self.first]
            wire = <Wire>item.wire
            wire.backlog -= max(item.size, <Py_ssize_t>1)
            if self.left is not None and (not self.left or self.left[len(self.left) - 1] is not wire):
                self.left.append(wire)
            Py_XDECREF(item.wire)
            Py_XDECREF(item.target)
            self.store_start += item.size
            self.store_size -= item.size
            self.first += 1
            self.count -= 1
            count -= 1
        if not self.count:
            self.first = self.store_start = 0
        return wire

    cdef int read_rest(self) except -1:
        """Hand on what the peer sent before it went, as far as it is wanted now."""
        return 0

    cdef int failed(self, int code) except -1:
        """The socket has an error of its own: where that is the end of the connection to the one peer, it is lost."""
        if not code or self.closed:
            return 0
        if not self.is_ordered and (self.is_internet or not self.is_connected):
            return self.sink.packet_failed(None, code, b"", 0, 0)
        self.drop_waiting()
        if self.started and not self.paused:
            self.read_rest()
        return 0 if self.closed else self.sink.wire_lost(OSError(code, os.strerror(code)))

    cdef int fail_first(self, int code, unsigned int mtu) except -1:
        """Give up the first packet for the error `code` of sendmsg(2), and tell its wire; `mtu`: what would have passed."""
        if self.is_connected and not self.is_internet and (code == EPIPE or code == ECONNRESET or code == ECONNREFUSED
                                                           or code == ENOTCONN):
            return self.failed(code)
        cdef Outgoing* item = &self.waiting[self.first]
        cdef Wire wire = <Wire>item.wire
        cdef Py_ssize_t size = item.size
        target = None if item.target is NULL else <object>item.target
        data = PyBytes_FromStringAndSize(self.store + self.store_start, min(size, 64))
        self.leave(1)
        return wire.packet_failed(target, code, data, size, mtu)

    cdef int flush(self) except -1:
        """Send what waits, as far as the kernel takes it."""
        if not self.count or self.closed or self.blocked:
            return 0
        return self.transmit()

    cdef int flush_waiting(self) except -1:
        """There may be room again: send, and tell those whose packets have left."""
        cdef list wires
        cdef Wire wire
        self.blocked = False
        self.left = []
        try:
            self.transmit()
        finally:
            wires, self.left = self.left, None
        for wire in wires:
            wire.sink.wire_room()
        if wires and not self.count and self.end_wanted and not self.closed:
            self.shut_writing()
        return 0

    cdef int end_turn(self) except -1:
        if self.count and not self.closed and not self.blocked:
            self.flush_waiting()
        return 0

    cdef int end_writing(self) except -1:
        self.end_wanted = True
        return 0 if self.count or self.closed else self.shut_writing()

    cdef int drop_waiting(self) except -1:
        self.leave(self.count)
        return 0


cdef class PortWire(BottomWire):
    def __init__(self, PacketPort port not None, Py_ssize_t max_record=0):
        self.port = port
        self.hub = port.hub
        self.sink = NOWHERE
        self.keeps_records = True
        self.is_endless = not port.is_ordered
        self.can_half_close = port.is_ordered
        self.max_record = max_record

    def fileno(self):
        return -1 if self.closed else self.port.fileno()

    @property
    def socket(self):
        """The socket as Python's own object."""
        return None if self.closed else self.port.socket

    def expect_control(self):
        """Have all control messages handed on from here on."""
        self.port.wants_control = True

    def send_control(self, bytes data not None, bytes control not None):
        """Send a packet with control messages now; -1: there is no room, or something waits before it."""
        if self.closed or self.backlog or not self.port.send_control(data, control, self.target):
            return -1
        return PyBytes_GET_SIZE(data)

    cdef int attach(self, Sink sink) except -1:
        self.sink = sink
        if self.closed:
            return self.hub.mark_dirty(self)
        if not self.attached:
            self.attached = True
            return self.port.start(self)
        return 0

    # what the port calls

    cdef int packet_arrived(self, const char* data, Py_ssize_t size, Arrival* arrival) except -1:
        return self.sink.packet_arrived(data, size, arrival)

    cdef int packet_failed(self, object target, int code, bytes data, Py_ssize_t size, unsigned int mtu) except -1:
        return self.sink.packet_failed(target, code, data, size, mtu)

    cdef int wire_ended(self) except -1:
        return self.sink.wire_ended()

    cdef int wire_lost(self, object error) except -1:
        return self.finish(error)

    # what the connection calls

    cdef char* open_record(self, Py_ssize_t most) except NULL:
        return self.port.reserve(most)

    cdef int close_record(self, Py_ssize_t size) except -1:
        return self.port.add(size, self.target, self)

    cdef int flush_records(self, bint now) except -1:
        return self.port.flush()

    cdef int write(self, const char* data, Py_ssize_t size) except -1:
        if not self.closed:
            memcpy(self.open_record(size), data, size)
            self.close_record(size)
            self.flush_records(True)
        return 0

    cdef int pause(self) except -1:
        return 0 if self.closed else self.port.pause()

    cdef int resume(self) except -1:
        return 0 if self.closed else self.port.resume()

    cdef int end_writing(self, bint closing) except -1:
        return self.port.end_writing() if self.port.is_ordered else 0

    cdef int release(self) except -1:
        self.port.drop_waiting()
        return self.port.close()

    def detach_socket(self):
        """See `Wire.detach_socket`."""
        self.closed = True
        self.sink = NOWHERE
        return self.port.detach_socket()


cdef class PeerWire(PortWire):
    """Made by `PeerSet` only."""

    @property
    def local_address(self):
        """Where the last packet of this peer came to."""
        return self.target.local_address

    cdef int attach(self, Sink sink) except -1:
        self.sink = sink
        self.attached = True
        return self.hub.mark_dirty(self) if self.closed else 0

    cdef int flush_records(self, bint now) except -1:
        return self.port.flush() if now else self.hub.mark_late(self.port)      # with those of the other peers

    cdef int pause(self) except -1:
        self.paused = True
        return 0

    cdef int resume(self) except -1:
        self.paused = False
        return 0

    cdef int release(self) except -1:
        """What waits for this peer still leaves: its packets lie among those of others."""
        if self.target is not None and self.target.wire is self:
            self.target.wire = None
        return self.peers.forget(self)

    def detach_socket(self):
        """:raises UnsupportedError: the socket is everybody's"""
        return Wire.detach_socket(self)


cdef class PeerSet(Sink):
    """One wire for each peer that sends to a port. `newcomer(wire)` is called for the first packet of a new one, has to
    attach a connection at once, or to return False."""

    def __init__(self, PacketPort port not None, newcomer, Py_ssize_t most, Py_ssize_t max_record):
        self.port = port
        self.newcomer = newcomer
        self.most = most
        self.wires = {}
        self.max_record = max_record
        self.accepting = True
        port.most_at_once = AT_ONCE
        port.start(self)

    def __len__(self):
        return len(self.wires)

    def close(self):
        """Close the port; whoever still has a wire loses it."""
        for wire in list(self.wires.values()):
            (<PeerWire>wire).finish(None)
        self.newcomer = None
        self.port.flush()
        self.port.drop_waiting()
        self.port.close()

    cdef int forget(self, PeerWire wire) except -1:
        if self.wires.get(wire.peer) is wire:
            del self.wires[wire.peer]
        return 0

    cdef PeerWire welcome(self, Endpoint origin, bytes name):
        """Return a wire for a new peer, or None: it is not let in."""
        cdef PeerWire wire
        if not self.accepting:
            return None
        if len(self.wires) >= self.most:
            self.refused += 1
            return None
        wire = PeerWire.__new__(PeerWire, self.port)
        wire.__init__(self.port, self.max_record)
        wire.peers, wire.peer, wire.target = self, name, origin
        if self.newcomer(wire) is False:
            wire.finish(None)
            return None
        if not wire.closed:
            self.wires[name] = wire
        return wire

    cdef int packet_arrived(self, const char* data, Py_ssize_t size, Arrival* arrival) except -1:
        cdef Endpoint origin = <Endpoint>arrival.origin
        cdef PeerWire wire = origin.wire
        if wire is None or wire.closed:
            name = origin.packed
            wire = self.wires.get(name)
            if wire is None:
                wire = self.welcome(origin, name)
                if wire is None:
                    return 0
            origin.wire = wire
        if wire.target is not origin:
            if wire.target.wire is wire:
                wire.target.wire = None
            wire.target = origin        # the answer leaves from where the last packet came to
        if wire.paused:
            wire.dropped += 1
            self.dropped += 1
            return 0
        return wire.sink.packet_arrived(data, size, arrival)

    cdef int packet_failed(self, object target, int code, bytes data, Py_ssize_t size, unsigned int mtu) except -1:
        """The network reported on a packet to one of the peers."""
        cdef PeerWire wire = self.wires.get((<Endpoint>target).packed) if target is not None else None
        return 0 if wire is None else wire.packet_failed(target, code, data, size, mtu)

    cdef int wire_lost(self, object error) except -1:
        for wire in list(self.wires.values()):
            (<PeerWire>wire).finish(error)
        return 0
