"""The native core: hub, task driver, wires, codecs and connections. A leaf: it imports only `portico.errors`."""

import sys

from .channel import ChannelBase as ChannelBase
from .channel import send_all as send_all
from .codec import Codec as Codec
from .codec import LengthPrefix as LengthPrefix
from .codec import Lines as Lines
from .codec import Netstrings as Netstrings
from .codec import Records as Records
from .connection import Connection as Connection
from .datagrams import DatagramsBase as DatagramsBase
from .hub import Hub as Hub
from .hub import driven as driven
from .hub import hub_of as hub_of
from .loopport import LoopPort as LoopPort
from .loopwire import LoopWire as LoopWire
from .memory import memory_wires as memory_wires
from .packets import Endpoint as Endpoint
from .packets import Packet as Packet
from .packets import PacketPort as PacketPort
from .packets import PeerSet as PeerSet
from .packets import PeerWire as PeerWire
from .packets import PortWire as PortWire
from .queue import Queue as Queue
from .secure import TLSWire as TLSWire
from .sender import Settings as Settings
from .stream import StreamBase as StreamBase
from .wire import Wire as Wire

if sys.platform == "linux":
    from .control import Descriptors as Descriptors
    from .control import control_bytes as control_bytes
    from .epoll import Acceptor as Acceptor
    from .epoll import SocketWire as SocketWire
    from .epollport import NativePort as NativePort
