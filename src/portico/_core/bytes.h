/* Bytes objects that are filled before anybody else sees them. */
#ifndef PORTICO_BYTES_H
#define PORTICO_BYTES_H
#include <Python.h>

static inline int portico_has_one_owner(PyObject *body) { return Py_REFCNT(body) == 1; }

/* Cuts `body`, whose memory stays as large as it is, to `size`. Nobody else may refer to it. */
static inline void portico_bytes_cut(PyObject *body, Py_ssize_t size) {
    Py_SET_SIZE(body, size);
    PyBytes_AS_STRING(body)[size] = 0;
#if defined(__GNUC__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
#endif
    ((PyBytesObject *)body)->ob_shash = -1; /* it may have been another message, whose hash was asked for */
#if defined(__GNUC__)
#pragma GCC diagnostic pop
#endif
}
#endif
