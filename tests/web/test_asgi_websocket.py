"""WebSockets of ASGI applications behind a door: accepting, refusing, messages and close codes."""

import asyncio
from typing import Any

import pytest
from server.support import EVERYWHERE, scenario, until

import portico
from portico.errors import ConfigurationError

from .asgi_kit import Told, mounted


def asking(path: str = "/api", *fields: str) -> bytes:
    own = ["Host: test", "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"]
    own.append("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")
    return "\r\n".join([f"GET {path} HTTP/1.1", *own, *fields, "", ""]).encode()


async def connected(server: Any, path: str = "/api", **settings: Any) -> portico.WebSocket:
    url = f"ws://127.0.0.1:{server.address.port}{path}"
    return await portico.connect(url, websocket=portico.WebSocketSettings(**settings))  # type: ignore[return-value]


def socket_app(told: Told) -> Any:
    """Accepts, sends back what comes, and tells how it ended."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert await receive() == {"type": "websocket.connect"}
        chosen = next(iter(scope["subprotocols"]), None)
        await send({"type": "websocket.accept", "subprotocol": chosen, "headers": [(b"x-app", b"1")]})
        while (message := await receive())["type"] == "websocket.receive":
            if message.get("text") == "close":
                await send({"type": "websocket.close", "code": 4000, "reason": "as you said"})
            elif message.get("text") == "fail":
                raise RuntimeError("so it is")
            elif message.get("text") == "return":
                return
            else:
                await send({**message, "type": "websocket.send"})
        told.put(message)
        try:
            await send({"type": "websocket.send", "text": "too late"})
        except OSError as error:
            told.put(error)

    return app


@scenario(EVERYWHERE)
async def test_a_websocket_of_an_app() -> None:
    told = Told()
    async with mounted(socket_app(told)) as (server, client):
        channel = await connected(server, subprotocols=("b", "a"))
        assert channel.subprotocol == "b"
        for message in ("text", b"bytes", "", b"", "ü" * 5000):
            await channel.send(message)
            assert await channel.recv() == message
        await channel.close(3001, "enough")
        assert await told.next() == {"type": "websocket.disconnect", "code": 3001, "reason": "enough"}
        assert isinstance(await told.next(), portico.ClosedError)
        await client.send(asking())
        answer = await client.until(b"\r\n\r\n")
        assert b"x-app: 1" in answer and b"101" in answer.split(b"\r\n")[0]


@scenario(errors=True)
async def test_how_an_app_ends_is_how_the_websocket_ends() -> None:
    told = Told()
    async with mounted(socket_app(told)) as (server, _):
        for word, code, reason in (("close", 4000, "as you said"), ("fail", 1011, ""), ("return", 1000, "")):
            channel = await connected(server)
            await channel.send(word)
            with pytest.raises((portico.ClosedError, portico.EndOfStream)):
                await channel.recv()
            assert (channel.close_code, channel.close_reason) == (code, reason)
            await channel.close()
        assert (await told.next())["code"] == 4000
        await until(lambda: server.stats.open == 1)
        assert server.stats.handler_errors == 1


@scenario()
@pytest.mark.parametrize(("what", "code"), [("nothing", 1005), ("abort", 1006), ("large", 1009), ("broken", 1002)])
async def test_the_app_hears_the_close_code(what: str, code: int) -> None:
    told = Told()
    settings = portico.WebSocketSettings(max_size=100)
    async with mounted(socket_app(told), websocket=settings) as (server, client):
        await client.send(asking())
        await client.until(b"\r\n\r\n")
        if what == "abort":
            client.client.reset()
        else:
            frames = {
                "nothing": b"\x88\x80" + bytes(4),
                "large": b"\x82\xfe\x01\x00" + bytes(260),
                "broken": b"\xf2\x80" + bytes(4),
            }
            await client.send(frames[what])
        assert (await told.next())["code"] == code
        assert isinstance(await told.next(), portico.ClosedError)
        await until(lambda: server.stats.open <= 1)


@scenario()
async def test_an_app_may_refuse_a_websocket() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert "websocket.http.response" in scope["extensions"]
        if scope["path"] == "/api/close":
            return await send({"type": "websocket.close"})
        streams = scope["path"] == "/api/streams"
        kind = "websocket.http.response"
        await send({"type": f"{kind}.start", "status": 401, "headers": [(b"www-authenticate", b"Basic")]})
        if streams:
            await send({"type": f"{kind}.body", "body": b"not ", "more_body": True})
        await send({"type": f"{kind}.body", "body": b"you"})

    for path, status, said, wants in (
        ("close", 403, b"403 Forbidden\n", None),
        ("whole", 401, b"you", "Basic"),
        ("streams", 401, b"not you", "Basic"),
    ):
        async with mounted(app) as (_, client):
            await client.send(asking(f"/api/{path}"))
            answer = await client.answer()
            assert (answer.status, answer.body, answer.headers.get("www-authenticate")) == (status, said, wants)
            assert await client.is_over()


@scenario(errors=True)
async def test_an_app_that_does_not_accept_is_answered_with_500() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/api/fail":
            raise RuntimeError("so it is")

    for path in ("fail", "return"):
        async with mounted(app) as (server, client):
            await client.send(asking(f"/api/{path}"))
            assert (await client.answer()).status == 500
            assert server.stats.handler_errors == 1


@scenario()
async def test_only_pages_of_the_same_origin_come_in_unless_the_settings_say_so() -> None:
    told = Told()
    async with mounted(socket_app(told)) as (_, client):
        await client.send(asking("/api", "Origin: https://elsewhere.example"))
        assert (await client.answer()).status == 403
    async with mounted(socket_app(told)) as (_, client):
        await client.send(asking("/api", "Origin: http://test"))
        assert (await client.answer()).status == 101
    async with mounted(socket_app(told), websocket=portico.WebSocketSettings(origins="*")) as (_, client):
        await client.send(asking("/api", "Origin: https://elsewhere.example"))
        assert (await client.answer()).status == 101


@scenario()
async def test_a_client_that_leaves_before_it_is_accepted_is_a_disconnect() -> None:
    told = Told()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        told.put("asked")
        told.put(await receive())
        await send({"type": "websocket.accept"})

    async with mounted(app) as (server, client):
        await client.send(asking())
        assert await told.next() == "asked"
        client.client.close()
        assert await told.next() == {"type": "websocket.disconnect", "code": 1006, "reason": ""}
        await until(lambda: server.stats.open == 0)
        assert server.stats.handler_errors == 0


@scenario()
async def test_wrong_messages_of_a_websocket_are_told_to_the_app() -> None:
    errors: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def wrong(**message: Any) -> None:
            with pytest.raises((portico.ProtocolError, ConfigurationError)) as caught:
                await send(message)
            errors.append(str(caught.value))

        await wrong(type="websocket.send", text="early")
        await wrong(type="websocket.accept", subprotocol="not offered")
        await wrong(type="websocket.accept", headers=[(b"Upgrade", b"x")])
        await send({"type": "websocket.accept"})
        await wrong(type="websocket.accept")
        await wrong(type="websocket.send")
        await wrong(type="websocket.close", code=1006)
        await send({"type": "websocket.send", "text": "fine"})

    async with mounted(app) as (server, _):
        channel = await connected(server)
        assert await channel.recv() == "fine"
        await channel.close()
    assert len(errors) == 6 and not any("\n" in each for each in errors)


@scenario()
async def test_a_drain_closes_the_websockets_of_apps() -> None:
    told = Told()
    async with mounted(socket_app(told)) as (server, client):
        client.client.close()
        channel = await connected(server)
        await channel.send("a")
        assert await channel.recv() == "a"
        draining = asyncio.create_task(server.drain(5))
        assert (await told.next())["code"] == 1001
        with pytest.raises(portico.EndOfStream):
            await channel.recv()
        assert channel.close_code == 1001
        await channel.close()
        await draining
        assert server.stats.aborted == 0
