"""What the tests with other programs share: data to check by its sum, and programs that are ended by their handle."""

import asyncio
import contextlib
import functools
import hashlib
import random
from collections.abc import AsyncIterator

import portico

SIZE = 3_000_001


@functools.cache
def sample(seed: int = 1, size: int = SIZE) -> bytes:
    """Bytes of every value, the same every time."""
    return random.Random(seed).randbytes(size)


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@contextlib.asynccontextmanager
async def running(
    *command: str, stdin: int | None = asyncio.subprocess.PIPE
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a program; it is killed in the end if it still runs."""
    process = await asyncio.create_subprocess_exec(
        *command, stdin=stdin, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            if process.returncode is None:
                process.kill()
        await process.communicate()
        process._transport.close()  # type: ignore[attr-defined]


async def exchange(*command: str, data: bytes) -> bytes:
    """Give `data` to a program, end its input, and return all it wrote."""
    async with running(*command) as process:
        out, error = await asyncio.wait_for(process.communicate(data), 15)
        assert process.returncode == 0, error
        return out


async def answer_after_the_end(stream: portico.Stream) -> None:
    """Take all until the peer's half-close; then answer with the sum of it, and send it back."""
    data = b""
    async for chunk in stream:
        data += chunk
    await stream.send(digest(data).encode() + b"\n")
    await stream.send(data)


async def transfer(stream: portico.Stream, data: bytes) -> bytes:
    """Send `data`, end this side, and return all that comes."""

    async def send() -> None:
        for start in range(0, len(data), 100_000):
            await stream.send(data[start : start + 100_000])
        stream.send_eof()

    sending = asyncio.create_task(send())
    received = b"".join([chunk async for chunk in stream])
    await sending
    return received


async def connected(address: str, **settings: object) -> portico.Stream:
    """Connect to a program that may not listen yet."""
    async with asyncio.timeout(10):
        while True:
            try:
                return await portico.connect(address, **settings)  # type: ignore[arg-type]
            except portico.ConnectError:
                await asyncio.sleep(0.01)


def whole_answer(data: bytes) -> bytes:
    """What `answer_after_the_end` says to `data`."""
    return digest(data).encode() + b"\n" + data
