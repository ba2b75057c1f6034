"""The table of socket options, a row an option: those of socket(7), unix(7), vsock(7) and packet(7); `internet_options`
has the others.

Left out are options that take pointers or are one step of several (filters, TCP repair and MD5, packet rings), those
that are calls here (memberships of multicast groups), and the timeouts SO_RCVTIMEO and SO_SNDTIMEO, as no socket here
blocks.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from portico.internet_options import INTERNET_ROWS
from portico.option_row import UNSIGNED, Option, Sysctl, row

__all__ = ["OPTIONS"]

_BUFFER: Final = {"unit": "bytes", "minimum": 1}
_RECEIVE_BUFFER: Final = (
    Sysctl("net.core.rmem_max", "maximum"),
    Sysctl("net.core.rmem_default", "default"),
    Sysctl("net.ipv4.tcp_rmem", "default", 1, "tcp"),
)
_SEND_BUFFER: Final = (
    Sysctl("net.core.wmem_max", "maximum"),
    Sysctl("net.core.wmem_default", "default"),
    Sysctl("net.ipv4.tcp_wmem", "default", 1, "tcp"),
)
_NET_ADMIN: Final = "CAP_NET_ADMIN"
_ADMIN_OR_RAW: Final = "CAP_NET_ADMIN or CAP_NET_RAW"

# linux/net_tstamp.h
_TIMESTAMPING: Final = tuple(
    (name, 1 << bit)
    for bit, name in enumerate((
        "tx_hardware", "tx_software", "rx_hardware", "rx_software", "software", "sys_hardware", "raw_hardware",
        "opt_id", "tx_sched", "tx_ack", "opt_cmsg", "opt_tsonly", "opt_stats", "opt_pktinfo", "opt_tx_swhw",
    ))
)  # fmt: skip

_SOCKET_ROWS: Final = (
    # Dead peers and the end
    row("keepalive", "SO_KEEPALIVE", "bool", "tcp", "Probe an idle connection, to notice a peer that is gone."),
    row("linger", "SO_LINGER", "linger", "any",
        "How long close waits for unsent data: None leaves it to the system, 0 drops it and resets the connection.",
        unit="s", maximum=65535),
    # Buffers
    row("receive_buffer", "SO_RCVBUF", "int", "any",
        "Size of the kernel's receive buffer; Linux gives, and reads back, twice what is asked for.",
        sysctls=_RECEIVE_BUFFER, **_BUFFER),
    row("receive_buffer_force", "SO_RCVBUFFORCE", "int", "any",
        "As receive_buffer, without the kernel's maximum.",
        platform="Linux 2.6.14", privilege=_NET_ADMIN, readable=False, hint="receive_buffer tells the size", **_BUFFER),
    row("send_buffer", "SO_SNDBUF", "int", "any",
        "Size of the kernel's send buffer; Linux gives, and reads back, twice what is asked for.",
        sysctls=_SEND_BUFFER, **_BUFFER),
    row("send_buffer_force", "SO_SNDBUFFORCE", "int", "any",
        "As send_buffer, without the kernel's maximum.",
        platform="Linux 2.6.14", privilege=_NET_ADMIN, readable=False, hint="send_buffer tells the size", **_BUFFER),
    row("buffer_lock", "SO_BUF_LOCK", "flags", "any",
        "Which buffers keep their size; setting a size locks it, () lets the kernel tune both again.",
        choices=(("send", 1), ("receive", 2)), platform="Linux 5.15"),
    row("reserved_memory", "SO_RESERVE_MEM", "int", "any",
        "Kernel memory kept for this socket alone; it needs a memory cgroup.",
        unit="bytes", platform="Linux 5.16", hint="only a socket in a memory cgroup can reserve memory"),
    row("receive_lowat", "SO_RCVLOWAT", "int", "any", "Bytes that must be there before the socket is readable.",
        **_BUFFER),
    row("send_lowat", "SO_SNDLOWAT", "int", "any", "Room that must be there before the socket is writable; 1 on Linux.",
        settable=False, **_BUFFER),
    row("memory", "SO_MEMINFO", "numbers", "any",
        "Bytes received and queued, receive buffer, sent and queued, send buffer, reserved, to send, for options, in "
        "the backlog; then packets dropped.",
        layout="9I", settable=False, platform="Linux 4.12"),
    row("zero_copy", "SO_ZEROCOPY", "bool", "any", "Allow MSG_ZEROCOPY in send calls.", platform="Linux 4.14"),
    row("max_pacing_rate", "SO_MAX_PACING_RATE", "int", "any", "Send no faster than this; None is without a limit.",
        unit="bytes/s", size=8, none=2**64 - 1, maximum=2**64 - 2, platform="Linux 3.13"),
    # Polling the device
    row("busy_poll", "SO_BUSY_POLL", "microseconds", "any", "Time to poll the device when there is no data.",
        unit="µs", platform="Linux 3.11", privilege="CAP_NET_ADMIN for raising it, on older kernels",
        sysctls=(Sysctl("net.core.busy_read", "default"),)),
    row("prefer_busy_poll", "SO_PREFER_BUSY_POLL", "bool", "any",
        "Let busy polling hold the device's interrupts off.", platform="Linux 5.11",
        privilege="CAP_NET_ADMIN for turning it on"),
    row("busy_poll_budget", "SO_BUSY_POLL_BUDGET", "int", "any", "Most packets that one round of busy polling takes.",
        unit="packets", maximum=65535, platform="Linux 5.11", privilege="CAP_NET_ADMIN for raising it",
        readable=False),
    row("incoming_cpu", "SO_INCOMING_CPU", "int", "inet", "The CPU that handles the socket's packets; -1 is none.",
        minimum=-1, platform="Linux 4.4"),
    row("incoming_napi_id", "SO_INCOMING_NAPI_ID", "int", "inet",
        "The device queue that the last packet came from; 0 is unknown.",
        maximum=UNSIGNED, settable=False, platform="Linux 4.12"),
    # Addresses
    row("reuse_address", "SO_REUSEADDR", "bool", "any", "Listen on a port whose old connections still linger."),
    row("reuse_port", "SO_REUSEPORT", "bool", "inet", "Let several sockets listen on one port and share the load.",
        platform="Linux 3.9, BSD, macOS"),
    # Routing and marking
    row("bind_to_device", "SO_BINDTODEVICE", "str", "inet", "Use one network interface only; '' is any.",
        maximum=15, platform="Linux 2.0.30", privilege="CAP_NET_RAW for changing it",
        hint="`ip link` lists the interfaces"),
    row("bind_to_interface", "SO_BINDTOIFINDEX", "interface", "inet",
        "As bind_to_device, by the interface's index.", platform="Linux 5.1", privilege="CAP_NET_RAW for changing it"),
    row("mark", "SO_MARK", "int", "any", "Mark of the packets, for routing and filters.",
        maximum=UNSIGNED, platform="Linux 2.6.25", privilege=_ADMIN_OR_RAW),
    row("priority", "SO_PRIORITY", "int", "any", "Queueing priority of the packets.",
        platform="Linux 2.2", privilege="CAP_NET_ADMIN for more than 6"),
    row("dont_route", "SO_DONTROUTE", "bool", "any", "Send to hosts on the same link only, past the routing table."),
    row("tx_rehash", "SO_TXREHASH", "bool", "tcp", "Try another path of several when a connection does not get on.",
        platform="Linux 5.18", sysctls=(Sysctl("net.core.txrehash", "default"),)),
    row("broadcast", "SO_BROADCAST", "bool", "datagram", "Allow sending to broadcast addresses."),
    row("no_check", "SO_NO_CHECK", "bool", "datagram", "Send IPv4 packets without the UDP checksum.",
        platform="Linux 2.2"),
    row("route_advice", "SO_CNX_ADVICE", "int", "any", "1 says that the route does not work: look it up again.",
        minimum=1, maximum=1, readable=False, platform="Linux 4.6", hint="it is word to the kernel, not a state"),
    row("send_time", "SO_TXTIME", "numbers", "any",
        "Clock (as clock_gettime(2) has it) and flags of the times to send at that ancillary data gives.",
        layout="iI", platform="Linux 4.19", privilege="CAP_NET_ADMIN for other clocks than 1, CLOCK_MONOTONIC"),
    # What comes as ancillary data
    row("timestamp", "SO_TIMESTAMP", "bool", "any", "Tell when each packet came, in µs (SCM_TIMESTAMP).",
        platform="Linux 2.2"),
    row("timestamp_ns", "SO_TIMESTAMPNS", "bool", "any", "Tell when each packet came, in ns (SCM_TIMESTAMPNS).",
        platform="Linux 2.6.22"),
    row("timestamping", "SO_TIMESTAMPING", "flags", "any",
        "Which times of packets are taken and told, by hardware or software (SCM_TIMESTAMPING).",
        choices=_TIMESTAMPING, platform="Linux 2.6.30"),
    row("receive_drops", "SO_RXQ_OVFL", "bool", "any", "Tell with each packet how many the kernel has dropped so far.",
        platform="Linux 2.6.33"),
    row("receive_mark", "SO_RCVMARK", "bool", "any", "Tell the mark of each packet.",
        platform="Linux 5.19", privilege=f"{_ADMIN_OR_RAW} on older kernels"),
    row("receive_priority", "SO_RCVPRIORITY", "bool", "any", "Tell the priority of each packet.",
        platform="Linux 6.14"),
    row("wifi_status", "SO_WIFI_STATUS", "bool", "any", "Tell whether each packet sent was acknowledged on the air.",
        platform="Linux 3.3"),
    row("select_error_queue", "SO_SELECT_ERR_QUEUE", "bool", "any",
        "Wake select(2) for exceptional conditions when the error queue has something.", platform="Linux 3.10"),
    row("oob_inline", "SO_OOBINLINE", "bool", "any", "Leave urgent data in the stream, where it came."),
    row("peek_offset", "SO_PEEK_OFF", "int", "any", "Where the next MSG_PEEK reads from; None is off, at the front.",
        unit="bytes", none=-1, platform="Linux 3.4"),
    # Frames and filters
    row("no_fcs", "SO_NOFCS", "bool", "packet", "The last 4 bytes of a frame are its checksum; the device adds none.",
        platform="Linux 3.4"),
    row("lock_filter", "SO_LOCK_FILTER", "bool", "any", "Forbid changes of the socket's filter, for good.",
        platform="Linux 3.9", hint="once on, it stays on"),
    row("debug", "SO_DEBUG", "bool", "any", "Record what the protocol does.",
        privilege="CAP_NET_ADMIN for turning it on"),
    # What the kernel tells
    row("error", "SO_ERROR", "int", "any", "The pending error as an errno; reading clears it.",
        settable=False, listed=False),
    row("type", "SO_TYPE", "int", "any", "The socket's type, such as SOCK_STREAM.", settable=False),
    row("domain", "SO_DOMAIN", "int", "any", "The socket's address family.", settable=False, platform="Linux 2.6.32"),
    row("protocol", "SO_PROTOCOL", "int", "any", "The socket's protocol, such as IPPROTO_TCP.",
        settable=False, platform="Linux 2.6.32, FreeBSD"),
    row("accepting", "SO_ACCEPTCONN", "bool", "any", "Whether the socket listens.", settable=False),
    row("cookie", "SO_COOKIE", "int", "any", "A number that no other socket of this machine has.",
        size=8, maximum=2**64 - 1, settable=False, platform="Linux 4.12"),
    row("namespace_cookie", "SO_NETNS_COOKIE", "int", "any", "A number that no other network namespace has.",
        size=8, maximum=2**64 - 1, settable=False, platform="Linux 5.14"),
)  # fmt: skip

_UNIX_ROWS: Final = (
    row("pass_credentials", "SO_PASSCRED", "bool", "unix", "Tell with each message who sent it (SCM_CREDENTIALS).",
        page="unix(7)", platform="Linux 2.2"),
    row("pass_security", "SO_PASSSEC", "bool", "unix", "Tell with each message its sender's security label.",
        page="unix(7)", platform="Linux 2.6.18"),
    row("pass_rights", "SO_PASSRIGHTS", "bool", "unix", "Take descriptors that peers pass; False refuses the message.",
        page="unix(7)", platform="Linux 6.16"),
    row("receive_unread", "SO_INQ", "bool", "unix", "Tell with each read how much is left (SCM_INQ).",
        page="unix(7)", platform="Linux 6.17", readable=False),
    row("peer_credentials", "SO_PEERCRED", "numbers", "unix",
        "Process, user and group of the peer, as they were when it connected.",
        page="unix(7)", layout="iII", settable=False, platform="Linux 2.2"),
    row("peer_groups", "SO_PEERGROUPS", "numbers", "unix", "Further groups of the peer, when it connected.",
        page="unix(7)", layout="I*", settable=False, platform="Linux 4.13",
        hint="it is known once the socket is connected"),
    row("peer_security", "SO_PEERSEC", "str", "any", "The peer's security label, where SELinux or the like is on.",
        page="unix(7)", maximum=1023, settable=False, platform="Linux 2.6.2"),
)  # fmt: skip

_VSOCK_BUFFER: Final = {"unit": "bytes", "size": 8, "maximum": 2**64 - 1}

_VSOCK_ROWS: Final = (
    row("vsock_buffer", "SO_VM_SOCKETS_BUFFER_SIZE", "int", "vsock", "Size of the buffer between the two machines.",
        platform="Linux 3.9", **_VSOCK_BUFFER),
    row("vsock_buffer_minimum", "SO_VM_SOCKETS_BUFFER_MIN_SIZE", "int", "vsock", "The least that vsock_buffer can be.",
        platform="Linux 3.9", **_VSOCK_BUFFER),
    row("vsock_buffer_maximum", "SO_VM_SOCKETS_BUFFER_MAX_SIZE", "int", "vsock", "The most that vsock_buffer can be.",
        platform="Linux 3.9", **_VSOCK_BUFFER),
    row("vsock_connect_timeout", "SO_VM_SOCKETS_CONNECT_TIMEOUT", "duration", "vsock",
        "How long connecting may take.", unit="s", platform="Linux 3.9"),
)  # fmt: skip

_PACKET_ROWS: Final = (
    row("auxiliary_data", "PACKET_AUXDATA", "bool", "packet", "Tell with each packet its length, offsets and VLAN.",
        platform="Linux 2.6.21"),
    row("original_device", "PACKET_ORIGDEV", "bool", "packet",
        "Tell the interface that a packet came in by, not the bond or bridge above it.", platform="Linux 2.6.22"),
    row("packet_statistics", "PACKET_STATISTICS", "numbers", "packet",
        "Packets that came and packets that were dropped since it was last read; reading starts again at 0.",
        layout="II", settable=False, listed=False, platform="Linux 2.4"),
    row("virtio_header", "PACKET_VNET_HDR", "bool", "packet", "Each packet starts with a virtio_net header.",
        platform="Linux 2.6.34"),
    row("virtio_header_size", "PACKET_VNET_HDR_SZ", "int", "packet", "Length of that header; 0 is none.",
        unit="bytes", maximum=12, platform="Linux 6.4", hint="it is 0, 10 or 12"),
    row("packet_timestamp", "PACKET_TIMESTAMP", "flags", "packet", "Which clock stamps packets in a ring.",
        choices=_TIMESTAMPING, platform="Linux 2.6.36"),
    row("fanout", "PACKET_FANOUT", "int", "packet",
        "Share the packets with other sockets: group number, and how to share in the upper 16 bits; bind before it.",
        maximum=UNSIGNED, platform="Linux 3.1",
        hint="the socket must be bound, and the group's way of sharing the same"),
    row("fanout_rollovers", "PACKET_ROLLOVER_STATS", "numbers", "packet",
        "Packets given to another socket of the fanout as this one was full: all, of one flow, in vain.",
        layout="QQQ", settable=False, platform="Linux 4.2", hint="only a fanout that rolls over counts"),
    row("bypass_queue", "PACKET_QDISC_BYPASS", "bool", "packet", "Send past the queueing discipline (tc).",
        platform="Linux 3.14"),
    row("ignore_outgoing", "PACKET_IGNORE_OUTGOING", "bool", "packet", "Do not receive what this machine sends.",
        platform="Linux 4.20"),
)  # fmt: skip

OPTIONS: Final[Mapping[str, Option]] = MappingProxyType(
    {each.name: each for each in (*_SOCKET_ROWS, *_UNIX_ROWS, *INTERNET_ROWS, *_VSOCK_ROWS, *_PACKET_ROWS)}
)
"""The table, by name."""
