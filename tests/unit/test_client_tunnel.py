"""What is said to proxies: each protocol, each refusal, and every way for them to go wrong."""

import asyncio
import base64
import contextlib
import re
from typing import Any

import pytest
from client_kit import FakeClock, FakeResolver, clock, on_both_loops, wait_until
from ports import free_port
from proxy_kit import (
    ADDRESS,
    HTTP_YES,
    PORT,
    SOCKS4_ASK,
    SOCKS4_YES,
    SOCKS5_ASK,
    SOCKS5_YES,
    TALKS,
    TARGET,
    URLS,
    Steps,
    cut,
    failure,
    playing,
    reason_of,
)

from portico._core import Lines
from portico.address import Address
from portico.client import Retry, connect, is_temporary, reconnecting
from portico.client.proxies import Proxy
from portico.client.tunnel import MAX_HEAD, SOCKS4_WORDS, SOCKS5_WORDS
from portico.transports.connection import Channel, Stream

__all__ = ["clock"]


# What is said, and what comes out


@pytest.mark.parametrize("dribble", [False, True], ids=["at once", "byte by byte"])
@pytest.mark.parametrize("name", TALKS)
@on_both_loops
async def test_the_proxy_is_told_the_target_and_early_bytes_are_kept(name: str, dribble: bool) -> None:
    *steps, (wanted, answer) = TALKS[name]
    async with playing([*steps, (wanted, answer + b"early\nmore\n")], dribble=dribble) as played:
        async with connect(TARGET, proxy=played.url(URLS[name]), codec=Lines(), timeout=5) as channel:
            assert type(channel) is Channel
            assert [await channel.recv(), await channel.recv()] == ["early", "more"]
            assert str(channel.remote_address) == TARGET
            assert channel.socket.getpeername()[1] == played.address.port
        if name == "http":
            lines = played.heard[0].split(b"\r\n")
            assert lines[:2] == [b"CONNECT 192.0.2.7:4711 HTTP/1.1", b"Host: 192.0.2.7:4711"]
            assert not any(each.startswith(b"Proxy-Authorization") for each in lines)
        else:
            assert played.heard == [each for each, _ in TALKS[name]]


@on_both_loops
async def test_without_a_codec_it_is_a_stream_and_settings_reach_it() -> None:
    async with playing(TALKS["socks5"]) as played:
        async with connect(TARGET, proxy=played.url("socks5://"), read_limit=1000, options={"keepalive": True}) as it:
            assert type(it) is Stream
            assert it.settings.read_limit == 1000 and it.options["keepalive"] is True
            assert it.local_address.scheme == "tcp" and repr(it) == f"<Stream open {TARGET}>"


NAMED = {
    "socks4a://joe@": [(b"\4\1" + PORT + b"\0\0\0\1joe\0far.test\0", SOCKS4_YES)],
    "socks5h://": [(b"\5\1\0", b"\5\0"), (b"\5\1\0\3\x08far.test" + PORT, SOCKS5_YES)],
    "http://": [(b"\r\n\r\n", HTTP_YES)],
}


@pytest.mark.parametrize("start", NAMED)
@on_both_loops
async def test_a_proxy_may_look_the_name_up(start: str) -> None:
    resolver = FakeResolver("192.0.2.1")
    async with playing(NAMED[start]) as played:
        async with connect("tcp://far.test:4711", proxy=played.url(start), resolver=resolver) as stream:
            assert str(stream.remote_address) == "tcp://far.test:4711"
        assert played.heard[-1].startswith(b"CONNECT far.test:4711 ") or played.heard[-1] == NAMED[start][-1][0]
    assert resolver.asked == []


@pytest.mark.parametrize("name", ["socks4", "socks5"])
@on_both_loops
async def test_a_name_looked_up_here_is_tried_address_by_address(name: str) -> None:
    no = b"\0\x5b" + bytes(6) if name == "socks4" else b"\5\5\0\1" + bytes(6)
    asked = [
        (each.replace(ADDRESS, b"\xc0\0\2\1"), no if each is TALKS[name][-1][0] else yes) for each, yes in TALKS[name]
    ]
    resolver = (
        FakeResolver("2001:db8::1", "192.0.2.1", "192.0.2.7")
        if name == "socks4"
        else FakeResolver("192.0.2.1", "192.0.2.7")
    )
    async with playing(asked, TALKS[name]) as played:
        async with connect("tcp://far.test:4711", proxy=played.url(URLS[name]), resolver=resolver) as stream:
            assert str(stream.remote_address) == "tcp://far.test:4711"
        assert played.heard[-1] == TALKS[name][-1][0]


@on_both_loops
async def test_a_refused_password_is_not_tried_with_the_next_address() -> None:
    steps = [(b"\5\2\0\2", b"\5\2"), (b"\1\3joe\6secret", b"\1\1")]
    resolver = FakeResolver("192.0.2.1", "192.0.2.7")
    async with playing(steps) as played:
        error = await failure(
            connect("tcp://far.test:4711", proxy=played.url("socks5://joe:secret@"), resolver=resolver)
        )
        assert reason_of(error, played.address) == "refused the user 'joe' or the password; correct them"
        assert len(error.attempts) == 1


@pytest.mark.parametrize("there", ["far.test", "[2001:db8::1]"])
@on_both_loops
async def test_basic_authentication_in_utf_8(there: str) -> None:
    async with playing(TALKS["http"]) as played:
        await (await connect(f"tcp://{there}:80", proxy=played.url("http://zo%C3%AB:p%40ss%3Aword@"))).close()
        lines = played.heard[0].split(b"\r\n")
        assert lines[0] == f"CONNECT {there}:80 HTTP/1.1".encode()
        assert b"Proxy-Authorization: Basic " + base64.b64encode("zoë:p@ss:word".encode()) in lines


@pytest.mark.parametrize("answer", [b"HTTP/1.0 200 OK\n\n", b"HTTP/1.1 204 \r\n\r\n", b"HTTP/1.1 200\r\nA: b\n\r\n"])
@on_both_loops
async def test_other_ways_of_http_to_say_yes(answer: bytes) -> None:
    async with playing([(b"\r\n\r\n", answer + b"x")]) as played:
        async with connect(TARGET, proxy=played.url("http://")) as stream:
            assert await stream.recv() == b"x"


@pytest.mark.parametrize("bound", [b"\3\x0cproxy.local!", b"\4" + bytes(16), b"\3\0"])
@on_both_loops
async def test_every_kind_of_bound_address(bound: bytes) -> None:
    async with playing([(b"\5\1\0", b"\5\0"), (SOCKS5_ASK, b"\5\0\0" + bound + b"\0\0" + b"x")]) as played:
        async with connect(TARGET, proxy=played.url("socks5://")) as stream:
            assert await stream.recv() == b"x"


# Bad days


@pytest.mark.parametrize("then", ["close", "reset"])
@pytest.mark.parametrize("name", TALKS)
@on_both_loops
async def test_a_proxy_that_goes_away_after_each_byte(name: str, then: str) -> None:
    for steps in cut(TALKS[name]):
        async with playing(steps, then=then) as played:
            error = await failure(connect(TARGET, proxy=played.url(URLS[name]), timeout=5))
            reason = reason_of(error, played.address)
            if then == "close":
                assert reason.startswith("closed the connection before it had answered; check that ")
            else:
                assert re.match("did not answer: .*reset by peer; check that ", reason)
            assert is_temporary(error.attempts[0].error)


@pytest.mark.parametrize("name", TALKS)
@on_both_loops
async def test_a_proxy_that_stalls_after_each_byte(name: str) -> None:
    async def stalls(steps: Steps) -> None:
        async with playing(steps) as played:
            connecting = asyncio.ensure_future(failure(connect(TARGET, proxy=played.url(URLS[name]), timeout=0.3)))
            error = await connecting
            assert error.timeout == 0.3 and len(played.heard) == len(steps)
            reason = reason_of(error, played.address)
            assert reason == "did not answer in time; check what it speaks, and whom it can reach"
            assert is_temporary(error.attempts[0].error)

    await asyncio.gather(*map(stalls, cut(TALKS[name])))


@pytest.mark.parametrize("name", TALKS)
@on_both_loops
async def test_cancelled_while_the_proxy_answers_nothing_is_left(name: str) -> None:
    for steps in cut(TALKS[name]):
        async with playing(steps) as played:
            connecting = asyncio.ensure_future(_made(TARGET, proxy=played.url(URLS[name]), timeout=5))
            await wait_until(lambda played=played, steps=steps: len(played.heard) == len(steps))
            await asyncio.sleep(0)
            connecting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await connecting


async def _made(*arguments: Any, **settings: Any) -> Any:
    return await connect(*arguments, **settings)


GARBAGE = [
    ("socks4", [(SOCKS4_ASK, b"HTTP/1.1 400 Bad Request\r\n\r\n")]),
    ("socks4", [(SOCKS4_ASK, b"\4")]),
    ("socks4", [(SOCKS4_ASK, b"\0\1" + bytes(6))]),
    ("socks5", [(b"\5\1\0", b"H")]),
    ("socks5", [(b"\5\1\0", b"\4\0")]),
    ("socks5", [(b"\5\1\0", b"\5\1")]),
    ("socks5", [(b"\5\1\0", b"\5\2")]),
    ("socks5", [(b"\5\1\0", b"\5\x77")]),
    ("socks5", [(b"\5\1\0", b"\5\0"), (SOCKS5_ASK, b"\1")]),
    ("socks5", [(b"\5\1\0", b"\5\0"), (SOCKS5_ASK, b"\5\0\1\1" + bytes(6))]),
    ("socks5", [(b"\5\1\0", b"\5\0"), (SOCKS5_ASK, b"\5\0\0\2" + bytes(6))]),
    ("socks5", [(b"\5\1\0", b"\5\0"), (SOCKS5_ASK, b"\5\0\0\3\4\xff\xfe\xfd\xfc\0\0")]),
    ("socks5 with a password", [(b"\5\2\0\2", b"\5\2"), (b"\1\3joe\6secret", b"\5\0")]),
    ("http", [(b"\r\n\r\n", b"\5")]),
    ("http", [(b"\r\n\r\n", b"SSH-2.0-OpenSSH_9.2\r\n")]),
    ("http", [(b"\r\n\r\n", b"HTTP/2 200\r\n\r\n")]),
    ("http", [(b"\r\n\r\n", b"HTTP/1.1\r\n\r\n")]),
    ("http", [(b"\r\n\r\n", b"HTTP/1.1 yes\r\n\r\n")]),
    ("http", [(b"\r\n\r\n", b"HTTP/1.1 200 OK" + b"k" * MAX_HEAD)]),
    ("http", [(b"\r\n\r\n", b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * MAX_HEAD)]),
]


@pytest.mark.parametrize(("name", "steps"), GARBAGE, ids=lambda value: repr(value)[-30:])
@on_both_loops
async def test_garbage_is_told_at_once(name: str, steps: Steps) -> None:
    async with playing(steps) as played:
        error = await failure(connect(TARGET, proxy=played.url(URLS[name]), timeout=5))
        protocol = {"socks4": "SOCKS4", "http": "HTTP"}.get(name, "SOCKS5")
        expected = f"answered what is not {protocol}; check that {protocol} is spoken there, without TLS"
        assert reason_of(error, played.address) == expected
        assert not is_temporary(error.attempts[0].error)


@on_both_loops
async def test_a_head_without_end_is_cut_off_though_it_comes_slowly() -> None:
    async with playing([(b"\r\n\r\n", b"HTTP/1.1 200 OK\r\nA: " + b"b" * 5000)]) as played:
        error = await failure(connect(TARGET, proxy=played.url("http://"), timeout=0.2))
        assert "did not answer in time" in reason_of(error, played.address)


@pytest.mark.parametrize("code", SOCKS4_WORDS)
@on_both_loops
async def test_each_refusal_of_socks4(code: int) -> None:
    async with playing([(SOCKS4_ASK, bytes([0, code]) + bytes(6))]) as played:
        error = await failure(connect(TARGET, proxy=played.url("socks4://")))
        assert reason_of(error, played.address) == SOCKS4_WORDS[code].format(target=TARGET)
        assert error.attempts[0].error.code == code
        assert is_temporary(error.attempts[0].error) is (code == 91)


@pytest.mark.parametrize("code", [*SOCKS5_WORDS, 9, 0xF0])
@on_both_loops
async def test_each_refusal_of_socks5(code: int) -> None:
    async with playing([(b"\5\1\0", b"\5\0"), (SOCKS5_ASK, bytes([5, code]))]) as played:
        error = await failure(connect(TARGET, proxy=played.url("socks5://")))
        words = SOCKS5_WORDS.get(code, f"answered with the unknown code {code}")
        assert reason_of(error, played.address) == words.format(target=TARGET)
        assert error.attempts[0].error.code == code
        assert is_temporary(error.attempts[0].error) is (code in (1, 3, 4, 5, 6))


@pytest.mark.parametrize(
    ("start", "said"),
    [
        ("socks5://", "wants a user and a password; give them in its URL, socks5://user:password@host:port"),
        (
            "socks5://joe:secret@",
            "takes no login that is known here: neither none nor a user and a password; use another proxy",
        ),
    ],
)
@on_both_loops
async def test_a_proxy_without_a_way_to_log_in(start: str, said: str) -> None:
    async with playing([(b"\2\0\2" if "joe" in start else b"\1\0", b"\5\xff")]) as played:
        error = await failure(connect(TARGET, proxy=played.url(start)))
        assert reason_of(error, played.address).startswith(said)
        assert not is_temporary(error.attempts[0].error)


DIGEST = b"proxy-authenticate:NTLM\r\nProxy-Authenticate: Digest a=b"


@pytest.mark.parametrize(
    ("start", "answer", "said", "temporary"),
    [
        ("http://", b"407 No", "wants a user and a password; give them in its URL, http://user:pass", False),
        ("http://joe:secret@", b"407 No\r\nProxy-Authenticate: Basic realm=x", "refused the user 'joe' or the", False),
        ("http://joe:secret@", b"407 No\r\n" + DIGEST, "wants a login by Digest or NTLM, and here is only", False),
        ("http://", b"407 No\r\nProxy-Authenticate: {boom}\x1b[2J", "wants a login by boom2J, and", False),
        ("http://joe:secret@", b"401 Unauthorized", "refused the user 'joe' or the password; correct them", False),
        ("http://", b"403 Filtered", f"does not allow connections to {TARGET}: 403 Filtered; ask", False),
        ("http://", b"502 Bad {0} \x1b[2JGateway", f"could not reach {TARGET}: 502 Bad {{0}} [2JGateway; check", True),
        ("http://", b"405 Method Not Allowed", "does not know CONNECT: 405 Method Not Allowed; check", False),
        ("http://", b"302 " + b"x" * 500, "answered 302 " + "x" * 76 + "; check", False),
        ("http://", b"429 Slow down", "answered 429 Slow down; check", True),
    ],
)  # fmt: skip
@on_both_loops
async def test_refusals_of_http(start: str, answer: bytes, said: str, temporary: bool) -> None:
    async with playing([(b"\r\n\r\n", b"HTTP/1.1 " + answer + b"\r\n\r\n<html>")]) as played:
        error = await failure(connect(TARGET, proxy=played.url(start)))
        assert reason_of(error, played.address).startswith(said)
        assert error.attempts[0].error.code == int(answer[:3])
        assert is_temporary(error.attempts[0].error) is temporary


@on_both_loops
async def test_a_proxy_that_nobody_runs() -> None:
    port = free_port()
    error = await failure(connect(TARGET, proxy=f"socks5://127.0.0.1:{port}"))
    assert re.fullmatch(
        rf"cannot connect to {TARGET}; tcp://127.0.0.1:{port}: connect: connection refused after \d\.\d\d s", str(error)
    )


@on_both_loops
async def test_a_proxy_whose_name_is_unknown() -> None:
    resolver = FakeResolver(error=OSError(5, "no answer"))
    error = await failure(connect(TARGET, proxy="http://proxy.test:8080", resolver=resolver))
    assert [(str(each.address), each.stage) for each in error.attempts] == [("tcp://proxy.test:8080", "resolve")]


@on_both_loops
async def test_idle_timeout_ends_the_wait_for_a_proxy() -> None:
    async with playing([(b"\5\1\0", b"\5")]) as played:
        error = await failure(connect(TARGET, proxy=played.url("socks5://"), idle_timeout=0.05))
        assert "(idle_timeout)" in reason_of(error, played.address)


# Chains


@on_both_loops
async def test_a_chain_asks_each_proxy_for_the_next() -> None:
    second = "tcp://192.0.2.9:81"
    hop = [(b"\5\1\0", b"\5\0"), (b"\5\1\0\1\xc0\0\2\x09\0\x51", SOCKS5_YES)]
    async with playing([*hop, (b"\r\n\r\n", HTTP_YES), (SOCKS4_ASK, SOCKS4_YES + b"x")]) as played:
        proxies = [played.url("socks5://"), "http://192.0.2.9:81", Proxy.parse("socks4://192.0.2.8")]
        async with connect(TARGET, proxy=proxies) as stream:
            assert await stream.recv() == b"x"
            assert str(stream.remote_address) == TARGET
        assert played.heard[2].startswith(b"CONNECT 192.0.2.8:1080 ")
    async with playing([*hop, (b"\r\n\r\n", b"HTTP/1.1 407 No\r\n\r\n")]) as played:
        error = await failure(connect(TARGET, proxy=[played.url("socks5://"), "http://192.0.2.9:81"]))
        assert "wants a user" in reason_of(error, Address.parse(second))
    async with playing([hop[0], (hop[1][0], b"\5\2")]) as played:
        error = await failure(connect(TARGET, proxy=[played.url("socks5://"), "http://192.0.2.9:81"]))
        assert reason_of(error, played.address) == f"does not allow connections to {second}; ask whoever runs it"


# Retrying


@on_both_loops
async def test_what_the_proxy_refuses_for_good_is_not_tried_again(clock: FakeClock) -> None:
    async with playing([(b"\r\n\r\n", b"HTTP/1.1 407 No\r\n\r\n")]) as played:
        await failure(connect(TARGET, proxy=played.url("http://"), retry=Retry(jitter=0)))
        assert clock.slept == []


@on_both_loops
async def test_what_the_proxy_cannot_reach_yet_is_tried_again(clock: FakeClock) -> None:
    no = [(b"\r\n\r\n", b"HTTP/1.1 503 Not yet\r\n\r\n")]
    async with playing(no, no, TALKS["http"]) as played:
        async with connect(TARGET, proxy=played.url("http://"), retry=Retry(jitter=0)):
            assert clock.slept == [0.5, 1.0]


@on_both_loops
async def test_a_connection_that_comes_back_comes_through_the_proxy(clock: FakeClock) -> None:
    async with playing(TALKS["socks5"], TALKS["socks5"]) as played:
        async with contextlib.aclosing(reconnecting(TARGET, proxy=played.url("socks5://"))) as connections:
            seen = []
            async for stream in connections:
                seen.append(str(stream.remote_address))
                if len(seen) == 2:
                    break
            assert seen == [TARGET, TARGET]
