"""What the kernel tells of every socket: a client of Linux's sock_diag(7), which ss(8) uses, too."""

import contextlib
import os
import socket
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

from portico.address import AF_PACKET, AF_UNIX, AF_VSOCK, Address
from portico.errors import UnsupportedError, describe
from portico.transports.info import Info, parse_tcp_info, tcp_state
from portico.transports.processes import Process, user_name

__all__ = ["KINDS", "SocketEntry", "entries"]

KINDS: Final = ("tcp", "udp", "raw", "unix", "unixgram", "unixpacket", "packet", "vsock")
"""The kinds of sockets that can be listed, by the names of their schemes."""


@dataclass(frozen=True, slots=True)
class SocketEntry:
    """One socket of this machine at one moment; `None` where the kernel or the kind of socket does not tell."""

    kind: str
    """One of `KINDS`: the scheme of its addresses."""
    state: str
    """As `Info.state`: `listening`, `established`, `close-wait`, ...; `unconnected` for packets without a peer, `bound`
    for a TCP socket that has an address and does nothing yet."""
    local: Address
    remote: Address | None
    """The peer, None if there is none."""
    receive_queue: int | None = None
    """Bytes that the program has not read, of a listener the connections that it has not accepted. Of `udp`, `raw`,
    `packet`: the memory that they take."""
    send_queue: int | None = None
    """Bytes that the peer has not acknowledged, of a listener the length of its backlog. Of all but `tcp`: the memory
    that they take."""
    info: Info | None = None
    """Of `tcp`: round-trip time, congestion window and so on."""
    timer: str | None = None
    """What the kernel waits for: `retransmit`, `keepalive`, `time-wait` or `probe` (of a peer that takes no more)."""
    timer_left: float | None = None
    """In how many seconds that is due."""
    receive_buffer: int | None = None
    """Most memory that the receive queue may take, in bytes (SO_RCVBUF)."""
    send_buffer: int | None = None
    """Most memory that the send queue may take, in bytes (SO_SNDBUF)."""
    drops: int | None = None
    """Packets that were dropped as the receive queue was full."""
    interface: str = ""
    """The network interface that it is bound to, "" for any (SO_BINDTODEVICE)."""
    uid: int | None = None
    """The user who owns it."""
    inode: int = 0
    """Its number in proc(5), 0 if no process has it: in `time-wait`, or not accepted yet."""
    peer_inode: int = 0
    """Of Unix sockets: the socket at the other end."""
    processes: tuple[Process, ...] = ()
    """Who has it open, as far as this user may see."""

    @property
    def rtt(self) -> float | None:
        """Smoothed round-trip time in seconds."""
        return self.info.rtt if self.info is not None else None

    @property
    def user(self) -> str:
        """Name of the user who owns it, or of who runs the process that has it; "" if neither is known."""
        if self.uid is not None:
            return user_name(self.uid)
        return self.processes[0].user if self.processes else ""


# linux/netlink.h and linux/sock_diag.h
NETLINK_SOCK_DIAG: Final = 4
SOCK_DIAG_BY_FAMILY: Final = 20
NLM_F_REQUEST_DUMP: Final = 0x1 | 0x300
NLMSG_ERROR, NLMSG_DONE = 2, 3
RECEIVE_SIZE: Final = 1 << 16  # the kernel fills at most 32 KiB at a time
NO_PORT: Final = 0xFFFFFFFF

# linux/inet_diag.h
_INET_HEADER: Final = struct.Struct("=4B 2s2s 16s16s I8x 5I")
_INET_INFO, _INET_SKMEMINFO, _INET_SKV6ONLY = 2, 7, 11
_INET_SHOW: Final = 1 << _INET_INFO - 1 | 1 << _INET_SKMEMINFO - 1
_INET_TIMERS: Final = {1: "retransmit", 2: "keepalive", 3: "time-wait", 4: "probe"}
# linux/unix_diag.h
_UNIX_HEADER: Final = struct.Struct("=4B I8x")
_UNIX_NAME, _UNIX_PEER, _UNIX_ICONS, _UNIX_RQLEN, _UNIX_MEMINFO, _UNIX_UID = 0, 2, 3, 4, 5, 7
_UNIX_SHOW: Final = 0x01 | 0x04 | 0x08 | 0x10 | 0x20 | 0x40
_UNIX_KINDS: Final = {
    socket.SOCK_STREAM: "unix",
    socket.SOCK_DGRAM: "unixgram",
    socket.SOCK_SEQPACKET: "unixpacket",
}
# linux/packet_diag.h
_PACKET_HEADER: Final = struct.Struct("=BBH I8x")
_PACKET_INFO, _PACKET_UID, _PACKET_MEMINFO = 0, 5, 6
_PACKET_SHOW: Final = 0x01 | 0x10
# linux/vm_sockets_diag.h
_VSOCK_HEADER: Final = struct.Struct("=4B 4I I8x")

ALL_STATES: Final = 0xFFFFFFFF
CLOSED_STATE, LISTENING_STATE = 7, 10  # net/tcp_states.h
LISTENING: Final = 1 << LISTENING_STATE
CLOSED: Final = 1 << CLOSED_STATE

_PROTOCOLS: Final = {"tcp": socket.IPPROTO_TCP, "udp": socket.IPPROTO_UDP, "raw": socket.IPPROTO_RAW}


def entries(kind: str, *, waiting: bool = False) -> list[SocketEntry]:
    """List the sockets of one kind in this network namespace; the three kinds of Unix sockets come together.

    :param waiting: only those that wait for somebody: listeners, and sockets for packets that have no peer.
    :raises UnsupportedError: this is not Linux, or its kernel does not tell of such sockets.
    """
    if sys.platform != "linux":
        raise UnsupportedError("sockets can be listed only on Linux")
    states = LISTENING if waiting and kind == "tcp" else LISTENING | CLOSED if waiting else ALL_STATES
    if kind == "raw":
        try:
            return _inet_entries(kind, states)
        except UnsupportedError:  # many kernels are built without this part of it
            return _raw_entries_of_proc(waiting)
    if kind in _PROTOCOLS:
        return _inet_entries(kind, states)
    if kind in _UNIX_KINDS.values():
        request = struct.pack("=BBxxIII8x", AF_UNIX, 0, states, 0, _UNIX_SHOW)
        return _unix_entries(_dump(kind, request))
    if kind == "packet":
        request = struct.pack("=BBxxII8x", AF_PACKET, 0, 0, _PACKET_SHOW)
        return [_packet_entry(data) for data in _dump(kind, request)]
    request = struct.pack("=BBxxIII8x", AF_VSOCK, 0, states, 0, 0)
    return [_vsock_entry(data) for data in _dump(kind, request)]


# -- netlink(7)


def _dump(kind: str, request: bytes) -> Iterator[bytes]:
    """Ask for all, and give the body of each message that answers.

    :raises UnsupportedError: the kernel does not know the question.
    """
    assert sys.platform == "linux"  # `entries` saw to it
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_SOCK_DIAG) as sock:
            header = struct.pack("=IHHII", 16 + len(request), SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST_DUMP, 1, 0)
            sock.sendto(header + request, (0, 0))
            while True:
                data, (sender, _) = sock.recvfrom(RECEIVE_SIZE)
                if sender != 0:  # not from the kernel
                    continue
                for message, body in _messages(data):
                    if message in (NLMSG_DONE, NLMSG_ERROR):
                        code = -struct.unpack_from("=i", body)[0]
                        if code > 0:
                            raise OSError(code, os.strerror(code))
                        return
                    yield body
    except OSError as error:
        raise UnsupportedError(f"the kernel does not list {kind} sockets (sock_diag): {describe(error)}") from error


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + 16 <= len(data):
        length, kind = struct.unpack_from("=IH", data, at)
        if length < 16:
            return
        yield kind, data[at + 16 : at + length]
        at += length + 3 & ~3


def _attributes(data: bytes, start: int) -> dict[int, bytes]:
    """The attributes behind a header of `start` bytes, by their type (netlink(7), struct nlattr)."""
    found: dict[int, bytes] = {}
    at = start + 3 & ~3
    while at + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, at)
        if length < 4:
            break
        found[kind & 0x3FFF] = data[at + 4 : at + length]
        at += length + 3 & ~3
    return found


def _memory(data: bytes | None) -> dict[str, Any]:
    """The fields of a SocketEntry that SKMEMINFO tells; an older kernel's is shorter."""
    if data is None or len(data) < 16:
        return {}
    values = struct.unpack_from(f"={len(data) // 4}I", data)
    return {
        "receive_buffer": values[1],
        "send_buffer": values[3],
        "drops": values[8] if len(values) > 8 else None,
    }


# -- one socket


def _inet_entries(kind: str, states: int) -> list[SocketEntry]:
    found: list[SocketEntry] = []
    for family in (socket.AF_INET, socket.AF_INET6):
        request = struct.pack("=BBBxI48x", family, _PROTOCOLS[kind], _INET_SHOW, states)
        found += [_inet_entry(kind, data) for data in _dump(kind, request)]
    return found


def _inet_entry(kind: str, data: bytes) -> SocketEntry:
    family, state, timer, _, *identity, expires, receive_queue, send_queue, uid, inode = _INET_HEADER.unpack_from(data)
    source_port, peer_port, source, peer, index = identity
    attributes = _attributes(data, _INET_HEADER.size)
    size = 4 if family == socket.AF_INET else 16
    interface = _interface(index)

    def address(packed: bytes, port: bytes) -> Address:
        found = Address.from_packed(kind, packed[:size], int.from_bytes(port, "big"))
        return found.replace(scope=interface) if interface and found.host.startswith("fe80:") else found

    local = address(source, source_port)
    if family == socket.AF_INET6 and local.is_wildcard and attributes.get(_INET_SKV6ONLY) == b"\0" and kind != "raw":
        local = local.replace(host="")  # IPv4, too
    info = None
    if kind == "tcp" and attributes.get(_INET_INFO):
        info = Info(
            kernel_receive_queue=receive_queue,
            kernel_send_queue=send_queue,
            **parse_tcp_info(attributes[_INET_INFO]),
        )
    return SocketEntry(
        kind,
        _state(kind, state),
        local,
        address(peer, source_port if kind == "raw" else peer_port) if any(peer) else None,
        receive_queue,
        send_queue,
        info=info,
        timer=_INET_TIMERS.get(timer),
        timer_left=expires / 1000 if timer in _INET_TIMERS else None,
        interface=interface,
        uid=uid if inode else None,  # the kernel says 0 for what belongs to nobody
        inode=inode,
        **_memory(attributes.get(_INET_SKMEMINFO)),
    )


def _unix_entries(dump: Iterator[bytes]) -> list[SocketEntry]:
    """Unix sockets with the address of the other end, which the kernel gives as the number of an inode."""
    found: list[SocketEntry] = []
    locals_: dict[int, Address] = {}
    listeners: dict[int, Address] = {}
    for data in dump:
        _, type_, state, _, inode = _UNIX_HEADER.unpack_from(data)
        attributes = _attributes(data, _UNIX_HEADER.size)
        entry = _unix_entry(_UNIX_KINDS.get(type_, "unix"), state, inode, attributes)
        found.append(entry)
        locals_[inode] = entry.local
        pending = attributes.get(_UNIX_ICONS, b"")
        listeners.update(dict.fromkeys(struct.unpack(f"={len(pending) // 4}I", pending), entry.local))
    for index, each in enumerate(found):
        if each.state == "established":
            # a socket that was not accepted yet has no inode, but its peer stands in the queue of the listener
            remote = locals_.get(each.peer_inode) or listeners.get(each.inode) or Address(each.kind)
            found[index] = replace(each, remote=remote)
    return found


def _unix_entry(kind: str, state: int, inode: int, attributes: dict[int, bytes]) -> SocketEntry:
    queues = attributes.get(_UNIX_RQLEN, b"")
    name = attributes.get(_UNIX_NAME, b"")
    return SocketEntry(
        kind,
        _state(kind, state),
        Address.from_sockaddr(kind, AF_UNIX, name if name.startswith(b"\0") else name.rstrip(b"\0")),
        None,
        _number(queues),
        _number(queues[4:]),
        uid=_number(attributes.get(_UNIX_UID)),
        inode=inode,
        peer_inode=_number(attributes.get(_UNIX_PEER)) or 0,
        **_memory(attributes.get(_UNIX_MEMINFO)),
    )


def _packet_entry(data: bytes) -> SocketEntry:
    _, _, ethertype, inode = _PACKET_HEADER.unpack_from(data)
    attributes = _attributes(data, _PACKET_HEADER.size)
    memory = attributes.get(_PACKET_MEMINFO, b"")
    interface = _interface(_number(attributes.get(_PACKET_INFO)) or 0)
    return SocketEntry(
        "packet",
        "unconnected",
        Address("packet", interface, ethertype),
        None,
        _number(memory),
        _number(memory[8:]),
        interface=interface,
        uid=_number(attributes.get(_PACKET_UID)),
        inode=inode,
        **_memory(memory),
    )


def _vsock_entry(data: bytes) -> SocketEntry:
    _, _, state, _, cid, port, peer_cid, peer_port, inode = _VSOCK_HEADER.unpack_from(data)
    peer = None if peer_port == NO_PORT else Address.from_sockaddr("vsock", AF_VSOCK, (peer_cid, peer_port))
    local = Address.from_sockaddr("vsock", AF_VSOCK, (cid, port))
    return SocketEntry("vsock", _state("vsock", state), local, peer, inode=inode)


def _state(kind: str, number: int) -> str:
    if number == CLOSED_STATE:
        return {"tcp": "bound", "vsock": "bound"}.get(kind, "unconnected")
    return tcp_state(number)


def _number(data: bytes | None) -> int | None:
    return struct.unpack_from("=I", data)[0] if data and len(data) >= 4 else None


def _interface(index: int) -> str:
    """The name of an interface, or its number when it has none any more; "" for 0, which is every one."""
    if not index:
        return ""
    with contextlib.suppress(OSError):
        return socket.if_indextoname(index)
    return str(index)


# -- proc(5)


def _raw_entries_of_proc(waiting: bool) -> list[SocketEntry]:
    """Raw sockets as /proc/net/raw and raw6 tell of them, which is less than sock_diag does."""
    found = []
    for name in ("raw", "raw6"):
        try:
            with open(f"/proc/net/{name}") as file:
                lines = file.readlines()[1:]
        except OSError as error:
            if name == "raw6":  # a kernel without IPv6
                continue
            raise UnsupportedError(
                f"the kernel does not list raw sockets (/proc/net/raw): {describe(error)}"
            ) from error
        found += [_raw_entry_of_proc(line.split()) for line in lines]
    return [each for each in found if not waiting or each.state != "established"]


def _raw_entry_of_proc(fields: list[str]) -> SocketEntry:
    local, protocol = _proc_address(fields[1])
    peer, _ = _proc_address(fields[2])
    send_queue, receive_queue = (int(number, 16) for number in fields[4].split(":"))
    return SocketEntry(
        "raw",
        _state("raw", int(fields[3], 16)),
        Address.from_packed("raw", local, protocol),
        Address.from_packed("raw", peer, protocol) if any(peer) else None,
        receive_queue,
        send_queue,
        drops=int(fields[12]),
        uid=int(fields[7]),
        inode=int(fields[9]),
    )


def _proc_address(text: str) -> tuple[bytes, int]:
    """Read `0100007F:0035`: words in this machine's byte order, and a number."""
    host, _, port = text.partition(":")
    words = [int(host[at : at + 8], 16) for at in range(0, len(host), 8)]
    return struct.pack(f"={len(words)}I", *words), int(port, 16)
