"""A listener of the web that is full: it says so in HTTP, so that clients come back, and nobody waits for long."""

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator
from typing import Any

import pytest
import websockets
from server.support import EVERYWHERE, Certificates, certificates, clients, echo, scenario, until, wait_for_end

import portico
from portico import Limits
from portico.errors import ConnectError, StatusError
from portico.server import listener

from .http_kit import browser, door_of

__all__ = ["certificates"]

FULL = Limits(max_connections=1, when_full="reject")
BUSY = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


@contextlib.asynccontextmanager
async def full(address: str = "ws://127.0.0.1:0/", **settings: Any) -> AsyncIterator[portico.Server]:
    """A server whose one place is taken."""
    handler: Any = door_of() if address.startswith("http") else echo
    service = portico.Service().listen(address, handler, **{"limits": FULL, **settings})
    async with portico.serve(service) as server, clients(server.address.carrier):
        await until(lambda: server.stats.open == 1)
        yield server


@scenario(EVERYWHERE)
async def test_who_is_over_a_limit_is_answered_with_503() -> None:
    async with full() as server, browser(server.address) as client:
        answer = await client.ask("GET /")
        assert answer.raw == BUSY and answer.body == b""
        assert await client.is_over()
        assert server.stats.rejected_full == 1 and server.stats.bytes_sent == 0


@scenario()
async def test_the_same_holds_for_http_and_unix_sockets() -> None:
    with tempfile.TemporaryDirectory() as directory:
        for address in ("http://127.0.0.1:0", f"ws+unix:{directory}/ws:/", f"http+unix:{directory}/http:/"):
            async with full(address) as server, clients(server.address.carrier) as (client,):
                await client.send(b"GET")
                assert await client.recv_all() == BUSY


@scenario()
async def test_limits_per_address_are_told_likewise() -> None:
    limits = Limits(max_per_address=1, trust_loopback=False)
    async with full(limits=limits) as server, browser(server.address) as client:
        assert (await client.ask("GET /")).status == 503
        assert server.stats.rejected_address == 1


@scenario(EVERYWHERE)
async def test_what_comes_after_the_answer_makes_no_reset() -> None:
    async with full() as server, clients(server.address.carrier) as (client,):
        await client.send(b"GET / HTTP/1.1\r\n")
        assert await client.recv_exactly(len(BUSY)) == BUSY
        for _ in range(3):
            await client.send(b"Host: a\r\n\r\n" + bytes(100_000))
            await asyncio.sleep(0)
        assert await client.recv() == b""


@scenario()
async def test_who_asks_nothing_is_answered_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "REQUEST_TIME", 0.05)
    async with full() as server, clients(server.address.carrier) as (client,):
        assert await client.recv_all() == BUSY


@scenario()
async def test_a_real_client_hears_503() -> None:
    async with full() as server:
        for _ in range(20):
            with pytest.raises(websockets.InvalidStatus) as caught:
                await websockets.connect(str(server.address), proxy=None)
            assert caught.value.response.status_code == 503
            assert caught.value.response.headers["Retry-After"] == "1"


@scenario()
async def test_reconnecting_comes_in_when_there_is_room() -> None:
    async with portico.serve(echo, "ws://127.0.0.1:0/", limits=FULL) as server:
        first = await portico.connect(server.address)
        retry = portico.Retry(attempts=None, first=0.01)
        coming = portico.reconnecting(server.address, retry=retry)
        came: asyncio.Task[Any] = asyncio.ensure_future(anext(aiter(coming)))
        await until(lambda: server.stats.rejected_full)
        assert not came.done()
        await first.close()
        channel = await came
        await channel.send("in")
        assert await channel.recv() == "in"
        await channel.close()


@scenario()
async def test_connect_names_the_status() -> None:
    async with full() as server:
        with pytest.raises(ConnectError) as caught:
            await portico.connect(server.address)
        cause = caught.value.__cause__
        assert isinstance(cause, StatusError) and cause.status == 503


@scenario()
async def test_a_refusal_that_is_given_comes_before() -> None:
    limits = Limits(max_connections=1, when_full="reject", refusal=b"full\n")
    async with full(limits=limits) as server, clients(server.address.carrier) as (client,):
        await client.send(b"GET / HTTP/1.1\r\n\r\n")
        assert await client.recv_all() == b"full\n"


@scenario()
async def test_who_is_denied_is_told_nothing() -> None:
    async with portico.serve(echo, "ws://127.0.0.1:0/", deny=["loopback"]) as server:
        async with clients(server.address.carrier) as (client,):
            assert await client.is_over()
        assert server.stats.rejected_denied == 1


@scenario()
async def test_over_tls_nothing_is_said(certificates: Certificates) -> None:
    async with full("wss://localhost:0/", tls=certificates.server()) as server:
        async with clients(server.addresses[0].carrier.replace(host="127.0.0.1")) as (client,):
            assert await client.is_over()


@scenario()
async def test_other_listeners_say_nothing() -> None:
    async with portico.serve(wait_for_end, "tcp://127.0.0.1:0", limits=FULL) as server:
        async with clients(server.address, 2) as (_, client):
            assert await client.is_over()


@scenario()
async def test_clients_behind_a_proxy_are_answered_likewise() -> None:
    limits = Limits(max_per_address=1, trust_loopback=False)
    service = portico.Service().listen("ws://127.0.0.1:0/", echo, limits=limits, proxied_by=["loopback"])
    async with portico.serve(service) as server, clients(server.address.carrier, 2) as (one, two):
        header = b"PROXY TCP4 192.0.2.7 192.0.2.1 1000 80\r\n"
        request = header + b"GET /elsewhere HTTP/1.1\r\nHost: a\r\n\r\n"
        await one.send(request)
        assert (await one.recv()).startswith(b"HTTP/1.1 404")
        await two.send(request)
        assert await two.recv_all() == BUSY
    service = portico.Service().listen("ws://127.0.0.1:0/", echo, deny=["192.0.2.7"], proxied_by=["loopback"])
    async with portico.serve(service) as server, clients(server.address.carrier) as (one,):
        await one.send(header)
        assert await one.is_over()


@scenario(EVERYWHERE)
async def test_who_stays_is_gone_with_the_server() -> None:
    async with full() as server, clients(server.address.carrier, 5) as staying:
        for client in staying[:3]:
            await client.send(b"GET")
            assert await client.recv_exactly(len(BUSY)) == BUSY
    # and `scenario` finds no descriptor of the server's


@scenario()
async def test_who_stays_is_hung_up_on_after_two_seconds() -> None:
    loop = asyncio.get_running_loop()
    async with full() as server, clients(server.address.carrier) as (client,):
        begun = loop.time()
        await client.send(b"GET")
        assert await client.recv_all() == BUSY

        async def sends_on() -> None:
            while True:
                await client.send(b"more")
                await asyncio.sleep(0.05)

        with pytest.raises(ConnectionError):
            await sends_on()
        assert 1.5 < loop.time() - begun < 4


@scenario()
async def test_of_a_crowd_only_some_are_listened_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "MAX_REFUSED", 2)
    async with full() as server, clients(server.address.carrier, 5) as crowd:
        for client in crowd[:2]:
            await client.send(b"GET")
        for client in crowd:
            assert await client.recv_all() == BUSY
        refusals = server.listeners[0].refusals  # type: ignore[attr-defined]
        assert len(refusals._open) == 2
        for client in crowd[:2]:
            client.end()
        await until(lambda: not refusals._open)
        async with clients(server.address.carrier) as (late,):
            await late.send(b"GET")
            assert await late.recv_all() == BUSY
