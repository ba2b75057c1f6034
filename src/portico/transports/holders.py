"""Who is in the way: the process that has an address, as far as this user may see."""

from collections.abc import Callable

from portico.errors import UnsupportedError
from portico.transports.diag import SocketEntry, entries
from portico.transports.processes import processes_with


def port_holder(port: int, kind: str = "tcp") -> str | None:
    """Name the process that listens on `port`, or receives packets there if `kind` is `udp`; None: unknown."""
    return _holder(kind, lambda entry: entry.local.port == port)


def unix_holder(path: str, kind: str = "unix") -> str | None:
    """Name the process that listens on the Unix socket `path`, or receives packets there if `kind` is `unixgram`;
    None: unknown."""
    return _holder(kind, lambda entry: entry.kind == kind and entry.local.path == path)


def _holder(kind: str, is_wanted: Callable[[SocketEntry], bool]) -> str | None:
    try:
        found = processes_with(entry.inode for entry in entries(kind, waiting=True) if is_wanted(entry))
    except UnsupportedError:
        return None
    return str(next(iter(found.values()))[0]) if found else None
