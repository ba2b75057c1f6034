"""`select`: which of many objects are ready, for threads."""

import asyncio
from collections.abc import Iterable
from typing import Any

from portico.blocking.loop import background
from portico.errors import ConfigurationError
from portico.interfaces import Pollable
from portico.transports.calls import Caller
from portico.transports.faces import BlockingFace
from portico.transports.poller import Events, Key, Poller, descriptor_of

__all__ = ["select"]

READABLE = Events.READABLE | Events.CLOSED | Events.ERROR
WRITABLE = Events.WRITABLE | Events.ERROR
EXCEPTIONAL = Events.PRIORITY | Events.ERROR


def select(
    readers: Iterable[Any], writers: Iterable[Any], errors: Iterable[Any], timeout: float | None = None
) -> tuple[list[Any], list[Any], list[Any]]:
    """Wait until something is ready. Return those of `readers` that are to be read, those of `writers` that have room,
    and those of `errors` that were lost by an error or have urgent data; three empty lists when `timeout` is over.

        readable, _, _ = blocking.select([stream, channel, sock, sys.stdin], [], [], timeout=5)

    As select.select does, for more: blocking connections, asynchronous ones in the loop of `portico.blocking`, sockets,
    anything with a `fileno()`, and raw descriptors. What is over is readable, as its end can be received; where it is
    not in `readers`, it is returned by the other lists.

    :param timeout: seconds, None (the default) waits for ever, 0 looks once.
    :raises ConfigurationError: an object that cannot be watched, is not open, or was closed meanwhile; objects of two
        event loops; a negative `timeout`; nothing to wait for, and no `timeout`
    :raises ClosedError: the event loop of a connection has ended"""
    given = tuple(list(each) for each in (readers, writers, errors))
    if timeout is not None and not timeout >= 0:
        raise ConfigurationError(f"timeout={timeout!r} must be 0 or more seconds, or None for no end")
    if timeout is None and not any(given):
        raise ConfigurationError("select() of nothing without a timeout would wait for ever")
    wanted: dict[object, Events] = {}
    objects: dict[object, Any] = {}
    for items, events in zip(given, (Events.READABLE, Events.WRITABLE, Events.PRIORITY), strict=True):
        for item in items:
            key = _key(item)
            objects.setdefault(key, item)
            wanted[key] = wanted.get(key, Events(0)) | events
    selection = _Selection(_loop_of(objects.values()))
    return _sorted(given, wanted, selection.keys(objects, wanted, timeout))


class _Selection(Caller):
    """One call, in the loop of what is watched."""

    def _whom(self) -> str:
        return "objects"

    def keys(self, objects: dict[object, Any], wanted: dict[object, Events], timeout: float | None) -> list[Key]:
        async def wait() -> list[Key]:
            kept = [key for key, item in objects.items() if Events.READABLE in wanted[key] and _has_kept(item)]
            with Poller() as poller:
                for key, item in objects.items():
                    poller.register(_target(item), wanted[key], data=key)
                found = await poller.wait(0 if kept else timeout)
            return found + [Key(None, Events.READABLE, key) for key in kept]

        return self._call(wait, doing="selecting from", once=True)


def _target(item: Any) -> Any:
    """Return what lives in the loop."""
    return item.connection if isinstance(item, BlockingFace) else item


def _has_kept(item: Any) -> bool:
    """Say whether there is something that came for a call that was given up."""
    return isinstance(item, BlockingFace) and bool(getattr(item, "_kept", None))


def _key(item: Any) -> object:
    """Tell apart what is watched: a descriptor is the same by whatever it is named."""
    if isinstance(item, BlockingFace | Pollable):
        return ("object", id(_target(item)))
    return item if isinstance(item, int) else descriptor_of(item)


def _loop_of(items: Iterable[Any]) -> asyncio.AbstractEventLoop:
    """Return the one event loop in which all of them live."""
    loops = set()
    for item in items:
        if isinstance(item, BlockingFace):
            item._check_process()
            loops.add(item._loop)
        elif isinstance(item, Pollable):
            loops.add(background().loop)
    if len(loops) > 1:
        raise ConfigurationError("select() is for objects of one event loop: these live in several")
    return loops.pop() if loops else background().loop


def _sorted(
    given: tuple[list[Any], ...], wanted: dict[object, Events], keys: list[Key]
) -> tuple[list[Any], list[Any], list[Any]]:
    """Distribute what is ready to the lists that asked for it."""
    seen: dict[object, Events] = {}
    for key in keys:
        if Events.INVALID in key.events:
            raise ConfigurationError(f"{key.object!r} was closed while select() waited for it")
        seen[key.data] = seen.get(key.data, Events(0)) | key.events
    for each, events in seen.items():
        if Events.READABLE not in wanted[each] and events & Events.CLOSED:
            seen[each] |= wanted[each] & (Events.WRITABLE | Events.PRIORITY)
    chosen = [
        [item for item in items if seen.get(_key(item), Events(0)) & mask]
        for items, mask in zip(given, (READABLE, WRITABLE, EXCEPTIONAL), strict=True)
    ]
    return chosen[0], chosen[1], chosen[2]
