"""The list of open sockets, and of who has them."""

import contextlib
from collections.abc import Collection
from dataclasses import replace

from portico.errors import ConfigurationError, UnsupportedError
from portico.transports.diag import KINDS, SocketEntry, entries
from portico.transports.processes import processes_with

__all__ = ["list_sockets"]

_UNIX = ("unix", "unixgram", "unixpacket")
_OF_PACKETS = ("udp", "raw", "unixgram", "packet")
_ALWAYS = ("tcp", "udp", "unix")


def list_sockets(kinds: Collection[str] = (), *, listening: bool = False, processes: bool = True) -> list[SocketEntry]:
    """List the sockets of this machine, as ss(8) does: where, in what state, with what queues, and whose they are.

    It is what is open in the network namespace of this process. It takes some milliseconds for each thousand sockets
    and each hundred processes; on an event loop call it by `asyncio.to_thread`.

    :param kinds: some of `tcp` (which is under TLS, too), `udp`, `raw`, `unix`, `unixgram`, `unixpacket`, `packet` and
        `vsock`; all that this kernel tells of if empty.
    :param listening: only those that wait for somebody: listeners, and sockets for packets that have no peer.
    :param processes: look up who has each open, which takes most of the time; root sees all, others see their own.
    :raises ConfigurationError: there is no such kind.
    :raises UnsupportedError: this is not Linux, or its kernel does not tell of these sockets.
    """
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown:
        raise ConfigurationError(f"there are no {unknown[0]!r} sockets to list; there are {', '.join(KINDS)}")
    wanted = list(dict.fromkeys("unix" if kind in _UNIX else kind for kind in kinds or KINDS))
    found: list[SocketEntry] = []
    for kind in wanted:
        # a kernel may be built without those that few use; who asked for them by name is told so
        with contextlib.nullcontext() if kinds or kind in _ALWAYS else contextlib.suppress(UnsupportedError):
            found += entries(kind, waiting=listening)
    found = [each for each in found if not kinds or each.kind in kinds]
    if listening:
        found = [each for each in found if each.state == "listening" or (each.kind in _OF_PACKETS and not each.remote)]
    if processes:
        holders = processes_with(each.inode for each in found)
        found = [replace(each, processes=holders[each.inode]) if each.inode in holders else each for each in found]
    return sorted(found, key=_order)


def _order(entry: SocketEntry) -> tuple[object, ...]:
    local, remote = entry.local, entry.remote
    where = (local.port or 0, local.host, local.path)
    there = (remote.port or 0, remote.host, remote.path) if remote else (0, "", "")
    return KINDS.index(entry.kind), entry.state != "listening", where, there, entry.inode
