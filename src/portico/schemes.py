"""The schemes of addresses, one table: `SCHEMES`. What follows the colon of each is in `address_grammar`."""

import re
from dataclasses import dataclass
from typing import Literal

from portico.errors import ConfigurationError

__all__ = ["SCHEMES", "Scheme", "register_scheme"]


@dataclass(frozen=True, slots=True)
class Scheme:
    """What a scheme's name stands for.

    :ivar kind: bytes in order, packets, or packets in order over a connection.
    :ivar secure: whether TLS is part of it.
    :ivar default_port: the port when an address gives none; None makes the port a must.
    :ivar parts: the grammar behind the colon, see the top of `portico.address_grammar`.
    :ivar carrier: the scheme of the connection beneath, for protocols that are spoken upon one.
    :ivar served_by: "module:function" of what serves it, where that is not a plain connection; imported when needed, so
        that rooms below know nothing of those above them.
    :ivar opened_by: the same for connecting to it.
    """

    name: str
    kind: Literal["stream", "datagram", "seqpacket"] = "stream"
    secure: bool = False
    default_port: int | None = None
    parts: Literal["inet", "url", "protocol", "device", "cid", "path", "pathurl", "file", "name"] = "inet"
    carrier: str = ""
    served_by: str = ""
    opened_by: str = ""

    @property
    def is_internet(self) -> bool:
        """Whether its addresses have an IP address, or a name that stands for some."""
        return self.parts in ("inet", "url", "protocol")

    @property
    def is_path(self) -> bool:
        """Whether its addresses are a path or a name and nothing else."""
        return self.parts in ("path", "file", "name")


SCHEMES: dict[str, Scheme] = {}


def register_scheme(scheme: Scheme) -> None:
    """Make addresses with `scheme.name` parse; to do so again with the same facts changes nothing.

    :raises ConfigurationError: if it is no scheme name (RFC 3986 section 3.1, in lower case) or taken.
    """
    if not re.fullmatch(r"[a-z][a-z0-9+.-]*", scheme.name):
        raise ConfigurationError(f"{scheme.name!r} is no scheme name; use small letters, digits, '+', '.' and '-'")
    if SCHEMES.setdefault(scheme.name, scheme) != scheme:
        raise ConfigurationError(f"the scheme {scheme.name!r} is taken by {SCHEMES[scheme.name]}")


ETH_P_ALL = 0x0003  # linux/if_ether.h: every type

register_scheme(Scheme("tcp"))
register_scheme(Scheme("tls", secure=True))
register_scheme(Scheme("udp", kind="datagram"))
register_scheme(Scheme("unix", parts="path"))
register_scheme(Scheme("unixgram", kind="datagram", parts="path"))
register_scheme(Scheme("unixpacket", kind="seqpacket", parts="path"))
register_scheme(Scheme("mem", parts="name"))
register_scheme(Scheme("raw", kind="datagram", parts="protocol"))
register_scheme(Scheme("packet", kind="datagram", parts="device", default_port=ETH_P_ALL))
register_scheme(Scheme("vsock", parts="cid"))
register_scheme(Scheme("fifo", parts="file"))
register_scheme(Scheme("device", parts="file"))

_SERVED = "portico.web.listening:served"
_OPENED = "portico.websocket.client:opened"
for _name, _secure, _port, _opened in (
    ("ws", False, 80, _OPENED),
    ("wss", True, 443, _OPENED),
    ("http", False, 80, ""),
    ("https", True, 443, ""),
):
    _carrier = "tls" if _secure else "tcp"
    register_scheme(
        Scheme(
            _name,
            secure=_secure,
            default_port=_port,
            parts="url",
            carrier=_carrier,
            served_by=_SERVED,
            opened_by=_opened,
        )
    )
register_scheme(Scheme("ws+unix", parts="pathurl", carrier="unix", served_by=_SERVED, opened_by=_OPENED))
register_scheme(Scheme("http+unix", parts="pathurl", carrier="unix", served_by=_SERVED))
