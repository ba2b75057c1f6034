"""Measures one cell: one server under one workload, in a process of its own."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass

from portico_bench.catalogue import BUILD, IMPORTS, Server, Workload
from portico_bench.processes import (
    Failed,
    cpu_seconds,
    last_line,
    open_descriptors,
    read_line,
    resident_bytes,
    serving,
    start,
    stop,
)

WARM_CONNECTIONS = 500
IMPORT_TRIES = 7


@dataclass(frozen=True)
class Settings:
    """How long and on which cores; None leaves the placement to the kernel."""

    seconds: float
    warm_up: float
    server_cores: set[int] | None
    load_cores: set[int] | None


Sample = dict[str, float]


def measure(server: Server, workload: Workload, settings: Settings) -> Sample:
    """Figures of one run.

    :raises Failed: if the server or the load failed, or a byte was wrong.
    """
    if workload.mode not in server.modes:
        raise Failed("does not offer this")
    with serving(server, workload.mode, settings.server_cores) as (process, port):
        if workload.program == "idle":
            return _memory(process.pid, port, workload, settings)
        return _load(process.pid, port, workload, settings)


def _command(workload: Workload, **values: float) -> list[str]:
    """The load program with the options of the workload and these; `_` in a name becomes `-`."""
    named = {name.replace("_", "-"): value for name, value in values.items()} | workload.options
    options = [text for name, value in named.items() for text in (f"--{name}", str(value))]
    return [str(BUILD / f"load_{workload.program}"), *options]


def _load(pid: int, port: int, workload: Workload, settings: Settings) -> Sample:
    log = BUILD / "logs" / f"load-{workload.name}.log"
    command = _command(workload, port=port, pid=pid, seconds=settings.seconds, warm_up=settings.warm_up)
    process = start(command, log, settings.load_cores)
    try:
        report = json.loads(read_line(process, settings.seconds + settings.warm_up + 60, log))
    finally:
        stop(process)
    sample = {
        "cpu_us": report["cpu_seconds"] * 1e6 / report["messages"],
        "per_second": report["messages"] / report["seconds"],
        "busy": report["cpu_seconds"] / report["seconds"],
    }
    if workload.program == "flood":
        lost, dropped = report["sent"] - report["messages"], report["dropped"]
        shares = {"kernel_dropped": (lost - dropped) / report["sent"], "server_dropped": dropped / report["sent"]}
        return sample | shares | {"sent_per_second": report["sent"] / report["seconds"]}
    if workload.program == "datagrams":
        sample["lost"] = report["lost"]
    return sample | {"p50_us": report["p50_us"], "p99_us": report["p99_us"]}


def _settle(pid: int, descriptors: int) -> None:
    """Wait until the server has accepted all connections and has nothing left to do."""
    deadline = time.monotonic() + 60
    before = -1.0
    while time.monotonic() < deadline:
        used = cpu_seconds(pid)
        if open_descriptors(pid) >= descriptors and used - before < 0.002:
            return
        before = used
        time.sleep(0.2)
    raise Failed(f"{open_descriptors(pid)} of {descriptors} connections accepted after 60 s")


def _memory(pid: int, port: int, workload: Workload, settings: Settings) -> Sample:
    """Resident memory per connection: while all are silent, and after each has had a message echoed."""
    connections = workload.options["connections"]
    log = BUILD / "logs" / f"load-{workload.name}.log"
    load = start(_command(workload, port=port), log, settings.load_cores)

    def tell(command: str, expected: str) -> None:
        assert load.stdin is not None
        try:
            load.stdin.write(command + "\n")
            load.stdin.flush()
        except BrokenPipeError:
            raise Failed(last_line(log)) from None
        if read_line(load, 60, log) != expected:
            raise Failed(f"the load did not answer {expected!r}")

    try:
        empty = open_descriptors(pid)
        tell(f"open {WARM_CONNECTIONS}", f"opened {WARM_CONNECTIONS}")
        tell("echo", f"echoed {WARM_CONNECTIONS}")
        _settle(pid, empty + WARM_CONNECTIONS)
        before = resident_bytes(pid)
        total = WARM_CONNECTIONS + connections
        tell(f"open {connections}", f"opened {total}")
        _settle(pid, empty + total)
        silent = resident_bytes(pid)
        tell("echo", f"echoed {total}")
        _settle(pid, empty + total)
        used = resident_bytes(pid)
    finally:
        stop(load)
    return {"kib": (silent - before) / connections / 1024, "kib_used": (used - before) / connections / 1024}


def import_times() -> dict[str, Sample | Failed]:
    """Milliseconds to import each module in a fresh interpreter, less those of an empty one, alternating."""
    programs = {"": "pass"} | {name: f"import {name}" for name in IMPORTS}
    failed = {name: Failed(text) for name, code in programs.items() if (text := _try_import(code))}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in programs if name not in failed}
    for _ in range(IMPORT_TRIES):
        for name, seen in times.items():
            seen.append(_run_python(programs[name]))
    medians = {name: [statistics.median(column) for column in zip(*seen, strict=True)] for name, seen in times.items()}
    wall, cpu = medians.pop("")
    samples: dict[str, Sample | Failed] = {
        name: {"ms": (its[0] - wall) * 1000, "cpu_ms": (its[1] - cpu) * 1000} for name, its in medians.items()
    }
    outcomes = samples | failed
    return {name: outcomes[name] for name in IMPORTS}


def _try_import(code: str) -> str:
    """Empty when the import works (and its byte code is then cached), else the error."""
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=False, timeout=60)
    return done.stderr.strip().splitlines()[-1] if done.returncode else ""


def _run_python(code: str) -> tuple[float, float]:
    began = time.perf_counter()
    pid = os.posix_spawn(sys.executable, [sys.executable, "-I", "-c", code], dict(os.environ))
    _, _, usage = os.wait4(pid, 0)
    return time.perf_counter() - began, usage.ru_utime + usage.ru_stime
