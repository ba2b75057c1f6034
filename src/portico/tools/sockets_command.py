"""`portico sockets`: a table of the open sockets like that of ss(8), once or again and again."""

import asyncio
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from portico.tools.parameters import Debug, help_text
from portico.tools.report import Stop, run

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from portico.transports.diag import SocketEntry

COLUMNS = ("kind", "state", "local", "remote", "recv-q", "send-q", "rtt", "user", "process")
NUMBERS = ("recv-q", "send-q", "rtt")
HIDDEN_IF_EMPTY = ("remote", "rtt")
STATES = {"established": "estab", "listening": "listen", "unconnected": "unconn"}
"""States that ss(8) has a shorter word for."""
EMPTY = "-"
FOLDED = {"local": 22, "remote": 22, "process": 20}
"""Columns that may become narrower than what is in them, and the width that they want then: `127.127.127.127:65535`."""
BELOW = {"local": "remote", "process": "user"}
"""What stands below what in a narrow terminal."""
GAP = 2

SOCKETS_HELP = help_text(
    "Show which sockets are open, by whom, in what state, with queues and round-trip time.",
    "recv-q are bytes that the program has not read, send-q bytes that the peer has not acknowledged; of a listener "
    "they are the connections that wait to be accepted, and how many may wait. Unix sockets without a name are shown "
    "by number, the one at the other end, too. Piped, every column is there and an empty one is a '-'. With "
    "[bold]--watch[/bold] Ctrl-C is the way out, with exit code 0.",
    examples=[
        "portico sockets --listening --tcp",
        "portico sockets --port 443 --watch",
        "portico sockets /run --json",
    ],
)


def _positive(value: float) -> float:
    if not value > 0:
        raise typer.BadParameter(f"{value:g} is not more than 0")
    return value


def _kind(letters: Sequence[str], what: str) -> Any:
    return typer.Option(*letters, metavar="", help=what, rich_help_panel="Kinds (several add up; default: all)")


def sockets(
    text: Annotated[
        str, typer.Argument(metavar="TEXT", help="Part of an address, such as 127.0.0.1 or /run.", show_default=False)
    ] = "",
    tcp: Annotated[bool, _kind(("--tcp", "-t"), "TCP, under TLS or not.")] = False,
    udp: Annotated[bool, _kind(("--udp", "-u"), "UDP.")] = False,
    unix: Annotated[bool, _kind(("--unix", "-x"), "Unix: stream, datagram and seqpacket.")] = False,
    raw: Annotated[bool, _kind(("--raw", "-w"), "Raw IP.")] = False,
    packet: Annotated[bool, _kind(("--packet",), "Link layer.")] = False,
    vsock: Annotated[bool, _kind(("--vsock",), "Between virtual machines and their host.")] = False,
    listening: Annotated[
        bool, typer.Option("--listening", "-l", metavar="", help="Only what waits for peers.", rich_help_panel="Which")
    ] = False,
    all_: Annotated[
        bool, typer.Option("--all", "-a", metavar="", help="Those in time-wait, too.", rich_help_panel="Which")
    ] = False,
    port: Annotated[
        int | None,
        typer.Option(metavar="N", min=0, help="Of this port, on either side.", rich_help_panel="Which"),
    ] = None,
    pid: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Of this process.", rich_help_panel="Which")
    ] = None,
    watch: Annotated[
        bool,
        typer.Option("--watch", metavar="", help="Show it again and again until Ctrl-C.", rich_help_panel="How"),
    ] = False,
    every: Annotated[
        float,
        typer.Option(metavar="SECONDS", callback=_positive, help="How often --watch looks.", rich_help_panel="How"),
    ] = 1.0,
    as_json: Annotated[
        bool,
        typer.Option("--json", metavar="", help="Print one JSON array, with all that is known.", rich_help_panel="How"),
    ] = False,
    debug: Debug = False,
) -> None:
    """Show which sockets are open, by whom, in what state, with queues and round-trip time."""
    asked = {"tcp": tcp, "udp": udp, "raw": raw, "packet": packet, "vsock": vsock}
    kinds = [kind for kind, wanted in asked.items() if wanted]
    if unix:
        kinds += ["unix", "unixgram", "unixpacket"]

    def look() -> "tuple[list[SocketEntry], int]":
        return _look(kinds, listening, lambda entry: _matches(entry, text.lower(), port, pid), all_)

    if not watch:
        run(_once(look, as_json))
        return
    try:
        run(_again(look, every, as_json))
    except KeyboardInterrupt:
        raise Stop(code=0) from None  # that is how one ends it


# -- looking


def _look(
    kinds: Sequence[str], listening: bool, wanted: "Callable[[SocketEntry], bool]", everything: bool
) -> "tuple[list[SocketEntry], int]":
    """Return the sockets to show, and how many were left out as they are in time-wait."""
    from portico.transports.socket_list import list_sockets

    found = [entry for entry in list_sockets(kinds, listening=listening) if wanted(entry)]
    shown = found if everything else [entry for entry in found if entry.state != "time-wait"]
    return shown, len(found) - len(shown)


def _matches(entry: "SocketEntry", text: str, port: int | None, pid: int | None) -> bool:
    ends = [end for end in (entry.local, entry.remote) if end is not None]
    if text and not any(text in str(end).lower() for end in ends):
        return False
    if port is not None and (entry.kind not in ("tcp", "udp", "vsock") or port not in (end.port for end in ends)):
        return False
    return pid is None or any(process.pid == pid for process in entry.processes)


# -- showing


async def _once(look: "Callable[[], tuple[list[SocketEntry], int]]", as_json: bool) -> None:
    shown, hidden = await asyncio.to_thread(look)
    if as_json:
        print("[" + ",\n ".join(json.dumps(_facts(entry)) for entry in shown) + "]", flush=True)
    elif not sys.stdout.isatty():
        print(_plain(shown), flush=True)
    else:
        from rich.console import Console

        console = Console(highlight=False)
        console.print(_table(shown, console.width))
        for line in _remarks(shown, hidden):
            console.print(line, style="dim")


async def _again(look: "Callable[[], tuple[list[SocketEntry], int]]", every: float, as_json: bool) -> None:
    if sys.stdout.isatty() and not as_json:
        await _live(look, every)
        return
    first = True
    while True:
        shown, _ = await asyncio.to_thread(look)
        if as_json:
            print(json.dumps([_facts(entry) for entry in shown]), flush=True)
        else:
            print(_plain(shown) if first else "\n" + _plain(shown), flush=True)
        first = False
        await asyncio.sleep(every)


async def _live(look: "Callable[[], tuple[list[SocketEntry], int]]", every: float) -> None:
    from rich.console import Console
    from rich.live import Live

    console = Console(highlight=False)
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            shown, hidden = await asyncio.to_thread(look)
            live.update(_page(console, shown, hidden, every), refresh=True)
            await asyncio.sleep(every)


def _page(console: "Console", shown: "list[SocketEntry]", hidden: int, every: float) -> "RenderableType":
    """The table, as far as the terminal has room for it, and what it is below."""
    from rich.console import Group
    from rich.text import Text

    room = console.size.height - 1
    lines = console.render_lines(_table(shown, console.width), console.options, pad=False)
    rows = [Text.assemble(*((part.text, part.style or "") for part in line)) for line in lines]
    if len(rows) > room:
        rows = rows[:room]
    cut = f", {len(lines) - len(rows)} lines do not fit" if len(lines) > len(rows) else ""
    status = "; ".join([f"every {every:g} s, Ctrl-C ends{cut}", *_remarks(shown, hidden)])
    rows += [Text("")] * (room - len(rows))
    return Group(*rows, Text(status, style="dim", overflow="ellipsis", no_wrap=True))


def _table(shown: "list[SocketEntry]", width: int) -> "RenderableType":
    """A table of at most `width` columns of characters; where it is narrow, some cells stand below one another."""
    from rich.table import Table
    from rich.text import Text

    rows = [_cells(entry) for entry in shown]
    names = [name for at, name in enumerate(COLUMNS) if name not in HIDDEN_IF_EMPTY or any(row[at] for row in rows)]
    cells = [dict(zip(COLUMNS, row, strict=True)) for row in [COLUMNS, *rows]]
    wide = sum(min(max(len(row[name]) for row in cells), FOLDED.get(name, width)) + GAP for name in names) - GAP
    if wide > width:
        names = [name for name in names if name not in BELOW.values()]
        for row in cells:
            for above, below in BELOW.items():
                row[above] = "\n".join(filter(None, (row[above], row[below])))
    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold")
    for name in names:
        justify: Any = "right" if name in NUMBERS else "left"
        table.add_column(cells[0][name], justify=justify, no_wrap=name not in FOLDED, overflow="fold")
    for row in cells[1:]:
        style = {"listen": "green", "time-wait": "dim"}.get(row["state"], "")
        table.add_row(*(Text(row[name]) for name in names), style=style)
    return table


def _plain(shown: "list[SocketEntry]") -> str:
    rows = [COLUMNS, *([cell or EMPTY for cell in _cells(entry)] for entry in shown)]
    widths = [max(len(row[at]) for row in rows) for at in range(len(COLUMNS))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if name in NUMBERS else cell.ljust(width)
            for name, cell, width in zip(COLUMNS, row, widths, strict=True)
        ).rstrip()
        for row in rows
    )


def _remarks(shown: "list[SocketEntry]", hidden: int) -> list[str]:
    lines = [f"{len(shown)} {'socket' if len(shown) == 1 else 'sockets'}"]
    if hidden:
        lines[0] += f", and {hidden} in time-wait (--all shows them)"
    if os.geteuid() != 0 and any(entry.inode and not entry.processes for entry in shown):
        lines.append("processes of other users are seen by root only")
    return lines


def _cells(entry: "SocketEntry") -> list[str]:
    """What stands in `COLUMNS`."""
    process = ""
    if entry.processes:
        first, more = entry.processes[0], len(entry.processes) - 1
        process = f"{first.name}({first.pid})" + (f" +{more}" if more else "")
    unix = entry.kind.startswith("unix")
    return [
        entry.kind,
        STATES.get(entry.state, entry.state),
        f"#{entry.inode}" if unix and not entry.local.path else _end(entry.local),
        "" if not entry.remote else f"#{entry.peer_inode}" if unix and not entry.remote.path else _end(entry.remote),
        "" if entry.receive_queue is None else str(entry.receive_queue),
        "" if entry.send_queue is None else str(entry.send_queue),
        "" if entry.rtt is None else _time(entry.rtt),
        entry.user,
        process,
    ]


def _end(address: Any) -> str:
    """An address without its scheme, which is its kind, in one line of printable characters."""
    return str(address).partition(":")[2].removeprefix("//")


def _time(seconds: float) -> str:
    if seconds >= 1:
        return f"{seconds:.1f}s"
    return f"{seconds * 1e3:.{2 if seconds < 0.001 else 1 if seconds < 0.01 else 0}f}ms"


def _facts(entry: "SocketEntry") -> dict[str, Any]:
    """What JSON tells."""
    facts = asdict(entry)
    facts["local"], facts["remote"] = str(entry.local), str(entry.remote) if entry.remote else None
    return {**facts, "user": entry.user}
