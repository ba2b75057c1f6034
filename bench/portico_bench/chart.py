"""Draws the results: a panel for each workload, a bar for each server."""

from __future__ import annotations

import textwrap
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot
from matplotlib.axes import Axes

from portico_bench.catalogue import SERVER_LIST, WORKLOADS, Workload
from portico_bench.results import Results, environment

COLUMNS = 3
LONGEST_FLOOD = 4
"""A server that loses most of a flood needs so much more for the rest that the others could not be told apart."""

COLOURS = {
    "c": "#555555",
    "c-gro": "#999999",
    "portico": "#d1495b",
    "portico-stdlib": "#e8949f",
    "portico-no-gro": "#a83246",
    "portico-packets": "#dd7380",
    "portico-peers": "#f0b8bf",
    "uvloop-protocol": "#2e5f8a",
    "asyncio-protocol": "#5d86a8",
    "uvloop": "#4f8fc0",
    "asyncio": "#94bddb",
    "anyio": "#c9a227",
    "trio": "#7a9e5b",
    "node": "#8b6bab",
    "picows": "#2e5f8a",
    "picows-websockets": "#5d86a8",
    "websockets": "#4f8fc0",
    "aiohttp": "#c9a227",
    "aiohttp-isal": "#dcc26f",
    "ws-node": "#8b6bab",
    "ws-node-corked": "#a890c2",
    "uvicorn": "#7a9e5b",
    "uvicorn-memory": "#a9c492",
}
TITLES = {server.name: server.title for server in SERVER_LIST}
TITLE_WIDTH = 42
"""Letters in a line of a panel's title: longer ones would run into the next panel."""


def draw(results: Results, path: Path) -> None:
    """Write the picture."""
    shown = [(workload, bars) for workload in WORKLOADS if (bars := _bars(results, workload))]
    if not shown:
        return
    rows = [shown[first : first + COLUMNS] for first in range(0, len(shown), COLUMNS)]
    slots = [max(len(bars) for _, bars in row) for row in rows]
    inches = [0.8 + 0.2 * count for count in slots]
    figure, grid = pyplot.subplots(
        len(rows), COLUMNS, figsize=(17, 0.9 + sum(inches)), squeeze=False, height_ratios=inches
    )
    for row, count, panels in zip(rows, slots, grid, strict=True):
        for axes, (workload, bars) in zip(panels, row, strict=False):
            _panel(axes, workload, bars, count)
    for axes in list(grid.flat)[len(shown) :]:
        axes.axis("off")
    where = environment()
    names = [
        "portico",
        "python",
        "uvloop",
        "anyio",
        "trio",
        "node",
        "picows",
        "websockets",
        "aiohttp",
        "node ws",
        "uvicorn",
    ]
    versions = ", ".join(f"{name} {where[name]}" for name in names if where[name])
    machine = f"{versions}; Linux {where['kernel']}, {where['cpu']}"
    figure.suptitle(
        "Server CPU time against a C epoll echo, or what is named, in the same run (shorter is better)",
        fontsize=15,
        y=0.995,
    )
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
            value = results.median(workload.name, server, workload.memory)
            bars.append((server, value, f"{value:.1f}"))
        elif workload.program == "import":
            value = results.median(workload.name, server, "ms")
            bars.append((server, value, f"{value:.0f}"))
        elif (ratio := results.ratio(workload.name, server, workload.reference)) is not None:
            cpu = results.median(workload.name, server, "cpu_us")
            bars.append((server, ratio, f"{ratio:.2f}  ({cpu:.3g} µs)"))
    return bars if any(length is not None for _, length, _ in bars) else []


def _panel(axes: Axes, workload: Workload, bars: list[tuple[str, float | None, str]], slots: int) -> None:
    cut = LONGEST_FLOOD if workload.program == "flood" else float("inf")
    longest = min(cut, max(length for _, length, _ in bars if length is not None))
    for position, (server, whole, text) in enumerate(bars):
        is_cut = whole is not None and whole > cut
        length, label = (cut, f"… {text}") if is_cut else (whole, text)
        colour = COLOURS.get(server, "#94bddb")
        axes.barh(position, length or 0, color=colour, height=0.72)
        weight = "bold" if server == "portico" else "normal"
        ink = "#222222" if length is not None else "#b00020"
        end = (length or 0) + longest * 0.015
        ground = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
        axes.text(end, position, label, va="center", fontsize=9, weight=weight, color=ink, bbox=ground)
    names = [name if workload.program == "import" else TITLES[name] for name, _, _ in bars]
    axes.set_yticks(range(len(bars)), names, fontsize=9)
    for tick, (server, _, _) in zip(axes.get_yticklabels(), bars, strict=True):
        tick.set_weight("bold" if server == "portico" else "normal")
    axes.set_ylim(slots - 0.4, -0.6)
    axes.set_xlim(0, longest * 1.42)
    axes.tick_params(axis="x", labelsize=8)
    axes.tick_params(axis="y", length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    if workload.program == "idle":
        title = f"{workload.title}, KiB each"
    elif workload.program == "import":
        title = f"{workload.title}, ms"
    else:
        axes.axvline(1, color="#999999", linewidth=0.8, linestyle="--", zorder=0)
        title = workload.title if cut == float("inf") else f"{workload.title} (cut at {cut})"
        if workload.reference != "c":
            title += f" (1: {TITLES[workload.reference]})"
    axes.set_title(textwrap.fill(title, TITLE_WIDTH), fontsize=10, loc="left", weight="bold")
