"""Fan-out: one message for many channels, encoded once per codec, which never waits for a slow member."""

import asyncio
import logging
from collections.abc import Callable, Collection, Hashable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self

from portico._core import ChannelBase, Codec, send_all
from portico.errors import ClosedError, ConfigurationError, LimitError, PorticoError
from portico.server.group_policy import NOTHING, POLICIES, GroupStats, Pending, Policy, pending_for
from portico.transports.connection import Channel

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    T = TypeVar("T", default=Any)
else:
    from typing import TypeVar

    T = TypeVar("T")

__all__ = ["Group", "GroupStats", "Membership", "Policy"]

MAX_PENDING = 256
"""Messages that may wait for a slow member (libzmq: 1000 a peer)."""

MAX_PENDING_BYTES = 256 * 1024
"""Bytes that may wait for a slow member, four times what waits in its connection by default (Redis: 8 to 32 MiB)."""

NATIVE = "portico._core."
"""Where the codecs are whose `repr` says all that there is to know of them."""

log = logging.getLogger("portico.server")

_current_loop = asyncio._get_running_loop


class Group(Generic[T]):
    """Channels that hear the same messages: a chat room, a topic, a price feed.

    A message is encoded once for all members with equal codecs, and the same bytes go to each of them. `send` never
    waits: a member that does not read fast enough falls under the `policy`, and the others do not notice. A group
    belongs to the event loop of its members; it may be made anywhere, outside of a loop, too.

    Memory is bounded: a member has at most `send_buffer` bytes of its connection's limits (and one message more)
    waiting to leave, and `max_pending_bytes` here."""

    def __init__(
        self,
        name: str = "",
        *,
        policy: Policy = "drop-new",
        max_pending: int = MAX_PENDING,
        max_pending_bytes: int = MAX_PENDING_BYTES,
        notice: Callable[[int], T] | None = None,
    ) -> None:
        """Make an empty group.

        :param name: for logs and `repr`.
        :param policy: what happens to messages for a member over its high-water mark: `drop-new`, `drop-old`, `latest`
            or `close`; see `Policy`.
        :param max_pending: messages that may wait for one slow member (`drop-old`, `latest`).
        :param max_pending_bytes: bytes that may wait for one slow member; a message that is larger is dropped.
        :param notice: makes the message that tells a member how many it missed. It is sent once per gap, as soon as the
            member has room again and before what follows.
        :raises ConfigurationError: a setting that cannot work."""
        if max_pending < 1 or max_pending_bytes < 1:
            raise ConfigurationError("Group: max_pending and max_pending_bytes must be at least 1")
        self.name = name
        self.policy = _checked(policy)
        self.max_pending, self.max_pending_bytes = max_pending, max_pending_bytes
        self.notice = notice
        self.stats = GroupStats()
        self._members: dict[Channel[T], Membership[T]] = {}
        self._audiences: dict[Hashable, _Audience] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    # members

    def join(self, channel: Channel[T], *, policy: Policy | None = None) -> "Membership[T]":
        """Return a membership for `async with`: the channel is a member inside of the block, until it is lost.

        :param policy: that of this member; default: the group's.
        :raises ConfigurationError: there is no such policy, or (when entered) the channel is a member already.
        :raises ClosedError: (when entered) the channel can send no more."""
        return Membership(self, _checked_channel(channel), self.policy if policy is None else _checked(policy))

    def add(self, channel: Channel[T], *, policy: Policy | None = None) -> "Membership[T]":
        """Make `channel` a member until `discard`, or until it is lost; one that is a member stays as it is.

        :param policy: that of this member; default: the group's.
        :raises ConfigurationError: there is no such policy.
        :raises ClosedError: the channel can send no more."""
        return self._members.get(channel) or self.join(channel, policy=policy).enter()

    def discard(self, channel: Channel[T]) -> None:
        """Let `channel` be no member any more; what waits for it is dropped. No error if it is none."""
        membership = self._members.get(channel)
        if membership is not None:
            membership.leave()

    def __len__(self) -> int:
        return len(self._members)

    def __contains__(self, channel: object) -> bool:
        return channel in self._members

    def __iter__(self) -> Iterator[Channel[T]]:
        """Iterate over those who are members now, in the order in which they came."""
        return iter(tuple(self._members))

    def __repr__(self) -> str:
        name = f" {self.name!r}" if self.name else ""
        return f"<Group{name}: {len(self)} members>"

    # sending

    def send(self, message: T, *, skip: Channel[T] | Collection[Channel[T]] | None = None, key: Hashable = None) -> int:
        """Hand `message` to every member that has room; it leaves at the end of the loop's turn.

        Never waits, and no member's trouble is the caller's. Order is kept for each member.

        :param skip: the member, or the members, that shall not get it.
        :param key: what the message is about, for the policy `latest`; messages without one have the same.
        :returns: how many members it was handed to; those for whom it waits are not counted.
        :raises MessageTooLarge: it is over the `max_size` of a member's codec; nobody got it then.
        :raises ProtocolError: the codec of a member cannot tell it from another message; nobody got it then.
        :raises TypeError: the codec of a member does not send what it is; nobody got it then.
        :raises RuntimeError: the members belong to another event loop or thread."""
        if self._loop is not _current_loop() and self._members:
            self._check_loop()
        frames = [(audience, _frame(audience.codec, message)) for audience in list(self._audiences.values())]
        skipped: Collection[Any] = ()
        if skip is not None:
            skipped = (skip,) if isinstance(skip, ChannelBase) else frozenset(skip)
        hash(key)  # raises what a slow member would have to, later
        handed = 0
        for audience, frame in frames:
            handed += self._send_frame(audience, frame, skipped, key)
        self.stats.sent += 1
        self.stats.delivered += handed
        return handed

    def _send_frame(self, audience: "_Audience", frame: bytes, skipped: Collection[Any], key: Hashable) -> int:
        """Send to the members of one audience, return how many it was handed to."""
        behind = list(audience.behind.values()) if audience.behind else ()
        channels, skip, handed = audience.channels, None, len(audience.channels)
        audience.sent += 1
        for channel in skipped:
            membership = self._members.get(channel)
            if membership is not None and membership._audience is audience and membership._place >= 0:
                membership._uncounted += 1
                handed -= 1
                skip = channel
        if skip is not None and handed < len(channels) - 1:
            channels = [channel for channel in channels if channel not in skipped]
        for channel in send_all(channels, frame, skip):
            membership = self._members.get(channel)
            if membership is not None and not membership._retry(frame):
                membership._uncounted += 1
                handed -= 1
                membership._refuse(frame, key)
        for membership in behind:
            if membership.channel not in skipped:
                membership._hold(frame, key)
        return handed

    def _check_loop(self) -> None:
        """Raise if the group belongs elsewhere; one whose loop is closed starts anew."""
        if self._loop is not None and self._loop.is_closed():
            for membership in list(self._members.values()):
                membership.leave()
        elif self._members:
            raise RuntimeError(
                f"{self!r} belongs to the event loop of its members; use one group per loop, and from other threads "
                "loop.call_soon_threadsafe(group.send, message)"
            )


class Membership(Generic[T]):
    """One channel's part in a group, with what it got and what it missed."""

    __slots__ = (
        "_audience",
        "_before",
        "_pending",
        "_place",
        "_start",
        "_task",
        "_uncounted",
        "channel",
        "dropped",
        "group",
        "missed",
        "policy",
        "reason",
    )

    def __init__(self, group: Group[T], channel: Channel[T], policy: Policy) -> None:
        self.group, self.channel, self.policy = group, channel, policy
        self.dropped = 0
        """Messages that this member missed since it joined."""
        self.missed = 0
        """Messages that it missed and was not told about yet: the gap it is in now."""
        self.reason = ""
        """Why the group closed the channel, by the policy `close`."""
        self._audience: _Audience | None = None  # None: no member
        self._place = -1  # in the list of those who keep up; -1: it is behind
        self._start = self._before = self._uncounted = 0
        self._pending: Pending = NOTHING
        self._task: asyncio.Task[None] | None = None

    @property
    def active(self) -> bool:
        """Whether the channel is a member by this membership now."""
        return self._audience is not None

    @property
    def sent(self) -> int:
        """Messages that were handed over to this member since it joined."""
        counted = self._audience.sent - self._start if self._audience is not None and self._place >= 0 else 0
        return self._before + counted - self._uncounted

    @property
    def pending(self) -> int:
        """Messages that wait for this member to have room again."""
        return len(self._pending)

    def __repr__(self) -> str:
        return (
            f"<Membership of {self.channel!r} in {self.group!r}: sent={self.sent}, dropped={self.dropped}, "
            f"pending={self.pending}>"
        )

    async def __aenter__(self) -> Self:
        return self.enter()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.leave()

    def enter(self) -> Self:
        """Become a member; what `async with` does first.

        :raises ConfigurationError: the channel is a member already.
        :raises ClosedError: the channel can send no more.
        :raises RuntimeError: the channel, or the group, belongs to another event loop or thread."""
        group, channel = self.group, self.channel
        if channel.hub.loop is not _current_loop():
            raise RuntimeError(f"{channel!r} belongs to another event loop or thread and cannot join {group!r} here")
        if group._loop is not channel.hub.loop:
            group._check_loop()
        if channel in group._members:
            raise ConfigurationError(f"{channel!r} is a member of {group!r} already")
        if not _can_send(channel):
            raise ClosedError(f"{channel!r} can send no more and cannot join {group!r}", clean=True) from channel.cause
        group._loop = channel.hub.loop
        group._members[channel] = self
        key = _key_of(channel.codec)
        audience = group._audiences.get(key)
        if audience is None:
            audience = group._audiences[key] = _Audience(key, channel.codec)
        self._audience = audience
        self._keep_up()
        _watch(channel, group)
        return self

    def leave(self) -> None:
        """Be no member any more; what waits is dropped. May be called again at any time."""
        group, audience = self.group, self._audience
        if audience is None:
            return
        _unwatch(self.channel, group)
        self._step_aside()
        del audience.behind[self.channel]
        self._audience = None
        del group._members[self.channel]
        if not audience.channels and not audience.behind:
            del group._audiences[audience.key]
        group.stats.abandoned += len(self._pending)
        self._pending = NOTHING
        task, self._task = self._task, None
        if task is not None and group._loop is not None and not group._loop.is_closed():
            task.cancel()
        if not group._members:
            group._loop = None

    # keeping up and falling behind

    def _keep_up(self) -> None:
        """Enter the list of those who get every message at once."""
        audience = self._audience
        assert audience is not None
        audience.behind.pop(self.channel, None)
        self._place = len(audience.channels)
        audience.channels.append(self.channel)
        self._start = audience.sent

    def _step_aside(self) -> None:
        """Leave that list: the last one takes the place."""
        audience, place = self._audience, self._place
        assert audience is not None
        if place < 0:
            return
        self._before += audience.sent - self._start
        last = audience.channels.pop()
        if last is not self.channel:
            audience.channels[place] = last
            self.group._members[last]._place = place
        self._place = -1
        audience.behind[self.channel] = self

    def _retry(self, frame: bytes) -> bool:
        """Send to a member that had no room: what this turn has gathered may leave at once and make some."""
        channel = self.channel
        if not _can_send(channel):
            return False
        try:
            channel.flush()
            if channel.queued[1] > channel.settings.high_water:
                return False
            channel.send_encoded(frame)
        except (PorticoError, OSError):
            return False
        return True

    def _refuse(self, frame: bytes, key: Hashable) -> None:
        """Deal with a member that has no room."""
        if not _can_send(self.channel):
            self.leave()
        elif self.policy == "close":
            self._close()
        else:
            group = self.group
            self._pending = pending_for(self.policy, group.max_pending, group.max_pending_bytes)
            self._step_aside()
            self._hold(frame, key)
            self._task = self.channel.hub.loop.create_task(self._catch_up(), name=f"catch up with {group!r}")

    def _close(self) -> None:
        group, waiting = self.group, self.channel.queued[1]
        self.reason = f"too slow for {group!r}: {waiting} bytes wait for it"
        self._drop(1)
        group.stats.closed += 1
        log.info("%r was closed: %s", self.channel, self.reason)
        self.leave()
        self.channel.close_after(LimitError(self.reason, "high_water"))

    def _hold(self, frame: bytes, key: Hashable) -> None:
        """Let a message wait, or drop it or another one."""
        dropped = self._pending.hold(frame, key)
        if dropped:
            self._drop(dropped)

    def _drop(self, count: int) -> None:
        self.dropped += count
        self.missed += count
        self.group.stats.count_dropped(self.policy, count)

    async def _catch_up(self) -> None:
        """Wait for room, send the notice and what waits, and go back to those who keep up."""
        channel, stats = self.channel, self.group.stats
        try:
            await channel.flush()
            while self._audience is not None:  # what makes the notice may end the membership
                if (frame := self._take_notice()) is not None:
                    stats.notices += 1
                elif (frame := self._pending.take()) is not None:
                    stats.delivered += 1
                    self._before += 1
                else:
                    self._task = None
                    self._pending = NOTHING
                    self._keep_up()
                    return
                await channel.send_encoded(frame)
        except (asyncio.CancelledError, PorticoError, OSError) as error:
            if self._task is asyncio.current_task():
                self._task = None
                self.leave()
            if isinstance(error, asyncio.CancelledError):
                raise

    def _take_notice(self) -> bytes | None:
        """Return the frame that tells what was missed, if it is due."""
        missed, self.missed = self.missed, 0
        if not missed or self.group.notice is None:
            return None
        try:
            return _frame(self.channel.codec, self.group.notice(missed))
        except Exception:  # the notice is the user's own function
            log.exception("the notice of %d missed messages could not be made for %r", missed, self.channel)
            return None


class _Audience:
    """The members whose codecs make the same bytes of a message."""

    __slots__ = ("behind", "channels", "codec", "key", "sent")

    def __init__(self, key: Hashable, codec: Codec[Any]) -> None:
        self.key, self.codec = key, codec
        self.channels: list[Channel[Any]] = []  # those who keep up; each Membership knows its place
        self.behind: dict[Channel[Any], Membership[Any]] = {}
        self.sent = 0


class _Farewell:
    """Stands before the owner of a channel, to tell the groups that it is in when it is lost."""

    __slots__ = ("groups", "owner")

    def __init__(self, owner: Callable[[Any], object] | None) -> None:
        self.owner = owner
        self.groups: list[Group[Any]] = []

    def __call__(self, channel: Channel[Any]) -> None:
        for group in tuple(self.groups):
            group.discard(channel)
        if self.owner is not None:
            self.owner(channel)


def _watch(channel: Channel[Any], group: Group[Any]) -> None:
    """Let `group` hear when `channel` is lost."""
    owner = channel.owner
    if not isinstance(owner, _Farewell):
        owner = channel.owner = _Farewell(owner)
    owner.groups.append(group)


def _unwatch(channel: Channel[Any], group: Group[Any]) -> None:
    owner = channel.owner
    if isinstance(owner, _Farewell) and group in owner.groups:
        owner.groups.remove(group)
        if not owner.groups:
            channel.owner = owner.owner


def _can_send(channel: Channel[Any]) -> bool:
    _, writing, closing, lost = channel.flags
    return writing and not closing and not lost


def _frame(codec: Codec[Any], message: object) -> bytes:
    frame = codec.encode(message)
    return frame if type(frame) is bytes else bytes(memoryview(frame))


def _key_of(codec: Codec[Any]) -> Hashable:
    """Return something that is equal for codecs of the same kind and settings; in doubt, equal for `codec` only."""
    kind = type(codec)
    if kind.__module__.startswith(NATIVE):
        return kind, repr(codec)
    key: Hashable = codec
    if kind.__eq__ is object.__eq__ and not any(part.__dict__.get("__slots__") for part in kind.__mro__):
        key = kind, codec.max_size, tuple((name, type(value), value) for name, value in sorted(vars(codec).items()))
    try:
        hash(key)
    except TypeError:
        return kind, id(codec)  # the audience keeps it alive
    return key


def _checked(policy: Policy) -> Policy:
    if policy not in POLICIES:
        raise ConfigurationError(f"Group: policy must be one of {', '.join(POLICIES)}, not {policy!r}")
    return policy


def _checked_channel(channel: Channel[T]) -> Channel[T]:
    if not isinstance(channel, Channel):
        raise TypeError(f"a Channel can join a group, not {type(channel).__name__}; stream.channel(codec) makes one")
    return channel
