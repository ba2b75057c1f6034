"""`fetch` against servers that are played byte by byte: answers, limits, deadlines, and what is hostile."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from ports import free_port
from server.support import EVERYWHERE, scenario

import portico

from .fetch_kit import OK, answer, playing, redirect

CHUNKED = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"
)
UNTIL_CLOSE = b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nhello"


@pytest.mark.parametrize("data", [OK, CHUNKED, UNTIL_CLOSE], ids=["length", "chunked", "until close"])
@scenario(on=EVERYWHERE)
async def test_an_answer_is_awaited_whole(data: bytes) -> None:
    async with playing(data) as server:
        got = await portico.fetch(f"{server.url}/path?query#fragment")
        assert (got.status, got.reason, got.body, got.text) == (200, "OK", b"hello", "hello")
        assert got.headers.get("content-type") == "text/plain" and str(got.url) == f"{server.url}/path?query"
        assert server.lines == ["GET /path?query"]
        fields = server.fields()
        assert fields["host"] == server.url.removeprefix("http://")
        assert (fields["connection"], fields["accept-encoding"]) == ("close", "identity")
        assert "content-length" not in fields and "transfer-encoding" not in fields


@pytest.mark.parametrize("data", [OK, CHUNKED, UNTIL_CLOSE], ids=["length", "chunked", "until close"])
@scenario()
async def test_an_answer_is_streamed(data: bytes) -> None:
    async with playing(data) as server:
        async with portico.fetch(server.url) as got:
            assert got.status == 200
            with pytest.raises(portico.ConfigurationError, match=r"use read\(\)"):
                _ = got.body
            assert b"".join([piece async for piece in got]) == b"hello"
        async with portico.fetch(server.url) as got:
            assert await got.read() == await got.read() == got.body == b"hello" and got.text == "hello"
        asking = portico.fetch(server.url)
        assert [(await asking).body for _ in range(2)] == [b"hello"] * 2


@scenario()
async def test_the_server_that_keeps_the_connection_is_not_waited_for() -> None:
    async with playing(OK, then="stay") as server:
        async with asyncio.timeout(5):
            assert (await portico.fetch(server.url)).body == b"hello"


@scenario()
async def test_text_follows_the_charset_and_json_is_read() -> None:
    def typed(content_type: str, body: bytes, *more: str) -> bytes:
        return answer("200 OK", f"Content-Type: {content_type}", *more, body=body)

    told = [
        typed("text/plain; charset=latin-1", b"\xe9"),
        typed('text/plain; Charset="UTF-8"', b"\xc3\xa9\xff"),
        typed("text/plain", b"\xc3\xa9"),
        typed("text/plain; charset=klingon", b""),
        typed("text/plain; charset=punycode", b"x"),
        typed("text/plain", b"\x1f\x8b", "Content-Encoding: gzip"),
        typed("application/json", '{"é": [1, null]}'.encode()),
        typed("application/json", b"{"),
        typed("application/json", b"[" * 100_000),
        typed("application/json", b"\xff\xfe\xff"),
    ]
    async with playing(*told) as server:
        assert [(await portico.fetch(server.url)).text for _ in range(3)] == ["é", "é\N{REPLACEMENT CHARACTER}", "é"]
        for name in ("'klingon'", "'punycode'", "'gzip'"):
            got = await portico.fetch(server.url)
            with pytest.raises(portico.ProtocolError, match=f"{server.url}/ answered with the .* {name}"):
                _ = got.text
        assert (await portico.fetch(server.url)).json() == {"é": [1, None]}
        for _ in range(3):
            got = await portico.fetch(server.url)
            with pytest.raises(portico.ProtocolError, match="answered what is not JSON"):
                got.json()


# Status.


@scenario()
async def test_a_status_of_refusal_is_raised_with_what_was_said() -> None:
    refusals = [
        answer("503 Service Unavailable", "Retry-After: 3", body=b"  the database is away\nsecond line"),
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 100\r\n\r\ncut sh",
        b"HTTP/1.1 500 Oh\r\nTransfer-Encoding: chunked\r\n\r\nnonsense",
        b"HTTP/1.1 999 \r\n\r\n",
    ]
    async with playing(*refusals) as server:
        with pytest.raises(portico.StatusError) as caught:
            await portico.fetch(f"{server.url}/health")
        error = caught.value
        assert str(error) == f"{server.url}/health answered 503 Service Unavailable: the database is away"
        assert error.status == 503 and ("Retry-After", "3") in error.headers and error.body.endswith(b"second line")
        for status in (404, 500, 999):
            with pytest.raises(portico.StatusError) as caught:
                async with portico.fetch(server.url):
                    pass
            assert caught.value.status == status


@scenario()
async def test_unchecked_a_refusal_is_an_answer() -> None:
    async with playing(answer("404 Not Found", body=b"no")) as server:
        got = await portico.fetch(server.url, check=False)
        assert (got.status, got.body) == (404, b"no")


@scenario()
async def test_a_refusal_with_a_body_without_end_is_told() -> None:
    async with playing(b"HTTP/1.1 500 Oh\r\n\r\n", repeat=b"x" * 65536) as server:
        with pytest.raises(portico.StatusError) as caught:
            await portico.fetch(server.url)
        assert 0 < len(caught.value.body) <= 65536


@scenario()
async def test_head_has_no_body() -> None:
    async with playing(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n", then="stay") as server:
        got = await portico.fetch(server.url, "head")
        assert got.body == b"" and got.headers.get("Content-Length") == "99999999999" and server.lines == ["HEAD /"]


# Ends that come too early.


@pytest.mark.parametrize("data", [OK, CHUNKED, UNTIL_CLOSE], ids=["length", "chunked", "until close"])
@scenario()
async def test_an_answer_cut_at_any_byte_is_told_from_a_whole_one(data: bytes) -> None:
    least = len(UNTIL_CLOSE) - 5 if data is UNTIL_CLOSE else len(data)
    async with playing(*(data[:size] for size in range(least)), OK) as server:
        for size in range(least):
            with pytest.raises(portico.EndOfStream, match=r"127\.0\.0\.1.* was gone") as caught:
                await portico.fetch(server.url)
            begun = data.find(b"\r\n\r\n") + 4 <= size
            assert ("in the middle of its answer" in str(caught.value)) == begun
            assert b"hello".startswith(caught.value.partial)
            if data is OK:
                assert caught.value.partial == data[:size].partition(b"\r\n\r\n")[2]


@scenario()
async def test_a_reset_is_told_with_what_came_before() -> None:
    async with playing(OK[:-2], then="reset") as server:
        with pytest.raises(portico.EndOfStream) as caught:
            await portico.fetch(server.url)
        assert caught.value.partial in (b"hel", b"")


@scenario()
async def test_a_streamed_answer_that_is_cut_short_raises_at_its_end() -> None:
    async with playing(OK[:-2]) as server:
        pieces = []
        with pytest.raises(portico.EndOfStream):
            async with portico.fetch(server.url) as got:
                async for piece in got:
                    pieces.append(piece)
        assert b"".join(pieces) == b"hel"


# Limits and deadlines.


@scenario()
async def test_a_body_over_the_limit_is_refused() -> None:
    endless = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with playing(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n", then="stay") as server:
        with pytest.raises(portico.MessageTooLarge, match=r"99999999999.*16777216.*raise max_size"):
            await portico.fetch(server.url)
    async with playing(endless, repeat=b"10000\r\n" + b"x" * 65536 + b"\r\n") as server:
        for size in (0, 100, 200_000):
            with pytest.raises(portico.MessageTooLarge) as caught:
                await portico.fetch(server.url, max_size=size)
            assert caught.value.limit == size and server.url in str(caught.value)
            with pytest.raises(portico.MessageTooLarge):
                async with portico.fetch(server.url, max_size=size) as got:
                    async for _ in got:
                        pass
    async with playing(OK, CHUNKED) as server:
        assert [(await portico.fetch(server.url, max_size=5)).body for _ in range(2)] == [b"hello"] * 2


@scenario()
async def test_streaming_makes_the_server_wait_and_has_no_limit() -> None:
    async with playing(b"HTTP/1.1 200 OK\r\n\r\n", repeat=b"x" * 65536) as server:
        async with portico.fetch(server.url) as got:
            assert await anext(got)
            quiet, before = 0, -1
            while quiet < 20:  # until it can send no more, as nobody reads
                quiet, before = (quiet + 1, before) if server.sent == before else (0, server.sent)
                await asyncio.sleep(0.005)
            taken = 0
            while taken < 24 << 20:
                taken += len(await anext(got))


SLOW = {
    "nothing": b"",
    "half a head": b"HTTP/1.1 200 OK\r\nServer:",
    "interim": b"HTTP/1.1 100 Continue\r\n\r\n",
    "no body": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
    "half a body": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe",
    "half a chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhe",
    "no end": b"HTTP/1.1 200 OK\r\n\r\nhe",
}


@pytest.mark.parametrize("name", SLOW)
@scenario()
async def test_a_silent_server_is_left_when_the_time_is_over(name: str) -> None:
    async with playing(SLOW[name], then="stay") as server:
        with pytest.raises(portico.ClosedError, match=r"127\.0\.0\.1.* did not answer .*within 0.05 s") as caught:
            await portico.fetch(server.url, timeout=0.05)
        assert isinstance(caught.value.__cause__, TimeoutError)
        with pytest.raises(portico.ClosedError, match=r"within 0\.05 s"):
            async with portico.fetch(server.url, timeout=0.05) as got:
                async for _ in got:
                    pass


@scenario()
async def test_a_server_that_dribbles_does_not_move_the_deadline() -> None:
    for data in (b"HTTP/1.1 200 OK\r\nA: " + b"x" * 1000, b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 1000):
        async with playing(data, dribble=0.002) as server:
            with pytest.raises(portico.ClosedError, match="did not answer"):
                await portico.fetch(server.url, timeout=0.1)


@scenario()
async def test_the_deadline_covers_a_refusal_that_hangs() -> None:
    async with playing(b"HTTP/1.1 503 Busy\r\nContent-Length: 5\r\n\r\nhe", then="stay") as server:
        with pytest.raises(portico.StatusError, match="answered 503 Busy: he"):
            await portico.fetch(server.url, timeout=0.05)


HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKS = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
HOSTILE = {
    "endless status line": (HEAD[:-2], b"x" * 1000),
    "endless field": (HEAD + b"A: ", b"x" * 1000),
    "endless fields": (HEAD, b"A: b\r\n" * 100),
    "endless interim responses": (b"", b"HTTP/1.1 103 Hint\r\n\r\n" * 50),
    "endless chunk extension": (CHUNKS + b"1;", b"x" * 1000),
    "endless trailers": (CHUNKS + b"0\r\n", b"A: b\r\n" * 100),
    "both lengths": (HEAD + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", b""),
    "two lengths": (HEAD + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\n", b""),
    "endless length": (HEAD + b"Content-Length: " + b"0" * 5000 + b"3\r\n\r\nabc", b""),
    "huge chunk": (CHUNKS + b"fffffffffffffffff\r\n", b"x" * 1000),
    "another protocol": (b"SSH-2.0-OpenSSH_9.9\r\n", b""),
    "an unasked switch": (b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", b""),
}


@pytest.mark.parametrize("name", HOSTILE)
@scenario()
async def test_a_hostile_answer_is_a_protocol_error(name: str) -> None:
    data, repeat = HOSTILE[name]
    async with playing(data, repeat=repeat, then="stay") as server:
        with pytest.raises(portico.ProtocolError, match=r"^http://127\.0\.0\.1:\d+/ answered ") as caught:
            await portico.fetch(server.url, timeout=5)
        assert "\n" not in str(caught.value) and server.sent < 20 << 20


# Bodies that are sent.


async def pieces(*data: bytes) -> AsyncIterator[bytes]:
    for each in data:
        await asyncio.sleep(0)
        yield each


class Again:
    """A body that can be iterated over again."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        return pieces(b"a", b"", b"bc")


@scenario()
async def test_bodies_of_every_kind_arrive() -> None:
    async with playing(OK) as server:
        for body, type_ in (
            (b"\0\xff", "application/octet-stream"),
            (bytearray(b"x"), "application/octet-stream"),
            ("é", "text/plain; charset=utf-8"),
            (b"", "application/octet-stream"),
            (b"z" * 300_000, "application/octet-stream"),
        ):
            await portico.fetch(server.url, "POST", body=body)
            data = body.encode() if isinstance(body, str) else bytes(body)
            assert server.bodies[-1] == data and server.fields()["content-type"] == type_
            assert server.fields()["content-length"] == str(len(data))
        await portico.fetch(server.url, "PUT", json={"a": "é"}, headers={"Content-Type": "application/x+json"})
        assert server.bodies[-1] == b'{"a": "\\u00e9"}' and server.fields()["content-type"] == "application/x+json"
        await portico.fetch(server.url, "POST")
        assert server.fields()["content-length"] == "0" and "content-type" not in server.fields()


@scenario()
async def test_what_has_a_body_is_a_post_unless_said_otherwise() -> None:
    async with playing(OK) as server:
        for arguments in ({"body": "hi"}, {"body": b""}, {"json": [1]}, {"json": None}, {"body": pieces(b"hi")}):
            await portico.fetch(server.url, **arguments)  # type: ignore[arg-type]
        assert server.bodies == [b"hi", b"", b"[1]", b"null", b"hi"]
        assert {line.split()[0] for line in server.lines} == {"POST"}
        await portico.fetch(server.url, "GET", body="hi")
        await portico.fetch(server.url, body=None)
        assert [line.split()[0] for line in server.lines[5:]] == ["GET", "GET"]


@scenario()
async def test_a_body_that_comes_in_pieces_is_sent_as_it_comes() -> None:
    async with playing(OK) as server:
        await portico.fetch(server.url, "PUT", body=pieces(b"a", b"", b"bc"))
        assert server.bodies == [b"abc"] and server.fields()["transfer-encoding"] == "chunked"
        await portico.fetch(server.url, "PUT", body=pieces(b"a", b"", b"bc"), headers={"content-length": "3"})
        assert server.bodies[-1] == b"abc" and "transfer-encoding" not in server.fields()
        again = portico.fetch(server.url, "POST", body=Again())
        await again
        await again
        assert server.bodies[-2:] == [b"abc"] * 2


@pytest.mark.parametrize("length", ["2", "4"])
@scenario()
async def test_a_body_that_does_not_fit_its_length_is_not_sent_as_if_it_did(length: str) -> None:
    async with playing(OK) as server:
        with pytest.raises(portico.ConfigurationError, match=f"Content-Length is {length}"):
            await portico.fetch(server.url, "PUT", body=pieces(b"a", b"bc", b""), headers={"Content-Length": length})
        assert server.bodies in ([], [b"a"])


@scenario()
async def test_what_a_body_raises_is_raised_and_nothing_looks_whole() -> None:
    closed = []

    async def failing() -> AsyncIterator[bytes]:
        try:
            yield b"a"
            raise KeyError("mine")
        finally:
            closed.append(True)

    async with playing(OK) as server:
        with pytest.raises(KeyError, match="mine"):
            await portico.fetch(server.url, "PUT", body=failing())
        with pytest.raises(portico.ConfigurationError, match="bytes, not str"):
            await portico.fetch(server.url, "PUT", body=pieces("a"))  # type: ignore[arg-type]
        assert closed and server.bodies == []


@scenario()
async def test_an_answer_that_comes_before_the_body_was_sent_counts() -> None:
    closed = []

    async def endless() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"x" * 65536
        finally:
            closed.append(True)

    for body in (b"x" * 8_000_000, endless()):
        async with playing(answer("413 Too Large", body=b"less"), deaf=True, then="stay") as server:
            with pytest.raises(portico.StatusError, match="answered 413 Too Large: less"):
                await portico.fetch(server.url, "PUT", body=body)
        async with playing(OK, deaf=True) as server:
            with contextlib.suppress(portico.EndOfStream):  # the server resets what it has not read
                assert (await portico.fetch(server.url, "PUT", body=b"x" * 8_000_000)).body == b"hello"
    assert closed


# The call.


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"url": "ftp://localhost/"}, "no scheme"),
        ({"url": "tcp://localhost:80"}, "no URL of http, https or http"),
        ({"url": "http://u:p@localhost/"}, "no user name or password"),
        ({"url": "http://localhost/ä"}, "percent-encode"),
        ({"url": "http://*:80/"}, "every interface"),
        ({"url": "http://localhost:0/"}, "port 0"),
        ({"method": "GE T"}, "no HTTP method"),
        ({"method": "connect"}, "proxy="),
        ({"headers": {"A": "b\r\nC: d"}}, "CR, LF or NUL"),
        ({"headers": {"transfer-encoding": "chunked"}}, "'Transfer-Encoding' is fetch's own"),
        ({"headers": {"Content-Length": "7"}}, "the body has 0 bytes"),
        ({"headers": {"Content-Length": "x"}}, "one number"),
        ({"body": 3}, "not int"),
        ({"body": "x", "json": 1}, "exclude"),
        ({"json": {1, 2}}, "cannot be written as JSON"),
        ({"json": float("nan")}, "cannot be written as JSON"),
        ({"credentials": ("a:b", "c")}, "has a user without ':'"),
        ({"credentials": "a b"}, "bearer token"),
        ({"credentials": "token", "headers": {"authorization": "x"}}, "say the same"),
        ({"timeout": 0}, "more than 0"),
        ({"max_redirects": -1}, "must not be negative"),
        ({"max_size": -1}, "must not be negative"),
        ({"proxy": "gopher://x"}, "the URL of a proxy"),
        ({"url": "http+unix:/run/x.sock:/", "proxy": "socks5://localhost"}, "cannot be reached through a proxy"),
    ],
)
def test_what_cannot_work_is_told_at_the_call(arguments: dict[str, object], said: str) -> None:
    with pytest.raises((portico.ConfigurationError, portico.AddressError), match=said):
        portico.fetch(**{"url": "http://localhost/", **arguments})  # type: ignore[arg-type]


@scenario()
async def test_the_callers_header_fields_take_the_place_of_ours() -> None:
    async with playing(OK) as server:
        given = [("Host", "virtual.example"), ("user-agent", "probe/1"), ("X", "1"), ("X", "2"), ("accept", "a/b")]
        await portico.fetch(server.url, headers=given, credentials=("Aladdin", "open sesame"))
        head = server.heads[0].lower()
        assert server.fields()["host"] == "virtual.example" and server.fields()["user-agent"] == "probe/1"
        assert head.count("host:") == head.count("user-agent:") == head.count("\r\naccept:") == 1
        assert "x: 1\r\nx: 2" in head
        assert server.fields()["authorization"] == "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="  # RFC 7617, section 2
        await portico.fetch(server.url, credentials="mF_9.B5f-4.1JqM")
        assert server.fields()["authorization"] == "Bearer mF_9.B5f-4.1JqM"  # RFC 6750, section 2.1
        plain = server.url.removeprefix("http://")
        assert (await portico.fetch(plain)).body == b"hello"


@scenario()
async def test_unix_sockets(tmp_path: Path) -> None:
    async with playing(OK, unix=tmp_path / "s") as server:
        got = await portico.fetch(f"{server.url}/v1/info?all=1")
        assert got.body == b"hello" and server.lines == ["GET /v1/info?all=1"]
        assert server.fields()["host"] == "localhost" and str(got.url) == f"{server.url}/v1/info?all=1"
    said = rf"^cannot connect to http\+unix:{tmp_path}/none:/; unix:{tmp_path}/none: connect: no such file"
    with pytest.raises(portico.ConnectError, match=said):
        await portico.fetch(f"http+unix:{tmp_path}/none")


@scenario()
async def test_a_connection_that_does_not_come_about_is_told_with_the_url_and_the_address() -> None:
    nobody, there = free_port(), free_port()
    with pytest.raises(portico.ConnectError) as caught:
        await portico.fetch(f"http://127.0.0.1:{nobody}/x?y")
    place = f"127.0.0.1:{nobody}"
    said = f"cannot connect to http://{place}/x?y; tcp://{place}: connect: connection refused after "
    assert str(caught.value).startswith(said)
    assert isinstance(caught.value.__cause__, ConnectionRefusedError) and str(caught.value.address).startswith("http:")
    async with playing(redirect(302, f"http://127.0.0.1:{there}/z")) as server:
        with pytest.raises(portico.ConnectError, match=f"^cannot connect to http://127.0.0.1:{there}/z; tcp:"):
            await portico.fetch(server.url)


@scenario()
async def test_retry_waits_for_a_server_that_starts() -> None:
    address = f"127.0.0.1:{free_port()}"
    retry = portico.Retry(attempts=None, first=0.01, maximum=0.01)
    with pytest.raises(portico.ConnectError, match="connection refused"):
        await portico.fetch(f"http://{address}", retry=portico.Retry(attempts=2, first=0.01))
    asking = asyncio.ensure_future(portico.fetch(f"http://{address}", retry=retry)._whole())
    await asyncio.sleep(0)

    async def later(stream: portico.Stream) -> None:
        await stream.recv_until(b"\r\n\r\n")
        await stream.send(OK)

    async with portico.serve(later, f"tcp://{address}"):
        assert (await asking).body == b"hello"


# Cancelling.


@pytest.mark.parametrize("name", [*SLOW, "connecting"])
@scenario()
async def test_cancelled_anywhere_it_leaves_nothing(name: str) -> None:
    data = SLOW.get(name, b"")
    async with playing(data, then="stay") as server:
        for body in (None, b"x" * 4_000_000, Again()):
            for streamed in (False, True):

                async def ask(streamed: bool = streamed, body: object = body) -> None:
                    asking = portico.fetch(server.url, "PUT", body=body)  # type: ignore[arg-type]
                    if not streamed:
                        await asking
                    async with asking as got:
                        await got.read()

                heard = len(server.bodies)
                task = asyncio.ensure_future(ask())
                while len(server.bodies) == heard and name != "connecting":
                    await asyncio.sleep(0.001)
                for _ in range(3):
                    await asyncio.sleep(0)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
