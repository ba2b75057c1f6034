"""Prints the results as tables."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from portico_bench.catalogue import SERVER_LIST, UDP_MODES, WORKLOADS, Workload
from portico_bench.results import Results

TITLES = {server.name: server.title for server in SERVER_LIST}
SHORT = {"c": "C"}


def print_report(results: Results, verdicts: list[dict[str, Any]]) -> None:
    """One table for each workload that was measured, then the targets."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=120)
    for workload in WORKLOADS:
        if workload.name in results.cells:
            console.print(_table(results, workload))
            for server, cell in results.cells[workload.name].items():
                if cell.error:
                    name = server if workload.program == "import" else TITLES[server]
                    console.print(Text(f"{name} failed: {cell.error}", "red"))
            console.print()
    console.print(_target_table(verdicts))


@dataclass(frozen=True)
class Row:
    """The figures of one server under one workload, as text."""

    results: Results
    workload: Workload
    server: str

    def figure(self, name: str, digits: int) -> str:
        """The median of a figure."""
        return _number(self.results.median(self.workload.name, self.server, name), digits)

    def percent(self, name: str) -> str:
        """The median of a share."""
        value = self.results.median(self.workload.name, self.server, name)
        return "-" if value is None else f"{value * 100:.0f} %"

    def over(self, against: str, name: str = "cpu_us") -> str:
        """Its figure over that of another server."""
        return _number(self.results.ratio(self.workload.name, self.server, against, name), 2)

    def portico_over(self, name: str = "cpu_us") -> str:
        """Portico's figure over its own."""
        return _number(self.results.ratio(self.workload.name, "portico", self.server, name), 2)


Column = tuple[str, Callable[[Row], str]]


def _table(results: Results, workload: Workload) -> Table:
    table = Table(title=workload.title, title_justify="left", title_style="bold")
    table.add_column("module" if workload.program == "import" else "server", no_wrap=True)
    columns = _columns(workload)
    for heading, _ in columns:
        table.add_column(heading, justify="right")
    for server, cell in results.cells[workload.name].items():
        title = server if workload.program == "import" else _title(server)
        row = Row(results, workload, server)
        cells = [Text("failed", "red")] if cell.error else [show(row) for _, show in columns]
        table.add_row(title, *cells)
    return table


def _columns(workload: Workload) -> list[Column]:
    if workload.program == "idle":
        return [
            ("KiB/connection, silent", lambda row: row.figure("kib", 2)),
            ("after one message each", lambda row: row.figure("kib_used", 2)),
            ("Portico / it", lambda row: row.portico_over(workload.memory)),
        ]
    if workload.program == "import":
        return [("ms", lambda row: row.figure("ms", 1)), ("CPU ms", lambda row: row.figure("cpu_ms", 1))]
    if workload.mode in UDP_MODES:
        return _packet_columns(workload.program == "flood")
    return [
        ("CPU µs each", lambda row: row.figure("cpu_us", 2)),
        (f"x {SHORT.get(workload.reference, workload.reference)}", lambda row: row.over(workload.reference)),
        ("Portico / it", lambda row: row.portico_over()),
        (f"{workload.unit}/s", lambda row: row.figure("per_second", 0)),
        ("p50 µs", lambda row: row.figure("p50_us", 0)),
        ("p99 µs", lambda row: row.figure("p99_us", 0)),
        ("busy", lambda row: row.percent("busy")),
    ]


def _packet_columns(flood: bool) -> list[Column]:
    columns: list[Column] = [
        ("CPU µs each", lambda row: row.figure("cpu_us", 3 if flood else 2)),
        ("x C", lambda row: row.over("c")),
        ("x uvloop", lambda row: row.over("uvloop-protocol")),
        ("packets/s", lambda row: row.figure("per_second", 0)),
        ("rate x uvloop", lambda row: row.over("uvloop-protocol", "per_second")),
        ("busy", lambda row: row.percent("busy")),
    ]
    if flood:
        return [
            *columns,
            ("dropped: kernel", lambda row: row.percent("kernel_dropped")),
            ("server", lambda row: row.percent("server_dropped")),
        ]
    return [
        *columns,
        ("p50 µs", lambda row: row.figure("p50_us", 0)),
        ("p99 µs", lambda row: row.figure("p99_us", 0)),
        ("lost", lambda row: row.figure("lost", 0)),
    ]


def _target_table(verdicts: list[dict[str, Any]]) -> Table:
    table = Table(
        title="Targets (ratios within one run, of CPU time where nothing else is said)",
        title_justify="left",
        title_style="bold",
    )
    table.add_column("target")
    table.add_column("bound", justify="right")
    table.add_column("seen", justify="right")
    table.add_column("")
    styles = {"reached": "green", "missed": "red", "not measured": "yellow"}
    for row in verdicts:
        unit = "" if row["unit"] == "x" else f" {row['unit']}"
        seen = "-" if row["seen"] is None else f"{row['seen']:.2f}{unit}"
        bound = f"≤ {row['at_most']:g}" if "at_most" in row else f"≥ {row['at_least']:g}"
        table.add_row(row["target"], bound + unit, seen, Text(row["verdict"], styles[row["verdict"]]))
    return table


def _title(server: str) -> Text:
    return Text(TITLES[server], "bold cyan" if server.startswith("portico") else "")


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"
