"""`Switch`: one port for many protocols, told apart by the first bytes that a client sends."""

import asyncio
import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from portico._core import Codec
from portico.errors import ConfigurationError, EndOfStream, ProtocolError
from portico.interfaces import Lifespan
from portico.server.listener_base import is_async
from portico.server.spec import Handler
from portico.server.threads import ThreadedHandler
from portico.transports.connection import HANDSHAKE_TIMEOUT, Stream

if TYPE_CHECKING:
    from portico.transports.tls import TLS

__all__ = ["Switch"]

Look = Callable[[bytes], bool | None]
"""Says of the bytes so far whether they are its protocol; None: not to be told yet."""

WAIT = 1.0
MAX_LOOK = 8192
"""Bytes that are looked at; nginx's request line, which is the longest thing to tell apart, has 8 KiB at most."""

MAX_THREADS = 64
"""Handlers that are plain functions run in that many threads at most (as `Limits.max_threads`)."""

REQUEST_LINE = re.compile(rb"[A-Z]{1,16} [!-~]+ HTTP/1\.[01]\r?\n")


def is_tls(first: bytes) -> bool | None:
    """Tell a TLS record that holds a handshake (RFC 8446 section 5.1)."""
    return first.startswith(b"\x16\x03") if len(first) > 1 else first in (b"", b"\x16") and None


def is_http(first: bytes) -> bool | None:
    """Tell HTTP/1.x by its whole request line (RFC 9112 section 3): a word in capitals may begin other things, too."""
    line, end, _ = first.partition(b"\n")
    if end:
        return REQUEST_LINE.fullmatch(line + end) is not None
    word, space, rest = line.partition(b" ")
    if len(word) > 16 or (word and not (word.isalpha() and word.isupper())) or (space and not word):
        return False
    return None if rest.count(b" ") < 2 else False


def starts_with(prefix: bytes) -> Look:
    """Return what tells a protocol by the bytes that it starts with."""

    def look(first: bytes) -> bool | None:
        return first.startswith(prefix) if len(first) >= len(prefix) else prefix.startswith(first) and None

    return look


@dataclass(frozen=True, slots=True)
class _Way:
    """Where a connection may go."""

    look: Look
    serve: Callable[[Any], Any]
    codec: Codec[Any] | None


class Switch:
    """A handler that looks at the first bytes of a connection and hands it on, those bytes included:

        switch = portico.Switch(tls=tls, http=door, otherwise=chat, codec=portico.Lines())
        service.listen("tcp://127.0.0.1:8000", switch)

    serves TLS and plain text, HTTP and WebSockets (which `door` has) and a line protocol on one port."""

    def __init__(
        self,
        *,
        tls: "TLS | None" = None,
        http: Handler | None = None,
        otherwise: Handler | None = None,
        codec: Codec[Any] | None = None,
        wait: float = WAIT,
        handshake_timeout: float = HANDSHAKE_TIMEOUT,
    ) -> None:
        """Begin with these ways; `add` knows more.

        :param tls: settings with certificate and key: what begins as TLS is secured, then looked at again.
        :param http: serves what begins with a request line of HTTP/1.x, such as a `Door`.
        :param otherwise: serves all else; without it such connections are closed.
        :param codec: makes the connection a Channel for `otherwise`.
        :param wait: seconds (1) after which who says nothing goes to `otherwise`, which may speak first.
        :param handshake_timeout: seconds (10) until it must be clear what a client speaks, TLS included.
        :raises ConfigurationError: a setting that cannot work"""
        if not wait > 0 or not handshake_timeout > 0:
            raise ConfigurationError("Switch: wait and handshake_timeout are seconds, more than 0")
        self.tls, self.wait, self.handshake_timeout = tls, wait, handshake_timeout
        self._parts: list[Any] = []
        self._ways: list[_Way] = []
        if tls is not None:
            tls.server_context()
        if http is not None:
            self._ways.append(_Way(is_http, self._served(http), None))
        if otherwise is None and codec is not None:
            raise ConfigurationError("Switch: codec= is for otherwise=, which is missing")
        self._otherwise = None if otherwise is None else _Way(lambda first: True, self._served(otherwise), codec)

    def add(self, first: bytes | Look, handler: Handler, *, codec: Codec[Any] | None = None) -> Self:
        """Hand to `handler` what begins with the bytes `first`, or of which the function `first` says so: it is called
        with the bytes so far and returns True, False, or None where it cannot tell yet. Ways are asked in the order in
        which they were added, `http` first.

        :raises ConfigurationError: neither bytes nor a function"""
        if isinstance(first, bytes) and first:
            look = starts_with(first)
        elif callable(first):
            look = first
        else:
            raise ConfigurationError(
                f"Switch: a protocol is told by its first bytes or by a function, not by {first!r}"
            )
        self._ways.append(_Way(look, self._served(handler), codec))
        return self

    def _served(self, handler: Handler) -> Callable[[Any], Any]:
        if not callable(handler) or inspect.isasyncgenfunction(handler) or inspect.isgeneratorfunction(handler):
            raise ConfigurationError(f"Switch: a handler is a function that does not yield, not {handler!r}")
        serve = handler if is_async(handler) else ThreadedHandler(handler, MAX_THREADS)
        self._parts.append(serve)
        return serve

    # what a server calls

    async def startup(self) -> None:
        """Start what the handlers need; see `portico.Lifespan`."""
        for each in self._parts:
            if isinstance(each, Lifespan):
                await each.startup()

    async def shutdown(self) -> None:
        """End what the handlers needed."""
        for each in self._parts:
            if isinstance(each, Lifespan):
                await each.shutdown()
            elif isinstance(each, ThreadedHandler):
                each.close()

    async def __call__(self, stream: Stream) -> None:
        """Serve one connection."""
        way = await self._way_of(stream)
        if way is not None:
            await way.serve(stream if way.codec is None else stream.channel(way.codec))

    async def _way_of(self, stream: Stream) -> _Way | None:
        """Find out what `stream` speaks, and give back what was read for it."""
        secure = self.tls is None
        clock = asyncio.get_running_loop().time
        due = clock() + self.handshake_timeout
        while True:
            first, way = await self._look(stream, due, secure)
            stream.unread(first)
            if way is not None or secure or not is_tls(first):
                return way
            assert self.tls is not None
            secure = True
            await stream.start_tls(self.tls, server_side=True, timeout=max(due - clock(), 0.001))

    async def _look(self, stream: Stream, due: float, secure: bool) -> tuple[bytes, _Way | None]:
        """Return the first bytes and who is to have them; None: TLS, or nobody."""
        first = b""
        silent_until = asyncio.get_running_loop().time() + self.wait if self._otherwise is not None else due
        while True:
            undecided = False
            for look in [] if secure else [is_tls]:
                verdict = look(first)
                if verdict:
                    return first, None
                undecided = verdict is None
            for way in self._ways:
                verdict = way.look(first)
                if verdict:
                    return first, way
                undecided = undecided or verdict is None
            if not undecided or len(first) >= MAX_LOOK:
                return first, self._nobody_else(first)
            try:
                async with asyncio.timeout_at(due if first else min(due, silent_until)):
                    came = await stream.recv(MAX_LOOK)
            except TimeoutError:
                return first, self._nobody_else(first)
            if not came:
                if not first:
                    raise EndOfStream
                return first, self._nobody_else(first)
            first += came

    def _nobody_else(self, first: bytes) -> _Way | None:
        if self._otherwise is None:
            raise ProtocolError(f"nobody here speaks what begins with {first[:16]!r}", 0)
        return self._otherwise
