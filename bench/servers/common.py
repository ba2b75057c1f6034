"""What the Python servers share: arguments, certificate, the file of the web servers, the lines of the group
workload, the socket of packets."""

from __future__ import annotations

import os
import resource
import socket
import ssl
import sys
from pathlib import Path

LINE_SIZE = 100
BACKLOG = 4096
JOIN, JOINED, SEND = b"join", b"joined", b"send "

WS_DEFLATE, WS_GROUP, WS_IDLE, WS_IDLE_DEFLATE, HTTP = "ws-deflate", "ws-group", "ws-idle", "ws-idle-deflate", "http"
DEFLATE_MODES = (WS_DEFLATE, WS_IDLE_DEFLATE)
WEB_MODES = ("ws", WS_IDLE, WS_GROUP, *DEFLATE_MODES, HTTP)
LARGEST_MESSAGE = 16 << 20

UDP_RECEIVE = "udp-receive"
UDP_MODES = (UDP_RECEIVE, "udp-echo")
UDP_BUFFER = 4 << 20
"""SO_RCVBUF of every server of packets."""

QUESTION_SIZE = 1
"""A packet of this size asks how many packets and bytes were received, itself included."""


def arguments() -> tuple[int, str]:
    """Port and mode from the command line; raises the descriptor limit on the way."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return int(sys.argv[1]), sys.argv[2]


def certificate() -> tuple[str, str]:
    """Paths of the certificate and its key."""
    return os.environ["BENCH_CERTIFICATE"], os.environ["BENCH_KEY"]


def small_file() -> Path:
    """The file that the servers of HTTP serve as /small.txt."""
    return Path(os.environ["BENCH_FILE"])


def tls_context() -> ssl.SSLContext:
    """The server side context that every peer uses."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate())
    return context


def ready(port: int) -> None:
    """Tell the runner that the server listens."""
    print("ready", port, flush=True)


def udp_socket(port: int) -> socket.socket:
    """A bound UDP socket with the receive buffer that all servers have."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setblocking(False)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, UDP_BUFFER)
    sock.bind(("127.0.0.1", port))
    return sock


class Numbered:
    """The lines that a group is sent: a running number, filled up to `LINE_SIZE` with the newline."""

    def __init__(self) -> None:
        self.serial = 0

    def next(self) -> bytes:
        """The next line, without its newline."""
        self.serial += 1
        return b"%010d" % self.serial + b"x" * (LINE_SIZE - 11)

    def next_message(self) -> bytes:
        """The next message of `LINE_SIZE` bytes, for those who need no newline."""
        return self.next() + b"x"
