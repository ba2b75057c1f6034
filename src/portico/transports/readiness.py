"""What can be ready, in words of poll(2), and how several may watch one object."""

import enum
import select
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

if TYPE_CHECKING:
    from portico.interfaces import Pollable

__all__ = ["ALL_EVENTS", "Events", "from_poll", "to_poll", "unwatch", "watch"]


class Events(enum.Flag):
    """What is wanted of an object, and what is there. CLOSED, ERROR and INVALID are told without being asked for."""

    READABLE = 1
    """Receiving answers at once: with something, the end, or an error (POLLIN)."""
    WRITABLE = 2
    """Sending answers at once: there is room, or it raises (POLLOUT)."""
    PRIORITY = 4
    """Urgent data, or another exceptional condition of a descriptor (POLLPRI)."""
    CLOSED = 8
    """The connection is over or closing (POLLHUP); where READABLE or CLOSED is wanted also: the peer has ended its side
    (POLLRDHUP), and what came before can still be received."""
    ERROR = 16
    """It was lost: receiving tells why, and sending, too (POLLERR)."""
    INVALID = 32
    """The descriptor is no longer open, or its number belongs to another file now (POLLNVAL)."""


ALL_EVENTS = [Events(number) for number in range(64)]
"""Every combination at the place of its number: making one takes a hundred times as long."""

POLLIN, POLLPRI, POLLOUT, POLLERR, POLLHUP, POLLNVAL = 1, 2, 4, 8, 16, 32  # on every Unix, and of epoll(7), too
POLLRDHUP = getattr(select, "POLLRDHUP", 0)  # Linux only

_POLLED = {
    Events.READABLE: POLLIN | POLLRDHUP,
    Events.WRITABLE: POLLOUT,
    Events.PRIORITY: POLLPRI,
    Events.CLOSED: POLLRDHUP,
}
_TOLD = {
    POLLIN: Events.READABLE,
    POLLOUT: Events.WRITABLE,
    POLLPRI: Events.PRIORITY,
    POLLRDHUP: Events.CLOSED,
    POLLHUP: Events.CLOSED,
    POLLERR: Events.ERROR,
    POLLNVAL: Events.CLOSED | Events.INVALID,
}


@cache
def to_poll(wanted: Events) -> int:
    """Return the bits of poll(2), which are those of epoll(7), that ask for `wanted`."""
    mask = 0
    for event, bits in _POLLED.items():
        if event in wanted:
            mask |= bits
    return mask


@cache
def from_poll(mask: int, wanted: Events) -> Events:
    """Return what `mask` tells somebody who asked for `wanted`: what is over can be read without a wait."""
    seen = Events(0)
    for bit, event in _TOLD.items():
        if mask & bit:
            seen |= event
    if seen & (Events.CLOSED | Events.ERROR):
        seen |= wanted & Events.READABLE
    if seen & Events.ERROR:
        seen |= wanted & Events.WRITABLE
    return seen


class _Watch:
    """The one watcher of an object, which tells everybody."""

    __slots__ = ("__weakref__", "callbacks")

    def __init__(self) -> None:
        self.callbacks: tuple[Callable[[], object], ...] = ()

    def __call__(self) -> None:
        for callback in self.callbacks:
            callback()


_watches: WeakValueDictionary[int, _Watch] = WeakValueDictionary()  # by id(object); the object holds its own


def watch(target: "Pollable", callback: Callable[[], object]) -> None:
    """Have `callback()` called, too, when the readiness of `target` may have changed."""
    found = _watches.get(id(target))
    if found is None:
        found = _watches[id(target)] = _Watch()
        target.watch(found)
    found.callbacks += (callback,)


def unwatch(target: "Pollable", callback: Callable[[], object]) -> None:
    """Take `callback` back."""
    found = _watches.get(id(target))
    if found is None:
        return
    found.callbacks = tuple(each for each in found.callbacks if each != callback)
    if not found.callbacks:
        del _watches[id(target)]
        target.watch(None)
