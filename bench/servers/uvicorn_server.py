"""uvicorn with httptools on uvloop: an ASGI application that reads the file for each request. With `memory` it has read
it before."""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import uvicorn
from common import BACKLOG, arguments, ready, small_file

PATH = "/small.txt"
Send = Callable[[dict[str, Any]], Awaitable[None]]


def file_application(path: str) -> Callable[..., Awaitable[None]]:
    kept = read(path) if "memory" in sys.argv else None

    async def application(scope: dict[str, Any], receive: object, send: Send) -> None:
        body = read(path) if kept is None else kept
        headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200 if scope["path"] == PATH else 404, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return application


def read(path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return os.read(descriptor, os.fstat(descriptor).st_size)
    finally:
        os.close(descriptor)


class Server(uvicorn.Server):
    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        ready(self.config.port)


def main() -> None:
    """What `uvicorn --http httptools --loop uvloop --no-access-log --no-server-header` does, with one application."""
    port, _ = arguments()
    config = uvicorn.Config(
        file_application(str(small_file())),
        port=port,
        http="httptools",
        loop="uvloop",
        ws="none",
        lifespan="off",
        interface="asgi3",
        access_log=False,
        server_header=False,
        log_level="warning",
        backlog=BACKLOG,
        timeout_keep_alive=75,
    )
    Server(config).run()


if __name__ == "__main__":
    main()
