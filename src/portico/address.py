"""Where a socket lives: `tcp://[::1]:80`, `unix:/run/x.sock`, `udp://*:5353`, `mem:name`.

Which schemes there are, and what follows their colon, is one table: `SCHEMES`. Grammar of what follows:

    inet    //HOST:PORT  //:PORT  //*:PORT  //PORT       PORT: 0 to 65535, or a service name of this machine
    url     //HOST[:PORT][/PATH][?QUERY]                 the scheme knows its usual port
    path    /ABSOLUTE  ///ABSOLUTE  RELATIVE  @ABSTRACT  %XX stands for a byte; a `%` before anything else is itself
    name    NAME  //NAME                                 %XX as above

HOST is a name, `192.0.2.1`, `[2001:db8::1]`, `[fe80::1%eth0]`, `[fe80::1%eth0?flow=5]`, `<broadcast>`, or `*` (or
nothing, or nothing but a port) for every interface, which is one IPv6 socket that takes IPv4 too.
"""

import dataclasses
import ipaddress
import os
import re
import socket
import sys
from dataclasses import dataclass
from typing import Any, Literal, NoReturn, TypeAlias

from portico.errors import AddressError, ConfigurationError

__all__ = ["SCHEMES", "Address", "Scheme", "SockAddr", "register_scheme"]

SockAddr: TypeAlias = tuple[str, int] | tuple[str, int, int, int] | str

MAX_FLOW = 0xFFFFF  # RFC 8200 section 3: the flow label has 20 bits
MAX_SCOPE = 0xFFFFFFFF  # RFC 3493 section 3.3: sin6_scope_id is 32 bits wide
MAX_HOST, MAX_LABEL = 253, 63  # RFC 1035 section 2.3.4, less the length bytes and the root
AF_UNIX: socket.AddressFamily = getattr(socket, "AF_UNIX", socket.AF_UNSPEC)  # Windows has none
MAX_UNIX = (108 if sys.platform.startswith("linux") else 104) - 1  # unix(7): sun_path, less a NUL at one of its ends

_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
_NAME = _LETTERS | frozenset("0123456789-_")
_SERVICE = _NAME | frozenset("+.")
_UNNAMED = "<unnamed>"


@dataclass(frozen=True, slots=True)
class Scheme:
    """What a scheme's name stands for.

    :ivar kind: bytes in order, or packets.
    :ivar secure: whether TLS is part of it.
    :ivar default_port: the port when an address gives none; None makes the port a must.
    :ivar parts: the grammar behind the colon, see the top of this module.
    """

    name: str
    kind: Literal["stream", "datagram"] = "stream"
    secure: bool = False
    default_port: int | None = None
    parts: Literal["inet", "url", "path", "name"] = "inet"


SCHEMES: dict[str, Scheme] = {}


def register_scheme(scheme: Scheme) -> None:
    """Make addresses with `scheme.name` parse; to do so again with the same facts changes nothing.

    :raises ConfigurationError: if it is no scheme name (RFC 3986 section 3.1, in lower case) or taken.
    """
    if not re.fullmatch(r"[a-z][a-z0-9+.-]*", scheme.name):
        raise ConfigurationError(f"{scheme.name!r} is no scheme name; use small letters, digits, '+', '.' and '-'")
    if SCHEMES.setdefault(scheme.name, scheme) != scheme:
        raise ConfigurationError(f"the scheme {scheme.name!r} is taken by {SCHEMES[scheme.name]}")


register_scheme(Scheme("tcp"))
register_scheme(Scheme("tls", secure=True))
register_scheme(Scheme("udp", kind="datagram"))
register_scheme(Scheme("unix", parts="path"))
register_scheme(Scheme("mem", parts="name"))


@dataclass(frozen=True, slots=True)
class Address:
    """Where a socket lives; `Address.parse(str(address)) == address`.

    :ivar scheme: a name in `SCHEMES`.
    :ivar host: "" for every interface, an IP address as inet_ntop(3) writes it, or a name in lower case. A name with
        letters outside ASCII is kept in its IDNA 2003 form (`xn--...`), which is what is looked up.
    :ivar port: 0 to 65535, 0 for any free one; None for `unix` and `mem`.
    :ivar path: of `unix`: the path, "@name" if abstract, "" if the socket has none; the name of `mem`; path and
        query of a URL.
    :ivar flow: IPv6 flow label, 0 to 1048575.
    :ivar scope: IPv6 zone, the name ("eth0") or the number ("2") of an interface.
    :raises AddressError: if a part cannot be so; its `position` counts within that part.
    """

    scheme: str
    host: str = ""
    port: int | None = None
    path: str = ""
    flow: int = 0
    scope: str = ""

    def __post_init__(self) -> None:
        scheme = SCHEMES.get(self.scheme)
        if scheme is None:
            _fail_scheme(self.scheme, 0, self.scheme)
        if scheme.parts in ("path", "name"):
            if self.host or self.port is not None or self.flow or self.scope:
                _fail(f"a {self.scheme} address has a path and nothing else", self.host)
            object.__setattr__(self, "path", _check_path(scheme, self.path, self.path, 0))
            return
        host, scope = self.host, self.scope
        if "%" in host and not scope:
            host, _, scope = host.partition("%")
            if not scope:
                _fail("the scope behind '%' is missing", self.host, len(self.host))
        host = _host(host, 0, len(host))
        scope = _scope(scope, 0, len(scope))
        if not isinstance(self.flow, int) or not 0 <= self.flow <= MAX_FLOW:
            _fail(f"the flow label must be 0 to {MAX_FLOW}", str(self.flow))
        if (scope or self.flow) and ":" not in host:
            _fail("only an IPv6 address has a scope or a flow label", self.host or scope or str(self.flow))
        port = scheme.default_port if self.port is None else self.port
        if port is None:
            _fail("the port is missing", self.host, len(self.host))
        if type(port) is not int or not 0 <= port <= 65535:
            _fail("the port must be 0 to 65535", str(port))
        object.__setattr__(self, "host", host)
        object.__setattr__(self, "scope", scope)
        object.__setattr__(self, "port", port)
        object.__setattr__(self, "path", _url_path(scheme, self.path, 0))

    @classmethod
    def parse(cls, text: "str | Address", default_scheme: str | None = None) -> "Address":
        """Read an address as a person writes it; an `Address` is given back as it is.

        Without a scheme, what begins with `/`, `./`, `../` or `@` is a Unix socket, anything else is of
        `default_scheme`, which is `tcp` if not given.

        :raises AddressError: if it does not parse; its `position` is where in `text` it goes wrong.
        """
        if isinstance(text, Address):
            return text
        if not text:
            raise AddressError("the address is empty")
        scheme, start = _scheme_of(text, default_scheme)
        if scheme.parts in ("path", "name"):
            return _make(cls, scheme.name, path=_parse_path(scheme, text, start))
        if start:
            if not text.startswith("//", start):
                _fail(f"'//' must follow: {scheme.name}://HOST:PORT", text, start)
            start += 2
        return _parse_authority(cls, scheme, text, start)

    def __str__(self) -> str:
        scheme = SCHEMES[self.scheme]
        if scheme.parts in ("path", "name"):
            return f"{self.scheme}:{_escape(self.path) if self.path else _UNNAMED}"
        host = self.host or "*"
        if ":" in host:
            scope = f"%{self.scope}" if self.scope else ""
            flow = f"?flow={self.flow}" if self.flow else ""
            host = f"[{host}{scope}{flow}]"
        port = "" if scheme.parts == "url" and self.port == scheme.default_port else f":{self.port}"
        return f"{self.scheme}://{host}{port}{self.path}"

    # -- what the socket calls take

    @property
    def family(self) -> socket.AddressFamily | None:
        """`AF_INET`, `AF_INET6` (also for every interface) or `AF_UNIX`; None for a name and for `mem`."""
        parts = SCHEMES[self.scheme].parts
        if parts == "path":
            return AF_UNIX
        if parts == "name":
            return None
        if not self.host or ":" in self.host:
            return socket.AF_INET6
        return socket.AF_INET if _looks_numeric(self.host) else None

    @property
    def sockaddr(self) -> SockAddr:
        """What bind(2) and connect(2) of Python's `socket` take.

        :raises AddressError: if it is a name (resolve it first), a `mem` address, or of a scope unknown here.
        """
        family = self.family
        if family is None:
            _fail(self._why_no_bytes(), str(self))
        if family == AF_UNIX:
            return "\0" + self.path[1:] if self.path.startswith("@") else self.path
        assert self.port is not None  # __post_init__ saw to it
        if family == socket.AF_INET:
            return (self.host, self.port)
        return (self.host or "::", self.port, self.flow, self._scope_id())

    @property
    def packed(self) -> bytes:
        """The 4 or 16 bytes of the IP address, in network order (inet_pton(3)).

        :raises AddressError: if it is not numeric, or not of the internet.
        """
        family = self.family
        if family is None or family == AF_UNIX:
            _fail(self._why_no_bytes(), str(self))
        return socket.inet_pton(family, self.host or "::")

    @classmethod
    def from_sockaddr(cls, scheme: str, family: int, sockaddr: tuple[Any, ...] | str | bytes | None) -> "Address":
        """Make the address out of what getsockname(2), accept(2) or getaddrinfo(3) gave.

        :raises AddressError: if `family` is none that `scheme` can have, or the parts are not addresses.
        """
        known = SCHEMES.get(scheme)
        if known is None:
            _fail_scheme(scheme, 0, scheme)
        if family == AF_UNIX and known.parts == "path" and not isinstance(sockaddr, tuple):
            # not checked for length: Linux lets others bind 108 bytes without a NUL, and their peers get to see it
            return _make(cls, scheme, path=_path_from_kernel(sockaddr or ""))
        if (
            family in (socket.AF_INET, socket.AF_INET6)
            and known.parts in ("inet", "url")
            and isinstance(sockaddr, tuple)
        ):
            host, port, *rest = sockaddr
            if not rest:
                return cls(scheme, host, port)
            flow, index = rest
            scope = "" if not index or "%" in host else _interface(index)
            return cls(scheme, host, port, flow=flow & MAX_FLOW, scope=scope)
        _fail(f"no {scheme} address has the socket address family {family} with {sockaddr!r}", scheme)

    @classmethod
    def from_packed(cls, scheme: str, data: bytes, port: int) -> "Address":
        """Make the address out of the 4 or 16 bytes of an IP address (inet_ntop(3)).

        :raises AddressError: if `data` has another length.
        """
        if len(data) not in (4, 16):
            _fail(f"an IP address has 4 or 16 bytes, not {len(data)}", data.hex())
        return cls(scheme, socket.inet_ntop(socket.AF_INET if len(data) == 4 else socket.AF_INET6, data), port)

    def _why_no_bytes(self) -> str:
        return f"{self.host!r} is a name; resolve it first" if self.host else "there is no IP address in it"

    def _scope_id(self) -> int:
        if not self.scope or self.scope.isdigit():
            return int(self.scope or 0)
        try:
            return socket.if_nametoindex(self.scope)
        except OSError:
            text = str(self)
            _fail(f"this machine has no network interface {self.scope!r}", text, text.index("%") + 1)

    # -- who can reach it

    @property
    def is_numeric(self) -> bool:
        """Whether nobody needs to be asked where it is: everything but names."""
        return self.family is not None or not self.host

    @property
    def is_wildcard(self) -> bool:
        """Whether it means every interface: no host, `0.0.0.0` or `::`."""
        ip = self._ip()
        return ip is not None and ip.is_unspecified

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine reaches it: 127.0.0.0/8, ::1, `localhost`, `unix` and `mem`."""
        if SCHEMES[self.scheme].parts in ("path", "name"):
            return True
        ip = self._ip()
        return self.host in ("localhost", "localhost.") if ip is None else ip.is_loopback

    @property
    def is_private(self) -> bool:
        """Whether the internet cannot reach it: what the IANA registries do not route, and what is loopback.

        A name other than `localhost` is neither private nor public until it is resolved; a wildcard is neither, too.
        """
        ip = self._ip()
        if ip is None:
            return self.is_loopback
        return ip.is_private and not ip.is_unspecified

    @property
    def is_public(self) -> bool:
        """Whether the internet can reach it, as far as the address tells; always False for a name and a wildcard."""
        ip = self._ip()
        return ip is not None and ip.is_global and not ip.is_unspecified

    def _ip(self) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
        family = self.family
        if family is None or family == AF_UNIX:
            return None
        ip = ipaddress.ip_address(self.host or "::")
        return ip.ipv4_mapped or ip if isinstance(ip, ipaddress.IPv6Address) else ip

    # -- others like it

    def with_port(self, port: int) -> "Address":
        """The same with another port."""
        return self.replace(port=port)

    def replace(self, **changes: Any) -> "Address":
        """The same with other parts, by the names of the fields.

        :raises AddressError: if the whole cannot be so.
        """
        return dataclasses.replace(self, **changes)


def _make(cls: type[Address], scheme: str, *, path: str) -> Address:
    """An address of a path that is known to be good."""
    address = object.__new__(cls)
    for field in dataclasses.fields(cls):
        object.__setattr__(address, field.name, field.default)
    object.__setattr__(address, "scheme", scheme)
    object.__setattr__(address, "path", path)
    return address


def _fail(reason: str, text: str, position: int = 0) -> NoReturn:
    raise AddressError(reason, text, position)


def _fail_scheme(text: str, position: int, name: str) -> NoReturn:
    _fail(f"{name!r} is no scheme; there are {', '.join(SCHEMES)}", text, position)


def _scheme_of(text: str, default: str | None) -> tuple[Scheme, int]:
    """The scheme of `text` and where the rest begins."""
    if default is not None and default not in SCHEMES:
        _fail_scheme(default, 0, default)
    fallback = SCHEMES[default or "tcp"]
    if text.startswith(("/", "./", "../", "@")):
        return (fallback if fallback.parts == "path" else SCHEMES["unix"]), 0
    name, colon, _ = text.partition(":")
    slashes = text.startswith("://", len(name))
    known = SCHEMES.get(name.lower())
    # "localhost:80" has no scheme; a host that is called like one needs its scheme written: tcp://unix:80
    if known is not None and colon:
        return known, len(name) + 1
    if slashes:
        _fail_scheme(text, 0, name)
    return fallback, 0


# -- internet addresses


def _parse_authority(cls: type[Address], scheme: Scheme, text: str, start: int) -> Address:
    """Read `HOST:PORT[PATH]` from `text[start:]`."""
    for index in range(start, len(text)):
        if not text[index].isprintable() or text[index] == " ":
            _fail(f"{text[index]!r} cannot be in an address", text, index)
    close = start
    if text.startswith("[", start):
        close = text.find("]", start)
        if close < 0:
            _fail("this bracket is never closed", text, start)
    end = min((found for found in (text.find(mark, close) for mark in "/?#") if found >= 0), default=len(text))
    if text.find("@", close, end) >= 0:
        _fail("an address has no user name or password", text, start)
    if end < len(text) and scheme.parts == "inet":
        _fail(f"nothing can follow the port of a {scheme.name} address", text, end)
    if start == end:
        _fail("the host and the port are missing", text, start)
    path = _url_path(scheme, text, end)
    if _is_digits(text[start:end]):
        return cls(scheme.name, "", _port(scheme, text, start, end), path)
    host, flow, scope = "", 0, ""
    if close > start:
        host, flow, scope = _ipv6(text, start + 1, close)
        host_end = close + 1
        if host_end < end and text[host_end] != ":":
            _fail("only ':' and the port can follow the bracket", text, host_end)
    else:
        if text.count(":", start, end) > 1:
            _fail("an IPv6 address needs brackets: [ADDRESS]:PORT", text, start)
        host_end = text.find(":", start, end)
        host_end = end if host_end < 0 else host_end
        host = _host(text, start, host_end)
    if host_end == end and scheme.default_port is None:
        _fail("the port is missing", text, end)
    port = scheme.default_port if host_end == end else _port(scheme, text, host_end + 1, end)
    return cls(scheme.name, host, port, path, flow, scope)


def _host(text: str, start: int, end: int) -> str:
    """The normal form of the host `text[start:end]`: "", an IP address or a name."""
    host = text[start:end]
    if host in ("", "*"):
        return ""
    if host == "<broadcast>":
        return "255.255.255.255"
    if ":" in host:
        try:
            return socket.inet_ntop(socket.AF_INET6, socket.inet_pton(socket.AF_INET6, host))
        except (OSError, ValueError):
            _fail("not an IPv6 address", text, start)
    if host.isascii() and _looks_numeric(host):
        try:
            socket.inet_pton(socket.AF_INET, host)
        except (OSError, ValueError):
            # 127.1, 0x7f.1 and 010.0.0.1 mean different machines to different programs
            _fail("not an IPv4 address, which is four decimal numbers", text, start)
        return host
    return _name(text, start, end)


def _looks_numeric(host: str) -> bool:
    """Whether `host` ends in a number (WHATWG URL, "ends in a number checker"); no name may."""
    last = host.removesuffix(".").rpartition(".")[2]
    return _is_digits(last) or (last[:2] in ("0x", "0X") and all(each in "0123456789abcdefABCDEF" for each in last[2:]))


def _name(text: str, start: int, end: int) -> str:
    labels, at = [], start
    for label in text[start:end].removesuffix(".").split("."):
        labels.append(_label(text, at, label).lower())
        at += len(label) + 1
    name = ".".join(labels)
    if len(name) > MAX_HOST:
        _fail(f"the name is longer than {MAX_HOST} bytes", text, start)
    if _looks_numeric(name):
        _fail("a name cannot end in a number", text, start)
    return name + "." if text[start:end].endswith(".") else name


def _label(text: str, at: int, label: str) -> str:
    """Check and encode one label of a name, at `at` in `text`."""
    if not label:
        _fail("a part of the name is empty", text, at)
    encoded = label
    if not label.isascii():
        for index, each in enumerate(label):
            if not each.isprintable():
                _fail(f"{each!r} cannot be in a name", text, at + index)
        try:
            encoded = label[: MAX_HOST + 1].encode("idna").decode("ascii")
        except UnicodeError:
            _fail(f"{label!r} cannot be in a name (IDNA 2003)", text, at)
    for index, each in enumerate(encoded):
        if each not in _NAME and (each != "." or encoded is label):
            _fail(f"{each!r} cannot be in a name", text, at + (index if encoded is label else 0))
    for part in encoded.split("."):
        if not part or len(part) > MAX_LABEL:
            _fail(f"a part of a name has 1 to {MAX_LABEL} bytes", text, at)
        if part[0] == "-" or part[-1] == "-":
            _fail("a part of a name cannot begin or end with '-'", text, at)
    return encoded


def _ipv6(text: str, start: int, end: int) -> tuple[str, int, str]:
    """Read `ADDRESS[%SCOPE][?flow=N]`, which stood in brackets."""
    flow, scope = 0, ""
    query = text.find("?", start, end)
    if query >= 0:
        digits = text[query + 6 : end]
        if not text.startswith("?flow=", query) or not _is_digits(digits):
            _fail("only '?flow=' and a number can follow the address", text, query)
        flow = int(digits) if len(digits) < 8 else MAX_FLOW + 1
        if flow > MAX_FLOW:
            _fail(f"the flow label must be 0 to {MAX_FLOW}", text, query + 6)
        end = query
    percent = text.find("%", start, end)
    if percent >= 0:
        if percent + 1 == end:
            _fail("the scope behind '%' is missing", text, end)
        scope = _scope(text, percent + 1, end)
        end = percent
    if ":" not in text[start:end]:
        _fail("only an IPv6 address stands in brackets", text, start)
    return _host(text, start, end), flow, scope


def _scope(text: str, start: int, end: int) -> str:
    scope = text[start:end]
    for index, each in enumerate(scope):
        if not "!" <= each <= "~" or each in "%/?[]":
            _fail(f"{each!r} cannot be in a scope", text, start + index)
    if not _is_digits(scope):
        return scope
    if len(scope) > 10 or int(scope) > MAX_SCOPE:
        _fail(f"the scope must be 0 to {MAX_SCOPE}, or the name of an interface", text, start)
    return str(int(scope)) if int(scope) else ""


def _port(scheme: Scheme, text: str, start: int, end: int) -> int:
    word = text[start:end]
    if not word:
        _fail("the port is missing", text, start)
    if _is_digits(word):
        if len(word) > 5 or int(word) > 65535:
            _fail("the port must be 0 to 65535", text, start)
        return int(word)
    if not set(word) <= _SERVICE or not _LETTERS & set(word):
        _fail("the port must be 0 to 65535 or the name of a service", text, start)
    protocol = "udp" if scheme.kind == "datagram" else "tcp"
    for name in (word, word.lower()):
        try:
            return socket.getservbyname(name, protocol)
        except OSError:
            continue
    _fail(f"this machine knows no {protocol} service {word!r}", text, start)


def _is_digits(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _url_path(scheme: Scheme, text: str, start: int) -> str:
    path = text[start:]
    if scheme.parts != "url":
        if path:
            _fail(f"a {scheme.name} address has no path", text, start)
        return ""
    for index, each in enumerate(path):
        if not "!" <= each <= "~" or each == "#":
            _fail(f"{each!r} cannot be in the path; percent-encode it", text, start + index)
    if path and path[0] not in "/?":
        _fail("a path begins with '/'", text, start)
    return path if path.startswith("/") else "/" + path


# -- paths and names


def _parse_path(scheme: Scheme, text: str, start: int) -> str:
    for index in range(start, len(text)):
        if ord(text[index]) < 32 or 127 <= ord(text[index]) < 160:
            _fail(f"{text[index]!r} cannot be in an address; write it as %XX", text, index)
    if text.endswith(" ") or text.startswith(" ", start):
        _fail("a space at this end must be written as %20", text, len(text) - 1 if text.endswith(" ") else start)
    if text.startswith("//", start):
        start += 2
        if scheme.parts == "path" and not text.startswith(("/", "@"), start):
            _fail(f"write {scheme.name}:PATH or {scheme.name}:///PATH", text, start)
    raw = text[start:]
    if raw == _UNNAMED and scheme.parts == "path":
        return ""
    if not raw:
        _fail(f"the {scheme.parts} is missing", text, start)
    return _check_path(scheme, raw, text, start, escaped=True)


def _check_path(scheme: Scheme, raw: str, text: str, start: int, *, escaped: bool = False) -> str:
    """The normal form of a path or name, or what is wrong with it (at `start` of `text`)."""
    try:
        data = os.fsencode(raw)
    except UnicodeEncodeError as error:
        _fail(f"{raw[error.start]!r} cannot be in an address", text, start + error.start)
    if escaped:
        data = re.sub(rb"%([0-9A-Fa-f]{2})", lambda match: bytes.fromhex(match[1].decode()), data)
    if scheme.parts == "name":
        if not data:
            _fail("the name is missing", text, start)
        return os.fsdecode(data)
    if data[:1] == b"@":
        if len(data) == 1:
            _fail("the name behind '@' is missing", text, start + len(raw))
        if len(data) - 1 > MAX_UNIX:
            _fail(f"an abstract name has at most {MAX_UNIX} bytes, not {len(data) - 1}", text, start)
    elif len(data) > MAX_UNIX:
        _fail(f"a Unix socket's path has at most {MAX_UNIX} bytes, not {len(data)}; use a shorter one", text, start)
    elif 0 in data:
        _fail("a path cannot hold a NUL", text, start)
    return os.fsdecode(data)


def _escape(path: str) -> str:
    """`path` as `_parse_path` reads it back, on one line of printable characters."""
    last = len(path) - 1
    shown = "".join(
        each
        if each.isprintable() and each not in "%<" and (each != " " or 0 < index < last)
        else "".join(f"%{byte:02X}" for byte in os.fsencode(each))
        for index, each in enumerate(path)
    )
    return "//" + shown if shown.startswith("//") else shown


def _path_from_kernel(path: str | bytes) -> str:
    try:
        data = os.fsencode(path)
    except UnicodeEncodeError as error:
        _fail("not a path", str(path), error.start)
    if data[:1] == b"\0":
        return "@" + os.fsdecode(data[1:])
    return os.fsdecode(b"./" + data if data[:1] == b"@" else data)


def _interface(index: int) -> str:
    """The name of interface `index`, or its number when it has none (any more)."""
    try:
        return socket.if_indextoname(index)
    except (OSError, OverflowError):
        return str(index)
