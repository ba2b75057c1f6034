"""What a door allows its clients, the one timer that holds them to it, and what ends a wait for nothing."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, fields
from math import inf

from portico.errors import ConfigurationError
from portico.protocols.http11 import MAX_HEAD, MAX_HEADERS


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """The limits of a door, in seconds and bytes.

    :raises ConfigurationError: a value that cannot work"""

    max_head: int = MAX_HEAD
    max_headers: int = MAX_HEADERS

    max_body: int = 1 << 20
    """Bytes of a request's body (nginx's client_max_body_size: 1 MiB)."""

    head_timeout: float = 10.0
    """From the first byte of a head to its last, however they come (nginx's client_header_timeout: 60; Apache's
    mod_reqtimeout: 20 to 40); the first head counts from when the connection began."""

    body_timeout: float = 30.0
    """Between two pieces of a body that is waited for (nginx's client_body_timeout: 60)."""

    body_rate: float = 500.0
    """Bytes a second that a body must come with after `body_timeout` (mod_reqtimeout: body=20,MinRate=500)."""

    keep_alive: float = 75.0
    """Until the next request (nginx's keepalive_timeout: 75)."""

    max_requests: int | None = None
    """On one connection, which then closes; None: any number (Node's maxRequestsPerSocket; nginx: 1000)."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is None and field.name == "max_requests":
                continue
            whole = field.type is not float
            if isinstance(value, bool) or not isinstance(value, int if whole else int | float) or not value > 0:
                kind = "whole number" if whole else "number"
                raise ConfigurationError(f"Door: {field.name} must be a {kind} above 0, not {value!r}")


def check_max_body(size: object) -> None:
    """:raises ConfigurationError: no size of a body that a route may have, nor None"""
    if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 0):
        raise ConfigurationError(f"max_body must be a whole number of bytes, at least 0, not {size!r}")


class Deadline:
    """One timer whose time may be moved often at little cost: later times are noticed when the timer rings."""

    __slots__ = ("_expire", "_loop", "_rings", "_timer", "due")

    def __init__(self, expire: Callable[[], object]) -> None:
        self.due = inf
        """When `expire` is called; `inf`: never."""
        self._expire: Callable[[], object] | None = expire
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._rings = inf

    def now(self) -> float:
        """Return the time of the loop."""
        return self._loop.time()

    def set(self, due: float) -> None:
        """Let `expire` be called at `due`, and not before."""
        self.due = due
        if due < self._rings:
            if self._timer is not None:
                self._timer.cancel()
            self._rings = due
            self._timer = self._loop.call_at(due, self._ring)

    def close(self) -> None:
        """Never call it again."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._expire = None

    def _ring(self) -> None:
        due, self._rings, self._timer = self.due, inf, None
        if due > self._loop.time() + 0.001:  # uvloop's timers count milliseconds, and may be early
            if due != inf:
                self.set(due)
        elif self._expire is not None:
            self.due = inf
            self._expire()


class Cut:
    """Cancels what the task that made it waits for, when it is asked to; `take_back` afterwards, as asyncio.timeout
    does, so that the task goes on."""

    __slots__ = ("_asked", "_done", "_task")

    def __init__(self) -> None:
        self._task = asyncio.current_task()
        self._asked = self._done = False

    def ask(self) -> None:
        """Cancel it soon; may be called at any time, within the task, too."""
        if not self._asked:
            self._asked = True
            asyncio.get_running_loop().call_soon(self._cancel)

    def ask_while(self, still: Callable[[], bool]) -> None:
        """Cancel it soon, if `still()` says yes then."""
        asyncio.get_running_loop().call_soon(self._cancel_while, still)

    def _cancel_while(self, still: Callable[[], bool]) -> None:
        if not self._asked and still():
            self._asked = True
            self._cancel()

    def _cancel(self) -> None:
        if self._task is not None:  # it waits then
            self._done = True
            self._task.cancel()

    def take_back(self) -> bool:
        """Let the task be; say whether it was cancelled by this and by nobody else. A second call does nothing."""
        task, self._task = self._task, None
        return task is not None and self._done and task.uncancel() == 0


def is_cancelled() -> bool:
    """Whether the task at hand was asked to end; else a CancelledError is that of something which it waited for."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0
