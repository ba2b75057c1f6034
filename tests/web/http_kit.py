"""What the tests of the HTTP front share: a door with routes of every kind, and a client that reads answers by hand."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from server.support import Client, client_of

import portico
from portico.server.service import Server


@dataclass
class Answer:
    """One answer as it lay on the wire."""

    status: int
    reason: str
    headers: dict[str, str]
    body: bytes
    raw: bytes


class Browser:
    """A plain socket that speaks HTTP as the test says, and reads one answer at a time."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self._buffer = b""

    async def send(self, data: bytes) -> None:
        await self.client.send(data)

    async def ask(self, request: str, body: bytes = b"", *, method: str = "") -> Answer:
        """Send a request line with Host, and fields behind it after "|", and return the answer."""
        line, *fields = request.split("|")
        head = "\r\n".join([f"{line} HTTP/1.1", "Host: test", *(each.strip() for each in fields)])
        await self.send(head.encode() + b"\r\n\r\n" + body)
        return await self.answer(head=line.startswith("HEAD"))

    async def answer(self, *, head: bool = False) -> Answer:
        """The next answer; `head`: it has no body, whatever its length says."""
        raw = await self.until(b"\r\n\r\n")
        first, *lines = raw[:-4].decode("latin-1").split("\r\n")
        found = re.fullmatch(r"HTTP/1\.1 (\d{3}) (.*)", first)
        assert found, first
        headers = {}
        for line in lines:
            name, mark, value = line.partition(": ")
            assert mark and name.lower() not in headers, line
            headers[name.lower()] = value
        status = int(found[1])
        body = b"" if head or status in (204, 304) or status < 200 else await self._body(headers)
        return Answer(status, found[2], headers, body, raw)

    async def _body(self, headers: dict[str, str]) -> bytes:
        if headers.get("transfer-encoding") == "chunked":
            assert "content-length" not in headers
            body = b""
            while size := int(await self.until(b"\r\n"), 16):
                body += (await self.exactly(size + 2))[:-2]
            assert await self.exactly(2) == b"\r\n"
            return body
        if "content-length" in headers:
            return await self.exactly(int(headers["content-length"]))
        return await self.rest()

    async def until(self, mark: bytes) -> bytes:
        """What comes up to `mark` and with it."""
        while mark not in self._buffer:
            more = await self.client.recv()
            if not more:
                raise EOFError(self._buffer)
            self._buffer += more
        place = self._buffer.index(mark) + len(mark)
        taken, self._buffer = self._buffer[:place], self._buffer[place:]
        return taken

    async def exactly(self, size: int) -> bytes:
        """The next `size` bytes, whatever they are."""
        while len(self._buffer) < size:
            more = await self.client.recv()
            if not more:
                raise EOFError(self._buffer)
            self._buffer += more
        taken, self._buffer = self._buffer[:size], self._buffer[size:]
        return taken

    async def rest(self) -> bytes:
        """Everything until the server ends."""
        taken, self._buffer = self._buffer, b""
        return taken + await self.client.recv_all()

    async def is_over(self) -> bool:
        """Wait for the server to close; nothing may come before."""
        return not self._buffer and await self.client.is_over()


@contextlib.asynccontextmanager
async def browser(address: portico.Address) -> AsyncIterator[Browser]:
    client = await client_of(address)
    try:
        yield Browser(client)
    finally:
        client.close()


@contextlib.asynccontextmanager
async def visiting(door: portico.Door, **settings: Any) -> AsyncIterator[tuple[Server, Browser]]:
    """Serve `door` on a port of its own, and come in by one connection."""
    async with portico.serve(door, "tcp://127.0.0.1:0", **settings) as server:
        async with browser(server.address) as client:
            yield server, client


def door_of(**settings: Any) -> portico.Door:
    """A door with a route for everything."""
    door = portico.Door(**settings)

    @door.get("/")
    async def hello(request: portico.Request) -> str:
        return "hello"

    @door.post("/echo")
    async def echo(request: portico.Request) -> bytes:
        return await request.body()

    @door.post("/stream")
    async def stream(request: portico.Request) -> portico.Response:
        async def pieces() -> AsyncIterator[bytes]:
            async for piece in request:
                yield piece

        return portico.Response(pieces())

    @door.post("/ignore")
    async def ignore(request: portico.Request) -> str:
        return "not read"

    @door.get("/broken")
    async def broken(request: portico.Request) -> str:
        raise RuntimeError("so it is")

    @door.get("/forever")
    async def forever(request: portico.Request) -> None:
        await asyncio.Event().wait()

    @door.get("/target/{rest:path}")
    async def target(request: portico.Request) -> dict[str, Any]:
        return {"rest": request.params["rest"], "path": request.path, "host": request.host, "query": request.query}

    return door
