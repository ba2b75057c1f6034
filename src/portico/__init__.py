"""Portico: every socket behind one front door.

The house, from the ground up; a room imports only rooms above it in this list:

    errors, schemes, address, options, interfaces, clock     names: what everything else speaks about
    _core        the native engine: hub, task driver, wires, packet ports, codecs, connections, frames of WebSockets
                 (imports errors only)
    codecs       messages in bytes, no I/O
    protocols    what is said beside the messages: PROXY header, HTTP/1.1, handshakes of WebSockets, no I/O
    transports   sockets of the operating system: resolve, dial, listen, TLS, packets, ancillary data, readiness
    client       connect, retry, reconnect, proxies
    server       Service, limits, drain, groups, Switch
    websocket    WebSockets: settings, client, channel; a handler as an ASGI application (imported on request)
    web          Door, files, health, metrics, CORS, fetch; ASGI applications behind a door (imported on request)
    blocking     the same for threads and the interactive prompt (imported on request)
    discovery    announcing and finding servers on the local network (imported on request)
    tools        the command `portico`

Every public name is exported here.
"""

from typing import TYPE_CHECKING

from portico._core import Packet as Packet
from portico.address import Address as Address
from portico.address import Scheme as Scheme
from portico.address import register_scheme as register_scheme
from portico.client.connect import connect as connect
from portico.client.reconnecting import reconnecting as reconnecting
from portico.client.retry import Retry as Retry
from portico.codecs import Codec as Codec
from portico.codecs import LengthPrefix as LengthPrefix
from portico.codecs import Lines as Lines
from portico.codecs import Message as Message
from portico.codecs import Messages as Messages
from portico.codecs import Netstrings as Netstrings
from portico.codecs import Records as Records
from portico.errors import AddressError as AddressError
from portico.errors import Attempt as Attempt
from portico.errors import BindError as BindError
from portico.errors import BusyError as BusyError
from portico.errors import ClosedError as ClosedError
from portico.errors import ConfigurationError as ConfigurationError
from portico.errors import ConnectError as ConnectError
from portico.errors import DeliveryError as DeliveryError
from portico.errors import EndOfStream as EndOfStream
from portico.errors import LimitError as LimitError
from portico.errors import MessageTooLarge as MessageTooLarge
from portico.errors import PorticoError as PorticoError
from portico.errors import PrivilegeError as PrivilegeError
from portico.errors import ProtocolError as ProtocolError
from portico.errors import ProxyError as ProxyError
from portico.errors import ResolveError as ResolveError
from portico.errors import StatusError as StatusError
from portico.errors import TLSError as TLSError
from portico.errors import UnsupportedError as UnsupportedError
from portico.errors import WouldBlock as WouldBlock
from portico.interfaces import Lifespan as Lifespan
from portico.interfaces import Pollable as Pollable
from portico.interfaces import Resolver as Resolver
from portico.server.group import Group as Group
from portico.server.group import GroupStats as GroupStats
from portico.server.group import Membership as Membership
from portico.server.limits import Limits as Limits
from portico.server.running import run as run
from portico.server.service import Server as Server
from portico.server.service import Service as Service
from portico.server.service import serve as serve
from portico.server.stats import Stats as Stats
from portico.transports.connection import Channel as Channel
from portico.transports.connection import Credentials as Credentials
from portico.transports.connection import State as State
from portico.transports.connection import Stream as Stream
from portico.transports.connection import memory_pair as memory_pair
from portico.transports.faces import BlockingChannel as BlockingChannel
from portico.transports.faces import BlockingStream as BlockingStream
from portico.transports.info import Info as Info
from portico.transports.resolve import SystemResolver as SystemResolver
from portico.transports.resolve import name_of as name_of
from portico.transports.resolve import resolve as resolve

if TYPE_CHECKING:
    from portico.client.proxies import Proxy as Proxy
    from portico.options import OPTIONS as OPTIONS
    from portico.protocols.deflate import Deflate as Deflate
    from portico.protocols.proxy_header import ProxyHeader as ProxyHeader
    from portico.server.switch import Switch as Switch
    from portico.transports.adopting import adopt as adopt
    from portico.transports.adopting import socketpair as socketpair
    from portico.transports.ancillary import TOS as TOS
    from portico.transports.ancillary import TTL as TTL
    from portico.transports.ancillary import Descriptors as Descriptors
    from portico.transports.ancillary import Dropped as Dropped
    from portico.transports.ancillary import PacketInfo as PacketInfo
    from portico.transports.ancillary import RawAncillary as RawAncillary
    from portico.transports.ancillary import Timestamp as Timestamp
    from portico.transports.ancillary import Truncated as Truncated
    from portico.transports.datagram_face import BlockingDatagrams as BlockingDatagrams
    from portico.transports.datagrams import Datagrams as Datagrams
    from portico.transports.datagrams import DatagramsStats as DatagramsStats
    from portico.transports.datagrams import datagrams as datagrams
    from portico.transports.diag import SocketEntry as SocketEntry
    from portico.transports.files import open_fifo as open_fifo
    from portico.transports.poller import Events as Events
    from portico.transports.poller import Key as Key
    from portico.transports.poller import Poller as Poller
    from portico.transports.socket_list import list_sockets as list_sockets
    from portico.transports.tls import TLS as TLS
    from portico.transports.tls import TLSInfo as TLSInfo
    from portico.web.cors import CORS as CORS
    from portico.web.door import Door as Door
    from portico.web.fetch import fetch as fetch
    from portico.web.fetched import Fetched as Fetched
    from portico.web.request import BlockingRequest as BlockingRequest
    from portico.web.request import Request as Request
    from portico.web.response import Response as Response
    from portico.websocket.channel import WebSocket as WebSocket
    from portico.websocket.face import BlockingWebSocket as BlockingWebSocket
    from portico.websocket.settings import WebSocketSettings as WebSocketSettings

__version__ = "0.1.0"

_ON_DEMAND = {
    "OPTIONS": "portico.options",
    "BlockingDatagrams": "portico.transports.datagram_face",
    "BlockingRequest": "portico.web.request",
    "BlockingWebSocket": "portico.websocket.face",
    "adopt": "portico.transports.adopting",
    "CORS": "portico.web.cors",
    "datagrams": "portico.transports.datagrams",
    "Datagrams": "portico.transports.datagrams",
    "DatagramsStats": "portico.transports.datagrams",
    "Deflate": "portico.protocols.deflate",
    "Descriptors": "portico.transports.ancillary",
    "Door": "portico.web.door",
    "Dropped": "portico.transports.ancillary",
    "Events": "portico.transports.poller",
    "fetch": "portico.web.fetch",
    "Fetched": "portico.web.fetched",
    "Key": "portico.transports.poller",
    "list_sockets": "portico.transports.socket_list",
    "open_fifo": "portico.transports.files",
    "PacketInfo": "portico.transports.ancillary",
    "Poller": "portico.transports.poller",
    "Proxy": "portico.client.proxies",
    "ProxyHeader": "portico.protocols.proxy_header",
    "RawAncillary": "portico.transports.ancillary",
    "Request": "portico.web.request",
    "Response": "portico.web.response",
    "Switch": "portico.server.switch",
    "WebSocket": "portico.websocket.channel",
    "SocketEntry": "portico.transports.diag",
    "socketpair": "portico.transports.adopting",
    "Timestamp": "portico.transports.ancillary",
    "TLS": "portico.transports.tls",
    "TLSInfo": "portico.transports.tls",
    "TOS": "portico.transports.ancillary",
    "Truncated": "portico.transports.ancillary",
    "TTL": "portico.transports.ancillary",
    "WebSocketSettings": "portico.websocket.settings",
}
"""What takes long to import and only some need, and where it is."""


_PACKAGES = ("blocking", "discovery", "websocket")
"""Parts whose names are used with theirs before: `portico.blocking.connect`."""


def __getattr__(name: str) -> object:
    """Import what is in `_ON_DEMAND` or `_PACKAGES` when it is asked for."""
    import importlib

    if name in _PACKAGES:
        return importlib.import_module(f"portico.{name}")
    room = _ON_DEMAND.get(name)
    if room is None:
        raise AttributeError(f"module 'portico' has no attribute {name!r}")
    value: object = getattr(importlib.import_module(room), name)
    globals()[name] = value
    return value
