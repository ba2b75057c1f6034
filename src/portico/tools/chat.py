"""A chat room for people with nothing but a terminal; one room, whatever door they come in by."""

import asyncio
import re
import unicodedata
from dataclasses import dataclass

from portico.codecs import Lines
from portico.errors import EndOfStream, MessageTooLarge, ProtocolError
from portico.server.group import Group
from portico.transports.connection import Channel, Signal

MAX_LINE = 4096
"""Bytes in a line; a terminal gives no more at a time either (termios(3), canonical mode)."""

MAX_NAME = 20

SILENCE = 600.0
"""Seconds after which somebody who says nothing has left, by a door that tells nobody of it (UDP)."""

HELP = "* /name NEW takes another name, /who tells who is here, /quit leaves"

UDP_HELP = f"* over UDP nobody sees you go: say /quit, or you leave after {SILENCE / 60:g} minutes of silence"

_ESCAPES = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[ -/]*[0-~])"
)  # CSI, OSC, others (ECMA-48)
_BIDI = frozenset("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_HIDDEN = frozenset({"Cc", "Cs", "Zl", "Zp"})


def clean(text: str) -> str:
    """Return `text` without what a terminal would obey rather than show: escape sequences, control characters, line
    separators and changes of direction."""
    text = _ESCAPES.sub("", text.replace("\t", " "))
    if text.isascii() and text.isprintable():
        return text
    return "".join(c for c in text if unicodedata.category(c) not in _HIDDEN and c not in _BIDI)


@dataclass(slots=True, eq=False)
class Person:
    """Somebody in the room."""

    channel: Channel[str]
    name: str


class Chat:
    """The room. `join` is the handler of all its doors."""

    def __init__(self, name: str = "the Portico chat") -> None:
        self.name = name
        self.room: Group[str] = Group(name, policy="drop-old", notice=_missed)
        self.people: list[Person] = []
        self._guests = 0

    @staticmethod
    def codec() -> Lines[str]:
        """Return what the channels of the room speak."""
        return Lines(max_size=MAX_LINE)

    async def join(self, channel: Channel[str]) -> None:
        """Let somebody in, and stay until they leave."""
        if channel.draining:
            return
        self._guests += 1
        person = Person(channel, f"guest-{self._guests}")
        others = len(self.people)
        async with self.room.join(channel):
            self.people.append(person)
            self.room.send(f"* {person.name} came in by {channel.scheme}", skip=channel)
            here = {0: "nobody else is", 1: "one other is"}.get(others, f"{others} others are")
            channel.send(f"* welcome to {self.name}: you are {person.name}, {here} here")
            channel.send(HELP)
            silence = SILENCE if channel.scheme == "udp" else None
            if silence is not None:
                channel.send(UDP_HELP)
            try:
                async with asyncio.timeout(silence) as deadline:
                    await self._listen(person, deadline, silence)
            except TimeoutError:
                await channel.send("* you were silent for too long and have left; press Enter to come back")
            finally:
                self.people.remove(person)
                self.room.send(f"* {person.name} left", skip=channel)

    async def _listen(self, person: Person, deadline: asyncio.Timeout, silence: float | None) -> None:
        channel, clock = person.channel, asyncio.get_running_loop().time
        while True:
            try:
                async for line in channel:
                    if silence is not None:
                        deadline.reschedule(clock() + silence)
                    if not await self._said(person, line):
                        return
                return
            except MessageTooLarge as error:
                await channel.send(f"* nobody got that: a line has at most {error.limit} bytes here")
            except ProtocolError:
                await channel.send("* nobody got that: it is not UTF-8 text")
            except EndOfStream as error:  # a last line that was not ended
                await self._said(person, error.partial.decode(errors="replace"))
                return

    async def _said(self, person: Person, line: str) -> bool:
        """Do what somebody typed; False: they want to leave."""
        text = clean(line).strip()
        command, _, argument = text.partition(" ")
        if not text:
            return True
        if not text.startswith("/"):
            self.room.send(f"{person.name}: {text}", skip=person.channel)
        elif command == "/name":
            await person.channel.send(self._rename(person, argument.strip()))
        elif command == "/who":
            names = ", ".join(f"{each.name} ({each.channel.scheme})" for each in self.people)
            await person.channel.send(f"* here are: {names}")
        elif command == "/quit":
            await person.channel.send(f"* good bye, {person.name}")
            return False
        else:
            await person.channel.send(HELP)
        return True

    def _rename(self, person: Person, name: str) -> str:
        """Give somebody another name, tell the others, and return the answer."""
        if not re.fullmatch(rf"\w[\w.-]{{0,{MAX_NAME - 1}}}", name):
            return f"* a name has 1 to {MAX_NAME} letters, digits, '_', '.' and '-', and no space"
        if any(each.name.casefold() == name.casefold() and each is not person for each in self.people):
            return f"* somebody is called {name} already"
        before, person.name = person.name, name
        self.room.send(f"* {before} is {name} now", skip=person.channel)
        return f"* you are {name} now"

    async def close_on(self, draining: Signal) -> None:
        """Wait until the server drains, then tell everybody and close their connections."""
        await draining
        self.room.send("* the room closes, good bye")
        for channel in self.room:
            channel.close()


def _missed(count: int) -> str:
    return f"* you read too slowly: you missed {count} messages"
