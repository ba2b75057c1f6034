"""Runs the Autobahn test suite against Portico, as server and as client, and says how it went.

All cases take a while, as those of compression send many thousand messages; --quick leaves them out. A run of all cases
writes its summary to docs/conformance. What the suite reports is below build/autobahn, unless --reports says otherwise.
"""

import argparse
import os
import platform
import signal
import sys
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from importlib.metadata import version
from pathlib import Path

import install
import parts
import report

ROOT = Path(__file__).parents[2]
WORK = ROOT / "build/autobahn"
KEPT = ROOT / "docs/conformance"
ROLES = ("server", "client")
KINDS = ("default", "takeover")
FAILED, MISSING = 1, 3
"""Exit status: a case failed; the suite cannot be installed."""


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="groups 1 to 10 only, in half a minute")
    parser.add_argument("--role", choices=ROLES, help="what Portico is (default: both)")
    parser.add_argument("--cases", nargs="+", metavar="CASE", help="these alone, such as 6.4.1 or 12.3.*")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="parts at a time (default: one a CPU)")
    parser.add_argument("--reports", type=Path, default=WORK, help="folder for what the suite reports")
    return parser.parse_args()


def plan(arguments: argparse.Namespace) -> list[parts.Part]:
    """Return what is to be run, what takes longest first. Compression runs with both kinds of settings."""
    roles = (arguments.role,) if arguments.role else ROLES
    if arguments.cases:
        return [parts.Part(role, kind, tuple(arguments.cases)) for role in roles for kind in KINDS]
    basic = [parts.Part(role, "default", parts.BASIC) for role in roles]
    if arguments.quick:
        return basic
    return [
        parts.Part(role, kind, (pattern,)) for pattern in parts.COMPRESSION for role in roles for kind in KINDS
    ] + basic


def run(
    todo: Sequence[parts.Part], python: Path, jobs: int, folder: Path
) -> tuple[dict[str, dict[str, parts.Result]], int]:
    """Run the parts; return how the cases went, by role and settings, and how many parts broke."""
    results: dict[str, dict[str, parts.Result]] = {}
    for part in sorted(todo, key=lambda part: (ROLES.index(part.role), KINDS.index(part.kind))):
        results.setdefault(f"{part.role}, {part.kind}", {})
    broken = 0
    with ThreadPoolExecutor(jobs) as pool:
        started: dict[Future[dict[str, parts.Result]], parts.Part] = {
            pool.submit(parts.run_part, part, python, folder): part for part in todo
        }
        try:
            for number, future in enumerate(as_completed(started), 1):
                part = started[future]
                try:
                    found = future.result()
                except parts.Broken as error:
                    broken += 1
                    print(f"{number}/{len(todo)} {part.name}: {error}", flush=True)
                    continue
                results[f"{part.role}, {part.kind}"] |= found
                told = f"{len(found)} cases, {report.failures({'': found})} failed"
                seconds = sum(row.milliseconds for row in found.values()) / 1000
                print(f"{number}/{len(todo)} {part.name}: {told}, {seconds:.0f} s", flush=True)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            parts.stop_all()
            raise
    return results, broken


def main() -> int:
    """Install, run, show, keep."""
    arguments = parse_arguments()
    try:
        python = install.install(ROOT / ".venv/autobahn")
    except install.Missing as error:
        print(error, file=sys.stderr)
        return MISSING
    begun = time.monotonic()
    todo = plan(arguments)
    results, broken = run(todo, python, arguments.jobs, arguments.reports)
    print()
    print("\n".join(report.others(results)) or "every case is OK")
    print()
    print("\n".join(report.table(results)))
    failed = report.failures(results)
    told = f"{failed} failed, {broken} parts broken, {time.monotonic() - begun:.0f} s"
    print(f"\n{told}; reports: {os.path.relpath(arguments.reports)}")
    if not broken and not (arguments.quick or arguments.role or arguments.cases):
        report.keep(results, versions(), KEPT)
        print("kept: docs/conformance/autobahn.json and the table of docs/conformance/README.md")
    return FAILED if failed or broken else 0


def versions() -> dict[str, str]:
    """What took part."""
    suite, _, number = install.SUITE.partition("==")
    return {"portico": version("portico"), suite: number, platform.python_implementation(): platform.python_version()}


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _interrupt)  # so that the processes of the parts are ended then, too
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
