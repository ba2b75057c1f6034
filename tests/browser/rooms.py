"""The chat for the browser tests: as the program that people start, and inside of the test."""

import asyncio
import contextlib
import re
import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

from tools.command import PATIENCE, Process, in_shell, started_portico

import portico
from portico.tools.chat import Chat
from portico.tools.chat_door import chat_door

T = TypeVar("T")


@contextlib.contextmanager
def demo(*words: str) -> Iterator[tuple[Process, str, dict[str, str]]]:
    """The demo, the address of its page, and a command for each other door."""
    with started_portico("demo", *(words or ("--port", "0"))) as server:
        server.stdout.wait_for(r"connect udp:\S+\n")
        shown = server.stdout.text
        page = re.search(r"http://\S+/", shown)
        known = {
            "tcp": r"nc [\d.]+ \d+",
            "tls": r"openssl s_client .*",
            "unix": r"nc -U \S+",
            "udp": r"nc -u [\d.]+ \d+",
        }
        commands = {door: found[0] for door, pattern in known.items() if (found := re.search(pattern, shown))}
        assert page is not None and len(commands) == len(known)
        yield server, page[0], commands


@contextlib.contextmanager
def terminal(command: str, name: str) -> Iterator[Process]:
    """Somebody with a terminal, who is called that."""
    with in_shell(command) as process:
        process.write(f"/name {name}\n".encode())
        process.stdout.wait_for(f"you are {name} now")
        yield process


class Room:
    """The chat behind one web door, on an event loop of its own, which can be looked into."""

    def __init__(self) -> None:
        self.chat = Chat("test room")
        self.url = ""
        self._loop = asyncio.new_event_loop()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Room":
        self._thread.start()
        assert self._started.wait(PATIENCE)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self._over = asyncio.Event()
        service = portico.Service(drain_timeout=5.0)
        service.listen("http://127.0.0.1:0", chat_door(self.chat))
        async with portico.serve(service) as self.server:
            self.url = str(self.server.addresses[0])
            closing = asyncio.ensure_future(self.chat.close_on(self.server.draining))
            self._started.set()
            await self._over.wait()
            await self.server.drain()
            await closing

    def ask(self, question: Callable[[], T]) -> T:
        """Return what a function finds there."""

        async def answer() -> T:
            return question()

        return asyncio.run_coroutine_threadsafe(answer(), self._loop).result(PATIENCE)

    def drain(self) -> None:
        """Begin to drain, as SIGTERM does."""
        asyncio.run_coroutine_threadsafe(self.server.drain(), self._loop).result(PATIENCE)
