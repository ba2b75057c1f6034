"""CORS: which pages may read answers; and origins, which WebSocket handshakes read alike."""

import pytest
from server.support import scenario

import portico
from portico.errors import ConfigurationError
from portico.protocols.origins import Origins, parse_origin, same_origin
from portico.web.door import Door
from portico.web.request import Request

from .front_kit import front

APP = "https://app.example.org"
PREFLIGHT = "Access-Control-Request-Method: PUT"
VARY = "Origin, Access-Control-Request-Method, Access-Control-Request-Headers"


def door_of(cors: portico.CORS) -> Door:
    door = Door(cors=cors)

    async def hello(request: Request) -> str:
        return "hello"

    async def failing(request: Request) -> str:
        raise ValueError("on purpose")

    door.route(("GET", "PUT"), "/hello", hello)
    door.get("/failing", failing)
    return door


@scenario()
async def test_a_page_that_is_listed_may_read_answers() -> None:
    async with front(door_of(portico.CORS([APP], expose=["X-Count", "X-Next"], credentials=True))) as door:
        got = await door.ask("/hello", f"Origin: {APP}")
        assert (got.status, got.body) == (200, b"hello")
        assert got.headers["access-control-allow-origin"] == APP and got.headers["vary"] == "Origin"
        assert got.headers["access-control-allow-credentials"] == "true"
        assert got.headers["access-control-expose-headers"] == "X-Count, X-Next"


@scenario()
async def test_other_pages_get_answers_that_their_browser_keeps_from_them() -> None:
    async with front(door_of(portico.CORS([APP]))) as door:
        for fields in ([], ["Origin: https://evil.example"], ["Origin: null"], ["Origin: "], [f"Origin: {APP}, {APP}"]):
            got = await door.ask("/hello", *fields)
            assert (got.status, got.headers["vary"]) == (200, "Origin")
            assert not any(name.startswith("access-control") for name in got.headers)


@scenario()
async def test_everybody_may_read_what_is_for_all() -> None:
    async with front(door_of(portico.CORS("*"))) as door:
        for fields in ([], ["Origin: null"], ["Origin: https://evil.example"]):
            got = await door.ask("/hello", *fields)
            assert got.headers.get("access-control-allow-origin") == ("*" if fields else None)
            assert "vary" not in got.headers and "access-control-allow-credentials" not in got.headers


@scenario(errors=True)
async def test_errors_can_be_read_like_any_answer() -> None:
    async with front(door_of(portico.CORS([APP]))) as door:
        for target, method, status in (("/nowhere", "GET", 404), ("/hello", "DELETE", 405), ("/failing", "GET", 500)):
            got = await door.ask(target, f"Origin: {APP}", method=method)
            assert (got.status, got.headers["access-control-allow-origin"]) == (status, APP)


@scenario()
async def test_a_preflight_is_answered_without_asking_the_route() -> None:
    cors = portico.CORS([APP], methods=["GET", "PUT"], headers=["X-Token", "Content-Type"], max_age=60)
    async with front(door_of(cors)) as door:
        for target in ("/hello", "/nowhere"):
            got = await door.ask(target, f"Origin: {APP}", PREFLIGHT, method="OPTIONS")
            assert (got.status, got.body, got.headers["vary"]) == (204, b"", VARY)
            assert {name: value for name, value in got.headers.items() if name.startswith("access-control")} == {
                "access-control-allow-origin": APP,
                "access-control-allow-methods": "GET, PUT",
                "access-control-allow-headers": "X-Token, Content-Type",
                "access-control-max-age": "60",
            }


@scenario()
async def test_a_preflight_of_another_page_is_refused() -> None:
    async with front(door_of(portico.CORS([APP]))) as door:
        got = await door.ask("/hello", "Origin: https://evil.example", PREFLIGHT, method="OPTIONS")
        assert got.status == 403 and got.headers["vary"].startswith(VARY)
        assert not any(name.startswith("access-control") for name in got.headers)


@scenario()
async def test_options_that_is_no_preflight_goes_to_the_door() -> None:
    async with front(door_of(portico.CORS([APP]))) as door:
        for fields in ([f"Origin: {APP}"], [PREFLIGHT]):
            got = await door.ask("/hello", *fields, method="OPTIONS")
            assert (got.status, got.headers["allow"]) == (204, "GET, HEAD, OPTIONS, PUT")
            assert "access-control-allow-methods" not in got.headers


@scenario()
async def test_a_route_may_say_itself_who_may_read_it() -> None:
    door = door_of(portico.CORS([APP]))

    async def public(request: Request) -> portico.Response:
        return portico.Response("public", headers=[("Access-Control-Allow-Origin", "*")])

    door.get("/public", public)
    async with front(door) as client:
        got = await client.ask("/public", f"Origin: {APP}")
        assert got.headers["access-control-allow-origin"] == "*" and "vary" not in got.headers


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"origins": "*", "credentials": True}, "origins="),
        ({"origins": [APP, "*"], "credentials": True}, "origins="),
        ({"origins": APP, "headers": "*", "credentials": True}, "headers="),
        ({"origins": APP, "methods": ["*"], "credentials": True}, "methods="),
        ({"origins": APP, "expose": "*", "credentials": True}, "expose="),
        ({"origins": "app.example.org"}, "no origin"),
        ({"origins": f"{APP}/"}, "no origin"),
        ({"origins": "https://app.*.org"}, "no origin"),
        ({"origins": "https://*example.org"}, "no origin"),
        ({"origins": [None]}, "no origin"),
        ({"origins": APP, "methods": "GET, PUT"}, "methods are names"),
        ({"origins": APP, "headers": ["X-A\r\nX-B"]}, "headers are names"),
        ({"origins": APP, "expose": [""]}, "expose are names"),
        ({"origins": APP, "max_age": -1}, "max_age"),
        ({"origins": APP, "max_age": True}, "max_age"),
        ({"origins": APP, "max_age": 1.5}, "max_age"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, object], complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^CORS: .*{complaint}"):
        portico.CORS(**settings)  # type: ignore[arg-type]


# origins


@pytest.mark.parametrize(
    ("pattern", "inside", "outside"),
    [
        (
            "https://example.org",
            ["https://example.org", "HTTPS://Example.ORG", "https://example.org:443"],
            ["http://example.org", "https://example.org:8443", "https://a.example.org", "https://example.org.evil"],
        ),
        ("http://localhost:8000", ["http://localhost:8000"], ["http://localhost", "http://localhost:80000"]),
        (
            "https://*.example.org",
            ["https://a.example.org", "https://a.b.example.org:443"],
            [
                "https://example.org",
                "https://.example.org",
                "https://evilexample.org",
                "https://a.example.org:444",
                "http://a.example.org",
                "https://a.example.org.evil",
                "https://evil/.example.org",
                "https://evil?.example.org",
                "https://evil#.example.org",
                "https://evil\\.example.org",
                "https://user@a.example.org",
            ],
        ),
        (
            "http://localhost:*",
            ["http://localhost", "http://localhost:3000"],
            ["http://localhosts:1", "https://localhost"],
        ),
        ("https://*", ["https://a", "https://[::1]"], ["http://a", "https://a:1", "null"]),
        ("https://*:*", ["https://a:1"], ["http://a:1"]),
        ("http://[::1]:8000", ["http://[::1]:8000"], ["http://[::2]:8000", "http://::1:8000"]),
        ("null", ["null"], ["NULL", "https://null", ""]),
        ("*", ["null", "https://a", "anything"], []),
        ("app://-", ["app://-"], ["app://a", "app://-:1"]),
    ],
)
def test_a_pattern_lets_in_what_it_says(pattern: str, inside: list[str], outside: list[str]) -> None:
    for origins in (Origins(pattern), Origins(["https://other.example", pattern])):
        assert [each for each in inside if each not in origins] == []
        assert [each for each in outside if each in origins] == []


@pytest.mark.parametrize(
    "garbage",
    ["", "https://", "https://a b", "https://a:b", "https://a:", "//a", "https://a\n", "https://\u0430.org", None],
)
def test_what_is_no_origin_is_in_no_list(garbage: str | None) -> None:
    assert garbage not in Origins(["https://*:*", "http://localhost:*", "https://a"])
    assert garbage is None or parse_origin(garbage) is None


@pytest.mark.parametrize(
    ("origin", "host", "secure", "same"),
    [
        ("https://a.org", "a.org", True, True),
        ("https://a.org", "A.org:443", True, True),
        ("https://a.org:8443", "a.org:8443", True, True),
        ("http://a.org", "a.org", True, False),
        ("http://a.org", "a.org", False, True),
        ("https://a.org", "a.org", False, True),
        ("https://a.org", "a.org:443", False, True),
        ("http://a.org", "a.org:443", False, False),
        ("http://127.0.0.1:8000", "127.0.0.1:8000", False, True),
        ("http://[::1]:8000", "[::1]:8000", False, True),
        ("http://a.org:8001", "a.org:8000", False, False),
        ("http://a.org", "b.org", False, False),
        ("http://a.org", "a.org.evil", False, False),
        ("ftp://a.org", "a.org", False, False),
        ("null", "null", False, False),
        ("", "", False, False),
        ("http://a.org", "a.org@b", False, False),
    ],
)
def test_a_page_of_the_same_server_is_told(origin: str, host: str, secure: bool, same: bool) -> None:
    assert same_origin(origin, host, secure=secure) == same
