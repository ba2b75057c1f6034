"""Draws the results: a panel for each workload, a bar for each server."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot
from matplotlib.axes import Axes

from portico_bench.catalogue import SERVER_LIST, WORKLOADS, Workload
from portico_bench.results import Results, environment

COLUMNS = 3
COLOURS = {
    "c": "#555555",
    "portico": "#d1495b",
    "portico-stdlib": "#e8949f",
    "uvloop-protocol": "#2e5f8a",
    "uvloop": "#4f8fc0",
    "asyncio": "#94bddb",
    "anyio": "#c9a227",
    "trio": "#7a9e5b",
    "node": "#8b6bab",
}
TITLES = {server.name: server.title for server in SERVER_LIST}


def draw(results: Results, path: Path) -> None:
    """Write the picture."""
    shown = [(workload, bars) for workload in WORKLOADS if (bars := _bars(results, workload))]
    if not shown:
        return
    rows = -(-len(shown) // COLUMNS)
    figure, grid = pyplot.subplots(rows, COLUMNS, figsize=(17, 0.9 + 2.6 * rows), squeeze=False)
    for axes, (workload, bars) in zip(grid.flat, shown, strict=False):
        _panel(axes, workload, bars)
    for axes in list(grid.flat)[len(shown) :]:
        axes.axis("off")
    where = environment()
    names = ("portico", "python", "uvloop", "anyio", "trio", "node")
    versions = ", ".join(f"{name} {where[name]}" for name in names if where[name])
    machine = f"{versions}; Linux {where['kernel']}, {where['cpu']}"
    figure.suptitle("Server CPU time against a C epoll echo in the same run (shorter is better)", fontsize=15, y=0.995)
    figure.text(0.5, 0.006, machine, ha="center", fontsize=9, color="#666666")
    figure.tight_layout(rect=(0, 0.015, 1, 0.985), h_pad=1.8, w_pad=2.0)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _bars(results: Results, workload: Workload) -> list[tuple[str, float | None, str]]:
    """Server, length of its bar (None: failed) and what is written at its end."""
    bars: list[tuple[str, float | None, str]] = []
    for server, cell in results.cells.get(workload.name, {}).items():
        if cell.error:
            bars.append((server, None, "failed"))
        elif workload.program == "idle":
            value = results.median(workload.name, server, "kib")
            bars.append((server, value, f"{value:.1f}"))
        elif workload.program == "import":
            value = results.median(workload.name, server, "ms")
            bars.append((server, value, f"{value:.0f}"))
        elif (ratio := results.ratio(workload.name, server, "c")) is not None:
            cpu = results.median(workload.name, server, "cpu_us")
            bars.append((server, ratio, f"{ratio:.2f}  ({cpu:.3g} µs)"))
    return bars if any(length is not None for _, length, _ in bars) else []


def _panel(axes: Axes, workload: Workload, bars: list[tuple[str, float | None, str]]) -> None:
    longest = max(length for _, length, _ in bars if length is not None)
    for position, (server, length, label) in enumerate(bars):
        colour = COLOURS.get(server, "#94bddb")
        axes.barh(position, length or 0, color=colour, height=0.72)
        weight = "bold" if server == "portico" else "normal"
        ink = "#222222" if length is not None else "#b00020"
        end = (length or 0) + longest * 0.015
        axes.text(end, position, label, va="center", fontsize=9, weight=weight, color=ink)
    names = [name if workload.program == "import" else TITLES[name] for name, _, _ in bars]
    axes.set_yticks(range(len(bars)), names, fontsize=9)
    for tick, (server, _, _) in zip(axes.get_yticklabels(), bars, strict=True):
        tick.set_weight("bold" if server == "portico" else "normal")
    axes.set_ylim(len(SERVER_LIST) - 0.4, -0.6)
    axes.set_xlim(0, longest * 1.42)
    axes.tick_params(axis="x", labelsize=8)
    axes.tick_params(axis="y", length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    if workload.program == "idle":
        title = "KiB resident for an idle connection, of 10,000"
    elif workload.program == "import":
        title = f"{workload.title}, ms"
    else:
        axes.axvline(1, color="#999999", linewidth=0.8, linestyle="--", zorder=0)
        title = workload.title
    axes.set_title(title, fontsize=10, loc="left", weight="bold")
