"""Reads the tables of docs/from-bsd-sockets.md and runs their rows."""

import ast
import asyncio
import ctypes
import errno
import gc
import inspect
import io
import os
import re
import select
import socket
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import portico
from portico import blocking
from portico.transports.connection import ConnectionFace
from portico.transports.faces import BlockingFace

PAGE = Path(__file__).parents[2] / "docs" / "from-bsd-sockets.md"
HEAD = ["call", "write", "remark"]
THREADS = "threads: "
LINE = re.compile(r"`([^`]+)`(?: (→|raises) `([^`]+)`)?")
NAMES = (asyncio, blocking, ctypes, errno, io, os, portico, select, socket, stat, struct)
"""What a row may speak of without importing it."""


@dataclass(frozen=True)
class Line:
    """One line of code of a row, and what comes of it."""

    code: str
    outcome: str = ""
    expected: str = ""

    def for_threads(self) -> "Line":
        """The same in the other face, by the rule that the page gives."""
        return Line(threads_code(self.code), self.outcome, self.expected)


@dataclass(frozen=True)
class Row:
    """One row of a table."""

    section: str
    call: str
    cell: str
    remark: str

    @property
    def constants(self) -> list[str]:
        """The calls and constants that it is about."""
        return [name for code in re.findall(r"`([^`]+)`", self.call) for name in re.findall(r"\w+", code)]

    def lines(self, *, threads: bool) -> list[Line]:
        """Its code for one of the faces."""
        parts = self.cell.split("<br>")
        own = [line_of(each) for each in parts if not each.startswith(THREADS)]
        if not threads:
            return own
        others = [line_of(each.removeprefix(THREADS)) for each in parts if each.startswith(THREADS)]
        return others or [each.for_threads() for each in own]

    def __str__(self) -> str:
        return f"{self.section}: {self.call}".replace("`", "")


def line_of(text: str) -> Line:
    """Read a line of a cell."""
    found = LINE.fullmatch(text)
    assert found, f"a line of a cell is `code`, `code` → `value` or `code` raises `Error`, not {text!r}"
    return Line(found[1], found[2] or "", found[3] or "")


def threads_code(code: str) -> str:
    """Leave out `await` and `async`, and make things with `blocking`."""
    code = re.sub(r"\b(await|async) ", "", code)
    made = [name for name in dir(blocking) if not name.startswith("_")]
    code = re.sub(rf"\bportico\.({'|'.join(made)})\(", r"blocking.\1(", code)
    return re.sub(r"\b(?!socket\b)([a-z]+)\.socket\b", r"\1.connection.socket", code)


def rows() -> Iterator[Row]:
    """Give every row of every table of the page."""
    section = ""
    for text in PAGE.read_text().splitlines():
        if text.startswith("## "):
            section = text[3:]
        elif text.startswith("|"):
            assert text.endswith("|"), text
            cells = [each.strip().replace("\\|", "|") for each in re.split(r"(?<!\\)\|", text[1:-1])]
            assert len(cells) == len(HEAD), f"not {len(HEAD)} cells: {text}"
            if cells != HEAD and cells != ["---"] * len(HEAD):
                yield Row(section, *cells)


def stage() -> str:
    """Give the code that the page says each row begins with."""
    (block,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return str(block)


class Scene:
    """Where a row is played: what its code can name, and what has to be closed in the end."""

    def __init__(self, row: Row, folder: str, *, threads: bool) -> None:
        self.row, self.threads = row, threads
        self.names: dict[str, Any] = {each.__name__.rpartition(".")[2]: each for each in NAMES}
        self.names["folder"] = folder
        self.made: dict[int, Any] = {}

    async def play(self) -> None:
        """Run the stage and then the row, and compare what comes of it with what the page says."""
        with socket.socket() as sock:  # a port that is taken, and refuses
            sock.bind(("127.0.0.1", 0))
            self.names["nobody"] = portico.Address("tcp", "127.0.0.1", sock.getsockname()[1])
            try:
                await self.run(threads_code(stage()) if self.threads else stage())
                for line in self.row.lines(threads=self.threads):
                    await self.try_line(line)
            finally:
                await self.clear()

    async def run(self, code: str, mode: str = "exec") -> Any:
        try:
            value = eval(compile(code, "the page", mode, ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), self.names)
            return await value if inspect.iscoroutine(value) else value
        finally:
            for each in self.names.values():
                self.made[id(each)] = each

    async def try_line(self, line: Line) -> None:
        if line.outcome == "raises":
            kind = await self.run(line.expected, "eval")
            with pytest.raises(kind) as caught:
                await self.run(line.code)
            self.names["error"] = caught.value
        elif line.outcome:
            value, expected = await self.run(line.code, "eval"), await self.run(line.expected, "eval")
            assert (type(value), value) == (type(expected), expected), f"`{line.code}` gives {value!r}"
        else:
            await self.run(line.code)

    async def clear(self) -> None:
        """Close all that was made, the last first."""
        for each in reversed(self.made.values()):
            over: Any = None
            if isinstance(each, portico.Server | blocking.BlockingServer):
                over = each.drain(0)
            elif isinstance(each, ConnectionFace | BlockingFace):
                each.abort()
                over = each.wait_closed()
            elif isinstance(each, socket.socket | portico.Poller):
                each.close()
            if inspect.isawaitable(over):
                await over

    def descriptors(self) -> set[int]:
        """Return the numbers that the row was given by the operating system, and left open."""
        named = [self.names.get(name) for name in ("reading", "writing", "descriptor", "fd")]
        return {each for each in [*named, *self.names.get("fds", [])] if isinstance(each, int)}


def perform(row: Row, folder: str, *, threads: bool) -> None:
    """Play a row with one of the faces, and see that no descriptor is left."""
    before = set(os.listdir("/proc/self/fd"))
    scene = Scene(row, folder, threads=threads)
    if threads:
        with pytest.raises(StopIteration):  # nothing in it is ever awaited
            scene.play().send(None)
        blocking.shutdown()
    else:
        asyncio.run(scene.play())
    given = scene.descriptors()
    del scene
    gc.collect()
    for name in set(os.listdir("/proc/self/fd")) - before:
        if int(name) in given:
            os.close(int(name))
    left = {name: os.readlink(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd") if name not in before}
    assert not left, f"descriptors left: {left}"
