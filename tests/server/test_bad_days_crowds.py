"""Too many at once: 1000 over the limit, and no descriptor left."""

import contextlib
import json
import socket

import pytest

import portico
from portico import Limits

from .support import EVERYWHERE, clients, echo, ended, program, scenario, until

ANYWHERE = "tcp://127.0.0.1:0"


@scenario(on=EVERYWHERE, timeout=60)
async def test_1000_connections_over_the_limit_are_rejected_and_those_within_are_served() -> None:
    limits = Limits(max_connections=20, when_full="reject", refusal=b"full\n")
    async with portico.serve(echo, ANYWHERE, limits=limits) as server, clients(server.address, 20) as within:
        for each in within:
            await each.ask(b"in")
        async with clients(server.address, 1000) as over:
            for each in over:
                assert await each.recv_all() == b"full\n"
            for each in within:
                await each.ask(b"still in")
        assert (server.stats.rejected_full, server.stats.open, server.stats.accepted) == (1000, 20, 1020)
        within.pop().close()
        await until(lambda: server.stats.open == 19)
        async with clients(server.address) as (next_one,):
            await next_one.ask(b"in")


@scenario(on=EVERYWHERE, timeout=60)
async def test_1000_connections_over_the_limit_wait_and_are_served_in_turn() -> None:
    limits = Limits(max_connections=20)
    async with portico.serve(echo, ANYWHERE, limits=limits) as server:
        async with clients(server.address, 20) as within:
            for each in within:
                await each.ask(b"in")
            async with clients(server.address, 1000) as over:
                for number, each in enumerate(over):
                    await each.send(b"%3d" % number)
                assert (server.stats.open, server.stats.accepted) == (20, 20)
                await within[0].ask(b"still in")
                for each in within:
                    each.close()
                for number, each in enumerate(over):  # in the order they came
                    assert await each.recv_exactly(3) == b"%3d" % number
                    each.close()
                await until(lambda: server.stats.open == 0)
        assert (server.stats.accepted, server.stats.rejected, server.stats.closed) == (1020, 0, 1020)


EXHAUSTED = """
import asyncio, json, os, resource, sys, time
import portico
from portico._core import hub_of

opened = []

async def handler(channel):
    async for text in channel:
        if text == "exhaust":
            soft = len(os.listdir("/proc/self/fd"))
            resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
            while True:
                try:
                    opened.append(os.open("/dev/null", os.O_RDONLY))
                except OSError:
                    break
        elif text == "recover":
            while opened:
                os.close(opened.pop())
        elif text == "report":
            stats = server.stats.as_dict()
            await channel.send(json.dumps(stats | {"cpu": time.process_time()}))
            continue
        await channel.send(text)

server = None

def show(started):
    global server
    server = started
    hub_of(asyncio.get_running_loop()).native_sockets = sys.argv[2] == "native"
    print(started.address.port, flush=True)

async def main():
    hub_of(asyncio.get_running_loop()).native_sockets = sys.argv[2] == "native"

import portico.server.listener as listener
if sys.argv[3] == "no spare":
    listener.SpareDescriptor.refill = lambda self: None
    listener.PAUSE = 0.2
if sys.argv[2] != "native":
    import portico._core
    import portico.transports.listen as listen
    import portico.server.listener
    real = portico._core.hub_of
    def hub_of(loop):
        hub = real(loop)
        hub.native_sockets = False
        return hub
    portico.server.listener.hub_of = listen.hub_of = hub_of
service = portico.Service()
service.listen("tcp://127.0.0.1:0", handler, codec=portico.Lines(), limits=portico.Limits(refusal=b"busy\\n"))
portico.run(service, loop=sys.argv[1], banner=show)
"""


class Person:
    """A blocking client; the test's process has descriptors enough."""

    def __init__(self, port: int) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=10)
        self.file = self.sock.makefile("rb")

    def ask(self, text: str) -> str:
        self.sock.sendall(text.encode() + b"\n")
        return self.file.readline().decode().rstrip("\n")

    def close(self) -> None:
        self.file.close()
        self.sock.close()


@pytest.mark.parametrize("sockets", ["native", "transports"])
@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_without_descriptors_a_spare_one_sheds_without_a_spin(loop: str, sockets: str) -> None:
    with program(EXHAUSTED, loop, sockets, "spare") as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        inside = [Person(port) for _ in range(3)]
        try:
            for each in inside:
                assert each.ask("hello") == "hello"
            inside[0].ask("exhaust")
            before = json.loads(inside[1].ask("report"))
            for _ in range(20):
                turned_away = Person(port)
                assert turned_away.file.read() == b"busy\n"
                turned_away.close()
                assert inside[2].ask("still served") == "still served"
            with contextlib.closing(Person(port)):
                import time

                time.sleep(0.3)  # time in which a spin would show
            after = json.loads(inside[1].ask("report"))
            assert after["shed"] - before["shed"] == 21 and after["rejected"] == after["shed"]
            assert after["accept_errors"] >= 21 and after["open"] == 3
            assert after["cpu"] - before["cpu"] < 0.2
            inside[0].ask("recover")
            with contextlib.closing(Person(port)) as fresh:
                assert fresh.ask("in") == "in"
        finally:
            for each in inside:
                each.close()
        process.terminate()
        code, _, error = ended(process)
        assert code == 0 and error.count("accept failed") == 1  # said once, not for each


@pytest.mark.parametrize("sockets", ["native", "transports"])
@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_without_even_a_spare_one_it_waits_and_recovers(loop: str, sockets: str) -> None:
    with program(EXHAUSTED, loop, sockets, "no spare") as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        inside = [Person(port) for _ in range(2)]
        try:
            for each in inside:
                assert each.ask("hello") == "hello"
            inside[0].ask("exhaust")
            before = json.loads(inside[1].ask("report"))
            waiting = Person(port)
            waiting.sock.sendall(b"hello\n")
            import time

            time.sleep(0.5)  # time in which a spin would show
            after = json.loads(inside[1].ask("report"))
            assert after["cpu"] - before["cpu"] < 0.1
            assert after["shed"] == 0 and 1 <= after["accept_errors"] <= 6 and after["open"] == 2
            inside[0].ask("recover")
            assert waiting.file.readline() == b"hello\n"
            waiting.close()
        finally:
            for each in inside:
                each.close()
        process.terminate()
        assert ended(process)[0] == 0
