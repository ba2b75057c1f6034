"""The figures that Portico is to reach, and whether it did."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from portico_bench.results import Results


@dataclass(frozen=True)
class Target:
    """A bound on a CPU ratio to a peer in the same run, or on a figure of Portico itself."""

    text: str
    workload: str
    at_most: float
    against: str = ""
    figure: str = "cpu_us"
    unit: str = "x"

    def seen(self, results: Results) -> float | None:
        """What was measured; None when something it needs failed or was left out."""
        if self.against:
            return results.ratio(self.workload, "portico", self.against, self.figure)
        return results.median(self.workload, "portico", self.figure)


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
    Target("Idle connection", "idle", 3.8, figure="kib", unit="KiB"),
    Target("import portico", "import", 60, figure="ms", unit="ms"),
)


def verdicts(results: Results) -> list[dict[str, Any]]:
    """Each target with what was seen: "reached", "missed" or "not measured"."""
    found = []
    for target in TARGETS:
        seen = target.seen(results)
        verdict = "not measured" if seen is None else "reached" if seen <= target.at_most else "missed"
        value = None if seen is None else round(seen, 4)
        found.append(
            {"target": target.text, "at_most": target.at_most, "unit": target.unit, "seen": value, "verdict": verdict}
        )
    return found
