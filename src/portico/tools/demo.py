"""`portico demo`: a chat on five doors at once, a page among them, and the command to type for each of the others."""

import asyncio
import contextlib
import errno
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from portico.address import Address
from portico.errors import BindError
from portico.server.limits import Limits
from portico.server.running import reach, run
from portico.server.service import Server, Service
from portico.tools.chat import SILENCE, Chat
from portico.tools.chat_door import CHAT_PATH, chat_door
from portico.tools.report import note
from portico.transports.datagrams import bound_socket
from portico.transports.listen import listen
from portico.transports.resolve import resolve
from portico.transports.tls import TLS, throwaway_certificate

DEFAULT_PORT = 9000

DEFAULT_WEB_PORT = 8000

LIMITS = Limits(idle_timeout=3600.0, message_timeout=None, close_timeout=2.0)
"""People think before they type: an hour. A terminal may send half a line and the rest much later."""

UDP_LIMITS = replace(LIMITS, max_connections=1000, max_per_address=16)
"""Anybody can claim any sender on a packet: few shall hear what they did not ask for."""

UDP_BUFFER = 1 << 20
"""Bytes of packets that the kernel keeps until they are read, as far as it allows (net.core.rmem_max)."""

DRAIN_TIMEOUT = 5.0


@dataclass(frozen=True)
class Doors:
    """Where the chat can be joined, and the certificate of the TLS door."""

    tcp: Address
    tls: Address
    unix: Address
    udp: Address
    web: Address
    certificate: str
    key: str

    def service(self, chat: Chat) -> Service:
        """Return the chat on all of them."""
        service = Service(limits=LIMITS, drain_timeout=DRAIN_TIMEOUT)
        service.listen(self.tcp, chat.join, codec=chat.codec())
        service.listen(self.tls, chat.join, codec=chat.codec(), tls=TLS(certificate=self.certificate, key=self.key))
        service.listen(self.unix, chat.join, codec=chat.codec(), mode=0o600)
        service.listen(
            self.udp, chat.join, codec=chat.codec(), limits=UDP_LIMITS, options={"receive_buffer": UDP_BUFFER}
        )
        service.listen(self.web, chat_door(chat))
        return service

    def opened(self, server: Server) -> "Doors":
        """Return them with the ports that they got."""
        ports = {address.scheme: address.port or 0 for address in reversed(server.addresses)}
        tcp, tls, udp, web = (each.with_port(ports[each.scheme]) for each in (self.tcp, self.tls, self.udp, self.web))
        return Doors(tcp, tls, self.unix, udp, web, *self.pair)

    @property
    def websocket(self) -> Address:
        """Where the page comes in."""
        return self.web.replace(scheme="ws", path=CHAT_PATH)

    @property
    def pair(self) -> tuple[str, str]:
        """The files of the certificate and its key."""
        return self.certificate, self.key


@contextlib.contextmanager
def doors(host: str, port: int, tls_port: int, web_port: int) -> Iterator[Doors]:
    """Give the doors, with a certificate and a Unix socket in a directory that nobody else can enter."""
    name = "" if host == "*" else host
    tcp, tls, udp = Address("tcp", name, port), Address("tls", name, tls_port), Address("udp", name, port)
    web = Address("http", name, web_port)
    with tempfile.TemporaryDirectory(prefix="portico-", ignore_cleanup_errors=True) as directory:
        names = dict.fromkeys(["localhost", "127.0.0.1", "::1", *([] if tcp.is_wildcard else [tcp.host])])
        pair = throwaway_certificate(list(names), directory=directory)
        yield Doors(tcp, tls, Address("unix", path=str(Path(directory) / "chat.sock")), udp, web, *pair)


def run_demo(host: str, port: int | None, web_port: int | None, name: str, *, announced: bool = False) -> None:
    """Run the chat until Ctrl-C or SIGTERM.

    :param port: of the TCP and the UDP door, TLS has the next one; None: the usual one, or another if that is taken.
    :param web_port: of the page; None: the usual one, or another if that is taken or `port` is 0.
    :param announced: tell the local network of it."""
    chat = Chat(name)
    with doors(host, *asyncio.run(_ports(host, port, web_port))) as wanted:
        watching: list[asyncio.Task[None]] = []

        def opened(server: Server) -> None:
            watching.append(asyncio.ensure_future(chat.close_on(server.draining)))
            show(wanted.opened(server), chat.name)
            if announced:
                from portico.tools.nearby import announce_chat

                watching.append(asyncio.ensure_future(announce_chat(server, chat.name)))

        run(wanted.service(chat), banner=opened)
    print("the room is closed", flush=True)


async def _ports(host: str, port: int | None, web_port: int | None) -> tuple[int, int, int]:
    """Return the ports of the TCP, the TLS and the web door, and say so if they are not the usual ones."""
    tcp = (
        await _free_or_any(host, DEFAULT_PORT, "tcp", "udp") if port is None else await _free(host, port, "tcp", "udp")
    )
    tls = 0 if tcp in (0, 65535) else await _free_or_any(host, tcp + 1, "tcp")
    if web_port is not None:
        return tcp, tls, await _free(host, web_port, "tcp")
    return tcp, tls, 0 if port == 0 else await _free_or_any(host, DEFAULT_WEB_PORT, "tcp")


async def _free(host: str, port: int, *schemes: str) -> int:
    """Return `port`; raise BindError if it cannot be had for each of them."""
    for scheme in schemes:
        address = Address(scheme, "" if host == "*" else host, port)
        numeric = [address] if address.is_wildcard else await resolve(address)
        if scheme == "udp":
            for each in numeric:
                bound_socket(address, each, None)[0].close()
        else:
            for listening in listen(address, numeric):
                listening.close()
    return port


async def _free_or_any(host: str, port: int, *schemes: str) -> int:
    try:
        return await _free(host, port, *schemes)
    except BindError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        note(f"port {port} is taken{f' by {error.holder}' if error.holder else ''}: using a free one")
        return 0


# What is shown.


def own_command() -> str:
    """Return how to call this command, as it was called now."""
    program = sys.argv[0]
    if Path(program).name != "portico":
        return f"{shlex.quote(sys.executable)} -m portico.tools.entry"
    found = shutil.which("portico")
    return "portico" if found and Path(found).samefile(program) else shlex.quote(program)


def commands(door: Address, certificate: str) -> list[str]:
    """Return what to type to come in by a door, one command for each program that can."""
    quoted, own = shlex.quote(certificate), own_command()
    if door.scheme == "unix":
        path = shlex.quote(door.path)
        return [f"nc -U {path}", f"{own} connect unix:{path}"]
    near = door.replace(host=_nearest(door), flow=0)
    host, port = near.host + (f"%{near.scope}" if near.scope else ""), near.port
    where = str(near).partition("://")[2]
    if door.scheme == "tls":
        asked = " -servername localhost" if near.is_numeric else ""  # without a name it complains that there is none
        return [
            f"openssl s_client -quiet -verify_quiet -connect {shlex.quote(where)}{asked} -CAfile {quoted}",
            f"{own} connect {shlex.quote(str(near))} --ca {quoted}",
        ]
    if door.scheme == "udp":
        return [f"nc -u {host} {port}", f"{own} connect {shlex.quote(str(near))}"]
    return [f"nc {host} {port}", f"{own} connect {shlex.quote(where)}"]


def _nearest(door: Address) -> str:
    """The host to connect to from this machine."""
    if not door.is_wildcard:
        return door.host
    return "::1" if door.host == "::" else "127.0.0.1"


UDP_NOTE = f": then press Enter; to leave say /quit, or be silent for {SILENCE / 60:g} minutes"
"""Nobody is there before the first packet, and nobody is seen to go."""


def show(opened: Doors, name: str) -> None:
    """Print where the chat can be joined, and how."""
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(highlight=False)
    page = opened.web.replace(host=_nearest(opened.web), flow=0)
    here = [("TCP", opened.tcp), ("TLS", opened.tls), ("Unix socket", opened.unix), ("UDP", opened.udp)]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("Door", style="bold", no_wrap=True)
    table.add_column("Address", no_wrap=True)
    table.add_column("Reached from", overflow="fold")
    for title, door in [("Browser", opened.web), *here]:
        table.add_row(title, escape(str(door)), reach(door) if door.scheme != "unix" else "this user only")
    console.print(f"[bold]{escape(name)}[/bold] is open. Ctrl-C closes it.\n")
    console.print(f"  [bold]{escape(str(page))}[/bold]  in a browser\n", soft_wrap=True)
    console.print(table)
    if not opened.tcp.is_loopback:
        console.print(f"[bold]Not only you:[/bold] all but Unix is open to {reach(opened.tcp)}.\n")
    console.print("To join, open that page, or type one of these in another terminal:\n")
    for title, door in here:
        console.print(f"  [dim]# {title}{UDP_NOTE if title == 'UDP' else ''}[/dim]")
        for command in commands(door, opened.certificate):
            console.print(f"  {escape(command)}", soft_wrap=True)
        console.print()
    sys.stdout.flush()
