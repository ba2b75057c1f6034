"""Which process has a socket open, as far as proc(5) tells this user."""

import contextlib
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

__all__ = ["Process", "processes_with", "user_name"]


@dataclass(frozen=True, slots=True)
class Process:
    """A process that has a socket open: its id, its name (the first 15 bytes of it), and the user that it runs as."""

    pid: int
    name: str
    user: str

    def __str__(self) -> str:
        return "this process" if self.pid == os.getpid() else f"{self.name} (pid {self.pid})"


def processes_with(inodes: Iterable[int]) -> dict[int, tuple[Process, ...]]:
    """Return the processes that have each of these sockets open, as far as this user may see; others are not in it.

    :param inodes: the sockets by the number of their inode.
    """
    wanted = {f"socket:[{inode}]": inode for inode in inodes if inode}
    found: dict[int, tuple[Process, ...]] = {}
    if not wanted or sys.platform != "linux":
        return found
    for pid in (name for name in os.listdir("/proc") if name.isdigit()):
        with contextlib.suppress(OSError):  # it has ended, or is somebody else's
            mine = {wanted[link] for link in _descriptors(pid) if link in wanted}
            if not mine:
                continue
            with open(f"/proc/{pid}/comm", errors="replace") as file:
                process = Process(int(pid), file.read().rstrip("\n"), user_name(os.stat(f"/proc/{pid}").st_uid))
            for inode in mine:
                found[inode] = (*found.get(inode, ()), process)
    return found


def user_name(uid: int) -> str:
    """Return the name of a user, or the number where there is no name."""
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _descriptors(pid: str) -> Iterator[str]:
    directory = f"/proc/{pid}/fd"
    for name in os.listdir(directory):
        with contextlib.suppress(OSError):  # closed by now
            yield os.readlink(f"{directory}/{name}")
