"""A server that runs behind the program, which goes on or waits for its end."""

from collections.abc import Callable
from types import TracebackType
from typing import Any, Self, overload

import portico.server.service as server
from portico.address import Address
from portico.blocking.loop import Background, background
from portico.server.service import Server, Service
from portico.server.stats import Stats
from portico.transports.calls import Caller
from portico.transports.connection import Signal

__all__ = ["BlockingServer", "serve"]


class BlockingServer(Caller):
    """A service at work in the background. Made by `serve`; leaving its `with` ends it."""

    def __init__(self, running: Server, home: Background) -> None:
        super().__init__(home.loop)
        self.server = running
        self._home = home

    def _whom(self) -> str:
        return f"the server at {self.address}"

    @property
    def address(self) -> Address:
        """The first of `addresses`."""
        return self.server.address

    @property
    def addresses(self) -> list[Address]:
        """Every address that it listens on, port 0 replaced by the port it became."""
        return self.server.addresses

    @property
    def stats(self) -> Stats:
        """The counters of all listeners together, as they are now."""
        return self.server.stats

    @property
    def draining(self) -> Signal:
        """True from the moment that the server wants its handlers to come to an end."""
        return self.server.draining

    def serve_forever(self, *, timeout: float | None = None) -> None:
        """Wait until `close` or `drain` was called in another thread, or by a handler, and every connection is over.

        Ctrl-C ends the wait by KeyboardInterrupt, the `with` around it then ends the server.

        :raises TimeoutError: it still serves after `timeout` seconds"""
        self._call(self.server.serve_forever, timeout, doing="waiting for the end of")

    def wait_closed(self, *, timeout: float | None = None) -> None:
        """Wait until every connection and handler has come to its end by itself.

        :raises TimeoutError: some have not within `timeout` seconds"""
        self._call(self.server.wait_closed, timeout, doing="waiting for the connections of")

    def close(self) -> None:
        """Stop listening. Connections that are established go on; `drain` ends them. May be called twice."""

        async def close() -> None:
            self.server.close()

        self._call(close, doing="closing")

    def drain(self, timeout: float | None = None) -> None:
        """Stop listening, tell the handlers (`connection.draining`), wait up to `timeout` seconds (default: the
        service's `drain_timeout`) for them to end, then abort what is left."""

        async def drain() -> None:
            await self.server.drain(timeout)
            self._home.servers.discard(self.server)

        self._call(drain, doing="draining", once=True)

    def abort(self) -> None:
        """Stop listening and end every handler and connection now. A handler that does not end within 5 s is reported,
        and left alone."""

        async def abort() -> None:
            await self.server.abort()
            self._home.servers.discard(self.server)

        self._call(abort, doing="aborting", once=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.drain(0)

    def __repr__(self) -> str:
        return f"<BlockingServer {', '.join(map(str, self.addresses)) or 'closed'}>"


@overload
def serve(service: Service) -> BlockingServer: ...
@overload
def serve(service: Callable[[Any], object], address: Address | str, **settings: Any) -> BlockingServer: ...
def serve(
    service: Service | Callable[[Any], object], address: Address | str | None = None, **settings: Any
) -> BlockingServer:
    """Serve in the background: `with serve(handler, "tcp://127.0.0.1:0") as server:` or `server = serve(service)`.

    Leaving the context stops listening and ends the handlers that still run; `server.drain()` before gives them time.

    :param service: a Service, or a handler for the one `address`. A plain function runs in a thread for each
        connection, with its blocking face; an async one in the background loop, where nothing may block.
    :param settings: with a handler: as for `Service.listen`.
    :raises BindError: an address cannot be had
    :raises ResolveError: a name is unknown
    :raises ConfigurationError: something that cannot work"""
    serving = server.serve(service, address, **settings)
    home = background()

    async def start() -> Server:
        running = await serving
        home.servers.add(running)
        return running

    def too_late(running: Server) -> None:
        running.close()
        home.servers.discard(running)

    return BlockingServer(home.call(start, doing="starting a server by", keep=too_late), home)
