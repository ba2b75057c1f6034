"""A chat room for people with nothing but a terminal, or a browser; one room, whatever door they come in by.

Terminals get lines, over a WebSocket, too; the page speaks the subprotocol of `chat_events`."""

import asyncio
import re
import textwrap
import unicodedata
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from portico.codecs import Lines
from portico.errors import EndOfStream, MessageTooLarge, ProtocolError
from portico.server.group import Group
from portico.tools.chat_events import HELLO_TIMEOUT, LEFT, PROTOCOL, REFUSED, Hello, History, event, parse, token
from portico.transports.connection import Channel, Signal

if TYPE_CHECKING:
    from portico.websocket.channel import WebSocket

MAX_LINE = 4096
"""Bytes in a line; a terminal gives no more at a time either (termios(3), canonical mode)."""

TOO_LONG: Final = f"nobody got that: a line has at most {MAX_LINE} bytes here, your name included"

MAX_NAME = 20

MAX_WHO: Final = 1000
"""Characters of the answer to /who, which has to find room in a line."""

AT_ONCE: Final = 100
"""People whom a page is told of before there has to be room for more."""

SILENCE = 600.0
"""Seconds after which somebody who says nothing has left, by a door that tells nobody of it (UDP)."""

HELP = "/name NEW takes another name, /who tells who is here, /quit leaves"

UDP_HELP = f"over UDP nobody sees you go: say /quit, or you leave after {SILENCE / 60:g} minutes of silence"

_ESCAPES = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[ -/]*[0-~])"
)  # CSI, OSC, others (ECMA-48)
_BIDI = frozenset("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_HIDDEN = frozenset({"Cc", "Cs", "Zl", "Zp"})


def clean(text: str) -> str:
    """Return `text` without what a terminal would obey rather than show: escape sequences, control characters, line
    separators and changes of direction."""
    text = _ESCAPES.sub("", text.replace("\t", " ").replace("\n", " "))
    if text.isascii() and text.isprintable():
        return text
    return "".join(c for c in text if unicodedata.category(c) not in _HIDDEN and c not in _BIDI)


@dataclass(slots=True, eq=False)
class Person:
    """Somebody in the room."""

    channel: Channel[Any]
    number: int
    name: str
    by_page: bool = False
    key: str = ""

    @property
    def door(self) -> str:
        """The door that they came by."""
        return "browser" if self.by_page else self.channel.scheme

    def tell(self, text: str) -> Awaitable[None]:
        """Say something to them alone."""
        return self.channel.send(event("note", text=text) if self.by_page else f"* {text}")

    def described(self) -> dict[str, object]:
        """Return what events tell of them."""
        return {"id": self.number, "name": self.name, "door": self.door}


class Chat:
    """The room. `join` is the handler of all its doors."""

    def __init__(self, name: str = "the Portico chat") -> None:
        self.name = name
        self.room: Group[str] = Group(name, policy="drop-old", notice=_missed)
        """Those who get lines."""
        self.pages: Group[str] = Group(f"pages of {name}", policy="close")
        """Those who get events."""
        self.people: list[Person] = []
        self.history = History()
        self._channels: set[Channel[Any]] = set()
        self._guests = 0

    @staticmethod
    def codec() -> Lines[str]:
        """Return what the channels of the room speak."""
        return Lines(max_size=MAX_LINE)

    async def join(self, channel: Channel[Any]) -> None:
        """Let somebody in, and stay until they leave."""
        if channel.draining:
            return
        self._channels.add(channel)
        try:
            if getattr(channel, "subprotocol", None) == PROTOCOL:
                await self._join_by_page(cast("WebSocket", channel))
            else:
                await self._join_by_terminal(channel)
        finally:
            self._channels.discard(channel)

    def _new(self, channel: Channel[Any], **more: Any) -> Person:
        self._guests += 1
        return Person(channel, self._guests, f"guest-{self._guests}", **more)

    def _enter(self, person: Person) -> None:
        self.people.append(person)
        came = event("came", who=person.described())
        self._tell(f"* {person.name} came in by {person.door}", came, skip=person)

    def _leave(self, person: Person) -> None:
        if person in self.people:
            self.people.remove(person)
            self._tell(f"* {person.name} left", event("left", id=person.number), skip=person)

    def _tell(self, line: str, told: str, *, skip: Person | None = None) -> None:
        """Tell everybody but one: terminals the line, pages the event."""
        channel = None if skip is None else skip.channel
        self.room.send(line, skip=channel)
        self.pages.send(told, skip=channel)

    # terminals

    async def _join_by_terminal(self, channel: Channel[Any]) -> None:
        person, others = self._new(channel), len(self.people)
        async with self.room.join(channel):
            self._enter(person)
            here = {0: "nobody else is", 1: "one other is"}.get(others, f"{others} others are")
            person.tell(f"welcome to {self.name}: you are {person.name}, {here} here")
            person.tell(HELP)
            silence = SILENCE if channel.scheme == "udp" else None
            if silence is not None:
                person.tell(UDP_HELP)
            try:
                async with asyncio.timeout(silence) as deadline:
                    await self._listen(person, deadline, silence)
            except TimeoutError:
                await person.tell("you were silent for too long and have left; press Enter to come back")
            finally:
                self._leave(person)

    async def _listen(self, person: Person, deadline: asyncio.Timeout, silence: float | None) -> None:
        channel, clock = person.channel, asyncio.get_running_loop().time
        while True:
            try:
                async for line in channel:
                    if silence is not None:
                        deadline.reschedule(clock() + silence)
                    if not await self._said(person, line if isinstance(line, str) else line.decode(errors="replace")):
                        return
                return
            except MessageTooLarge:
                await person.tell(TOO_LONG)
            except ProtocolError:
                await person.tell("nobody got that: it is not UTF-8 text")
            except EndOfStream as error:  # a last line that was not ended
                await self._said(person, error.partial.decode(errors="replace"))
                return

    # pages

    async def _join_by_page(self, channel: "WebSocket") -> None:
        try:
            async with asyncio.timeout(HELLO_TIMEOUT):
                hello = Hello.read(await channel.recv())
            person = self._new(channel, by_page=True, key=hello.key)
            await self._catch_up(channel, hello)
            self._replace(hello.key)
            told = await self._introduce(channel)
            refused = self._refusal(person, hello.name) if hello.name else None
            if hello.name and refused is None:
                person.name = hello.name
            async with self.pages.join(person.channel):
                self._enter(person)
                for number in told.difference(each.number for each in self.people):
                    channel.send(event("left", id=number))
                channel.send(event("here", who=person.described()))
                channel.send(event("welcome", you=person.number))
                if refused is not None:
                    person.tell(f"{refused}; you are {person.name}")
                try:
                    await self._answer(person, channel)
                finally:
                    self._leave(person)
        except (TimeoutError, ValueError, MessageTooLarge, ProtocolError):
            await channel.close(REFUSED, f"that is not {PROTOCOL}")

    async def _catch_up(self, channel: "WebSocket", hello: Hello) -> None:
        """Send what was said since the page was here; afterwards nothing has been said that it has not got."""
        history = self.history
        heard = hello.after if hello.run == history.run and hello.after <= history.last else 0
        await channel.send(event("past", room=self.name, run=history.run, first=history.first, last=history.last))
        while missed := history.after(heard):
            heard = history.last
            for each in missed[:-1]:
                channel.send(each)
            await channel.send(missed[-1])

    async def _introduce(self, channel: "WebSocket") -> set[int]:
        """Send who is here, as there is room; afterwards nobody is here that it was not told of, by their names of now.
        Return the ids of all that it was told of, who may have left."""
        told: dict[int, str] = {}
        while missing := [each for each in self.people if told.get(each.number) != each.name][:AT_ONCE]:
            for each in missing:
                told[each.number] = each.name
                room = channel.send(event("here", who=each.described()))
            await room
        return set(told)

    def _replace(self, key: str) -> None:
        """Let the person leave who had that key: it is the same page, whose connection was lost."""
        for before in [each for each in self.people if key and each.key == key]:
            before.channel.abort()
            self._leave(before)

    async def _answer(self, person: Person, channel: "WebSocket") -> None:
        """Do what a page wants, to its end.

        :raises ValueError: it does not keep to the protocol"""
        async for message in channel:
            wanted = parse(message)
            if isinstance(said := wanted.get("say"), str):
                if not await self._said(person, said, token(wanted.get("ref", ""))):
                    await channel.close(LEFT, "good bye")
                    return
            elif isinstance(number := wanted.get("ping"), int):
                await channel.send(event("pong", ping=number))
            else:
                raise ValueError("it is nothing that a page says")

    # everybody

    async def _said(self, person: Person, line: str, ref: str = "") -> bool:
        """Do what somebody typed; False: they want to leave."""
        text = clean(line).strip()
        command, _, argument = text.partition(" ")
        if not text:
            return True
        if not text.startswith("/"):
            await self._spread(person, text, ref)
        elif command == "/name":
            await person.tell(self._rename(person, argument.strip()))
        elif command == "/who":
            names = ", ".join(f"{each.name} ({each.door})" for each in self.people)
            await person.tell(f"here are: {textwrap.shorten(names, MAX_WHO, placeholder=' ...')}")
        elif command == "/quit":
            await person.tell(f"good bye, {person.name}")
            return False
        else:
            await person.tell(HELP)
        return True

    async def _spread(self, person: Person, text: str, ref: str) -> None:
        """Send a message to everybody, the page that it comes from included: it learns its place among the others."""
        line = f"{person.name}: {text}"
        if len(line.encode()) > MAX_LINE:
            await person.tell(TOO_LONG)
            return
        self.room.send(line, skip=person.channel)
        who = person.described()
        self.pages.send(self.history.add(by=who.pop("id"), **who, text=text, ref=ref))

    def _refusal(self, person: Person, name: str) -> str | None:
        """Return why somebody cannot be called that, None if they can."""
        if not re.fullmatch(rf"\w[\w.-]{{0,{MAX_NAME - 1}}}", name):
            return f"a name has 1 to {MAX_NAME} letters, digits, '_', '.' and '-', and no space"
        if any(each.name.casefold() == name.casefold() and each is not person for each in self.people):
            return f"somebody is called {name} already"
        return None

    def _rename(self, person: Person, name: str) -> str:
        """Give somebody another name, tell the others, and return the answer."""
        refused = self._refusal(person, name)
        if refused is not None:
            return refused
        before, person.name = person.name, name
        self.room.send(f"* {before} is {name} now", skip=person.channel)
        self.pages.send(event("named", id=person.number, name=name))
        return f"you are {name} now"

    async def close_on(self, draining: Signal) -> None:
        """Wait until the server drains, then tell everybody and close their connections."""
        await draining
        self._tell("* the room closes, good bye", event("note", text="the room closes, good bye"))
        for channel in list(self._channels):
            channel.close()


def _missed(count: int) -> str:
    return f"* you read too slowly: you missed {count} messages"
