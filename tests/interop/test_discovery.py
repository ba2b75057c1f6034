"""Avahi on another machine of a network, both ways; two machines that chat; networks that are not as they should be."""

import contextlib
import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from namespaces import Machine, machines, two_machines
from peers import need_program
from tools.command import PORTICO, Process, environment, started

CHAT = "_portico-chat._tcp"

BUS = """
<busconfig><type>system</type><listen>unix:path={bus}</listen><auth>EXTERNAL</auth><policy context="default">
<allow user="*"/><allow own="*"/><allow send_destination="*"/><allow receive_sender="*"/></policy></busconfig>
"""


def on(machine: Machine, *words: str) -> "contextlib.AbstractContextManager[Process]":
    """Start the command on a machine."""
    return started(*machine.inside(*PORTICO, *words))  # type: ignore[no-any-return]


def ended(machine: Machine, *words: str) -> "subprocess.CompletedProcess[bytes]":
    """Run the command on a machine to its end."""
    line = machine.inside(*PORTICO, *words)
    return subprocess.run(line, capture_output=True, timeout=20, env=environment(), check=False)


class Avahi:
    """A daemon of the test's own, with a bus of its own."""

    def __init__(self, machine: Machine, bus: Path) -> None:
        self.machine, self.bus = machine, f"DBUS_SYSTEM_BUS_ADDRESS=unix:path={bus}"

    def started(self, *words: str) -> "contextlib.AbstractContextManager[Process]":
        """Start a program of Avahi's beside it."""
        need_program(words[0])
        return started(*self.machine.inside("env", self.bus, *words))


@contextlib.contextmanager
def avahi(machine: Machine, directory: Path) -> Iterator[Avahi]:
    daemon, bus = need_program("avahi-daemon"), directory / "bus"
    (directory / "bus.conf").write_text(BUS.format(bus=bus))
    (directory / "avahi.conf").write_text("[server]\nhost-name=attic\n")
    broker = [need_program("dbus-daemon"), f"--config-file={directory}/bus.conf", "--nofork", "--nopidfile"]
    private = (
        "mount -t tmpfs tmpfs /run && mkdir /run/avahi-daemon && exec"  # in the namespace of `ip netns exec` alone
    )
    settings = f"-f {directory}/avahi.conf --no-drop-root --no-chroot --no-rlimits"
    with started(*machine.inside(*broker, "--print-address")) as dbus:
        dbus.stdout.wait_for("unix:path")
        here = Avahi(machine, bus)
        with started(*machine.inside("sh", "-c", f"{private} env {here.bus} {daemon} {settings}")) as running:
            running.stderr.wait_for("Server startup complete")
            yield here


@pytest.fixture
def network() -> Iterator[tuple[Machine, Machine]]:
    with two_machines() as both:
        yield both


def test_avahi_finds_what_is_announced_and_hears_its_good_bye(network: tuple[Machine, Machine], tmp_path: Path) -> None:
    here, there = network
    with avahi(there, tmp_path) as attic, attic.started("avahi-browse", "-p", "-r", CHAT) as browsing:
        with on(here, "demo", "--host", "*", "--port", "0", "--announce", "--name", "our chät") as demo:
            demo.stdout.wait_for("Announced as 'our chät' on eth7")
            port = demo.stdout.wait_for(r"tcp://\*:(\d+)")[1]
            browsing.stdout.wait_for(
                rf"^=;eth7;IPv4;our\\032ch\S+;{CHAT};local;\S+;({here.address}|fe80::\S+);{port};\"scheme=tcp\"$"
            )
            browsing.stdout.wait_for(rf"^=;eth7;IPv6;our\\032ch\S+tls\S+;{CHAT};local;\S+;\"scheme=tls\"$")
            demo.send_signal(signal.SIGINT)
            assert demo.wait() == 0 and demo.stderr.all() == b""
        browsing.stdout.wait_for(rf"^-;eth7;IPv4;our\\032ch\S+;{CHAT};local$")


def test_what_avahi_publishes_is_found_and_its_end_is_told(network: tuple[Machine, Machine], tmp_path: Path) -> None:
    here, there = network
    kind = "_portico-test._tcp"
    with avahi(there, tmp_path) as attic, on(here, "discover", kind, "--watch") as watching:
        with attic.started(
            "avahi-publish", "-s", "attic printer 1.2", kind, "7777", "path=/a", "note=ä b", "flag"
        ) as out:
            out.stderr.wait_for("Established")
            found = (
                rf"attic printer 1\.2\ttcp://{there.address}:7777 tcp://\[fe80::\S+%eth7\]:7777\tpath=/a note=ä b flag$"
            )
            watching.stdout.wait_for(rf"^\+ {found}")
            assert kind in ended(here, "discover").stdout.decode().split()
            (facts,) = json.loads(ended(here, "discover", kind, "--json").stdout)
            assert (facts["name"], facts["host"], facts["interface"]) == ("attic printer 1.2", "attic.local", "eth7")
            assert facts["properties"] == {"path": "/a", "note": "ä b", "flag": None}
        watching.stdout.wait_for(rf"^- {found}")
        watching.send_signal(signal.SIGINT)
        assert watching.wait() == 0


def test_a_name_that_avahi_has_already_is_left_to_it(network: tuple[Machine, Machine], tmp_path: Path) -> None:
    here, there = network
    with avahi(there, tmp_path) as attic, attic.started("avahi-publish", "-s", "our chat", CHAT, "7777") as publishing:
        publishing.stderr.wait_for("Established")
        with on(here, "demo", "--host", "*", "--port", "0", "--announce", "--name", "our chat") as demo:
            demo.stdout.wait_for("Announced as 'our chat-2' on eth7")
            assert "ollision" not in publishing.stderr.text


def test_a_chat_on_another_machine_is_found_and_joined(network: tuple[Machine, Machine]) -> None:
    here, there = network
    with (
        on(here, "demo", "--host", "*", "--port", "0", "--announce", "--name", "downstairs") as demo,
        on(here, "demo", "--host", here.address, "--port", "0", "--announce", "--name", "upstairs") as other,
    ):
        demo.stdout.wait_for("Announced as 'downstairs' on eth7")
        other.stdout.wait_for("Announced as 'upstairs' on eth7")
        with (
            on(there, "demo", "chat", "--discover", "--name", "Upstairs") as first,
            on(there, "demo", "chat", "--discover") as second,
        ):
            first.stdout.wait_for("welcome to upstairs: you are guest-")
            room = second.stdout.wait_for(r"welcome to (\w+): you are")[1]
            second.stderr.wait_for(f"there are more; choose with --name: {({'upstairs', 'downstairs'} - {room}).pop()}")
            second.write(b"/quit\n")
            second.end_input()
            assert second.wait() == 0
            other.send_signal(signal.SIGTERM)
            first.stdout.wait_for("the room closes")
            first.end_input()
            assert first.wait() == 0 and other.wait() == 0


def test_a_chat_on_loopback_is_not_known_to_other_machines(network: tuple[Machine, Machine]) -> None:
    here, there = network
    with on(here, "demo", "--port", "0", "--announce", "--name", "ours") as demo:
        demo.stdout.wait_for("Announced as 'ours' on this machine only")
        done = ended(there, "demo", "--discover")
        assert (done.returncode, done.stdout) == (1, b"")
        line = b"portico: no chat was found within 3 s; start one with: portico demo --announce\n"
        assert done.stderr == line
        with on(here, "demo", "--discover") as near:
            near.stdout.wait_for("welcome to ours")


def test_an_interface_that_goes_away_leaves_an_announcement_that_can_end(network: tuple[Machine, Machine]) -> None:
    here, there = network
    with (
        on(here, "demo", "--host", "*", "--port", "0", "--announce") as demo,
        on(there, "discover", CHAT, "--watch") as it,
    ):
        it.stdout.wait_for(r"^\+ the Portico chat\t")
        here.ip("link del eth7")
        demo.send_signal(signal.SIGINT)
        it.send_signal(signal.SIGINT)
        assert (demo.wait(), it.wait()) == (0, 0)
        assert "Traceback" not in demo.stderr.text + it.stderr.text


def test_without_any_network_a_listener_on_every_interface_is_announced_on_loopback() -> None:
    with (
        machines(1) as (lonely,),
        on(lonely, "demo", "--host", "*", "--port", "0", "--announce", "--name", "x") as demo,
    ):
        demo.stdout.wait_for("Announced as 'x' on lo")
        assert re.fullmatch(
            rb"x\ttcp://\[::1\]:(\d+) tcp://127.0.0.1:\1\t\n",
            ended(lonely, "discover", CHAT).stdout.partition(b"x (tls)")[0],
        )


def test_an_interface_that_is_down_is_left_out() -> None:
    with machines(1) as (lonely,):
        lonely.ip("link add eth8 type veth peer name eth9")
        lonely.ip("addr add 10.98.0.1/24 dev eth8")
        with on(lonely, "demo", "--host", "*", "--port", "0", "--announce", "--name", "x") as demo:
            demo.stdout.wait_for("Announced as 'x' on lo")


def test_a_port_that_somebody_keeps_to_himself_is_told_in_one_line() -> None:
    hold = "import socket; s = socket.socket(2, 2); s.bind(('', 5353)); print('bound', flush=True); input()"
    with machines(1) as (lonely,), started(*lonely.inside(sys.executable, "-c", hold)) as holder:
        holder.stdout.wait_for("bound")
        done = ended(lonely, "discover", CHAT)
        assert (done.returncode, done.stdout) == (1, b"")
        said = rb"portico: cannot listen on udp://\*:5353: address already in use by .*; it has to let others use .*\n"
        assert re.fullmatch(said, done.stderr)
