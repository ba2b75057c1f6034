"""What waits to leave at the end of a turn: small payloads copied side by side, large ones referred to where they lie."""
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.ref cimport Py_DECREF, Py_INCREF, PyObject
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy

cdef enum:
    FIRST_OUTPUT = 1000     # bytes; fits malloc's fastest bins
    FIRST_SPLICES = 4
    MAX_PARTS = 16          # of one output that are sent without making objects of them


cdef struct Part:
    const char* data
    Py_ssize_t size


cdef struct Splice:
    Py_ssize_t place        # in the copied bytes, where the payload goes
    PyObject* payload       # bytes, owned


cdef struct Output:
    char* data
    Py_ssize_t size, capacity       # of what was copied
    Splice* splices                 # NULL where `first` is the only one
    Splice first
    int splice_count, splice_capacity
    Py_ssize_t spliced_size


cdef inline Py_ssize_t output_size(Output* output) noexcept:
    return output.size + output.spliced_size


cdef inline int output_reserve(Output* output, Py_ssize_t more) except -1:
    """Make room for `more` copied bytes."""
    cdef Py_ssize_t capacity = output.size + more
    cdef char* data
    if capacity > output.capacity:
        capacity = max(capacity, 2 * output.capacity, <Py_ssize_t>FIRST_OUTPUT)
        data = <char*>realloc(output.data, capacity)
        if data is NULL:
            raise MemoryError
        output.data, output.capacity = data, capacity
    return 0


cdef inline Splice* output_splices(Output* output) noexcept:
    return &output.first if output.splices is NULL else output.splices


cdef inline int output_splice(Output* output, object payload) except -1:
    """Add bytes that are not copied."""
    cdef int capacity
    cdef Splice* splices
    if output.splice_count and output.splice_count >= output.splice_capacity:
        capacity = max(2 * output.splice_capacity, <int>FIRST_SPLICES)
        splices = <Splice*>realloc(output.splices, capacity * sizeof(Splice))
        if splices is NULL:
            raise MemoryError
        if output.splices is NULL:
            splices[0] = output.first
        output.splices, output.splice_capacity = splices, capacity
    Py_INCREF(payload)
    splices = output_splices(output)
    splices[output.splice_count].place = output.size
    splices[output.splice_count].payload = <PyObject*>payload
    output.splice_count += 1
    output.spliced_size += PyBytes_GET_SIZE(payload)
    return 0


cdef inline int output_parts(Output* output, Part* parts) noexcept:
    """Fill `parts`, which has room for MAX_PARTS, with what is to be sent in order; 0: there is more than that."""
    cdef Splice* splices = output_splices(output)
    cdef Py_ssize_t start = 0
    cdef int i, count = 0
    if 2 * output.splice_count + 1 > MAX_PARTS:
        return 0
    for i in range(output.splice_count):
        if splices[i].place > start:
            parts[count].data = output.data + start
            parts[count].size = splices[i].place - start
            start = splices[i].place
            count += 1
        parts[count].data = PyBytes_AS_STRING(<object>splices[i].payload)
        parts[count].size = PyBytes_GET_SIZE(<object>splices[i].payload)
        count += 1
    if output.size > start:
        parts[count].data = output.data + start
        parts[count].size = output.size - start
        count += 1
    return count


cdef inline list output_chunks(Output* output, Py_ssize_t sent):
    """Return what is to be sent in order as bytes objects, without the first `sent` bytes."""
    cdef list chunks = []
    cdef Splice* splices = output_splices(output)
    cdef Py_ssize_t start = 0, place
    cdef int i
    for i in range(output.splice_count + 1):
        place = splices[i].place if i < output.splice_count else output.size
        if place > start:
            if place - start > sent:
                chunks.append(PyBytes_FromStringAndSize(output.data + start + sent, place - start - sent))
            sent = max(sent - (place - start), 0)
            start = place
        if i < output.splice_count:
            payload = <object>splices[i].payload
            if PyBytes_GET_SIZE(payload) > sent:
                chunks.append(payload[sent:] if sent else payload)
            sent = max(sent - PyBytes_GET_SIZE(payload), 0)
    return chunks


cdef inline int output_clear(Output* output) noexcept:
    cdef Splice* splices = output_splices(output)
    cdef int i
    for i in range(output.splice_count):
        Py_DECREF(<object>splices[i].payload)
    free(output.data)
    free(output.splices)
    output.data, output.splices = NULL, NULL
    output.size = output.capacity = output.spliced_size = 0
    output.splice_count = output.splice_capacity = 0
    return 0
