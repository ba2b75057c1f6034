"""`Poller`: wait for whichever of many objects is ready, at a cost that does not grow with those that are not."""

import asyncio
import contextlib
import errno
import sys
from collections import deque
from types import TracebackType
from typing import Any, NamedTuple, Protocol, Self

from portico._core import Connection
from portico.errors import BusyError, ClosedError, ConfigurationError, describe
from portico.interfaces import Pollable
from portico.transports.calls import TURNS
from portico.transports.descriptors import DescriptorSet, descriptor_set, identity
from portico.transports.readiness import ALL_EVENTS, Events, unwatch, watch

__all__ = ["Events", "HasFileno", "Key", "Poller", "descriptor_of"]

INSPECTED = 32
"""Descriptors that are seen to be open still when none is ready: epoll(7) forgets one that is closed, and is silent."""

INSPECTION = 1.0
"""Seconds between looks at further descriptors while waiting."""

GONE = 64
"""Entries that are gone may stay in the queues while these hold at most three for each registered, and this many."""

LONGEST = 86400.0
"""Seconds that one timer of the loop runs; a longer wait takes several."""

_READABLE, _WRITABLE = Events.READABLE.value, Events.WRITABLE.value
_CLOSED, _ERROR = Events.CLOSED.value, Events.ERROR.value


class HasFileno(Protocol):
    """A socket, a file, or anything else that tells its descriptor."""

    def fileno(self) -> int: ...


class Key(NamedTuple):
    """One object that is ready."""

    object: Any
    """What was registered."""
    events: Events
    """What it is ready for: of what was wanted, and CLOSED, ERROR or INVALID."""
    data: Any
    """What was given with it."""


class _Entry:
    """One registration."""

    __slots__ = ("data", "is_gone", "is_noted", "poller", "target", "wanted")

    def __init__(self, poller: "Poller", target: Any, wanted: Events, data: Any) -> None:
        self.poller, self.target, self.wanted, self.data = poller, target, wanted, data
        self.is_noted = self.is_gone = False

    def note(self) -> None:
        """Have it looked at by the wait that goes on, or the next one."""
        if not self.is_noted:
            self.is_noted = True
            self.poller._noted.append(self)
            self.poller._wake()

    def look(self) -> int:
        """Say what it is ready for: a regular file for everything, as poll(2) says."""
        return self.wanted.value & (_READABLE | _WRITABLE)

    def leave(self) -> None:
        """Be told of nothing more."""

    def change(self, wanted: Events) -> None:
        self.wanted = wanted
        self.note()

    def key(self, seen: Events) -> Key:
        return Key(self.target, seen, self.data)


class _Watched(_Entry):
    """An object that tells when its readiness may have changed."""

    __slots__ = ()

    def look(self) -> int:
        target, wanted = self.target, self.wanted.value
        readable, writable = target.readiness
        seen = ((_READABLE if readable else 0) | (_WRITABLE if writable else 0)) & wanted
        if not isinstance(target, Connection):
            return seen
        reading, _, closing, lost = target.flags
        if closing or lost or target.successor is not None or (not reading and wanted & (_READABLE | _CLOSED)):
            seen |= _CLOSED
        return seen if target.cause is None else seen | _ERROR

    def leave(self) -> None:
        unwatch(self.target, self.note)


class _Descriptor(_Entry):
    """A raw descriptor, or an object that has one, in the set of its poller."""

    __slots__ = ("fd", "file")

    def __init__(self, poller: "Poller", target: Any, wanted: Events, data: Any, fd: int) -> None:
        super().__init__(poller, target, wanted, data)
        self.fd, self.file = fd, identity(fd)

    def is_valid(self) -> bool:
        """Say whether the number leads to the same file as it did."""
        try:
            return (self.target if isinstance(self.target, int) else self.target.fileno()) == self.fd and (
                identity(self.fd) == self.file
            )
        except (OSError, ValueError):  # ValueError: what a closed file answers
            return False

    def leave(self) -> None:
        del self.poller._descriptors[self.fd]
        self.poller._files.remove(self.fd)

    def change(self, wanted: Events) -> None:
        if not self.is_valid():
            raise ConfigurationError(f"{_name(self.target)} is no longer open: unregister it")
        self.poller._files.modify(self.fd, wanted)
        self.wanted = wanted
        self.poller._wake()


class Poller:
    """Waits until one of many objects is ready, and tells which: as select(2) does, at a cost of those that are ready.

        with portico.Poller() as poller:
            poller.register(stream, data="from afar")
            poller.register(sys.stdin, data="from here")
            for key in await poller.wait(timeout=5):
                print(key.data, key.events)

    Objects: Stream, Channel, Datagrams, or any other `Pollable` of this event loop; sockets, pipes and whatever else
    has a `fileno()`; raw descriptors. Each may be in several pollers. It is level-triggered: what is still ready is
    told again by the next wait. Closing the poller leaves the objects open.

    That a descriptor was closed is told once, as INVALID; it is no longer registered then. epoll(7) does not tell it,
    so a wait that finds nothing looks at 32 descriptors, and at the next 32 in each second that it lasts."""

    def __init__(self) -> None:
        try:
            self._loop = asyncio.get_running_loop()
        except RuntimeError:
            raise ConfigurationError(
                "a Poller is made in a running event loop; threads have portico.blocking.select"
            ) from None
        self._entries: dict[object, _Entry] = {}
        self._noted: deque[_Entry] = deque()  # those that may be ready
        self._descriptors: dict[int, _Descriptor] = {}
        self._round: deque[_Descriptor] = deque()  # those whose being open is looked at in turn
        self._made: DescriptorSet | None = None
        self._bell: asyncio.Future[None] | None = None
        self._is_waiting = self._is_closed = self._files_last = False

    @property
    def _files(self) -> DescriptorSet:
        if self._made is None:
            self._made = descriptor_set(self._loop, self._wake)
        return self._made

    # what is watched

    def register(
        self, target: Pollable | HasFileno | int, events: Events = Events.READABLE, data: object = None
    ) -> None:
        """Watch `target` for `events`; `data` comes back in its keys.

        :raises ConfigurationError: it is registered already, belongs to another event loop, or can tell of no readiness
        :raises UnsupportedError: a descriptor, in an event loop that cannot watch any
        :raises ClosedError: the poller is closed"""
        self._check_open()
        _check_events(events)
        if target in self:
            raise ConfigurationError(f"{_name(target)} is registered already: use modify()")
        if isinstance(target, Pollable):
            if isinstance(target, Connection) and target.hub.loop is not self._loop:
                raise ConfigurationError(f"{target!r} belongs to another event loop than the poller")
            entry: _Entry = _Watched(self, target, events, data)
            watch(target, entry.note)
        else:
            entry = self._add_descriptor(target, events, data)
        self._entries[_key(target)] = entry
        if not isinstance(entry, _Descriptor):
            entry.note()

    def _add_descriptor(self, target: HasFileno | int, events: Events, data: object) -> _Entry:
        fd = descriptor_of(target)
        if fd in self._descriptors:
            other = self._descriptors[fd]
            if other.is_valid():
                raise ConfigurationError(f"descriptor {fd} is registered already, by {_name(other.target)}")
            self.unregister(other.target)
        try:
            entry = _Descriptor(self, target, events, data, fd)
            self._files.add(fd, events)
        except OSError as error:
            if error.errno == errno.EPERM:
                return _Entry(self, target, events, data)
            if error.errno == errno.EBADF:
                raise ConfigurationError(f"{_name(target)} is not open") from error
            raise ConfigurationError(f"{_name(target)} cannot be watched: {describe(error)}") from error
        self._descriptors[fd] = entry
        self._round.append(entry)
        self._wake()
        return entry

    def modify(self, target: Pollable | HasFileno | int, events: Events, data: object = ...) -> None:
        """Watch `target` for other `events`, with other `data` where it is given.

        :raises ConfigurationError: it is not registered"""
        _check_events(events)
        entry = self._entries.get(_key(target))
        if entry is None:
            raise ConfigurationError(f"{_name(target)} is not registered: use register()")
        entry.change(events)
        if data is not ...:
            entry.data = data

    def unregister(self, target: Pollable | HasFileno | int) -> None:
        """Watch `target` no more. It may be closed by then; what is not registered changes nothing."""
        entry = self._entries.pop(_key(target), None)
        if entry is not None:
            entry.is_gone = True
            entry.leave()
            if len(self._noted) + len(self._round) > 3 * len(self._entries) + GONE:
                self._noted = deque(each for each in self._noted if not each.is_gone)
                self._round = deque(each for each in self._round if not each.is_gone)

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, target: object) -> bool:
        return _key(target) in self._entries

    # waiting

    async def wait(self, timeout: float | None = None, *, max_keys: int | None = None) -> list[Key]:
        """Wait until something is ready, and return a key for each object that is; none when `timeout` is over.

        The loop goes round at least once, so that what makes objects ready gets its share. Cancelled, it loses nothing:
        the next wait tells the same.

        :param timeout: seconds, None (the default) for no end; 0 just looks.
        :param max_keys: the most keys to return; those that are left out come first the next time.
        :raises BusyError: another task waits here
        :raises ConfigurationError: a negative `timeout`, a `max_keys` below 1, another event loop
        :raises ClosedError: the poller is closed, or was while waiting"""
        self._check_wait(timeout, max_keys)
        self._is_waiting = True
        try:
            due = None if timeout is None else self._loop.time() + timeout
            for _ in range(TURNS if timeout == 0 else 1):
                await asyncio.sleep(0)
            while True:
                self._check_open()
                if keys := self._look(max_keys or sys.maxsize) or self._inspect(INSPECTED):
                    return keys
                if due is not None and self._loop.time() >= due:
                    return []
                await self._sleep(due)
        finally:
            self._is_waiting = False

    def _check_wait(self, timeout: float | None, max_keys: int | None) -> None:
        self._check_open()
        if timeout is not None and not timeout >= 0:
            raise ConfigurationError(f"timeout={timeout!r} must be 0 or more seconds, or None for no end")
        if max_keys is not None and max_keys < 1:
            raise ConfigurationError(f"max_keys={max_keys!r} must be at least 1, or None for all")
        if asyncio.get_running_loop() is not self._loop:
            raise ConfigurationError("the poller belongs to another event loop")
        if self._is_waiting:
            raise BusyError("another task waits with this poller: use one poller for each")

    def _check_open(self) -> None:
        if self._is_closed:
            raise ClosedError("the poller is closed", clean=True)

    async def _sleep(self, due: float | None) -> None:
        """Wait until something may be ready, or it is time to look anyway."""
        delay = LONGEST if due is None else min(LONGEST, max(due - self._loop.time(), 0))
        if self._round:
            delay = min(delay, INSPECTION)
        self._bell = self._loop.create_future()
        if self._made is not None:
            self._made.arm()
        timer = None if due is None and delay == LONGEST else self._loop.call_later(delay, self._wake)
        try:
            await self._bell
        finally:
            self._bell = None
            if timer is not None:
                timer.cancel()

    def _wake(self) -> None:
        if self._bell is not None and not self._bell.done():
            self._bell.set_result(None)

    # looking

    def _look(self, most: int) -> list[Key]:
        """Return the keys of what is ready; which kind comes first changes each time, so that neither starves."""
        keys: list[Key] = []
        looks = [self._look_at_descriptors, self._look_at_noted]
        if self._files_last:
            looks.reverse()
        self._files_last = not self._files_last
        for look in looks:
            look(keys, most)
        return keys

    def _look_at_noted(self, keys: list[Key], most: int) -> None:
        for _ in range(len(self._noted)):
            if len(keys) >= most:
                return
            entry = self._noted.popleft()
            if entry.is_gone:
                continue
            seen = entry.look()
            if seen:
                keys.append(entry.key(ALL_EVENTS[seen]))
                self._noted.append(entry)  # behind all others
            else:
                entry.is_noted = False

    def _look_at_descriptors(self, keys: list[Key], most: int) -> None:
        if self._round and len(keys) < most:
            keys += self._inspect(1)
        if self._descriptors and len(keys) < most:
            for fd, seen in self._files.ready(most - len(keys)):
                entry = self._descriptors[fd]
                keys.append(entry.key(seen) if entry.is_valid() else self._end(entry))

    def _inspect(self, most: int) -> list[Key]:
        """Return the key of one descriptor that is no longer open, if there is one among so many that are next."""
        for _ in range(min(most, len(self._round))):
            entry = self._round.popleft()
            if entry.is_gone:
                continue
            if not entry.is_valid():
                return [self._end(entry)]
            self._round.append(entry)
        return []

    def _end(self, entry: _Descriptor) -> Key:
        """Tell once that a descriptor is closed: whatever gets its number next is something else."""
        self.unregister(entry.target)
        return entry.key(Events.CLOSED | Events.INVALID)

    # the end

    def close(self) -> None:
        """Watch nothing any more; the objects stay as they are. A task that waits gets ClosedError."""
        if self._is_closed:
            return
        self._is_closed = True
        for entry in list(self._entries.values()):
            self.unregister(entry.target)
        self._noted.clear()
        self._round.clear()
        if self._made is not None:
            self._made.close()
        self._wake()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Poller {'closed' if self._is_closed else f'of {len(self)}'}>"


def _key(target: object) -> object:
    """Tell objects apart by themselves, and descriptors by their numbers."""
    return target if isinstance(target, int) else ("object", id(target))


def _check_events(events: object) -> None:
    if not isinstance(events, Events):
        raise ConfigurationError(
            f"events={events!r} must be of portico.Events, such as Events.READABLE | Events.WRITABLE"
        )


def _name(target: object) -> str:
    return f"descriptor {target}" if isinstance(target, int) else repr(target)


def descriptor_of(target: Any) -> int:
    """Return the descriptor of `target`.

    :raises ConfigurationError: it has none"""
    fd = target
    if not isinstance(target, int):
        if isinstance(getattr(target, "connection", None), Connection):
            raise ConfigurationError(
                f"{target!r} is for threads: use portico.blocking.select, or register its `connection` in its loop"
            )
        if not hasattr(target, "fileno"):
            raise ConfigurationError(
                f"{target!r} cannot be watched: it has neither `readiness` and `watch` nor `fileno`"
            )
        fd = -1
        with contextlib.suppress(OSError, ValueError):
            fd = target.fileno()
    if fd < 0:
        raise ConfigurationError(f"{_name(target)} is not open")
    return int(fd)
