"""The chat on the local network: `demo --announce` tells of it, `demo --discover` finds and joins it."""

import asyncio
import contextlib
from typing import Final

from portico.discovery import Found, announce, browse
from portico.discovery.announcing import listened
from portico.errors import PorticoError
from portico.server.service import Server
from portico.tools.chat import clean
from portico.tools.demo import own_command
from portico.tools.piping import run_connect
from portico.tools.report import Stop, failure, note

CHAT_TYPE: Final = "_portico-chat._tcp"

PATIENCE: Final = 3.0
"""Seconds in which a chat has to be found."""

SETTLE: Final = 0.5
"""Seconds that other chats get to be found, too: answers come up to 0.12 s apart (RFC 6762 section 6)."""


async def announce_chat(server: Server, name: str) -> None:
    """Announce the doors of a chat until its server drains, and say so."""
    # the page is for browsers, which browse no DNS-SD
    spoken = [each for each in listened(server) if each.scheme != "http"]
    try:
        async with announce(spoken, CHAT_TYPE, name=name) as known:
            where = f"on {', '.join(known.interfaces)}"
            if all(each.is_loopback for each in server.addresses):
                where = "on this machine only, as it listens nowhere else (--host)"
            print(f"Announced as '{clean(known.name)}' {where}; to find and join it:\n", flush=True)
            print(f"  {own_command()} demo chat --discover\n", flush=True)
            await server.draining
    except PorticoError as error:
        note(f"the chat is not announced: {failure(error)[0]}")


async def join_chat(name: str | None) -> None:
    """Find a chat and be a terminal in it.

    :param name: which one; None: the first to be found, and the others are told.
    :raises Stop: there is none"""
    rooms = await _rooms(name)
    if not rooms:
        which = "chat" if name is None else f"chat called {name!r}"
        raise Stop(f"no {which} was found within {PATIENCE:g} s", hint="start one with: portico demo --announce")
    room, *others = rooms
    if others:
        note(f"there are more; choose with --name: {', '.join(clean(each.name) for each in others)}")
    note(f"joining {clean(room.name)} at {room.addresses[0]}")
    await run_connect(room.address, resolver=room)


async def _rooms(name: str | None) -> list[Found]:
    """Return the chats that can be joined without trusting a throw-away certificate, or the one called so."""
    rooms: dict[str, Found] = {}
    async with browse(CHAT_TYPE) as changes:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE) as deadline:
                async for change in changes:
                    if not isinstance(change, Found) or change.addresses[0].scheme != "tcp":
                        rooms.pop(change.name, None)
                    elif name is None or change.name.casefold() == name.casefold():
                        rooms[change.name] = change
                        if name is not None:
                            break
                        soon = asyncio.get_running_loop().time() + SETTLE
                        deadline.reschedule(min(soon, deadline.when() or soon))
    return list(rooms.values())
