"""WebSockets behind a Door: early bytes, refusals on a connection that goes on, and nothing of HTTP left afterwards."""

import asyncio
import gc
from typing import Any

from server.support import echo, scenario, until

import portico
from portico.server.service import Server
from portico.web.serving import Conversation

from .http_kit import Browser, door_of, visiting

ASK = (
    "GET /chat|Connection: Upgrade|Upgrade: websocket|Sec-WebSocket-Version: 13"
    "|Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="
)
HI = b"\x81\x82\0\0\0\0hi"  # masked by nothing
BYE = b"\x88\x82\0\0\0\0\x03\xe8"  # 1000


def chat_door(**settings: Any) -> portico.Door:
    door = door_of()
    door.websocket("/chat", echo, **settings)
    return door


async def end(client: Browser, server: Server) -> None:
    """Close properly."""
    await client.send(BYE)
    assert await client.exactly(4) == b"\x88\x02\x03\xe8"
    client.client.end()
    await until(lambda: not server.stats.open)


@scenario()
async def test_bytes_behind_the_head_are_the_first_message() -> None:
    async with visiting(chat_door()) as (server, client):
        assert (await client.ask("GET /")).body == b"hello"
        answer = await client.ask(ASK, HI + HI)
        assert answer.status == 101 and answer.headers["upgrade"] == "websocket"
        assert await client.exactly(8) == b"\x81\x02hi" * 2
        await client.send(HI)
        assert await client.exactly(4) == b"\x81\x02hi"
        await end(client, server)


@scenario()
async def test_a_pipeline_may_end_in_an_upgrade_wherever_it_is_cut() -> None:
    line, *fields = ASK.split("|")
    upgrade = "\r\n".join([f"{line} HTTP/1.1", "Host: test", *fields]).encode() + b"\r\n\r\n" + HI
    data = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" + upgrade
    for place in range(1, len(data)):
        async with visiting(chat_door()) as (server, client):
            await client.send(data[:place])
            await asyncio.sleep(0)
            await client.send(data[place:])
            assert (await client.answer()).body == b"hello"
            assert (await client.answer()).status == 101
            assert await client.exactly(4) == b"\x81\x02hi"
            await end(client, server)


@scenario()
async def test_after_a_refusal_nothing_more_is_read() -> None:
    """A proxy that takes every Upgrade for a tunnel would let requests through that it never saw as such."""
    settings = portico.WebSocketSettings(authorize=lambda request: 401)
    refused = {
        401: ASK,
        426: ASK.replace("13", "12"),
        400: ASK.replace("AAAA", "AA=A", 1),
        404: ASK.replace("chat", "nowhere"),
        200: ASK.replace("/chat", "/"),
    }
    for status, ask in refused.items():
        async with visiting(chat_door(websocket=settings)) as (_, client):
            answer = await client.ask(ask, b"GET /target/smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
            assert (answer.status, answer.headers["connection"].split(", ")[-1]) == (status, "close")
            assert await client.is_over()


@scenario()
async def test_an_open_websocket_holds_nothing_of_http() -> None:
    async with visiting(chat_door()) as (server, client):
        assert (await client.ask(ASK)).status == 101
        (session,) = server.listeners[0].sessions
        assert isinstance(session.connection, portico.Channel)
        gc.collect()
        kept = [each for each in gc.get_objects() if isinstance(each, Conversation | portico.Stream)]
        assert kept == []
        await end(client, server)


@scenario()
async def test_the_request_is_known_to_the_channel() -> None:
    seen: list[Any] = []

    async def handler(channel: Any) -> None:
        seen.append((channel.request.params, channel.request.headers.get("upgrade"), channel.request.query))
        await channel.send("done")

    door = portico.Door()
    door.websocket("/rooms/{room}", handler)
    async with visiting(door) as (_, client):
        assert (await client.ask(ASK.replace("/chat", "/rooms/one?x=1"))).status == 101
        assert await client.exactly(6) == b"\x81\x04done"
    assert seen == [({"room": "one"}, "websocket", "x=1")]


@scenario()
async def test_a_handler_may_be_decorated() -> None:
    door = portico.Door()

    @door.websocket("/chat")
    async def handler(channel: portico.WebSocket) -> None:
        await echo(channel)

    assert callable(handler)
    async with visiting(door) as (server, client):
        assert (await client.ask(ASK, HI)).status == 101
        assert await client.exactly(4) == b"\x81\x02hi"
        await end(client, server)


@scenario()
async def test_a_plain_function_serves_a_websocket_in_a_thread() -> None:
    def handler(channel: Any) -> None:
        for message in channel:
            channel.send(message)

    door = portico.Door()
    door.websocket("/chat", handler)
    async with visiting(door) as (server, client):
        assert (await client.ask(ASK, HI)).status == 101
        assert await client.exactly(4) == b"\x81\x02hi"
        await end(client, server)


@scenario(errors=True)
async def test_an_authorize_that_fails_is_an_error_of_the_server() -> None:
    def authorize(request: portico.Request) -> None:
        raise RuntimeError("no database")

    async with visiting(chat_door(websocket=portico.WebSocketSettings(authorize=authorize))) as (server, client):
        assert (await client.ask(ASK)).status == 500
        assert await client.is_over()
        assert server.stats.handler_errors == 1
