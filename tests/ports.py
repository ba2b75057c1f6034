"""Port numbers that a test may close and expect to have again, or to find nobody at."""

import itertools
import os
import socket
from collections.abc import Iterator
from typing import Final

FIRST: Final = 12000
"""The system gives ports from 32768 on to clients and to who asks for port 0 (ip(7), ip_local_port_range)."""
SHARE: Final = 2000
"""Ports of each process that runs tests beside others."""
SHARES: Final = 10


def _share() -> int:
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    return int(worker.removeprefix("gw")) if worker else os.getpid()


def _candidates() -> Iterator[int]:
    start = FIRST + _share() % SHARES * SHARE
    return itertools.cycle(range(start, start + SHARE))


_next = _candidates()


def free_port(count: int = 1) -> int:
    """Return a port that nobody has, for TCP nor for UDP; with `count` the first of as many in a row. No other test
    gets it before all others were given."""
    found = 0
    for port, _ in zip(_next, range(SHARE), strict=False):
        found = found + 1 if _is_free(port) else 0
        if found == count:
            return port - count + 1
    raise AssertionError(f"there are no {count} free ports from {FIRST} on")


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
