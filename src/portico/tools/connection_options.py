"""The options that `portico connect`, `portico listen` and `portico fetch` share."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from portico.tools.report import WRONG, Stop

if TYPE_CHECKING:
    from portico.transports.tls import TLS


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
Source = Annotated[
    str | None,
    typer.Option(metavar="HOST[:PORT]", help="Local address to connect from.", rich_help_panel="Connection"),
]
Through = Annotated[
    list[str] | None,
    typer.Option(
        metavar="URL",
        help="Through a proxy: socks5h://user:password@host:1080, http://host:3128, …; several for a chain, the "
        "nearest first; the word environment: as ALL_PROXY and the like say.",
        rich_help_panel="Connection",
    ),
]
Trusted = Annotated[
    Path | None,
    typer.Option(
        "--ca",
        metavar="FILE",
        help="Whom to trust (PEM, or a directory); default: the system's authorities.",
        rich_help_panel="TLS",
    ),
]
Insecure = Annotated[
    bool,
    typer.Option(
        "--insecure", metavar="", help="Trust anybody. Whoever is on the way can read it.", rich_help_panel="TLS"
    ),
]
ServerName = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Name to ask for and to expect; default: the host.", rich_help_panel="TLS"),
]
User = Annotated[
    str | None,
    typer.Option(metavar="NAME:PASSWORD", help="Log in to the web server as this user.", rich_help_panel="Login"),
]
Bearer = Annotated[
    str | None, typer.Option(metavar="TOKEN", help="Log in to the web server with a token.", rich_help_panel="Login")
]


def tls_of_client(
    ca: Path | None,
    cert: Path | None,
    key: Path | None,
    insecure: bool,
    server_name: str | None,
    *,
    wanted: bool = False,
) -> "TLS | None":
    """Return the TLS that the options say; None: they say nothing of it, and it is not `wanted` either."""
    if not (wanted or ca or cert or key or insecure or server_name):
        return None
    from portico.transports.tls import TLS

    return TLS(certificate=cert, key=key, ca=ca, verify=not insecure, server_name=server_name)


def proxies_of(proxy: list[str] | None) -> "list[str] | Literal['environment'] | None":
    """Return what `--proxy` says, for `connect`."""
    return "environment" if proxy == ["environment"] else proxy


def credentials(user: str | None, bearer: str | None) -> tuple[str, str] | str | None:
    """Return what `--user` and `--bearer` say.

    :raises Stop: both are given, or there is no password"""
    if user is None:
        return bearer
    if bearer is not None:
        raise Stop("--user and --bearer exclude one another", WRONG, "give one of them")
    name, colon, password = user.partition(":")
    if not colon:
        raise Stop("--user has no password", WRONG, "write it as NAME:PASSWORD")
    return name, password
