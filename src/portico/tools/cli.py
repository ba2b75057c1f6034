"""The command line: every command with its options and help. What they do is in the modules beside this one."""

import socket
import tempfile
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from portico.tools.discover_command import DISCOVER_HELP, discover
from portico.tools.fetch_command import FETCH_CODES, FETCH_HELP, fetch
from portico.tools.options_command import OPTIONS_HELP, options
from portico.tools.parameters import Debug, asked_for_debug, debug_wanted, help_text, not_negative
from portico.tools.report import EXIT_CODES, INTERRUPTED, WRONG, Stop, ending, note, run
from portico.tools.sockets_command import SOCKETS_HELP, sockets

app = typer.Typer(
    name="portico",
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    try:
        code = app(args=list(arguments), prog_name="portico", standalone_mode=False)
    except _USAGE_ERROR as error:
        command = error.ctx.command_path if error.ctx is not None else "portico"
        note(f"{' '.join(error.format_message().split()).rstrip('.')}; see: {command} --help")
        return WRONG
    except typer.Abort:
        return INTERRUPTED
    except (Exception, KeyboardInterrupt) as error:
        return ending(error, debug=bool(asked_for_debug))
    return code if isinstance(code, int) else 0


_USAGE_ERROR: Any = typer.BadParameter.__base__  # UsageError of the click that typer brings along


def _version(wanted: bool) -> None:
    if wanted:
        from portico import __version__

        typer.echo(f"portico {__version__}")
        raise typer.Exit


class EndOfInput(StrEnum):
    """See `piping.EndOfInput`."""

    keep = "keep"
    close = "close"


class Loop(StrEnum):
    """See `running.LoopName`."""

    uvloop = "uvloop"
    asyncio = "asyncio"


class Level(StrEnum):
    """How much is logged."""

    debug = "debug"
    info = "info"
    warning = "warning"
    error = "error"


class Room(StrEnum):
    """What there is to demonstrate."""

    chat = "chat"


@app.callback(
    invoke_without_command=True,
    epilog=EXIT_CODES,
    help=help_text(
        "Every socket behind one front door: a chat to try out, a terminal for any socket, and your own services.",
        "Addresses are written as everywhere in Portico: [bold]localhost:80[/bold], [bold]tcp://\\[::1]:80[/bold], "
        "[bold]tls://host:443[/bold], [bold]udp://host:53[/bold], [bold]unix:/run/x.sock[/bold], "
        "[bold]unix:@abstract[/bold].",
    ),
)
def portico(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", metavar="", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
    debug: Annotated[
        bool,
        typer.Option("--debug", metavar="", callback=debug_wanted, is_eager=True, help="Show tracebacks of errors."),
    ] = False,
) -> None:
    """Every socket behind one front door: a chat to try out, a terminal for any socket, and your own services."""
    if context.invoked_subcommand != "run":
        from portico.tools.logs import set_up_logging

        set_up_logging("info" if context.invoked_subcommand == "listen" else "warning", debug=debug)
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


# demo

ROOM_NAME = "the Portico chat"


@app.command(
    epilog=EXIT_CODES,
    help=help_text(
        "A chat on a page, on TCP, on TLS with a throw-away certificate, on a Unix socket and on UDP, all one room.",
        "It prints the address of the page, and the exact command to type for each other door. Ctrl-C tells everybody "
        "and closes it.",
        "With [bold]--bots[/bold] it ends by itself, with exit code 0 if every message reached everybody else, and "
        "1 if not; the bots use free ports of this machine, whatever --host and --port say.",
        "[bold]--announce[/bold] makes it known to the local network, as far as --host lets others in; "
        "[bold]--discover[/bold] finds such a room and joins it.",
        examples=[
            "portico demo",
            "portico demo --host '*' --announce",
            "portico demo chat --discover",
            "portico demo --host '*' --port 7000",
            "portico demo --bots 50 --seconds 5",
        ],
    ),
)
def demo(
    room: Annotated[Room, typer.Argument(help="What to demonstrate.", show_default=True)] = Room.chat,
    host: Annotated[
        str,
        typer.Option(
            metavar="HOST",
            help="Where the page, TCP, TLS and UDP listen; '*' is every interface.",
            rich_help_panel="Where",
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65535,
            metavar="PORT",
            help="Port of TCP and UDP; TLS gets the next one. Default: 9000, or a free one if that is taken.",
            show_default=False,
            rich_help_panel="Where",
        ),
    ] = None,
    web_port: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65535,
            metavar="PORT",
            help="Port of the page. Default: 8000, or a free one if that is taken or --port is 0.",
            show_default=False,
            rich_help_panel="Where",
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="What the room is called.", show_default=ROOM_NAME)
    ] = None,
    announce: Annotated[
        bool,
        typer.Option("--announce", metavar="", help="Tell the local network of it.", rich_help_panel="Local network"),
    ] = False,
    discover: Annotated[
        bool,
        typer.Option(
            "--discover", metavar="", help="Find a room, or the --name, and join it.", rich_help_panel="Local network"
        ),
    ] = False,
    bots: Annotated[
        int,
        typer.Option(
            min=0, max=1000, metavar="N", help="Let N scripted people chat over all doors.", rich_help_panel="Bots"
        ),
    ] = 0,
    seconds: Annotated[
        float, typer.Option(callback=not_negative, metavar="S", help="For how long they chat.", rich_help_panel="Bots")
    ] = 5.0,
    debug: Debug = False,
) -> None:
    """A chat on a page, on TCP, on TLS with a throw-away certificate, on a Unix socket and on UDP, all one room."""
    if discover + announce + bool(bots) > 1:
        raise Stop("--discover, --announce and --bots exclude one another", WRONG, "give one of them")
    if discover:
        from portico.tools.nearby import join_chat

        run(join_chat(name))
        return
    title = ROOM_NAME if name is None else name
    if bots:
        from portico.tools.bots import run_bots

        if not run(run_bots(bots, seconds, title)):
            raise Stop()
        return
    from portico.tools.demo import run_demo

    run_demo(host, port, web_port, title, announced=announce)


# connect and listen

Where = Annotated[
    str,
    typer.Argument(
        metavar="ADDRESS",
        help="Such as localhost:80, tls://host:443, udp://host:53, unix:/run/x.sock; likewise unixgram:, "
        "unixpacket:, vsock://, raw://, packet://, fifo: and device:.",
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
Interface = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Interface of a multicast group; default: as the kernel routes it.",
        rich_help_panel="Connection",
    ),
]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", metavar="", help="Tell on stderr who is connected.")]
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


@app.command(
    epilog=EXIT_CODES,
    help=help_text(
        "Connect the terminal, or whatever is piped in and out, to a socket.",
        "With [bold]--eof keep[/bold] the end of the input ends this side of the connection only (half-close), and "
        "the program ends when the peer has ended its side, too; what is left of the input is still sent when the "
        "peer ends first, unless it is typed. That is what nc -N does. With [bold]--eof close[/bold] the end of "
        "either direction ends all.",
        "Where packets are carried each line that is typed is one, and of other input up to 8 KiB. Over UDP and Unix "
        "datagram nobody can tell an end: it ends a second after the last packet once the input is over. Of a "
        "multicast group, or with [bold]--broadcast[/bold] a whole network, whoever answers is heard.",
        examples=[
            "portico connect localhost:9000",
            "portico connect tls://example.org:443 --hex",
            "portico connect unix:/run/x.sock < request > answer",
            "portico connect udp://localhost:5353",
            "portico connect udp://239.1.2.3:5000 --interface eth0",
            "portico connect device:/dev/ttyS0",
            "portico connect tls://example.org:443 --proxy socks5h://localhost:1080",
        ],
    ),
)
def connect(
    address: Where,
    eof: Eof = EndOfInput.keep,
    hex: Hex = False,
    timeout: Annotated[
        float,
        typer.Option(
            callback=not_negative,
            metavar="SECONDS",
            help="For lookup, connecting and TLS; 0: no end.",
            rich_help_panel="Connection",
        ),
    ] = 10.0,
    source: Annotated[
        str | None,
        typer.Option(metavar="HOST[:PORT]", help="Local address to connect from.", rich_help_panel="Connection"),
    ] = None,
    proxy: Annotated[
        list[str] | None,
        typer.Option(
            metavar="URL",
            help="Through a proxy: socks5h://user:password@host:1080, http://host:3128, …; several for a chain, the "
            "nearest first; the word environment: as ALL_PROXY and the like say.",
            rich_help_panel="Connection",
        ),
    ] = None,
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
    tls: UseTLS = False,
    ca: Annotated[
        Path | None,
        typer.Option(
            "--ca",
            metavar="FILE",
            help="Whom to trust (PEM, or a directory); default: the system's authorities.",
            rich_help_panel="TLS",
        ),
    ] = None,
    cert: Cert = None,
    key: Key = None,
    insecure: Annotated[
        bool,
        typer.Option(
            "--insecure", metavar="", help="Trust anybody. Whoever is on the way can read it.", rich_help_panel="TLS"
        ),
    ] = False,
    server_name: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Name to ask for and to expect; default: the host.", rich_help_panel="TLS"),
    ] = None,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """Connect the terminal, or whatever is piped in and out, to a socket."""
    from portico.tools.piping import run_connect
    from portico.transports.tls import TLS

    settings = None
    if tls or ca or cert or key or insecure or server_name:
        settings = TLS(certificate=cert, key=key, ca=ca, verify=not insecure, server_name=server_name)
    run(
        run_connect(
            address,
            tls=settings,
            timeout=timeout or None,
            source=source,
            proxy="environment" if proxy == ["environment"] else proxy,
            interface=interface,
            broadcast=broadcast,
            eof=eof.value,
            hex=hex,
            verbose=verbose,
        )
    )


@app.command(
    epilog=EXIT_CODES,
    help=help_text(
        "Wait for a connection, and be its terminal, or whatever is piped in and out.",
        "Where it listens is told on stderr; port 0 takes a free one. TLS without [bold]--cert[/bold] uses a "
        "throw-away certificate and tells where it is. [bold]--eof[/bold] is as for connect. A slow peer slows "
        "down the input of all; one that takes nothing for a minute is dropped with --keep-open.",
        "A multicast group is joined, and the input is sent to it. Raw and link-layer sockets (for root) only hear, "
        "and a FIFO, which is made where there is none, is only read.",
        examples=[
            "portico listen 127.0.0.1:9000",
            "portico listen :9000 --keep-open < /dev/null >> log",
            "portico listen localhost:9001 --tls --hex",
            "portico listen udp://:5000 --keep-open --hex",
            "portico listen udp://239.1.2.3:5000 --interface eth0",
            "portico listen packet://eth0 --hex",
            "portico listen fifo:/tmp/pipe",
        ],
    ),
)
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
    from portico.address import Address
    from portico.tools.listening import run_listen
    from portico.transports.tls import TLS

    where = Address.parse(address)
    with tempfile.TemporaryDirectory(prefix="portico-", ignore_cleanup_errors=True) as directory:
        settings = None
        if tls or cert or key or ca or where.scheme == "tls":
            pair: tuple[Path | str, Path | str | None] = (
                (cert, key) if cert else (_throwaway(where.host, directory), None)
            )
            settings = TLS(certificate=pair[0], key=pair[1], client_authority=ca)
            where = where.replace(scheme="tls") if where.scheme == "tcp" else where
        run(
            run_listen(
                where,
                tls=settings,
                interface=interface,
                eof=eof.value,
                hex=hex,
                keep_open=keep_open,
                timeout=timeout or None,
                verbose=verbose,
            )
        )


# run


@app.command(
    "run",
    epilog=EXIT_CODES,
    help=help_text(
        "Run a service of yours until SIGTERM or Ctrl-C, which drain it; a second one aborts what is left.",
        "SERVICE is a portico.Service in that module, or a function without arguments that returns one. Where it "
        "listens, and who can reach it, is told on stderr. Modules are looked for in the current directory, too.",
        examples=[
            "portico run app:service",
            "portico run ./app.py:make_service --config app.toml --log-level warning",
        ],
    ),
)
def run_(
    service: Annotated[str, typer.Argument(metavar="MODULE:SERVICE", help="Or FILE.py:SERVICE.")],
    loop: Annotated[Loop, typer.Option(metavar="uvloop|asyncio", help="Which event loop.")] = Loop.uvloop,
    config: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="TOML file: \\[limits] for all listeners, \\[tls] for those on TCP."),
    ] = None,
    log_level: Annotated[Level, typer.Option(metavar="LEVEL", help="debug, info, warning or error.")] = Level.info,
    debug: Debug = False,
) -> None:
    """Run a service of yours until SIGTERM or Ctrl-C, which drain it; a second one aborts what is left."""
    from portico.tools import logs
    from portico.tools.loading import run_service

    logs.set_up_logging(log_level.value, pattern=logs.TIMED, debug=debug or bool(asked_for_debug))
    run_service(service, loop=loop.value, config=config, debug=debug)


# resolve


@app.command(
    epilog=EXIT_CODES,
    help=help_text(
        "Print the addresses of a name, one a line, in the order in which they are tried.",
        "With --reverse each line has the address, its host name and, if a service was asked for, the name of that, "
        "separated by tabs.",
        examples=[
            "portico resolve localhost",
            "portico resolve example.org:https -6",
            "portico resolve 127.0.0.1 --reverse",
        ],
    ),
)
def resolve(
    target: Annotated[
        str, typer.Argument(metavar="HOST[:SERVICE]", help="A name or an address; with a port or service.")
    ],
    numeric: Annotated[
        bool, typer.Option("--numeric", "-n", metavar="", help="Ask nobody: names do not resolve.")
    ] = False,
    reverse: Annotated[
        bool, typer.Option("--reverse", "-r", metavar="", help="Print the names of each address, too.")
    ] = False,
    four: Annotated[bool, typer.Option("-4", metavar="", help="IPv4 addresses only.")] = False,
    six: Annotated[bool, typer.Option("-6", metavar="", help="IPv6 addresses only.")] = False,
    timeout: Annotated[
        float, typer.Option(callback=not_negative, metavar="SECONDS", help="For each lookup; 0: as long as it takes.")
    ] = 10.0,
    debug: Debug = False,
) -> None:
    """Print the addresses of a name, one a line, in the order in which they are tried."""
    from portico.tools.lookup import run_resolve

    if four and six:
        raise Stop("-4 and -6 together leave nothing", WRONG, "give one of them, or neither")
    family = socket.AF_INET if four else socket.AF_INET6 if six else 0
    run(run_resolve(target, numeric=numeric, reverse=reverse, family=family, timeout=timeout or None))


app.command(epilog=EXIT_CODES, help=SOCKETS_HELP)(sockets)
app.command(epilog=EXIT_CODES, help=DISCOVER_HELP)(discover)
app.command(epilog=EXIT_CODES, help=OPTIONS_HELP)(options)
app.command(epilog=FETCH_CODES, help=FETCH_HELP)(fetch)


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
