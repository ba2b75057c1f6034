"""What the tests of packets share: sockets that are not Portico's, and network namespaces of their own."""

import asyncio
import contextlib
import ctypes
import os
import socket
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from portico.transports.datagrams import Datagrams, Packet
from tests.peers import need_program

CLONE_NEWNET = 0x40000000
UDP_SEGMENT, UDP_GRO = 103, 104


def fallback() -> bool:
    """Whether packets go by the loop, which tells less of them."""
    from portico._core import hub_of

    return not hub_of(asyncio.get_running_loop()).native_sockets


@contextlib.contextmanager
def udp(host: str = "127.0.0.1", port: int = 0) -> Iterator[socket.socket]:
    """A plain socket of the test, bound and not blocking."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((host, port))
        sock.setblocking(False)
        yield sock


async def heard(sock: socket.socket, size: int = 70_000) -> tuple[bytes, Any]:
    """The next packet of a plain socket, and who sent it."""
    loop = asyncio.get_running_loop()
    ready = loop.create_future()
    loop.add_reader(sock, lambda: ready.done() or ready.set_result(None))
    try:
        await ready
    finally:
        loop.remove_reader(sock)
    return sock.recvfrom(size)


async def taken(packets: Datagrams, count: int) -> list[Packet]:
    """The next `count` packets."""
    return [await packets.recv() for _ in range(count)]


def closed_port(host: str = "127.0.0.1") -> int:
    """A port that nobody has."""
    with udp(host) as sock:
        return int(sock.getsockname()[1])


def _call(name: str, *arguments: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments):
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")


class Network:
    """A network namespace that the thread of the test is in, and a second one, joined to it by a pair of interfaces:
    `here0` and `there0`."""

    def __init__(self, holder: "subprocess.Popen[bytes]") -> None:
        self.holder = holder

    def ip(self, command: str) -> None:
        """Run ip(8) on this side."""
        subprocess.run(["ip", *command.split()], check=True, stdin=subprocess.DEVNULL)

    def ip_there(self, command: str) -> None:
        """Run ip(8) on the other side."""
        self.run_there("ip", *command.split())

    def run_there(self, *command: str) -> None:
        """Run a program on the other side."""
        subprocess.run([*self.prefix, *command], check=True, stdin=subprocess.DEVNULL)

    @property
    def prefix(self) -> list[str]:
        """What to write before a command that is to run on the other side."""
        return ["nsenter", "-t", str(self.holder.pid), "-n"]

    @contextlib.contextmanager
    def there(self) -> Iterator[None]:
        """What is opened in here is opened on the other side."""
        with open("/proc/thread-self/ns/net") as here, open(f"/proc/{self.holder.pid}/ns/net") as other:
            _call("setns", other.fileno(), CLONE_NEWNET)
            try:
                yield
            finally:
                _call("setns", here.fileno(), CLONE_NEWNET)


def _in_a_namespace(function: Callable[[Network], None]) -> None:
    _call("unshare", CLONE_NEWNET)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    with subprocess.Popen(
        ["unshare", "-n", "sh", "-c", "echo; read x"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        try:
            assert holder.stdout is not None
            holder.stdout.readline()  # it is in its namespace now
            network = Network(holder)
            network.ip(f"link add here0 type veth peer name there0 netns {holder.pid}")
            for which, run, number in (("here0", network.ip, 1), ("there0", network.ip_there, 2)):
                run(f"addr add 10.9.0.{number}/24 brd 10.9.0.255 dev {which}")
                run(f"addr add fd09::{number}/64 dev {which} nodad")
                run(f"link set {which} up")
            network.ip_there("link set lo up")
            for prefix in ([], network.prefix):  # the kernel takes its time to let multicast through
                while b"ff00::/8 dev" not in subprocess.check_output(
                    [*prefix, "ip", "-6", "route", "show", "table", "all", "type", "multicast"]
                ):
                    time.sleep(0.01)
            function(network)
        finally:
            holder.kill()


def in_a_namespace(function: Callable[[Network], None]) -> None:
    """Run `function` in a thread that is in a network namespace of its own, which goes away with it."""
    need_program("ip")
    need_program("nsenter")
    if os.geteuid():
        pytest.skip("network namespaces need root")
    errors: list[BaseException] = []

    def body() -> None:
        try:
            _in_a_namespace(function)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]


@contextlib.asynccontextmanager
async def aborted(*connections: Any) -> AsyncIterator[None]:
    """Abort the connections in the end: the close of one would wait for the other's."""
    try:
        yield
    finally:
        for each in connections:
            each.abort()
        for each in connections:
            await each.wait_closed()
