"""Networks of the test's own: namespaces of the kernel with cables between them (needs root)."""

import contextlib
import ctypes
import itertools
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator

from peers import missing, need_program

CLONE_NEWNET = 0x40000000
MULTICAST_ROUTES = ("ip", "-6", "route", "show", "table", "all", "type", "multicast")
numbers = itertools.count()


class Machine:
    """A network namespace, which programs run in as if it was a machine."""

    def __init__(self, name: str, address: str) -> None:
        self.name, self.address = name, address

    def inside(self, *command: str) -> list[str]:
        """The command line that runs `command` on it."""
        return ["ip", "netns", "exec", self.name, *command]

    def run(self, *command: str) -> bytes:
        """Run a program on it, and return what it writes."""
        line = self.inside(*command)
        return subprocess.run(line, check=True, stdin=subprocess.DEVNULL, capture_output=True).stdout

    def ip(self, words: str) -> None:
        """Change its interfaces by ip(8)."""
        subprocess.run(["ip", "-n", self.name, *words.split()], check=True, capture_output=True)

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """What this thread opens in here is opened on it."""
        with open("/proc/thread-self/ns/net") as back, open(f"/run/netns/{self.name}") as inside:
            _enter(inside.fileno())
            try:
                yield
            finally:
                _enter(back.fileno())


def _enter(namespace: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace, CLONE_NEWNET):
        code = ctypes.get_errno()
        raise OSError(code, f"setns: {os.strerror(code)}")


@contextlib.contextmanager
def machines(count: int) -> Iterator[list[Machine]]:
    """Machines without a network but loopback; they are removed in the end."""
    need_program("ip")
    if os.geteuid() != 0:
        missing("network namespaces need root")
    with contextlib.ExitStack() as stack:
        made = []
        for position in range(count):
            name = f"portico-{os.getpid()}-{next(numbers)}"
            subprocess.run(["ip", "netns", "add", name], check=True, capture_output=True)
            stack.callback(subprocess.run, ["ip", "netns", "del", name], check=True, capture_output=True)
            made.append(Machine(name, f"10.99.0.{position + 1}"))
            made[-1].ip("link set lo up")
        yield made


@contextlib.contextmanager
def two_machines() -> Iterator[tuple[Machine, Machine]]:
    """Two machines with a cable between their interfaces `eth7`, with IPv4 and link-local IPv6 addresses."""
    with machines(2) as (one, other):
        one.ip(f"link add eth7 type veth peer name eth7 netns {other.name}")
        for each in (one, other):
            at_once = "echo 0 > /proc/sys/net/ipv6/conf/eth7/accept_dad"  # addresses are not tried out first
            each.run("sh", "-c", at_once)
            each.ip(f"addr add {each.address}/24 dev eth7")
            each.ip("link set eth7 up")
        yield one, other


def on_a_machine(function: Callable[[Machine, Machine], None]) -> None:
    """Run `function` in a thread of its own on one of two machines, which have global IPv6 addresses, too."""
    errors: list[BaseException] = []

    def body() -> None:
        try:
            with two_machines() as (here, there), here.entered():
                for number, each in enumerate((here, there), 1):
                    each.ip(f"addr add fd09::{number}/64 dev eth7 nodad")
                    while b"ff00::/8 dev eth7" not in each.run(*MULTICAST_ROUTES):  # they take their time
                        time.sleep(0.01)
                function(here, there)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
