# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""One hub per event loop: what arrives is parsed, the handlers that wait are stepped, then all output is flushed."""
import asyncio
import contextvars
import sys
from asyncio.tasks import _enter_task, _leave_task
from collections.abc import Coroutine

import _asyncio     # after asyncio: imported first, it leaves asyncio with a table of current tasks that nobody fills

from cpython.bytearray cimport PyByteArray_AS_STRING
from cpython.dict cimport PyDict_GetItem
from cpython.list cimport PyList_GET_ITEM, PyList_GET_SIZE
from cpython.ref cimport Py_DECREF, Py_INCREF, PyObject
from libc.math cimport INFINITY
from libc.stdint cimport uintptr_t

from .timers cimport Timed, Timers


cdef extern from "Python.h":
    int PyContext_Enter(object context) except -1
    int PyContext_Exit(object context) except -1
    int PyIter_Send(PyObject* iterator, PyObject* value, PyObject** answer) except -1
    PyObject* Py_None

cdef extern from "native.h":
    object portico_current_context()

cdef enum:
    SCRATCH_SIZE = 256 * 1024
    ALIGNMENT = 64          # an unaligned buffer costs 50 % on large messages
    MAX_ROUNDS = 8          # handlers that wake each other for ever must let the loop go on
    MAX_EXPIRED = 256       # deadlines met in one turn of the loop, for the same reason
    INLINE_STREAK = 8       # reads in a row from one connection before it is served in place

cdef double TIMER_SLACK = 0.005     # deadlines that lie closer together are met at once

cdef enum:
    NOTHING, YIELDED, RETURNED, RAISED

cdef object CancelledError = asyncio.CancelledError
cdef object current_task_function = asyncio.current_task
cdef dict current_tasks = getattr(_asyncio, "_current_tasks", None)   # until 3.13
cdef bint UNCANCEL_CLEARS = sys.version_info >= (3, 13)   # Task.uncancel() takes back an undelivered cancel()


cdef inline object current_task(object loop):
    cdef PyObject* task
    if current_tasks is None:
        return current_task_function(loop)
    task = PyDict_GetItem(current_tasks, loop)
    return None if task is NULL else <object>task


cpdef Hub hub_of(object loop):
    """Return the hub of `loop`, made on first use."""
    hub = getattr(loop, "_portico_hub", None)
    if hub is None:
        hub = loop._portico_hub = Hub(loop)     # on the loop itself, so that both are collected together
    return hub


cdef class Flushable(Timed):
    cdef int end_turn(self) except -1:
        return 0

    cdef void warm(self) noexcept:
        """Ask for the memory that `end_turn` will touch beyond this object."""


cdef class Hub:
    """Drives everything of one event loop: turns, deadlines, the receive buffer."""

    def __init__(self, loop):
        cdef bytearray buffer = bytearray(SCRATCH_SIZE + ALIGNMENT)
        cdef char* start = PyByteArray_AS_STRING(buffer)
        cdef Py_ssize_t offset = ALIGNMENT - <Py_ssize_t>(<uintptr_t>start % ALIGNMENT)
        self.loop = loop
        self.context = contextvars.Context()
        self.run_callback = self._run
        self.timer_callback = self._expire
        self.timer_due = INFINITY
        self.timers = Timers()
        self.scratch_view = memoryview(buffer)[offset:offset + SCRATCH_SIZE]    # keeps the buffer alive and in place
        self.scratch = start + offset
        self.scratch_size = SCRATCH_SIZE
        self.ready = []
        self.postponed = []
        self.dirty = []
        self.late = []
        self.now = portico_monotonic()
        self.native_sockets = sys.platform == "linux"

    cdef int schedule(self) except -1:
        if not self.scheduled and not self.turning:
            self.scheduled = True
            try:
                self.loop.call_soon(self.run_callback, context=self.context)
            except RuntimeError:
                self.scheduled = False
                if not self.loop.is_closed():
                    raise
        return 0

    def _run(self):
        self.scheduled = False
        self.now = portico_monotonic()
        self.turn()

    cdef int postpone(self, Wait wait) except -1:
        self.postponed.append(wait)
        return self.schedule()

    cdef int mark_dirty(self, Flushable item) except -1:
        if not item.dirty:
            self.schedule()
            item.dirty = True
            self.dirty.append(item)
        return 0

    cdef int mark_late(self, Flushable item) except -1:
        """As `mark_dirty`, for what leaves after all that is dirty."""
        if not item.dirty:
            self.schedule()
            item.dirty = True
            self.late.append(item)
        return 0

    cdef bint in_task(self) except -1:
        return current_task(self.loop) is not None

    cdef bint begin_arrival(self, object connection) except -1:
        """Say whether this read of the loop's is served in place: a lone busy connection need not wait for a turn."""
        self.now = portico_monotonic()
        if self.last_arrival is not <PyObject*>connection:
            self.last_arrival = <PyObject*>connection
            self.streak = 0
            return False
        if self.streak < INLINE_STREAK:
            self.streak += 1
            return False
        if self.turning or self.in_task():
            return False
        self.turning = True
        return True

    cdef int turn(self) except -1:
        """Step every driver that was woken, then flush every connection that has output."""
        cdef Driver driver
        cdef Wait wait
        cdef list batch
        cdef int rounds = 0
        self.turning = True
        self.turn_number += 1
        try:
            if self.postponed:
                batch, self.postponed = self.postponed, []
                for wait in batch:
                    wait.wake()
            while self.ready and rounds < MAX_ROUNDS:
                rounds += 1
                batch, self.ready = self.ready, []
                for driver in batch:
                    try:
                        driver.step()
                    except BaseException as error:
                        self.report("a handler could not be stepped", error)
            self.flush_dirty()
            if self.late:
                self.flush_late()
        finally:
            self.turning = False
        if self.ready or self.dirty or self.postponed or self.late:
            self.schedule()
        return 0

    cdef int flush_dirty(self) except -1:
        cdef Flushable item
        cdef list batch
        cdef Py_ssize_t i, count
        if not self.dirty:
            return 0
        batch, self.dirty = self.dirty, []
        count = PyList_GET_SIZE(batch)
        for i in range(count):
            if i + 2 < count:
                portico_prefetch(<void*>PyList_GET_ITEM(batch, i + 2), 7)
                (<Flushable>PyList_GET_ITEM(batch, i + 1)).warm()
            item = <Flushable>PyList_GET_ITEM(batch, i)
            item.dirty = False
            try:
                item.end_turn()
            except BaseException as error:
                self.report("a connection could not be flushed", error)
        return 0

    cdef int flush_late(self) except -1:
        cdef Flushable item
        batch, self.late = self.late, []
        for item in batch:
            item.dirty = False
            try:
                item.end_turn()
            except BaseException as error:
                self.report("packets could not be sent", error)
        return 0

    def report(self, message, error):
        self.loop.call_exception_handler({"message": message, "exception": error})

    cdef int set_timer(self, Timed item, double due) except -1:
        """Let `item` expire at `due` in the seconds of the monotonic clock; INFINITY: never."""
        if due == INFINITY:
            return self.timers.remove(item)
        self.timers.put(item, due)
        if due < self.timer_due:
            self.arm()
        return 0

    cdef int arm(self) except -1:
        cdef double due = self.timers.earliest()
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        self.timer_due = due
        if due != INFINITY and not self.loop.is_closed():
            self.timer = self.loop.call_later(max(0.0, due - portico_monotonic()) + TIMER_SLACK, self.timer_callback,
                                              context=self.context)
        return 0

    def _expire(self):
        cdef Timed item
        cdef int count = 0
        self.timer = None
        self.timer_due = 0      # whoever sets a deadline meanwhile need not arm
        self.now = portico_monotonic()
        while count < MAX_EXPIRED:
            item = self.timers.pop_due(self.now)
            if item is None:
                break
            count += 1
            try:
                item.expire(self.now)
            except BaseException as error:
                self.report("a deadline could not be met", error)
        self.arm()

    cdef object suspend(self, Wait wait):
        """Return what the waiter's coroutine must yield, and note whom to wake."""
        cdef Driver driver = self.running
        if driver is not None and driver.task is current_task(self.loop):
            wait.driver = driver
            if driver.park is None:
                driver.park = self.loop.create_future()
            return driver.park
        future = self.loop.create_future()
        future._asyncio_future_blocking = True
        wait.future = future
        return future


cdef class Wait:
    cdef int attempt(self, PyObject** answer) except -1:
        """Put the answer (a new reference) and return 1, or enrol to be woken and return 0."""
        raise NotImplementedError

    cdef int withdraw(self, bint given_up) except -1:
        """Undo what `attempt` enrolled, to try again or because the waiter gave up."""
        return 0

    cdef int leave(self, bint given_up) except -1:
        self.waiting = False
        self.driver = None
        self.future = None
        return self.withdraw(given_up)

    cdef int wake(self) except -1:
        """Let the waiter try again. Waking too often is harmless, as every wait checks again."""
        cdef Driver driver = self.driver
        if driver is not None:
            if not driver.queued:
                driver.queued = True
                driver.hub.ready.append(driver)
                driver.hub.schedule()
        elif self.future is not None and not self.future.done():
            try:
                self.future.set_result(None)
            except RuntimeError:
                if not self.hub.loop.is_closed():
                    raise
        return 0

    cdef bint is_cancelled(self) except -1:
        """Whether the waiter's task was cancelled and has only not run since."""
        if self.driver is not None:
            return self.driver.park is None or self.driver.park.cancelled()
        return self.future is None or self.future.cancelled()

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        """Replaced by `portico_next`."""

    def send(self, value):
        return next(self)

    def throw(self, kind, value=None, traceback=None):
        if self.waiting:
            self.leave(True)
        error = kind if value is None else value
        if traceback is not None:
            error = error.with_traceback(traceback)
        raise error

    def close(self):
        if self.waiting:
            self.leave(True)


Coroutine.register(Wait)    # so that a Task takes it, as it takes what an async function returns


cdef int wait_send(PyObject* self_, PyObject* value, PyObject** answer) except -1:
    cdef Wait self = <Wait>self_
    if self.waiting:
        if self.driver is not None:
            if self.driver is not self.hub.running:
                raise RuntimeError("another task already awaits this")
        elif not self.future.done():
            raise RuntimeError("another task already awaits this")
        self.leave(False)
    if self.attempt(answer):
        return PYGEN_RETURN
    future = self.hub.suspend(self)
    self.waiting = True
    Py_INCREF(future)
    answer[0] = <PyObject*>future
    return PYGEN_NEXT


cdef class Driver:
    """Given to a Task in place of a coroutine, so that the hub can step the coroutine without the loop.

    While the coroutine waits on an object of the hub, the Task stays parked on one plain Future that is used again
    and again. The Future is completed only to hand something out: a foreign awaitable, the result or an error."""

    def __init__(self, Hub hub, coro, on_done=None):
        self.hub = hub
        self.coro = coro
        self.on_done = on_done

    cdef int bind(self) except -1:
        """Learn which task runs this; only the first step can tell."""
        task = current_task(self.hub.loop)
        if task is None:
            raise RuntimeError("a driven coroutine must run in a task of its loop")
        self.context = task.get_context() if hasattr(task, "get_context") else portico_current_context()
        self.task = task
        return 0

    cdef bint ended(self, object error) except -1:
        """Note that the coroutine ended, and return whether its error was dealt with."""
        on_done = self.on_done
        self.task = self.context = self.on_done = None
        return on_done is not None and on_done(error) is True and not isinstance(error, CancelledError)

    cdef int drive(self, PyObject* value, PyObject** answer) except -1:
        """Step for the Task: as the coroutine's own send, but remember when it parks."""
        cdef Driver outer = self.hub.running
        cdef int status
        self.parked = False
        self.park = None
        self.cancelled_itself = False
        if self.outcome != NOTHING:
            return self.deliver(answer)
        if self.task is None:
            self.bind()
        self.hub.running = self
        try:
            status = PyIter_Send(<PyObject*>self.coro, value, answer)
        except BaseException as error:
            if not self.ended(error):
                raise
            Py_INCREF(None)
            answer[0] = Py_None
            return PYGEN_RETURN
        finally:
            self.hub.running = outer
        if status == PYGEN_RETURN:
            self.ended(None)
        elif self.park is not None and answer[0] is <PyObject*>self.park:    # sleep(0) yields None
            self.parked = True
            self.park._asyncio_future_blocking = True
        return status

    cdef object take_outcome(self):
        value = self.value
        self.value = None
        self.outcome = NOTHING
        return value

    cdef int deliver(self, PyObject** answer) except -1:
        cdef int outcome = self.outcome
        value = self.take_outcome()
        if outcome != YIELDED:
            self.task = None
        if outcome == RAISED:
            raise value
        Py_INCREF(value)
        answer[0] = <PyObject*>value
        return PYGEN_RETURN if outcome == RETURNED else PYGEN_NEXT

    cdef int step(self) except -1:
        """Step for the hub, on behalf of the parked Task."""
        self.queued = False
        if not self.parked or self.park.done():     # cancelled: the Task is about to run by itself
            return 0
        if current_task(self.hub.loop) is not None:
            self.park.set_result(None)
            return 0
        PyContext_Enter(self.context)
        context = self.context
        try:
            return self.step_in_task()
        finally:
            PyContext_Exit(context)

    cdef int step_in_task(self) except -1:
        cdef PyObject* answer = NULL
        cdef int status = PYGEN_ERROR
        cdef Hub hub = self.hub
        task = self.task
        _enter_task(hub.loop, task)
        hub.running = self
        try:
            status = PyIter_Send(<PyObject*>self.coro, Py_None, &answer)
            if status == PYGEN_RETURN:
                self.ended(None)
        except BaseException as error:
            if self.ended(error):
                status = PYGEN_RETURN
                Py_INCREF(None)
                answer = Py_None
            else:
                self.value = error
        finally:
            hub.running = None
            _leave_task(hub.loop, task)
        if status == PYGEN_NEXT and answer is <PyObject*>self.park:
            Py_DECREF(<object>answer)
            if UNCANCEL_CLEARS:
                self.cancelled_itself = self.park.done()
            return 0
        if status == PYGEN_ERROR:
            self.outcome = RAISED
        else:
            self.outcome = YIELDED if status == PYGEN_NEXT else RETURNED
            self.value = <object>answer
            Py_DECREF(self.value)
        self.parked = False
        if self.park.done():
            self.cancelled_itself = True
            self.task = task        # `throw` asks it whether that was taken back
        else:
            self.park.set_result(None)
        return 0

    def send(self, value):
        cdef PyObject* answer = NULL
        cdef int status = self.drive(<PyObject*>value, &answer)
        result = <object>answer
        Py_DECREF(result)
        if status == PYGEN_RETURN:
            raise StopIteration(result)
        return result

    def throw(self, kind, value=None, traceback=None):
        """Throw for the Task, which does so only to cancel or when a foreign awaitable failed."""
        cdef Driver outer = self.hub.running
        error = kind if value is None else value
        cancel = isinstance(error, CancelledError)
        if cancel and self.cancelled_itself and UNCANCEL_CLEARS and self.task is not None and not self.task.cancelling():
            return self.send(None)
        self.parked = False
        self.park = None
        self.cancelled_itself = False
        if self.outcome == RAISED:
            raise self.take_outcome()
        if self.outcome == RETURNED:     # as Task does when it is cancelled right before its coroutine stops
            self.take_outcome()
            raise error
        if self.outcome == YIELDED:
            pending = self.take_outcome()
            if cancel and pending is not None and pending.cancel(error.args[0] if error.args else None):
                return pending           # it ends as cancelled, or decides otherwise, and then wakes the Task
        if self.task is None:
            self.bind()
        self.hub.running = self
        try:
            result = self.coro.throw(error) if traceback is None else self.coro.throw(kind, value, traceback)
        except StopIteration:
            self.ended(None)
            raise
        except BaseException as failure:
            if self.ended(failure):
                raise StopIteration from None
            raise
        finally:
            self.hub.running = outer
        if result is self.park and result is not None:
            self.parked = True
            result._asyncio_future_blocking = True
        return result

    def close(self):
        self.parked = False
        self.coro.close()

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        """Replaced by `portico_next`."""

    def __getattr__(self, name):
        return getattr(self.coro, name)     # cr_frame, cr_code, __qualname__ and the like, for asyncio's debugging


cdef int driver_send(PyObject* self, PyObject* value, PyObject** answer) except -1:
    return (<Driver>self).drive(value, answer)


def driven(coro, on_done=None):
    """Wrap `coro` for `loop.create_task`; the running loop's hub then steps it without a loop turn per wait.

    `on_done(error)` is called as soon as the coroutine ends, with None where it ended well; a True that it returns
    says that the error is dealt with."""
    return Driver(hub_of(asyncio.get_running_loop()), coro, on_done)


portico_install_send(Wait, <void*>wait_send)
portico_install_send(Driver, <void*>driver_send)
