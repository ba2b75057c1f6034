"""Port numbers that a test may close and expect to have again, or to find nobody at."""

import itertools
import os
import secrets
import socket
from collections.abc import Iterator
from typing import Final

FIRST: Final = 12000
"""The system gives ports from 32768 on to clients and to who asks for port 0 (ip(7), ip_local_port_range)."""
SHARE: Final = 2000
"""Ports of each process that runs tests beside others."""
SHARES: Final = 10


def _share() -> range:
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    start = FIRST + (int(worker.removeprefix("gw")) % SHARES if worker else secrets.randbelow(SHARES)) * SHARE
    return range(start, start + SHARE)


def _candidates() -> Iterator[int]:
    """Go round this process's share. Another run of the tests may have the same one: so each begins anywhere."""
    place = secrets.randbelow(SHARE)
    return itertools.cycle([*_ports[place:], *_ports[:place]])


_ports = _share()
_next = _candidates()


def free_port(count: int = 1) -> int:
    """Return a port that nobody has, for TCP nor for UDP; with `count` the first of as many in a row. No other test
    gets it before all others were given."""
    found = 0
    for port in itertools.islice(_next, SHARE):
        if port == _ports[0]:  # what came before is the other end of the share
            found = 0
        found = found + 1 if _is_free(port) else 0
        if found == count:
            return port - count + 1
    raise AssertionError(f"there are no {count} free ports from {_ports[0]} to {_ports[-1]}")


def _is_free(port: int) -> bool:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        for family, host in ((socket.AF_INET, ""), (socket.AF_INET6, "::")):
            try:
                with socket.socket(family, kind) as sock:
                    if family == socket.AF_INET6:
                        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                    if kind == socket.SOCK_STREAM:
                        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    sock.bind((host, port))
            except OSError:
                if family == socket.AF_INET or socket.has_ipv6:
                    return False
    return True
