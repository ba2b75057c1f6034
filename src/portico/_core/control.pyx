# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""Control messages (cmsg(3)): what travels beside the bytes, and descriptors that nobody can lose."""
cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.string cimport memcpy, memset


cdef extern from "socket.h":
    struct cmsghdr:
        size_t cmsg_len
        int cmsg_level
        int cmsg_type
    struct msghdr:
        int msg_flags
    cmsghdr* CMSG_FIRSTHDR(msghdr* message) nogil
    cmsghdr* CMSG_NXTHDR(msghdr* message, cmsghdr* head) nogil
    unsigned char* CMSG_DATA(cmsghdr* head) nogil
    size_t CMSG_LEN(size_t size) nogil
    size_t CMSG_SPACE(size_t size) nogil
    int SOL_SOCKET, SCM_RIGHTS, MSG_CTRUNC
    int close(int fd) nogil


cdef class Allowance:
    def __init__(self, int most):
        self.most = most


@cython.no_gc       # else its list could be gone before it is closed; it is in no cycle
cdef class Descriptors:
    """Descriptors that a peer passed. They belong to whoever takes them; what nobody takes is closed with this object."""

    def __init__(self, fds):
        """Own `fds`."""
        self.held = list(fds)

    @property
    def fds(self):
        """Those that were not taken."""
        return list(self.held)

    def __len__(self):
        return len(self.held)

    def __repr__(self):
        return f"Descriptors({self.held})"

    def take(self, most=None):
        """Return up to `most` descriptors (default: all); they are the caller's to close."""
        taken = self.held[:most]
        self.forget(len(taken))
        return taken

    def close(self):
        """Close those that were not taken."""
        for fd in self.held:
            close(fd)
        self.forget(len(self.held))

    cdef int forget(self, Py_ssize_t count) except -1:
        del self.held[:count]
        if self.allowance is not None:
            self.allowance.used -= <int>count
        return 0

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback):
        self.close()

    def __dealloc__(self):
        if self.held is not None:
            for fd in self.held:
                close(fd)
            if self.allowance is not None:
                self.allowance.used -= <int>len(self.held)


cdef object control_list(void* message, Allowance allowance):
    """Return the control messages of a received `msghdr`: `(level, type, data)` each, descriptors as `Descriptors`; None: none.

    Descriptors beyond `allowance` are closed, and that is told as control data that the kernel had to truncate is."""
    cdef msghdr* received = <msghdr*>message
    cdef cmsghdr* head = CMSG_FIRSTHDR(received)
    cdef list found = None
    cdef bint truncated = (received.msg_flags & MSG_CTRUNC) != 0
    cdef Descriptors passed
    cdef Py_ssize_t size
    while head is not NULL:
        if found is None:
            found = []
        size = head.cmsg_len - CMSG_LEN(0)
        if head.cmsg_level == SOL_SOCKET and head.cmsg_type == SCM_RIGHTS:
            passed = take_rights(<int*>CMSG_DATA(head), size // <Py_ssize_t>sizeof(int), allowance, &truncated)
            if passed.held:
                found.append(passed)
        else:
            found.append((head.cmsg_level, head.cmsg_type, PyBytes_FromStringAndSize(<char*>CMSG_DATA(head), size)))
        head = CMSG_NXTHDR(received, head)
    if truncated:
        found = found or []
        found.append((TRUNCATED, MSG_CTRUNC, b""))
    return found


cdef Descriptors take_rights(const int* fds, Py_ssize_t count, Allowance allowance, bint* truncated):
    cdef Descriptors passed = Descriptors([])
    cdef Py_ssize_t i
    for i in range(count):
        if allowance is not None and allowance.used < allowance.most:
            allowance.used += 1
            passed.held.append(fds[i])
        else:
            truncated[0] = True
            close(fds[i])
    passed.allowance = allowance
    return passed


def control_bytes(messages not None):
    """Return the control buffer that sendmsg(2) takes for `messages`, `(level, type, data)` each."""
    cdef Py_ssize_t total = 0
    cdef cmsghdr* head
    cdef char* place
    for level, kind, data in messages:
        total += CMSG_SPACE(len(data))
    cdef bytes buffer = PyBytes_FromStringAndSize(NULL, total)
    place = PyBytes_AS_STRING(buffer)
    memset(place, 0, total)
    for level, kind, data in messages:
        head = <cmsghdr*>place
        head.cmsg_level, head.cmsg_type = level, kind
        head.cmsg_len = CMSG_LEN(len(data))
        memcpy(CMSG_DATA(head), PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
        place += CMSG_SPACE(len(data))
    return buffer
