"""`run`: a whole program, its banner and its signals."""

import asyncio
import collections
import contextlib
import signal
import socket
import subprocess
import sys
import time

import pytest
from ports import free_port

import portico

from .support import ended, program, until

PRELUDE = """
import asyncio, sys, time
import portico
loop = sys.argv[1]

def show(server):
    print(server.address.port, flush=True)
"""
ECHO = (
    PRELUDE
    + """
async def handler(channel):
    async for text in channel:
        await asyncio.sleep(0.002)
        await channel.send(text * 100)
        if channel.draining:
            break

service = portico.Service(drain_timeout=10)
service.listen("tcp://127.0.0.1:0", handler, codec=portico.Lines())
portico.run(service, loop=loop, banner=show)
print("done", flush=True)
"""
)
HANG = (
    PRELUDE
    + """
async def handler(stream):
    print("called", flush=True)
    await asyncio.Event().wait()

async def stubborn(stream):
    print("called", flush=True)
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            pass

def in_thread(stream):
    print("called", flush=True)
    time.sleep(60)

from portico.server import service as serving
serving.STOP_TIMEOUT = 0.2
service = portico.Service(drain_timeout=60)
service.listen(f"tcp://127.0.0.1:{sys.argv[3]}", globals()[sys.argv[2]])
portico.run(service, loop=loop, banner=show)
print("done", flush=True)
"""
)
LOOPS = pytest.mark.parametrize("loop", ["uvloop", "asyncio"])


def port_of(process: "subprocess.Popen[str]") -> int:
    assert process.stdout is not None
    return int(process.stdout.readline())


def until_refused(port: int) -> None:
    """Wait until a program drains, and listens no more."""
    with pytest.raises(ConnectionRefusedError):
        for _ in range(1000):
            with contextlib.suppress(TimeoutError):  # while it closes, nobody new is answered
                socket.create_connection(("127.0.0.1", port), timeout=0.05).close()
            time.sleep(0.002)


class Load:
    """People who connect, ask once or a few times, and check that what they get is whole."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.outcomes: collections.Counter[str] = collections.Counter()

    async def person(self) -> None:
        while True:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except OSError:
                self.outcomes["refused"] += 1
                return
            try:
                for number in range(3):
                    try:
                        writer.write(b"%d\n" % number)
                        answer = await reader.read(100)
                        while answer and not answer.endswith(b"\n"):
                            more = await reader.read(100)
                            if not more:
                                break
                            answer += more
                    except ConnectionError:
                        self.outcomes["reset, first" if number == 0 else "reset, later"] += 1
                        break
                    if answer == b"%d" % number * 100 + b"\n":
                        self.outcomes["answered"] += 1
                    elif not answer:
                        self.outcomes["closed, first" if number == 0 else "closed, later"] += 1
                        break
                    else:
                        self.outcomes[f"cut: {answer!r}"] += 1
                        break
            finally:
                writer.close()


@LOOPS
def test_sigterm_under_load_loses_no_request(loop: str) -> None:
    """Each person's first request is on its way before the server may close: it is answered in full. One that comes
    later, behind an answer, may meet a server that has gone; what was answered is whole."""
    with program(ECHO, loop) as process:
        load = Load(port_of(process))

        async def main() -> None:
            people = [asyncio.create_task(load.person()) for _ in range(40)]
            await until(lambda: load.outcomes["answered"] >= 300, 15)
            process.send_signal(signal.SIGTERM)
            await asyncio.wait_for(asyncio.gather(*people), 20)

        asyncio.run(main())
        code, out, error = ended(process)
    assert (code, out, error) == (0, "done\n", "")
    assert set(load.outcomes) <= {"answered", "refused", "closed, later", "reset, later"}, load.outcomes
    assert load.outcomes["refused"] == 40 or load.outcomes["refused"] > 0


@LOOPS
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_one_signal_drains_and_the_exit_code_is_0(loop: str, number: signal.Signals) -> None:
    with program(ECHO, loop) as process:
        port_of(process)
        process.send_signal(number)
        assert ended(process) == (0, "done\n", "")


@LOOPS
@pytest.mark.parametrize("handler", ["handler", "stubborn", "in_thread"])
def test_a_second_signal_aborts_whatever_hangs(loop: str, handler: str) -> None:
    with program(HANG, loop, handler, str(free_port())) as process:
        port = port_of(process)
        with socket.create_connection(("127.0.0.1", port)) as client:
            assert process.stdout is not None and process.stdout.readline() == "called\n"
            process.send_signal(signal.SIGTERM)
            until_refused(port)
            assert process.poll() is None
            begun = time.monotonic()
            process.send_signal(signal.SIGTERM)
            code, out, error = ended(process)
            assert time.monotonic() - begun < 4
            assert code == 0 and out.endswith("done\n")
            client.settimeout(5)
            with pytest.raises(ConnectionResetError):
                client.recv(1)
    assert ("does not end though it was cancelled" in error) == (handler != "handler")
    assert "Traceback" not in error


HANGING_APP = (
    PRELUDE
    + """
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        assert (await receive())["type"] == "lifespan.shutdown"
        print("asked to end", flush=True)
    else:
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})
        if sys.argv[2] == "waits":
            return
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if sys.argv[2] == "waits":
                raise

async def slow(request):
    print("called", flush=True)
    await asyncio.Event().wait()

from portico.server import service as serving
from portico.web import asgi_host, asgi_lifespan
serving.STOP_TIMEOUT = asgi_lifespan.STOP_TIMEOUT = asgi_host.STOP_TIMEOUT = asgi_host.AFTERWORK = 0.2
from portico.server import running
running.STOP_TIMEOUT = 0.2
asgi_lifespan.SHUTDOWN_TIMEOUT = float(sys.argv[3])
door = portico.Door()
door.mount("/app", app)
door.get("/slow", slow)
portico.run(portico.Service().listen(f"http://127.0.0.1:{sys.argv[4]}", door), loop=loop, banner=show)
print("done", flush=True)
"""
)


@LOOPS
@pytest.mark.parametrize("app", ["waits", "stubborn"])
@pytest.mark.parametrize("when", ["while a route runs", "while the app ends"])
def test_a_second_signal_ends_an_app_that_hangs_in_its_lifespan(loop: str, app: str, when: str) -> None:
    with program(HANGING_APP, loop, app, "60", str(free_port())) as process:
        port = port_of(process)
        assert process.stdout is not None
        if when == "while a route runs":
            with socket.create_connection(("127.0.0.1", port)) as client:
                client.sendall(b"GET /app HTTP/1.1\r\nHost: a\r\n\r\nGET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
                assert process.stdout.readline() == "called\n"
                process.send_signal(signal.SIGTERM)
                until_refused(port)
                process.send_signal(signal.SIGTERM)
                code, out, error = ended(process)
            assert out == ("asked to end\ndone\n" if app == "waits" else "done\n")
        else:
            process.send_signal(signal.SIGTERM)
            assert process.stdout.readline() == "asked to end\n"
            process.send_signal(signal.SIGTERM)
            code, out, error = ended(process)
            assert out == "done\n"
    assert code == 0 and "the app mounted at /app" in error
    assert "Traceback" not in error


@LOOPS
@pytest.mark.parametrize("app", ["waits", "stubborn"])
def test_one_signal_ends_an_app_that_hangs_in_its_lifespan_after_a_while(loop: str, app: str) -> None:
    with program(HANGING_APP, loop, app, "0.3", "0") as process:
        port_of(process)
        process.send_signal(signal.SIGTERM)
        code, out, error = ended(process)
    assert (code, out) == (0, "asked to end\ndone\n")
    assert error.count("the app mounted at /app did not shut down within 0.3 seconds") == 1
    assert "Traceback" not in error


def test_a_task_of_the_program_that_cannot_be_cancelled_does_not_keep_it() -> None:
    code = (
        PRELUDE
        + """
async def stubborn():
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            pass

def begin(server):
    global task
    task = asyncio.ensure_future(stubborn())
    asyncio.get_running_loop().call_soon(server.close)

from portico.server import running
running.STOP_TIMEOUT = 0.2
portico.run(portico.Service().listen("mem:x", print), loop=loop, banner=begin)
print("done", flush=True)
"""
    )
    with program(code, "asyncio") as process:
        code_, out, error = ended(process)
    assert (code_, out) == (0, "done\n") and "stubborn" in error


def test_a_signal_ends_a_start_that_hangs() -> None:
    code = (
        PRELUDE
        + """
class Resolver:
    async def resolve(self, address, *, family=0):
        print("asked", flush=True)
        await asyncio.Event().wait()

async def handler(stream):
    pass

service = portico.Service(resolver=Resolver()).listen("tcp://name.test:80", handler)
portico.run(service, loop=loop)
print("done", flush=True)
"""
    )
    with program(code, "asyncio") as process:
        assert process.stdout is not None and process.stdout.readline() == "asked\n"
        process.send_signal(signal.SIGTERM)
        assert ended(process) == (0, "done\n", "")


def test_run_ends_when_the_server_was_closed_from_within() -> None:
    code = PRELUDE + (
        "service = portico.Service().listen('mem:x', print)\n"
        "portico.run(service, loop=loop, banner=lambda server: server.close())\n"
        "print('done')\n"
    )
    with program(code, "uvloop") as process:
        assert ended(process) == (0, "done\n", "")


def test_a_port_that_is_taken_is_an_error_of_run() -> None:
    code = PRELUDE + (
        "import socket\n"
        "with socket.create_server(('127.0.0.1', 0)) as taken:\n"
        "    service = portico.Service().listen(f'tcp://127.0.0.1:{taken.getsockname()[1]}', print)\n"
        "    try:\n"
        "        portico.run(service, loop=loop)\n"
        "    except portico.BindError as error:\n"
        "        print(error.holder)\n"
    )
    with program(code, "uvloop") as process:
        assert ended(process) == (0, "this process\n", "")


def test_the_banner_goes_to_standard_error() -> None:
    code = PRELUDE + (
        "service = portico.Service().listen('tcp://127.0.0.1:0', print).listen('tcp://*:0', print)\n"
        "portico.run(service, loop=loop)\n"
    )
    with program(code, "uvloop") as process:
        assert process.stderr is not None
        lines = [process.stderr.readline(), process.stderr.readline()]
        process.send_signal(signal.SIGTERM)
        code_, out, rest = ended(process)
    assert (code_, out, rest) == (0, "", "")
    assert lines[0].startswith("listening on tcp://127.0.0.1:") and lines[0].endswith(
        "reached from this machine only\n"
    )
    assert lines[1].endswith("reached from every network this machine is on\n")


def test_the_loop_can_be_chosen() -> None:
    from portico.server.running import loop_factory

    assert loop_factory("asyncio") is asyncio.new_event_loop
    assert loop_factory().__module__.startswith("uvloop") and loop_factory("uvloop") is loop_factory()
    assert sys.modules["uvloop"] and portico.run
