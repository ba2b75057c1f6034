"""`portico demo`: people come in by every door with the command that is printed for it."""

import contextlib
import os
import re
import signal
import socket
from collections.abc import Iterator

import pytest
from peers import need_program
from ports import free_port

from tools.command import Process, in_shell, portico, started_portico


@contextlib.contextmanager
def demo(*words: str) -> Iterator[tuple[Process, dict[str, str]]]:
    """The demo, and the command for each door."""
    with started_portico("demo", "--port", "0", "--name", "test room", *words) as server:
        server.stdout.wait_for(r"connect udp:\S+\n")
        commands = [line.strip() for line in server.stdout.text.splitlines()]
        known = {
            "tcp": r"nc [\d.]+ \d+",
            "tls": r"openssl s_client ",
            "unix": r"nc -U ",
            "portico tcp": r".* connect [\d.]+:\d+",
            "portico tls": r".* connect tls://",
            "portico unix": r".* connect unix:",
            "udp": r"nc -u [\d.]+ \d+",
            "portico udp": r".* connect udp://",
        }
        yield server, {name: next(c for c in commands if re.match(p, c)) for name, p in known.items()}


@contextlib.contextmanager
def person(command: str) -> Iterator[Process]:
    if not command.startswith("/"):
        need_program(command.split()[0])
    with in_shell(command) as process:
        if " -u " in command or " udp:" in command:
            process.write(b"\n")  # as it says: then press Enter
        process.stdout.wait_for("you are guest-")
        yield process


def test_the_printed_commands_join_one_room() -> None:
    with demo() as (server, commands), contextlib.ExitStack() as stack:
        people = {name: stack.enter_context(person(command)) for name, command in commands.items()}
        for name, process in people.items():
            process.write(f"/name {name.replace(' ', '-')}\r\n".encode())
            process.stdout.wait_for(f"you are {name.replace(' ', '-')} now")
        for name, process in people.items():
            process.write(f"good \x1b[31mday\x07 from {name}\n".encode())
            for other in people.values():
                if other is not process:
                    other.stdout.wait_for(f"^{name.replace(' ', '-')}: good day from {name}$")
        people["tls"].write(b"/who\n")
        people["tls"].stdout.wait_for(r"here are: .*tcp \(tcp\).*tls \(tls\).*unix \(unix\).*udp \(udp\)")
        assert "\x1b" not in "".join(process.stdout.text for process in people.values())
        server.send_signal(signal.SIGTERM)
        for process in people.values():
            process.stdout.wait_for("the room closes")
            process.end_input()
        assert server.wait() == 0
        assert server.stdout.all().endswith(b"the room is closed\n")
        assert server.stderr.all() == b""


def test_socat_and_others_meet_in_one_room() -> None:
    """By TCP, TLS, a Unix socket and UDP, with none of the printed commands."""
    with demo() as (_, commands), contextlib.ExitStack() as stack:
        path, port = commands["unix"].split()[-1], commands["tcp"].split()[-1]
        ca = commands["tls"].split()[-1]
        where = re.search(r"-connect (\S+)", commands["tls"])
        assert where is not None
        programs = {
            "tcp": f"ncat 127.0.0.1 {port}",
            "tls": f"socat - OPENSSL:{where[1]},cafile={ca},commonname=localhost",
            "unix": f"socat - UNIX-CONNECT:{path}",
            "udp": f"socat - UDP4:127.0.0.1:{commands['udp'].split()[-1]}",
        }
        people = {}
        for name, command in programs.items():
            people[name] = stack.enter_context(
                in_shell(need_program(command.split()[0]) + command[command.index(" ") :])
            )
            people[name].write(f"/name {name}\n".encode())
            people[name].stdout.wait_for(f"you are {name} now")
        for name, process in people.items():
            process.write(f"hello from {name}\n".encode())
            for other in people.values():
                if other is not process:
                    other.stdout.wait_for(f"^{name}: hello from {name}$")


def test_somebody_by_udp_leaves_and_comes_back() -> None:
    with demo() as (_, commands), person(commands["tcp"]) as one, person(commands["udp"]) as other:
        other.stdout.wait_for("over UDP nobody sees you go: say /quit, or you leave after 10 minutes of silence")
        other.write(b"/quit\n")
        other.stdout.wait_for("good bye, guest-2")
        one.stdout.wait_for("guest-2 left")
        other.write(b"hello again\n")
        one.stdout.wait_for("^guest-3: hello again$")


def test_somebody_by_udp_whose_program_ended_has_left_when_somebody_speaks() -> None:
    with demo() as (_, commands), person(commands["tcp"]) as one, person(commands["udp"]) as other:
        other.process.kill()
        other.wait()
        one.write(b"is anybody there?\n")
        one.stdout.wait_for("guest-2 left")
        one.write(b"/who\n")
        one.stdout.wait_for(r"here are: guest-1 \(tcp\)$")


def test_people_are_told_what_was_wrong_and_stay() -> None:
    with demo() as (_, commands), person(commands["tcp"]) as one, person(commands["unix"]) as other:
        one.write(b"x" * 10_000 + b"\n")
        one.stdout.wait_for("at most 4096 bytes")
        one.write(b"\xff\xfe\n")
        one.stdout.wait_for("not UTF-8")
        one.write(b"/nonsense\n/name a b\n")
        one.stdout.wait_for("a name has 1 to 20 letters")
        one.write(b"still here\n")
        other.stdout.wait_for("^guest-1: still here$")
        one.write(b"/quit\n")
        one.stdout.wait_for("good bye, guest-1")
        other.stdout.wait_for("guest-1 left")
        one.end_input()
        assert one.wait() == 0


def test_ctrl_c_closes_the_room() -> None:
    with demo() as (server, _):
        server.send_signal(signal.SIGINT)
        assert server.wait() == 0
        assert server.stderr.all() == b""


def test_a_taken_port_is_an_error_when_it_was_asked_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = portico("demo", "--port", str(taken.getsockname()[1]))
    assert done.returncode == 1
    assert done.stderr.count(b"\n") == 1 and b"address already in use by" in done.stderr


def test_a_taken_port_of_the_page_is_an_error_when_it_was_asked_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = portico("demo", "--port", "0", "--web-port", str(taken.getsockname()[1]))
    assert done.returncode == 1
    assert done.stderr.count(b"\n") == 1 and b"address already in use by" in done.stderr


def test_a_taken_usual_port_of_the_page_is_replaced() -> None:
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # somebody else may have it, which is as good
            stack.enter_context(socket.create_server(("127.0.0.1", 8000)))
        server = stack.enter_context(started_portico("demo"))
        server.stdout.wait_for("connect udp:")
        server.stderr.wait_for("port 8000 is taken.*using a free one")


def test_the_page_is_the_first_thing_that_is_told_and_is_there() -> None:
    with demo() as (server, _):
        shown = server.stdout.text
        page = re.search(r"http://\S+/", shown)
        assert page is not None and page.start() < shown.index("Door")
        done = portico("fetch", page[0])
        assert done.returncode == 0 and b"<title>Portico chat</title>" in done.stdout


def test_a_websocket_in_a_terminal_is_in_the_same_room() -> None:
    with demo() as (server, commands), person(commands["tcp"]) as one:
        page = re.search(r"http://(\S+)/", server.stdout.text)
        assert page is not None
        with started_portico("connect", f"ws://{page[1]}/chat") as other:
            other.stdout.wait_for("you are guest-2, one other is here")
            other.write(b"hello from a WebSocket\n")
            one.stdout.wait_for("^guest-2: hello from a WebSocket$")
            one.write(b"hello to it\n")
            other.stdout.wait_for("^guest-1: hello to it$")
            server.send_signal(signal.SIGTERM)
            other.stdout.wait_for("the room closes")
            other.end_input()
            assert other.wait() == 0


def test_a_taken_usual_port_is_replaced() -> None:
    with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", 9000)):
        pass
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # somebody else may have it, which is as good
            stack.enter_context(socket.create_server(("127.0.0.1", 9000)))
        server = stack.enter_context(started_portico("demo"))
        server.stdout.wait_for("connect unix:")
        server.stderr.wait_for("port 9000 is taken.*using a free one")


def test_it_says_who_can_reach_a_room_that_is_not_private() -> None:
    with started_portico("demo", "--host", "*", "--port", "0") as server:
        server.stdout.wait_for("Not only you: .*every network this machine is on")


def test_a_room_that_is_announced_is_found_by_its_name_and_joined() -> None:
    name = f"room {os.getpid()}"
    with started_portico("demo", "--port", "0", "--announce", "--name", name) as server:
        server.stdout.wait_for(f"Announced as '{name}' on this machine only")
        with started_portico("demo", "chat", "--discover", "--name", name.upper()) as person:
            person.stdout.wait_for(f"welcome to {name}: you are guest-1")
            person.stderr.wait_for(f"joining {name} at tcp://127.0.0.1:")
            listed = portico("discover", "_portico-chat._tcp").stdout.decode()
            assert re.search(rf"^{name}\ttcp://127\.0\.0\.1:\d+\t$", listed, re.M)
            server.send_signal(signal.SIGTERM)
            person.stdout.wait_for("the room closes")
            person.end_input()
            assert (person.wait(), server.wait()) == (0, 0)
            assert server.stderr.all() == b""


def test_a_room_that_nobody_announces_is_not_found() -> None:
    done = portico("demo", "chat", "--discover", "--name", "nobody's")
    said = b'portico: no chat called "nobody\'s" was found within 3 s; start one with: portico demo --announce\n'
    assert (done.returncode, done.stdout, done.stderr) == (1, b"", said)


def test_a_port_that_is_taken_for_udp_alone_is_an_error_when_it_was_asked_for() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        port = free_port()
        taken.bind(("127.0.0.1", port))
        done = portico("demo", "--port", str(port))
    assert done.returncode == 1
    assert done.stderr.count(b"\n") == 1 and b"udp://127.0.0.1" in done.stderr


@pytest.mark.parametrize("bots", ["1", "20", "200"])
def test_bots_lose_nothing(bots: str) -> None:
    done = portico("demo", "--bots", bots, "--seconds", "0.5")
    assert (done.returncode, done.stderr) == (0, b"")
    text = done.stdout.decode()
    assert "nothing was lost" in text
    total = re.search(r"^ all +(\d+) +(\d+) +(\d+) +(\d+) +0 ", text, re.M)
    assert total is not None
    people, sent, expected, delivered = map(int, total.groups())
    assert people == int(bots) and delivered == expected == sent * (people - 1) and sent >= people
    assert len(re.findall(r"^ (?:tcp|tls|unix|udp|ws) ", text, re.M)) == min(int(bots), 5)
