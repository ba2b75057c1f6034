"""Handshakes with the library `websockets`, both ways."""

import contextlib
from collections.abc import AsyncIterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
import websockets
from server.support import EVERYWHERE, Certificates, certificates, echo, scenario
from websockets.asyncio.client import connect, unix_connect
from websockets.asyncio.server import Server, basic_auth, serve, unix_serve

import portico
from portico import Deflate, WebSocketSettings
from portico.errors import StatusError

from .support import failure

__all__ = ["certificates"]


@contextlib.asynccontextmanager
async def theirs(**settings: Any) -> AsyncIterator[str]:
    """A server of `websockets` that sends everything back; its URL."""

    async def handler(connection: Any) -> None:
        async for message in connection:
            await connection.send(message)

    server: Server
    async with serve(handler, "127.0.0.1", 0, **settings) as server:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/chat"


async def check(channel: Any) -> None:
    await channel.send("hello" * 1000)
    assert await channel.recv() == "hello" * 1000


OURS = [None, Deflate(), Deflate(window_bits=15, context_takeover=True), Deflate(window_bits=9, context_takeover=True)]


@pytest.mark.parametrize("compression", ["deflate", None])
@pytest.mark.parametrize("deflate", OURS, ids=repr)
@scenario()
async def test_their_client_agrees_with_our_server(deflate: Deflate | None, compression: str | None) -> None:
    settings = WebSocketSettings(deflate=deflate, subprotocols=["v2", "v1"])
    async with portico.serve(echo, "ws://127.0.0.1:0/chat", websocket=settings) as server:
        wanted: Any = [websockets.Subprotocol("v1"), websockets.Subprotocol("v2")]
        async with connect(str(server.address), compression=compression, subprotocols=wanted, proxy=None) as client:
            assert client.subprotocol == "v2"
            agreed = client.response.headers.get("Sec-WebSocket-Extensions") if client.response else None
            assert (agreed is not None) == (deflate is not None and compression is not None)
            for _ in range(3):
                await check(client)


@pytest.mark.parametrize("compression", ["deflate", None])
@pytest.mark.parametrize("deflate", OURS, ids=repr)
@scenario()
async def test_our_client_agrees_with_their_server(deflate: Deflate | None, compression: str | None) -> None:
    settings = WebSocketSettings(deflate=deflate, subprotocols=["v1", "v2"])
    async with theirs(compression=compression, subprotocols=["v2"]) as url:
        async with portico.connect(url, websocket=settings) as channel:
            some: Any = channel
            assert some.subprotocol == "v2"
            for _ in range(3):
                await check(channel)


@scenario(EVERYWHERE)
async def test_over_tls_both_ways(certificates: Certificates) -> None:
    ours, secure = certificates.server(), certificates.client()
    async with portico.serve(echo, "wss://localhost:0/", tls=ours) as server:
        url = f"wss://localhost:{server.address.port}/"
        async with connect(url, ssl=secure.client_context(), proxy=None) as client:
            await check(client)
    async with theirs(ssl=ours.server_context()) as url:
        address = url.replace("ws://127.0.0.1", "wss://localhost")
        async with portico.connect(address, tls=secure) as channel:
            await check(channel)


@scenario()
async def test_over_unix_sockets_both_ways(tmp_path: Path) -> None:
    one, other = str(tmp_path / "a"), str(tmp_path / "b")
    async with portico.serve(echo, f"ws+unix:{one}:/chat"):
        async with unix_connect(one, "ws://localhost/chat") as client:
            await check(client)

    async def handler(connection: Any) -> None:
        assert connection.request.path == "/chat?x=1"
        async for message in connection:
            await connection.send(message)

    async with unix_serve(handler, other):
        async with portico.connect(f"ws+unix:{other}:/chat?x=1") as channel:
            await check(channel)


@scenario()
async def test_their_client_hears_our_refusals() -> None:
    settings = WebSocketSettings(authorize=lambda request: request.credentials == ("bearer", "token"))
    async with portico.serve(echo, "ws://127.0.0.1:0/chat", websocket=settings) as server:
        for url, more, status in (
            (str(server.address), {}, 403),
            (str(server.address).replace("chat", "other"), {}, 404),
            (str(server.address), {"origin": "https://evil.example"}, 403),
        ):
            with pytest.raises(websockets.InvalidStatus) as caught:
                await connect(url, proxy=None, **more)  # type: ignore[arg-type]
            assert caught.value.response.status_code == status
        fields = {"Authorization": "Bearer token"}
        async with connect(str(server.address), proxy=None, additional_headers=fields) as client:
            await check(client)


@scenario()
async def test_our_client_logs_in_with_their_server() -> None:
    async with theirs(process_request=basic_auth(realm="chat", credentials=("joe", "geheim"))) as url:
        refused = (await failure(portico.connect(url))).__cause__
        assert isinstance(refused, StatusError) and refused.status == HTTPStatus.UNAUTHORIZED
        settings = WebSocketSettings(credentials=("joe", "geheim"))
        async with portico.connect(url, websocket=settings) as channel:
            await check(channel)


@scenario()
async def test_our_client_follows_their_redirects() -> None:
    def redirect(connection: Any, request: Any) -> Any:
        if request.path == "/chat":
            response = connection.respond(HTTPStatus.TEMPORARY_REDIRECT, "over there")
            response.headers["Location"] = "/there"
            return response
        return None

    async with theirs(process_request=redirect) as url:
        async with portico.connect(url) as channel:
            await check(channel)


@scenario()
async def test_their_server_checks_the_origin_that_we_send() -> None:
    async with theirs(origins=["https://example.org"]) as url:
        assert isinstance((await failure(portico.connect(url))).__cause__, StatusError)
        async with portico.connect(url, websocket=WebSocketSettings(origin="https://example.org")) as channel:
            await check(channel)
