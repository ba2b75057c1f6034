"""What every listener has: settings, counters, admission, and starting handlers."""

import asyncio
import contextvars
import functools
import inspect
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from portico._core import Hub, Settings, driven, hub_of
from portico.address import Address
from portico.server.admission import Admission
from portico.server.session import Session
from portico.server.spec import ListenerSpec
from portico.server.stats import Stats
from portico.server.threads import ThreadedHandler
from portico.transports.connection import Channel, Signal, Stream

if TYPE_CHECKING:
    from portico.interfaces import Resolver


def is_async(handler: Any) -> bool:
    """Say whether calling `handler` gives something to await."""
    while isinstance(handler, functools.partial):
        handler = handler.func
    return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(getattr(handler, "__call__", None))  # noqa: B004  # not whether it can be called


class ListenerBase:
    """A `ListenerSpec` at work; subclasses say how connections come about."""

    def __init__(self, spec: ListenerSpec, draining: Signal, changed: Callable[[], None]) -> None:
        self.spec, self.draining, self.changed = spec, draining, changed
        self.settings: Settings = spec.limits.settings()
        self._stats = Stats(_sources=[self.settings])
        self.admission = Admission(spec.limits, self._stats, spec.allow, spec.deny)
        self.sessions: set[Session] = set()
        self.scheme = "tls" if spec.tls is not None and spec.address.scheme == "tcp" else spec.address.scheme
        self._context = contextvars.copy_context()
        self._hub: Hub = hub_of(asyncio.get_running_loop())
        self._serve: Callable[[Any], Awaitable[object]] = spec.handler  # type: ignore[assignment]  # a plain function is wrapped below
        if not is_async(spec.handler):
            self._serve = ThreadedHandler(spec.handler, spec.limits.max_threads)

    @property
    def stats(self) -> Stats:
        """The counters of this listener."""
        return self._stats

    @property
    def addresses(self) -> list[Address]:
        """All the addresses that it listens on."""
        raise NotImplementedError

    @property
    def address(self) -> Address:
        """Where it listens, with the port that port 0 became."""
        bound = self.addresses
        return bound[0] if bound else self.spec.name

    async def start(self, resolver: "Resolver | None") -> None:
        """Listen, but let nobody in before `accept`.

        :raises BindError: the address cannot be had
        :raises ResolveError: its name is unknown"""
        raise NotImplementedError

    def accept(self) -> None:
        """Begin to let connections in."""
        raise NotImplementedError

    def close(self) -> None:
        """Let nobody in any more; connections stay."""
        raise NotImplementedError

    def drain(self) -> None:
        """Let handlers come to an end that nothing else would bring there."""

    def stop_threads(self) -> None:
        """Let the threads of plain handlers end when there is nothing more to do."""
        if isinstance(self._serve, ThreadedHandler):
            self._serve.close()

    def enter(self, host: bytes) -> Session:
        """Count a connection that is let in."""
        session = Session(self, host)
        self.sessions.add(session)
        self._stats.open += 1
        return session

    def serve(self, connection: Stream | Channel[Any], session: Session) -> None:
        """Start the handler of `connection`, which has come through everything before it."""
        session.connection = connection
        try:
            coro: Any = self._serve(connection)
        except Exception as error:  # it does not take one argument
            session.done(error)
            return
        session.task = self._hub.loop.create_task(driven(coro, session.done), context=self._context.copy())

    def place_freed(self) -> None:
        """One more may come in."""

    def left(self, session: Session) -> None:
        """The connection of `session` is over; its place is free."""
        self._stats.open -= 1
        self._stats.closed += 1
        if session.host:
            self.admission.release(session.host)
        self.place_freed()

    def ended(self, session: Session) -> None:
        """Connection and handler of `session` are both over."""
        self.sessions.discard(session)
        self.changed()
