"""Networks of the test's own: namespaces of the kernel with cables between them (needs root)."""

import contextlib
import itertools
import os
import subprocess
from collections.abc import Iterator

import pytest
from peers import need_program

numbers = itertools.count()


class Machine:
    """A network namespace, which programs run in as if it was a machine."""

    def __init__(self, name: str, address: str) -> None:
        self.name, self.address = name, address

    def inside(self, *command: str) -> list[str]:
        """The command line that runs `command` on it."""
        return ["ip", "netns", "exec", self.name, *command]

    def ip(self, words: str) -> None:
        """Change its interfaces by ip(8)."""
        subprocess.run(["ip", "-n", self.name, *words.split()], check=True, capture_output=True)


@contextlib.contextmanager
def machines(count: int) -> Iterator[list[Machine]]:
    """Machines without a network but loopback; they are removed in the end."""
    need_program("ip")
    if os.geteuid() != 0:
        (pytest.fail if os.environ.get("PORTICO_REQUIRE_PEERS") else pytest.skip)("network namespaces need root")
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
            subprocess.run(each.inside("sh", "-c", at_once), check=True, capture_output=True)
            each.ip(f"addr add {each.address}/24 dev eth7")
            each.ip("link set eth7 up")
        yield one, other
