"""`portico discover`: what is announced on the local network."""

import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from portico.tools.parameters import Debug, help_text, not_negative
from portico.tools.report import WRONG, Stop, note, run

if TYPE_CHECKING:
    from portico.discovery import Browser, Found

DISCOVER_HELP = help_text(
    "Show what is announced on the local network, by DNS-SD over multicast DNS.",
    "Without TYPE: the types of services that there are, one a line. With it: each service, where it listens, best "
    "address first, and what it says of itself. Piped, each line has name, addresses and properties, separated by "
    "tabs. With [bold]--watch[/bold] a line for each change begins with + or -, and Ctrl-C is the way out, with exit "
    "code 0. Nothing that is found is proven: anybody may announce any name.",
    examples=[
        "portico discover",
        "portico discover _portico-chat._tcp",
        "portico discover _http._tcp --watch --interface eth0",
    ],
)


def discover(
    service_type: Annotated[
        str | None, typer.Argument(metavar="TYPE", help="Such as _http._tcp.", show_default=False)
    ] = None,
    timeout: Annotated[
        float,
        typer.Option(callback=not_negative, metavar="SECONDS", help="For how long to listen, without --watch."),
    ] = 3.0,
    watch: Annotated[
        bool, typer.Option("--watch", metavar="", help="Tell what comes and goes until Ctrl-C; needs TYPE.")
    ] = False,
    interface: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Listen on this network interface; may be given again.", show_default="all"),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", metavar="", help="Print a JSON array; with --watch an object a line.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Show what is announced on the local network, by DNS-SD over multicast DNS."""
    if service_type is None:
        if watch:
            raise Stop("--watch needs a TYPE", WRONG, "such as _http._tcp")
        run(_types(timeout, interface, as_json))
    elif not watch:
        run(_services(service_type, timeout, interface, as_json))
    else:
        try:
            run(_changes(service_type, interface, as_json))
        except KeyboardInterrupt:
            raise Stop(code=0) from None  # that is how one ends it


async def _types(timeout: float, on: list[str] | None, as_json: bool) -> None:
    from portico.discovery import service_types

    found = await service_types(timeout=timeout, interfaces=on)
    if as_json:
        print(json.dumps(found), flush=True)
    elif found:
        print("\n".join(found), flush=True)
    if not found:
        raise Stop(f"nobody announced anything within {timeout:g} s")


async def _services(service_type: str, timeout: float, on: list[str] | None, as_json: bool) -> None:
    from portico.discovery import browse

    async with browse(service_type, timeout=timeout, interfaces=on) as changes:
        async for _ in changes:
            pass
    found = sorted(changes.services, key=lambda each: each.name.casefold())
    if as_json:
        print("[" + ",\n ".join(json.dumps(_facts(each)) for each in found) + "]", flush=True)
    elif found and sys.stdout.isatty():
        _show(found)
    elif found:
        print("\n".join(map(_line, found)), flush=True)
    if not found:
        raise Stop(f"nobody announced {changes.type} within {timeout:g} s")


async def _changes(service_type: str, on: list[str] | None, as_json: bool) -> None:
    from portico.discovery import browse

    async with browse(service_type, interfaces=on) as changes:
        note(f"watching {changes.type}; Ctrl-C ends")
        await _tell(changes, as_json)


async def _tell(changes: "Browser", as_json: bool) -> None:
    from portico.discovery import Found

    async for change in changes:
        came = isinstance(change, Found)
        what = change if isinstance(change, Found) else change.found
        if as_json:
            print(json.dumps({"change": "found" if came else "lost", **_facts(what)}), flush=True)
        else:
            print(f"{'+' if came else '-'} {_line(what)}", flush=True)


def _line(found: "Found") -> str:
    return "\t".join((_shown(found.name), " ".join(map(str, found.addresses)), _properties(found)))


def _properties(found: "Found") -> str:
    """What it says of itself, but for the scheme, which the addresses show."""
    pairs = ((key, value) for key, value in found.properties.items() if key != "scheme")
    return _shown(" ".join(key if value is None else f"{key}={value}" for key, value in pairs))


def _shown(text: str) -> str:
    """What the network says, as a terminal can take it."""
    from portico.tools.chat import clean

    return clean(text)


def _facts(found: "Found") -> dict[str, Any]:
    """What JSON tells."""
    return {
        "name": found.name,
        "type": found.type,
        "host": found.host,
        "addresses": [str(each) for each in found.addresses],
        "interface": found.interface,
        "properties": dict(found.properties),
    }


def _show(found: "list[Found]") -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    with_properties = any(_properties(each) for each in found)
    for title in ("name", "addresses", *(["properties"] if with_properties else [])):
        table.add_column(title, overflow="fold")
    for each in found:
        cells = [_shown(each.name), "\n".join(map(str, each.addresses))]
        table.add_row(*map(Text, [*cells, _properties(each)][: len(table.columns)]))
    Console(highlight=False).print(table)
