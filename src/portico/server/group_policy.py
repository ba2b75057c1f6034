"""What a group does about a member that does not keep up, and what waits for it meanwhile."""

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, fields
from typing import Literal, Protocol, get_args

Policy = Literal["drop-new", "drop-old", "latest", "close"]
"""What happens to messages for a member over its high-water mark:

- `drop-new`: they are not sent to it until it has room again.
- `drop-old`: they wait, up to `max_pending` messages and `max_pending_bytes`; the oldest make room for new ones.
- `latest`: of those with the same key only the newest waits, in the place of the first; bounded as `drop-old`.
- `close`: the member is closed."""

POLICIES: tuple[Policy, ...] = get_args(Policy)


@dataclass(slots=True)
class GroupStats:
    """What a group has done since it was made."""

    sent: int = 0
    """Messages that `send` was called with."""
    delivered: int = 0
    """Messages handed over to members, those that had to wait included; each message counts once a member."""
    dropped_new: int = 0
    """Messages that a member missed by the policy `drop-new`."""
    dropped_old: int = 0
    """Messages that a member missed by the policy `drop-old`."""
    dropped_latest: int = 0
    """Messages that a member missed by the policy `latest`: a newer one took their place, or the bound was reached."""
    dropped_close: int = 0
    """Messages that a member missed because the policy `close` closed it."""
    abandoned: int = 0
    """Messages that still waited for a member when it left or was lost."""
    closed: int = 0
    """Members closed by the policy `close`."""
    notices: int = 0
    """Notices of missed messages that were sent."""

    @property
    def dropped(self) -> int:
        """Messages that a member missed, whatever its policy; each message counts once a member."""
        return self.dropped_new + self.dropped_old + self.dropped_latest + self.dropped_close

    def count_dropped(self, policy: Policy, count: int) -> None:
        """Add `count` messages that a member with this `policy` missed."""
        match policy:
            case "drop-new":
                self.dropped_new += count
            case "drop-old":
                self.dropped_old += count
            case "latest":
                self.dropped_latest += count
            case "close":
                self.dropped_close += count

    def as_dict(self) -> dict[str, int]:
        """Return every counter by its name."""
        return {item.name: getattr(self, item.name) for item in fields(self)} | {"dropped": self.dropped}


class Pending(Protocol):
    """Frames that wait for one member, in the order in which they will leave."""

    def hold(self, frame: bytes, key: Hashable) -> int:
        """Take a frame; return how many were dropped for that, it itself included."""
        ...

    def take(self) -> bytes | None:
        """Return the frame that leaves next, or None."""
        ...

    def __len__(self) -> int: ...


class NothingPending:
    """Holds nothing: `drop-new`."""

    __slots__ = ()

    def hold(self, frame: bytes, key: Hashable) -> int:
        return 1

    def take(self) -> bytes | None:
        return None

    def __len__(self) -> int:
        return 0


class OldestDropped:
    """The newest frames, as many as fit: `drop-old`."""

    __slots__ = ("_frames", "_max_bytes", "_max_frames", "_size")

    def __init__(self, max_frames: int, max_bytes: int) -> None:
        self._frames: deque[bytes] = deque()
        self._max_frames, self._max_bytes = max_frames, max_bytes
        self._size = 0

    def hold(self, frame: bytes, key: Hashable) -> int:
        if len(frame) > self._max_bytes:
            return 1
        dropped = 0
        while len(self._frames) >= self._max_frames or self._size + len(frame) > self._max_bytes:
            self.take()
            dropped += 1
        self._frames.append(frame)
        self._size += len(frame)
        return dropped

    def take(self) -> bytes | None:
        if not self._frames:
            return None
        frame = self._frames.popleft()
        self._size -= len(frame)
        return frame

    def __len__(self) -> int:
        return len(self._frames)


class LatestPerKey:
    """The newest frame of each key, keys in the order in which they came to wait: `latest`."""

    __slots__ = ("_frames", "_max_bytes", "_max_frames", "_size")

    def __init__(self, max_frames: int, max_bytes: int) -> None:
        self._frames: dict[Hashable, bytes] = {}
        self._max_frames, self._max_bytes = max_frames, max_bytes
        self._size = 0

    def hold(self, frame: bytes, key: Hashable) -> int:
        dropped = 0
        if len(frame) > self._max_bytes:  # then none of this key: an outdated one must not look like the newest
            replaced = self._frames.pop(key, None)
            self._size -= len(replaced or b"")
            return 1 if replaced is None else 2
        replaced = self._frames.get(key)
        if replaced is not None:
            self._size -= len(replaced)
            dropped += 1
        self._frames[key] = frame
        self._size += len(frame)
        while len(self._frames) > self._max_frames or self._size > self._max_bytes:
            self._drop_oldest_but(key)
            dropped += 1
        return dropped

    def _drop_oldest_but(self, key: Hashable) -> None:
        for oldest in self._frames:
            if oldest != key:
                self._size -= len(self._frames.pop(oldest))
                return

    def take(self) -> bytes | None:
        if not self._frames:
            return None
        frame = self._frames.pop(next(iter(self._frames)))
        self._size -= len(frame)
        return frame

    def __len__(self) -> int:
        return len(self._frames)


NOTHING = NothingPending()


def pending_for(policy: Policy, max_frames: int, max_bytes: int) -> Pending:
    """Return what holds the frames of a slow member with this `policy`."""
    match policy:
        case "drop-old":
            return OldestDropped(max_frames, max_bytes)
        case "latest":
            return LatestPerKey(max_frames, max_bytes)
        case _:
            return NOTHING
