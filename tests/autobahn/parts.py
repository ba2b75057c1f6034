"""A part of the suite: some cases against one role of Portico with one kind of settings, in processes of its own."""

import contextlib
import json
import select
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
AGENT = "portico"
START_TIME = 60.0
"""Seconds in which each process must have said that it is ready."""
PART_TIME = 3600.0
"""Seconds for all cases of a part."""

BASIC = ("1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "9.*", "10.*")
"""Everything but compression; there is no group 8 or 11."""
COMPRESSION = tuple(f"12.{number}.*" for number in range(1, 6)) + tuple(f"13.{number}.*" for number in range(1, 8))


class Broken(Exception):
    """A part did not come to its end; the text says why."""


@dataclass(frozen=True)
class Part:
    """Cases that run one after the other.

    :ivar role: what Portico is, "server" or "client".
    :ivar kind: its settings, one of those in `agents.SETTINGS`.
    :ivar patterns: the cases, as the suite reads them: "6.*"."""

    role: str
    kind: str
    patterns: tuple[str, ...]

    @property
    def name(self) -> str:
        first = self.patterns[0].removesuffix(".*")
        last = self.patterns[-1].removesuffix(".*")
        return f"{self.role}-{self.kind}-{first}" + ("" if first == last else f"-to-{last}")


@dataclass(frozen=True)
class Result:
    """How one case went, in the words of the suite.

    :ivar milliseconds: how long it took.
    :ivar told: what the report says to it."""

    behavior: str
    close: str
    milliseconds: int
    told: str


_running: set[subprocess.Popen[str]] = set()
_lock = threading.Lock()
_stopped = False


def run_part(part: Part, python: Path, folder: Path) -> dict[str, Result]:
    """Run a part and return how each of its cases went; what the suite and Portico told is below `folder` then.

    :raises Broken: it did not come to its end."""
    here = folder / part.name
    shutil.rmtree(here, ignore_errors=True)
    here.mkdir(parents=True)
    if part.role == "server":
        with _started(_agent("server", part.kind), here / "portico.log") as server:
            port = int(_line(server, here))
            servers = [{"agent": AGENT, "url": f"ws://127.0.0.1:{port}"}]
            with _started(_fuzzer(python, "fuzzingclient", part, here, servers), here / "suite.log") as suite:
                cases = json.loads(_line(suite, here))["cases"]
                _end(suite, here)
    else:
        with _started(_fuzzer(python, "fuzzingserver", part, here, []), here / "suite.log") as suite:
            said = json.loads(_line(suite, here))
            cases = said["cases"]
            client = _agent("client", part.kind, str(said["port"]), AGENT, *cases)
            with _started(client, here / "portico.log") as process:
                _end(process, here)
                _end(suite, here)
    return _read(here / "reports", cases)


def stop_all() -> None:
    """End every process that still runs, and start no more; parts that ran are broken."""
    global _stopped
    with _lock:
        _stopped = True
        left = list(_running)
    for process in left:
        process.terminate()


def _agent(*words: str) -> list[str]:
    return [sys.executable, str(HERE / "agents.py"), *words]


def _fuzzer(python: Path, mode: str, part: Part, here: Path, servers: list[dict[str, str]]) -> list[str]:
    specification = {
        "url": "ws://127.0.0.1",
        "outdir": str(here / "reports"),
        "servers": servers,
        "cases": part.patterns,
        "exclude-cases": [],
        "exclude-agent-cases": {},
    }
    path = here / "specification.json"
    path.write_text(json.dumps(specification))
    return [str(python), str(HERE / "fuzzer.py"), mode, str(path)]


@contextlib.contextmanager
def _started(command: Sequence[str], log: Path) -> Iterator["subprocess.Popen[str]"]:
    """A process that is ended with the context, by its own id; what it tells beside its first line goes to `log`."""
    with log.open("w") as errors, _lock:
        if _stopped:
            raise Broken("interrupted")
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True
        )
        _running.add(process)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        assert process.stdout is not None
        process.stdout.close()
        with _lock:
            _running.discard(process)


def _line(process: "subprocess.Popen[str]", here: Path) -> str:
    """Return the first line of a process, which tells that it is ready."""
    assert process.stdout is not None
    readable, _, _ = select.select([process.stdout], [], [], START_TIME)
    line = process.stdout.readline() if readable else ""
    if not line:
        raise Broken(f"a process did not start; see {here.name}/*.log")
    return line


def _end(process: "subprocess.Popen[str]", here: Path) -> None:
    """Wait until a process is done."""
    try:
        status = process.wait(PART_TIME)
    except subprocess.TimeoutExpired:
        raise Broken(f"not done after {PART_TIME:.0f} seconds; see {here.name}/*.log") from None
    if status:
        raise Broken(f"a process ended with status {status}; see {here.name}/*.log")


def _read(reports: Path, cases: list[str]) -> dict[str, Result]:
    """Return the results in the reports. A case without one, as of a connection that was never made, has failed."""
    index = reports / "index.json"
    found: dict[str, Any] = json.loads(index.read_text()).get(AGENT, {}) if index.exists() else {}
    results = {}
    for case in cases:
        if case not in found:
            results[case] = Result("FAILED", "FAILED", 0, "the suite has no report of this case")
            continue
        row = found[case]
        report = json.loads((reports / row["reportfile"]).read_text())
        told = f"{report['result']} {report['resultClose']}"
        results[case] = Result(row["behavior"], row["behaviorClose"], row["duration"], told)
    return results
