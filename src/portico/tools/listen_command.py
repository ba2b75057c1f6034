"""`portico listen`: its options and help; what it does is in `listening`."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from portico.tools.connection_options import (
    Binary,
    Cert,
    EndOfInput,
    Eof,
    Hex,
    Interface,
    Key,
    UseTLS,
    Verbose,
    Where,
)
from portico.tools.parameters import Debug, help_text, not_negative
from portico.tools.report import note, run
from portico.tools.websocket_options import (
    MAX_SIZE,
    PING,
    Header,
    MaxSize,
    NoCompress,
    Origins,
    Ping,
    Subprotocol,
    origins,
    refuse_http,
    settings_for,
)

if TYPE_CHECKING:
    from portico.address import Address
    from portico.transports.tls import TLS

LISTEN_HELP = help_text(
    "Wait for a connection, and be its terminal, or whatever is piped in and out.",
    "Where it listens is told on stderr; port 0 takes a free one. TLS without [bold]--cert[/bold] uses a "
    "throw-away certificate and tells where it is. [bold]--eof[/bold] is as for connect. A slow peer slows "
    "down the input of all; one that takes nothing for a minute is dropped with --keep-open.",
    "At ws:// and wss:// it takes WebSockets at that path, with messages as for connect; other requests are refused.",
    "A multicast group is joined, and the input is sent to it. Raw and link-layer sockets (for root) only hear, "
    "and a FIFO, which is made where there is none, is only read.",
    examples=[
        "portico listen 127.0.0.1:9000",
        "portico listen :9000 --keep-open < /dev/null >> log",
        "portico listen localhost:9001 --tls --hex",
        "portico listen ws://localhost:8000/chat --keep-open -v",
        "portico listen udp://:5000 --keep-open --hex",
        "portico listen udp://239.1.2.3:5000 --interface eth0",
        "portico listen packet://eth0 --hex",
        "portico listen fifo:/tmp/pipe",
    ],
)

SECURED = {"tcp": "tls", "ws": "wss"}
"""What schemes become with TLS."""


def listen(
    address: Where,
    keep_open: Annotated[
        bool,
        typer.Option(
            "--keep-open/--once",
            "-k",
            metavar="",
            help="Take many connections until Ctrl-C: input goes to all of them; or just the first, as nc -l does.",
            rich_help_panel="Connection",
        ),
    ] = False,
    timeout: Annotated[
        float,
        typer.Option(
            callback=not_negative,
            metavar="SECONDS",
            help="Give up if nobody connects; 0: wait.",
            rich_help_panel="Connection",
        ),
    ] = 0.0,
    interface: Interface = None,
    eof: Eof = EndOfInput.keep,
    hex: Hex = False,
    binary: Binary = False,
    header: Header = None,
    subprotocol: Subprotocol = None,
    allowed: Origins = None,
    no_compress: NoCompress = False,
    ping: Ping = PING,
    max_size: MaxSize = MAX_SIZE,
    tls: UseTLS = False,
    cert: Cert = None,
    key: Key = None,
    ca: Annotated[
        Path | None,
        typer.Option(
            "--ca", metavar="FILE", help="Demand a certificate that this authority has signed.", rich_help_panel="TLS"
        ),
    ] = None,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """Wait for a connection, and be its terminal, or whatever is piped in and out."""
    from portico.address import SCHEMES, Address
    from portico.tools.listening import run_listen

    where = Address.parse(address)
    refuse_http(where, "a portico.Door answers it; see: portico run --help")
    websocket = settings_for(
        where,
        header=header,
        subprotocol=subprotocol,
        no_compress=no_compress,
        ping=ping,
        max_size=max_size,
        binary=binary,
        origins=origins(allowed),
    )
    with tempfile.TemporaryDirectory(prefix="portico-", ignore_cleanup_errors=True) as directory:
        settings = None
        if tls or cert or key or ca or SCHEMES[where.scheme].secure:
            settings = _tls(where, cert, key, ca, directory)
            where = where.replace(scheme=SECURED.get(where.scheme, where.scheme))
        run(
            run_listen(
                where,
                tls=settings,
                interface=interface,
                websocket=websocket,
                binary=binary,
                eof=eof.value,
                hex=hex,
                keep_open=keep_open,
                timeout=timeout or None,
                verbose=verbose,
            )
        )


def _tls(where: "Address", cert: Path | None, key: Path | None, ca: Path | None, directory: str) -> "TLS":
    from portico.transports.tls import TLS

    pair: tuple[Path | str, Path | str | None] = (cert, key) if cert else (_throwaway(where.host, directory), None)
    return TLS(certificate=pair[0], key=pair[1], client_authority=ca)


def _throwaway(host: str, directory: str) -> str:
    """Make a certificate for the listener at `host`, tell where it is, and return one file with it and its key."""
    from portico.transports.tls import throwaway_certificate

    names = dict.fromkeys(["localhost", "127.0.0.1", "::1", *([host] if host else [])])
    certificate, key = throwaway_certificate(list(names), directory=directory)
    both = Path(directory) / "both.pem"
    both.touch(0o600)
    both.write_text(Path(certificate).read_text() + Path(key).read_text())
    note(f"TLS with a throw-away certificate: clients trust it with --ca {certificate}")
    return str(both)
