"""Bad days of opening handshakes: offers and answers made to cost, who vanishes, who is slow, who says odd things."""

import asyncio
import time
from typing import Any

import pytest
from server.support import clients, echo, scenario, until

import portico
from portico import Deflate, WebSocketSettings
from portico.errors import ConnectError, EndOfStream, ProtocolError, StatusError
from portico.protocols.deflate import parse_extensions

from .support import YES, answer, failure, playing, request, status_from

COSTLY = {
    "parameters": "permessage-deflate" + ";a" * 7_000,
    "the same parameter": "permessage-deflate" + ";client_max_window_bits" * 600,
    "alternatives": ",".join(["permessage-deflate;x=1"] * 600),
    "commas": "," * 15_000,
    "blanks": " \t" * 7_000,
    "an open quote": 'permessage-deflate;a="' + "\\a" * 7_000,
    "quotes": "permessage-deflate" + ';a="b"' * 2_000,
}


@pytest.mark.parametrize("offer", COSTLY.values(), ids=COSTLY)
def test_an_offer_costs_no_more_than_its_length(offer: str) -> None:
    begun = time.process_time()
    for _ in range(10):
        try:
            Deflate().accept([offer])
            parse_extensions([offer] * 3)
        except ProtocolError:
            pass
    assert time.process_time() - begun < 10  # a tenth of that, on a slow machine; by the square it would be minutes


@pytest.mark.parametrize("offer", COSTLY.values(), ids=COSTLY)
@scenario(("uvloop",))
async def test_a_costly_offer_is_no_compression_or_refused(offer: str) -> None:
    async with portico.serve(echo, "ws://127.0.0.1:0/") as server, clients(server.address) as (client,):
        await client.send(request(f"Sec-WebSocket-Extensions: {offer}"))
        assert await status_from(client) in (101, 400)


@scenario()
async def test_a_head_that_dribbles_is_given_up() -> None:
    door = portico.Door(head_timeout=0.3)
    door.websocket("/", echo)
    async with portico.serve(door, "http://127.0.0.1:0") as server, clients(server.address) as (client,):

        async def dribble() -> None:
            for byte in request():
                await client.send(bytes([byte]))
                await asyncio.sleep(0.02)

        dribbling = asyncio.ensure_future(dribble())
        assert await status_from(client) == 408
        dribbling.cancel()
        await asyncio.wait([dribbling])
        assert server.stats.protocol_errors == 1


@scenario()
async def test_authorize_may_learn_that_the_client_has_gone() -> None:
    told = asyncio.Event()

    async def authorize(asking: Any) -> bool:
        waiting.set()
        await asking.gone
        told.set()
        return True

    waiting = asyncio.Event()
    settings = WebSocketSettings(authorize=authorize)
    async with portico.serve(echo, "ws://127.0.0.1:0/", websocket=settings) as server:
        async with clients(server.address) as (client,):
            await client.send(request())
            await waiting.wait()
            client.reset()
            await told.wait()
            await until(lambda: not server.stats.open)
            assert server.stats.handler_errors == 0


# clients


@scenario()
async def test_a_reason_does_nothing_to_a_terminal() -> None:
    async with playing(answer("503 \x1b[31mBusy\x07\x9b" + "x" * 5_000, body="later")) as server:
        error = await failure(portico.connect(server.address))
        (attempt,) = error.attempts
        assert isinstance(attempt.error, StatusError) and attempt.error.reason.startswith("?[31mBusy??x")
        assert str(error).isprintable() and len(str(error)) < 600


@pytest.mark.parametrize(
    "place", ["http://0.0.0.0/", "ws://[::]/", "http://localhost:0/", "unix:/tmp/s", "ws+unix:/s:/"]
)
@scenario()
async def test_a_redirect_to_where_nobody_can_be_is_refused(place: str) -> None:
    async with playing(answer("302 Found", f"Location: {place}")) as server:
        error = await failure(portico.connect(server.address))
        assert isinstance(error.attempts[-1].error, ProtocolError)
        assert len(server.peers) == 1


@scenario()
async def test_a_server_that_hangs_up_is_named() -> None:
    async def hang_up(peer: Any) -> None:
        return

    async with playing(hang_up) as server:
        with pytest.raises(ConnectError, match="hung up before it had answered") as caught:
            await portico.connect(server.address)
        error = caught.value.attempts[0].error
        assert (
            isinstance(error, EndOfStream)
            and "hung up" in error.reason
            and caught.value.attempts[0].stage == "handshake"
        )


@scenario()
async def test_the_answer_to_another_key_is_refused_however_often() -> None:
    stale = YES.replace("{accept}", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
    async with playing(stale) as server:
        for _ in range(3):
            error = await failure(portico.connect(server.address))
            assert isinstance(error.attempts[0].error, ProtocolError)
