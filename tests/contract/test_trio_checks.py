"""trio's contract checks for streams, which run here in trio's guest mode within the loop of the test."""

import asyncio
import contextlib

import outcome
import trio
from trio._util import ConflictDetector
from trio.testing import check_half_closeable_stream

import portico

from .support import contract, settled


async def from_asyncio(body):
    """Await in trio what belongs to the host's loop; a cancelled wait cancels it there and waits for that."""
    waiter, cancelled = trio.lowlevel.current_task(), None
    task = asyncio.ensure_future(body)

    def done(task):
        if task.cancelled() and cancelled is not None:
            trio.lowlevel.reschedule(waiter, outcome.capture(cancelled))
        else:
            trio.lowlevel.reschedule(waiter, outcome.capture(task.result))

    def abort(raise_cancel):
        nonlocal cancelled
        cancelled = raise_cancel
        task.cancel()
        return trio.lowlevel.Abort.FAILED

    task.add_done_callback(done)
    return await trio.lowlevel.wait_task_rescheduled(abort)


async def awaiting(operation, *arguments):
    return await operation(*arguments)


class Adapted(trio.abc.HalfCloseableStream):
    """A Stream of Portico's as trio wants one: one sender at a time, and its errors."""

    def __init__(self, stream):
        self.stream, self.sender = stream, ConflictDetector("another task is sending")
        self.closed = False

    @contextlib.contextmanager
    def mapped(self):
        try:
            yield
        except portico.BusyError as error:
            raise trio.BusyResourceError(str(error)) from error
        except portico.ClosedError as error:
            kind = trio.ClosedResourceError if error.clean or self.closed else trio.BrokenResourceError
            raise kind(str(error)) from error

    async def send_all(self, data):
        with self.sender, self.mapped():
            await trio.lowlevel.checkpoint()
            await from_asyncio(awaiting(self.stream.send, data))

    async def wait_send_all_might_not_block(self):
        await self.send_all(b"")

    async def receive_some(self, max_bytes=None):
        with self.mapped():
            await trio.lowlevel.checkpoint()
            return await from_asyncio(awaiting(self.stream.recv, max_bytes))

    async def send_eof(self):
        with self.sender, self.mapped():
            await trio.lowlevel.checkpoint()
            self.stream.send_eof()

    async def aclose(self):
        self.closed = True  # here the first cause goes on to be told
        try:
            await from_asyncio(awaiting(self.stream.close))
        except trio.Cancelled:
            self.stream.abort()
            await from_asyncio(awaiting(self.stream.wait_closed))
            raise


@contract(timeout=20)
async def test_the_checks_of_trio_pass(net):
    loop = asyncio.get_running_loop()
    arrived, over = asyncio.Queue(), asyncio.Event()

    async def handler(stream):
        arrived.put_nowait(stream)
        await over.wait()

    async def checks(server):
        async def make():
            near = await from_asyncio(net.connect(server, close_timeout=0.03))
            return Adapted(near), Adapted(await from_asyncio(arrived.get()))

        async def make_clogged():
            near, far = await make()
            for stream in (near.stream, far.stream):
                while stream.queued[1] < 100_000:
                    for _ in range(100):
                        stream.send(b"x" * 50_000)
                    await from_asyncio(settled(lambda: stream.queued[1]))  # noqa: B023
            return near, far

        await check_half_closeable_stream(make, make_clogged if net.transport.tells_abort else None)

    async with net.serve(handler, limits=portico.Limits(close_timeout=0.03)) as server:
        ended = loop.create_future()
        trio.lowlevel.start_guest_run(
            checks,
            server,
            run_sync_soon_threadsafe=loop.call_soon_threadsafe,
            done_callback=ended.set_result,
            host_uses_signal_set_wakeup_fd=True,
        )
        try:
            (await ended).unwrap()
        finally:
            over.set()
