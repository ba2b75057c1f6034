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

ALL_MODES = frozenset({"lines", "raw", "tls", "churn", "group", "idle"})


@dataclass(frozen=True)
class Server:
    """One server program; `title` is what tables call it."""

    name: str
    title: str
    program: str
    modes: frozenset[str] = ALL_MODES

    def command(self, port: int, mode: str) -> list[str]:
        """The command line, `PORT MODE` at its end."""
        if self.program.endswith(".py"):
            start = [sys.executable, str(SERVERS / self.program)]
        elif self.program.endswith(".js"):
            start = [shutil.which("node") or "node", str(SERVERS / self.program)]
        else:
            start = [str(BUILD / (f"{self.program}_tls" if mode == "tls" else self.program))]
        return [*start, str(port), mode]


@dataclass(frozen=True)
class Workload:
    """One thing that is measured: which load program with which options against which mode of the servers."""

    name: str
    title: str
    mode: str
    program: str
    options: dict[str, int] = field(default_factory=dict)
    unit: str = "messages"


SERVER_LIST = (
    Server("c", "C epoll", "echo"),
    Server("portico", "Portico on uvloop", "portico_server.py"),
    Server("portico-stdlib", "Portico on asyncio", "portico_stdlib.py"),
    Server("uvloop-protocol", "uvloop Protocol, no framing", "uvloop_protocol.py", ALL_MODES - {"group"}),
    Server("uvloop", "uvloop streams", "uvloop_streams.py"),
    Server("asyncio", "asyncio streams", "asyncio_streams.py"),
    Server("anyio", "anyio on uvloop", "anyio_server.py"),
    Server("trio", "trio", "trio_server.py"),
    Server("node", "Node net", "node_server.js"),
)

LINE = {"connections": 50, "size": 100, "depth": 1}

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
    Workload("idle", "Resident memory, 10,000 idle connections", "idle", "idle", {"connections": 10_000}),
    Workload("import", "Import time", "import", "import"),
)

IMPORTS = ("portico", "asyncio", "uvloop", "anyio", "trio")
