"""Portico without asyncio: for threads, scripts and the interactive prompt.

    from portico import blocking

    with blocking.connect("tcp://example.com:7") as stream:
        stream.send(b"hello")
        print(stream.recv(timeout=5))

Every call returns when it is done. Behind them all is one event loop in a daemon thread, which starts with the first
call and ends with the program, or by `shutdown()`; objects may be used by any number of threads.

What all calls have in common:

- `timeout`: seconds, None (the default) for no end. TimeoutError says that nothing was received, or sent, and the
  object can be used as before. With `timeout=0` a call looks once.
- `wait=False`: look once, and raise WouldBlock where there is nothing, or no room.
- Ctrl-C ends the wait in the main thread by KeyboardInterrupt, with the same promise as a timeout.
- After os.fork() the child has a loop of its own; what it inherited raises ClosedError.
"""

from typing import TYPE_CHECKING

from portico.blocking.client import connect as connect
from portico.blocking.client import name_of as name_of
from portico.blocking.client import reconnecting as reconnecting
from portico.blocking.client import resolve as resolve
from portico.blocking.loop import shutdown as shutdown
from portico.blocking.opening import adopt as adopt
from portico.blocking.opening import datagrams as datagrams
from portico.blocking.opening import memory_pair as memory_pair
from portico.blocking.opening import open_fifo as open_fifo
from portico.blocking.opening import socketpair as socketpair
from portico.blocking.selecting import select as select
from portico.blocking.serving import BlockingServer as BlockingServer
from portico.blocking.serving import serve as serve
from portico.transports.datagram_face import BlockingDatagrams as BlockingDatagrams
from portico.transports.faces import BlockingChannel as BlockingChannel
from portico.transports.faces import BlockingStream as BlockingStream

if TYPE_CHECKING:
    from portico.blocking.fetching import BlockingFetched as BlockingFetched
    from portico.blocking.fetching import fetch as fetch
    from portico.websocket.face import BlockingWebSocket as BlockingWebSocket

_ON_DEMAND = {
    "BlockingFetched": "portico.blocking.fetching",
    "BlockingWebSocket": "portico.websocket.face",
    "fetch": "portico.blocking.fetching",
}
"""What needs the parts that speak HTTP, and where it is."""


def __getattr__(name: str) -> object:
    """Import what is in `_ON_DEMAND` when it is asked for."""
    import importlib

    room = _ON_DEMAND.get(name)
    if room is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(importlib.import_module(room), name)
    globals()[name] = value
    return value
