"""The table of what the contract runs over: a new transport is one more row."""

import contextlib
import itertools
import socket
from collections.abc import Iterable
from dataclasses import dataclass

LOOPS = ("uvloop", "asyncio")
SOCKETS = ("epoll", "loop")
"""Kinds of wire over a socket: our own epoll set, and a transport of the event loop."""


@dataclass(frozen=True)
class Transport:
    """One way to carry bytes, and what is known of it beyond the promises that all share."""

    name: str
    address: str
    """Where a server listens; `{dir}` is a directory of the test's own."""
    scheme: str
    """What the connection's addresses say."""
    tls: str | None = None
    """The version of TLS that is spoken."""
    upgraded: bool = False
    """TLS begins by `start_tls` on both sides."""
    wires: tuple[str, ...] = SOCKETS

    @property
    def inet(self) -> bool:
        return self.address.startswith(("tcp:", "tls:"))

    @property
    def unix(self) -> bool:
        return self.scheme == "unix"

    @property
    def memory(self) -> bool:
        return self.scheme == "mem"

    @property
    def tells_abort(self) -> bool:
        """Whether the peer of an abort sees a loss: a plain Unix socket only knows an end (unix(7))."""
        return not self.unix or self.tls is not None


@dataclass(frozen=True)
class Case:
    """One row of the table on one loop, over one kind of wire."""

    transport: Transport
    loop: str
    wire: str

    def __str__(self) -> str:
        return f"{self.transport.name}-{self.loop}-{self.wire}"


def _has_ipv6() -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))
        return True
    return False


TRANSPORTS = {
    row.name: row
    for row in (
        Transport("tcp", "tcp://127.0.0.1:0", "tcp"),
        *([Transport("tcp6", "tcp://[::1]:0", "tcp")] if _has_ipv6() else []),
        Transport("tls", "tls://127.0.0.1:0", "tls", tls="TLSv1.3"),
        Transport("tls12", "tcp://127.0.0.1:0", "tls", tls="TLSv1.2"),
        Transport("starttls", "tcp://127.0.0.1:0", "tls", tls="TLSv1.3", upgraded=True),
        Transport("unix", "unix:{dir}/portico.sock", "unix"),
        Transport("abstract", "unix:@{dir}/portico", "unix"),
        Transport("unix+tls", "unix:{dir}/portico.sock", "unix", tls="TLSv1.3"),
        Transport("mem", "mem:contract", "mem", wires=("memory",)),
        Transport("mem+tls", "mem:contract", "mem", tls="TLSv1.3", wires=("memory",)),
    )
}
ALL = tuple(TRANSPORTS)
PLAIN = tuple(name for name, row in TRANSPORTS.items() if row.tls is None)
SECURE = tuple(name for name, row in TRANSPORTS.items() if row.tls is not None)
SOME = ("tcp", "tls", "unix", "mem")
"""One of each kind, for what depends more on the engine than on the transport."""


def cases(names: Iterable[str] = ALL, loops: Iterable[str] = LOOPS, wires: Iterable[str] | None = None) -> list[Case]:
    """Return every case of the transports called `names`; `wires`: only these kinds."""
    rows = [TRANSPORTS[name] for name in names if name in TRANSPORTS]
    return [
        Case(row, loop, wire)
        for row, loop in itertools.product(rows, loops)
        for wire in row.wires
        if wires is None or wire in wires
    ]
