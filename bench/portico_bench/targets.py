"""The figures that Portico is to reach, and whether it did."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from portico_bench.catalogue import SERVER_LIST
from portico_bench.results import Results


@dataclass(frozen=True)
class Target:
    """A bound on a ratio to a peer in the same run, mostly of CPU time, or on a figure of Portico itself.

    It is the most that this may be, or the least (`is_floor`). Of several peers the cheapest counts."""

    text: str
    workload: str
    bound: float
    against: str | tuple[str, ...] = ""
    figure: str = "cpu_us"
    unit: str = "x"
    server: str = "portico"
    is_floor: bool = False

    def seen(self, results: Results) -> float | None:
        """What was measured; None when something it needs failed or was left out."""
        if not self.against:
            return results.median(self.workload, self.server, self.figure)
        peers = (self.against,) if isinstance(self.against, str) else self.against
        ratios = [results.ratio(self.workload, self.server, peer, self.figure) for peer in peers]
        return None if None in ratios else max(ratio for ratio in ratios if ratio is not None)

    def verdict(self, seen: float | None) -> str:
        """What that means: "reached", "missed" or "not measured"."""
        if seen is None:
            return "not measured"
        return "reached" if (seen >= self.bound if self.is_floor else seen <= self.bound) else "missed"


TUNED = ("ws-node-corked", "aiohttp-isal")
"""Peers that go beyond their own settings; they have targets of their own."""


def _peers(mode: str) -> tuple[str, ...]:
    """All that offer a mode with what comes with them."""
    others = [server for server in SERVER_LIST if mode in server.modes and not server.is_portico]
    return tuple(server.name for server in others if server.name not in TUNED)


TARGETS = (
    Target("Lines, depth 1, to C", "lines-1", 1.3, "c"),
    Target("Lines, depth 1, to uvloop streams", "lines-1", 0.65, "uvloop"),
    Target("Lines, depth 16, to C", "lines-16", 1.8, "c"),
    Target("Lines, depth 16, to uvloop streams", "lines-16", 0.15, "uvloop"),
    Target("16 KiB lines, to C", "lines-16k", 1.5, "c"),
    Target("Stream echo, to a bare uvloop Protocol", "raw", 1.0, "uvloop-protocol"),
    Target("TLS echo, to uvloop streams", "tls", 0.9, "uvloop"),
    Target("Churn, to uvloop streams", "churn", 0.7, "uvloop"),
    Target("Churn with resets, to uvloop streams", "churn-reset", 0.7, "uvloop"),
    Target("Group of 1000, one message, to a loop over uvloop writers", "group-1", 0.85, "uvloop"),
    Target("Group of 1000, burst of 16, to a loop over uvloop writers", "group-16", 0.2, "uvloop"),
    Target("UDP receive, to uvloop's endpoint", "udp-receive", 0.4, "uvloop-protocol"),
    Target("UDP receive, rate to that of uvloop's", "udp-receive", 10, "uvloop-protocol", "per_second", is_floor=True),
    Target(
        "UDP receive, GRO off, to uvloop's endpoint", "udp-receive", 0.4, "uvloop-protocol", server="portico-no-gro"
    ),
    Target(
        "UDP receive, GRO off, rate to that of uvloop's",
        "udp-receive",
        4,
        "uvloop-protocol",
        "per_second",
        server="portico-no-gro",
        is_floor=True,
    ),
    Target("UDP echo, 64 in flight, to C recvmmsg and sendmmsg", "udp-echo-64", 1.25, "c"),
    Target("UDP echo, one in flight, to C recvmmsg and sendmmsg", "udp-echo-1", 1.25, "c"),
    Target("WebSocket, 100 bytes, depth 1, to picows", "ws-1", 0.75, "picows"),
    Target("WebSocket, 100 bytes, depth 1, to websockets", "ws-1", 0.3, "websockets"),
    Target("WebSocket, 100 bytes, depth 16, to picows", "ws-16", 0.15, "picows"),
    Target("WebSocket, 16 KiB, to picows", "ws-16k", 0.85, "picows"),
    Target("WebSocket, 1 MiB, to picows", "ws-1m", 1.0, "picows"),
    Target("WebSocket, deflated JSON, to the cheapest peer", "ws-deflate", 1.0, _peers("ws-deflate")),
    Target("WebSocket, deflated JSON, to aiohttp with ISA-L", "ws-deflate", 1.0, "aiohttp-isal"),
    Target("WebSocket group of 2000, one message, to the cheapest peer", "ws-group-1", 0.9, _peers("ws-group")),
    Target("WebSocket group of 2000, burst of 16, to the cheapest peer", "ws-group-16", 0.2, _peers("ws-group")),
    Target("WebSocket group of 2000, burst of 16, to ws on Node, corked", "ws-group-16", 0.2, "ws-node-corked"),
    Target("Idle WebSocket connection, to the smallest peer", "ws-idle", 1.0, _peers("ws-idle"), "kib_used"),
    Target("The same, deflated", "ws-idle-deflate", 1.0, _peers("ws-idle-deflate"), "kib_used"),
    Target("HTTP GET of 2 KiB, to uvicorn with httptools", "http", 1.0, "uvicorn"),
    Target("Idle connection", "idle", 3.8, figure="kib", unit="KiB"),
    Target("import portico", "import", 60, figure="ms", unit="ms"),
)


def verdicts(results: Results) -> list[dict[str, Any]]:
    """Each target with what was seen: "reached", "missed" or "not measured"."""
    found = []
    for target in TARGETS:
        seen = target.seen(results)
        found.append(
            {
                "target": target.text,
                "at_least" if target.is_floor else "at_most": target.bound,
                "unit": target.unit,
                "seen": None if seen is None else round(seen, 4),
                "verdict": target.verdict(seen),
            }
        )
    return found
