"""Who is in the way: the process that has an address, as far as proc(5) tells this user."""

import contextlib
import os
import sys
from pathlib import Path


def port_holder(port: int) -> str | None:
    """Name the process that listens on the TCP `port`, as far as this user may see (proc(5)); None: unknown."""
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                    inodes.add(fields[9])
    return _process_with(inodes)


def unix_holder(path: str) -> str | None:
    """Name the process that listens on the Unix socket `path`, as far as this user may see; None: unknown."""
    inodes = set()
    with contextlib.suppress(OSError):
        for line in Path("/proc/net/unix").read_text().splitlines()[1:]:
            fields = line.split(maxsplit=7)
            if len(fields) == 8 and fields[7] == path:
                inodes.add(fields[6])
    return _process_with(inodes)


def _process_with(inodes: set[str]) -> str | None:
    wanted = {f"socket:[{inode}]" for inode in inodes}
    if not wanted or sys.platform != "linux":
        return None
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            if any(os.readlink(process / "fd" / name) in wanted for name in os.listdir(process / "fd")):
                if int(process.name) == os.getpid():
                    return "this process"
                return f"{(process / 'comm').read_text().strip()} (pid {process.name})"
    return None
