"""The command line: every command with its options and help. What they do is in the modules beside this one."""

import socket
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from portico.tools.connect_command import CONNECT_HELP, connect
from portico.tools.discover_command import DISCOVER_HELP, discover
from portico.tools.fetch_command import FETCH_CODES, FETCH_HELP, fetch
from portico.tools.listen_command import LISTEN_HELP, listen
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


app.command(epilog=EXIT_CODES, help=CONNECT_HELP)(connect)
app.command(epilog=EXIT_CODES, help=LISTEN_HELP)(listen)


@app.command(
    "run",
    epilog=EXIT_CODES,
    help=help_text(
        "Run a service of yours until SIGTERM or Ctrl-C, which drain it; a second one aborts what is left.",
        "SERVICE is a portico.Service in that module, or a function without arguments that returns one; or a "
        "portico.Door, which is served at --listen. Where it "
        "listens, and who can reach it, is told on stderr. Modules are looked for in the current directory, too.",
        examples=[
            "portico run app:service",
            "portico run ./app.py:make_service --config app.toml --log-level warning",
            "portico run app:door --listen http://localhost:8000",
        ],
    ),
)
def run_(
    service: Annotated[str, typer.Argument(metavar="MODULE:SERVICE", help="Or FILE.py:SERVICE.")],
    loop: Annotated[Loop, typer.Option(metavar="uvloop|asyncio", help="Which event loop.")] = Loop.uvloop,
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="TOML file: \\[limits] for all listeners, \\[tls] for those on TCP, \\[websocket] for those at ws://, "
            "wss:// and ws+unix:.",
        ),
    ] = None,
    listen: Annotated[
        list[str] | None,
        typer.Option(
            "--listen",
            metavar="ADDRESS",
            help="Where to serve a Door; may be given again. Default: http://127.0.0.1:8000.",
        ),
    ] = None,
    log_level: Annotated[Level, typer.Option(metavar="LEVEL", help="debug, info, warning or error.")] = Level.info,
    debug: Debug = False,
) -> None:
    """Run a service of yours until SIGTERM or Ctrl-C, which drain it; a second one aborts what is left."""
    from portico.tools import logs
    from portico.tools.loading import run_service

    logs.set_up_logging(log_level.value, pattern=logs.TIMED, debug=debug or bool(asked_for_debug))
    run_service(service, listen=listen or (), loop=loop.value, config=config, debug=debug)


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
