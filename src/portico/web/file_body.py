"""A file as the body of an answer: read piece by piece as the client takes them, without holding up the loop."""

import asyncio
import contextlib
import errno
import os
from collections import deque
from collections.abc import Iterable

from portico.errors import ClosedError
from portico.web.file_ranges import Range

PIECE = 64 * 1024
"""Bytes read at a time, and so held for each client that is slow (nginx's output_buffers: 2 of 32 KiB)."""

_NOT_CACHED = (errno.EAGAIN, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)
_NOWAIT = getattr(os, "RWF_NOWAIT", None)


class FileBody:
    """Parts of an open file and what stands between them, once. It closes the descriptor when it is over."""

    outlasts_end = True
    """It is sent to the end to a client that has ended its side, as an answer that is whole."""

    def __init__(self, fd: int, path: str, pieces: Iterable[bytes | Range]) -> None:
        """:param fd: is its own from here on."""
        self._fd, self._path = fd, path
        self._pieces = deque(pieces)
        self._at = self._end = 0

    def __aiter__(self) -> "FileBody":
        return self

    async def __anext__(self) -> bytes:
        """Return the next piece.

        :raises ClosedError: the file became shorter: what was promised cannot be sent any more"""
        while self._at == self._end:
            if not self._pieces:
                await self.aclose()
                raise StopAsyncIteration
            piece = self._pieces.popleft()
            if isinstance(piece, bytes):
                return piece
            self._at, self._end = piece
        data = await self._read(min(PIECE, self._end - self._at))
        if not data:
            await self.aclose()
            raise ClosedError(f"{self._path} became shorter while it was sent", clean=False)
        self._at += len(data)
        return data

    async def _read(self, size: int) -> bytes:
        """Read what the kernel has in memory at once (RWF_NOWAIT of preadv(2)); a thread waits for the disk."""
        if _NOWAIT is not None:
            buffer = bytearray(size)
            try:
                got = os.preadv(self._fd, [buffer], self._at, _NOWAIT)
            except OSError as error:
                if error.errno not in _NOT_CACHED:
                    raise
            else:
                return bytes(memoryview(buffer)[:got])
        read = asyncio.get_running_loop().run_in_executor(None, _read_at, self._fd, size, self._at)
        try:
            return await asyncio.shield(read)
        except asyncio.CancelledError:
            fd, self._fd = self._fd, -1  # whose number must not become another's while the thread reads
            read.add_done_callback(lambda done: _close(fd))
            raise

    async def aclose(self) -> None:
        """Close the file; may be called at any time, and twice."""
        self._pieces.clear()
        self._at = self._end = 0
        self._close()

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        _close(fd)

    def __del__(self) -> None:
        self._close()


def _read_at(fd: int, size: int, offset: int) -> bytes:
    os.lseek(fd, offset, os.SEEK_SET)  # pread(2) is not everywhere
    return os.read(fd, size)


def _close(fd: int) -> None:
    if fd >= 0:
        with contextlib.suppress(OSError):
            os.close(fd)
