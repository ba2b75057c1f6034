"""Control messages (cmsg(3)): what travels beside the bytes."""


cdef enum:
    TRUNCATED = -1          # the level of what stands for control data that the kernel had no room for


cdef class Allowance:
    """How many descriptors may wait here for somebody to take them."""
    cdef int most, used


cdef class Descriptors:
    cdef list held
    cdef Allowance allowance

    cdef int forget(self, Py_ssize_t count) except -1


cdef object control_list(void* message, Allowance allowance)
