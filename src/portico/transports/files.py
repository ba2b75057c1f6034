"""FIFOs and character devices as wires: what can be waited for as a socket can."""

import asyncio
import contextlib
import errno
import os
import stat
import sys
from typing import Literal

from portico import _core
from portico._core import Hub, Settings, hub_of
from portico.address import Address
from portico.errors import ConfigurationError, UnsupportedError
from portico.transports.connection import Stream

Mode = Literal["r", "w", "rw"]

_FLAGS = {"r": os.O_RDONLY, "w": os.O_WRONLY, "rw": os.O_RDWR}

READER_INTERVAL = 0.02
"""Seconds between two looks whether somebody reads a FIFO: open(2) can wait for that only by blocking."""


async def dial_file(hub: Hub, address: Address, mode: Mode | None = None) -> _core.Wire:
    """Open the FIFO or device at `address` and return its wire. A FIFO is opened for writing unless `mode` says "r";
    that waits until somebody reads.

    :raises OSError: as open(2) has it
    :raises UnsupportedError: it is neither, or a kind that cannot be waited for"""
    mode = mode or ("w" if address.scheme == "fifo" else "rw")
    while True:
        try:
            fd = os.open(address.path, _FLAGS[mode] | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        except OSError as error:
            if error.errno != errno.ENXIO or address.scheme != "fifo" or mode != "w":
                raise
            await asyncio.sleep(READER_INTERVAL)
            continue
        try:
            return file_wire(hub, fd, address)
        except BaseException:
            os.close(fd)
            raise


def file_wire(hub: Hub, fd: int, name: object) -> _core.Wire:
    """Return the wire of an open FIFO, pipe or character device, which it owns.

    :raises UnsupportedError: it is neither, or a kind that cannot be waited for; `fd` is the caller's still"""
    kind = os.fstat(fd).st_mode
    if not (stat.S_ISFIFO(kind) or stat.S_ISCHR(kind)):
        raise UnsupportedError(f"{name} is neither FIFO nor character device")
    if sys.platform != "linux" or not hub.native_sockets:
        raise UnsupportedError("FIFOs and devices need Portico's own sockets on Linux")
    if not _can_wait(fd):
        raise UnsupportedError(f"{name} is a device that cannot be waited for (epoll(7)): open it as a file")
    os.set_blocking(fd, False)
    access = _access(fd)
    one_way = stat.S_ISFIFO(kind) or access != os.O_RDWR
    only_writes = access == os.O_WRONLY
    return _core.SocketWire(hub, fd, None, is_file=True, can_half_close=one_way, only_writes=only_writes)


def _access(fd: int) -> int:
    import fcntl

    return fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE


def _can_wait(fd: int) -> bool:
    import select

    with select.epoll() as probe:
        try:
            probe.register(fd)
        except PermissionError:
            return False
    return True


def stream_of(fd: int, address: Address, settings: Settings | None = None) -> Stream:
    """Return a Stream upon an open FIFO, pipe or character device, which it owns. A direction that `fd` is not open
    for is over from the start.

    :raises UnsupportedError: it is neither, or a kind that cannot be waited for"""
    wire = file_wire(hub_of(asyncio.get_running_loop()), fd, address)
    stream = Stream(wire, settings or Settings(), scheme=address.scheme)
    stream._local = stream._remote = address
    if _access(fd) == os.O_RDONLY:
        stream.send_eof()
    return stream


async def open_fifo(path: str, mode: Literal["r", "w"] = "r", *, create: bool = False) -> Stream:
    """Open a FIFO (fifo(7)) as a Stream: "r" to receive, "w" to send, which waits until somebody reads.

    The end of a reader's stream comes when the last writer has closed its own, which `send_eof` does, too. `create`
    makes the FIFO where there is none.

    :raises ConfigurationError: another mode, or the path is no FIFO
    :raises OSError: as open(2) has it, such as FileNotFoundError"""
    if mode not in ("r", "w"):
        raise ConfigurationError(f"a FIFO is opened with mode 'r' or 'w', not {mode!r}")
    address = Address("fifo", path=path)
    if create:
        with contextlib.suppress(FileExistsError):
            os.mkfifo(path)
    if not stat.S_ISFIFO(os.stat(path).st_mode):
        raise ConfigurationError(f"{path} is no FIFO")
    hub = hub_of(asyncio.get_running_loop())
    stream = Stream(await dial_file(hub, address, mode), Settings(), scheme="fifo")
    stream._local = stream._remote = address
    if mode == "r":
        stream.send_eof()
    return stream
