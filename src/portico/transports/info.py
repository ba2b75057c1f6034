"""The kernel's view of a connection: round-trip time, retransmits, queues."""

import socket
import struct
import sys
from dataclasses import dataclass
from typing import Any, Final

__all__ = ["Info", "socket_info"]


@dataclass(frozen=True, slots=True)
class Info:
    """What is known of a socket at one moment; `None` where the kernel or the kind of socket does not tell.

    The fields from `state` on are those of Linux's `struct tcp_info`.
    """

    queued_receive: int = 0
    """Bytes that came and wait for the program to receive them, in Portico's buffer."""
    queued_send: int = 0
    """Bytes that the program sent and that the kernel has not taken yet."""
    kernel_receive_queue: int | None = None
    """Bytes in the kernel that the program has not read (SIOCINQ)."""
    kernel_send_queue: int | None = None
    """Bytes in the kernel that the peer has not acknowledged (SIOCOUTQ)."""
    state: str | None = None
    """TCP state as ss(8) names it: `established`, `close-wait`, ..."""
    rtt: float | None = None
    """Smoothed round-trip time in seconds."""
    rtt_variance: float | None = None
    """Mean deviation of the round-trip time in seconds."""
    minimum_rtt: float | None = None
    """Smallest round-trip time seen lately, in seconds."""
    retransmits: int | None = None
    """Timeouts in a row without an acknowledgement: 0 on a healthy connection."""
    total_retransmits: int | None = None
    """Segments sent again since the connection began."""
    congestion_window: int | None = None
    """Segments that may be on their way at once."""
    mss: int | None = None
    """Largest segment that is sent, in bytes."""
    path_mtu: int | None = None
    """Largest packet that the path is thought to carry, in bytes."""
    unacked: int | None = None
    """Segments on their way, not acknowledged yet."""
    lost: int | None = None
    """Segments on their way that are taken for lost."""
    bytes_acked: int | None = None
    bytes_received: int | None = None
    bytes_sent: int | None = None
    """Bytes sent, those sent again included."""
    delivery_rate: int | None = None
    """Latest rate at which the peer got data, in bytes per second."""


_STATES: Final = (
    "", "established", "syn-sent", "syn-recv", "fin-wait-1", "fin-wait-2", "time-wait", "closed", "close-wait",
    "last-ack", "listening", "closing", "new-syn-recv",
)  # fmt: skip

# Field of Info, offset and format in struct tcp_info (linux/tcp.h). The struct only ever grows at its end.
_TCP_INFO: Final = (
    ("retransmits", 2, "=B"),
    ("mss", 16, "=I"),
    ("unacked", 24, "=I"),
    ("lost", 32, "=I"),
    ("path_mtu", 60, "=I"),
    ("rtt", 68, "=I"),
    ("rtt_variance", 72, "=I"),
    ("congestion_window", 80, "=I"),
    ("total_retransmits", 100, "=I"),
    ("bytes_acked", 120, "=Q"),
    ("bytes_received", 128, "=Q"),
    ("minimum_rtt", 148, "=I"),
    ("delivery_rate", 160, "=Q"),
    ("bytes_sent", 200, "=Q"),
)
_TCP_INFO_SIZE: Final = 208
_TIMES: Final = ("rtt", "rtt_variance", "minimum_rtt")
_NO_TIME: Final = (0, 2**32 - 1)  # not measured yet


def socket_info(sock: socket.socket, queued_receive: int = 0, queued_send: int = 0) -> Info:
    """Return what the kernel tells of `sock`, with the queues of the program added; a closed socket tells nothing.

    :param queued_receive: bytes received and not taken by the program yet.
    :param queued_send: bytes sent by the program and not taken by the kernel yet.
    """
    values: dict[str, Any] = {}
    is_tcp = sock.family in (socket.AF_INET, socket.AF_INET6) and sock.type == socket.SOCK_STREAM
    if is_tcp and sys.platform == "linux":
        try:
            values = parse_tcp_info(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_SIZE))
        except OSError:
            values = {}
    return Info(
        queued_receive=queued_receive,
        queued_send=queued_send,
        kernel_receive_queue=_queue_size(sock, "FIONREAD"),
        # On a Unix socket SIOCOUTQ counts the memory that the queue takes, not the bytes in it.
        kernel_send_queue=_queue_size(sock, "TIOCOUTQ") if is_tcp and sys.platform == "linux" else None,
        **values,
    )


def tcp_state(number: int) -> str:
    """Return the name of a state of TCP as the kernel numbers them (net/tcp_states.h)."""
    return _STATES[number] if number < len(_STATES) else str(number)


def parse_tcp_info(data: bytes) -> dict[str, Any]:
    """Return the fields of `Info` that a `struct tcp_info` holds; an older kernel's is shorter and holds fewer."""
    values: dict[str, Any] = {}
    if not data:
        return values
    values["state"] = tcp_state(data[0])
    if values["state"] == "listening":
        return values  # a listener's struct holds lengths of its backlog in some of these places
    for name, offset, layout in _TCP_INFO:
        if offset + struct.calcsize(layout) > len(data):
            continue
        (value,) = struct.unpack_from(layout, data, offset)
        if name in _TIMES:
            value = None if value in _NO_TIME else value / 1e6
        values[name] = value
    return values


def _queue_size(sock: socket.socket, request: str) -> int | None:
    try:
        import fcntl
        import termios

        answer = fcntl.ioctl(sock.fileno(), getattr(termios, request), b"\0" * 4)
    except (ImportError, AttributeError, OSError, ValueError):
        return None
    size: int = struct.unpack("i", answer)[0]
    return size
