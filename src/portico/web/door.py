"""`Door`: a small HTTP front, with just what sockets need: routes, files, health, metrics, WebSocket, mounted apps."""

import functools
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from portico.errors import ConfigurationError
from portico.protocols.http11 import MAX_HEAD, MAX_HEADERS
from portico.server.lifespans import Lifespans
from portico.server.listener_base import is_async
from portico.server.threads import ThreadedHandler, Threads, run_in
from portico.transports.connection import Stream
from portico.web.answering import Heads
from portico.web.limits import HttpLimits
from portico.web.request import BlockingRequest, Request
from portico.web.response import Response
from portico.web.routing import Route, Router
from portico.web.serving import Conversation

if TYPE_CHECKING:
    import os

    from portico.server.group import Group
    from portico.web.cors import CORS
    from portico.web.health import Check
    from portico.web.metrics import Metrics
    from portico.websocket.settings import WebSocketSettings

F = TypeVar("F", bound=Callable[..., Any])


class Door:
    """Answers HTTP/1.1 on every connection that it is the handler of: `service.listen("http://127.0.0.1:8000", door)`,
    and likewise `tcp://…`, `tls://…`, `unix:…`.

    Routes are functions of a request:

        door = portico.Door()

        @door.get("/rooms/{room}")
        async def room(request):
            return {"name": request.params["room"]}

    They may return a Response, str, bytes, dict or list (JSON), None (204), or a status and one of those:
    `return 404, "no such room"`. A plain function runs in a thread, and its request has the body already.

    In a path `{name}` is one segment and `{name:path}` at the end all the rest. Literal paths come before patterns. GET
    answers HEAD, too; OPTIONS, 404, 405 and 426 are answered by themselves. `host` makes a route one of a virtual host:
    "chat.example.org", or "*.example.org" for every name below."""

    def __init__(
        self,
        *,
        max_head: int = MAX_HEAD,
        max_headers: int = MAX_HEADERS,
        max_body: int = 1 << 20,
        head_timeout: float = 10.0,
        body_timeout: float = 30.0,
        body_rate: float = 500.0,
        keep_alive: float = 75.0,
        max_requests: int | None = None,
        max_threads: int = 64,
        server: str = "",
        cors: "CORS | None" = None,
    ) -> None:
        """Seconds and bytes throughout.

        :param max_head: a request line with its header fields (16 KiB; Node: the same); more is answered with 431, a
            target over half of it with 414.
        :param max_headers: header fields (100; Apache: the same); more are answered with 431.
        :param max_body: a body (1 MiB; nginx: the same), unless its route says otherwise; more is answered with 413.
        :param head_timeout: for a whole head (10; nginx: 60, Apache: 20 to 40), answered with 408.
        :param body_timeout: between two pieces of a body that a route waits for (30; nginx: 60), answered with 408.
        :param body_rate: bytes a second that a body must come with after `body_timeout` (500; Apache's mod_reqtimeout).
        :param keep_alive: until the next request (75; nginx: the same).
        :param max_requests: on one connection, which then closes (None: any number, as in Node; nginx: 1000).
        :param max_threads: plain functions run in that many threads at most (64).
        :param server: the Server field of each answer; none by default.
        :param cors: which pages of other origins may use the door: `portico.CORS(…)`.
        :raises ConfigurationError: a value that cannot work
        """
        self._limits = HttpLimits(
            max_head, max_headers, max_body, head_timeout, body_timeout, body_rate, keep_alive, max_requests
        )
        self._router = Router()
        self._heads = Heads(server)
        self._cors = cors
        self._max_threads = max_threads
        self._threads = Threads(max_threads)
        self._threaded: list[ThreadedHandler] = []
        self._metrics: Metrics | None = None
        self._lifespans = Lifespans()  # of what is mounted

    # serving

    async def __call__(self, stream: Stream) -> None:
        """Serve one connection."""
        follow = await self._converse(stream)
        del stream  # an upgraded connection lives long
        if follow is not None:
            await follow

    async def _converse(self, stream: Stream) -> Coroutine[Any, Any, object] | None:
        """Speak HTTP until the end, or until there is something else to do: what that is."""
        if not isinstance(stream, Stream):
            raise ConfigurationError(
                f"a Door serves streams of bytes, not a {type(stream).__name__}: listen without codec"
            )
        conversation = Conversation(stream, self._router, self._limits, self._heads, self._cors, self._metrics)
        return await conversation.run()

    async def startup(self) -> None:
        """Start what is mounted, once for all servers of this door; they call this."""
        await self._lifespans.startup()

    async def shutdown(self) -> None:
        """End what is mounted, and idle threads, when the last server of this door has ended; they call this."""
        if await self._lifespans.shutdown():
            self._threads.close()
            self._threads = Threads(self._max_threads)
            for handler in self._threaded:
                handler.close()

    # routes

    def route(
        self,
        methods: str | Iterable[str],
        path: str,
        function: F | None = None,
        *,
        host: str | None = None,
        max_body: int | None = None,
    ) -> Any:
        """Let `function(request)` answer `methods` at `path`. Without a function this is a decorator.

        :param max_body: bytes of a body; default: the door's `max_body`.
        :raises ConfigurationError: a path or host that cannot be, or that has a route already"""
        if function is None:
            return functools.partial(self._decorate, methods, path, host=host, max_body=max_body)
        names = [methods] if isinstance(methods, str) else list(methods)
        endpoint = function if is_async(function) else functools.partial(self._in_thread, function)
        self._router.entry(path, host).add(names, Route(endpoint, max_body))
        return function

    def _decorate(self, methods: str | Iterable[str], path: str, function: F, **settings: Any) -> F:
        self.route(methods, path, function, **settings)
        return function

    def get(self, path: str, function: F | None = None, *, host: str | None = None, max_body: int | None = None) -> Any:
        """Let `function(request)` answer GET and HEAD at `path`; see `route`."""
        return self.route("GET", path, function, host=host, max_body=max_body)

    def post(
        self, path: str, function: F | None = None, *, host: str | None = None, max_body: int | None = None
    ) -> Any:
        """Let `function(request)` answer POST at `path`; see `route`."""
        return self.route("POST", path, function, host=host, max_body=max_body)

    def put(self, path: str, function: F | None = None, *, host: str | None = None, max_body: int | None = None) -> Any:
        """Let `function(request)` answer PUT at `path`; see `route`."""
        return self.route("PUT", path, function, host=host, max_body=max_body)

    def delete(
        self, path: str, function: F | None = None, *, host: str | None = None, max_body: int | None = None
    ) -> Any:
        """Let `function(request)` answer DELETE at `path`; see `route`."""
        return self.route("DELETE", path, function, host=host, max_body=max_body)

    def patch(
        self, path: str, function: F | None = None, *, host: str | None = None, max_body: int | None = None
    ) -> Any:
        """Let `function(request)` answer PATCH at `path`; see `route`."""
        return self.route("PATCH", path, function, host=host, max_body=max_body)

    def head(
        self, path: str, function: F | None = None, *, host: str | None = None, max_body: int | None = None
    ) -> Any:
        """Let `function(request)` answer HEAD at `path`, in place of what GET does; see `route`."""
        return self.route("HEAD", path, function, host=host, max_body=max_body)

    def options(
        self, path: str, function: F | None = None, *, host: str | None = None, max_body: int | None = None
    ) -> Any:
        """Let `function(request)` answer OPTIONS at `path`; see `route`."""
        return self.route("OPTIONS", path, function, host=host, max_body=max_body)

    async def _in_thread(self, function: Callable[[BlockingRequest], object], request: Request) -> object:
        """Run a plain function in a thread, with the body read before."""
        plain = BlockingRequest(request, await request.body())
        return await run_in(self._threads, functools.partial(function, plain), request.stream.abort)

    # what is not a function

    def websocket(
        self,
        path: str,
        handler: F | None = None,
        *,
        host: str | None = None,
        websocket: "WebSocketSettings | None" = None,
    ) -> Any:
        """Let `handler(channel)` serve every WebSocket that is opened at `path`; a plain GET is answered with 426.
        Without a handler this is a decorator.

        :param websocket: whom to let in, and how to speak; default: pages of the same origin, and whoever is no page.
        :raises ConfigurationError: a path or host that cannot be, or that has a WebSocket already"""
        from portico.web.accepting import accept
        from portico.websocket.settings import WebSocketSettings

        if handler is None:
            return functools.partial(self._decorate_websocket, path, host=host, websocket=websocket)
        settings = websocket or WebSocketSettings()
        serve: Callable[[Any], Any] = handler
        if not is_async(handler):
            serve = ThreadedHandler(handler, self._max_threads)
            self._threaded.append(serve)

        async def enter(request: Request) -> Response | Coroutine[Any, Any, object]:
            channel = await accept(request, settings)
            if isinstance(channel, Response):
                return channel
            return serve(channel)  # type: ignore[no-any-return]  # an async function gives a coroutine

        self._add_upgrade(path, host, enter)
        return handler

    def _decorate_websocket(self, path: str, handler: F, **settings: Any) -> F:
        self.websocket(path, handler, **settings)
        return handler

    def files(
        self,
        path: str,
        folder: "str | os.PathLike[str]",
        *,
        index: str | None = "index.html",
        cache: int | str | None = "no-cache",
        host: str | None = None,
    ) -> None:
        """Answer GET and HEAD at `path` and below with the files of `folder`: types, ranges, conditional requests;
        nothing outside of the folder, nothing hidden, no lists.

        :param index: the file that is sent for a folder; None: folders are answered with 404.
        :param cache: seconds that answers may be used without asking again, or a value of Cache-Control; None: nothing.
        :raises ConfigurationError: no such folder, or a setting that cannot work"""
        from portico.web.files import Files

        self.get(path.rstrip("/") + "/{rest:path}", Files(path, folder, index=index, cache=cache), host=host)

    def health(
        self, path: str = "/healthz", checks: "Iterable[Check] | Mapping[str, Check]" = (), *, host: str | None = None
    ) -> None:
        """Answer 200 at `path` while the server is well, 503 as soon as draining begins or one of `checks` says so."""
        from portico.web.health import Health

        self.get(path, Health(checks), host=host)

    def metrics(self, path: str = "/metrics", groups: "Iterable[Group[Any]]" = (), *, host: str | None = None) -> None:
        """Answer the counters of the server, of this door, and of `groups`, as text that Prometheus reads."""
        from portico.web.metrics import Metrics

        self._metrics = self._metrics or Metrics(groups)
        self.get(path, self._metrics, host=host)

    def mount(
        self,
        path: str,
        app: Callable[[Any, Any, Any], Any],
        *,
        host: str | None = None,
        max_body: int | None = None,
        websocket: "WebSocketSettings | None" = None,
    ) -> None:
        """Let an ASGI 3 application answer everything at `path` and below: HTTP, WebSocket and its lifespan.

        :param max_body: bytes of a body; default: the door's `max_body`.
        :param websocket: whose WebSockets get as far as the app (default: those of pages of the same origin, and of
            whoever is no page), and how to speak. The subprotocol is the app's choice.
        :raises ConfigurationError: a path or host that cannot be, or that has something mounted already"""
        from portico.web.asgi_host import AsgiHost

        prefix = path.rstrip("/")
        entry = self._router.entry(prefix + "/{rest:path}", host)
        entry.check_free("whatever", "something mounted")
        mounted = AsgiHost(app, prefix, websocket)
        entry.whatever = Route(mounted.http, max_body)
        self._add_upgrade(prefix + "/{rest:path}", host, mounted.websocket)
        self._lifespans.add(mounted)

    def _add_upgrade(self, path: str, host: str | None, enter: Callable[[Request], Any]) -> None:
        entry = self._router.entry(path, host)
        entry.check_free("upgrade", "a WebSocket")
        entry.upgrade = Route(enter, upgrades=True)
