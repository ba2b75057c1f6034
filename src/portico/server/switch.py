"""`Switch`: one port for many protocols, told apart by the first bytes that a client sends."""

import asyncio
import contextlib
import inspect
import re
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from portico._core import Codec
from portico.errors import ConfigurationError, EndOfStream, ProtocolError, TLSError
from portico.server.lifespans import Lifespans
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
    method, space, rest = line.partition(b" ")
    target, gap, version = rest.partition(b" ")
    if len(method) > 16 or (method and not (method.isalpha() and method.isupper())) or (space and not method):
        return False
    return False if gap and not (target and b"HTTP/1.".startswith(version[:7])) else None


def starts_with(prefix: bytes) -> Look:
    """Return what tells a protocol by the bytes that it starts with."""

    def look(first: bytes) -> bool | None:
        return first.startswith(prefix) if len(first) >= len(prefix) else prefix.startswith(first) and None

    return look


@dataclass(frozen=True, slots=True)
class _Way:
    """Where a connection may go."""

    look: Look
    serve: Callable[[Any], Awaitable[object]]
    codec: Codec[Any] | None = None


async def _nobody(connection: object) -> None:
    """Serve what is looked at once more."""


_SECURE = _Way(is_tls, _nobody)


def choose(ways: Sequence[_Way], first: bytes, *, final: bool) -> tuple[bool, _Way | None]:
    """Return whether it is clear whose `first` is, and whose: None is nobody. Unless it is `final`, a way that cannot
    tell yet keeps the later ones waiting: who gets a connection is not up to how its bytes were cut into packets."""
    for way in ways:
        verdict = way.look(first)
        if verdict:
            return True, way
        if verdict is None and not final:
            return False, None
    return True, None


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
        :param handshake_timeout: seconds (10) until it must be clear what a client speaks, TLS included; who has begun
            something that may still become HTTP goes to `otherwise` then.
        :raises ConfigurationError: a setting that cannot work"""
        if not wait > 0 or not handshake_timeout > 0:
            raise ConfigurationError("Switch: wait and handshake_timeout are seconds, more than 0")
        self.tls, self.wait, self.handshake_timeout = tls, wait, handshake_timeout
        self._lifespans = Lifespans()
        self._threaded: list[ThreadedHandler] = []
        self._ways: list[_Way] = []
        if tls is not None:
            tls.server_context()
        if http is not None:
            self._ways.append(_Way(is_http, self._served(http)))
        if otherwise is None and codec is not None:
            raise ConfigurationError("Switch: codec= is for otherwise=, which is missing")
        self._otherwise = None if otherwise is None else _Way(lambda first: True, self._served(otherwise), codec)

    def add(self, first: bytes | Look, handler: Handler, *, codec: Codec[Any] | None = None) -> Self:
        """Hand to `handler` what begins with the bytes `first`, or of which the function `first` says so: it is called
        with the bytes so far and returns True, False, or None where it cannot tell yet. Ways are asked in the order in
        which they were added, `http` first, and one that cannot tell yet keeps those behind it waiting.

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

    def _served(self, handler: Handler) -> Callable[[Any], Awaitable[object]]:
        if not callable(handler) or inspect.isasyncgenfunction(handler) or inspect.isgeneratorfunction(handler):
            raise ConfigurationError(f"Switch: a handler is a function that does not yield, not {handler!r}")
        self._lifespans.add(handler)
        if is_async(handler):
            return handler  # type: ignore[return-value]  # what is async gives something to await
        self._threaded.append(ThreadedHandler(handler, MAX_THREADS))
        return self._threaded[-1]

    # what a server calls

    async def startup(self) -> None:
        """Start what the handlers need, once for all servers of this switch; see `portico.Lifespan`."""
        await self._lifespans.startup()

    async def shutdown(self) -> None:
        """End what the handlers needed, when the last server of this switch has ended."""
        if await self._lifespans.shutdown():
            for handler in self._threaded:
                handler.close()

    async def __call__(self, stream: Stream) -> None:
        """Serve one connection."""
        follow = await self._begun(stream)
        del stream  # what it becomes may live long
        if follow is not None:
            await follow

    async def _begun(self, stream: Stream) -> Awaitable[object] | None:
        """Find out what `stream` speaks, and return what serves it, or None."""
        if not isinstance(stream, Stream):
            raise ConfigurationError(f"a Switch looks at streams of bytes, not at a {type(stream).__name__}: no codec")
        way = await self._way_of(stream)
        if way is None:
            return None
        return way.serve(stream if way.codec is None else stream.channel(way.codec))

    async def _way_of(self, stream: Stream) -> _Way | None:
        """Find out what `stream` speaks, behind TLS if it begins with that, and give back what was read for it."""
        due = asyncio.get_running_loop().time() + self.handshake_timeout
        plain = self._ways if self._otherwise is None else [*self._ways, self._otherwise]
        if self.tls is not None:
            way = await self._look(stream, [_SECURE, *plain], due)
            if way is not _SECURE:
                return way
            await self._secure(stream, self.tls, due)
        return await self._look(stream, plain, due)

    async def _secure(self, stream: Stream, tls: "TLS", due: float) -> None:
        seconds = max(due - asyncio.get_running_loop().time(), 0.001)
        try:
            await stream.start_tls(tls, server_side=True, timeout=seconds)
        except TLSError as error:  # the client's fault, as other bytes that nobody understands
            raise ProtocolError(str(error)) from error

    async def _look(self, stream: Stream, ways: Sequence[_Way], due: float) -> _Way | None:
        """Return who is to have `stream`, with all its bytes; None: nobody, as the server ends.

        :raises EndOfStream: it ended before it began
        :raises ProtocolError: nobody speaks what it does
        :raises ClosedError: it was lost"""
        clock = asyncio.get_running_loop().time
        silent_until = due if self._otherwise is None else min(due, clock() + self.wait)
        first, ended, final = b"", False, False
        while True:
            clear, way = choose(ways, first, final=final)
            if clear:
                break
            try:
                async with asyncio.timeout_at(due if first else silent_until) as deadline:
                    with self._hurried(stream, deadline):
                        came = await stream.recv(MAX_LOOK)
            except TimeoutError:
                final = True
            else:
                first += came
                ended = not came
                final = ended or len(first) >= MAX_LOOK
        stream.unread(first)
        if way is None and not (stream.draining and not first):
            if ended and not first:
                raise EndOfStream
            raise ProtocolError(
                f"nobody here speaks what begins with {first[:16]!r}" if first else "the client did not say anything"
            )
        return way

    @contextlib.contextmanager
    def _hurried(self, stream: Stream, deadline: asyncio.Timeout) -> Iterator[None]:
        """Move `deadline` nearer, to `wait` seconds, when the server begins to drain."""
        clock = asyncio.get_running_loop().time

        def hurry() -> None:
            due = deadline.when()
            if due is not None and not deadline.expired():
                deadline.reschedule(min(due, clock() + self.wait))

        stream.draining.call(hurry)
        try:
            yield
        finally:
            stream.draining.call_off(hurry)
