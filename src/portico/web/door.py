"""`Door`: a small HTTP front, with just what sockets need: routes, files, health, metrics, WebSocket, mounted apps."""

import functools
import inspect
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar, overload

from portico.errors import ConfigurationError
from portico.protocols.http11 import MAX_HEAD, MAX_HEADERS
from portico.server.lifespans import Lifespans
from portico.server.listener_base import is_async
from portico.server.threads import ThreadedHandler, Threads, run_in
from portico.transports.connection import Stream
from portico.web.answering import Heads
from portico.web.limits import HttpLimits, check_max_body
from portico.web.request import BlockingRequest, Request
from portico.web.response import Response
from portico.web.routing import Endpoint, Route, Router
from portico.web.serving import Conversation

if TYPE_CHECKING:
    import os

    from portico.server.group import Group
    from portico.web.cors import CORS
    from portico.web.health import Check
    from portico.web.metrics import RequestCounts
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
    `return 404, "no such room"`; an async function may yield bytes instead. A plain function runs in a thread, and its
    request has the body already.

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
        self._requests: RequestCounts | None = None
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
        conversation = Conversation(stream, self._router, self._limits, self._heads, self._cors, self._requests)
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

    @overload
    def route(
        self,
        methods: str | Iterable[str],
        path: str,
        function: F,
        *,
        host: str | None = None,
        max_body: int | None = None,
    ) -> F: ...
    @overload
    def route(
        self, methods: str | Iterable[str], path: str, *, host: str | None = None, max_body: int | None = None
    ) -> Callable[[F], F]: ...
    def route(
        self,
        methods: str | Iterable[str],
        path: str,
        function: F | None = None,
        *,
        host: str | None = None,
        max_body: int | None = None,
    ) -> Any:
        """Let `function(request)` answer `methods` at `path`. Without a function this is a decorator. An async function
        that yields bytes is answered piece by piece.

        :param max_body: bytes of a body, 0 for none; default: the door's `max_body`.
        :raises ConfigurationError: a path or host that cannot be, or that has a route already; what is no function, or
            yields without being async; a negative `max_body`"""
        return self._add(methods, path, function, host, max_body)

    def _add(
        self, methods: str | Iterable[str], path: str, function: F | None, host: str | None, max_body: int | None
    ) -> Any:
        check_max_body(max_body)
        names = [methods] if isinstance(methods, str) else list(methods)

        def add(function: F) -> F:
            route = Route(self._endpoint(path, function), max_body)
            self._router.entry(path, host).add(names, route)
            return function

        return add if function is None else add(function)

    def _endpoint(self, path: str, function: Callable[[Any], Any]) -> Endpoint:
        check_function(f"the route {path}", function)
        if is_async(function):
            return function
        if is_kind(inspect.isasyncgenfunction, function):
            return functools.partial(_in_pieces, function)
        if is_kind(inspect.isgeneratorfunction, function):
            raise ConfigurationError(
                f"the route {path} must be a function that does not yield, not {function!r}; with async def it may, "
                "and is answered piece by piece"
            )
        return functools.partial(self._in_thread, function)

    @overload
    def get(self, path: str, function: F, *, host: str | None = None, max_body: int | None = None) -> F: ...
    @overload
    def get(self, path: str, *, host: str | None = None, max_body: int | None = None) -> Callable[[F], F]: ...
    def get(self, path: str, function: F | None = None, *, host: str | None = None, max_body: int | None = None) -> Any:
        """Let `function(request)` answer GET and HEAD at `path`; see `route`."""
        return self._add("GET", path, function, host, max_body)

    @overload
    def post(self, path: str, function: F, *, host: str | None = None, max_body: int | None = None) -> F: ...
    @overload
    def post(self, path: str, *, host: str | None = None, max_body: int | None = None) -> Callable[[F], F]: ...
    def post(
        self, path: str, function: F | None = None, *, host: str | None = None, max_body: int | None = None
    ) -> Any:
        """Let `function(request)` answer POST at `path`; see `route`."""
        return self._add("POST", path, function, host, max_body)

    @overload
    def put(self, path: str, function: F, *, host: str | None = None, max_body: int | None = None) -> F: ...
    @overload
    def put(self, path: str, *, host: str | None = None, max_body: int | None = None) -> Callable[[F], F]: ...
    def put(self, path: str, function: F | None = None, *, host: str | None = None, max_body: int | None = None) -> Any:
        """Let `function(request)` answer PUT at `path`; see `route`."""
        return self._add("PUT", path, function, host, max_body)

    @overload
    def delete(self, path: str, function: F, *, host: str | None = None, max_body: int | None = None) -> F: ...
    @overload
    def delete(self, path: str, *, host: str | None = None, max_body: int | None = None) -> Callable[[F], F]: ...
    def delete(
        self, path: str, function: F | None = None, *, host: str | None = None, max_body: int | None = None
    ) -> Any:
        """Let `function(request)` answer DELETE at `path`; see `route`."""
        return self._add("DELETE", path, function, host, max_body)

    @overload
    def patch(self, path: str, function: F, *, host: str | None = None, max_body: int | None = None) -> F: ...
    @overload
    def patch(self, path: str, *, host: str | None = None, max_body: int | None = None) -> Callable[[F], F]: ...
    def patch(
        self, path: str, function: F | None = None, *, host: str | None = None, max_body: int | None = None
    ) -> Any:
        """Let `function(request)` answer PATCH at `path`; see `route`."""
        return self._add("PATCH", path, function, host, max_body)

    @overload
    def head(self, path: str, function: F, *, host: str | None = None, max_body: int | None = None) -> F: ...
    @overload
    def head(self, path: str, *, host: str | None = None, max_body: int | None = None) -> Callable[[F], F]: ...
    def head(
        self, path: str, function: F | None = None, *, host: str | None = None, max_body: int | None = None
    ) -> Any:
        """Let `function(request)` answer HEAD at `path`, in place of what GET does; see `route`."""
        return self._add("HEAD", path, function, host, max_body)

    @overload
    def options(self, path: str, function: F, *, host: str | None = None, max_body: int | None = None) -> F: ...
    @overload
    def options(self, path: str, *, host: str | None = None, max_body: int | None = None) -> Callable[[F], F]: ...
    def options(
        self, path: str, function: F | None = None, *, host: str | None = None, max_body: int | None = None
    ) -> Any:
        """Let `function(request)` answer OPTIONS at `path`; see `route`."""
        return self._add("OPTIONS", path, function, host, max_body)

    async def _in_thread(self, function: Callable[[BlockingRequest], object], request: Request) -> object:
        """Run a plain function in a thread, with the body read before."""
        plain = BlockingRequest(request, await request.body())
        return await run_in(self._threads, functools.partial(function, plain), request.stream.abort)

    # what is not a function

    @overload
    def websocket(
        self, path: str, handler: F, *, host: str | None = None, websocket: "WebSocketSettings | None" = None
    ) -> F: ...
    @overload
    def websocket(
        self, path: str, *, host: str | None = None, websocket: "WebSocketSettings | None" = None
    ) -> Callable[[F], F]: ...
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
        :raises ConfigurationError: a path or host that cannot be, or that has a WebSocket already; what is no function,
            or yields; settings that are none"""
        from portico.web.accepting import accept
        from portico.websocket.settings import WebSocketSettings

        _check_settings(websocket)
        if handler is None:
            return functools.partial(self._decorate_websocket, path, host=host, websocket=websocket)
        check_function(f"the handler of {path}", handler)
        if is_kind(inspect.isasyncgenfunction, handler) or is_kind(inspect.isgeneratorfunction, handler):
            raise ConfigurationError(f"the handler of {path} must be a function that does not yield, not {handler!r}")
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
        self,
        path: str = "/healthz",
        checks: "Iterable[Check] | Mapping[str, Check]" = (),
        *,
        timeout: float = 5.0,
        host: str | None = None,
    ) -> None:
        """Answer 200 at `path` while the server is well, 503 as soon as draining begins or one of `checks` says so.

        :param checks: functions, or functions by the name under which they are told. One that returns False or raises
            has failed.
        :param timeout: seconds (5) that all may take together; those that have not ended then have failed.
        :raises ConfigurationError: a check that cannot be called, two of one name, or no such timeout"""
        from portico.web.health import Health

        self.get(path, Health(checks, timeout=timeout), host=host)

    def metrics(self, path: str = "/metrics", groups: "Iterable[Group[Any]]" = (), *, host: str | None = None) -> None:
        """Answer the counters of the server, of this door, and of `groups`, as text that Prometheus reads.

        :param groups: whose counters are shown here; each needs a name of its own.
        :raises ConfigurationError: a path or host that cannot be, or that has a route already; groups without names"""
        from portico.web.metrics import Metrics, RequestCounts

        self._requests = self._requests or RequestCounts()
        self.get(path, Metrics(groups, self._requests), host=host)

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

        :param max_body: bytes of a body, 0 for none; default: the door's `max_body`.
        :param websocket: whose WebSockets get as far as the app (default: those of pages of the same origin, and of
            whoever is no page), and how to speak. The subprotocol is the app's choice.
        :raises ConfigurationError: a path or host that cannot be, or that has something mounted already; an app that is
            no function; settings that are none, a negative `max_body`"""
        from portico.web.asgi_host import AsgiHost

        check_max_body(max_body)
        _check_settings(websocket)
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


async def _in_pieces(function: Callable[[Request], AsyncIterator[bytes]], request: Request) -> AsyncIterator[bytes]:
    return function(request)


def is_kind(test: Callable[[Any], bool], function: Any) -> bool:
    """Say whether `test` is true of a function, or of what makes an object callable."""
    while isinstance(function, functools.partial):
        function = function.func
    return test(function) or test(getattr(function, "__call__", None))  # noqa: B004  # not whether it can be called


def check_function(what: str, function: object) -> None:
    """:raises ConfigurationError: it cannot be called"""
    if not callable(function):
        raise ConfigurationError(f"{what} must be a function, not {function!r}")


def _check_settings(settings: object) -> None:
    from portico.websocket.settings import WebSocketSettings

    if settings is not None and not isinstance(settings, WebSocketSettings):
        raise ConfigurationError(f"websocket={settings!r} must be a WebSocketSettings")
