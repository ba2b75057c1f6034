"""The options that `portico connect` and `portico listen` share."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class EndOfInput(StrEnum):
    """See `piping.EndOfInput`."""

    keep = "keep"
    close = "close"


Where = Annotated[
    str,
    typer.Argument(
        metavar="ADDRESS",
        help="Such as localhost:80, tls://host:443, udp://host:53, unix:/run/x.sock, ws://host/path, wss://host/path, "
        "ws+unix:/run/x.sock:/path; likewise unixgram:, unixpacket:, vsock://, raw://, packet://, fifo: and device:.",
    ),
]
Eof = Annotated[
    EndOfInput,
    typer.Option(
        metavar="keep|close",
        help="What the end of one direction means for the other: keep lets it go on, close ends it.",
        rich_help_panel="Data",
    ),
]
Hex = Annotated[
    bool,
    typer.Option(
        "--hex",
        metavar="",
        help="Print both directions as a hex dump: > is sent, < is received.",
        rich_help_panel="Data",
    ),
]
Binary = Annotated[
    bool,
    typer.Option(
        "--binary",
        metavar="",
        help="Send binary messages of up to 64 KiB through a WebSocket, in place of a text for each line.",
        rich_help_panel="Data",
    ),
]
Interface = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Interface of a multicast group; default: as the kernel routes it.",
        rich_help_panel="Connection",
    ),
]
Verbose = Annotated[
    bool,
    typer.Option(
        "--verbose", "-v", metavar="", help="Tell on stderr who is connected; of WebSockets also round-trip times."
    ),
]
UseTLS = Annotated[
    bool, typer.Option("--tls", metavar="", help="Speak TLS; each option below means it, too.", rich_help_panel="TLS")
]
Cert = Annotated[
    Path | None,
    typer.Option(
        "--cert", metavar="FILE", help="Certificate of this side, with its chain (PEM).", rich_help_panel="TLS"
    ),
]
Key = Annotated[
    Path | None,
    typer.Option("--key", metavar="FILE", help="Its key, unless it is in the same file.", rich_help_panel="TLS"),
]
