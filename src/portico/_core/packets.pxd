from cpython.ref cimport PyObject

from .hub cimport Flushable, Hub
from .wire cimport Arrival, BottomWire, Sink, Wire


cdef enum:
    MAX_NAME = 128          # bytes of a socket address


cdef struct Outgoing:
    Py_ssize_t size
    PyObject* target        # Endpoint, owned; NULL: whom the socket is connected to
    PyObject* wire          # Wire, owned: whose it is


cdef class Endpoint:
    """Whom a packet came from or goes to, and where it came to or leaves from."""
    cdef char name[MAX_NAME]        # struct sockaddr
    cdef unsigned int name_size
    cdef int local_size, source_size
    cdef unsigned char local[16]    # where a packet came to
    cdef unsigned char source[16]   # where the answer leaves from
    cdef unsigned int interface_index
    cdef object names, remote, here
    cdef PeerWire wire              # of the peer's channel


cdef class PacketPort(Flushable):
    """A packet socket: what arrives goes to `sink`, what waits to leave lies here."""
    cdef readonly Hub hub
    cdef Sink sink
    cdef readonly object socket, names
    cdef char* store                # the packets that wait, one behind the other
    cdef Py_ssize_t store_start, store_size, store_capacity
    cdef Outgoing* waiting
    cdef Py_ssize_t first, count, capacity
    cdef list left                  # the wires whose packets leave just now, where they will be told
    cdef readonly bint is_connected, is_ordered, is_internet
    cdef public bint answers_from_source, coalesces
    cdef public bint wants_control      # hand on all control messages, even those that an Arrival has fields for
    cdef Py_ssize_t most_at_once    # packets to take before whoever waits for them gets a turn
    cdef bint started, paused, closed, end_wanted, blocked
    cdef readonly unsigned long long kernel_dropped

    cdef int start(self, Sink sink) except -1
    cdef int pause(self) except -1
    cdef int resume(self) except -1
    cdef char* reserve(self, Py_ssize_t most) except NULL
    cdef int add(self, Py_ssize_t size, Endpoint target, Wire wire) except -1
    cdef Wire leave(self, Py_ssize_t count)
    cdef int fail_first(self, int code, unsigned int mtu) except -1
    cdef int flush(self) except -1
    cdef int flush_waiting(self) except -1
    cdef int transmit(self) except -1
    cdef int read_errors(self) except -1
    cdef int read_rest(self) except -1
    cdef int failed(self, int code) except -1
    cdef int end_writing(self) except -1
    cdef int shut_writing(self) except -1
    cdef int drop_waiting(self) except -1
    cdef int close(self) except -1


cdef class PortWire(BottomWire):
    """The wire of a port that is one connection's alone."""
    cdef readonly PacketPort port
    cdef Endpoint target


cdef class PeerWire(PortWire):
    """The wire of one peer among many upon one port."""
    cdef PeerSet peers
    cdef readonly bytes peer        # its socket address
    cdef readonly bint paused
    cdef readonly unsigned long long dropped


cdef class PeerSet(Sink):
    cdef readonly PacketPort port
    cdef dict wires                 # by socket address
    cdef object newcomer
    cdef public Py_ssize_t most
    cdef public bint accepting
    cdef readonly unsigned long long refused, dropped
    cdef Py_ssize_t max_record

    cdef int forget(self, PeerWire wire) except -1
    cdef PeerWire welcome(self, Endpoint origin, bytes name)


cdef object make_packet(const char* data, Py_ssize_t size, Arrival* arrival)
cdef Endpoint origin_of(object packet)
