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
    header: bool = False
    """Clients send a PROXY header first, which the server wants."""
    proxied: bool = False
    """Clients come through a SOCKS5 proxy."""
    wires: tuple[str, ...] = SOCKETS
    keeps_records: bool = False
    """What is sent arrives as it was cut: connections are Channels, without a codec of bytes."""
    framed: bool = False
    """It has frames of its own for messages, str or bytes, and its end is spoken of: a WebSocket."""
    tells_start: bool = True
    """A server knows of a connection before anything was sent."""
    tells_end: bool = True
    """The peer hears of a close."""
    can_half_close: bool = True
    lossless: bool = True
    """A receiver that takes nothing makes the sender wait; else what finds no room is dropped, and counted."""

    @property
    def inet(self) -> bool:
        return self.address.startswith(("tcp:", "tls:", "ws:", "wss:"))

    @property
    def unix(self) -> bool:
        return self.scheme in ("unix", "unixpacket")

    @property
    def memory(self) -> bool:
        return self.scheme == "mem"

    @property
    def tells_abort(self) -> bool:
        """Whether the peer of an abort sees a loss: a plain Unix socket only knows an end (unix(7))."""
        return not self.unix or self.tls is not None or self.framed

    @property
    def gives_cause(self) -> bool:
        """Whether the error of such a loss has one of the system as its cause: an end without good-bye has none."""
        return self.tells_abort and not (self.unix and self.framed)


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


PEER = {"keeps_records": True, "tells_start": False, "tells_end": False, "can_half_close": False, "lossless": False}
"""What is known where a server's connections are the peers of one socket."""

STREAMS = {
    row.name: row
    for row in (
        Transport("tcp", "tcp://127.0.0.1:0", "tcp"),
        *([Transport("tcp6", "tcp://[::1]:0", "tcp")] if _has_ipv6() else []),
        Transport("tls", "tls://127.0.0.1:0", "tls", tls="TLSv1.3"),
        Transport("tls12", "tcp://127.0.0.1:0", "tls", tls="TLSv1.2"),
        Transport("starttls", "tcp://127.0.0.1:0", "tls", tls="TLSv1.3", upgraded=True),
        Transport("proxy-header", "tcp://127.0.0.1:0", "tcp", header=True),
        Transport("proxy-header+tls", "tls://127.0.0.1:0", "tls", tls="TLSv1.3", header=True),
        Transport("proxied", "tcp://127.0.0.1:0", "tcp", proxied=True),
        Transport("proxied+tls", "tls://127.0.0.1:0", "tls", tls="TLSv1.3", proxied=True),
        Transport("unix", "unix:{dir}/portico.sock", "unix"),
        Transport("abstract", "unix:@{dir}/portico", "unix"),
        Transport("unix+tls", "unix:{dir}/portico.sock", "unix", tls="TLSv1.3"),
        Transport("mem", "mem:contract", "mem", wires=("memory",)),
        Transport("mem+tls", "mem:contract", "mem", tls="TLSv1.3", wires=("memory",)),
    )
}
PACKETS = {
    row.name: row
    for row in (
        Transport("unixpacket", "unixpacket:{dir}/portico.sock", "unixpacket", keeps_records=True),
        Transport("unixgram", "unixgram:{dir}/portico.sock", "unixgram", **PEER),
        Transport("udp", "udp://127.0.0.1:0", "udp", **PEER),
        *([Transport("udp6", "udp://[::1]:0", "udp", **PEER)] if _has_ipv6() else []),
    )
}
FRAMED = {"keeps_records": True, "framed": True, "can_half_close": False}
"""What is known of every WebSocket."""

WEBSOCKETS = {
    row.name: row
    for row in (
        Transport("ws", "ws://127.0.0.1:0/room", "tcp", **FRAMED),
        Transport("wss", "wss://127.0.0.1:0/room", "tls", tls="TLSv1.3", **FRAMED),
        Transport("ws+unix", "ws+unix:{dir}/portico.sock:/room", "unix", **FRAMED),
        Transport("proxied+ws", "ws://127.0.0.1:0/room", "tcp", proxied=True, **FRAMED),
    )
}
TRANSPORTS = {**STREAMS, **PACKETS, **WEBSOCKETS}
ALL = tuple(STREAMS)
"""Those that carry bytes in a row; what holds for messages holds over `WHOLE`, too."""
EVERY = tuple(TRANSPORTS)
PLAIN = tuple(name for name, row in STREAMS.items() if row.tls is None and not row.header and not row.proxied)
"""Those that carry what is sent and nothing else."""
DIRECT = tuple(name for name, row in STREAMS.items() if not row.proxied)
"""Those where what was sent is there when the loop looks next: no other process is on the way."""
SECURE = tuple(name for name, row in STREAMS.items() if row.tls is not None)
SOME = ("tcp", "tls", "unix", "mem")
"""One of each kind, for what depends more on the engine than on the transport."""
WHOLE = (*PACKETS, *WEBSOCKETS)
"""Those where what is sent arrives as it was cut."""
CODED = (*SOME, *PACKETS)
"""As `SOME`, where a test is about messages of a codec."""
MESSAGES = (*CODED, *WEBSOCKETS)
"""As `SOME`, where a test sends and receives whole messages."""
LOSSLESS = tuple(name for name in WHOLE if TRANSPORTS[name].lossless)
LOSSY = tuple(name for name in PACKETS if not TRANSPORTS[name].lossless)
HALF_CLOSING = tuple(name for name in PACKETS if TRANSPORTS[name].can_half_close)


def cases(names: Iterable[str] = ALL, loops: Iterable[str] = LOOPS, wires: Iterable[str] | None = None) -> list[Case]:
    """Return every case of the transports called `names`; `wires`: only these kinds."""
    rows = [TRANSPORTS[name] for name in names if name in TRANSPORTS]
    return [
        Case(row, loop, wire)
        for row, loop in itertools.product(rows, loops)
        for wire in row.wires
        if wires is None or wire in wires
    ]
