"""`door.health`: whether a load balancer shall send clients here."""

import asyncio
import contextvars
import functools
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping

from portico.errors import ConfigurationError
from portico.server.listener_base import is_async
from portico.server.service import current_server
from portico.server.threads import Job, Threads
from portico.web.request import Request
from portico.web.response import Response

logger = logging.getLogger("portico.web")

Check = Callable[[], bool | Awaitable[bool | None] | None]
"""Returns False or raises where something is wrong. An async function, or a plain one, which runs in a thread."""

CHECK_TIMEOUT = 5.0
"""Seconds that the checks may take together (Kubernetes' probes wait 1 by default, HAProxy's 2)."""

MAX_THREADS = 4
"""Threads for checks that are plain functions; one that hangs keeps its own."""

_HEADERS = [("Cache-Control", "no-store")]


class Health:
    """Answers 200 "ok", or 503: "draining" as soon as a drain begins, or which checks have failed."""

    def __init__(self, checks: Mapping[str, Check] | Iterable[Check] = (), *, timeout: float = CHECK_TIMEOUT) -> None:
        """
        :param checks: functions, or functions by the name under which they are told; all run at each request.
        :param timeout: seconds (5) that they may take together; those that have not ended then have failed.
        :raises ConfigurationError: a check that cannot be called, two of one name, or no such timeout
        """
        self._checks: dict[str, Check] = {}
        for name, check in checks.items() if isinstance(checks, Mapping) else [(_name(each), each) for each in checks]:
            if name in self._checks:
                raise ConfigurationError(f"health: two checks are called {name!r}: give a mapping of names to checks")
            self._checks[name] = check
        if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not timeout > 0:
            raise ConfigurationError(f"health: timeout is seconds above 0, not {timeout!r}")
        self._timeout = timeout
        self._threads = Threads(MAX_THREADS)
        for name, check in self._checks.items():
            if not callable(check):
                raise ConfigurationError(f"health: the check {name!r} is a function, not {check!r}")

    async def __call__(self, request: Request) -> Response:
        """Answer a GET or HEAD."""
        server = current_server()
        if request.draining or (server is not None and server.leaving):
            return Response("draining\n", status=503, headers=_HEADERS)
        failed = await self._failed(request) if self._checks else []
        if failed:
            return Response(f"failed: {', '.join(failed)}\n", status=503, headers=_HEADERS)
        return Response("ok\n", headers=_HEADERS)

    async def _failed(self, request: Request) -> list[str]:
        """Run all checks side by side; return the names of those that fail."""
        request.draining.call(self._threads.close)
        results = await asyncio.gather(*(self._passes(*item) for item in self._checks.items()))
        return [name for name, passed in zip(self._checks, results, strict=True) if not passed]

    async def _passes(self, name: str, check: Check) -> bool:
        deadline = asyncio.timeout(self._timeout)
        try:
            async with deadline:
                passed = await (check() if is_async(check) else self._in_thread(check))  # type: ignore[misc]  # it is async
        except Exception as error:  # whatever it is, it is what the check is for
            told = f"it did not end within {self._timeout:g} seconds" if deadline.expired() else repr(error)
            logger.warning("health: the check %r failed: %s", name, told)
            return False
        return passed is None or bool(passed)

    async def _in_thread(self, check: Check) -> object:
        job = Job(functools.partial(contextvars.copy_context().run, check))
        self._threads.start(job)
        try:
            return await job.result
        finally:
            self._threads.take_back(job)


def _name(check: object) -> str:
    return getattr(check, "__name__", None) or type(check).__name__
