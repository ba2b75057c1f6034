"""asyncio streams on the loop of the standard library: readline, write, drain."""

from __future__ import annotations

import asyncio
from asyncio import StreamReader, StreamWriter
from collections.abc import Callable

from common import BACKLOG, JOIN, JOINED, SEND, Numbered, arguments, ready, tls_context


async def echo_lines(reader: StreamReader, writer: StreamWriter) -> None:
    try:
        while line := await reader.readline():
            writer.write(line)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


async def echo_bytes(reader: StreamReader, writer: StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


def group_handler() -> Callable[[StreamReader, StreamWriter], object]:
    """Members are a list of writers; a burst is a plain loop over them, all in one turn."""
    members: list[StreamWriter] = []
    lines = Numbered()

    async def handle(reader: StreamReader, writer: StreamWriter) -> None:
        while line := await reader.readline():
            if line.startswith(SEND):
                for _ in range(int(line[len(SEND) :])):
                    data = lines.next() + b"\n"
                    for member in members:
                        member.write(data)
            elif line.rstrip() == JOIN:
                members.append(writer)
                writer.write(JOINED + b"\n")

    return handle


async def serve() -> None:
    port, mode = arguments()
    handler = group_handler() if mode == "group" else echo_bytes if mode in ("raw", "tls") else echo_lines
    context = tls_context() if mode == "tls" else None
    server = await asyncio.start_server(handler, "127.0.0.1", port, ssl=context, backlog=BACKLOG)
    ready(port)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve())
