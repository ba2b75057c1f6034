"""What the tests of WebSocket handshakes share: a server and a client that are plain bytes."""

import asyncio
import base64
import contextlib
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

import pytest
from server.support import Client

import portico
from portico.errors import ConnectError
from portico.protocols.websocket import accept_value

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = accept_value(KEY)

SWITCHING = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
YES = SWITCHING + "Sec-WebSocket-Accept: {accept}\r\n\r\n"
"""The answer that opens a WebSocket; `{accept}` becomes what fits the request."""
HELLO = b"\x81\x05hello"
"""A frame of a server: the text "hello" (RFC 6455, section 5.7)."""

Play = Callable[["Peer"], Awaitable[object]]


def answer(status: str, *fields: str, body: str = "") -> str:
    """An answer with a length."""
    return "\r\n".join([f"HTTP/1.1 {status}", *fields, f"Content-Length: {len(body)}", "", body])


class Peer:
    """One client of a server that the test plays: what it asked, and the socket."""

    def __init__(self, sock: socket.socket, head: str) -> None:
        self.sock, self.head = sock, head
        key = self.fields.get("sec-websocket-key", "")
        self.accept = accept_value(key)

    @property
    def line(self) -> str:
        return self.head.partition("\r\n")[0]

    @property
    def fields(self) -> dict[str, str]:
        lines = self.head.split("\r\n")[1:]
        return {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}

    def filled(self, text: str | bytes) -> bytes:
        """`text` with the accept value in its place."""
        data = text.encode("latin-1") if isinstance(text, str) else text
        return data.replace(b"{accept}", self.accept.encode())

    async def send(self, data: str | bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.sock, self.filled(data))

    async def until_gone(self) -> None:
        """Take what comes until the client is gone."""
        with contextlib.suppress(ConnectionError):
            while await asyncio.get_running_loop().sock_recv(self.sock, 65536):
                pass


class Played:
    """A server that the test plays: its address, and the clients it had."""

    def __init__(self, address: portico.Address) -> None:
        self.address = address
        self.peers: list[Peer] = []
        self.asked = asyncio.Event()
        """Set by each head of a request."""


@contextlib.asynccontextmanager
async def playing(*plays: Play | str | bytes) -> AsyncIterator[Played]:
    """Give each client the next of `plays`, the last one again and again: bytes to answer, or a function that does."""
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0), backlog=64) as sock:
        sock.setblocking(False)
        played = Played(portico.Address("ws", "127.0.0.1", sock.getsockname()[1], "/"))
        async with asyncio.TaskGroup() as group:

            async def play(peer_sock: socket.socket, part: Play | str | bytes) -> None:
                with peer_sock, contextlib.suppress(ConnectionError):
                    peer_sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    head = b""
                    while not head.endswith(b"\r\n\r\n"):
                        data = await loop.sock_recv(peer_sock, 65536)
                        if not data:
                            return
                        head += data
                    peer = Peer(peer_sock, head[:-4].decode("latin-1"))
                    played.peers.append(peer)
                    played.asked.set()
                    if callable(part):
                        await part(peer)
                    else:
                        await peer.send(part)
                        await peer.until_gone()

            async def play_all() -> None:
                left = list(plays)
                while True:
                    accepted, _ = await loop.sock_accept(sock)
                    accepted.setblocking(False)
                    group.create_task(play(accepted, left.pop(0) if len(left) > 1 else left[0]))

            serving = group.create_task(play_all())
            try:
                yield played
            finally:
                serving.cancel()


async def failure(connecting: Awaitable[object]) -> ConnectError:
    """What a handshake that must fail fails with."""
    with pytest.raises(ConnectError) as caught:
        await connecting
    assert "\n" not in str(caught.value)
    return caught.value


def request(*fields: str, path: str = "/", without: Iterable[str] = (), method: str = "GET") -> bytes:
    """A request for a WebSocket; `fields` are added, those named in `without` left out."""
    own = {
        "Host": "localhost",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": KEY,
        "Sec-WebSocket-Version": "13",
    }
    lines = [f"{name}: {value}" for name, value in own.items() if name not in without]
    return "\r\n".join([f"{method} {path} HTTP/1.1", *lines, *fields, "", ""]).encode("latin-1")


async def head_from(client: Client) -> str:
    """The head of the next answer, and no byte more."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += await client.recv_exactly(1)
    return head.decode("latin-1")


async def status_from(client: Client) -> int:
    """The status of the next answer, whose body is taken, too."""
    head = await head_from(client)
    length = re.search(r"\r\ncontent-length: (\d+)", head, re.I)
    if length:
        await client.recv_exactly(int(length[1]))
    return int(head.split(" ")[1])


def masked(text: bytes) -> bytes:
    """A short text message as a client frames it, with a mask of zeros."""
    return bytes([0x81, 0x80 | len(text), 0, 0, 0, 0]) + text


def framed(text: bytes) -> bytes:
    """A short text message as a server frames it."""
    return bytes([0x81, len(text)]) + text


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
