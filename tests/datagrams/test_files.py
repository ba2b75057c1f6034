"""FIFOs and character devices as Streams."""

import asyncio
import os
import pty
import tty
from pathlib import Path

import pytest

import portico
from portico.transports.adopting import adopt
from portico.transports.files import open_fifo
from tests.server.support import NATIVE, scenario, until


@scenario(NATIVE)
async def test_a_fifo_carries_bytes_until_the_last_writer_leaves(tmp_path: Path) -> None:
    path = str(tmp_path / "fifo")
    async with await open_fifo(path, create=True) as source:
        first, second = await open_fifo(path, "w"), await open_fifo(path, "w")
        data = bytes(range(256)) * 2000
        sending = asyncio.ensure_future(send_all(first, data))
        assert await source.recv_exactly(len(data)) == data
        await sending
        await first.close()
        await second.send(b"still one")
        assert await source.recv() == b"still one"
        await second.close()
        assert await source.recv() == b""


async def send_all(stream: portico.Stream, data: bytes) -> None:
    for start in range(0, len(data), 10_000):
        await stream.send(data[start : start + 10_000])
    await stream.flush()


@scenario(NATIVE)
async def test_writing_waits_for_a_reader_and_learns_that_it_left(tmp_path: Path) -> None:
    path = str(tmp_path / "fifo")
    os.mkfifo(path)
    opening = asyncio.create_task(open_fifo(path, "w"))
    done, _ = await asyncio.wait([opening], timeout=0.1)
    assert not done
    reading = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    sink = await opening
    await sink.send(b"hello")
    await sink.flush()
    assert os.read(reading, 100) == b"hello"
    os.close(reading)
    await until(lambda: sink.state is portico.State.CLOSED)
    with pytest.raises(portico.ClosedError):
        sink.send(b"nobody reads")
    await sink.close()
    opening = asyncio.create_task(open_fifo(str(tmp_path / "fifo"), "w"))
    await asyncio.sleep(0)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening


@scenario(NATIVE)
async def test_what_is_no_fifo_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(portico.ConfigurationError, match="is no FIFO"):
        await open_fifo(str(tmp_path / "file"))
    with pytest.raises(portico.ConfigurationError, match="mode 'r' or 'w', not 'x'"):
        await open_fifo(str(tmp_path / "file"), "x")  # type: ignore[arg-type]


@scenario(NATIVE)
async def test_a_terminal_is_a_stream_both_ways() -> None:
    master, slave = pty.openpty()
    tty.setraw(slave)
    async with await adopt(slave) as program:
        os.write(master, b"typed")
        assert await program.recv() == b"typed"
        await program.send(b"shown")
        await program.flush()
        assert os.read(master, 100) == b"shown"
        assert program.remote_address.scheme == "device"
        os.close(master)
        assert await program.recv() == b""


@scenario(NATIVE)
async def test_the_writing_end_of_a_fifo_has_nothing_to_receive_and_ends_by_send_eof(tmp_path: Path) -> None:
    path = str(tmp_path / "fifo")
    async with await open_fifo(path, create=True) as source:
        sink = await open_fifo(path, "w")
        assert await sink.recv() == b"" and sink.state is portico.State.HALF_CLOSED_REMOTE
        await sink.send(b"all there is")
        sink.send_eof()
        await sink.wait_closed()
        assert await source.recv() == b"all there is"
        assert await source.recv() == b""
