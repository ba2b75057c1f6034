"""What services are called and say of themselves: types, instance names, TXT records (RFC 6763)."""

import re
import secrets
import socket
from collections.abc import Mapping
from typing import Final

from portico.address import SCHEMES
from portico.errors import ConfigurationError

LOCAL: Final = ".local."

MAX_NAME: Final = 63
"""Bytes in the name of an instance: a DNS label (RFC 6763 section 4.1.1)."""

MAX_PROPERTY: Final = 255
"""Bytes in one `key=value` (RFC 6763 section 6.1)."""

MAX_PROPERTIES: Final = 1300
"""Bytes in all of them, so that an answer fits an Ethernet packet (RFC 6763 section 6.2)."""

SCHEME: Final = "scheme"
"""The key under which an announcement tells the scheme of its address."""

_OWN_TYPE = re.compile(r"_(?=[^.]*[a-z])(?!.*--)[a-z0-9](?:[a-z0-9-]{0,13}[a-z0-9])?\._(?:tcp|udp)", re.I)
_ANY_TYPE = re.compile(r"_(?=[^.]*[a-z])(?![^.]*--)(?!-)[a-z0-9_-]{1,62}(?<!-)\._(?:tcp|udp)", re.I)
_KEY = re.compile(r"[ -<>-~]+")  # printable ASCII but "=" (RFC 6763 section 6.4)


def service_type(text: str, *, own: bool) -> str:
    """Return a service type such as `_http._tcp`, without the domain `.local`.

    :param own: it is to be announced, and must keep to RFC 6335 section 5.1; what others announce often does not.
    :raises ConfigurationError: it is none"""
    short = text.removesuffix(".").removesuffix(".local")
    if not (_OWN_TYPE if own else _ANY_TYPE).fullmatch(short):
        raise ConfigurationError(
            f"{text!r} is no service type; write _name._tcp or _name._udp, with a name of at most 15 letters, digits "
            "and single hyphens"
        )
    return short


def is_for(scheme: str, service_type: str) -> bool:
    """Whether addresses of `scheme` are announced under `service_type`: packets under `_udp`, streams under `_tcp`
    (RFC 6763 section 7)."""
    known = SCHEMES.get(scheme)
    return known is not None and known.is_internet and (known.kind == "datagram") == is_udp(service_type)


def is_udp(service_type: str) -> bool:
    """Whether it is of `_udp`, which stands for everything but TCP."""
    return service_type.lower().endswith("._udp")


def checked_name(name: str) -> str:
    """Return the name of an instance, what people get to see.

    :raises ConfigurationError: it cannot be announced"""
    if not name or any(not letter.isprintable() for letter in name):
        raise ConfigurationError(f"{name!r} cannot be announced: a name needs letters, and none that cannot be seen")
    if "." in name:
        raise ConfigurationError(
            f"{name!r} cannot be announced: leave out the dots (the zeroconf library splits at them)"
        )
    if len(name.encode()) > MAX_NAME:
        raise ConfigurationError(
            f"{name!r} cannot be announced: it has {len(name.encode())} bytes, {MAX_NAME} are allowed"
        )
    return name


def default_name() -> str:
    """The name of this machine, as far as it can be one of an instance."""
    return socket.gethostname().partition(".")[0] or "unnamed"


def own_host() -> str:
    """Return a host name that is this announcement's alone.

    Not the machine's name: its address records are those of the mDNS daemon, who would rename the machine when it heard
    others (RFC 6762 section 9). Chance, as the library does not probe for host names."""
    label = re.sub(r"[^A-Za-z0-9-]", "", default_name())[:40].strip("-") or "host"
    return f"{label}-{secrets.token_hex(4)}{LOCAL}"


def written_properties(properties: Mapping[str, str | None]) -> dict[str, bytes | None]:
    """Return what goes into a TXT record; None is a key without a value.

    :raises ConfigurationError: a key or value cannot be in one, or all together are too long"""
    written: dict[str, bytes | None] = {}
    total = 0
    for key, value in properties.items():
        if not _KEY.fullmatch(key) or key.lower() in (each.lower() for each in written):
            raise ConfigurationError(f"the property {key!r} needs a key of ASCII letters without '=', and only once")
        try:
            data = None if value is None else value.encode(errors="surrogateescape")
        except UnicodeEncodeError:
            raise ConfigurationError(f"the property {key!r} has a value that is no text: {value!r}") from None
        size = len(key) + (0 if data is None else 1 + len(data))
        if size > MAX_PROPERTY:
            raise ConfigurationError(f"the property {key!r} has {size} bytes, {MAX_PROPERTY} are allowed")
        total += 1 + size
        written[key] = data
    if total > MAX_PROPERTIES:
        raise ConfigurationError(f"the properties have {total} bytes, {MAX_PROPERTIES} are allowed")
    return written


def read_properties(raw: Mapping[bytes, bytes | None]) -> dict[str, str | None]:
    """Return what a TXT record says, keys in lower case (they are alike in both cases), the first of each counts."""
    read: dict[str, str | None] = {}
    for key, value in raw.items():
        name = key.decode("ascii", "replace").lower()
        if _KEY.fullmatch(name):
            read.setdefault(name, None if value is None else value.decode(errors="surrogateescape"))
    return read
