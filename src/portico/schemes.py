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
    """

    name: str
    kind: Literal["stream", "datagram", "seqpacket"] = "stream"
    secure: bool = False
    default_port: int | None = None
    parts: Literal["inet", "url", "protocol", "device", "cid", "path", "file", "name"] = "inet"

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
