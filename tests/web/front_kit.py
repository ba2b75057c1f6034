"""What the tests of a door share: a client that speaks HTTP by hand, and curl."""

import asyncio
import contextlib
import subprocess
from collections.abc import AsyncIterator
from typing import NamedTuple

from peers import need_program
from server.support import Client, client_of

import portico
from portico.web.door import Door


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


class Front:
    """A door that is served, and a connection to it."""

    def __init__(self, server: portico.Server, client: Client) -> None:
        self.server, self.client = server, client
        self.url = f"http://127.0.0.1:{server.addresses[-1].port}"
        self._early = b""

    async def ask(self, target: str, *fields: str, method: str = "GET") -> Reply:
        """Send a request with `fields` such as "Range: bytes=0-", and return the answer."""
        await self.send(target, *fields, method=method)
        return await self.reply(method)

    async def send(self, target: str, *fields: str, method: str = "GET") -> None:
        lines = [f"{method} {target} HTTP/1.1", "Host: localhost", *fields, "", ""]
        await self.client.send("\r\n".join(lines).encode("latin-1"))

    async def head(self) -> tuple[int, dict[str, str]]:
        while b"\r\n\r\n" not in self._early:
            await self._more()
        head, self._early = self._early.split(b"\r\n\r\n", 1)
        first, *lines = head.decode("latin-1").split("\r\n")
        headers: dict[str, str] = {}
        for line in lines:
            name, value = line.split(": ", 1)
            headers[name.lower()] = f"{headers[name.lower()]}, {value}" if name.lower() in headers else value
        return int(first.split()[1]), headers

    async def reply(self, method: str = "GET") -> Reply:
        status, headers = await self.head()
        size = 0 if method == "HEAD" or status in (204, 304) else int(headers["content-length"])
        while len(self._early) < size:
            await self._more()
        body, self._early = self._early[:size], self._early[size:]
        return Reply(status, headers, body)

    async def rest(self) -> bytes:
        """All that comes until the end of the connection, which may be a reset."""
        pieces, self._early = [self._early], b""
        with contextlib.suppress(ConnectionResetError):
            while more := await self.client.recv(1 << 20):
                pieces.append(more)
        return b"".join(pieces)

    async def _more(self) -> None:
        more = await self.client.recv()
        if not more:
            raise EOFError(self._early)
        self._early += more

    async def curl(self, *arguments: str) -> bytes:
        """What curl writes, which must succeed."""
        program = need_program("curl")
        process = await asyncio.create_subprocess_exec(
            program, "--silent", "--show-error", "--path-as-is", "--max-time", "10", *arguments, stdout=subprocess.PIPE
        )
        out, _ = await process.communicate()
        assert process.returncode == 0, (process.returncode, out)
        return out


@contextlib.asynccontextmanager
async def front(door: Door, service: portico.Service | None = None, *, port: int = 0) -> AsyncIterator[Front]:
    """Serve `door`, beside what `service` serves, and connect to it."""
    service = (service or portico.Service()).listen(f"tcp://127.0.0.1:{port}", door)
    async with portico.serve(service) as server:
        client = await client_of(server.addresses[-1])
        try:
            yield Front(server, client)
        finally:
            client.close()
