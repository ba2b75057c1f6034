"""`fetch` without asyncio: an HTTP request whose answer is there when the call returns, or comes piece by piece."""

import functools
import inspect
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, TypedDict, Unpack

from portico.address import Address
from portico.blocking.loop import Background, background
from portico.client.retry import Retry
from portico.errors import ConfigurationError
from portico.interfaces import Resolver
from portico.protocols.http_headers import Headers, Items
from portico.server.threads import Job, Threads
from portico.transports.calls import Caller
from portico.web.fetch import fetch as asking_for
from portico.web.fetch_request import Body, Login
from portico.web.fetched import Fetched

if TYPE_CHECKING:
    from portico.client.proxies import Proxies
    from portico.transports.tls import TLS

__all__ = ["BlockingFetched", "fetch"]

END: Final = object()


class FetchSettings(TypedDict, total=False):
    """The settings of `portico.fetch` beside URL, method and body."""

    headers: Items
    json: Any
    credentials: Login
    check: bool
    max_redirects: int
    max_size: int | None
    timeout: float | None
    tls: "TLS | None"
    proxy: "Proxies"
    source: Address | str | None
    options: Mapping[str, object] | None
    resolver: Resolver | None
    retry: Retry | None


def fetch(
    url: Address | str,
    method: str | None = None,
    *,
    body: Body | Iterable[bytes] = None,
    stream: bool = False,
    **settings: Unpack[FetchSettings],
) -> "BlockingFetched":
    """Ask an HTTP server, and return its answer with the whole body. A client for health checks and scripts.

        print(blocking.fetch("http://localhost:8000/healthz").text)

        with blocking.fetch("https://example.org/file", stream=True) as answer:
            for piece in answer:
                file.write(piece)

    :param method: default: GET, or POST where there is a `body` or `json`.
    :param body: what is sent: bytes, str (as UTF-8), or an iterable of bytes, which is sent chunked, or as long as a
        header Content-Length says. It is iterated over in a thread of its own, as it may wait.
    :param stream: return as soon as the head of the answer is there; its body comes by iteration, while the server
        waits for who is slow. Then close the answer, by `with` or `close()`.
    :param settings: as for `portico.fetch`, its `timeout` of 10 seconds for everything up to the end of the body
        included.
    :raises: what `portico.fetch` raises"""
    asking = asking_for(url, method, body=_as_body(body), **settings)
    home = background()

    async def ask() -> Fetched:
        if not stream:
            return await asking
        answer = await asking.__aenter__()
        home.hold(answer.stream)
        return answer

    answer = home.call(ask, doing=f"asking {url} by", keep=Fetched.abort)
    return BlockingFetched(answer, home)


class BlockingFetched(Caller):
    """What a server answered, for threads. What has to come first is waited for, until the `timeout` of `fetch`."""

    def __init__(self, answer: Fetched, home: Background) -> None:
        super().__init__(home.loop)
        self._answer = answer

    def _whom(self) -> str:
        return str(self._answer.url)

    @property
    def url(self) -> Address:
        """Whose answer it is, after redirects."""
        return self._answer.url

    @property
    def status(self) -> int:
        """Such as 200."""
        return self._answer.status

    @property
    def reason(self) -> str:
        """The words behind it, which HTTP gives no meaning."""
        return self._answer.reason

    @property
    def version(self) -> str:
        """ "1.1" or "1.0"."""
        return self._answer.version

    @property
    def headers(self) -> Headers:
        """The fields, by names in any case."""
        return self._answer.headers

    @property
    def body(self) -> bytes:
        """The body, once it is there: always, but of a streamed answer after `read`.

        :raises ConfigurationError: nobody has read it"""
        return self._answer.body

    @property
    def text(self) -> str:
        """The body as text, by the charset that Content-Type names, else UTF-8; what does not decode becomes U+FFFD.

        :raises ProtocolError: a charset that is unknown here, or a content coding that was not asked for
        :raises ConfigurationError: nobody has read it"""
        return self._answer.text

    def json(self) -> Any:
        """Return what the body says as JSON (RFC 8259).

        :raises ProtocolError: it is no JSON
        :raises ConfigurationError: nobody has read it"""
        return self._answer.json()

    def read(self) -> bytes:
        """Return what has not been read of the body, and keep it as `body`; without a `max_size` 16 MiB at most.

        :raises EndOfStream: the connection ended before; `partial` has what came
        :raises MessageTooLarge: it is longer
        :raises ClosedError: the deadline is over
        :raises ProtocolError: that is not HTTP"""
        return self._call(self._answer.read, doing="receiving from", once=True)

    def __iter__(self) -> Iterator[bytes]:
        """Iterate over the body in pieces, as they come; errors as of `read`. Ctrl-C loses none."""
        if self._answer.is_read:
            yield from [self.body] if self.body else ()
            return
        while piece := self._call(self._next, doing="receiving from", once=True, keep=self._answer.give_back):
            yield piece

    async def _next(self) -> bytes:
        return await anext(self._answer, b"")

    def close(self) -> None:
        """Close the connection; what has not been read of the body is lost."""
        self._call(self._answer.close, doing="closing", once=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<BlockingFetched {self.status} {self.reason} {self.url}>"


# A body that comes piece by piece.


def _as_body(body: Body | Iterable[bytes]) -> Body:
    """Return `body` as an asynchronous `fetch` takes it.

    :raises ConfigurationError: it cannot be one"""
    if body is None or isinstance(body, bytes | bytearray | memoryview | str | AsyncIterable):
        return body
    if not isinstance(body, Iterable):
        raise ConfigurationError(f"body= is bytes, str or an iterable of bytes, not {type(body).__name__}; see json=")
    return _pieces(body) if isinstance(body, Iterator) else _Again(body)


class _Again:
    """What can be iterated over again, as after a redirect."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = pieces

    def __aiter__(self) -> AsyncIterator[bytes]:
        return _pieces(self._pieces)


async def _pieces(pieces: Iterable[bytes]) -> AsyncIterator[bytes]:
    """Iterate in a thread. It is not waited for where nobody wants more, as a piece may never come."""
    threads = Threads(1)
    begun: Iterator[bytes] | None = None
    try:
        begun = await _done(threads, functools.partial(iter, pieces))
        while (piece := await _done(threads, functools.partial(next, begun, END))) is not END:
            yield piece
    finally:
        if begun is not None and inspect.isgenerator(begun):
            threads.start(begun.close)  # behind the piece that may be under way
        threads.close()


async def _done(threads: Threads, call: "functools.partial[Any]") -> Any:
    job = Job(call)
    threads.start(job)
    return await job.result
