"""The stubs of the native core say what the compiled modules have, and give messages their types."""

import os
import subprocess
import sys
from pathlib import Path

import portico
from portico import _core

ROOT = Path(portico.__file__).parents[1]
ENVIRONMENT = {"PYTHONPATH": str(ROOT)} | ({} if ROOT.name == "site-packages" else {"MYPYPATH": str(ROOT)})

# What Cython adds or cannot tell: pickling, doctests, its C interface, the signature of `__init__`, and
# `__class_getitem__`, which a stub says by `Generic`.
ALLOWED = r"""
.*\.__(reduce|setstate)_cython__
.*\.__(test|pyx_capi|init|class_getitem)__
"""

TYPES = """
from collections.abc import AsyncIterator, Coroutine
from typing import Any, assert_type

from portico._core import ChannelBase, Codec, LengthPrefix, Lines, Netstrings, Queue, driven

assert_type(Lines(), Lines[str])
assert_type(Lines(separator="\\r\\n", max_size=10), Lines[str])
assert_type(Lines(text=True), Lines[str])
assert_type(Lines(text=False), Lines[bytes])
assert_type(LengthPrefix("varint").decode(b""), tuple[bytes, int] | int)
text: Codec[str] = Lines()
binary: list[Codec[bytes]] = [Lines(text=False), LengthPrefix(), Netstrings()]

async def use(channel: ChannelBase[str], queue: Queue[int]) -> int:
    assert_type(channel.codec, Codec[str])
    receiving: Coroutine[Any, Any, str] = channel.recv()
    assert_type(await receiving, str)
    assert_type(channel.batches(), AsyncIterator[list[str]])
    async for message in channel:
        assert_type(message, str)
    await channel.send("text")
    channel.send(b"bytes")  # E: arg-type
    LengthPrefix(3)  # E: arg-type
    Lines("\\n")  # E: call-overload
    return await driven(use(channel, queue)) + await queue.get()
"""


def run_module(module: str, *arguments: str, directory: Path) -> tuple[int, str]:
    found = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=directory,
        env=os.environ | ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    return found.returncode, found.stdout + found.stderr


def test_stubs_and_compiled_modules_have_the_same_names_and_signatures(tmp_path: Path) -> None:
    allowed = tmp_path / "allowed"
    allowed.write_text(ALLOWED)
    code, output = run_module(
        "mypy.stubtest", "--concise", "--allowlist", str(allowed), "--ignore-unused-allowlist", "portico._core",
        directory=tmp_path,
    )  # fmt: skip
    assert code == 0, output


def test_messages_have_the_type_of_their_codec(tmp_path: Path) -> None:
    example = tmp_path / "example.py"
    example.write_text(TYPES)
    _, output = run_module(
        "mypy", "--strict", "--no-error-summary", "--hide-error-context", example.name, directory=tmp_path
    )
    errors = [line for line in output.splitlines() if ": error: " in line]
    wanted = [
        (number, line.partition("# E: ")[2]) for number, line in enumerate(TYPES.splitlines(), 1) if "# E: " in line
    ]
    assert [(int(line.split(":")[1]), line.rpartition("[")[2].rstrip("]")) for line in errors] == wanted, output


def test_what_is_generic_in_the_stubs_can_be_subscripted() -> None:
    for generic in _core.Codec, _core.Lines, _core.ChannelBase, _core.Queue:
        assert generic[str] is generic
