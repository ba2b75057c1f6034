"""What the tests of the PROXY protocol share: headers, guests who send them, and what is logged."""

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

import portico
from portico import Address, ProxyHeader
from portico.protocols.proxy_header import TLV

from .support import client_of, echo

ANYWHERE = "tcp://127.0.0.1:0"
CLIENT, WANTED = Address.parse("tcp://203.0.113.5:1000"), Address.parse("tcp://198.51.100.7:443")


def head(client: str = "203.0.113.5", *, version: int = 2, tlvs: Any = ()) -> bytes:
    """The header of a client's connection."""
    source = Address("tcp", client, 1000)
    wanted = Address("tcp", "2001:db8::7", 443) if ":" in client else WANTED
    return ProxyHeader(version, source=source, destination=wanted, tlvs=tlvs).encode()  # type: ignore[arg-type]


LOCAL = ProxyHeader(local=True).encode()
HEADS = {
    "v1": head(version=1),
    "v1-tcp6": head("2001:db8::5", version=1),
    "v2": head(),
    "v2-tlvs": head("2001:db8::5", tlvs=((TLV.AUTHORITY, b"example.org"), (TLV.CRC32C, b""))),
    "local": LOCAL,
    "unknown": b"PROXY UNKNOWN\r\n",
}


class Guests:
    """A handler that keeps what it is called with, then echoes."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    async def __call__(self, connection: Any) -> None:
        self.seen.append(connection)
        await echo(connection)

    @property
    def hosts(self) -> list[str]:
        return [each.remote_address.host for each in self.seen]


class Lines(logging.Handler):
    """Keeps what the server logs from INFO on."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.seen: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.seen.append(f"{record.levelname} {record.getMessage()}")


@contextlib.contextmanager
def logged() -> Iterator[list[str]]:
    logger, lines = logging.getLogger("portico.server"), Lines()
    level = logger.level
    logger.addHandler(lines)
    logger.setLevel(logging.INFO)
    try:
        yield lines.seen
    finally:
        logger.removeHandler(lines)
        logger.setLevel(level)


@contextlib.asynccontextmanager
async def guest(server: portico.Server, data: bytes = b"", source: str | None = None) -> Any:
    """A plain socket connected to the server, which has sent `data`."""
    client = await client_of(server.address, source)
    try:
        await client.send(data)
        yield client
    finally:
        client.close()


def received(server: portico.Server) -> int:
    return server.listeners[0].settings.bytes_received
