"""`door.health`: fails as soon as a drain begins, and when a check says so."""

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable

import pytest
from ports import free_port
from server.support import client_of, scenario, until

import portico
from portico.errors import ConfigurationError
from portico.server.service import current_server
from portico.web.door import Door
from portico.web.health import Health
from portico.web.request import Request

from .front_kit import Front, front

DRAINING = b"draining\n"


def door_of(*checks: Callable[[], bool | Awaitable[bool | None] | None]) -> Door:
    door = Door()
    door.health(checks=checks)
    return door


@scenario()
async def test_a_server_that_is_well_says_ok() -> None:
    async with front(door_of()) as client:
        got = await client.ask("/healthz")
        assert (got.status, got.body, got.headers["cache-control"]) == (200, b"ok\n", "no-store")
        assert (await client.ask("/healthz", method="HEAD")).status == 200
        assert await client.curl(f"{client.url}/healthz") == b"ok\n"


@scenario()
async def test_it_fails_first_and_listening_ends_after_the_delay() -> None:
    reached = asyncio.Event()
    door = door_of()

    async def slow(request: Request) -> str:
        reached.set()
        assert not request.draining
        await request.draining
        return "ended"

    door.get("/slow", slow)
    async with front(door, portico.Service(drain_delay=30), port=free_port()) as client:
        server = client.server
        await client.ask("/healthz")
        working = Front(server, await client_of(server.address))
        await working.send("/slow")
        await reached.wait()
        drain = asyncio.ensure_future(server.drain())
        await until(lambda: server.leaving)
        for _ in range(2):  # the load balancer's connection stays
            got = await client.ask("/healthz")
            assert (got.status, got.body) == (503, DRAINING) and "connection" not in got.headers
        fresh = Front(server, await client_of(server.address))
        assert (await fresh.ask("/healthz")).status == 503
        assert not server.draining and not drain.done()
        server.close()  # ends the delay
        assert (await working.reply()).body == b"ended"
        await drain
        with pytest.raises(ConnectionRefusedError):
            await client_of(server.address)
        assert await client.rest() == b""
        working.client.close()
        fresh.client.close()


@scenario()
async def test_without_a_delay_a_request_under_way_learns_of_the_drain() -> None:
    door, health = Door(), Health()
    reached = asyncio.Event()

    async def late(request: Request) -> portico.Response:
        reached.set()
        await request.draining
        return await health(request)

    door.get("/healthz", late)
    async with front(door) as client:
        await client.send("/healthz")
        await reached.wait()
        drain = asyncio.ensure_future(client.server.drain())
        got = await client.reply()
        assert (got.status, got.body, got.headers["connection"]) == (503, DRAINING, "close")
        await drain


@scenario()
async def test_a_short_delay_passes_by_itself() -> None:
    async with front(door_of(), portico.Service(drain_delay=0.05)) as client:
        begun = asyncio.get_running_loop().time()
        await client.server.drain()
        assert asyncio.get_running_loop().time() - begun >= 0.04


@scenario()
async def test_there_is_no_delay_where_there_is_no_time_or_nothing_listens() -> None:
    for end in (lambda server: server.drain(0), lambda server: server.abort()):
        async with front(door_of(), portico.Service(drain_delay=60)) as client:
            await end(client.server)
            assert client.server.leaving and client.server.draining
    async with front(door_of(), portico.Service(drain_delay=60)) as client:
        client.client.close()
        client.server.close()
        await client.server.drain()


@scenario()
async def test_a_second_signal_ends_the_delay() -> None:
    async with front(door_of(), portico.Service(drain_delay=60)) as client:
        drain = asyncio.ensure_future(client.server.drain())
        await until(lambda: client.server.leaving)
        drain.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await drain
        await client.server.abort()
        assert client.server.draining


def test_a_negative_delay_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="drain_delay"):
        portico.Service(drain_delay=-1)


@scenario()
async def test_checks_say_what_has_failed_and_not_why() -> None:
    def well() -> bool:
        return True

    async def fine() -> None:
        return None

    def database() -> bool:
        return False

    async def cache() -> bool:
        raise ConnectionError("password=secret")

    def disk() -> None:
        raise TimeoutError("disk")

    async with front(door_of(well, fine)) as client:
        assert (await client.ask("/healthz")).status == 200
    async with front(door_of(well, database, fine, cache, disk)) as client:
        got = await client.ask("/healthz")
        assert (got.status, got.body) == (503, b"failed: database, cache, disk\n")


@scenario()
async def test_plain_checks_run_in_threads_and_know_their_server() -> None:
    seen: list[object] = []

    def plain() -> bool:
        seen.extend((threading.current_thread() is threading.main_thread(), current_server()))
        return True

    async with front(door_of(plain)) as client:
        assert (await client.ask("/healthz")).status == 200
        assert seen == [False, client.server]


@scenario()
async def test_a_check_that_hangs_has_failed_in_time() -> None:
    goes_on = threading.Event()

    async def endless() -> bool:
        await asyncio.Event().wait()
        return True

    def stuck() -> bool:
        return goes_on.wait(10)

    door = Door()
    door.get("/healthz", Health({"a": endless, "b": stuck, "c": lambda: True}, timeout=0.05))
    async with front(door) as client:
        got = await client.ask("/healthz")
        assert (got.status, got.body) == (503, b"failed: a, b\n")
        goes_on.set()


class Pool:
    def __init__(self, well: bool) -> None:
        self.well = well

    def ping(self) -> bool:
        return self.well


@scenario()
async def test_checks_of_one_name_are_told_apart_by_a_mapping() -> None:
    checks = [Pool(False).ping, Pool(True).ping]
    with pytest.raises(ConfigurationError, match="two checks are called 'ping': give a mapping"):
        door_of(*checks)
    door = Door()
    door.health(checks=dict(zip(("first", "second"), checks, strict=True)), timeout=3)
    async with front(door) as client:
        assert (await client.ask("/healthz")).body == b"failed: first\n"


@pytest.mark.parametrize("timeout", [0, -1, "1", True, None])
def test_a_timeout_of_checks_is_seconds(timeout: object) -> None:
    with pytest.raises(ConfigurationError, match="health: timeout"):
        Door().health(timeout=timeout)  # type: ignore[arg-type]


def test_what_cannot_be_called_is_no_check() -> None:
    with pytest.raises(ConfigurationError, match="'database' is a function"):
        Health({"database": True})  # type: ignore[dict-item]


@scenario()
async def test_nobody_but_handlers_has_a_current_server() -> None:
    seen: list[object] = []

    async def look(stream: portico.Stream) -> None:
        seen.append(current_server())

    async with portico.serve(look, "tcp://127.0.0.1:0") as server:
        assert current_server() is None
        client = await client_of(server.address)
        assert await client.recv() == b""
        client.close()
        assert seen == [server]
    assert current_server() is None
