"""What every request of a client says about whom it asks, and where a redirect leads; for `http` and `ws` alike."""

import base64
import re
from typing import Final
from urllib.parse import quote, urljoin

from portico.address import SCHEMES, Address
from portico.errors import AddressError, ConfigurationError, ProtocolError

__all__ = ["PRIVATE", "REDIRECTS", "authority", "authorization", "has_same_origin", "redirected"]

REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})  # RFC 9110, section 15.4
PRIVATE: Final = frozenset({"authorization", "cookie", "host", "proxy-authorization"})
"""Fields that are meant for one origin."""
SECURE: Final = frozenset({"https", "wss"})
LOCAL: Final = "localhost"
"""The host that a server on a Unix socket is asked for."""
MAX_SHOWN: Final = 200
"""Letters of a Location that an error quotes."""


def authority(address: Address) -> str:
    """Return whom a request is for, as Host has it (RFC 9110, section 7.2). A scope means nothing to others."""
    if SCHEMES[address.scheme].parts == "pathurl":
        return LOCAL
    host = f"[{address.host}]" if ":" in address.host else address.host
    return host if address.port == SCHEMES[address.scheme].default_port else f"{host}:{address.port}"


def authorization(credentials: tuple[str, str] | str) -> str:
    """Return the value of Authorization: Basic for a user and a password (RFC 7617), Bearer for a token (RFC 6750).

    :raises ConfigurationError: letters that neither can have"""
    if isinstance(credentials, str):
        if not re.fullmatch(r"[A-Za-z0-9._~+/-]+=*", credentials):
            raise ConfigurationError("credentials= is a user and a password as a pair, or a bearer token (RFC 6750)")
        return f"Bearer {credentials}"
    if len(credentials) != 2 or not all(isinstance(each, str) for each in credentials):
        raise ConfigurationError("credentials= is a user and a password as a pair, or a bearer token (RFC 6750)")
    user, password = credentials
    if ":" in user or not (user + password).isprintable():
        raise ConfigurationError("credentials= has a user without ':', and no control characters (RFC 7617, section 2)")
    return (
        f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"  # UTF-8, as its section 2.1 would have it
    )


def has_same_origin(one: Address, other: Address) -> bool:
    """Whether both are of the same server: RFC 6454, section 4."""
    return one.replace(path="/") == other.replace(path="/")


def redirected(address: Address, status: int, place: str) -> Address:
    """Return where a redirect leads that `address` answered with: RFC 9110, section 10.2.2.

    A WebSocket is sent on by `ws` and `http` URLs alike; a server on a Unix socket only within itself.

    :param place: the value of Location.
    :raises ProtocolError: it leads where no redirect must: to another kind of URL, or from TLS to none"""
    told = f"{address} answered {status} with {place[:MAX_SHOWN]!r}"
    family = "ws" if address.scheme.startswith("ws") else "http"
    local, secure = SCHEMES[address.scheme].parts == "pathurl", SCHEMES[address.scheme].secure
    base = f"http{'s' * secure}://{LOCAL if local else authority(address)}{address.path}"
    try:
        joined = urljoin(base, quote(place.encode("latin-1"), safe="%/:=&?~#+!$,;'@()*[]")).partition("#")[0]
        scheme, _, rest = joined.partition(":")
        if scheme.lower() not in ("http", "https", family, f"{family}s"):
            raise ProtocolError(f"{told}, which is no URL of {family} or {family}s")
        there = Address.parse(f"{family}{'s' * (scheme.lower() in SECURE)}:{rest}")
        if there.is_wildcard or not there.port:
            raise ProtocolError(f"{told}, where no server can be")
    except (AddressError, ValueError) as error:
        if isinstance(error, ProtocolError):
            raise
        raise ProtocolError(f"{told}, which is no URL that can be reached") from error
    if local:
        if there.scheme == family and authority(there) == LOCAL:
            return address.replace(path=there.path)
        raise ProtocolError(f"{told}: a Unix socket leads to no other server; connect to that URL if it is right")
    if secure and not SCHEMES[there.scheme].secure:
        raise ProtocolError(f"{told}: from TLS to none no redirect is followed; connect to that URL if it is right")
    if there.host == address.host and address.scope:
        there = there.replace(scope=address.scope, flow=address.flow)
    return there
