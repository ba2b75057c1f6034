"""What a Door answers: bodies of every kind, keep-alive, pipelines, HEAD, 100-continue, HTTP/1.0, errors, threads."""

import asyncio
import datetime
import subprocess
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from peers import need_program
from server.support import EVERYWHERE, Certificates, ErrorRecords, certificates, scenario, until

import portico

from .http_kit import browser, door_of, visiting

__all__ = ["certificates"]


@scenario(EVERYWHERE)
async def test_requests_follow_each_other_on_one_connection() -> None:
    async with visiting(door_of(server="portico")) as (server, client):
        for _ in range(3):
            answer = await client.ask("GET /")
            assert (answer.status, answer.body) == (200, b"hello")
            assert answer.headers["content-type"] == "text/plain; charset=utf-8"
            assert answer.headers["server"] == "portico" and "connection" not in answer.headers
        assert server.stats.accepted == 1


@scenario()
async def test_the_date_is_that_of_now() -> None:
    async with visiting(door_of()) as (_, client):
        told = (await client.ask("GET /")).headers["date"]
        then = datetime.datetime.strptime(told, "%a, %d %b %Y %H:%M:%S GMT").replace(tzinfo=datetime.UTC)
        assert abs(datetime.datetime.now(datetime.UTC) - then) < datetime.timedelta(seconds=5)


@scenario(EVERYWHERE)
async def test_pipelined_requests_are_answered_in_order() -> None:
    door = door_of()

    @door.get("/n/{n}")
    async def number(request: portico.Request) -> str:
        await asyncio.sleep(0.002 if request.params["n"].endswith("0") else 0)
        return request.params["n"]

    async with visiting(door) as (_, client):
        await client.send(b"".join(b"GET /n/%d HTTP/1.1\r\nHost: a\r\n\r\n" % n for n in range(700)))
        assert [int((await client.answer()).body) for _ in range(700)] == list(range(700))


PIPELINE = (
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
    b"POST /stream HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nde\r\n1\r\nf\r\n0\r\n\r\n"
    b"POST /ignore HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nxy"
    b"HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
)


@scenario(timeout=60)
async def test_the_answers_are_the_same_wherever_the_input_is_cut() -> None:
    async with portico.serve(door_of(), "tcp://127.0.0.1:0") as server:
        for place in range(1, len(PIPELINE), 1):
            async with browser(server.address) as client:
                await client.send(PIPELINE[:place])
                await asyncio.sleep(0)
                await client.send(PIPELINE[place:])
                bodies = [(await client.answer()).body for _ in range(4)]
                assert bodies == [b"hello", b"abc", b"def", b"not read"], place
                last = await client.answer(head=True)
                assert last.headers["content-length"] == "5" and await client.is_over()


@scenario()
async def test_what_a_function_may_return() -> None:
    door = portico.Door()
    results: dict[str, tuple[Any, int, bytes, str | None]] = {
        "text": ("é", 200, "é".encode(), "text/plain; charset=utf-8"),
        "bytes": (b"\0", 200, b"\0", "application/octet-stream"),
        "object": ({"a": "é"}, 200, '{"a":"é"}'.encode(), "application/json"),
        "list": ([1, None], 200, b"[1,null]", "application/json"),
        "nothing": (None, 204, b"", None),
        "pair": ((404, "no such room"), 404, b"no such room", "text/plain; charset=utf-8"),
        "status": ((201, None), 201, b"", None),
        "response": (portico.Response("<b>", content_type="text/html"), 200, b"<b>", "text/html"),
        "json": ((418, {"tea": True}), 418, b'{"tea":true}', "application/json"),
    }
    for name, (result, *_) in results.items():

        async def function(request: portico.Request, result: object = result) -> object:
            return result

        door.get(f"/{name}", function)
    async with visiting(door) as (_, client):
        for name, (_, status, body, content_type) in results.items():
            answer = await client.ask(f"GET /{name}")
            assert (answer.status, answer.body, answer.headers.get("content-type")) == (status, body, content_type)
            assert ("content-length" in answer.headers) is (status != 204)


@pytest.mark.parametrize("result", [object(), (200, object()), 3, (99, "x"), float("nan"), {"x": object()}])
def test_what_it_may_not_return_is_said_plainly(result: object) -> None:
    with pytest.raises(portico.ConfigurationError):
        portico.Response.of(result)


@scenario()
async def test_head_is_get_without_the_body_and_may_have_a_function_of_its_own() -> None:
    door = door_of()

    @door.head("/own")
    async def own_head(request: portico.Request) -> portico.Response:
        return portico.Response(headers={"X-Own": "1", "Content-Length": "70"})

    @door.get("/own")
    async def own(request: portico.Request) -> str:
        return "own"

    closed = []

    class Pieces:
        def __aiter__(self) -> "Pieces":
            raise AssertionError("a HEAD has no body")

        async def aclose(self) -> None:
            closed.append(True)

    @door.get("/pieces")
    async def pieces(request: portico.Request) -> portico.Response:
        return portico.Response(Pieces(), headers={"Content-Length": "9"})  # type: ignore[arg-type]

    async with visiting(door) as (_, client):
        assert (await client.ask("HEAD /")).headers["content-length"] == "5"
        answer = await client.ask("HEAD /own")
        assert answer.headers["x-own"] == "1" and answer.headers["content-length"] == "70"
        assert (await client.ask("GET /own")).body == b"own"
        assert (await client.ask("HEAD /pieces")).headers["content-length"] == "9"
        assert closed == [True]
        assert (await client.ask("HEAD /nowhere")).status == 404
        assert (await client.ask("GET /")).body == b"hello"


@scenario()
async def test_a_body_in_pieces_is_chunked_or_as_long_as_it_says() -> None:
    door = portico.Door()

    async def pieces(*given: bytes) -> AsyncIterator[bytes]:
        for piece in given:
            yield piece

    @door.get("/chunked")
    async def chunked(request: portico.Request) -> AsyncIterator[bytes]:
        return pieces(b"a", b"", b"b" * 20_000)

    @door.get("/counted")
    async def counted(request: portico.Request) -> portico.Response:
        return portico.Response(pieces(b"abc", b"de"), headers={"Content-Length": "5"})

    async with visiting(door) as (_, client):
        answer = await client.ask("GET /chunked")
        assert answer.body == b"a" + b"b" * 20_000 and answer.headers["transfer-encoding"] == "chunked"
        answer = await client.ask("GET /counted")
        assert answer.body == b"abcde" and "transfer-encoding" not in answer.headers


@scenario(errors=True)
async def test_a_body_that_breaks_off_ends_the_connection_without_a_proper_end() -> None:
    door = portico.Door()
    closed = []

    async def breaking() -> AsyncIterator[bytes]:
        try:
            yield b"abc"
            raise OSError("the disk is gone")
        finally:
            closed.append(True)

    @door.get("/chunked")
    async def chunked(request: portico.Request) -> AsyncIterator[bytes]:
        return breaking()

    @door.get("/short")
    async def short(request: portico.Request) -> portico.Response:
        async def pieces() -> AsyncIterator[bytes]:
            yield b"abc"

        return portico.Response(pieces(), headers={"Content-Length": "5"})

    for path in ("chunked", "short"):
        async with visiting(door) as (server, client):
            with pytest.raises((EOFError, ConnectionResetError)):
                await client.ask(f"GET /{path}")
            await until(lambda server=server: server.stats.handler_errors == 1)
    assert closed == [True]


@scenario()
async def test_expect_continue_is_answered_when_the_body_is_wanted() -> None:
    async with visiting(door_of()) as (_, client):
        await client.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
        assert (await client.answer()).status == 100
        await client.send(b"abc")
        assert (await client.answer()).body == b"abc"
        await client.send(b"POST /ignore HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
        answer = await client.answer()
        assert answer.status == 200 and answer.headers["connection"] == "close"
        assert await client.is_over()


@scenario()
async def test_a_body_that_comes_at_once_needs_no_100() -> None:
    async with visiting(door_of()) as (_, client):
        answer = await client.ask("POST /echo|Expect: 100-continue|Content-Length: 3", b"abc")
        assert (answer.status, answer.body) == (200, b"abc")


@scenario()
async def test_http_1_0_gets_no_chunks_and_closes_unless_it_asks() -> None:
    async with portico.serve(door_of(), "tcp://127.0.0.1:0") as server:
        async with browser(server.address) as client:
            await client.send(b"POST /stream HTTP/1.0\r\nContent-Length: 3\r\n\r\nabc")
            answer = await client.answer()
            assert answer.body == b"abc" and "transfer-encoding" not in answer.headers
            assert answer.headers["connection"] == "close"
        async with browser(server.address) as client:
            for _ in range(2):
                await client.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
                answer = await client.answer()
                assert answer.body == b"hello" and answer.headers["connection"] == "keep-alive"
            await client.send(b"GET / HTTP/1.0\r\n\r\n")
            assert (await client.answer()).headers["connection"] == "close"
            assert await client.is_over()


@scenario()
async def test_either_side_may_end_the_connection_after_an_answer() -> None:
    door = door_of(max_requests=3)

    @door.get("/bye")
    async def bye(request: portico.Request) -> portico.Response:
        return portico.Response("bye", headers={"Connection": "close"})

    async with portico.serve(door, "tcp://127.0.0.1:0") as server:
        for path in ("GET /|Connection: close", "GET /bye"):
            async with browser(server.address) as client:
                assert (await client.ask(path)).headers["connection"] == "close"
                assert await client.is_over()
        async with browser(server.address) as client:
            assert ["connection" in (await client.ask("GET /")).headers for _ in range(3)] == [False, False, True]
            assert await client.is_over()


@scenario()
async def test_who_ends_his_side_behind_the_requests_gets_all_answers() -> None:
    async with visiting(door_of()) as (_, client):
        await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 2)
        client.client.end()
        assert [(await client.answer()).body for _ in range(2)] == [b"hello", b"hello"]
        assert await client.is_over()


@scenario(errors=True)
async def test_a_route_that_fails_is_counted_logged_and_answered_and_the_connection_goes_on() -> None:
    logged = ErrorRecords()
    async with visiting(door_of()) as (server, client):
        with logged:
            answer = await client.ask("GET /broken")
        assert (answer.status, answer.body) == (500, b"500 Internal Server Error\n")
        assert (await client.ask("GET /")).body == b"hello"
        assert server.stats.handler_errors == 1
    (record,) = logged.records
    assert "so it is" in record.getMessage() and record.exc_info


@scenario(errors=True)
async def test_a_header_that_cannot_be_sent_is_an_error_of_the_route() -> None:
    door = portico.Door()

    @door.get("/{where}")
    async def redirect(request: portico.Request) -> portico.Response:
        return portico.Response(status=302, headers={"Location": request.params["where"]})

    async with visiting(door) as (server, client):
        answer = await client.ask("GET /a%0d%0aSet-Cookie:%20x=1")
        assert answer.status == 500 and "set-cookie" not in answer.headers
        assert (await client.ask("GET /b")).headers["location"] == "b"
        assert server.stats.handler_errors == 1


@scenario()
async def test_who_vanishes_while_a_route_works_is_no_error_of_the_route() -> None:
    door = portico.Door()
    began, go_on = asyncio.Event(), asyncio.Event()

    @door.get("/slow")
    async def slow(request: portico.Request) -> str:
        began.set()
        await go_on.wait()
        return "too late"

    async with visiting(door) as (server, client):
        await client.send(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
        await began.wait()
        client.client.reset()
        await until(lambda: not server.stats.open)
        go_on.set()
        await until(lambda: server.stats.peer_errors == 1)
        assert server.stats.handler_errors == 0


@scenario()
async def test_who_vanishes_within_a_body_is_no_error_of_the_route() -> None:
    for vanish in ("end", "reset"):
        async with visiting(door_of()) as (server, client):
            await client.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc")
            await until(lambda server=server: server.stats.bytes_received > 50)
            getattr(client.client, vanish)()
            await until(lambda server=server: server.stats.peer_errors == 1)
            assert server.stats.handler_errors == 0


@scenario()
async def test_a_plain_function_runs_in_a_thread_with_the_body_read() -> None:
    door = portico.Door()

    @door.post("/plain/{name}")
    def plain(request: Any) -> dict[str, object]:
        assert threading.current_thread() is not threading.main_thread()
        return {
            "json": request.json(),
            "text": request.text(),
            "bytes": len(request.body()),
            "name": request.params["name"],
            "remote": str(request.remote_address).startswith("tcp://127.0.0.1:"),
            "secure": request.secure,
            "query": request.query,
            "draining": request.draining,
            "gone": request.gone,
        }

    async with visiting(door) as (_, client):
        answer = await client.ask("POST /plain/x?y|Content-Length: 3", b"[1]")
        assert answer.body == (
            b'{"json":[1],"text":"[1]","bytes":3,"name":"x","remote":true,"secure":false,"query":"y",'
            b'"draining":false,"gone":false}'
        )


@scenario(errors=True)
async def test_a_plain_function_that_should_be_async_is_told_so() -> None:
    door = portico.Door()

    async def inner() -> None: ...

    door.get("/", lambda request: inner())
    logged = ErrorRecords()
    async with visiting(door) as (_, client):
        with logged:
            assert (await client.ask("GET /")).status == 500
    assert "async def" in logged.records[0].getMessage()


@scenario()
async def test_a_body_that_is_no_json_or_text_is_answered_with_400_and_the_connection_goes_on() -> None:
    door = portico.Door()

    @door.post("/json")
    async def json(request: portico.Request) -> Any:
        return [await request.json(), await request.text(), (await request.body()).decode()]

    async with visiting(door) as (server, client):
        assert (await client.ask("POST /json|Content-Length: 2", b"{}")).body == b'[{},"{}","{}"]'
        for body in (b"{", b"\xff\xff", b"[" * 100_000):
            assert (await client.ask(f"POST /json|Content-Length: {len(body)}", body)).status == 400
        assert (await client.ask("POST /json|Content-Length: 1", b"1")).body == b'[1,"1","1"]'
        assert server.stats.protocol_errors == 3 and server.stats.handler_errors == 0


@scenario()
async def test_an_upgrade_that_nobody_wants_is_ignored() -> None:
    async with visiting(door_of()) as (_, client):
        fields = "Connection: Upgrade, HTTP2-Settings|Upgrade: h2c|HTTP2-Settings: AAMAAABk"
        assert (await client.ask(f"GET /|{fields}")).body == b"hello"
        assert (await client.ask(f"POST /echo|{fields}|Content-Length: 3", b"abc")).body == b"abc"
        assert (await client.ask("GET /")).body == b"hello"


@scenario()
async def test_nonsense_behind_an_upgrade_that_nobody_wants_does_not_take_its_answer() -> None:
    async with visiting(door_of()) as (_, client):
        asked = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
        await client.send(asked + b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        assert [(await client.answer()).status for _ in range(2)] == [200, 505]
        assert await client.is_over()


@scenario()
async def test_cancelled_in_a_route_the_connection_ends_at_once() -> None:
    async with portico.serve(door_of(), "tcp://127.0.0.1:0") as server:
        async with browser(server.address) as client:
            await client.send(b"GET /forever HTTP/1.1\r\nHost: a\r\n\r\n")
            await until(lambda: server.stats.bytes_received)
            await server.drain(0)
            assert await client.is_over()


def curl(*arguments: str) -> str:
    done = subprocess.run(
        [need_program("curl"), "-sS", "--max-time", "10", "--noproxy", "*", *arguments], capture_output=True, check=True
    )
    return done.stdout.decode()


async def curled(*arguments: str) -> str:
    return await asyncio.get_running_loop().run_in_executor(None, curl, *arguments)


@scenario(("uvloop",))
async def test_curl_over_tcp_tls_and_unix(certificates: Certificates, tmp_path: Path) -> None:
    door = door_of()
    big = tmp_path / "big"
    big.write_bytes(b"x" * 700_000)
    service = portico.Service()
    service.listen("tcp://127.0.0.1:0", door)
    service.listen("tls://127.0.0.1:0", door, tls=certificates.server())
    service.listen(f"unix:{tmp_path}/s", door)
    async with portico.serve(service) as server:
        plain, secure = (f"://127.0.0.1:{address.port}" for address in server.addresses[:2])
        for url, extra in (
            (f"http{plain}", []),
            (f"https{secure}", ["--cacert", certificates.ca]),
            ("http://localhost", ["--unix-socket", f"{tmp_path}/s"]),
        ):
            assert await curled(*extra, f"{url}/", f"{url}/", "-w", "%{num_connects}") == "hello1hello0"
            for sent in (["-H", "Transfer-Encoding: chunked"], ["-H", "Expect: 100-continue"], ["-0"]):
                for path in ("echo", "stream"):
                    echoed = await curled(*extra, *sent, "--data-binary", f"@{big}", f"{url}/{path}")
                    assert len(echoed) == 700_000, (url, sent, path)
            assert "HTTP/1.1 200 OK" in await curled(*extra, "-I", f"{url}/")
            assert (await curled(*extra, "--http2", f"{url}/")) == "hello"


@pytest.mark.parametrize(
    "make",
    [
        lambda: portico.Door(max_head=0),
        lambda: portico.Door(head_timeout=-1),
        lambda: portico.Door(max_requests=True),
        lambda: portico.Door(keep_alive=None),  # type: ignore[arg-type]
        lambda: portico.Door(server="a\r\nb"),
        lambda: portico.Door(max_threads=0),
        lambda: portico.Door(max_threads="x"),  # type: ignore[arg-type]
        lambda: portico.Door(max_threads=True),
        lambda: portico.Response(status=101),
        lambda: portico.Response(7),  # type: ignore[arg-type]
    ],
)
def test_settings_that_cannot_work_are_refused(make: Callable[[], object]) -> None:
    with pytest.raises(portico.ConfigurationError):
        make()


@scenario(errors=True)
async def test_a_door_serves_streams_only() -> None:
    logged = ErrorRecords()
    with logged:
        async with portico.serve(door_of(), "tcp://127.0.0.1:0", codec=portico.Lines()) as server:
            async with browser(server.address) as client:
                assert await client.is_over()
    assert "listen without codec" in logged.records[0].getMessage()
