"""`run`: a service as a whole program, from the banner to the last signal."""

import asyncio
import contextlib
import logging
import signal
import sys
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Literal

from portico.address import Address
from portico.server.service import STOP_TIMEOUT, Server, Service

logger = logging.getLogger("portico.server")

LoopName = Literal["uvloop", "asyncio"]


def loop_factory(name: LoopName | None = None) -> Callable[[], asyncio.AbstractEventLoop]:
    """Return what makes event loops: uvloop's where it is installed, unless `name` says otherwise."""
    if name != "asyncio":
        try:
            import uvloop
        except ImportError:
            if name == "uvloop":
                raise
        else:
            return uvloop.new_event_loop
    return asyncio.new_event_loop


def run(
    service: Service,
    *,
    loop: LoopName | None = None,
    banner: bool | Callable[[Server], object] = True,
    debug: bool = False,
) -> None:
    """Run `service` until SIGTERM or SIGINT, which drain it; a second one aborts what is left, a third does not wait.

    :param loop: `uvloop` (the default where it is installed) or `asyncio`.
    :param banner: print to stderr where it listens and who can reach it, or call this with the server instead.
    :param debug: asyncio's debug mode.
    :raises BindError: an address cannot be had
    """
    with asyncio.Runner(loop_factory=loop_factory(loop), debug=debug) as runner:
        runner.run(_main(service, banner))


async def _main(service: Service, banner: bool | Callable[[Server], object]) -> None:
    server = Server(service)
    asked = asyncio.Event()
    with _signals(lambda number: asked.set()):
        if not await _unless(asked, server.start()):
            return
        try:
            if callable(banner):
                banner(server)
            elif banner:
                print(banner_text(server.addresses), file=sys.stderr, flush=True)
            await _unless(asked, server.serve_forever())
            if not await _unless(asked, server.drain()):
                await _unless(asked, server.abort())
        finally:
            server.close()
    await _leave_behind(server.leftover_tasks())


async def _leave_behind(reported: list[asyncio.Task[Any]]) -> None:
    """End what the program has begun and nobody has ended. The runner would wait for ever for tasks that cannot be
    cancelled, such as those that have been `reported`: it must not know them."""
    for task in reported:
        asyncio._unregister_task(task)
    others = asyncio.all_tasks() - {asyncio.current_task()}
    if not others:
        return
    for task in others:
        task.cancel()
    _, late = await asyncio.wait(others, timeout=STOP_TIMEOUT)
    for task in late:
        logger.error("a task does not end though it was cancelled: %r", task)
        asyncio._unregister_task(task)


async def _unless(asked: asyncio.Event, coro: Coroutine[Any, Any, None]) -> bool:
    """Run `coro` to its end, unless a signal comes before, or came already: then cancel it and return False."""
    work, signal_came = asyncio.ensure_future(coro), asyncio.ensure_future(asked.wait())
    try:
        await asyncio.wait({work, signal_came}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        signal_came.cancel()
        if not work.done():
            work.cancel()
    await asyncio.wait({work})
    if work.cancelled():
        asked.clear()
        return False
    work.result()
    return True


@contextlib.contextmanager
def _signals(on_signal: Callable[[int], None]) -> Any:
    loop = asyncio.get_running_loop()
    numbers = [signal.SIGINT, signal.SIGTERM]
    before: dict[int, Any] = {}
    try:
        for number in numbers:
            loop.add_signal_handler(number, on_signal, number)
    except NotImplementedError:  # Windows
        for number in numbers:
            before[number] = signal.signal(number, lambda n, _: loop.call_soon_threadsafe(on_signal, n))
    try:
        yield
    finally:
        if before:
            for each, handler in before.items():
                signal.signal(each, handler)
        else:
            for number in numbers:
                loop.remove_signal_handler(number)


def reach(address: Address) -> str:
    """Say in words who can reach a listener."""
    if address.scheme == "mem":
        return "this event loop only"
    if address.is_loopback:
        return "this machine only"
    if address.is_wildcard:
        return "every network this machine is on"
    if address.is_private:
        return "the private network of that address"
    return "other machines, the internet included" if address.is_public else "other machines"


def banner_text(addresses: Iterable[Address]) -> str:
    """Return a line for each address: where, and who can reach it."""
    rows = [(str(address), reach(address)) for address in addresses]
    width = max((len(where) for where, _ in rows), default=0)
    return "\n".join(f"listening on {where:<{width}}  reached from {who}" for where, who in rows)
