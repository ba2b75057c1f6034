"""Running the command, and the programs it talks to, as a shell does."""

import contextlib
import os
import re
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).parents[2] / "src"
PORTICO = [sys.executable, "-m", "portico.tools.entry"]
PATIENCE = 20.0


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(SOURCE), "PYTHONWARNINGS": "error", **more}


def portico(*words: str, stdin: bytes = b"", **more: str) -> "subprocess.CompletedProcess[bytes]":
    """Run the command to its end."""
    return subprocess.run(
        [*PORTICO, *words], input=stdin, capture_output=True, timeout=PATIENCE, env=environment(**more), check=False
    )


class Output:
    """What a process writes to a pipe, collected as it comes."""

    def __init__(self, pipe: Any) -> None:
        self._data = bytearray()
        self._ended = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._collect, args=(pipe,), daemon=True)
        self._thread.start()

    def _collect(self, pipe: Any) -> None:
        with pipe:
            while data := os.read(pipe.fileno(), 1 << 20):
                with self._changed:
                    self._data += data
                    self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def wait_for(self, pattern: str) -> "re.Match[str]":
        """Return the match of `pattern`, once it has come."""
        with self._changed:
            found: list[re.Match[str]] = []

            def come() -> bool:
                found[:] = [m for m in [re.search(pattern, self.text, re.M)] if m]
                return bool(found) or self._ended

            self._changed.wait_for(come, PATIENCE)
            assert found, f"{pattern!r} did not come, but: {self.text!r}"
            return found[0]

    def wait_size(self, size: int) -> bytes:
        """Return everything, once it is as much as that."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self._data) >= size, PATIENCE), (
                f"{len(self._data)} of {size} bytes"
            )
        return bytes(self._data)

    @property
    def text(self) -> str:
        return self._data.decode(errors="replace")

    def all(self) -> bytes:
        """Wait for the end and return everything."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._ended, PATIENCE), (
                f"it does not end: {bytes(self._data[-1000:])!r}"
            )
        self._thread.join(PATIENCE)
        return bytes(self._data)


class Process:
    """A program at work."""

    def __init__(self, words: Sequence[str], stdin: Any) -> None:
        self.process = subprocess.Popen(
            words, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(), bufsize=0
        )
        self.stdout, self.stderr = Output(self.process.stdout), Output(self.process.stderr)

    def write(self, data: bytes) -> None:
        assert self.process.stdin is not None
        rest = memoryview(data)
        while rest:
            assert select.select([], [self.process.stdin], [], PATIENCE)[1], "it takes no input"
            rest = rest[os.write(self.process.stdin.fileno(), rest[: select.PIPE_BUF]) :]

    def end_input(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()

    def send_signal(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def wait(self) -> int:
        return self.process.wait(PATIENCE)

    def listening(self) -> str:
        """Return where it listens, as it says on stderr."""
        return self.stderr.wait_for(r"listening on (\S+) ")[1]


@contextlib.contextmanager
def started(*words: str, stdin: Any = subprocess.PIPE) -> Iterator[Process]:
    """Start a program, and see to it that it has ended at the end."""
    program = Process(words, stdin)
    try:
        yield program
    finally:
        if program.process.poll() is None:
            program.process.terminate()  # lets it remove what it made
            with contextlib.suppress(subprocess.TimeoutExpired):
                program.process.wait(5)
        program.process.kill()
        program.process.wait()
        if program.process.stdin is not None:
            with contextlib.suppress(OSError):
                program.process.stdin.close()
        program.stdout.all()
        program.stderr.all()


def started_portico(*words: str, stdin: Any = subprocess.PIPE) -> Any:
    return started(*PORTICO, *words, stdin=stdin)


def in_shell(command: str, **options: Any) -> Any:
    """Start a command line as it was printed, in place of the shell, so that a signal reaches it."""
    return started("/bin/sh", "-c", f"exec {command}", **options)


def port_of(address: str) -> str:
    return address.rpartition(":")[2]
