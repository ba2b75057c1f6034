"""What is compared: the servers and the workloads."""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path

BENCH = Path(__file__).resolve().parent.parent
BUILD = BENCH / "build"
RESULTS = BENCH / "results"
SERVERS = BENCH / "servers"

UDP_MODES = frozenset({"udp-receive", "udp-echo"})
STREAM_MODES = frozenset({"lines", "raw", "tls", "churn", "group", "idle"})
SOCKET_MODES = STREAM_MODES | UDP_MODES
DEFLATE_MODES = frozenset({"ws-deflate", "ws-idle-deflate"})
PLAIN_WS_MODES = frozenset({"ws", "ws-idle", "ws-group"})
WS_MODES = PLAIN_WS_MODES | DEFLATE_MODES
HTTP_MODES = frozenset({"http"})


@dataclass(frozen=True)
class Server:
    """One server program; `title` is what tables call it, `variant` tells the program how to go about it."""

    name: str
    title: str
    program: str
    modes: frozenset[str] = SOCKET_MODES
    variant: str = ""

    @property
    def is_portico(self) -> bool:
        """Whether it is Portico itself, however it is set up."""
        return self.name.startswith("portico")

    def command(self, port: int, mode: str) -> list[str]:
        """The command line, `PORT MODE [VARIANT]` at its end."""
        if self.program.endswith(".py"):
            start = [sys.executable, str(SERVERS / self.program)]
        elif self.program.endswith(".js"):
            start = [shutil.which("node") or "node", str(SERVERS / self.program)]
        else:
            kind = "_tls" if mode == "tls" else "_udp" if mode in UDP_MODES else ""
            start = [str(BUILD / (self.program + kind))]
        return [*start, str(port), mode, *([self.variant] if self.variant else [])]


@dataclass(frozen=True)
class Workload:
    """One thing that is measured: which load program with which options against which mode of the servers.

    `reference` is the server that the others are compared with, `memory` the figure of memory that counts."""

    name: str
    title: str
    mode: str
    program: str
    options: dict[str, int] = field(default_factory=dict)
    unit: str = "messages"
    reference: str = "c"
    memory: str = "kib"


SERVER_LIST = (
    Server("c", "C epoll", "echo"),
    Server("c-gro", "C epoll, GRO and GSO", "echo", UDP_MODES, "gro"),
    Server("portico", "Portico on uvloop", "portico_server.py", SOCKET_MODES | WS_MODES | HTTP_MODES),
    Server("portico-stdlib", "Portico on asyncio", "portico_stdlib.py", SOCKET_MODES | WS_MODES | HTTP_MODES),
    Server("portico-no-gro", "Portico, GRO off", "portico_server.py", UDP_MODES, "no-gro"),
    Server("portico-packets", "Portico, packet by packet", "portico_server.py", UDP_MODES, "packets"),
    Server("portico-peers", "Portico, a Channel a peer", "portico_server.py", UDP_MODES, "peers"),
    Server("uvloop-protocol", "uvloop Protocol, no framing", "uvloop_protocol.py", SOCKET_MODES - {"group"}),
    Server("asyncio-protocol", "asyncio Protocol", "asyncio_protocol.py", UDP_MODES),
    Server("uvloop", "uvloop streams", "uvloop_streams.py", STREAM_MODES),
    Server("asyncio", "asyncio streams", "asyncio_streams.py", STREAM_MODES),
    Server("anyio", "anyio on uvloop", "anyio_server.py"),
    Server("trio", "trio", "trio_server.py"),
    Server("node", "Node net", "node_server.js"),
    Server("picows", "picows", "picows_server.py", PLAIN_WS_MODES),
    Server("picows-websockets", "picows, like websockets", "picows_websockets.py", WS_MODES),
    Server("websockets", "websockets", "websockets_server.py", WS_MODES),
    Server("aiohttp", "aiohttp", "aiohttp_server.py", WS_MODES),
    Server("aiohttp-isal", "aiohttp with ISA-L", "aiohttp_server.py", DEFLATE_MODES, "isal"),
    Server("ws-node", "ws on Node", "ws_server.js", WS_MODES),
    Server("ws-node-corked", "ws on Node, corked", "ws_server.js", frozenset({"ws", "ws-group"}), "corked"),
    Server("uvicorn", "uvicorn, httptools", "uvicorn_server.py", HTTP_MODES),
    Server("uvicorn-memory", "uvicorn, out of memory", "uvicorn_server.py", HTTP_MODES, "memory"),
)

LINE = {"connections": 50, "size": 100, "depth": 1}


def _websocket(name: str, title: str, reference: str = "picows", **options: int) -> Workload:
    mode = "ws-deflate" if options.get("deflate") else "ws"
    return Workload(name, f"WebSocket, {title}", mode, "websocket", LINE | options, reference=reference)


def _websocket_group(name: str, title: str, burst: int) -> Workload:
    options = {"burst": burst, "members": 2000, "websocket": 1}
    return Workload(name, f"WebSocket group of 2000, {title}", "ws-group", "group", options, "deliveries", "picows")


def _websocket_idle(name: str, title: str, mode: str, **options: int) -> Workload:
    options |= {"connections": 2000, "websocket": 1}
    return Workload(
        name, f"Resident memory, 2000 idle WebSocket connections{title}", mode, "idle", options, memory="kib_used"
    )


WORKLOADS = (
    Workload("lines-1", "Lines of 100 bytes, 50 connections, depth 1", "lines", "stream", LINE),
    Workload("lines-16", "Lines of 100 bytes, 50 connections, depth 16", "lines", "stream", LINE | {"depth": 16}),
    Workload("lines-500", "Lines of 100 bytes, 500 connections", "lines", "stream", LINE | {"connections": 500}),
    Workload("lines-one", "Lines of 100 bytes, one connection", "lines", "stream", LINE | {"connections": 1}),
    Workload("lines-16k", "Lines of 16 KiB, 50 connections", "lines", "stream", LINE | {"size": 16384}),
    Workload("raw", "Stream echo of 100 bytes, 50 connections", "raw", "stream", LINE),
    Workload("tls", "Stream echo over TLS, 100 bytes, 50 connections", "tls", "stream", LINE | {"tls": 1}),
    Workload("churn", "Churn: accept, one line there and back, close", "churn", "churn", {}, "connections"),
    Workload("churn-reset", "Churn, closed by a reset", "churn", "churn", {"reset": 1}, "connections"),
    Workload("group-1", "Group of 1000 members, one message", "group", "group", {"burst": 1}, "deliveries"),
    Workload("group-16", "Group of 1000 members, bursts of 16", "group", "group", {"burst": 16}, "deliveries"),
    Workload("udp-receive", "UDP flood, packets of 100 bytes", "udp-receive", "flood", {}, "packets"),
    Workload("udp-echo-64", "UDP echo of 100 bytes, 64 in flight", "udp-echo", "datagrams", {"depth": 64}, "packets"),
    Workload("udp-echo-1", "UDP echo of 100 bytes, one in flight", "udp-echo", "datagrams", {"depth": 1}, "packets"),
    _websocket("ws-1", "messages of 100 bytes, 50 connections, depth 1"),
    _websocket("ws-16", "messages of 100 bytes, 50 connections, depth 16", depth=16),
    _websocket("ws-16k", "messages of 16 KiB, 50 connections", size=16 << 10),
    _websocket("ws-1m", "messages of 1 MiB, 10 connections", size=1 << 20, connections=10),
    _websocket("ws-deflate", "deflated JSON of 1 KiB, 50 connections", "websockets", size=1024, deflate=1),
    _websocket_group("ws-group-1", "one message", 1),
    _websocket_group("ws-group-16", "bursts of 16", 16),
    Workload("http", "HTTP, GET of a file of 2 KiB, 50 connections", "http", "http", {}, "requests", "uvicorn"),
    Workload("idle", "Resident memory, 10,000 idle connections", "idle", "idle", {"connections": 10_000}),
    _websocket_idle("ws-idle", "", "ws-idle"),
    _websocket_idle("ws-idle-deflate", ", deflated", "ws-idle-deflate", deflate=1),
    Workload("import", "Import time", "import", "import"),
)

IMPORTS = ("portico", "asyncio", "uvloop", "anyio", "trio")
