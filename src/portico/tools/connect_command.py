"""`portico connect`: its options and help; what it does is in `piping`."""

from typing import Annotated

import typer

from portico.tools.connection_options import (
    Bearer,
    Binary,
    Cert,
    EndOfInput,
    Eof,
    Hex,
    Insecure,
    Interface,
    Key,
    ServerName,
    Source,
    Through,
    Trusted,
    User,
    UseTLS,
    Verbose,
    Where,
    credentials,
    proxies_of,
    tls_of_client,
)
from portico.tools.parameters import Debug, help_text, not_negative
from portico.tools.report import run
from portico.tools.websocket_options import (
    MAX_SIZE,
    PING,
    Cookie,
    Header,
    MaxSize,
    NoCompress,
    Origin,
    Ping,
    Subprotocol,
    cookies,
    refuse_http,
    settings_for,
)

CONNECT_HELP = help_text(
    "Connect the terminal, or whatever is piped in and out, to a socket.",
    "With [bold]--eof keep[/bold] the end of the input ends this side of the connection only (half-close), and "
    "the program ends when the peer has ended its side, too; what is left of the input is still sent when the "
    "peer ends first, unless it is typed. That is what nc -N does. With [bold]--eof close[/bold] the end of "
    "either direction ends all.",
    "Where packets are carried each line that is typed is one, and of other input up to 8 KiB. Over UDP and Unix "
    "datagram nobody can tell an end: it ends a second after the last packet once the input is over. Of a "
    "multicast group, or with [bold]--broadcast[/bold] a whole network, whoever answers is heard.",
    "Through a WebSocket each line leaves as a text message, and each text that comes is a line; what comes as binary "
    "is written as it is. A WebSocket has no half-close: a second after the last message, once the input is over, it "
    "is closed (1000). What the peer says at the end is told on stderr.",
    examples=[
        "portico connect localhost:9000",
        "portico connect tls://example.org:443 --hex",
        "portico connect unix:/run/x.sock < request > answer",
        "portico connect wss://example.org/feed -v --bearer TOKEN",
        "echo hello | portico connect ws://localhost:8000/chat",
        "portico connect udp://localhost:5353",
        "portico connect udp://239.1.2.3:5000 --interface eth0",
        "portico connect device:/dev/ttyS0",
        "portico connect tls://example.org:443 --proxy socks5h://localhost:1080",
    ],
)


def connect(
    address: Where,
    eof: Eof = EndOfInput.keep,
    hex: Hex = False,
    binary: Binary = False,
    timeout: Annotated[
        float,
        typer.Option(
            callback=not_negative,
            metavar="SECONDS",
            help="For lookup, connecting, TLS and the handshake of a WebSocket; 0: no end.",
            rich_help_panel="Connection",
        ),
    ] = 10.0,
    source: Source = None,
    proxy: Through = None,
    interface: Interface = None,
    broadcast: Annotated[
        bool,
        typer.Option(
            "--broadcast",
            metavar="",
            help="Let ADDRESS be a broadcast address.",
            rich_help_panel="Connection",
        ),
    ] = False,
    header: Header = None,
    subprotocol: Subprotocol = None,
    origin: Origin = None,
    user: User = None,
    bearer: Bearer = None,
    cookie: Cookie = None,
    no_compress: NoCompress = False,
    ping: Ping = PING,
    max_size: MaxSize = MAX_SIZE,
    tls: UseTLS = False,
    ca: Trusted = None,
    cert: Cert = None,
    key: Key = None,
    insecure: Insecure = False,
    server_name: ServerName = None,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """Connect the terminal, or whatever is piped in and out, to a socket."""
    from portico.address import Address
    from portico.tools.piping import run_connect

    where = Address.parse(address)
    refuse_http(where, f"ask with: portico fetch {where}")
    settings = tls_of_client(ca, cert, key, insecure, server_name, wanted=tls)
    websocket = settings_for(
        where,
        header=header,
        subprotocol=subprotocol,
        no_compress=no_compress,
        ping=ping,
        max_size=max_size,
        binary=binary,
        origin=origin,
        credentials=credentials(user, bearer),
        cookies=cookies(cookie),
    )
    run(
        run_connect(
            where,
            tls=settings,
            timeout=timeout or None,
            source=source,
            proxy=proxies_of(proxy),
            interface=interface,
            broadcast=broadcast,
            websocket=websocket,
            binary=binary,
            eof=eof.value,
            hex=hex,
            verbose=verbose,
        )
    )
