"""Which failed handshakes are tried again, and when."""

import asyncio
import contextlib
from email.utils import formatdate
from typing import Any

import pytest
from ports import free_port
from server.support import scenario
from unit.client_kit import FakeClock, clock

import portico
from portico import Retry
from portico.client import is_temporary, retry
from portico.client.retry import MAX_RETRY_AFTER, asked_delay
from portico.errors import Attempt, ClosedError, ConnectError, EndOfStream, ProtocolError, StatusError, TLSError

from .support import HELLO, YES, Peer, answer, failure, playing

__all__ = ["clock"]

HERE = portico.Address.parse("ws://192.0.2.1/")


def caused(error: BaseException, cause: BaseException | None) -> BaseException:
    error.__cause__ = cause
    return error


def ended(status: int, *headers: tuple[str, str]) -> ConnectError:
    return ConnectError(HERE, [Attempt(HERE, "handshake", StatusError(status, headers=headers), 0.1)])


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_a_server_in_trouble_is_worth_another_try(status: int) -> None:
    assert is_temporary(StatusError(status))
    assert Retry().is_worth_it(ended(status))


@pytest.mark.parametrize("status", [101, 111, 200, 302, 400, 401, 403, 404, 405, 410, 426, 431, 501, 505])
def test_a_server_that_says_no_is_not(status: int) -> None:
    assert not is_temporary(StatusError(status))
    assert not Retry().is_worth_it(ended(status))


@pytest.mark.parametrize(
    ("error", "temporary"),
    [
        (EndOfStream(), True),
        (ClosedError("gone"), True),
        (caused(ClosedError("gone"), ConnectionResetError()), True),
        (caused(ClosedError("gone"), TLSError("bad certificate")), False),
        (TimeoutError(), True),
        (ProtocolError("no"), False),
    ],
    ids=repr,
)
def test_a_peer_that_hangs_up_is_worth_another_try_and_one_that_speaks_otherwise_is_not(
    error: BaseException, temporary: bool
) -> None:
    assert is_temporary(error) is temporary


def test_the_handshake_has_the_last_word() -> None:
    refused = Attempt(HERE, "connect", ConnectionRefusedError(), 0.1)
    error = ConnectError(HERE, [refused, *ended(401).attempts])
    assert not Retry().is_worth_it(error)


NOW = 1_000_000_000
THEN = formatdate(NOW + 120, usegmt=True)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ([], 0.0),
        ([("retry-after", "7")], 7.0),
        ([("Retry-After", " 0 ")], 0.0),
        ([("Retry-After", "100000")], MAX_RETRY_AFTER),
        ([("Retry-After", "-1")], 0.0),
        ([("Retry-After", "1.5")], 0.0),
        ([("Retry-After", "soon")], 0.0),
        ([("Retry-After", "9" * 400)], 0.0),
        ([("Retry-After", THEN), ("Date", formatdate(NOW, usegmt=True))], 120.0),
        ([("Retry-After", THEN), ("Date", formatdate(NOW + 200, usegmt=True))], 0.0),
        ([("Retry-After", THEN)], 0.0),
        ([("Retry-After", "Fri, 31 Dec 9999 23:59:59 GMT")], MAX_RETRY_AFTER),
        ([("Retry-After", "Fri, 99 Dec 9999999 23:59:59 GMT")], 0.0),
    ],
    ids=repr,
)
def test_retry_after_is_read_as_seconds_or_a_date(headers: list[tuple[str, str]], seconds: float) -> None:
    assert asked_delay(ended(503, *headers)) == seconds


def test_only_the_end_of_the_story_asks_for_a_delay() -> None:
    refused = Attempt(HERE, "connect", ConnectionRefusedError(), 0.1)
    asked = ended(503, ("Retry-After", "7")).attempts
    assert asked_delay(ConnectError(HERE, [*asked, refused])) == 0.0
    assert asked_delay(ConnectError(HERE, [])) == 0.0


@scenario()
async def test_a_503_is_tried_again_after_its_retry_after(clock: FakeClock) -> None:
    busy = answer("503 Service Unavailable", "Retry-After: 7")
    async with playing(busy, answer("429 Too Many Requests"), YES.encode() + HELLO) as server:
        async with contextlib.aclosing(portico.reconnecting(server.address)) as connections:
            channel: Any = await anext(connections)
            assert await channel.recv() == "hello"
            channel.abort()
        assert clock.slept == [7.5, 1.0]


@scenario()
async def test_connect_waits_for_it_too(clock: FakeClock) -> None:
    busy = answer("503 Service Unavailable", "Retry-After: 7")
    async with playing(busy) as server:
        error = await failure(portico.connect(server.address, retry=Retry(attempts=3, jitter=0.0)))
        assert [str(each.error) for each in error.attempts] == [
            f"{server.address} answered 503 Service Unavailable"
        ] * 3
        assert error.address == server.address
        assert clock.slept == [7.5, 8.0]


@pytest.mark.parametrize(
    "reply",
    [answer("401 Unauthorized"), answer("403 Forbidden", "Retry-After: 1"), answer("404 Not Found"), "nonsense"],
)
@scenario()
async def test_what_stays_stops_it(clock: FakeClock, reply: str) -> None:
    async with playing(reply) as server:
        error = await failure(anext(portico.reconnecting(server.address)))
        assert error.address == server.address and error.attempts[-1].stage == "handshake"
        assert clock.slept == []


@scenario()
async def test_a_server_that_restarts_is_found_again(clock: FakeClock) -> None:
    async def hang_up(peer: Peer) -> None:
        pass

    async def greet(peer: Peer) -> None:
        await peer.send(YES.encode() + HELLO)
        await peer.until_gone()

    heard = []
    async with playing(hang_up, greet, hang_up, greet) as server:
        async with contextlib.aclosing(portico.reconnecting(server.address)) as connections:
            async for channel in connections:
                some: Any = channel
                heard.append(await some.recv())
                some.abort()
                if len(heard) == 2:
                    break
    assert heard == ["hello", "hello"]


@scenario()
async def test_nobody_there_is_tried_again(clock: FakeClock) -> None:
    error = await failure(portico.connect(f"ws://127.0.0.1:{free_port()}/", retry=Retry(attempts=2)))
    assert [each.stage for each in error.attempts] == ["connect", "connect"]


@scenario()
async def test_cancelled_while_it_waits_for_retry_after(monkeypatch: pytest.MonkeyPatch) -> None:
    sleeps = asyncio.Event()

    async def sleep(seconds: float) -> None:
        sleeps.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(retry, "sleep", sleep)
    async with playing(answer("503 Service Unavailable", "Retry-After: 100")) as server:
        waiting = asyncio.ensure_future(anext(portico.reconnecting(server.address)))
        await sleeps.wait()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
