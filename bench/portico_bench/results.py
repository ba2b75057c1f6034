"""The figures of all rounds, their medians and ratios, and the file they go to."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from portico_bench.catalogue import SERVERS, WORKLOADS
from portico_bench.measure import Sample

PACKAGES = ("portico", "uvloop", "anyio", "trio", "aiofastnet", "Cython")
WEB_PACKAGES = ("picows", "websockets", "aiohttp", "isal", "uvicorn", "httptools")
NODE_PACKAGES = ("ws", "bufferutil")
REFERENCES = {workload.name: workload.reference for workload in WORKLOADS}


@dataclass
class Cell:
    """One server under one workload: a sample for each round in which it worked, and what failed."""

    samples: dict[int, Sample] = field(default_factory=dict)
    error: str = ""


class Results:
    """Cells by workload and server, in the order in which they were measured first."""

    def __init__(self) -> None:
        self.cells: dict[str, dict[str, Cell]] = {}

    def cell(self, workload: str, server: str) -> Cell:
        """The cell, made when it is not there."""
        return self.cells.setdefault(workload, {}).setdefault(server, Cell())

    def add(self, workload: str, server: str, round_: int, outcome: Sample | Exception) -> None:
        """Record a sample, or why there is none. One failed round makes the whole cell a failed one."""
        cell = self.cell(workload, server)
        if isinstance(outcome, Exception):
            cell.error = cell.error or str(outcome)
        else:
            cell.samples[round_] = outcome

    def drop_unmeasured(self) -> None:
        """Forget the cells that an interrupted run did not come to."""
        for workload, cells in list(self.cells.items()):
            self.cells[workload] = {server: cell for server, cell in cells.items() if cell.samples or cell.error}
            if not self.cells[workload]:
                del self.cells[workload]

    def median(self, workload: str, server: str, figure: str) -> float | None:
        """The median over the rounds; None when the cell failed or was not measured."""
        cell = self.cells.get(workload, {}).get(server)
        if cell is None or cell.error or not cell.samples:
            return None
        return statistics.median(sample[figure] for sample in cell.samples.values())

    def ratio(self, workload: str, server: str, against: str, figure: str = "cpu_us") -> float | None:
        """The median over the rounds of the ratio within one round, where both ran side by side."""
        mine, theirs = (self.cells.get(workload, {}).get(name) for name in (server, against))
        if mine is None or theirs is None or mine.error or theirs.error:
            return None
        rounds = [r for r in mine.samples.keys() & theirs.samples.keys() if theirs.samples[r][figure] > 0]
        if not rounds:
            return None
        return statistics.median(mine.samples[r][figure] / theirs.samples[r][figure] for r in rounds)

    def write(self, path: Path, settings: dict[str, Any], targets: list[dict[str, Any]]) -> None:
        """Everything as JSON: each sample, the medians, and where it was measured."""
        cells = {
            workload: {server: self._cell_json(workload, server) for server in by_server}
            for workload, by_server in self.cells.items()
        }
        content = {"environment": environment(), "settings": settings, "targets": targets, "workloads": cells}
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content, indent=1) + "\n")

    def _cell_json(self, workload: str, server: str) -> dict[str, Any]:
        cell = self.cells[workload][server]
        samples = [
            {"round": number} | {figure: round(value, 4) for figure, value in sample.items()}
            for number, sample in sorted(cell.samples.items())
        ]
        if cell.error:
            return {"error": cell.error, "rounds": samples}
        figures = next(iter(cell.samples.values()), {})
        content: dict[str, Any] = {figure: round(self.median(workload, server, figure) or 0, 4) for figure in figures}
        reference = REFERENCES[workload]
        if "cpu_us" in figures and (ratio := self.ratio(workload, server, reference)) is not None:
            content[f"ratio_to_{reference}"] = round(ratio, 4)
        return content | {"rounds": samples}


def environment() -> dict[str, Any]:
    """Versions and machine."""
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "kernel": platform.release(),
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "load_before": round(os.getloadavg()[2], 2),
        "python": platform.python_version(),
        "implementation": sys.implementation.name,
        "openssl": _first_line("openssl", "version"),
        "gcc": _first_line("gcc", "--version"),
        "node": _first_line("node", "--version"),
        **{name: _version(name) for name in (*PACKAGES, *WEB_PACKAGES)},
        **{f"node {name}": _node_version(name) for name in NODE_PACKAGES},
    }


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _node_version(package: str) -> str | None:
    path = SERVERS / "node_modules" / package / "package.json"
    return str(json.loads(path.read_text())["version"]) if path.exists() else None


def _first_line(*command: str) -> str | None:
    if shutil.which(command[0]) is None:
        return None
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()[0]
