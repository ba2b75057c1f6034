"""Measures Portico and its peers side by side. `python bench/run.py --help` tells the options."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path
from typing import TypeVar

from portico_bench.build import build
from portico_bench.catalogue import BUILD, RESULTS, SERVER_LIST, WORKLOADS, Server, Workload
from portico_bench.chart import draw
from portico_bench.measure import Settings, import_times, measure
from portico_bench.processes import Failed, stop_all
from portico_bench.report import print_report
from portico_bench.results import Results
from portico_bench.targets import verdicts

T = TypeVar("T")
PLACEMENTS = {"one": ({0}, {0}), "two": ({0}, {1}), "none": (None, None)}


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    names = ", ".join(workload.name for workload in WORKLOADS)
    servers = ", ".join(server.name for server in SERVER_LIST)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="rounds over all servers (default 3)")
    parser.add_argument("--seconds", type=float, default=1.0, help="measured time of a cell (default 1)")
    parser.add_argument("--warm-up", type=float, default=0.4, help="seconds before that (default 0.4)")
    parser.add_argument("--only", default="", help=f"workloads or the first word of some: {names}")
    parser.add_argument("--servers", default="", help=f"servers, with commas between: {servers}")
    parser.add_argument("--quick", action="store_true", help="one round of half a second, to see that all works")
    parser.add_argument(
        "--pin", choices=PLACEMENTS, default="two", help="server and load on one core, on two, or unpinned"
    )
    parser.add_argument(
        "--output",
        type=Path,
        help="where to write, without .json and .png (default results/latest when "
        "everything is measured, else build/partial)",
    )
    arguments = parser.parse_args()
    partial = arguments.quick or arguments.only or arguments.servers
    arguments.output = arguments.output or (BUILD / "partial" if partial else RESULTS / "latest")
    if arguments.quick:
        arguments.rounds, arguments.seconds, arguments.warm_up = 1, 0.5, 0.3
    arguments.workloads = _choose(parser, arguments.only, {workload.name: workload for workload in WORKLOADS})
    arguments.chosen = _choose(parser, arguments.servers, {server.name: server for server in SERVER_LIST})
    return arguments


def _choose(parser: argparse.ArgumentParser, text: str, known: dict[str, T]) -> list[T]:
    """What the names in `text` choose, all when there are none. What is no name chooses each that it begins."""
    chosen: list[T] = []
    for name in filter(None, text.split(",")):
        found = (
            [known[name]] if name in known else [value for key, value in known.items() if key.startswith(f"{name}-")]
        )
        if not found:
            parser.error(f"unknown: {name}; known: {', '.join(known)}")
        chosen += [value for value in found if value not in chosen]
    return chosen or list(known.values())


def measure_all(arguments: argparse.Namespace, results: Results) -> None:
    """All rounds. In each, a workload visits all servers before the next begins, from another one on each time."""
    server_cores, load_cores = PLACEMENTS[arguments.pin]
    settings = Settings(arguments.seconds, arguments.warm_up, server_cores, load_cores)
    for workload in arguments.workloads:
        for server in arguments.chosen:
            if workload.program != "import" and workload.mode in server.modes:
                results.cell(workload.name, server.name)
    for round_ in range(arguments.rounds):
        for workload in arguments.workloads:
            print(f"round {round_ + 1}/{arguments.rounds}  {workload.title}", file=sys.stderr, flush=True)
            if workload.program == "import":
                for name, outcome in import_times().items():
                    results.add(workload.name, name, round_, outcome)
            else:
                measure_servers(arguments.chosen, workload, settings, round_, results)


def measure_servers(
    servers: list[Server], workload: Workload, settings: Settings, round_: int, results: Results
) -> None:
    """One workload on all servers that offer it."""
    able = [server for server in servers if workload.mode in server.modes]
    shift = round_ * 2 % max(len(able), 1)
    for server in able[shift:] + able[:shift]:
        try:
            results.add(workload.name, server.name, round_, measure(server, workload, settings))
        except Failed as failure:
            print(f"  {server.title}: failed: {failure}", file=sys.stderr, flush=True)
            results.add(workload.name, server.name, round_, failure)


def main() -> int:
    """0 when all cells could be measured, 1 when one failed, 130 when interrupted."""
    arguments = parse_arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    build()
    results = Results()
    interrupted = False
    try:
        measure_all(arguments, results)
    except KeyboardInterrupt:
        interrupted = True
    finally:
        stop_all()
    results.drop_unmeasured()
    found = verdicts(results)
    print_report(results, found)
    if interrupted:
        return 130
    settings = {name: getattr(arguments, name) for name in ("rounds", "seconds", "warm_up", "pin")}
    results.write(arguments.output.with_suffix(".json"), settings, found)
    draw(results, arguments.output.with_suffix(".png"))
    print(f"written: {arguments.output}.json and .png")
    return any(cell.error for cells in results.cells.values() for cell in cells.values())


if __name__ == "__main__":
    sys.exit(main())
