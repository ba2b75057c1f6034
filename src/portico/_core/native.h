/* What Cython cannot say: type slots, the current context on 3.11, the clock. */
#ifndef PORTICO_NATIVE_H
#define PORTICO_NATIVE_H
#include <Python.h>
#ifdef _WIN32
#include <windows.h>
#else
#include <time.h>
#endif

/* StopIteration(tuple) would unpack the tuple and an exception would be taken for the error itself. */
static inline void portico_stop(PyObject *value) {
    if (PyTuple_Check(value) || PyExceptionInstance_Check(value)) {
        PyObject *stop = PyObject_CallOneArg(PyExc_StopIteration, value);
        if (stop) { PyErr_SetObject(PyExc_StopIteration, stop); Py_DECREF(stop); }
    } else PyErr_SetObject(PyExc_StopIteration, value);
    Py_DECREF(value);
}

static inline PyObject *portico_next(PyObject *self) {
    PyObject *answer = NULL;
    switch (Py_TYPE(self)->tp_as_async->am_send(self, Py_None, &answer)) {
        case PYGEN_NEXT: return answer;
        case PYGEN_RETURN: portico_stop(answer); return NULL;
        default: return NULL;
    }
}

/* The bytecode of 3.11 awaits through am_send, that of 3.12 and later through tp_iternext: serve both. */
static inline void portico_install_send(PyObject *type, void *send) {
    PyTypeObject *t = (PyTypeObject *)type;
    t->tp_as_async->am_send = (sendfunc)send;
    t->tp_iternext = portico_next;
    PyType_Modified(t);
}

/* Task.get_context() exists from 3.12 on; 3.11 tells the current context nowhere else. */
static inline PyObject *portico_current_context(void) {
#if PY_VERSION_HEX < 0x030c0000
    PyObject *context = PyThreadState_Get()->context;
    if (context) { Py_INCREF(context); return context; }
#endif
    Py_RETURN_NONE;
}

/* Asks for the cache lines of an object that is needed soon: with many connections each is out of the cache by then. */
static inline void portico_prefetch(const void *object, int lines) {
#if defined(__GNUC__)
    for (int line = 0; line < lines; line++) __builtin_prefetch((const char *)object + 64 * line, 1);
#else
    (void)object; (void)lines;
#endif
}

static inline double portico_monotonic(void) {
#ifdef _WIN32
    static LARGE_INTEGER frequency;
    LARGE_INTEGER count;
    if (!frequency.QuadPart) QueryPerformanceFrequency(&frequency);
    QueryPerformanceCounter(&count);
    return (double)count.QuadPart / (double)frequency.QuadPart;
#else
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
#endif
}
#endif
