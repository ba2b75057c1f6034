"""WebSockets with other people's: websockets, picows, aiohttp, Node's ws, and nginx in front; compressed and not."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import picows
import pytest
import websockets
from aiohttp import web
from peers import missing, need_program, nginx_settings
from ports import free_port
from server.support import echo, scenario
from websockets.asyncio.client import connect as websockets_connect
from websockets.asyncio.server import serve as websockets_serve

import portico
from portico import Deflate, WebSocketSettings

from .support import running
from .test_proxies import program

NODE = Path(__file__).parent / "node"
MESSAGES: list[str | bytes] = ["hello", "", "é€𝄞" * 1000, b"", b"\0\xff\x80", bytes(range(256)) * 3000]
SETTINGS = {
    "plain": WebSocketSettings(deflate=None),
    "deflate": WebSocketSettings(deflate=Deflate(threshold=0)),
    "takeover": WebSocketSettings(deflate=Deflate(threshold=0, context_takeover=True, window_bits=15)),
}
EACH = pytest.mark.parametrize("kind", SETTINGS)


def script(name: str) -> tuple[str, str]:
    """Node and a program for it, which needs `npm ci` in its folder."""
    node = need_program("node")
    if not (NODE / "node_modules" / "ws").is_dir():
        missing("Node's ws is not installed: npm ci --prefix tests/interop/node")
    return node, str(NODE / name)


@contextlib.asynccontextmanager
async def of_websockets(kind: str) -> AsyncIterator[str]:
    async def handler(connection: Any) -> None:
        async for message in connection:
            await connection.send(message)

    compression = None if kind == "plain" else "deflate"
    async with websockets_serve(handler, "127.0.0.1", 0, compression=compression) as server:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"


@contextlib.asynccontextmanager
async def of_aiohttp(kind: str) -> AsyncIterator[str]:
    async def handler(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(compress=kind != "plain")
        await socket.prepare(request)
        async for message in socket:
            await (socket.send_str if message.type is aiohttp.WSMsgType.TEXT else socket.send_bytes)(message.data)
        return socket

    app = web.Application()
    app.router.add_get("/", handler)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"ws://127.0.0.1:{runner.addresses[0][1]}/"
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def of_picows(kind: str) -> AsyncIterator[str]:
    class Echo(picows.WSListener):
        def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
            if frame.msg_type == picows.WSMsgType.CLOSE:
                transport.send_close(frame.get_close_code(), frame.get_close_message())
                transport.disconnect()
            elif frame.msg_type == picows.WSMsgType.PING:
                transport.send_pong(frame.get_payload_as_bytes())
            elif frame.msg_type != picows.WSMsgType.PONG:
                transport.send(frame.msg_type, frame.get_payload_as_bytes(), frame.fin)

    server = await picows.ws_create_server(lambda request: Echo(), "127.0.0.1", 0, enable_auto_pong=False)
    async with server:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"


@contextlib.asynccontextmanager
async def of_node(kind: str) -> AsyncIterator[str]:
    async with running(*script("echo.js"), kind.replace("takeover", "deflate")) as process:
        assert process.stdout is not None
        yield f"ws://127.0.0.1:{int(await process.stdout.readline())}/"


SERVERS = {"websockets": of_websockets, "aiohttp": of_aiohttp, "picows": of_picows, "node": of_node}


@EACH
@pytest.mark.parametrize("name", SERVERS)
@scenario(timeout=30)
async def test_our_client_talks_with_their_server(name: str, kind: str) -> None:
    async with SERVERS[name](kind) as url:
        async with portico.connect(url, websocket=SETTINGS[kind], timeout=10) as near:
            agreed = near.frames.deflate
            assert (agreed is not None) is (kind != "plain" and name != "picows")
            for message in MESSAGES:
                near.send(message)
            assert [await near.recv() for _ in MESSAGES] == MESSAGES
            for _ in range(5):
                near.send("alike " * 50)
            assert [await near.recv() for _ in range(5)] == ["alike " * 50] * 5
            if name != "picows":  # it has no messages of many frames to send back
                await near.send_fragments(["in ", "two ", "pieces"])
                assert await near.recv() == "in two pieces"
            assert 0 < await near.ping(5) < 5
            await near.close(4001, "enough")
            assert near.close_code == (1000 if name == "aiohttp" else 4001)  # it always says 1000


@pytest.mark.parametrize("code", [1000, 1001, 1011, 4321])
@scenario(timeout=30)
async def test_close_codes_of_node(code: int) -> None:
    async with of_node("plain") as url:
        async with portico.connect(f"{url}close/{code}/why%20not") as near:
            with pytest.raises(portico.EndOfStream if code in (1000, 1001) else portico.ClosedError):
                await near.recv()
            assert (near.close_code, near.close_reason) == (code, "why not")
        async with portico.connect(f"{url}ping") as near:
            assert (await near.recv()).startswith("here: ")


async def ask_websockets(url: str, kind: str) -> None:
    compression = None if kind == "plain" else "deflate"
    async with websockets_connect(url, compression=compression, max_size=None) as theirs:
        for message in MESSAGES:
            await theirs.send(message)
            assert await theirs.recv() == message
        await theirs.send(["in ", "two ", "pieces"])
        assert await theirs.recv() == "in two pieces"
        await (await theirs.ping())
        await theirs.close(4001, "enough")
        assert (theirs.close_code, theirs.close_reason) == (4001, "")


async def ask_aiohttp(url: str, kind: str) -> None:
    async with aiohttp.ClientSession() as session:
        async with session.ws_connect(url, compress=0 if kind == "plain" else 15) as theirs:
            for message in MESSAGES:
                await (theirs.send_str if isinstance(message, str) else theirs.send_bytes)(message)
                assert (await theirs.receive()).data == message
            assert await theirs.close(code=4001, message=b"enough")
            assert theirs.close_code == 4001


async def ask_picows(url: str, kind: str) -> None:
    got: asyncio.Queue[str | bytes | int] = asyncio.Queue()

    class Listener(picows.WSListener):
        def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
            if frame.msg_type == picows.WSMsgType.TEXT:
                got.put_nowait(frame.get_payload_as_utf8_text())
            elif frame.msg_type == picows.WSMsgType.BINARY:
                got.put_nowait(frame.get_payload_as_bytes())
            elif frame.msg_type == picows.WSMsgType.CLOSE:
                got.put_nowait(int(frame.get_close_code()))
                transport.disconnect()

    transport, _ = await picows.ws_connect(Listener, url)
    for message in MESSAGES:
        is_text = isinstance(message, str)
        data = message.encode() if isinstance(message, str) else message
        transport.send(picows.WSMsgType.TEXT if is_text else picows.WSMsgType.BINARY, data)
        assert await got.get() == message
    transport.send_close(picows.WSCloseCode.OK, b"enough")
    assert await got.get() == 1000
    await transport.wait_disconnected()


async def ask_node(url: str, kind: str) -> None:
    async with running(*script("ask.js"), url, kind.replace("takeover", "deflate")) as process:
        out, error = await asyncio.wait_for(process.communicate(), 15)
        assert process.returncode == 0, (out, error)
    pong, closed = out.decode().splitlines()
    assert pong == "pong here" and closed.endswith("closed 4001 ")
    assert ("permessage-deflate" in closed) is (kind != "plain")


CLIENTS: dict[str, Callable[[str, str], Awaitable[None]]] = {
    "websockets": ask_websockets,
    "aiohttp": ask_aiohttp,
    "picows": ask_picows,
    "node": ask_node,
}


@EACH
@pytest.mark.parametrize("name", CLIENTS)
@scenario(timeout=30)
async def test_their_client_talks_with_our_server(name: str, kind: str) -> None:
    ends: list[tuple[int | None, str]] = []

    async def handler(socket: portico.WebSocket) -> None:
        try:
            await echo(socket)
        finally:
            ends.append((socket.close_code, socket.close_reason))

    async with portico.serve(handler, "ws://127.0.0.1:0/", websocket=SETTINGS[kind]) as server:
        await CLIENTS[name](str(server.address), kind)
        while server.stats.open:
            await asyncio.sleep(0.001)
        assert ends == [(1000 if name == "picows" else 4001, "enough")]
        assert server.stats.handler_errors == 0


@scenario(timeout=30)
async def test_their_library_sees_our_close_codes() -> None:
    async def handler(socket: portico.WebSocket) -> None:
        await socket.close(4002, "from €")

    async with portico.serve(handler, "ws://127.0.0.1:0/") as server:
        async with websockets_connect(str(server.address)) as theirs:
            with pytest.raises(websockets.ConnectionClosedError):
                await theirs.recv()
            assert (theirs.close_code, theirs.close_reason) == (4002, "from €")


NGINX = nginx_settings("""
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://127.0.0.1:{behind};
            proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection upgrade;
            proxy_set_header Host $http_host;
        }}
    }}
""")


@EACH
@pytest.mark.parametrize("name", ["portico", *CLIENTS])
@scenario(timeout=30)
async def test_nginx_in_front_of_our_server(name: str, kind: str, tmp_path: Path) -> None:
    path, port = need_program("nginx"), free_port()
    async with portico.serve(echo, "ws://127.0.0.1:0/", websocket=SETTINGS[kind]) as server:
        file = tmp_path / "nginx.conf"
        file.write_text(NGINX.format(folder=tmp_path, port=port, behind=server.address.port))
        async with program(path, "-p", str(tmp_path), "-c", str(file), "-e", f"{tmp_path}/error.log", port=port):
            url = f"ws://127.0.0.1:{port}/"
            if name != "portico":
                await CLIENTS[name](url, kind)
                return
            async with portico.connect(url, websocket=SETTINGS[kind]) as near:
                for message in MESSAGES:
                    await near.send(message)
                    assert await near.recv() == message
                assert 0 < await near.ping(5) < 5
                await near.close(4001, "enough")
                assert near.close_code == 4001
