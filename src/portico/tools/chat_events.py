"""What the chat's page and the room say to each other: the WebSocket subprotocol `portico.chat.v1`.

Every message is text with one JSON object. The page begins, within `HELLO_TIMEOUT` seconds:

    {"hello": {"name": "Ann", "key": "...", "run": "...", "after": 17}}

`name` is the one it would like; `key` is a secret of its own: who comes with it takes the place of the connection that
came with it before, which may be lost without the server knowing. `run` and `after` are what it has heard last. Then:

    {"say": "as in a terminal, commands too", "ref": "..."}
    {"ping": 3}

The room answers the hello with `past`, a `said` for each message that came after `after` (all that it has, if `run` is
that of another room), a `here` for each person (again for who changes the name meanwhile, `left` for who leaves), and
`welcome`; nothing is lost between those and what follows. An event has a `type`:

    past     room, run, first, last: which messages the room has; one under `first` is lost
    here     who: id, name, door
    welcome  you: the id of the page's person
    said     id, at (seconds since 1970), by, name, door, text, ref
    came     who
    left     id
    named    id, name
    note     text, for this page alone
    pong     ping

Ids of messages have no gaps. Whoever says /quit is closed with the code `LEFT`; after every other end, that of a page
that reads too slowly included, it comes again and gets what it has missed."""

import json
import re
import secrets
import time
from collections import deque
from dataclasses import dataclass
from typing import Any, Final

PROTOCOL: Final = "portico.chat.v1"

HELLO_TIMEOUT: Final = 10.0

LEFT: Final = 4000
"""The close code for who wanted to leave (RFC 6455 section 7.4.2: from here on they are everybody's own)."""

REFUSED: Final = 1008
"""The close code for a page that does not keep to the protocol (section 7.4.1: policy violation)."""

MAX_MESSAGE: Final = 16 * 1024
"""Bytes of a message, which has one line of the room in JSON."""

MAX_HISTORY: Final = 300
"""Messages that are kept for those who come back."""

MAX_HISTORY_BYTES: Final = 256 * 1024
"""Characters of JSON that they have together at most."""

_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{0,40}")


def event(kind: str, **fields: Any) -> str:
    """Return an event as it is sent."""
    return json.dumps({"type": kind, **fields}, ensure_ascii=False, separators=(",", ":"))


def parse(message: str | bytes) -> dict[str, Any]:
    """Return what a page has sent.

    :raises ValueError: it is no JSON object"""
    try:
        found = json.loads(message)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(found, dict):
        raise ValueError("it is no object")
    return found


def token(value: object) -> str:
    """Return what a page has made up as a name for something: 40 letters, digits, `_` and `-` at most.

    :raises ValueError: it is something else"""
    if not isinstance(value, str) or not _TOKEN.fullmatch(value):
        raise ValueError("a token has 40 letters, digits, '_' and '-' at most")
    return value


@dataclass(frozen=True)
class Hello:
    """What a page says first."""

    name: str
    key: str
    run: str
    after: int

    @classmethod
    def read(cls, message: str | bytes) -> "Hello":
        """Return what `message` says.

        :raises ValueError: it is no hello"""
        found = parse(message).get("hello")
        if not isinstance(found, dict):
            raise ValueError("it is no hello")
        name, after = found.get("name", ""), found.get("after", 0)
        if not isinstance(name, str) or not isinstance(after, int) or after < 0:
            raise ValueError("the name is text, and after a number")
        return cls(name, token(found.get("key", "")), token(found.get("run", "")), after)


class History:
    """The last messages of a room."""

    def __init__(self) -> None:
        self.run = secrets.token_hex(8)
        """Tells this room from one before a restart."""
        self.last = 0
        """The id of the last message."""
        self._kept: deque[str] = deque()
        self._size = 0

    @property
    def first(self) -> int:
        """The id of the first message that is kept."""
        return self.last - len(self._kept) + 1

    def add(self, **fields: Any) -> str:
        """Keep a message, and return the event that tells of it."""
        self.last += 1
        said = event("said", id=self.last, at=round(time.time(), 3), **fields)
        self._kept.append(said)
        self._size += len(said)
        while len(self._kept) > MAX_HISTORY or self._size > MAX_HISTORY_BYTES:
            self._size -= len(self._kept.popleft())
        return said

    def after(self, number: int) -> list[str]:
        """Return the messages behind that one which are kept."""
        return [*self._kept][max(0, number + 1 - self.first) :]
