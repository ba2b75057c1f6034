"""The numbers of socket options and their levels, as setsockopt(2) takes them."""

import os
import socket
import sys
from typing import Final

__all__ = ["place_of"]

# Linux numbers that Python's socket module of some version lacks: asm-generic/socket.h, and linux/ tcp.h, in.h, in6.h,
# udp.h, vm_sockets.h, if_packet.h, icmp.h, icmpv6.h.
_LINUX_NUMBERS: Final = {
    "SO_NO_CHECK": 11,
    "SO_PRIORITY": 12,
    "SO_TIMESTAMP": 29,
    "SO_SNDBUFFORCE": 32,
    "SO_RCVBUFFORCE": 33,
    "SO_TIMESTAMPNS": 35,
    "SO_MARK": 36,
    "SO_TIMESTAMPING": 37,
    "SO_RXQ_OVFL": 40,
    "SO_WIFI_STATUS": 41,
    "SO_PEEK_OFF": 42,
    "SO_NOFCS": 43,
    "SO_LOCK_FILTER": 44,
    "SO_SELECT_ERR_QUEUE": 45,
    "SO_BUSY_POLL": 46,
    "SO_MAX_PACING_RATE": 47,
    "SO_INCOMING_CPU": 49,
    "SO_CNX_ADVICE": 53,
    "SO_MEMINFO": 55,
    "SO_INCOMING_NAPI_ID": 56,
    "SO_COOKIE": 57,
    "SO_PEERGROUPS": 59,
    "SO_ZEROCOPY": 60,
    "SO_TXTIME": 61,
    "SO_BINDTOIFINDEX": 62,
    "SO_PREFER_BUSY_POLL": 69,
    "SO_BUSY_POLL_BUDGET": 70,
    "SO_NETNS_COOKIE": 71,
    "SO_BUF_LOCK": 72,
    "SO_RESERVE_MEM": 73,
    "SO_TXREHASH": 74,
    "SO_RCVMARK": 75,
    "SO_RCVPRIORITY": 82,
    "SO_PASSRIGHTS": 83,
    "SO_INQ": 84,
    "TCP_CONGESTION": 13,
    "TCP_THIN_LINEAR_TIMEOUTS": 16,
    "TCP_THIN_DUPACK": 17,
    "TCP_USER_TIMEOUT": 18,
    "TCP_FASTOPEN": 23,
    "TCP_NOTSENT_LOWAT": 25,
    "TCP_CC_INFO": 26,
    "TCP_SAVE_SYN": 27,
    "TCP_SAVED_SYN": 28,
    "TCP_FASTOPEN_CONNECT": 30,
    "TCP_FASTOPEN_KEY": 33,
    "TCP_FASTOPEN_NO_COOKIE": 34,
    "TCP_INQ": 36,
    "TCP_TX_DELAY": 37,
    "TCP_IS_MPTCP": 43,
    "TCP_RTO_MAX_MS": 44,
    "TCP_RTO_MIN_US": 45,
    "TCP_DELACK_MAX_US": 46,
    "IP_ROUTER_ALERT": 5,
    "IP_PKTINFO": 8,
    "IP_MTU_DISCOVER": 10,
    "IP_RECVERR": 11,
    "IP_RECVTTL": 12,
    "IP_RECVTOS": 13,
    "IP_MTU": 14,
    "IP_FREEBIND": 15,
    "IP_PASSSEC": 18,
    "IP_TRANSPARENT": 19,
    "IP_RECVORIGDSTADDR": 20,
    "IP_MINTTL": 21,
    "IP_NODEFRAG": 22,
    "IP_CHECKSUM": 23,
    "IP_BIND_ADDRESS_NO_PORT": 24,
    "IP_RECVFRAGSIZE": 25,
    "IP_RECVERR_RFC4884": 26,
    "IP_MULTICAST_ALL": 49,
    "IP_UNICAST_IF": 50,
    "IP_LOCAL_PORT_RANGE": 51,
    "IPV6_FLOWINFO": 11,
    "IPV6_ROUTER_ALERT": 22,
    "IPV6_MTU_DISCOVER": 23,
    "IPV6_MTU": 24,
    "IPV6_RECVERR": 25,
    "IPV6_MULTICAST_ALL": 29,
    "IPV6_ROUTER_ALERT_ISOLATE": 30,
    "IPV6_RECVERR_RFC4884": 31,
    "IPV6_FLOWINFO_SEND": 33,
    "IPV6_HDRINCL": 36,
    "IPV6_AUTOFLOWLABEL": 70,
    "IPV6_ADDR_PREFERENCES": 72,
    "IPV6_MINHOPCOUNT": 73,
    "IPV6_RECVORIGDSTADDR": 74,
    "IPV6_TRANSPARENT": 75,
    "IPV6_UNICAST_IF": 76,
    "IPV6_RECVFRAGSIZE": 77,
    "IPV6_FREEBIND": 78,
    "UDP_CORK": 1,
    "UDP_ENCAP": 100,
    "UDP_NO_CHECK6_TX": 101,
    "UDP_NO_CHECK6_RX": 102,
    "UDP_SEGMENT": 103,
    "UDP_GRO": 104,
    "SO_VM_SOCKETS_CONNECT_TIMEOUT": 6,
    "PACKET_STATISTICS": 6,
    "PACKET_AUXDATA": 8,
    "PACKET_ORIGDEV": 9,
    "PACKET_VNET_HDR": 15,
    "PACKET_TIMESTAMP": 17,
    "PACKET_FANOUT": 18,
    "PACKET_QDISC_BYPASS": 20,
    "PACKET_ROLLOVER_STATS": 21,
    "PACKET_IGNORE_OUTGOING": 23,
    "PACKET_VNET_HDR_SZ": 24,
    "ICMP_FILTER": 1,
    "ICMPV6_FILTER": 1,
}
_OWN_NUMBERS: Final = ("alpha", "mips", "parisc", "sparc")  # machines that do not use the generic SO_ numbers


def _number(constant: str) -> int | None:
    number: int | None = getattr(socket, constant, None)
    if number is None and constant == "TCP_KEEPIDLE":
        number = getattr(socket, "TCP_KEEPALIVE", None)  # its name on macOS
    if number is None and sys.platform == "linux":
        if constant.startswith("SO_") and os.uname().machine.startswith(_OWN_NUMBERS):
            return None
        return _LINUX_NUMBERS.get(constant)
    return number


# linux/socket.h has those that Python's socket module lacks.
_LEVELS: Final[dict[str, tuple[int, str]]] = {
    "SO": (socket.SOL_SOCKET, "socket(7)"),
    "TCP": (socket.IPPROTO_TCP, "tcp(7)"),
    "UDP": (socket.IPPROTO_UDP, "udp(7)"),
    "IP": (socket.IPPROTO_IP, "ip(7)"),
    "IPV6": (socket.IPPROTO_IPV6, "ipv6(7)"),
    "ICMP": (255, "raw(7)"),  # SOL_RAW
    "ICMPV6": (socket.IPPROTO_ICMPV6, "raw(7)"),
    "PACKET": (263, "packet(7)"),  # SOL_PACKET
    "VSOCK": (int(getattr(socket, "AF_VSOCK", -1)), "vsock(7)"),
}


def place_of(constant: str) -> tuple[int, int | None, str]:
    """Return level, number and manual page of a constant such as "SO_KEEPALIVE".

    The number is None where this platform does not have it."""
    level, page = _LEVELS["VSOCK" if constant.startswith("SO_VM_") else constant.partition("_")[0]]
    return level, _number(constant) if level >= 0 else None, page
