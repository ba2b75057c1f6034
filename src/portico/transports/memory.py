"""Servers in memory: `mem:name` within one event loop, without a socket."""

import asyncio
import contextvars
import errno
from collections.abc import Callable

from portico._core import Settings, Wire, hub_of, memory_wires
from portico.address import Address
from portico.errors import BindError
from portico.transports.connection import Stream

__all__ = ["MemoryListener", "dial_memory", "listen_memory"]


class MemoryListener:
    """A name that is listened on, until `close`."""

    def __init__(self, name: str, accepted: Callable[[Wire], object]) -> None:
        self.name = name
        self._accepted = accepted
        self._loop = asyncio.get_running_loop()
        self._context = contextvars.copy_context()

    def accept(self, wire: Wire) -> None:
        """Hand the server's end of a new pair on, in the loop's next turn and in the server's context."""
        self._loop.call_soon(self._hand_on, wire, context=self._context)

    def _hand_on(self, wire: Wire) -> None:
        if _names(self._loop).get(self.name) is self:
            self._accepted(wire)
        else:  # closed meanwhile: as a socket's backlog, it goes with the listener
            Stream(wire, Settings(), scheme="mem").abort()

    def close(self) -> None:
        """Give the name up; connections made through it stay. May be called twice."""
        names = _names(self._loop)
        if names.get(self.name) is self:
            del names[self.name]


def listen_memory(name: str, accepted: Callable[[Wire], object]) -> MemoryListener:
    """Call `accepted(wire)` for each connection to `mem:name` in this loop.

    :raises BindError: the name is taken."""
    names = _names(asyncio.get_running_loop())
    if name in names:
        taken = Address("mem", path=name)
        raise BindError(errno.EADDRINUSE, "address already in use", taken, hint="choose another name")
    listener = names[name] = MemoryListener(name, accepted)
    return listener


def dial_memory(name: str) -> Wire:
    """Connect to who listens on `mem:name` in this loop.

    :raises ConnectionRefusedError: nobody does."""
    loop = asyncio.get_running_loop()
    listener = _names(loop).get(name)
    if listener is None:
        raise ConnectionRefusedError(errno.ECONNREFUSED, "nobody listens on that name in this event loop")
    near, far = memory_wires(hub_of(loop))
    listener.accept(far)
    return near


def _names(loop: asyncio.AbstractEventLoop) -> dict[str, MemoryListener]:
    """The names that are listened on in `loop`: kept with it, so that both are collected together."""
    names: dict[str, MemoryListener] | None = getattr(loop, "_portico_memory_names", None)
    if names is None:
        names = {}
        loop._portico_memory_names = names  # type: ignore[attr-defined]
    return names
