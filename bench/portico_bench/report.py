"""Prints the results as tables."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from portico_bench.catalogue import SERVER_LIST, UDP_MODES, WORKLOADS, Workload
from portico_bench.results import Results

TITLES = {server.name: server.title for server in SERVER_LIST}


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


def _table(results: Results, workload: Workload) -> Table:
    if workload.program == "idle":
        return _memory_table(results, workload)
    if workload.program == "import":
        return _import_table(results, workload)
    if workload.mode in UDP_MODES:
        return _packet_table(results, workload)
    table = Table(title=workload.title, title_justify="left", title_style="bold")
    table.add_column("server")
    headings = ("CPU µs each", "x C", "Portico / it", f"{workload.unit}/s", "p50 µs", "p99 µs", "busy")
    for heading in headings:
        table.add_column(heading, justify="right")
    for server, cell in results.cells[workload.name].items():
        if cell.error:
            table.add_row(_title(server), Text("failed", "red"))
            continue
        get = {figure: results.median(workload.name, server, figure) for figure in next(iter(cell.samples.values()))}
        table.add_row(
            _title(server),
            _number(get["cpu_us"], 2),
            _number(results.ratio(workload.name, server, "c"), 2),
            _number(results.ratio(workload.name, "portico", server), 2),
            _number(get["per_second"], 0),
            _number(get["p50_us"], 0),
            _number(get["p99_us"], 0),
            _percent(get["busy"]),
        )
    return table


def _packet_table(results: Results, workload: Workload) -> Table:
    table = Table(title=workload.title, title_justify="left", title_style="bold")
    table.add_column("server", no_wrap=True)
    flood = workload.program == "flood"
    headings = ["CPU µs each", "x C", "x uvloop", "packets/s", "rate x uvloop", "busy"]
    headings += ["dropped: kernel", "server"] if flood else ["p50 µs", "p99 µs", "lost"]
    for heading in headings:
        table.add_column(heading, justify="right")
    for server, cell in results.cells[workload.name].items():
        if cell.error:
            table.add_row(_title(server), Text("failed", "red"))
            continue
        get = {figure: results.median(workload.name, server, figure) for figure in next(iter(cell.samples.values()))}
        row = [
            _number(get["cpu_us"], 3 if flood else 2),
            _number(results.ratio(workload.name, server, "c"), 2),
            _number(results.ratio(workload.name, server, "uvloop-protocol"), 2),
            _number(get["per_second"], 0),
            _number(results.ratio(workload.name, server, "uvloop-protocol", "per_second"), 2),
            _percent(get["busy"]),
        ]
        if flood:
            row += [_percent(get["kernel_dropped"]), _percent(get["server_dropped"])]
        else:
            row += [_number(get["p50_us"], 0), _number(get["p99_us"], 0), _number(get["lost"], 0)]
        table.add_row(_title(server), *row)
    return table


def _memory_table(results: Results, workload: Workload) -> Table:
    table = Table(title=workload.title, title_justify="left", title_style="bold")
    table.add_column("server")
    for heading in ("KiB/connection, silent", "after one line each", "Portico / it"):
        table.add_column(heading, justify="right")
    for server, cell in results.cells[workload.name].items():
        if cell.error:
            table.add_row(_title(server), Text("failed", "red"))
            continue
        table.add_row(
            _title(server),
            _number(results.median(workload.name, server, "kib"), 2),
            _number(results.median(workload.name, server, "kib_used"), 2),
            _number(results.ratio(workload.name, "portico", server, "kib"), 2),
        )
    return table


def _import_table(results: Results, workload: Workload) -> Table:
    table = Table(title="Import time", title_justify="left", title_style="bold")
    table.add_column("module")
    for heading in ("ms", "CPU ms"):
        table.add_column(heading, justify="right")
    for module, cell in results.cells[workload.name].items():
        if cell.error:
            table.add_row(module, Text("failed", "red"))
            continue
        wall, cpu = (results.median(workload.name, module, figure) for figure in ("ms", "cpu_ms"))
        table.add_row(module, _number(wall, 1), _number(cpu, 1))
    return table


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


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value * 100:.0f} %"
