"""Taking the default peer away from a UDP channel."""

from typing import Any

from portico._core import PeerWire, PortWire, Settings
from portico.errors import UnsupportedError
from portico.transports.connection import Channel
from portico.transports.datagrams import HIGH_WATER, MAX_PACKETS, READ_BUFFER, Datagrams
from portico.transports.packets import SocketNames, disconnect, let_tell, port_of


def disconnected(channel: Channel[Any]) -> Datagrams:
    """See `Channel.disconnect`."""
    wire = channel.wire
    if channel.scheme != "udp" or not isinstance(wire, PortWire) or isinstance(wire, PeerWire):
        raise UnsupportedError("only a UDP channel that connect() made has a default peer to take away")
    names = SocketNames(channel.scheme, channel.socket)
    channel.drop_received()
    sock: Any = channel.take_socket()[0]
    disconnect(sock)
    let_tell(sock)
    port = port_of(channel.hub, sock, names, is_connected=False)
    port.answers_from_source = names.bound().is_wildcard
    port.coalesces = True
    settings = Settings(read_limit=READ_BUFFER, high_water=HIGH_WATER)
    return Datagrams(PortWire(port, wire.max_record), settings, scheme=channel.scheme, max_packets=MAX_PACKETS)
