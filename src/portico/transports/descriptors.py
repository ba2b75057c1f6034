"""Sets of raw descriptors whose readiness wakes an event loop, and costs it nothing while nobody waits."""

import asyncio
import os
import select
from collections.abc import Callable
from typing import Protocol

from portico.errors import UnsupportedError
from portico.transports.readiness import Events, from_poll, to_poll

__all__ = ["DescriptorSet", "EpollSet", "LoopSet", "descriptor_set", "identity"]


class DescriptorSet(Protocol):
    """Descriptors, each once, and what is wanted of each; `add` raises OSError for what cannot be watched."""

    def add(self, fd: int, wanted: Events) -> None: ...
    def modify(self, fd: int, wanted: Events) -> None: ...
    def remove(self, fd: int) -> None: ...
    def ready(self, most: int) -> list[tuple[int, Events]]:
        """Return what is ready now, at most so many, and others the next time."""
        ...

    def arm(self) -> None:
        """Wake the waiter once when something becomes ready; called when nothing is."""
        ...

    def close(self) -> None: ...


def identity(fd: int) -> tuple[int, int]:
    """Tell which file `fd` leads to, as far as fstat(2) tells files apart.

    :raises OSError: it is not open"""
    found = os.fstat(fd)
    return found.st_dev, found.st_ino


def descriptor_set(loop: asyncio.AbstractEventLoop, wake: Callable[[], object]) -> DescriptorSet:
    """Return a set for this platform; `wake()` is called in the loop."""
    return EpollSet(loop, wake) if hasattr(select, "epoll") else LoopSet(loop, wake)


class EpollSet:
    """An epoll(7) set of its own, of which the loop watches one descriptor."""

    def __init__(self, loop: asyncio.AbstractEventLoop, wake: Callable[[], object]) -> None:
        self._loop, self._wake = loop, wake
        self._wanted: dict[int, Events] = {}
        self._suspects: set[int] = set()
        """Numbers that were closed before they were taken out: their file is still in the set if it has a duplicate."""
        self._epoll = select.epoll()
        self._armed = False

    def add(self, fd: int, wanted: Events) -> None:
        try:
            self._epoll.register(fd, to_poll(wanted))
        except FileExistsError:  # it was closed before it was taken out, and has come back
            self._epoll.modify(fd, to_poll(wanted))
        self._wanted[fd] = wanted

    def modify(self, fd: int, wanted: Events) -> None:
        self._epoll.modify(fd, to_poll(wanted))
        self._wanted[fd] = wanted

    def remove(self, fd: int) -> None:
        del self._wanted[fd]
        try:
            self._epoll.unregister(fd)
        except OSError:
            self._suspects.add(fd)

    def ready(self, most: int) -> list[tuple[int, Events]]:
        if not self._wanted:
            return []
        found = self._epoll.poll(0, min(most, len(self._wanted) + len(self._suspects)))
        if self._suspects and any(fd in self._suspects and not self._is_ready(fd) for fd, _ in found):
            self._rebuild()
            found = self._epoll.poll(0, min(most, len(self._wanted) or 1))
        return [(fd, from_poll(mask, self._wanted[fd])) for fd, mask in found]

    def _is_ready(self, fd: int) -> bool:
        """Say whether what the set tells of `fd` is true of the file that has this number now."""
        wanted = self._wanted.get(fd)
        return wanted is not None and _polled(fd, wanted) != 0

    def _rebuild(self) -> None:
        """Begin anew, for epoll_ctl(2) cannot take out what has no number here any more."""
        self._disarm()
        self._epoll.close()
        self._epoll = select.epoll()
        self._suspects.clear()
        for fd, wanted in self._wanted.items():
            try:
                self._epoll.register(fd, to_poll(wanted))
            except OSError:  # closed meanwhile
                continue

    def arm(self) -> None:
        if not self._armed and self._wanted:
            self._loop.add_reader(self._epoll.fileno(), self._tell)
            self._armed = True

    def _disarm(self) -> None:
        if self._armed:
            self._armed = False
            self._loop.remove_reader(self._epoll.fileno())

    def _tell(self) -> None:
        self._disarm()
        self._wake()

    def close(self) -> None:
        if not self._loop.is_closed():
            self._disarm()
        self._epoll.close()


class LoopSet:
    """Descriptors that the loop watches itself, each until it was ready once.

    It is given duplicates: libuv ends the program over a descriptor that was closed, and the user may have the loop
    watch the original."""

    def __init__(self, loop: asyncio.AbstractEventLoop, wake: Callable[[], object]) -> None:
        self._loop, self._wake = loop, wake
        self._wanted: dict[int, Events] = {}
        self._noted: dict[int, None] = {}  # may be ready; the first was looked at longest ago
        self._duplicates: dict[int, int] = {}
        self._resting: set[int] = set()  # were not, and the loop does not watch them

    def add(self, fd: int, wanted: Events) -> None:
        self._watch(fd, wanted)
        self._wanted[fd] = wanted

    def modify(self, fd: int, wanted: Events) -> None:
        self.remove(fd)
        self.add(fd, wanted)

    def remove(self, fd: int) -> None:
        self._unwatch(fd)
        del self._wanted[fd]
        self._noted.pop(fd, None)
        self._resting.discard(fd)

    def _watch(self, fd: int, wanted: Events) -> None:
        duplicate = self._duplicates[fd] = os.dup(fd)
        try:
            if Events.READABLE in wanted or Events.CLOSED in wanted:
                self._loop.add_reader(duplicate, self._note, fd)
            if Events.WRITABLE in wanted:
                self._loop.add_writer(duplicate, self._note, fd)
        except BaseException as error:
            os.close(self._duplicates.pop(fd))
            if isinstance(error, NotImplementedError):
                raise UnsupportedError(
                    "this event loop cannot watch descriptors: use asyncio.SelectorEventLoop"
                ) from None
            raise

    def _unwatch(self, fd: int) -> None:
        duplicate = self._duplicates.pop(fd, -1)
        if duplicate < 0:
            return
        if not self._loop.is_closed():
            self._loop.remove_reader(duplicate)
            self._loop.remove_writer(duplicate)
        os.close(duplicate)

    def _note(self, fd: int) -> None:
        self._unwatch(fd)
        self._noted[fd] = None
        self._wake()

    def ready(self, most: int) -> list[tuple[int, Events]]:
        found: list[tuple[int, Events]] = []
        for _ in range(len(self._noted)):
            if len(found) == most:
                break
            fd = next(iter(self._noted))
            del self._noted[fd]
            mask = _polled(fd, self._wanted[fd])
            if mask:
                found.append((fd, from_poll(mask, self._wanted[fd])))
                self._noted[fd] = None
            else:
                self._resting.add(fd)
        return found

    def arm(self) -> None:
        while self._resting:
            fd = self._resting.pop()
            try:
                self._watch(fd, self._wanted[fd])
            except OSError:  # closed meanwhile: looking at it tells
                self._note(fd)

    def close(self) -> None:
        for fd in list(self._wanted):
            self.remove(fd)


def _polled(fd: int, wanted: Events) -> int:
    one = select.poll()
    one.register(fd, to_poll(wanted))
    return sum(mask for _, mask in one.poll(0))
