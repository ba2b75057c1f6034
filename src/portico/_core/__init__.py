"""The native core: hub, task driver, wires, codecs and connections. A leaf: it imports only `portico.errors`."""

import sys

from .channel import ChannelBase as ChannelBase
from .channel import send_all as send_all
from .codec import Codec as Codec
from .codec import LengthPrefix as LengthPrefix
from .codec import Lines as Lines
from .codec import Netstrings as Netstrings
from .connection import Connection as Connection
from .connection import Settings as Settings
from .hub import Hub as Hub
from .hub import driven as driven
from .hub import hub_of as hub_of
from .loopwire import LoopWire as LoopWire
from .memory import memory_wires as memory_wires
from .queue import Queue as Queue
from .secure import TLSWire as TLSWire
from .stream import StreamBase as StreamBase
from .wire import Wire as Wire

if sys.platform == "linux":
    from .epoll import Acceptor as Acceptor
    from .epoll import SocketWire as SocketWire
