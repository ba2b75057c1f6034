"""Values of socket options: from Python to what setsockopt(2) takes, and back."""

import socket
import struct
import sys
from collections.abc import Callable, Iterable
from typing import Final

from portico.errors import ConfigurationError
from portico.option_row import INT, UNSIGNED, Kind, Option

__all__ = ["pack", "room", "unpack"]

_LINGER: Final = "ii"
_TIMEVAL: Final = "ll"
_NETWORK_ORDER: Final = ("IP_UNICAST_IF", "IPV6_UNICAST_IF")  # of all options; ip(7) tells why no more
_MOST: Final = 1024  # bytes that Python's getsockopt takes


def room(option: Option) -> int:
    """Return how many bytes a value of `option` takes at most."""
    kind = option.kind
    if kind == "linger":
        return struct.calcsize(_LINGER)
    if kind == "duration":
        return struct.calcsize(_TIMEVAL)
    if kind == "numbers":
        return _MOST if option.layout.endswith("*") else struct.calcsize(option.layout)
    if kind == "str":
        return min(option.maximum + 1, _MOST)
    return min(option.maximum, _MOST) if kind == "bytes" else option.size


def unpack(option: Option, data: bytes) -> object:
    """Return the value that `data`, from getsockopt(2), stands for."""
    kind = option.kind
    if kind == "linger":
        on, seconds = struct.unpack(_LINGER, data)
        return seconds if on else None
    if kind == "duration":
        seconds, microseconds = struct.unpack(_TIMEVAL, data)
        return seconds + microseconds / 1e6
    if kind == "numbers":
        layout = f"{len(data) // 4}I" if option.layout.endswith("*") else option.layout
        return struct.unpack(layout, data)
    if kind == "str":
        return data.partition(b"\0")[0].decode("ascii", "replace")
    if kind == "bytes":
        return data
    if kind == "address":
        return socket.inet_ntop(socket.AF_INET, data)
    return _meaning(option, int.from_bytes(data, sys.byteorder, signed=option.maximum <= INT))


def _meaning(option: Option, number: int) -> object:
    if option.kind == "bool":
        return bool(number)
    if option.kind == "enum":
        return next((name for name, value in option.choices if value == number), number)
    if option.kind == "flags":
        number &= UNSIGNED
        known = [name for name, bit in option.choices if number & bit]
        rest = number & ~sum(bit for _, bit in option.choices)
        return (*known, hex(rest)) if rest else tuple(known)
    if option.kind == "interface":
        return _interface_name(socket.ntohl(number & UNSIGNED) if option.constant in _NETWORK_ORDER else number)
    if option.kind == "ports":
        return (number & 0xFFFF, number >> 16 & 0xFFFF) if number else None
    return None if option.none is not None and number == option.none else number


def _interface_name(index: int) -> str | int:
    try:
        return socket.if_indextoname(index) if index else ""
    except OSError:  # it is gone
        return index


def pack(option: Option, value: object) -> int | bytes:
    """Check `value` and return what setsockopt(2) takes.

    :raises ConfigurationError: if it is of the wrong type, out of range, or names an interface that is not there."""
    return _PACKERS.get(option.kind, _pack_number)(option, value)


def _wrong(option: Option, takes: str, value: object) -> ConfigurationError:
    return ConfigurationError(f"option {option.name!r} takes {takes}, not {value!r}")


def _is_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _pack_number(option: Option, value: object) -> int | bytes:
    if value is None and option.none is not None:
        number = option.none
    else:
        whole = int(value) if isinstance(value, float) and value.is_integer() else value
        if not isinstance(whole, int) or isinstance(whole, bool) or not option.minimum <= whole <= option.maximum:
            unit = f" {option.unit}" if option.unit else ""
            also = ", or None" if option.none is not None or option.kind == "linger" else ""
            takes = f"a whole number from {option.minimum} to {option.maximum}{unit}{also}"
            raise _wrong(option, takes, value)
        number = whole
    if option.size == 8:
        return number.to_bytes(8, sys.byteorder)
    return number - (UNSIGNED + 1) if number > INT else number


def _pack_bool(option: Option, value: object) -> int:
    if not isinstance(value, int) or value not in (0, 1):
        raise _wrong(option, "True or False", value)
    return int(value)


def _pack_linger(option: Option, value: object) -> bytes:
    if value is None or value is False:
        return struct.pack(_LINGER, 0, 0)
    return struct.pack(_LINGER, 1, _pack_number(option, value))


def _pack_duration(option: Option, value: object) -> bytes:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= option.maximum:
        raise _wrong(option, f"seconds from 0 to {option.maximum}", value)
    microseconds = round(value * 1_000_000)
    return struct.pack(_TIMEVAL, *divmod(microseconds, 1_000_000))


def _pack_str(option: Option, value: object) -> bytes:
    if not isinstance(value, str) or not value.isascii() or "\0" in value or len(value) > option.maximum:
        raise _wrong(option, f"a name of at most {option.maximum} letters", value)
    return value.encode("ascii") + b"\0"


def _pack_bytes(option: Option, value: object) -> bytes:
    if not isinstance(value, bytes | bytearray | memoryview) or len(value) > option.maximum:
        shown = f"{len(value)} bytes" if isinstance(value, bytes | bytearray | memoryview) else repr(value)
        raise ConfigurationError(f"option {option.name!r} takes at most {option.maximum} bytes, not {shown}")
    return bytes(value)


def _pack_enum(option: Option, value: object) -> int:
    for name, number in option.choices:
        if value == name or (_is_number(value) and value == number):
            return number
    raise _wrong(option, f"one of {', '.join(name for name, _ in option.choices)}", value)


def _pack_flags(option: Option, value: object) -> int:
    names: list[object] = [value] if isinstance(value, str) else list(value) if isinstance(value, Iterable) else [value]
    choices = dict(option.choices)
    if not all(isinstance(name, str) and name in choices for name in names):
        raise _wrong(option, f"names of {', '.join(choices)}", value)
    number = 0
    for name in names:
        number |= choices[str(name)]
    return number


def _index(option: Option, name: str, takes: str) -> int:
    try:
        return socket.if_nametoindex(name)
    except OSError as error:
        if not name.isascii() or "\0" in name or "." in name:
            raise _wrong(option, takes, name) from error
        message = f"option {option.name!r} takes {takes}; there is no interface {name!r}, `ip link` lists them"
        raise ConfigurationError(message) from error


def _pack_interface(option: Option, value: object) -> int:
    takes = "the name of a network interface, or '' for none"
    if isinstance(value, str):
        index = _index(option, value, takes) if value else 0
    elif isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= INT:
        index = value
    else:
        raise _wrong(option, takes, value)
    if option.constant in _NETWORK_ORDER:
        index = socket.htonl(index)
    return index - (UNSIGNED + 1) if index > INT else index


def _pack_address(option: Option, value: object) -> bytes:
    takes = "the IPv4 address or the name of a network interface"
    if not isinstance(value, str) or not value:
        raise _wrong(option, takes, value)
    try:
        return socket.inet_pton(socket.AF_INET, value)
    except (OSError, ValueError):
        # struct ip_mreqn of ip(7): group, address, index
        return struct.pack("4s4si", b"", b"", _index(option, value, takes))


def _pack_ports(option: Option, value: object) -> int:
    if value is None:
        return 0
    pair = tuple(value) if isinstance(value, tuple | list | range) else ()
    if len(pair) != 2 or not all(_is_number(port) and 0 < port <= 65535 for port in pair) or pair[0] > pair[1]:
        raise _wrong(option, "a pair of ports, the lower one first, or None", value)
    number: int = pair[0] | pair[1] << 16
    return number - (UNSIGNED + 1) if number > INT else number


def _pack_numbers(option: Option, value: object) -> bytes:
    try:
        return struct.pack(option.layout, *value)  # type: ignore[misc]  # what cannot be unpacked is refused below
    except (struct.error, TypeError) as error:
        raise _wrong(option, f"{len(option.layout)} numbers", value) from error


_PACKERS: Final[dict[Kind, Callable[[Option, object], int | bytes]]] = {
    "bool": _pack_bool,
    "linger": _pack_linger,
    "duration": _pack_duration,
    "str": _pack_str,
    "bytes": _pack_bytes,
    "enum": _pack_enum,
    "flags": _pack_flags,
    "interface": _pack_interface,
    "address": _pack_address,
    "ports": _pack_ports,
    "numbers": _pack_numbers,
}
