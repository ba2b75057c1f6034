"""What a `Proxy` is, how its URL reads, and which one the environment names."""

import ipaddress
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias
from urllib.parse import unquote

from portico.address import SCHEMES, Address
from portico.client.connect import default_tls
from portico.errors import ConfigurationError, PorticoError
from portico.transports.tls import TLS

__all__ = ["Proxies", "Proxy", "from_environment", "proxies_to"]

Proxies: TypeAlias = "Proxy | str | Sequence[Proxy | str] | None"

KINDS: Final[dict[str, tuple[Literal["socks4", "socks5", "http"], bool]]] = {
    "socks4": ("socks4", False),
    "socks4a": ("socks4", True),
    "socks5": ("socks5", False),
    "socks5h": ("socks5", True),
    "http": ("http", True),
}
"""What a scheme stands for: the protocol, and whether the proxy looks names up. `+tls` may follow each."""

SOCKS_PORT: Final = 1080
HTTP_PORT: Final = 80
HTTPS_PORT: Final = 443
MAX_CREDENTIAL: Final = 255
"""Bytes of a SOCKS5 username or password (RFC 1929, section 2)."""
FORM: Final = "socks5://user:password@host:port"


@dataclass(frozen=True)
class Proxy:
    """A proxy that carries connections: SOCKS4, SOCKS4a, SOCKS5 (RFC 1928, RFC 1929) or HTTP CONNECT (RFC 9110).

    :param kind: "socks4", "socks5" or "http".
    :param address: where it listens, `tcp` or `tls`.
    :param username: whom to log in as; for `socks4` the user id, for the others it needs a password.
    :param password: for `socks5` and `http` (basic authentication); without `tls` anybody on the way can read it.
    :param tls: how to speak TLS to the proxy itself; None: not at all. Default for an address with `tls`: `TLS()`.
    :param remote_names: the proxy looks up the names of whom to connect to; False: this machine does.
    :raises ConfigurationError: settings that no proxy can have."""

    kind: Literal["socks4", "socks5", "http"]
    address: Address
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: TLS | None = None
    remote_names: bool = True

    def __post_init__(self) -> None:
        if self.kind not in ("socks4", "socks5", "http"):
            raise ConfigurationError(f"a proxy is of the kind 'socks4', 'socks5' or 'http', not {self.kind!r}")
        address = Address.parse(self.address)
        if address.scheme not in ("tcp", "tls") or address.is_wildcard or not address.port:
            raise ConfigurationError(f"a proxy has a host and a port, such as tcp://proxy.example:1080, not {address}")
        if address.scheme == "tls" and self.tls is None:
            object.__setattr__(self, "tls", default_tls())
        if self.tls is not None:
            self.tls.name_for(address.host)
            address = address.replace(scheme="tls")
        object.__setattr__(self, "address", address)
        object.__setattr__(self, "username", self.username or None)
        object.__setattr__(self, "password", self.password or None)
        self._check_credentials()

    def _check_credentials(self) -> None:
        user, password = self.username, self.password
        if self.kind == "socks4":
            if password is not None:
                raise ConfigurationError("SOCKS4 knows no password; use socks5:// or socks5h://")
            if user is not None and (not user.isascii() or "\0" in user):
                raise ConfigurationError("the user id of a SOCKS4 proxy is ASCII without NUL")
            return
        if (user is None) != (password is None):
            raise ConfigurationError(f"a proxy's user and password go together: {FORM}")
        if user is None or password is None:
            return
        if self.kind == "http":
            if ":" in user:
                raise ConfigurationError("the user of an HTTP proxy cannot hold ':' (RFC 7617, section 2)")
        elif not all(each.isascii() and len(each) <= MAX_CREDENTIAL for each in (user, password)):
            raise ConfigurationError(f"user and password of a SOCKS5 proxy are {MAX_CREDENTIAL} ASCII letters at most")

    @classmethod
    def parse(cls, url: str, *, tls: TLS | None = None) -> "Proxy":
        """Read `SCHEME://[USER[:PASSWORD]@]HOST[:PORT]`, with %XX in user and password where needed.

        | scheme                | speaks       | who looks names up | port |
        |-----------------------|--------------|--------------------|------|
        | `socks4`, `socks4a`   | SOCKS4, 4a   | this machine; it   | 1080 |
        | `socks5`, `socks5h`   | SOCKS5       | this machine; it   | 1080 |
        | `http`                | HTTP CONNECT | it                 | 80   |
        | `https`               | the same over TLS to the proxy | it | 443 |
        | any with `+tls` behind, such as `socks5h+tls` | the same over TLS to the proxy | as without | as without |

        :param tls: how to speak TLS to a proxy with `https` or `+tls`; default: `TLS()`.
        :raises ConfigurationError: it is no such URL; no message shows the password."""
        name, colon, rest = url.partition("://")
        name = name.lower()
        base = "http" if name in ("https", "https+tls") else name.removesuffix("+tls")
        if not colon or base not in KINDS:
            known = ", ".join(f"{each}://" for each in (*KINDS, "https"))
            found = f", not with {name}://" if colon and re.fullmatch(r"[a-z][a-z0-9+.-]{0,20}", name) else ""
            raise ConfigurationError(f"the URL of a proxy begins with {known}{found}")
        secure = name != base
        if tls is not None and not secure:
            raise ConfigurationError(f"tls= is for proxies that speak TLS: https:// or {base}+tls://, not {name}://")
        kind, remote_names = KINDS[base]
        user, _, host = rest.rpartition("@")
        port = (HTTPS_PORT if name == "https" else HTTP_PORT) if kind == "http" else SOCKS_PORT
        if ":" not in host.rpartition("]")[2]:
            host = f"{host.removesuffix('/')}:{port}"
        try:
            address = Address.parse(f"tcp://{host.removesuffix('/')}")
            username, _, password = (unquote(each, errors="strict") for each in user.partition(":"))
        except (PorticoError, UnicodeDecodeError):  # whose text may show the password
            raise ConfigurationError(f"the URL of a proxy is {FORM}, with %XX for odd letters") from None
        if secure:
            address, tls = address.replace(scheme="tls"), tls or default_tls()
        return cls(kind, address, username, password, tls, remote_names)


def proxies_to(address: Address, proxy: Proxies, *, secure: bool) -> tuple[Proxy, ...]:
    """Return the proxies on the way to `address` that the setting `proxy` of `connect` means, the nearest first.

    :param secure: whether TLS is spoken with `address`.
    :raises ConfigurationError: they cannot be on this way."""
    scheme = SCHEMES[address.scheme]
    fits = scheme.kind == "stream" and scheme.parts == "inet"
    if proxy is None:
        return ()
    if proxy == "environment":
        chain = from_environment(address, secure=secure) if fits else ()
    else:
        given = [proxy] if isinstance(proxy, str | Proxy) else proxy
        chain = tuple(Proxy.parse(each) if isinstance(each, str) else each for each in given)
    if not chain:
        return ()
    if not fits:
        raise ConfigurationError(f"{address} cannot be reached through a proxy, which carries tcp and tls only")
    for hop, to in zip(chain, [*(each.address for each in chain[1:]), address], strict=True):
        if to.scope or to.flow:
            raise ConfigurationError(f"{to} has a scope or flow label, which means nothing to the proxy {hop.address}")
        if hop.kind == "socks4" and ":" in to.host:
            raise ConfigurationError(f"SOCKS4 knows no IPv6, so {hop.address} cannot connect to {to}; use socks5://")
    return chain


def from_environment(address: Address, *, secure: bool, environ: Mapping[str, str] = os.environ) -> tuple[Proxy, ...]:
    """Return the proxy to `address` that the environment names, as curl(1) reads it, or nothing.

    The first of these that is set and not empty counts: for TLS `https_proxy`, `HTTPS_PROXY`, then for everything
    `all_proxy`, `ALL_PROXY`. `http_proxy` is for requests of plain HTTP and never asked. A value without a scheme is
    an HTTP proxy. `no_proxy`, else `NO_PROXY`, is a list, by commas or spaces, of whom to connect to directly: a name
    with all names below it (a leading dot changes nothing), an IP address, a network such as 10.0.0.0/8, each with
    `:port` where only that port is meant, or `*` for everybody.

    :param secure: whether TLS is spoken with `address`.
    :raises ConfigurationError: the value is no URL of a proxy; the message names the variable."""
    variables = [*(("https_proxy", "HTTPS_PROXY") if secure else ()), "all_proxy", "ALL_PROXY"]
    name = next((each for each in variables if environ.get(each)), None)
    if name is None or _is_direct(address, environ.get("no_proxy") or environ.get("NO_PROXY") or ""):
        return ()
    url = environ[name]
    try:
        return (Proxy.parse(url if "://" in url else f"http://{url}"),)
    except ConfigurationError as error:
        raise ConfigurationError(f"the environment variable {name}: {error}") from None


def _is_direct(address: Address, exceptions: str) -> bool:
    """Whether `address` is in a list as NO_PROXY has it."""
    host = address.host.removesuffix(".")
    ip = ipaddress.ip_address(host) if address.is_numeric else None
    for entry in re.split(r"[\s,]+", exceptions.strip().lower()):
        match = re.fullmatch(r"(\[.*\]|[^:]*):(\d+)", entry)
        name, port = match.groups() if match else (entry, "")
        name = name.strip("[]").strip(".")
        if not name or (port and int(port) != address.port):
            continue
        if name == "*" or name == host or (ip is None and host.endswith(f".{name}")):
            return True
        if ip is not None and _holds(name, ip):
            return True
    return False


def _holds(network: str, ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    try:
        return ip in ipaddress.ip_network(network, strict=False)
    except ValueError:  # a name
        return False
