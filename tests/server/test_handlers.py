"""Handlers of every kind; what leaves one concerns its own connection alone."""

import asyncio
import contextlib
import contextvars
import functools
import logging
import threading

import pytest

import portico
from portico.errors import ClosedError, ConfigurationError, EndOfStream, MessageTooLarge, ProtocolError

from .support import EVERYWHERE, Client, client_of, clients, echo, scenario, until

ANYWHERE = "tcp://127.0.0.1:0"


class Shouter:
    """A callable object."""

    def __init__(self, suffix: str = "!") -> None:
        self.suffix = suffix

    async def __call__(self, channel: portico.Channel[str]) -> None:
        async for text in channel:
            await channel.send(text + self.suffix)


class BlockingShouter(Shouter):
    def __call__(self, channel: portico.BlockingChannel[str]) -> None:  # type: ignore[override]
        for text in channel:
            channel.send(text + self.suffix)

    async def method(self, channel: portico.Channel[str]) -> None:
        await Shouter.__call__(self, channel)


async def shout(suffix: str, channel: portico.Channel[str]) -> None:
    async for text in channel:
        await channel.send(text + suffix)


def blocking_shout(suffix: str, channel: portico.BlockingChannel[str]) -> None:
    for text in channel:
        channel.send(text + suffix)


KINDS = {
    "coroutine function": lambda: functools.partial(shout, "!"),
    "partial of a partial": lambda: functools.partial(functools.partial(shout), "!"),
    "object with async __call__": Shouter,
    "partial of such an object": lambda: functools.partial(Shouter()),
    "bound method": lambda: BlockingShouter().method,
    "function": lambda: functools.partial(blocking_shout, "!"),
    "object with plain __call__": BlockingShouter,
    "lambda": lambda: lambda channel: blocking_shout("!", channel),
}


@pytest.mark.parametrize("kind", KINDS)
@scenario(on=["uvloop"])
async def test_every_callable_can_be_a_handler(kind: str) -> None:
    async with (
        portico.serve(KINDS[kind](), ANYWHERE, codec=portico.Lines()) as server,
        portico.connect(server.address, codec=portico.Lines()) as channel,
    ):
        await channel.send("hey")
        assert await channel.recv() == "hey!"
    assert server.stats.handler_errors == 0


def test_what_cannot_be_a_handler_is_said_at_once() -> None:
    async def generator(stream: portico.Stream):  # type: ignore[no-untyped-def]
        yield b""

    for handler in (None, "echo", generator):
        with pytest.raises(ConfigurationError, match="handler"):
            portico.Service().listen(ANYWHERE, handler)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="codec"):
        portico.Service().listen(ANYWHERE, echo, codec=portico.Lines)  # type: ignore[arg-type]


@scenario(on=EVERYWHERE, errors=True)
async def test_an_exception_is_logged_with_the_address_and_closes_that_connection_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def handler(stream: portico.Stream) -> None:
        async for data in stream:
            if data == b"bad\n":
                raise LookupError("a fault of the handler")
            await stream.send(data)

    async with portico.serve(handler, ANYWHERE) as server, clients(server.address, 2) as (one, other):
        await one.ask(b"hello\n")
        await other.ask(b"hello\n")
        await one.send(b"bad\n")
        assert await one.is_over()
        await other.ask(b"still here\n")
        async with clients(server.address) as (third,):
            await third.ask(b"and new ones come in\n")
        assert server.stats.handler_errors == 1 and server.stats.open >= 1
        (record,) = [each for each in caplog.records if each.levelno >= logging.ERROR]
        host, port = one.sock.getsockname()
        assert f"{host}:{port}" in record.getMessage() and "a fault of the handler" in record.getMessage()
        assert record.exc_info is not None and record.name == "portico.server"


@scenario(errors=True)
async def test_a_handler_that_does_not_take_the_connection_closes_it(caplog: pytest.LogCaptureFixture) -> None:
    async def handler() -> None:
        pass

    async with portico.serve(handler, ANYWHERE) as server, clients(server.address) as (client,):
        assert await client.is_over()
        client.close()
        await until(lambda: server.stats.open == 0)
        assert server.stats.handler_errors == 1
    assert "takes 0 positional arguments" in caplog.text


@scenario(errors=True)
async def test_a_function_that_returns_a_coroutine_is_an_error_that_says_so(caplog: pytest.LogCaptureFixture) -> None:
    async with portico.serve(lambda stream: echo(stream), ANYWHERE) as server, clients(server.address) as (client,):
        assert await client.is_over()
        assert server.stats.handler_errors == 1
    assert "use async def" in caplog.text


OF_THE_PEER = {
    "closed": (lambda: ClosedError("gone"), "peer_errors", "DEBUG"),
    "end": (lambda: EndOfStream(b"half"), "peer_errors", "DEBUG"),
    "too large": (lambda: MessageTooLarge(20, 10), "protocol_errors", "INFO"),
    "nonsense": (lambda: ProtocolError("no message"), "protocol_errors", "INFO"),
    "group": (lambda: ExceptionGroup("", [ClosedError("a"), EndOfStream()]), "peer_errors", "DEBUG"),
    "mixed group": (lambda: ExceptionGroup("", [ClosedError("a"), ProtocolError("b")]), "protocol_errors", "INFO"),
}


@pytest.mark.parametrize("what", OF_THE_PEER)
@scenario(on=["uvloop"])
async def test_errors_of_the_peer_are_counted_not_reported(what: str, caplog: pytest.LogCaptureFixture) -> None:
    make, counter, level = OF_THE_PEER[what]
    caplog.set_level(logging.DEBUG, logger="portico.server")

    async def handler(stream: portico.Stream) -> None:
        raise make()

    async with portico.serve(handler, ANYWHERE) as server, clients(server.address) as (client,):
        assert await client.is_over()
        assert getattr(server.stats, counter) == 1 and server.stats.handler_errors == 0
        (record,) = [each for each in caplog.records if each.name == "portico.server"]
        assert record.levelname == level and record.exc_info is None
        assert str(client.sock.getsockname()[1]) in record.getMessage()


@scenario()
async def test_a_handler_may_close_twice_and_end(caplog: pytest.LogCaptureFixture) -> None:
    async def handler(stream: portico.Stream) -> None:
        await stream.send(b"bye")
        stream.close()
        stream.close()
        await stream.close()
        stream.abort()
        await stream.close()

    async with portico.serve(handler, ANYWHERE) as server, clients(server.address) as (client,):
        assert await client.recv() == b"bye"
        assert await client.is_over()
        client.close()
        await until(lambda: server.stats.open == 0)
        assert server.stats.closed == 1
    assert not caplog.records


@scenario()
async def test_the_connection_closes_when_its_handler_ends_with_all_that_was_sent() -> None:
    async def handler(stream: portico.Stream) -> None:
        stream.send(b"x" * 300_000)

    async with portico.serve(handler, ANYWHERE) as server, clients(server.address) as (client,):
        assert len(await client.recv_all()) == 300_000


@scenario()
async def test_each_handler_has_a_context_of_its_own_made_of_the_servers() -> None:
    name = contextvars.ContextVar("name", default="nobody")
    name.set("server")
    seen: list[str] = []

    async def handler(stream: portico.Stream) -> None:
        seen.append(name.get())
        name.set("handler")
        await stream.send(b"x")

    serving = await portico.serve(handler, ANYWHERE)
    name.set("somebody else")
    for _ in range(2):
        async with clients(serving.address) as (client,):
            await client.recv_exactly(1)
    assert seen == ["server", "server"]
    await serving.drain()


# Plain functions.


@scenario(on=EVERYWHERE)
async def test_plain_functions_run_in_threads_and_block() -> None:
    threads: set[str] = set()

    def handler(stream: portico.BlockingStream) -> None:
        threads.add(threading.current_thread().name)
        assert stream.state is portico.State.OPEN and not stream.draining and stream.tls is None
        assert stream.remote_address.is_loopback and stream.options["no_delay"]
        head = stream.recv_until(b"\n")
        body = stream.recv_exactly(int(head))
        stream.send(body[::-1])
        with pytest.raises(TimeoutError):
            stream.recv(timeout=0.01)
        stream.send(b"more?")
        rest = b"".join(stream)
        stream.send(rest)
        stream.flush()
        stream.send_eof()

    async with portico.serve(handler, ANYWHERE) as server, clients(server.address) as (client,):
        await client.send(b"5\nhello")
        assert await client.recv_exactly(10) == b"ollehmore?"
        await client.send(b"the rest")
        client.end()
        assert await client.recv_all() == b"the rest"
        await until(lambda: server.stats.open == 0)
        assert server.stats.handler_errors == server.stats.peer_errors == 0
    assert threads == {"portico-handler"}


@scenario()
async def test_a_stream_in_a_thread_goes_on_as_a_channel() -> None:
    def handler(stream: portico.BlockingStream) -> None:
        with stream.channel(portico.Lines()) as channel:
            for text in channel:
                channel.send(text.upper())

    async with portico.serve(handler, ANYWHERE) as server, clients(server.address) as (client,):
        assert await client.ask(b"A\n") == b"A\n"
        await client.send(b"b\nc\n")
        assert await client.recv_exactly(4) == b"B\nC\n"


@scenario(errors=True)
async def test_errors_of_threads_are_treated_as_those_of_coroutines(caplog: pytest.LogCaptureFixture) -> None:
    def handler(stream: portico.BlockingStream) -> None:
        match stream.recv_exactly(1):
            case b"o":
                stream.send(b"o")
                stream.recv_exactly(1000)
            case b"v":
                raise ValueError("a fault of the function")
            case b"s":
                raise StopIteration

    async with portico.serve(handler, ANYWHERE) as server:
        for kind in (b"v", b"s"):
            async with clients(server.address) as (client,):
                await client.send(kind)
                assert await client.is_over()
        assert server.stats.handler_errors == 2
        async with clients(server.address) as (client,):
            await client.ask(b"o")
            client.end()
            assert await client.is_over()
        assert server.stats.peer_errors == 1
    assert "a fault of the function" in caplog.text and "StopIteration" in caplog.text


@scenario()
async def test_no_more_threads_than_max_threads_and_the_rest_wait_for_one() -> None:
    running: list[int] = []
    go = threading.Event()

    def handler(stream: portico.BlockingStream) -> None:
        running.append(1)
        go.wait(10)
        stream.send(b"done")

    limits = portico.Limits(max_threads=2)
    async with portico.serve(handler, ANYWHERE, limits=limits) as server, clients(server.address, 5) as many:
        await until(lambda: len(running) == 2 and server.stats.open == 5)
        assert [thread.name for thread in threading.enumerate()].count("portico-handler") == 2
        go.set()
        for each in many:
            assert await each.recv_all() == b"done"


@scenario()
async def test_an_aborted_thread_gets_its_error_and_one_in_line_never_runs() -> None:
    errors: list[BaseException] = []
    runs: list[int] = []

    def handler(stream: portico.BlockingStream) -> None:
        runs.append(1)
        try:
            stream.recv()
        except BaseException as error:
            errors.append(error)
            raise

    limits = portico.Limits(max_threads=1)
    async with portico.serve(handler, ANYWHERE, limits=limits) as server, clients(server.address, 2):
        await until(lambda: runs and server.stats.open == 2)
        await server.abort()
        assert server.stats.open == 0 and len(runs) == 1
        assert len(errors) == 1 and isinstance(errors[0], ClosedError)


@scenario()
async def test_a_thread_handler_may_be_cancelled_twice() -> None:
    entered, goes_on = threading.Event(), threading.Event()

    def handler(stream: portico.BlockingStream) -> None:
        entered.set()
        goes_on.wait(10)

    async with portico.serve(handler, ANYWHERE) as server, clients(server.address, 1):
        await until(entered.is_set)
        (session,) = server.listeners[0].sessions
        task = session.task
        assert task is not None
        for _ in range(2):
            task.cancel()
            await asyncio.sleep(0)
        await asyncio.wait([task])
        goes_on.set()


@scenario()
async def test_a_blocking_call_in_the_loops_own_thread_is_refused() -> None:
    from portico.server.threads import blocking_face

    async def handler(stream: portico.Stream) -> None:
        with pytest.raises(RuntimeError, match="event loop"):
            blocking_face(stream).recv()
        await stream.send(b"ok")

    async with portico.serve(handler, ANYWHERE) as server, clients(server.address) as (client,):
        assert await client.recv_all() == b"ok"


@scenario()
async def test_draining_can_be_seen_from_a_thread() -> None:
    def handler(stream: portico.BlockingStream) -> None:
        stream.send(b"hello")
        while not stream.draining:
            with contextlib.suppress(TimeoutError):
                stream.recv(timeout=0.005)
        stream.send(b"goodbye")

    server = await portico.serve(handler, ANYWHERE)
    async with clients(server.address) as (client,):
        assert await client.recv_exactly(5) == b"hello"
        draining = asyncio.create_task(server.drain(5))
        assert await client.recv_all() == b"goodbye"
        client.close()
        await draining
    assert server.stats.aborted == 0


@scenario()
async def test_a_thread_whose_loop_has_ended_gets_an_error() -> None:
    faces: list[portico.BlockingStream] = []

    def handler(stream: portico.BlockingStream) -> None:
        faces.append(stream)

    def other_loop() -> None:
        async def main() -> None:
            async with portico.serve(handler, ANYWHERE) as server:
                client: Client = await client_of(server.address)
                assert await client.is_over()
                client.close()

        asyncio.run(main())
        with pytest.raises(ClosedError, match="event loop"):
            faces[0].recv()
        faces[0].abort()

    await asyncio.to_thread(other_loop)
    await asyncio.get_running_loop().shutdown_default_executor()
