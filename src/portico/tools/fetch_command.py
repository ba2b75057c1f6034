"""`portico fetch`: one HTTP request, its answer on standard output or in a file."""

import asyncio
import os
from collections.abc import AsyncIterable, AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from portico.tools.connection_options import (
    Bearer,
    Cert,
    Insecure,
    Key,
    ServerName,
    Source,
    Through,
    Trusted,
    User,
    credentials,
    proxies_of,
    tls_of_client,
)
from portico.tools.parameters import Debug, header_field, help_text, not_negative
from portico.tools.report import EXIT_CODES, Stop, failure, run
from portico.tools.report import REFUSED as REMEDIES

if TYPE_CHECKING:
    from portico.web.fetch import Fetching
    from portico.web.fetched import Fetched

REFUSED = 22
"""The exit code of an answer with a status of 400 or more, as curl -f has it."""

PIECE = 256 * 1024
"""Bytes of a file that are sent at a time."""

FETCH_HELP = help_text(
    "Ask an HTTP server, and write the body of its answer to standard output.",
    "URL is http://, https:// or http+unix:PATH:/resource for a Unix socket; without a scheme it is http://. Up to "
    "five redirects are followed, never from https to http. A status of 400 or more is an error: exit code 22, the "
    "first line of the answer on stderr, and nothing on standard output.",
    "[bold]--data[/bold] makes it a POST: the text itself, [bold]@FILE[/bold] for a file, [bold]-[/bold] for standard "
    "input. Its Content-Type is text/plain, or application/octet-stream, unless a --header says otherwise.",
    examples=[
        "portico fetch localhost:8000/healthz",
        "portico fetch https://example.org/file -o file",
        "portico fetch localhost:8000/say -d 'Good morning' -H 'X-Room: blue'",
        "portico fetch https://example.org/feed --bearer TOKEN",
        "tar c . | portico fetch -X PUT localhost:8000/backup -d -",
        "portico fetch http+unix:/run/app.sock:/metrics",
    ],
)

FETCH_CODES = EXIT_CODES.replace("130", f"{REFUSED} the server answered with a status of 400 or more; 130")


def fetch(
    url: Annotated[
        str, typer.Argument(metavar="URL", help="Such as localhost:8000/x, https://host/x, http+unix:/run/x.sock:/x.")
    ],
    method: Annotated[
        str | None,
        typer.Option(
            "--method",
            "-X",
            metavar="WORD",
            help="Default: GET, or POST with --data.",
            show_default=False,
            rich_help_panel="Request",
        ),
    ] = None,
    header: Annotated[
        list[str] | None,
        typer.Option(
            "--header",
            "-H",
            metavar="'NAME: VALUE'",
            help="Send this field, too, or in place of ours; may be given again.",
            rich_help_panel="Request",
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            "--data", "-d", metavar="TEXT|@FILE|-", help="What to send; - is standard input.", rich_help_panel="Request"
        ),
    ] = None,
    include: Annotated[
        bool,
        typer.Option(
            "--include", "-i", metavar="", help="Write status and header fields, too.", rich_help_panel="Answer"
        ),
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Write to FILE, once the server has answered.",
            rich_help_panel="Answer",
        ),
    ] = None,
    check: Annotated[
        bool,
        typer.Option(
            "--check/--no-check",
            metavar="",
            help="Whether a status of 400 or more is an error, or an answer as any other.",
            rich_help_panel="Answer",
        ),
    ] = True,
    timeout: Annotated[
        float,
        typer.Option(
            callback=not_negative,
            metavar="SECONDS",
            help="For everything up to the end of the body; 0: no end.",
            rich_help_panel="Connection",
        ),
    ] = 60.0,
    user: User = None,
    bearer: Bearer = None,
    source: Source = None,
    proxy: Through = None,
    ca: Trusted = None,
    cert: Cert = None,
    key: Key = None,
    insecure: Insecure = False,
    server_name: ServerName = None,
    debug: Debug = False,
) -> None:
    """Ask an HTTP server, and write the body of its answer to standard output."""
    from portico.errors import ClosedError, StatusError
    from portico.web.fetch import fetch as ask

    settings = tls_of_client(ca, cert, key, insecure, server_name)
    headers = [header_field(each) for each in header or []]
    body = None if data is None else _body(data)
    if isinstance(body, File):
        headers += body.length(headers)
    asking = ask(
        url,
        method,
        headers=headers,
        body=body,
        credentials=credentials(user, bearer),
        check=check,
        timeout=timeout or None,
        tls=settings,
        proxy=proxies_of(proxy),
        source=source,
    )
    try:
        run(_write(asking, output, include=include))
    except StatusError as error:
        hint = REMEDIES[401] if error.status == 401 and not (user or bearer) else ""
        raise Stop(failure(error)[0], REFUSED, hint) from error
    except ClosedError as error:
        raise Stop(str(error).replace("more timeout", "more --timeout")) from error


async def _write(asking: "Fetching", output: Path | None, *, include: bool) -> None:
    """Write the answer as it comes: what reads slowly makes the server wait."""
    from portico.tools.terminal import Terminal

    async with asking as answer:
        sink = 1 if output is None else os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        try:
            terminal = Terminal(sink=sink)
            if include:
                await terminal.write(_head(answer))
            async for piece in answer:
                await terminal.write(piece)
        finally:
            if output is not None:
                os.close(sink)


def _head(answer: "Fetched") -> bytes:
    lines = [f"HTTP/{answer.version} {answer.status} {answer.reason}".rstrip()]
    lines += [f"{name}: {value}" for name, value in answer.headers]
    return "".join(f"{line}\r\n" for line in [*lines, ""]).encode("latin-1")


def _body(data: str) -> "str | AsyncIterable[bytes]":
    if data == "-":
        return _standard_input()
    return File(Path(data[1:])) if data.startswith("@") else data


async def _standard_input() -> AsyncIterator[bytes]:
    from portico.tools.terminal import Terminal

    terminal = Terminal()
    while piece := await terminal.read():
        yield piece


class File:
    """A file as a body; it can be sent again after a redirect."""

    def __init__(self, path: Path) -> None:
        """:raises OSError: there is none, or it cannot be read"""
        self._path = path
        self._size: int | None = None
        if path.is_file():
            with path.open("rb") as file:
                self._size = os.fstat(file.fileno()).st_size
        else:
            path.stat()

    def length(self, headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
        """Return the field that tells how long it is, unless `headers` do, or that cannot be known (a FIFO)."""
        told = self._size is None or any(name.lower() == "content-length" for name, _ in headers)
        return [] if told else [("Content-Length", str(self._size))]

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with await asyncio.to_thread(self._path.open, "rb") as file:
            while piece := await asyncio.to_thread(file.read, PIECE):
                yield piece
