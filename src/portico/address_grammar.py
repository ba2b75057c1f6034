"""How an address is written: text to its parts and back, and what each part may be.

What follows the colon of a scheme, by `Scheme.parts`:

    inet      //HOST:PORT  //:PORT  //*:PORT  //PORT       PORT: 0 to 65535, or a service name of this machine
    url       //HOST[:PORT][/PATH][?QUERY]                 the scheme knows its usual port
    protocol  as inet, but for PORT a protocol above IP    0 to 255, or a name of protocols(5): icmp, udp, ipv6-icmp
    device    //INTERFACE[:ETHERTYPE]  //*[:ETHERTYPE]     0 to 65535, 0x0 to 0xffff, all, ip, arp or ipv6
    cid       //CID:PORT  //*:PORT                         CID: a number, hypervisor, local, host or any (vsock(7))
    path      /ABSOLUTE  ///ABSOLUTE  RELATIVE  @ABSTRACT  %XX stands for a byte; a `%` before anything else is itself
    pathurl   PATH[:/RESOURCE][?QUERY]                     PATH as path, with %3A for a colon
    file      as path, without @ABSTRACT                   a file that is opened; it may be longer than a socket's
    name      NAME  //NAME                                 %XX as above

HOST is a name, `192.0.2.1`, `[2001:db8::1]`, `[fe80::1%eth0]`, `[fe80::1%eth0?flow=5]`, `<broadcast>`, or `*` (or
nothing, or nothing but a port) for every interface.
"""

import os
import re
import socket
import sys
from typing import NamedTuple, NoReturn

from portico.errors import AddressError
from portico.schemes import ETH_P_ALL, SCHEMES, Scheme

MAX_FLOW = 0xFFFFF  # RFC 8200 section 3: the flow label has 20 bits
MAX_SCOPE = 0xFFFFFFFF  # RFC 3493 section 3.3: sin6_scope_id is 32 bits wide
MAX_HOST, MAX_LABEL = 253, 63  # RFC 1035 section 2.3.4, less the length bytes and the root
MAX_UNIX = (108 if sys.platform.startswith("linux") else 104) - 1  # unix(7): sun_path, less a NUL at one of its ends
MAX_INTERFACE = 15  # netdevice(7): IFNAMSIZ, less the NUL

VMADDR_ANY = 0xFFFFFFFF  # vsock(7): VMADDR_CID_ANY and VMADDR_PORT_ANY
VMADDR_CID_LOCAL = 1
CIDS = {"hypervisor": "0", "local": "1", "host": "2", "any": ""}  # linux/vm_sockets.h
ETHERTYPES = {"all": ETH_P_ALL, "ip": 0x0800, "arp": 0x0806, "ipv6": 0x86DD}  # linux/if_ether.h

_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
_NAME = _LETTERS | frozenset("0123456789-_")
_SERVICE = _NAME | frozenset("+.")
_UNNAMED = "<unnamed>"
_NUMBERS = {
    "inet": ("port", 65535),
    "url": ("port", 65535),
    "protocol": ("protocol", 255),
    "device": ("ethertype", 65535),
    "cid": ("port", VMADDR_ANY),
}
"""What the number behind the host is, and its maximum."""


class Parts(NamedTuple):
    """The fields of an `Address` that come after its scheme."""

    host: str = ""
    port: int | None = None
    path: str = ""
    flow: int = 0
    scope: str = ""


def fail(reason: str, text: str, position: int = 0) -> NoReturn:
    raise AddressError(reason, text, position)


def scheme_called(name: str, text: str) -> Scheme:
    """The scheme of that name, which is how `text` begins.

    :raises AddressError: if there is none.
    """
    scheme = SCHEMES.get(name)
    if scheme is None:
        fail(f"{name!r} is no scheme; there are {', '.join(SCHEMES)}", text)
    return scheme


def scheme_of(text: str, default: str | None) -> tuple[Scheme, int]:
    """The scheme of `text` and where the rest begins."""
    fallback = scheme_called(default or "tcp", default or "tcp")
    if text.startswith(("/", "./", "../", "@")):
        return (fallback if fallback.parts in ("path", "file") else SCHEMES["unix"]), 0
    name, colon, _ = text.partition(":")
    known = SCHEMES.get(name.lower())
    # "localhost:80" has no scheme; a host that is called like one needs its scheme written: tcp://unix:80
    if known is not None and colon:
        return known, len(name) + 1
    if text.startswith("://", len(name)):
        scheme_called(name, _without_password(text, len(name) + 3))
    if colon and "+" in name and re.fullmatch("[a-z][a-z0-9+.-]*", name, re.IGNORECASE):  # no host is called so
        scheme_called(name, text)
    return fallback, 0


def read(scheme: Scheme, text: str, start: int) -> Parts:
    """The parts of `text[start:]`, which is what follows the colon of `scheme`, if that is written.

    :raises AddressError: if it does not parse.
    """
    if scheme.is_path:
        return Parts(path=_read_path(scheme, text, start))
    if scheme.parts == "pathurl":
        return _read_path_url(scheme, text, start)
    if start:
        if not text.startswith("//", start):
            form = {"device": "INTERFACE", "cid": "CID:PORT", "protocol": "HOST:PROTOCOL"}.get(
                scheme.parts, "HOST:PORT"
            )
            fail(f"'//' must follow: {scheme.name}://{form}", text, start)
        start += 2
    try:
        for index in range(start, len(text)):
            if not text[index].isprintable() or text[index] == " ":
                fail(f"{text[index]!r} cannot be in an address", text, index)
        return _read_authority(scheme, text, start) if scheme.is_internet else _read_pair(scheme, text, start)
    except AddressError:
        shown = _without_password(text, start)
        if shown == text:
            raise
        raise AddressError(_no_login(scheme), shown, start) from None


_PASSWORD = re.compile(r"[^/?#@:\[]*:((?!\d*[/?#]).*)@", re.DOTALL)
"""What may be a password before a host, in any letters; not the path behind a port."""


def _without_password(text: str, start: int) -> str:
    """`text` as an error may show it: where a host may stand, at `start`, there is no password before it."""
    found = _PASSWORD.match(text, start)
    return text if found is None else f"{text[: found.start(1)]}…{text[found.end(1) :]}"


def _no_login(scheme: Scheme) -> str:
    remedy = ": give them as credentials=" if scheme.parts == "url" else ""
    return f"an address has no user name or password{remedy}"


def checked(scheme: Scheme, parts: Parts) -> Parts:
    """The normal form of parts that were given one by one.

    :raises AddressError: if one cannot be so; its `position` counts within that part.
    """
    host, port, path, flow, scope = parts
    if scheme.is_path:
        if host or port is not None or flow or scope:
            fail(f"a {scheme.name} address has a path and nothing else", host)
        return Parts(path=_check_path(scheme, path, path, 0))
    if scheme.parts == "pathurl":
        if port is not None or flow or scope:
            fail(f"a {scheme.name} address has the path of a socket and a resource, and nothing else", host)
        return Parts(_check_path(scheme, host, host, 0), None, _url_path(scheme, path, 0))
    if scheme.is_internet:
        host, flow, scope = _checked_host(host, flow, scope)
    elif flow or scope:
        fail(f"a {scheme.name} address has no scope and no flow label", host or scope or str(flow))
    else:
        host = _other_host(scheme, host, 0, len(host))
    what, most = _NUMBERS[scheme.parts]
    port = scheme.default_port if port is None else port
    if port is None:
        fail(f"the {what} is missing", parts.host, len(parts.host))
    if type(port) is not int or not 0 <= port <= most:
        fail(f"the {what} must be 0 to {most}", str(port))
    return Parts(host, _normal_port(scheme, port), _url_path(scheme, path, 0), flow, scope)


def _checked_host(given: str, flow: int, scope: str) -> tuple[str, int, str]:
    host = given
    if "%" in host and not scope:
        host, _, scope = host.partition("%")
        if not scope:
            fail("the scope behind '%' is missing", given, len(given))
    host = _host(host, 0, len(host))
    scope = _scope(scope, 0, len(scope))
    if not isinstance(flow, int) or not 0 <= flow <= MAX_FLOW:
        fail(f"the flow label must be 0 to {MAX_FLOW}", str(flow))
    if (scope or flow) and ":" not in host:
        fail("only an IPv6 address has a scope or a flow label", given or scope or str(flow))
    return host, flow, scope


def written(scheme: Scheme, parts: Parts) -> str:
    """The text that reads as these parts."""
    host, port, path, flow, scope = parts
    if scheme.is_path:
        return f"{scheme.name}:{_escape(path) if path else _UNNAMED}"
    if scheme.parts == "pathurl":
        return f"{scheme.name}:{_escape(host).replace(':', '%3A')}:{path}"
    if ":" in host:
        host = f"[{host}{f'%{scope}' if scope else ''}{f'?flow={flow}' if flow else ''}]"
    number = f"0x{port:04x}" if scheme.parts == "device" else str(port)
    number = "" if scheme.parts in ("url", "device") and port == scheme.default_port else f":{number}"
    return f"{scheme.name}://{host or '*'}{number}{path}"


# -- internet addresses


def _read_authority(scheme: Scheme, text: str, start: int) -> Parts:
    """Read `HOST:PORT[PATH]` from `text[start:]`."""
    what, _ = _NUMBERS[scheme.parts]
    close = start
    if text.startswith("[", start):
        close = text.find("]", start)
        if close < 0:
            fail("this bracket is never closed", text, start)
    end = min((found for found in (text.find(mark, close) for mark in "/?#") if found >= 0), default=len(text))
    if text.find("@", close, end) >= 0:
        fail(_no_login(scheme), text, start)
    if end < len(text) and scheme.parts != "url":
        web = {"tcp": ": write ws:// or http:// before it", "tls": ": write wss:// or https:// before it"}
        hint = web.get(scheme.name, "") if start == 0 and text[end] == "/" else ""
        fail(f"nothing can follow the {what} of a {scheme.name} address{hint}", text, end)
    if start == end:
        fail(f"the host and the {what} are missing", text, start)
    path = _url_path(scheme, text, end)
    if _is_digits(text[start:end]):
        return Parts("", _number(scheme, text, start, end), path)
    host, flow, scope = "", 0, ""
    if close > start:
        host, flow, scope = _ipv6(text, start + 1, close)
        host_end = close + 1
        if host_end < end and text[host_end] != ":":
            fail(f"only ':' and the {what} can follow the bracket", text, host_end)
    else:
        if text.count(":", start, end) > 1:
            fail(f"an IPv6 address needs brackets: [ADDRESS]:{what.upper()}", text, start)
        host_end = text.find(":", start, end)
        host_end = end if host_end < 0 else host_end
        host = _host(text, start, host_end)
    return Parts(host, _number_behind(scheme, text, host_end, end), path, flow, scope)


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
            fail("not an IPv6 address", text, start)
    if host.isascii() and looks_numeric(host):
        try:
            socket.inet_pton(socket.AF_INET, host)
        except (OSError, ValueError):
            # 127.1, 0x7f.1 and 010.0.0.1 mean different machines to different programs
            fail("not an IPv4 address, which is four decimal numbers", text, start)
        return host
    return _name(text, start, end)


def looks_numeric(host: str) -> bool:
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
        fail(f"the name is longer than {MAX_HOST} bytes", text, start)
    if looks_numeric(name):
        fail("a name cannot end in a number", text, start)
    return name + "." if text[start:end].endswith(".") else name


def _label(text: str, at: int, label: str) -> str:
    """Check and encode one label of a name, at `at` in `text`."""
    if not label:
        fail("a part of the name is empty", text, at)
    encoded = label
    if not label.isascii():
        for index, each in enumerate(label):
            if not each.isprintable():
                fail(f"{each!r} cannot be in a name", text, at + index)
        try:
            encoded = label[: MAX_HOST + 1].encode("idna").decode("ascii")
        except UnicodeError:
            fail(f"{label!r} cannot be in a name (IDNA 2003)", text, at)
    for index, each in enumerate(encoded):
        if each not in _NAME and (each != "." or encoded is label):
            fail(f"{each!r} cannot be in a name", text, at + (index if encoded is label else 0))
    for part in encoded.split("."):
        if not part or len(part) > MAX_LABEL:
            fail(f"a part of a name has 1 to {MAX_LABEL} bytes", text, at)
        if part[0] == "-" or part[-1] == "-":
            fail("a part of a name cannot begin or end with '-'", text, at)
    return encoded


def _ipv6(text: str, start: int, end: int) -> tuple[str, int, str]:
    """Read `ADDRESS[%SCOPE][?flow=N]`, which stood in brackets."""
    flow, scope = 0, ""
    query = text.find("?", start, end)
    if query >= 0:
        digits = text[query + 6 : end]
        if not text.startswith("?flow=", query) or not _is_digits(digits):
            fail("only '?flow=' and a number can follow the address", text, query)
        flow = int(digits) if len(digits) < 8 else MAX_FLOW + 1
        if flow > MAX_FLOW:
            fail(f"the flow label must be 0 to {MAX_FLOW}", text, query + 6)
        end = query
    percent = text.find("%", start, end)
    if percent >= 0:
        if percent + 1 == end:
            fail("the scope behind '%' is missing", text, end)
        scope = _scope(text, percent + 1, end)
        end = percent
    if ":" not in text[start:end]:
        fail("only an IPv6 address stands in brackets", text, start)
    return _host(text, start, end), flow, scope


def _scope(text: str, start: int, end: int) -> str:
    scope = text[start:end]
    for index, each in enumerate(scope):
        if not "!" <= each <= "~" or each in "%/?[]":
            fail(f"{each!r} cannot be in a scope", text, start + index)
    if not _is_digits(scope):
        return scope
    if len(scope) > 10 or int(scope) > MAX_SCOPE:
        fail(f"the scope must be 0 to {MAX_SCOPE}, or the name of an interface", text, start)
    return str(int(scope)) if int(scope) else ""


def _number_behind(scheme: Scheme, text: str, start: int, end: int) -> int:
    """Read `[:PORT]`, or what stands in its place."""
    if start < end:
        return _number(scheme, text, start + 1, end)
    if scheme.default_port is None:
        fail(f"the {_NUMBERS[scheme.parts][0]} is missing", text, end)
    return scheme.default_port


def _number(scheme: Scheme, text: str, start: int, end: int) -> int:
    """Read a port, or what stands in its place: a number of `scheme` or the name of one."""
    what, most = _NUMBERS[scheme.parts]
    word = text[start:end]
    if not word:
        fail(f"the {what} is missing", text, start)
    if _is_digits(word):
        if len(word) > len(str(most)) or int(word) > most:
            fail(f"the {what} must be 0 to {most}", text, start)
        return _normal_port(scheme, int(word))
    if scheme.parts == "cid":
        fail(f"the {what} must be 0 to {most}", text, start)
    if scheme.parts == "device":
        return _ethertype(text, start, end)
    named = "protocol" if scheme.parts == "protocol" else "service"
    if not set(word) <= _SERVICE or not _LETTERS & set(word):
        fail(f"the {what} must be 0 to {most} or the name of a {named}", text, start)
    kind = "IP" if named == "protocol" else "udp" if scheme.kind == "datagram" else "tcp"
    for name in (word, word.lower()):
        try:
            return socket.getprotobyname(name) if named == "protocol" else socket.getservbyname(name, kind)
        except OSError:
            continue
    fail(f"this machine knows no {kind} {named} {word!r}; give its number", text, start)


def _normal_port(scheme: Scheme, port: int) -> int:
    """A port of vsock that means any free one becomes 0, which means that everywhere else."""
    return 0 if scheme.parts == "cid" and port == VMADDR_ANY else port


def _is_digits(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _url_path(scheme: Scheme, text: str, start: int) -> str:
    path = text[start:]
    if scheme.parts not in ("url", "pathurl"):
        if path:
            fail(f"a {scheme.name} address has no path", text, start)
        return ""
    for index, each in enumerate(path):
        if not "!" <= each <= "~" or each == "#":
            fail(f"{each!r} cannot be in the path; percent-encode it", text, start + index)
    if path and path[0] not in "/?":
        fail("a path begins with '/'", text, start)
    return path if path.startswith("/") else "/" + path


# -- interfaces and context identifiers


def _read_pair(scheme: Scheme, text: str, start: int) -> Parts:
    """Read `INTERFACE[:ETHERTYPE]` or `CID:PORT` from `text[start:]`."""
    if start == len(text):
        missing = (
            "interface is missing; '*' is every one" if scheme.parts == "device" else "CID and the port are missing"
        )
        fail(f"the {missing}", text, start)
    end = text.find(":", start)
    end = len(text) if end < 0 else end
    host = _other_host(scheme, text, start, end)
    return Parts(host, _number_behind(scheme, text, end, len(text)))


def _other_host(scheme: Scheme, text: str, start: int, end: int) -> str:
    """The normal form of what stands in place of a host: "" for every one, or an interface, or a number."""
    word = text[start:end]
    if word in ("", "*"):
        return ""
    return _interface(text, start, end) if scheme.parts == "device" else _cid(text, start, end)


def _interface(text: str, start: int, end: int) -> str:
    name = text[start:end]
    for index, each in enumerate(name):
        if not each.isprintable() or each in " /:":
            fail(f"{each!r} cannot be in the name of an interface", text, start + index)
    if name in (".", ".."):
        fail(f"no interface can be called {name!r}", text, start)
    if len(name.encode()) > MAX_INTERFACE:
        fail(f"the name of an interface has at most {MAX_INTERFACE} bytes", text, start)
    return name


def _ethertype(text: str, start: int, end: int) -> int:
    word = text[start:end].lower()
    if word in ETHERTYPES:
        return ETHERTYPES[word]
    if not re.fullmatch("0x[0-9a-f]{1,4}", word):
        fail(f"the ethertype must be 0 to 65535, 0x0 to 0xffff, {', '.join(ETHERTYPES)}", text, start)
    return int(word, 16)


def _cid(text: str, start: int, end: int) -> str:
    word = text[start:end]
    if word.lower() in CIDS:
        return CIDS[word.lower()]
    if not _is_digits(word) or len(word) > 10 or int(word) > VMADDR_ANY:
        fail(f"the CID must be 0 to {VMADDR_ANY}, '*', {', '.join(CIDS)}", text, start)
    return "" if int(word) == VMADDR_ANY else str(int(word))


# -- paths and names


def _read_path_url(scheme: Scheme, text: str, start: int) -> Parts:
    """Read `PATH[:/RESOURCE][?QUERY]` from `text[start:]`."""
    colon = text.find(":", start)
    end = len(text) if colon < 0 else colon
    socket_path = _read_path(scheme, text, start, end)
    return Parts(socket_path, None, _url_path(scheme, text, end + 1))


def _read_path(scheme: Scheme, text: str, start: int, end: int | None = None) -> str:
    end = len(text) if end is None else end
    for index in range(start, end):
        if ord(text[index]) < 32 or 127 <= ord(text[index]) < 160:
            fail(f"{text[index]!r} cannot be in an address; write it as %XX", text, index)
    if text.endswith(" ", start, end) or text.startswith(" ", start, end):
        fail("a space at this end must be written as %20", text, end - 1 if text.endswith(" ", start, end) else start)
    if text.startswith("//", start, end):
        start += 2
        if scheme.parts != "name" and not text.startswith(("/", "@"), start):
            fail(f"write {scheme.name}:PATH or {scheme.name}:///PATH", text, start)
    raw = text[start:end]
    if raw == _UNNAMED and scheme.parts == "path":
        return ""
    if not raw:
        fail(f"the {'name' if scheme.parts == 'name' else 'path'} is missing", text, start)
    return _check_path(scheme, raw, text, start, escaped=True)


def _check_path(scheme: Scheme, raw: str, text: str, start: int, *, escaped: bool = False) -> str:
    """The normal form of a path or name, or what is wrong with it (at `start` of `text`)."""
    try:
        data = os.fsencode(raw)
    except UnicodeEncodeError as error:
        fail(f"{raw[error.start]!r} cannot be in an address", text, start + error.start)
    if escaped:
        data = re.sub(rb"%([0-9A-Fa-f]{2})", lambda match: bytes.fromhex(match[1].decode()), data)
    if scheme.parts == "name":
        if not data:
            fail("the name is missing", text, start)
        return os.fsdecode(data)
    if scheme.parts in ("file", "pathurl") and not data:
        fail("the path is missing", text, start)
    if scheme.parts == "file" and data[:1] == b"@":
        fail(f"only sockets have abstract names; write ./{raw} for the file of that name", text, start)
    if data[:1] == b"@":
        if len(data) == 1:
            fail("the name behind '@' is missing", text, start + len(raw))
        if len(data) - 1 > MAX_UNIX:
            fail(f"an abstract name has at most {MAX_UNIX} bytes, not {len(data) - 1}", text, start)
        return os.fsdecode(data)
    if scheme.parts in ("path", "pathurl") and len(data) > MAX_UNIX:
        fail(f"a Unix socket's path has at most {MAX_UNIX} bytes, not {len(data)}; use a shorter one", text, start)
    if 0 in data:
        fail("a path cannot hold a NUL", text, start)
    return os.fsdecode(data)


def _escape(path: str) -> str:
    """`path` as `_read_path` reads it back, on one line of printable characters."""
    last = len(path) - 1
    shown = "".join(
        each
        if each.isprintable() and each not in "%<" and (each != " " or 0 < index < last)
        else "".join(f"%{byte:02X}" for byte in os.fsencode(each))
        for index, each in enumerate(path)
    )
    return "//" + shown if shown.startswith("//") else shown
