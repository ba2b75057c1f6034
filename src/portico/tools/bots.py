"""`portico demo --bots N`: scripted people who chat over every door and count what reaches them."""

import asyncio
import contextlib
import random
import sys
from collections.abc import Coroutine
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

from portico.address import Address
from portico.client.connect import connect
from portico.errors import ConnectError, PorticoError
from portico.server.service import serve
from portico.tools.chat import Chat
from portico.tools.demo import UDP_BUFFER, Doors, doors
from portico.tools.report import failure, note
from portico.transports.connection import Channel
from portico.transports.tls import TLS

DELIVERIES = 20_000
"""Messages a second that reach somebody, all together: what one core of a small machine does with ease."""

FASTEST = 0.1
"""Seconds between two messages of one bot, at least."""

PATIENCE = 10.0
"""Seconds without anything arriving after which what is missing counts as lost."""

CONNECT_TIMEOUT = 30.0

WINDOW = 128
"""Messages that may be on the way to a bot by UDP: so many find room in any receive buffer (212,992 bytes by default,
some 1,300 a packet), so the kernel drops none of them, however long this program has to wait for its turn."""

UDP_UNREAD = 1 << 20
"""Bytes received that a bot by UDP keeps until it listens, more than all notices of newcomers."""


@dataclass(eq=False)
class Bot:
    """One scripted person: sends numbered messages, and checks the numbers of everybody else's."""

    number: int
    door: Address
    channel: Channel[str]
    sent: int = 0
    spoken: int = 0
    """Messages it has sent, the word that it is at its end included."""
    taken: int = 0
    """How many of what others have spoken has reached it, or been overtaken by a later one of the same sender."""
    delivered: int = 0
    disordered: int = 0
    """Messages that came twice, or after a later one."""
    delays: list[float] = field(default_factory=list)
    heard: dict[int, int] = field(default_factory=dict)
    """How far each other bot has counted."""
    ends: dict[int, int] = field(default_factory=dict)
    """How many messages each other bot has sent, as it said at its end."""

    async def greeted(self) -> None:
        """Wait until the room has let it in."""
        async for line in self.channel:
            if line.startswith("* welcome"):
                return
        raise ConnectError(self.door, [])

    async def talk(self, interval: float, until: float, window: "Window") -> None:
        """Send a message every `interval` seconds, at least one, and say at the end how many they were."""
        clock = asyncio.get_running_loop().time
        due = clock() + random.uniform(0, min(interval, max(0.0, until - clock())))
        while True:
            await asyncio.sleep(due - clock())
            await window.room()
            self.sent, self.spoken = self.sent + 1, self.spoken + 1
            await self.channel.send(f"bot {self.number} {self.sent - 1} {perf_counter():.6f}")
            due += interval
            if due > until:
                break
        await window.room()
        self.spoken += 1
        await self.channel.send(f"bot {self.number} end {self.sent}")

    async def listen(self, bots: int, window: "Window") -> None:
        """Read until every other bot has said that it is at its end."""
        async for line in self.channel:
            words = line.partition(": ")[2].split()
            if len(words) != 4 or words[0] != "bot":
                continue  # somebody came in
            sender = int(words[1])
            number = int(words[3] if words[2] == "end" else words[2])
            self.taken += max(0, number + 1 - self.heard.get(sender, 0))
            window.moved.set()
            if words[2] == "end":
                self.ends[sender] = number
                if len(self.ends) == bots - 1:
                    return
                continue
            if number < self.heard.get(sender, 0):
                self.disordered += 1
                continue
            self.heard[sender] = number + 1
            self.delivered += 1
            self.delays.append(perf_counter() - float(words[3]))


class Window:
    """Lets nobody speak while a bot by UDP is far behind: nothing else would hold up those who send packets."""

    def __init__(self, bots: list[Bot]) -> None:
        self._bots, self._udp = bots, [bot for bot in bots if bot.door.scheme == "udp"]
        self.moved = asyncio.Event()
        """Set when a bot has taken something."""

    async def room(self) -> None:
        """Return when one message more can be on the way, or when nothing has arrived for so long that what is missing
        must be lost."""
        with contextlib.suppress(TimeoutError):
            while self._behind() >= WINDOW:
                self.moved.clear()
                async with asyncio.timeout(PATIENCE):
                    await self.moved.wait()

    def _behind(self) -> int:
        """How many messages are on the way to the one who is most behind."""
        spoken = sum(bot.spoken for bot in self._bots) if self._udp else 0
        return max((spoken - bot.spoken - bot.taken for bot in self._udp), default=0)


@dataclass(frozen=True)
class Row:
    """What one door has seen."""

    door: str
    people: int
    sent: int
    expected: int
    delivered: int
    disordered: int
    delays: list[float] = field(repr=False)

    @property
    def dropped(self) -> int:
        return self.expected - self.delivered

    def delay(self, part: float) -> str:
        """Return that quantile of the delays, in milliseconds."""
        if not self.delays:
            return "-"
        ordered = sorted(self.delays)
        return f"{ordered[min(len(ordered) - 1, int(part * len(ordered)))] * 1000:.1f} ms"


def summary(bots: list[Bot]) -> list[Row]:
    """Return a row for each door, and one for all."""
    everything = sum(bot.sent for bot in bots)

    def row(title: str, some: list[Bot]) -> Row:
        return Row(
            title,
            len(some),
            sum(bot.sent for bot in some),
            sum(everything - bot.sent for bot in some),
            sum(bot.delivered for bot in some),
            sum(bot.disordered for bot in some),
            [delay for bot in some for delay in bot.delays],
        )

    by_door: dict[str, list[Bot]] = {}
    for bot in bots:
        by_door.setdefault(bot.door.scheme, []).append(bot)
    return [row(scheme, some) for scheme, some in by_door.items()] + [row("all", bots)]


async def run_bots(count: int, seconds: float, name: str) -> bool:
    """Let `count` bots chat for `seconds`, print what came of it, and return whether everything arrived."""
    _raise_descriptor_limit()
    chat = Chat(name)
    with doors("127.0.0.1", 0, 0, 0) as wanted:
        async with serve(wanted.service(chat)) as server:
            opened = wanted.opened(server)
            async with contextlib.AsyncExitStack() as stack:
                bots = await _arrive(stack, opened, count)
                problems = await _chat(bots, seconds)
                discarded = sum(_discarded(bot) for bot in bots) + server.stats.packets_dropped
    for problem in problems:
        note(problem)
    rows = summary(bots)
    show(rows, seconds, discarded)
    return not problems and not rows[-1].dropped and not rows[-1].disordered


MORE: dict[str, Any] = {"udp": {"options": {"receive_buffer": UDP_BUFFER}, "read_limit": UDP_UNREAD}}
"""What to connect with, by scheme."""


def _discarded(bot: Bot) -> int:
    """How many packets for it the kernel has dropped."""
    wire: Any = bot.channel.wire
    return wire.port.dropped_by_kernel if bot.door.scheme == "udp" else 0


async def _arrive(stack: contextlib.AsyncExitStack, opened: Doors, count: int) -> list[Bot]:
    """Let the bots come in, by the doors in turn; some at a time, so that the backlog holds them."""
    turn = asyncio.Semaphore(64)
    trust = TLS(ca=opened.certificate)
    where = [opened.tcp, opened.tls, opened.unix, opened.udp, opened.websocket]

    async def arrive(number: int) -> Bot:
        async with turn:
            door = where[number % len(where)]
            more = MORE.get(door.scheme, {})
            tls = trust if door.scheme == "tls" else None
            codec = Chat.codec() if door.scheme != "ws" else None  # which has messages of its own
            channel: Channel[str] = await connect(door, codec=codec, tls=tls, timeout=CONNECT_TIMEOUT, **more)
            stack.push_async_exit(channel)
            if door.scheme == "udp":
                await channel.send("")  # who never says anything is not there
            bot = Bot(number, door, channel)
            await bot.greeted()
            return bot

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(arrive(number)) for number in range(count)]
    return [task.result() for task in tasks]


async def _chat(bots: list[Bot], seconds: float) -> list[str]:
    """Let them talk and listen until everybody has heard the end of everybody else; return what went wrong."""
    interval = max(FASTEST, len(bots) * (len(bots) - 1) / DELIVERIES)
    until = asyncio.get_running_loop().time() + seconds
    window = Window(bots)
    tasks = [asyncio.ensure_future(_guarded(bot, bot.talk(interval, until, window))) for bot in bots]
    if len(bots) > 1:
        tasks += [asyncio.ensure_future(_guarded(bot, bot.listen(len(bots), window))) for bot in bots]
    problems: list[str] = []
    before, patience = -1, seconds + PATIENCE
    while waiting := [task for task in tasks if not task.done()]:
        await asyncio.wait(waiting, timeout=patience)
        patience = PATIENCE
        arrived = sum(bot.delivered + len(bot.ends) for bot in bots)
        waiting = [task for task in waiting if not task.done()]
        if waiting and arrived == before:
            problems.append(f"nothing arrived for {PATIENCE:g} s, the rest counts as dropped")
            for task in waiting:
                task.cancel()
            await asyncio.wait(waiting)
        before = arrived
    return [task.result() for task in tasks if not task.cancelled() and task.result()] + problems


async def _guarded(bot: Bot, part: Coroutine[Any, Any, None]) -> str:
    """Return what ended it, or ""."""
    try:
        await part
    except (PorticoError, OSError) as error:
        return f"bot {bot.number} by {bot.door.scheme}: {failure(error)[0]}"
    return ""


def _raise_descriptor_limit() -> None:
    """Every bot needs two descriptors."""
    if sys.platform != "win32":
        import resource

        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def show(rows: list[Row], seconds: float, discarded: int) -> None:
    """Print the table, and how many packets the kernel has dropped."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    total = rows[-1]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_footer=True)
    table.add_column("door", total.door, style="bold")
    columns: list[tuple[str, str]] = [
        ("people", f"{total.people}"),
        ("sent", f"{total.sent}"),
        ("expected", f"{total.expected}"),
        ("delivered", f"{total.delivered}"),
        ("dropped", f"{total.dropped}"),
        ("p50", total.delay(0.5)),
        ("p99", total.delay(0.99)),
    ]
    for title, footer in columns:
        table.add_column(title, footer, justify="right", no_wrap=True)
    for row in rows[:-1]:
        cells = [row.people, row.sent, row.expected, row.delivered, row.dropped]
        table.add_row(row.door, *map(str, cells), row.delay(0.5), row.delay(0.99))
    console = Console(highlight=False)
    console.print(f"{total.people} bots chatted for {seconds:g} s, each message meant for everybody else")
    console.print(table)
    if total.disordered:
        console.print(f"[bold]{total.disordered} came twice or in the wrong order[/bold]")
    console.print("nothing was lost" if not total.dropped else f"[bold]{total.dropped} messages were lost[/bold]")
    if discarded:
        console.print(f"{discarded} UDP packets came faster than they were read, and the kernel dropped them")
    sys.stdout.flush()
