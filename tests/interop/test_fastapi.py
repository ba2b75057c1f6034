"""FastAPI and Starlette applications behind a door: what people write with them works as behind their own servers."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Annotated, Any

import pytest
import websockets
from fastapi import BackgroundTasks, FastAPI, File, HTTPException, Request, UploadFile, WebSocket
from fastapi.responses import FileResponse, PlainTextResponse, StreamingResponse
from pydantic import BaseModel
from server.support import scenario, until
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.websockets import WebSocketDisconnect
from web.http_kit import Browser, browser

import portico
from portico.server.service import Server


class Item(BaseModel):
    name: str
    price: float


class Seen:
    """What the application has gone through."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.go = asyncio.Event()


def application(seen: Seen) -> FastAPI:
    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        seen.log.append("up")
        yield {"pool": "a pool"}
        seen.log.append("down")

    app = FastAPI(lifespan=lifespan)
    http_routes(app, seen)
    websocket_routes(app, seen)
    return app


def http_routes(app: FastAPI, seen: Seen) -> None:
    @app.post("/items/{number}")
    async def item(number: int, item: Item, request: Request) -> dict[str, Any]:
        return {"number": number, "item": item, "pool": request.state.pool, "url": str(request.url)}

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        async def lines() -> AsyncIterator[str]:
            for number in range(1000):
                yield f"line {number}\n"

        return StreamingResponse(lines(), media_type="text/plain")

    @app.post("/upload")
    async def upload(file: Annotated[UploadFile, File()]) -> dict[str, Any]:
        return {"name": file.filename, "size": len(await file.read())}

    @app.post("/count")
    async def count(request: Request) -> int:
        return sum([len(chunk) async for chunk in request.stream()])

    @app.get("/file")
    async def file() -> FileResponse:
        return FileResponse(__file__)

    @app.get("/plain")
    def plain() -> PlainTextResponse:
        return PlainTextResponse("from a thread")

    @app.get("/refused")
    async def refused() -> None:
        raise HTTPException(418, "no coffee")

    @app.get("/broken")
    async def broken() -> None:
        raise RuntimeError("so it is")

    @app.get("/background")
    async def background(tasks: BackgroundTasks) -> str:
        async def later() -> None:
            await seen.go.wait()
            seen.log.append("background")

        tasks.add_task(later)
        return "answered"

    @app.get("/events")
    async def events() -> StreamingResponse:
        async def forever() -> AsyncIterator[bytes]:
            try:
                while True:
                    yield b"data: x\n\n"
                    await asyncio.sleep(0.01)
            finally:
                seen.log.append("events ended")

        return StreamingResponse(forever(), media_type="text/event-stream")

    @app.get("/poll")
    async def poll(request: Request) -> None:
        seen.log.append("polling")
        while not await request.is_disconnected():
            await asyncio.sleep(0.01)
        seen.log.append("client left")


def websocket_routes(app: FastAPI, seen: Seen) -> None:
    @app.websocket("/echo/{room}")
    async def echo(websocket: WebSocket, room: str) -> None:
        await websocket.accept(subprotocol="chat" if "chat" in websocket.scope["subprotocols"] else None)
        await websocket.send_json({"room": room, "pool": websocket.state.pool})
        try:
            while True:
                await websocket.send_text(await websocket.receive_text())
        except WebSocketDisconnect as error:
            seen.log.append(f"{error.code} {error.reason}")

    @app.websocket("/denied")
    async def denied(websocket: WebSocket) -> None:
        await websocket.send_denial_response(PlainTextResponse("pay first", status_code=402))

    @app.websocket("/closed")
    async def closed(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.close(4001, "not today")


@contextlib.asynccontextmanager
async def serving(app: Any, **mount: Any) -> AsyncIterator[tuple[Server, Browser]]:
    door = portico.Door()
    door.mount("/api", app, **mount)
    async with portico.serve(door, "tcp://127.0.0.1:0") as server, browser(server.address) as client:
        yield server, client


@scenario()
async def test_json_state_and_validation() -> None:
    seen = Seen()
    async with serving(application(seen)) as (server, client):
        assert seen.log == ["up"]
        body = b'{"name": "tea", "price": 2.5}'
        head = f"|Content-Type: application/json|Content-Length: {len(body)}"
        answer = await client.ask("POST /api/items/7" + head, body)
        assert answer.status == 200 and answer.headers["content-type"] == "application/json"
        assert answer.body == (
            b'{"number":7,"item":{"name":"tea","price":2.5},"pool":"a pool","url":"http://test/api/items/7"}'
        )
        assert (await client.ask("POST /api/items/x" + head, body)).status == 422
        assert (await client.ask("GET /api/none")).status == 404
        assert (await client.ask("GET /api/refused")).body == b'{"detail":"no coffee"}'
        assert (await client.ask("GET /api/plain")).body == b"from a thread"
        assert b'"/items/{number}"' in (await client.ask("GET /api/openapi.json")).body
        assert server.stats.accepted == 1
    assert seen.log == ["up", "down"]


@scenario()
async def test_streams_and_files() -> None:
    async with serving(application(Seen())) as (_, client):
        answer = await client.ask("GET /api/stream")
        assert answer.headers["transfer-encoding"] == "chunked"
        assert answer.body.count(b"\n") == 1000
        with open(__file__, "rb") as file:
            whole = file.read()
        assert (await client.ask("GET /api/file")).body == whole
        part = await client.ask("GET /api/file|Range: bytes=5-9")
        assert (part.status, part.body) == (206, whole[5:10])


@scenario()
async def test_uploads_with_a_length_and_in_chunks() -> None:
    async with serving(application(Seen()), max_body=4 << 20) as (_, client):
        mark = "xYzZY"
        form = (
            f'--{mark}\r\nContent-Disposition: form-data; name="file"; filename="a.bin"\r\n\r\n'.encode()
            + bytes(1_000_000)
            + f"\r\n--{mark}--\r\n".encode()
        )
        coded = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (form[:10], form[10:70_000], form[70_000:]))
        kind = f"POST /api/upload|Content-Type: multipart/form-data; boundary={mark}"
        whole = await client.ask(f"{kind}|Content-Length: {len(form)}", form)
        chunked = await client.ask(f"{kind}|Transfer-Encoding: chunked", coded + b"0\r\n\r\n")
        assert whole.body == chunked.body == b'{"name":"a.bin","size":1000000}'
        counted = await client.ask(f"POST /api/count|Content-Length: {len(form)}", form)
        assert counted.body == b"%d" % len(form)


@scenario()
async def test_an_upload_over_the_limit_is_answered_with_413_in_the_middle() -> None:
    async with serving(application(Seen()), max_body=1000) as (_, client):
        coded = b"".join(b"64\r\n%b\r\n" % bytes(100) for _ in range(11))
        await client.send(b"POST /api/count HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n" + coded)
        assert (await client.answer()).status == 413


@scenario(errors=True)
async def test_exceptions_are_answered_with_500_and_counted_once() -> None:
    async with serving(application(Seen())) as (server, client):
        assert (await client.ask("GET /api/broken")).status == 500
        await until(lambda: server.stats.handler_errors == 1)
        assert (await client.ask("GET /api/plain")).status == 200
        assert server.stats.handler_errors == 1


@scenario()
async def test_background_tasks_go_on_behind_the_answer() -> None:
    seen = Seen()
    async with serving(application(seen)) as (_, client):
        assert (await client.ask("GET /api/background")).body == b'"answered"'
        assert (await client.ask("GET /api/plain")).status == 200
        assert "background" not in seen.log
        seen.go.set()
        await until(lambda: "background" in seen.log)


@scenario()
@pytest.mark.parametrize(
    ("path", "last", "middleware"),
    [("events", "events ended", False), ("events", "events ended", True), ("poll", "client left", False)],
)
async def test_clients_that_leave_end_streams_and_polls(path: str, last: str, middleware: bool) -> None:
    seen = Seen()
    app = application(seen)
    if middleware:

        async def through(request: Any, call_next: Any) -> Any:
            return await call_next(request)

        app.add_middleware(BaseHTTPMiddleware, dispatch=through)
    async with serving(app) as (server, client):
        await client.send(f"GET /api/{path} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
        if path == "events":
            assert await client.client.recv()
        else:
            await until(lambda: "polling" in seen.log)
        client.client.close()
        await until(lambda: last in seen.log)
        await until(lambda: server.stats.open == 0)
        assert server.stats.handler_errors == 0


@scenario()
async def test_websockets_with_subprotocol_denial_and_codes() -> None:
    seen = Seen()
    async with serving(application(seen)) as (server, _):
        url = f"ws://127.0.0.1:{server.address.port}/api"
        settings = portico.WebSocketSettings(subprotocols=("other", "chat"))
        channel: Any = await portico.connect(f"{url}/echo/blue", websocket=settings)
        assert channel.subprotocol == "chat"
        assert await channel.recv() == '{"room":"blue","pool":"a pool"}'
        await channel.send("hello")
        assert await channel.recv() == "hello"
        await channel.close(3333, "enough")
        await until(lambda: "3333 enough" in seen.log)
        with pytest.raises(portico.ConnectError, match="402 Payment Required: pay first"):
            await portico.connect(f"{url}/denied")
        async with websockets.connect(f"{url}/closed") as client:
            with pytest.raises(websockets.ConnectionClosedError) as caught:
                await client.recv()
        assert caught.value.rcvd is not None
        assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (4001, "not today")
        async with websockets.connect(f"{url}/echo/red") as client:
            assert client.protocol.extensions  # permessage-deflate
            await client.recv()
            await client.send("a" * 10_000)
            assert await client.recv() == "a" * 10_000
        assert server.stats.handler_errors == 0


@scenario()
async def test_a_lifespan_that_fails_keeps_the_server_from_starting() -> None:
    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        raise RuntimeError("no database")
        yield

    with pytest.raises(
        portico.ConfigurationError, match="the app mounted at /api did not start: RuntimeError: no database"
    ):
        async with serving(FastAPI(lifespan=lifespan)):
            raise AssertionError("it has started")
