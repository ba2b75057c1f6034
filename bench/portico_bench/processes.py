"""Child processes: started, watched, and ended by their own id whatever happens."""

from __future__ import annotations

import atexit
import contextlib
import os
import select
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from portico_bench.catalogue import BUILD, Server


class Failed(Exception):
    """A cell cannot be measured; the text says why."""


_running: set[subprocess.Popen[str]] = set()


def start(command: Sequence[str], log: Path, cores: set[int] | None = None) -> subprocess.Popen[str]:
    """Start a child in a session of its own, so that Ctrl-C reaches the runner alone. Its errors go to `log`."""
    files = {"BENCH_CERTIFICATE": "cert.pem", "BENCH_KEY": "key.pem", "BENCH_FILE": "small.txt"}
    environment = os.environ | {name: str(BUILD / file) for name, file in files.items()}
    log.parent.mkdir(parents=True, exist_ok=True)
    try:
        with log.open("w") as errors:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=environment,
                start_new_session=True,
            )
    except OSError as error:
        raise Failed(f"{command[0]}: {error.strerror}") from error
    _running.add(process)
    if cores is not None:
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(process.pid, cores)
    return process


def stop(process: subprocess.Popen[str]) -> None:
    """End a child: ask, wait a second, then kill."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(1)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
    _running.discard(process)


@atexit.register
def stop_all() -> None:
    """End every child that still runs."""
    for process in list(_running):
        stop(process)


def read_line(process: subprocess.Popen[str], timeout: float, log: Path) -> str:
    """One line from a child. Children answer with single lines, so nothing waits in the buffer of the pipe.

    :raises Failed: if none comes within `timeout` seconds or the child ends.
    """
    assert process.stdout is not None
    readable, _, _ = select.select([process.stdout], [], [], timeout)
    line = process.stdout.readline() if readable else ""
    if line:
        return line.strip()
    if readable:
        process.wait(5)
        raise Failed(last_line(log) or f"ended with status {process.returncode}")
    raise Failed(f"no answer within {timeout:.0f} s")


def last_line(log: Path) -> str:
    """The last line that a child wrote to standard error."""
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1].strip() if lines else ""


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def serving(server: Server, mode: str, cores: set[int] | None) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A server that listens, and its port.

    :raises Failed: if it does not come up within 15 s.
    """
    port = free_port()
    log = BUILD / "logs" / f"{server.name}-{mode}.log"
    process = start(server.command(port, mode), log, cores)
    try:
        if read_line(process, 15, log) != f"ready {port}":
            raise Failed("said something else than that it is ready")
        yield process, port
    finally:
        stop(process)


def cpu_seconds(pid: int) -> float:
    """CPU time of all threads of a process, user and kernel, to the nanosecond (clock_getcpuclockid(3))."""
    return time.clock_gettime((~pid << 3) | 2)


def resident_bytes(pid: int) -> int:
    """Resident memory of a process."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Rss:"):
            return int(line.split()[1]) * 1024
    raise Failed("no Rss in smaps_rollup")


def open_descriptors(pid: int) -> int:
    """How many descriptors a process holds."""
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
