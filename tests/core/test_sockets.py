"""What only sockets have: hang-ups while paused, passed descriptors, accepting, several loops at once."""

# ruff: noqa: B023 (every function is over before its loop goes on)

import asyncio
import gc
import os
import resource
import socket
import struct
import threading
from array import array

import pytest
from leaks import descriptors, opened_since

from portico._core import Acceptor, Descriptors, SocketWire, control_bytes, hub_of
from portico.errors import ClosedError

from .support import (
    LOOPS,
    Net,
    Server,
    client_tls,
    connection,
    echo,
    native,
    run,
    scenario,
    server_tls,
    socket_pair,
    turns,
    until,
)


def cpu():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


@scenario(wires=("tcp", "unix"))
async def test_a_hang_up_while_reading_is_paused_costs_nothing(net):
    for how in ("close", "reset", "unread"):
        for half_closed in (False, True):
            one, sock = socket_pair(net.kind == "unix")
            stream = connection(native(one), None, read_limit=10)
            sock.send(b"x" * 1000)
            await until(lambda: stream.queued[0])
            if how == "unread":
                stream.send(b"nobody reads this")
            if half_closed:
                stream.send_eof()
            await turns()
            if how == "reset":
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.close()
            await turns()
            before = cpu()
            await asyncio.sleep(0.15)
            assert cpu() - before < 0.1, (how, half_closed)
            assert await stream.recv_exactly(1000) == b"x" * 1000
            if net.kind == "tcp" and how != "close":
                with pytest.raises(ClosedError):
                    await stream.recv()
            else:
                try:
                    assert await stream.recv() == b""
                except ClosedError as error:
                    assert how == "unread" and isinstance(error.__cause__, ConnectionResetError)
            await stream.close()


@scenario(wires=("tcp", "unix"))
async def test_a_hang_up_behind_the_end_is_noticed_and_does_not_spin(net):
    one, sock = socket_pair(net.kind == "unix")
    stream = connection(native(one), None)
    sock.shutdown(socket.SHUT_WR)
    assert await stream.recv() == b""
    stream.send(b"never read")
    await turns()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
    before = cpu()
    await asyncio.sleep(0.15)
    assert cpu() - before < 0.1
    with pytest.raises(ClosedError):
        for _ in range(5):
            await stream.send(b"x" * 100_000)
            await turns(2)
    await stream.close()


# --- descriptors over Unix sockets ----------------------------------------------------------------------


async def unix_pair(max_passed):
    one, other = socket_pair(unix=True)
    wires = native(one, max_passed=max_passed), native(other, max_passed=max_passed)
    return [(wire, connection(wire, None)) for wire in wires]


def pass_descriptors(wire, data, fds):
    return wire.send_control(data, control_bytes([(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", fds).tobytes())]))


def take_passed(stream, most):
    taken = []
    for record in stream.ancillary:
        if isinstance(record, Descriptors):
            taken += record.take(most - len(taken))
    return taken


@scenario(loops=tuple(LOOPS))
async def test_descriptors_are_passed_in_order_with_their_bytes():
    (wire, stream), (_, far_stream) = await unix_pair(10)
    pipes = [os.pipe() for _ in range(3)]
    assert pass_descriptors(wire, b"abc", [pipe[1] for pipe in pipes[:2]]) == 3
    assert await far_stream.recv() == b"abc"
    assert pass_descriptors(wire, b"d", [pipes[2][1]]) == 1
    assert await far_stream.recv() == b"d"
    taken = take_passed(far_stream, 2) + take_passed(far_stream, 5)
    assert len(taken) == 3 and take_passed(far_stream, 1) == []
    for index, descriptor in enumerate(taken):
        os.write(descriptor, b"%d" % index)
        assert os.read(pipes[index][0], 10) == b"%d" % index
        assert not os.get_inheritable(descriptor)
    for descriptor in [*taken, *(end for pipe in pipes for end in pipe)]:
        os.close(descriptor)
    await asyncio.gather(stream.close(), far_stream.close())
    assert pass_descriptors(wire, b"x", [0]) == -1


@scenario()
async def test_descriptors_over_the_limit_and_untaken_ones_are_closed():
    (wire, stream), (_, far_stream) = await unix_pair(4)
    reading, writing = os.pipe()
    for _ in range(3):
        assert pass_descriptors(wire, b"x", [writing] * 3) == 1
        assert await far_stream.recv() == b"x"
    assert len(take_passed(far_stream, 2)) == 2
    assert [record[0] for record in far_stream.ancillary if isinstance(record, tuple)] == [-1, -1]  # told as truncated
    # what was taken is ours to close: these are the last two copies beside `writing`
    await asyncio.gather(stream.close(), far_stream.close())
    held = [name for name, target in descriptors().items() if target == os.readlink(f"/proc/self/fd/{writing}")]
    copies = [int(name) for name in held if int(name) not in (reading, writing)]
    assert len(copies) == 2
    for descriptor in (*copies, reading, writing):
        os.close(descriptor)


@scenario()
async def test_descriptors_nobody_asked_for_are_never_received():
    one, other = socket_pair(unix=True)
    wire, far = native(one), native(other)
    stream, far_stream = connection(wire, None), connection(far, None)
    before = len(descriptors())
    pass_descriptors(wire, b"x", [0, 1, 2])
    assert await far_stream.recv() == b"x"
    assert take_passed(far_stream, 10) == [] and len(descriptors()) == before
    await asyncio.gather(stream.close(), far_stream.close())


def test_passed_descriptors_are_closed_with_a_wire_that_is_dropped():
    async def main():
        (wire, _), (_, far_stream) = await unix_pair(4)
        pass_descriptors(wire, b"x", [0, 1])
        assert await far_stream.recv() == b"x"

    run("asyncio", main)


@scenario()
async def test_a_wire_without_a_connection_is_discarded():
    one, other = socket_pair()
    wire = native(one)
    assert wire.fileno() >= 0
    wire.discard()
    wire.discard()
    assert wire.fileno() == -1
    assert other.recv(10) == b""
    other.close()
    one, other = socket_pair()
    one.close()
    wire = native(other)
    assert wire.socket.fileno() == wire.fileno() and wire.socket is wire.socket
    assert not wire.socket.getblocking()
    stream = connection(wire, None)
    await stream.close()
    assert wire.fileno() == -1


# --- accepting ------------------------------------------------------------------------------------------


@scenario()
async def test_accepting_pausing_and_failing():
    loop = asyncio.get_running_loop()
    hub, accepted, failures = hub_of(loop), [], []
    with socket.create_server(("127.0.0.1", 0), backlog=100) as listener:
        listener.setblocking(False)

        def on_accept(fd, address):
            accepted.append(connection(SocketWire(hub, fd, address), None))
            if len(accepted) == 5:
                acceptor.pause_accepting()

        acceptor = Acceptor(loop, listener.fileno(), on_accept, failures.append)
        clients = [socket.create_connection(listener.getsockname()) for _ in range(12)]
        await until(lambda: len(accepted) == 5)
        await turns(10)
        assert len(accepted) == 5
        acceptor.resume_accepting()
        acceptor.resume_accepting()
        await until(lambda: len(accepted) == 12)
        for client, stream in zip(clients, accepted, strict=True):
            client.sendall(b"x")
            assert await stream.recv() == b"x"
            client.close()
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        extra = socket.create_connection(listener.getsockname())
        resource.setrlimit(resource.RLIMIT_NOFILE, (extra.fileno() + 1, limits[1]))
        try:
            await until(lambda: failures or len(accepted) > 12)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        acceptor.stop()
        acceptor.stop()
        extra.close()
    await asyncio.gather(*(stream.close() for stream in accepted))


# --- many ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", LOOPS)
def test_several_loops_in_threads_at_once(kind):
    answers, failures = [], []

    async def main():
        async with Server(Net("tcp"), echo) as server, Server(Net("tls-memory"), echo) as secure:
            clients = [await one.connect() for one in (server, secure) for _ in range(5)]
            for i in range(200):
                for client in clients:
                    client.send(b"%d" % i)
                for client in clients:
                    assert await client.recv() == b"%d" % i
            answers.append(threading.get_ident())

    def body():
        try:
            with asyncio.Runner(loop_factory=LOOPS[kind]) as runner:
                runner.run(main())
        except BaseException as error:
            failures.append(error)

    server_tls(), client_tls()  # one authority for all
    before = descriptors()
    threads = [threading.Thread(target=body) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    gc.collect()
    assert not failures and len(answers) == 4
    assert opened_since(before) == {}


def engine_objects():
    kinds = {}
    for item in gc.get_objects():
        if str(type(item).__module__).startswith("portico._core") or type(item).__name__ in ("Task", "coroutine"):
            kinds[type(item).__name__] = kinds.get(type(item).__name__, 0) + 1
    return kinds


def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4


@pytest.mark.parametrize("wire", ["tcp", "loop", "memory", "tls-tcp"])
@pytest.mark.parametrize("kind", LOOPS)
def test_a_thousand_connections_leave_nothing(kind, wire):
    async def one(server, i):
        client = await server.connect()
        for n in range(3):
            client.send(b"%d" % n * (1 + i % 50))
            await client.recv()
        client.abort() if i % 5 == 0 else client.close()
        await client.wait_closed()

    async def wave(server, count):
        for start in range(0, count, 100):
            await asyncio.gather(*(one(server, i) for i in range(start, start + 100)))
            await asyncio.gather(*server.tasks)
            await asyncio.gather(*(stream.wait_closed() for stream in server.connections))
            for left in (server.tasks, server.connections, server.clients, server.errors):
                left.clear()
        await turns(20)
        if wire.startswith("tls"):
            await until(lambda: sum("socket" in target for target in descriptors().values()) == sockets)

    async def main():
        nonlocal sockets
        sockets = sum("socket" in target for target in descriptors().values())
        async with Server(Net(wire), echo) as server:
            await wave(server, 300)
            gc.collect()
            before = engine_objects(), len(descriptors()), resident()
            await wave(server, 1000)
            gc.collect()
            after = engine_objects(), len(descriptors()), resident()
        assert after[0] == before[0] and after[1] <= before[1]
        assert after[2] - before[2] < (8000 if wire.startswith("tls") else 4000)

    sockets = 0
    run(kind, main, timeout=60)


@scenario(wires=("tcp", "memory"))
async def test_an_end_needs_no_garbage_collection(net):
    gc.collect()
    before = engine_objects().get("ChannelBase", 0)
    gc.disable()
    try:
        async with Server(net, echo) as server:
            for _ in range(50):
                client = await server.connect()
                client.send(b"x")
                await client.recv()
                client.close()
                await asyncio.gather(client.wait_closed(), server.connections[-1].wait_closed(), server.tasks[-1])
                server.tasks.clear(), server.connections.clear(), server.clients.clear()
            await turns(10)
            assert engine_objects().get("ChannelBase", 0) - before <= 2  # the last ones have names here
    finally:
        gc.enable()
