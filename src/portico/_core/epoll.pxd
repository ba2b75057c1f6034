from .control cimport Allowance
from .hub cimport Hub
from .wire cimport BottomWire, Sink, Wire


cdef class EpollItem(BottomWire):
    """A descriptor in the set."""
    cdef int fd
    cdef unsigned int events        # what it is registered for

    cdef int ready(self, unsigned int events) except -1
    cdef bint guess(self) except -1


cdef class EpollSet:
    cdef Hub hub
    cdef object loop
    cdef int fd
    cdef list items                 # by descriptor
    cdef Py_ssize_t count
    cdef EpollItem lone             # the only one that was ready last time
    cdef int guesses                # how often it was served since without asking the kernel

    cdef bint holds(self, EpollItem item) noexcept
    cdef int add(self, EpollItem item, unsigned int events) except -1
    cdef int change(self, EpollItem item, unsigned int events) except -1
    cdef int remove(self, EpollItem item) except -1
    cdef bint serve_lone(self) except -1
    cdef int serve_ready(self) except -1


cdef class SocketWire(EpollItem):
    cdef readonly bytes peer        # its socket address, as the kernel gave it
    cdef EpollSet set
    cdef object owner               # a Python socket that owns the descriptor, or None
    cdef list chunks                # the backlog, from `first` and there `offset` on
    cdef Py_ssize_t first, offset
    cdef Allowance allowance        # of descriptors that wait above
    cdef bint paused, end_wanted, with_control, only_writes
    cdef readonly bint is_file      # a FIFO or a device, which has read(2) and write(2) only

    cdef int watch(self) except -1
    cdef int hung_up(self, unsigned int events) except -1
    cdef bint receive(self) except -1
    cdef Py_ssize_t receive_with_control(self) except -2
    cdef int send_backlog(self) except -1
    cdef int keep(self, object data, Py_ssize_t offset) except -1
    cdef int send_failed(self, int code) except -1
    cdef int leave_set(self) except -2


cdef EpollSet set_of(Hub hub)
