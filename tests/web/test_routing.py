"""Which route answers: paths, parameters, methods, hosts; and what is answered where none does."""

from pathlib import Path
from typing import Any

import pytest
from server.support import scenario

import portico
from portico.protocols.http_headers import Headers
from portico.web.routing import Route, Router

from .http_kit import door_of, visiting


async def nothing(request: portico.Request) -> None: ...


def router(*patterns: str, host: str | None = None) -> Router:
    """A router whose routes are known by their pattern: their `max_body` is its place."""
    made = Router()
    for place, pattern in enumerate(patterns):
        made.entry(pattern, host).add(["GET"], Route(nothing, place + 1))
    return made


def asked(target: str, method: str = "GET", host: str = "test", **more: str) -> portico.Request:
    return portico.Request(method, target, "1.1", Headers({"Host": host, **more}))


def found(made: Router, target: str) -> tuple[int, dict[str, str]] | int:
    """The place of the pattern and the parameters, or the status where there is none."""
    request = asked(target)
    route = made.find(request)
    return (route.max_body or 0, request.params) if isinstance(route, Route) else route.status


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/", (1, {})),
        ("/rooms", (2, {})),
        ("/rooms/", 404),
        ("/rooms/new", (3, {})),
        ("/rooms/n%65w", (3, {})),
        ("/rooms/caf%C3%A9", (4, {"room": "café"})),
        ("/rooms/a%2Fb", (4, {"room": "a/b"})),
        ("/rooms%2Fnew", 404),
        ("/rooms/a/b", 404),
        ("/rooms/a/users/b", (5, {"room": "a", "user": "b"})),
        ("/rooms//users/b", 404),
        ("/static", (6, {"rest": ""})),
        ("/static/", (6, {"rest": ""})),
        ("/static/a/b", (6, {"rest": "a/b"})),
        ("/static/a//b/", (6, {"rest": "a//b/"})),
        ("/static/old/x", (7, {"rest": "x"})),
        ("/statics", 404),
        ("//rooms", 404),
        ("//", 404),
        ("/caf%C3%A9", (8, {})),
        ("/rooms?x=/y", (2, {})),
    ],
)
def test_paths_and_parameters(target: str, expected: object) -> None:
    made = router(
        "/",
        "/rooms",
        "/rooms/new",
        "/rooms/{room}",
        "/rooms/{room}/users/{user}",
        "/static/{rest:path}",
        "/static/old/{rest:path}",
        "/café",
    )
    assert found(made, target) == expected


def test_a_route_for_everything() -> None:
    made = router("/{rest:path}", "/x")
    assert found(made, "/") == (1, {"rest": ""})
    assert found(made, "/x") == (2, {})
    assert found(made, "/x/y") == (1, {"rest": "x/y"})
    assert found(made, "//x") == (1, {"rest": "/x"})


@pytest.mark.parametrize(
    "pattern", ["", "x", "/{a}b", "/{a", "/a}", "/{a:path}/b", "/{a}/{a}", "/{1}", "/a?b", "/a#b", "/{a:int}"]
)
def test_a_path_that_is_no_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(portico.ConfigurationError):
        portico.Door().get(pattern, nothing)


@pytest.mark.parametrize("host", ["", "a/b", "a:80", "*", "a.*", "*.*.a"])
def test_a_host_that_is_none_is_refused(host: str) -> None:
    with pytest.raises(portico.ConfigurationError):
        portico.Door().get("/", nothing, host=host)


def test_a_second_route_at_the_same_place_is_refused() -> None:
    door = portico.Door()
    door.get("/", nothing)
    door.head("/", nothing)
    for again in (door.get, door.head):
        with pytest.raises(portico.ConfigurationError, match="has a route already"):
            again("/", nothing)
    with pytest.raises(portico.ConfigurationError, match="a method is a word"):
        door.route(["get"], "/", nothing)
    door.route(["GET", "PURGE"], "/other", nothing)


def test_a_route_that_differs_in_the_names_of_parameters_alone_is_a_second_one() -> None:
    async def function(request: portico.Request) -> str:
        return "never"

    door = portico.Door()
    door.get("/rooms/{room}/{rest:path}", function)
    door.websocket("/chat/{room}", function)
    door.post("/rooms/{id}/{tail:path}", function)  # another method is another matter
    door.head("/rooms/{id}/{tail:path}", function)  # in place of what GET does
    door.get("/rooms/{room}", function)
    for again in (
        lambda: door.get("/rooms/{id}/{tail:path}", function),
        lambda: door.head("/rooms/{room}/{rest:path}", function),
        lambda: door.websocket("/chat/{id}", function),
    ):
        with pytest.raises(portico.ConfigurationError, match="already"):
            again()


def test_virtual_hosts() -> None:
    made = Router()
    hosts = [None, "chat.example.org", "*.example.org", "*.deep.example.org", "[::1]"]
    for place, host in enumerate(hosts):
        made.entry("/", host).add(["GET"], Route(nothing, place + 1))
    made.entry("/common", None).add(["GET"], Route(nothing, 9))
    for host, place in {
        "other": 1,
        "example.org": 1,
        "Chat.Example.ORG:8000": 2,
        "a.example.org": 3,
        "a.b.example.org": 3,
        "a.deep.example.org": 4,
        "deep.example.org": 3,
        "[::1]:80": 5,
    }.items():
        route = made.find(asked("/", host=host))
        assert isinstance(route, Route) and route.max_body == place, host
        common = made.find(asked("/common", host=host))
        assert isinstance(common, Route) and common.max_body == 9, host
    whole = made.find(asked("http://chat.example.org/", host="other"))
    assert isinstance(whole, Route) and whole.max_body == 2


def test_a_method_may_be_answered_by_a_later_pattern() -> None:
    made = router("/rooms/new")
    made.entry("/rooms/{room}", None).add(["POST"], Route(nothing, 7))
    request = asked("/rooms/new", "POST")
    route = made.find(request)
    assert isinstance(route, Route) and route.max_body == 7 and request.params == {"room": "new"}


@scenario()
async def test_what_is_answered_where_no_route_is() -> None:
    door = door_of()
    door.route(["PUT", "DELETE"], "/thing", nothing)
    async with visiting(door) as (_, client):
        assert (await client.ask("GET /nowhere")).body == b"404 Not Found\n"
        answer = await client.ask("GET /thing")
        assert (answer.status, answer.headers["allow"]) == (405, "DELETE, OPTIONS, PUT")
        answer = await client.ask("OPTIONS /")
        assert (answer.status, answer.headers["allow"]) == (204, "GET, HEAD, OPTIONS")
        answer = await client.ask("OPTIONS *")
        assert (answer.status, answer.headers["allow"]) == (204, "DELETE, GET, HEAD, OPTIONS, POST, PUT")
        assert (await client.ask("TRACE /")).status == 405
        assert (await client.ask("OPTIONS /nowhere")).status == 404


@scenario()
async def test_an_options_route_of_its_own() -> None:
    door = door_of()

    @door.options("/")
    async def options(request: portico.Request) -> str:
        return "mine"

    async with visiting(door) as (_, client):
        assert (await client.ask("OPTIONS /")).body == b"mine"


@scenario()
async def test_every_method_has_its_decorator() -> None:
    door = portico.Door()
    for add in (door.get, door.post, door.put, door.patch, door.delete):

        @add("/")
        async def method(request: portico.Request) -> str:
            return request.method

    async with visiting(door) as (_, client):
        for name in ("GET", "POST", "PUT", "PATCH", "DELETE"):
            assert (await client.ask(f"{name} /")).body == name.encode()


@scenario()
async def test_targets_reach_routes_as_they_are_meant() -> None:
    async with visiting(door_of()) as (_, client):
        for target, expected in {
            "/target/a?b=c": b'{"rest":"a","path":"/target/a","host":"test","query":"b=c"}',
            "http://other/target/a": b'{"rest":"a","path":"/target/a","host":"other","query":""}',
            "/target/%E2%82%AC": '{"rest":"€","path":"/target/€","host":"test","query":""}'.encode(),
            "/target//x/../y": b'{"rest":"/x/../y","path":"/target//x/../y","host":"test","query":""}',
        }.items():
            assert (await client.ask(f"GET {target}")).body == expected


@scenario()
async def test_a_body_may_be_larger_where_the_route_says_so() -> None:
    door = door_of(max_body=10)

    @door.post("/large", max_body=100)
    async def large(request: portico.Request) -> str:
        return str(len(await request.body()))

    @door.post("/small")
    async def small(request: portico.Request) -> str:
        return str(len(await request.body(max_size=5)))

    async with visiting(door) as (_, client):
        assert (await client.ask("POST /large|Content-Length: 100", b"x" * 100)).body == b"100"
        assert (await client.ask("POST /small|Content-Length: 5", b"x" * 5)).body == b"5"
        assert (await client.ask("POST /small|Content-Length: 6", b"x" * 6)).status == 413


@scenario()
async def test_a_path_of_websockets_asks_for_an_upgrade() -> None:
    door = portico.Door()

    async def serve(channel: Any) -> None: ...

    door.websocket("/chat", serve)
    with pytest.raises(portico.ConfigurationError, match="has a WebSocket already"):
        door.websocket("/chat", serve)
    async with visiting(door) as (_, client):
        answer = await client.ask("GET /chat")
        assert answer.status == 426
        assert (answer.headers["upgrade"], answer.headers["connection"]) == ("websocket", "Upgrade")
        answer = await client.ask("POST /chat")
        assert (answer.status, answer.headers["allow"]) == (405, "GET, OPTIONS")
        assert (await client.ask("GET /nowhere")).status == 404


@scenario()
async def test_a_websocket_comes_before_files_and_patterns_that_fit_its_path(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("a page")
    (tmp_path / "script.js").write_text("a script")

    async def serve(channel: Any) -> None: ...

    async def page(request: portico.Request) -> str:
        return "mine"

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"3")]})
        await send({"type": "http.response.body", "body": b"app"})

    door = portico.Door()
    door.files("/", tmp_path)
    for path in ("/", "/chat", "/rooms/{room}", "/own", "/also/{own}", "/{any}", "/app/chat"):
        door.websocket(path, serve)
    door.get("/own", page)
    door.get("/also/{mine}", page)
    door.get("/rooms/lobby", page)
    door.mount("/app", app)
    async with visiting(door) as (_, client):
        for path in ("/chat", "/rooms/blue", "/also/x?a=b"):
            for method in ("GET", "HEAD"):
                assert (await client.ask(f"{method} {path}")).status == (200 if "also" in path else 426), path
        for path, body in {
            "/": b"a page",
            "/script.js": b"a script",
            "/own": b"mine",
            "/rooms/lobby": b"mine",
            "/app/chat": b"app",
        }.items():
            answer = await client.ask(f"GET {path}")
            assert (answer.status, answer.body) == (200, body), path
        assert (await client.ask("GET /rooms/a/b")).status == 404
        assert (await client.ask("POST /chat")).status == 405
