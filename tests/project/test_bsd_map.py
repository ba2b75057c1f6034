"""Every row of docs/from-bsd-sockets.md is run, with both faces, and gives what the page says."""

import re
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from bsd_map import PAGE, Row, perform, rows

from portico import blocking
from portico.options import OPTIONS
from portico.transports import resolve as resolving

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the page speaks of Linux")

ROWS = list(rows())

CALLS = [
    *("socket", "bind", "listen", "accept", "connect", "send", "recv", "sendto", "recvfrom", "sendmsg", "recvmsg"),
    *("shutdown", "close", "fcntl", "getsockopt", "setsockopt", "poll", "select", "getaddrinfo", "getnameinfo"),
    *("inet_pton", "inet_ntop", "getsockname", "getpeername", "socketpair", "dup", "fileno", "detach", "sendfile"),
    *("accept4", "recvmmsg", "sendmmsg", "pselect", "ppoll", "epoll_wait", "ioctl", "gethostbyname", "getservbyname"),
    *("if_nametoindex", "htons"),
]

FAMILIES = re.compile(r"(SO|IP|IPV6|TCP|UDP|MSG|SCM|SHUT|SOCK)_")

UNSAID = {
    "SCM_J1939_DEST_ADDR", "SCM_J1939_DEST_NAME", "SCM_J1939_ERRQUEUE", "SCM_J1939_PRIO",
    "SO_J1939_ERRQUEUE", "SO_J1939_FILTER", "SO_J1939_PROMISC", "SO_J1939_SEND_PRIO",  # of AF_CAN
    "IP_DEFAULT_MULTICAST_LOOP", "IP_DEFAULT_MULTICAST_TTL", "IP_MAX_MEMBERSHIPS", "IPV6_RTHDR_TYPE_0",  # plain numbers
}  # fmt: skip
"""Constants of Python's `socket` that the page passes over."""


@pytest.fixture(scope="module", autouse=True)
def warm() -> Iterator[None]:
    """What is made once and kept is not taken for a leftover: libuv keeps a pipe from its first loop on."""
    one, _ = blocking.memory_pair()
    one.close()
    blocking.shutdown()
    yield
    if resolving._default is not None:
        resolving._default.close()


@pytest.fixture(autouse=True)
def bounded() -> Iterator[None]:
    """A row that hangs is ended."""

    def late(number: int, frame: object) -> None:
        raise TimeoutError("the row takes more than 20 s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("threads", [False, True], ids=["loop", "threads"])
@pytest.mark.parametrize("row", ROWS, ids=str)
def test_a_row_gives_what_the_page_says(row: Row, threads: bool, tmp_path: Path) -> None:
    perform(row, str(tmp_path), threads=threads)


@pytest.mark.parametrize("threads", [False, True], ids=["loop", "threads"])
def test_every_row_says_what_comes_of_it(threads: bool) -> None:
    assert [str(row) for row in ROWS if not any(line.outcome for line in row.lines(threads=threads))] == []


def test_the_page_has_every_call_and_every_constant() -> None:
    said = {name for row in ROWS for name in row.constants}
    assert [call for call in CALLS if call not in said] == []
    known = said | {option.constant for option in OPTIONS.values()} | UNSAID
    assert [name for name in dir(socket) if FAMILIES.match(name) and name not in known] == []


def test_a_row_about_options_names_each_as_portico_does() -> None:
    names = {option.constant: name for name, option in OPTIONS.items()}
    missing = {
        constant: names[constant]
        for row in ROWS
        if row.section.endswith("constants")
        for constant in row.constants
        if constant in names and not re.search(rf"\b{names[constant]}\b", row.cell + row.remark)
    }
    assert sorted(missing.items()) == []


def test_links_within_the_page_lead_somewhere() -> None:
    text = PAGE.read_text()
    anchors = {
        re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in re.findall(r"^## (.*)$", text, re.M)
    }
    links = re.findall(r"\]\((?:#([^)]*)|([^)#]*))\)", text)
    assert [inner for inner, _ in links if inner and inner not in anchors] == []
    assert [outer for _, outer in links if outer and not (PAGE.parent / outer).exists()] == []
