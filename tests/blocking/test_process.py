"""The one loop and the process around it: Ctrl-C, fork, exit, shutdown."""

import socket
import threading

import pytest
from server.support import ended, program

from portico import blocking
from portico.blocking.loop import background
from portico.errors import ClosedError

from .support import PATIENCE, Aside, connected, echo

INTERRUPT = """
import os, signal, sys, threading, time
from portico import blocking
import portico
import portico.transports.calls

signal.signal(signal.SIGINT, signal.default_int_handler)  # programs in the background of a shell ignore it
portico.transports.calls.LOOK = 60  # it is the signal that ends the wait, not the next look at the loop

def interrupt_when_it_waits():
    main = threading.main_thread().ident
    def look():
        while True:
            frame, names = sys._current_frames()[main], []
            while frame:
                names.append(frame.f_code.co_name)
                frame = frame.f_back
            if names[0] == "_wait":
                break
            time.sleep(0.001)
        while not over.is_set():  # a signal right before the wait begins is seen only when that ends
            os.kill(os.getpid(), signal.SIGINT)
            over.wait(1)
    over = threading.Event()
    threading.Thread(target=look).start()
    return over

def interrupted(call):
    over = interrupt_when_it_waits()
    try:
        call()
    except KeyboardInterrupt:
        over.set()
        return
    raise AssertionError("not interrupted")
"""


def listener() -> socket.socket:
    listening = socket.create_server(("127.0.0.1", 0))
    listening.settimeout(PATIENCE)
    return listening


@pytest.mark.parametrize(
    "call",
    [
        "stream.recv()",
        "stream.recv_exactly(5)",
        "stream.recv_until(b'o')",
        "stream.recv(timeout=60)",
        "next(iter(stream))",
    ],
)
def test_ctrl_c_ends_receiving_and_the_connection_goes_on(call: str) -> None:
    code = f"""
stream = blocking.connect(sys.argv[1])
interrupted(lambda: {call})
stream.send(b"ready")
print(stream.recv_exactly(5))
stream.close()
"""
    with listener() as listening:
        with program(INTERRUPT + code, f"tcp://127.0.0.1:{listening.getsockname()[1]}") as running:
            peer = listening.accept()[0]
            with peer:
                assert peer.recv(5, socket.MSG_WAITALL) == b"ready"
                peer.sendall(b"hello")
                peer.shutdown(socket.SHUT_WR)
                assert ended(running) == (0, "b'hello'\n", "")


def test_ctrl_c_ends_sending_and_nothing_of_it_is_sent() -> None:
    code = """
stream = blocking.connect(sys.argv[1], high_water=1000)
try:
    while True:
        stream.send(bytes(100_000), wait=False)
except portico.WouldBlock:
    pass
interrupted(lambda: stream.send(b"lost"))
print("interrupted", flush=True)
stream.send(b"end")
stream.close()
"""
    with listener() as listening:
        with program(INTERRUPT + code, f"tcp://127.0.0.1:{listening.getsockname()[1]}") as running:
            peer = listening.accept()[0]
            with peer, peer.makefile("rb") as file:
                assert running.stdout is not None and running.stdout.readline() == "interrupted\n"
                assert file.read().strip(b"\0") == b"end"
                peer.shutdown(socket.SHUT_WR)
                assert ended(running) == (0, "", "")


def test_ctrl_c_ends_connecting() -> None:
    code = """
interrupted(lambda: blocking.connect(sys.argv[1], timeout=60))
from portico.blocking.loop import background
assert not background().connections
print("done")
"""
    with socket.socket() as full:  # nobody accepts, and the backlog is full: connecting hangs
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        with socket.create_connection(full.getsockname()):
            with program(INTERRUPT + code, f"tcp://127.0.0.1:{full.getsockname()[1]}") as running:
                assert ended(running) == (0, "done\n", "")


def test_ctrl_c_ends_serving_and_the_context_the_server() -> None:
    code = """
def handler(stream):
    for data in stream:
        stream.send(data)

with blocking.serve(handler, "tcp://127.0.0.1:0") as server:
    with blocking.connect(server.address) as stream:
        interrupted(server.serve_forever)
        stream.send(b"still there")
        print(stream.recv())
try:
    blocking.connect(server.server.service.specs[0].address.with_port(stream.remote_address.port))
except portico.ConnectError:
    print("over")
"""
    with program(INTERRUPT + code) as running:
        assert ended(running) == (0, "b'still there'\nover\n", "")


def test_a_forked_child_starts_anew_and_the_parent_goes_on() -> None:
    code = """
import os, sys
from portico import blocking
import portico

def handler(stream):
    for data in stream:
        stream.send(data)

server = blocking.serve(handler, "tcp://127.0.0.1:0")
address = str(server.address)
stream = blocking.connect(address)
stream.send(b"before")
assert stream.recv() == b"before"
child = os.fork()
if not child:
    for call in (stream.recv, stream.abort, stream.close, server.drain, lambda: stream.send(b"x", wait=False)):
        try:
            call()
        except portico.ClosedError as error:
            assert "belongs to the process that made it" in str(error), error
        else:
            raise AssertionError(call)
    with blocking.connect(address) as own:
        own.send(b"child")
        print(own.recv(), flush=True)
    del stream, server
    import gc
    gc.collect()
    sys.exit(0)
assert os.waitpid(child, 0)[1] == 0
stream.send(b"parent")
print(stream.recv())
server.drain(0)
"""
    with program(code) as running:
        assert ended(running) == (0, "b'child'\nb'parent'\n", "")


def test_at_exit_all_that_was_sent_still_leaves_and_nothing_is_printed() -> None:
    code = """
import sys
from portico import blocking
stream = blocking.connect(sys.argv[1])
stream.send(bytes(10 << 20))
blocking.serve(lambda stream: stream.recv(), "tcp://127.0.0.1:0")
"""
    with listener() as listening:
        with program(code, f"tcp://127.0.0.1:{listening.getsockname()[1]}") as running:
            peer = listening.accept()[0]
            with peer, peer.makefile("rb") as file:
                assert len(file.read()) == 10 << 20
                assert ended(running) == (0, "", "")  # though this end is still open


def test_importing_portico_does_not_import_the_blocking_face() -> None:
    code = "import sys, portico; assert 'portico.blocking' not in sys.modules; from portico import blocking"
    with program(code) as running:
        assert ended(running) == (0, "", "")


def test_there_is_one_thread_for_all() -> None:
    with blocking.serve(echo, "tcp://127.0.0.1:0") as server, blocking.connect(server.address), connected():
        assert [each.name for each in threading.enumerate()].count("portico-blocking") == 1


def test_shutdown_ends_all_and_the_next_call_starts_anew() -> None:
    server = blocking.serve(echo, "tcp://127.0.0.1:0")
    stream = blocking.connect(server.address)
    reader = Aside(stream.recv)
    reader.waits()
    thread = background()._thread
    blocking.shutdown()
    blocking.shutdown()
    assert not thread.is_alive() and isinstance(reader.over().error, ClosedError)
    with pytest.raises(ClosedError, match="event loop"):
        stream.recv()
    stream.abort()
    with blocking.serve(echo, "tcp://127.0.0.1:0") as server, blocking.connect(server.address) as stream:
        stream.send(b"anew")
        assert stream.recv() == b"anew"


def test_shutdown_has_patience_with_what_is_unsent_and_then_aborts() -> None:
    with listener() as listening:
        stream = blocking.connect(f"tcp://127.0.0.1:{listening.getsockname()[1]}")
        with listening.accept()[0] as peer:
            stream.send(bytes(32 << 20))
            blocking.shutdown(timeout=0.05)
            peer.settimeout(PATIENCE)
            with pytest.raises(ConnectionResetError):
                while peer.recv(1 << 20):
                    pass


def test_a_call_ends_when_its_loop_was_closed_without_an_answer() -> None:
    import asyncio

    from portico.transports.faces import blocking_face

    loop = asyncio.new_event_loop()

    async def make() -> object:
        from portico.transports.connection import memory_pair

        return memory_pair()

    one, _other = loop.run_until_complete(make())
    face = blocking_face(one, loop)
    reader = Aside(face.recv)
    loop.close()
    assert isinstance(reader.over().error, ClosedError)


def test_a_handler_that_hangs_does_not_hold_up_shutdown() -> None:
    code = """
import sys, threading
from portico import blocking

begun = threading.Event()

def hang(stream):
    begun.set()
    threading.Event().wait()

server = blocking.serve(hang, "tcp://127.0.0.1:0")
stream = blocking.connect(server.address)
begun.wait()
blocking.shutdown(timeout=0.1)
print("over")
"""
    with program(code) as running:
        assert ended(running) == (0, "over\n", "")
