"""What was asked for with `Service.listen`, and whether it can work."""

import importlib
import inspect
import socket as _socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

from portico._core import Codec
from portico.address import SCHEMES, Address
from portico.errors import ConfigurationError, UnsupportedError
from portico.server.admission import Admission
from portico.server.limits import Limits
from portico.server.stats import Stats
from portico.transports.listen import BACKLOG

if TYPE_CHECKING:
    from portico.transports.tls import TLS
    from portico.websocket.settings import WebSocketSettings

Handler = Callable[..., object]

STREAMS = ("tcp", "tls", "unix", "vsock", "mem")
"""Schemes whose connections are Streams, or Channels with a codec."""
PEERS = ("udp", "unixgram")
"""Schemes whose peers get a Channel each, or whose packets all go to one handler."""
PACKETS = (*PEERS, "raw", "packet")
"""Schemes that `packets=` takes."""


@dataclass(frozen=True, slots=True)
class ListenerSpec:
    """What was asked for with `Service.listen`."""

    address: Address
    handler: Handler
    codec: Codec[Any] | None
    tls: "TLS | None"
    limits: Limits
    allow: Sequence[str] | None
    deny: Sequence[str] | None
    options: Mapping[str, object] | None
    mode: int | None
    owner: tuple[int, int] | None
    backlog: int = BACKLOG
    proxied_by: Sequence[str] | None = None
    wants_packets: bool = False
    """Whether `handler` is that of `packets=`."""
    socket: _socket.socket | None = None
    """The socket that exists already, in place of one at `address`."""
    url: Address | None = None
    """What is served upon the connections of `address`, where that is more than they are."""
    upon: "tuple[Handler, WebSocketSettings | None] | None" = None
    """What was given for that: `handler` was made of it."""

    @property
    def name(self) -> Address:
        """The address as it was asked for."""
        return self.url or self.address

    def changed(self, **settings: Any) -> Self:
        """Return one with other `settings`, what serves its `url` made anew by them.

        :raises ConfigurationError: something that does not fit"""
        after = replace(self, **settings)
        if after.url is None or after.upon is None:
            return after
        handler, websocket = after.upon
        return replace(after, handler=served(after.url, handler, limits=after.limits, websocket=websocket))

    def check(self) -> None:
        """:raises ConfigurationError: something that cannot work
        :raises UnsupportedError: nothing can be served there"""
        scheme = self.address.scheme
        if self.wants_packets:
            self._check_packets()
        elif scheme not in (*STREAMS, "unixpacket", *PEERS):
            also = "; with packets=handler it can" if scheme in PACKETS else ""
            known = ", ".join((*STREAMS, "unixpacket", *PEERS))
            raise UnsupportedError(
                f"cannot serve {self.name}: there are no connections at {scheme}:{also}; known: {known}"
            )
        self._check_handler()
        if self.codec is not None and not isinstance(self.codec, Codec):
            raise ConfigurationError(f"the codec of {self.address} must be a Codec such as Lines(), not {self.codec!r}")
        if self.codec is not None and self.codec.for_records and SCHEMES[scheme].kind == "stream":
            raise ConfigurationError(
                f"{self.address} carries bytes in a row: it needs a codec such as Lines(), not {self.codec!r}"
            )
        if scheme == "tls" and self.tls is None:
            raise ConfigurationError(f"{self.name} needs tls=TLS(certificate=…, key=…)")
        if (self.mode is not None or self.owner is not None) and SCHEMES[scheme].parts != "path":
            raise ConfigurationError(f"mode and owner are for Unix sockets, not for {self.address}")
        if SCHEMES[scheme].kind != "stream" and (self.tls is not None or self.proxied_by is not None):
            what = "tls" if self.tls is not None else "proxied_by"
            raise ConfigurationError(f"{what} is for streams of bytes, not for {self.address}")
        if self.tls is not None:
            self.tls.server_context()
        Admission(self.limits, Stats(), self.allow, self.deny)
        if self.proxied_by is not None:
            from portico.server.proxied import trusted_rules

            trusted_rules(self.proxied_by)

    def _check_handler(self) -> None:
        if not callable(self.handler):
            raise ConfigurationError(f"the handler of {self.name} must be a function, not {self.handler!r}")
        if inspect.isasyncgenfunction(self.handler) or inspect.isgeneratorfunction(self.handler):
            raise ConfigurationError(f"the handler of {self.address} must not yield: a generator never runs by itself")

    def _check_packets(self) -> None:
        if self.address.scheme not in PACKETS:
            raise ConfigurationError(f"packets= is for {', '.join(PACKETS)}, not for {self.address}")
        if self.codec is not None:
            raise ConfigurationError(f"packets= hands over whole packets: {self.address} takes no codec with it")


def served(address: Address, handler: Handler, **settings: Any) -> Handler:
    """Return the handler of connections that speaks what `address` names, and calls `handler` for what is upon it."""
    module, _, function = SCHEMES[address.scheme].served_by.partition(":")
    made: Handler = getattr(importlib.import_module(module), function)(address, handler, **settings)
    return made
