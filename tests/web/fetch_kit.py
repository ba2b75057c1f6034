"""Servers that a test plays itself, byte by byte, and Python's own."""

import asyncio
import contextlib
import http.server
import re
import ssl
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello"


def answer(status: str, *fields: str, body: bytes = b"") -> bytes:
    """An answer with a length."""
    lines = [f"HTTP/1.1 {status}", *fields, f"Content-Length: {len(body)}"]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def redirect(status: int, place: str) -> bytes:
    return answer(f"{status} Moved", f"Location: {place}", body=b"over there")


class Played:
    """A server that plays its part and notes what it was asked."""

    def __init__(self) -> None:
        self.url = ""
        self.heads: list[str] = []
        self.bodies: list[bytes] = []
        self.sent = 0

    def fields(self, index: int = -1) -> dict[str, str]:
        """The fields of one request, by names in lower case."""
        lines = self.heads[index].split("\r\n")[1:]
        return {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}

    @property
    def lines(self) -> list[str]:
        """The request lines."""
        return [head.partition("\r\n")[0].removesuffix(" HTTP/1.1") for head in self.heads]

    async def hear(self, reader: asyncio.StreamReader) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")[:-4]
        self.heads.append(head)
        if "\r\nTransfer-Encoding: chunked" in head:
            body = b""
            while size := int(await reader.readline(), 16):
                body += await reader.readexactly(size)
                assert await reader.readexactly(2) == b"\r\n"
            assert await reader.readexactly(2) == b"\r\n"
        else:
            length = re.search(r"\r\nContent-Length: (\d+)", head, re.I)
            body = await reader.readexactly(int(length[1])) if length else b""
        self.bodies.append(body)


@contextlib.asynccontextmanager
async def playing(
    *answers: bytes,
    then: str = "close",
    deaf: bool = False,
    repeat: bytes = b"",
    dribble: float | None = None,
    unix: Path | None = None,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[Played]:
    """Give each client the next of `answers`, the last one again and again.

    :param then: close, reset, or stay until the client goes.
    :param deaf: answer without waiting for the request.
    :param repeat: what is sent behind it without end.
    :param dribble: seconds between two bytes."""
    played = Played()
    left = list(answers)
    tasks: set[asyncio.Task[None]] = set()

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        say = left.pop(0) if len(left) > 1 else left[0]
        try:
            if not deaf:
                await played.hear(reader)
            for piece in [say] if dribble is None else [say[i : i + 1] for i in range(len(say))]:
                if writer.is_closing():  # uvloop raises RuntimeError of a client that is gone
                    return
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(dribble or 0)
            while repeat and not writer.is_closing():
                writer.write(repeat)
                await writer.drain()
                played.sent += len(repeat)
            while then == "stay" and await reader.read(1 << 16):
                pass
            if then == "reset":
                writer.transport.abort()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(play(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    if unix is not None:
        server = await asyncio.start_unix_server(begin, unix)
        played.url = f"http+unix:{unix}:"
    else:
        server = await asyncio.start_server(begin, "127.0.0.1", 0, ssl=tls)
        played.url = f"http{'s' if tls else ''}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield played
    finally:
        server.close()
        for _ in range(5):  # who was accepted just now gets a task in one of the next rounds
            await asyncio.sleep(0)
        for task in list(tasks):
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await server.wait_closed()


@contextlib.contextmanager
def python_server(directory: Path) -> Iterator[str]:
    """Python's http.server for the files of a directory, in a thread; its URL without the last slash."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments, directory=str(directory))

        def log_message(self, *arguments: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
