"""`portico options`: the table of socket options with the values of a live socket and the limits of the kernel."""

import contextlib
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Annotated

import typer

from portico.tools.parameters import Debug, help_text, not_negative
from portico.tools.report import WRONG, Stop, run

if TYPE_CHECKING:
    from rich.table import Table

    from portico.address import Address
    from portico.option_row import Option

EMPTY = "-"
SHOWN_BYTES = 16
"""Longer values are told by their length."""

OPTIONS_HELP = help_text(
    "Show every socket option: its value, the kernel's default and maximum, and what it does.",
    "Without an address these are values of new sockets of each kind. With one it is a socket for it: for TCP, TLS, "
    "Unix and vsock it connects, and for those that carry packets it opens a socket. Piped, it is one line an option "
    "and nothing is cut: name, value, unit, default, maximum, who may set it and what it does, separated by tabs.",
    examples=[
        "portico options",
        "portico options localhost:80 --only keepalive",
        "portico options udp://127.0.0.1:53",
        "portico options --markdown > docs/options.md",
    ],
)


@dataclass(frozen=True, slots=True)
class Line:
    """What is shown of one option."""

    option: "Option"
    value: str
    default: str
    maximum: str


def options(
    address: Annotated[
        str | None,
        typer.Argument(
            metavar="ADDRESS", show_default=False, help="Such as localhost:80, udp://host:53, unix:/run/x.sock."
        ),
    ] = None,
    only: Annotated[
        str, typer.Option(metavar="TEXT", help="Only options with this in their name, constant or manual page.")
    ] = "",
    markdown: Annotated[
        bool, typer.Option("--markdown", metavar="", help="Print the documentation page instead, without values.")
    ] = False,
    timeout: Annotated[
        float, typer.Option(callback=not_negative, metavar="SECONDS", help="For lookup and connecting; 0: no end.")
    ] = 10.0,
    debug: Debug = False,
) -> None:
    """Show every socket option: its value, the kernel's default and maximum, and what it does."""
    if markdown:
        if address is not None or only:
            raise Stop("--markdown prints the whole table, without values", WRONG, "leave out ADDRESS and --only")
        from portico.tools.options_page import page

        sys.stdout.write(page())
        return
    run(_options(address, only, timeout or None))


async def _options(address: str | None, only: str, timeout: float | None) -> None:
    wanted = _wanted(only)
    async with contextlib.AsyncExitStack() as stack:
        if address is None:
            lines = _of_new_sockets(wanted, stack)
        else:
            sock = await _socket_for(address, timeout, stack)
            lines = [_line(option, sock) for option in wanted if option.applies_to(sock)]
            if not lines:
                raise Stop(f"no option with {only!r} in it is for the socket of {address}", WRONG)
    show(lines)


def _wanted(only: str) -> "list[Option]":
    from portico.options import OPTIONS, find_option

    text = only.lower()
    found = [each for each in OPTIONS.values() if text in f"{each.name} {each.constant} {each.page}".lower()]
    if not found:
        find_option(only)  # tells the nearest name
    return found


# -- sockets


def _of_new_sockets(wanted: "Sequence[Option]", stack: contextlib.AsyncExitStack) -> list[Line]:
    """Return each option with the value that it has on the first kind of socket that it is for."""
    sockets = [sock for make in _kinds() for sock in _made(make, stack)]
    lines = []
    for option in wanted:
        fitting = next((sock for sock in sockets if option.applies_to(sock)), None)
        lines.append(Line(option, _missing(option), EMPTY, EMPTY) if fitting is None else _line(option, fitting))
    return lines


def _kinds() -> list[Callable[[], socket.socket]]:
    inet, inet6 = socket.AF_INET, socket.AF_INET6
    kinds: list[tuple[int, int, int]] = [
        (inet, socket.SOCK_STREAM, 0),
        (inet, socket.SOCK_DGRAM, 0),
        (inet6, socket.SOCK_STREAM, 0),
        (inet6, socket.SOCK_DGRAM, 0),
        (getattr(socket, "AF_UNIX", -1), socket.SOCK_STREAM, 0),
        (getattr(socket, "AF_VSOCK", -1), socket.SOCK_STREAM, 0),
        (getattr(socket, "AF_PACKET", -1), socket.SOCK_RAW, 0),
        (inet, socket.SOCK_RAW, socket.IPPROTO_ICMP),
        (inet6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6),
    ]
    return [lambda kind=kind: socket.socket(*kind) for kind in kinds]  # type: ignore[misc]  # mypy takes the default for a parameter


def _made(make: Callable[[], socket.socket], stack: contextlib.AsyncExitStack) -> list[socket.socket]:
    try:
        return [stack.enter_context(make())]
    except OSError:  # this machine does not have them, or only for the privileged
        return []


def _missing(option: "Option") -> str:
    if option.number is None:
        return "(not on this platform)"
    privileged = option.scope == "packet" or option.scope.startswith(("raw", "icmp"))
    return "(needs CAP_NET_RAW)" if privileged else "(no such sockets)"


async def _socket_for(text: str, timeout: float | None, stack: contextlib.AsyncExitStack) -> socket.socket:
    from portico.address import SCHEMES, Address

    address = Address.parse(text)
    scheme = SCHEMES[address.scheme]
    if scheme.parts == "file" or scheme.parts == "name":
        raise Stop(f"there is no socket behind {address}", WRONG, "give an address of TCP, UDP, Unix or the like")
    if scheme.kind == "datagram":
        return await _packet_socket(address, timeout, stack)
    from portico.client.connect import connect

    plain = address.replace(scheme="tcp") if scheme.secure else address
    connection = await stack.enter_async_context(connect(plain, timeout=timeout))
    return connection.socket


async def _packet_socket(address: "Address", timeout: float | None, stack: contextlib.AsyncExitStack) -> socket.socket:
    """Return a socket that sends to `address` by default, where that is somebody's."""
    from portico.transports.packets import open_socket
    from portico.transports.resolve import resolve

    numeric = (await resolve(address, timeout=timeout))[0]
    sock = stack.enter_context(open_socket(numeric, None))
    if address.scheme == "udp" and numeric.port and not numeric.is_wildcard:
        with contextlib.suppress(OSError):  # no route: all but the path's MTU is there
            sock.connect(numeric.sockaddr)
    return sock


# -- values


def _line(option: "Option", sock: socket.socket) -> Line:
    from portico.errors import ConfigurationError, UnsupportedError
    from portico.option_limits import kernel_limits
    from portico.options import get_option

    limits = kernel_limits(option.name, sock)
    if not option.readable:
        value = "(only to be set)"
    elif not option.listed:
        value = "(not read)"  # as that changes something
    else:
        try:
            value = value_shown(option, get_option(sock, option.name))
        except UnsupportedError:
            value = "(not in this kernel)"
        except ConfigurationError:
            value = "(unknown yet)"
    return Line(option, value, _limit(option, limits.default), _limit(option, limits.maximum))


def _limit(option: "Option", value: int | str | None) -> str:
    if value is None:
        return EMPTY
    return value_shown(option, bool(value)) if option.kind == "bool" else str(value)


def value_shown(option: "Option", value: object) -> str:
    """Return a value as people read it."""
    if option.name in ("type", "domain") and isinstance(value, int):
        with contextlib.suppress(ValueError):
            return (socket.SocketKind if option.name == "type" else socket.AddressFamily)(value).name
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or value == "" or value == ():
        return "none"
    if isinstance(value, bytes):
        return value.hex(" ") if 0 < len(value) <= SHOWN_BYTES else f"{len(value)} bytes"
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


# -- showing


def show(lines: Sequence[Line]) -> None:
    """Print the options: tables for people, lines for programs."""
    if not sys.stdout.isatty():
        for line in lines:
            print(*_fields(line), sep="\t")
        sys.stdout.flush()
        return
    from rich.console import Console

    console = Console(highlight=False)
    for heading, group in groupby(lines, lambda line: line.option.page):
        console.print(f"[bold underline]{heading}[/]\n")
        console.print(_table(list(group)))
        console.print()


def _fields(line: Line) -> tuple[str, ...]:
    from portico.tools.options_page import who_sets

    option = line.option
    return (option.name, line.value, option.unit or EMPTY, line.default, line.maximum, who_sets(option), option.doc)


def _table(lines: Sequence[Line]) -> "Table":
    from rich.markup import escape
    from rich.table import Table

    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column("option", style="bold", no_wrap=True)
    table.add_column("value", overflow="fold")
    for line in lines:
        option = line.option
        unit = f" {option.unit}" if option.unit and line.value[:1].isdigit() else ""
        limits = {"default": line.default, "maximum": line.maximum}
        notes = [f"{name} {value}" for name, value in limits.items() if value != EMPTY]
        notes += [f"setting needs {option.privilege}"] if option.privilege else []
        first = f"[cyan]{escape(line.value + unit)}[/]" + (f"  [dim]{'; '.join(notes)}[/]" if notes else "")
        table.add_row(option.name, f"{first}\n{escape(option.doc)}")
    return table
