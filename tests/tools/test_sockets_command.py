"""`portico sockets`: what it shows, beside the sockets of the test itself and beside ss(8)."""

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from peers import need_program

from portico.transports.processes import user_name
from tools.command import PATIENCE, PORTICO, environment, portico, started_portico

HERE = f"127.77.{os.getpid() >> 8 & 255}.{os.getpid() & 255 or 1}"
"""An address of loopback that nobody else uses, as others leave theirs behind in time-wait."""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="sock_diag is Linux's")


@dataclass
class Pair:
    """A connection of this process, with bytes that its listener's side has not read."""

    listener: socket.socket
    client: socket.socket
    accepted: socket.socket

    @property
    def port(self) -> int:
        port: int = self.listener.getsockname()[1]
        return port

    @property
    def end(self) -> str:
        return f"{HERE}:{self.client.getsockname()[1]}"


@pytest.fixture
def pair() -> Iterator[Pair]:
    with socket.create_server((HERE, 0), backlog=9) as listener:
        with (
            socket.create_connection(listener.getsockname(), source_address=(HERE, 0)) as client,
            listener.accept()[0] as accepted,
        ):
            client.sendall(b"x" * 4321)
            select.select([accepted], [], [], PATIENCE)
            yield Pair(listener, client, accepted)


def rows(output: bytes) -> list[list[str]]:
    """What is in the columns of each line."""
    return [re.split(r"  +", line.strip()) for line in output.decode().splitlines()]


HEADER = ["kind", "state", "local", "remote", "recv-q", "send-q", "rtt", "user", "process"]


def test_piped_it_is_a_line_a_socket_with_every_column(pair: Pair) -> None:
    done = portico("sockets", "--port", str(pair.port))
    assert (done.returncode, done.stderr) == (0, b"")
    header, listener, *ends = rows(done.stdout)
    owner = [user_name(os.geteuid()), f"{Path('/proc/self/comm').read_text().strip()}({os.getpid()})"]
    assert header == HEADER
    assert listener == ["tcp", "listen", f"{HERE}:{pair.port}", "-", "0", "9", "-", *owner]
    assert sorted(row[:6] + row[7:] for row in ends) == sorted(
        [
            ["tcp", "estab", f"{HERE}:{pair.port}", pair.end, "4321", "0", *owner],
            ["tcp", "estab", pair.end, f"{HERE}:{pair.port}", "0", "0", *owner],
        ]
    )
    assert all(re.fullmatch(r"\d+(\.\d+)?m?s", row[6]) for row in ends)


def test_which_are_shown(pair: Pair, tmp_path: Path) -> None:
    path = str(tmp_path / "gram")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as gram:
        gram.bind(path)

        def shown(*words: str) -> list[str]:
            return [row[2] for row in rows(portico("sockets", *words).stdout)[1:]]

        here = f"{HERE}:{pair.port}"
        assert shown("--listening", "--port", str(pair.port)) == [here]
        assert shown("-l", "-t", "--pid", str(os.getpid())) == [here]
        assert (
            shown(pair.end)
            == shown(f"TCP://{pair.end}")
            == sorted([here, pair.end], key=lambda end: int(end.rpartition(":")[2]))
        )
        assert shown(path) == shown("--unix", path) == shown("-x", "--udp", path) == [path]
        assert shown("--tcp", path) == shown("--udp", "--port", str(pair.port)) == []
        assert path in shown("--pid", str(os.getpid())) and here in shown("--pid", str(os.getpid()))


def test_json_tells_all(pair: Pair) -> None:
    done = portico("sockets", "--json", "--port", str(pair.port))
    found = {(each["local"], each["state"]): each for each in json.loads(done.stdout)}
    assert len(found) == 3
    entry = found[f"tcp://{HERE}:{pair.port}", "established"]
    assert entry["remote"] == f"tcp://{pair.end}"
    assert (entry["receive_queue"], entry["info"]["bytes_received"]) == (4321, 4321)
    assert entry["inode"] == os.fstat(pair.accepted.fileno()).st_ino
    assert [process["pid"] for process in entry["processes"]] == [os.getpid()]
    assert found[f"tcp://{HERE}:{pair.port}", "listening"]["remote"] is None
    assert json.loads(portico("sockets", "--json", "no such address").stdout) == []


def test_what_is_in_time_wait_is_shown_if_asked_for() -> None:
    with socket.create_server((HERE, 0)) as listener:
        with socket.create_connection(listener.getsockname(), source_address=(HERE, 0)) as client:
            end = client.getsockname()
            accepted, _ = listener.accept()
        with accepted:
            assert accepted.recv(1) == b""
    text = f"{HERE}:{end[1]}"
    limit = time.monotonic() + PATIENCE
    while b"time-wait" not in (all_ := portico("sockets", "--tcp", "--all", text)).stdout:
        assert time.monotonic() < limit, all_.stdout
    assert rows(all_.stdout)[1][1:3] == ["time-wait", text]
    assert rows(portico("sockets", "--tcp", text).stdout) == [HEADER]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--every", "0"], 2, "0 is not more than 0"),
        (["--port", "-1"], 2, "'--port'"),
        (["--pid", "x"], 2, "'--pid'"),
        (["a", "b"], 2, "unexpected extra argument"),
    ],
)
def test_wrong_usage_is_one_line(words: list[str], code: int, said: str) -> None:
    done = portico("sockets", *words)
    assert (done.returncode, done.stdout, done.stderr.count(b"\n")) == (code, b"", 1)
    assert said in done.stderr.decode()


def test_a_reader_that_has_gone_ends_it_silently() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [*PORTICO, "sockets"],
            stdout=writer,
            stderr=subprocess.PIPE,
            env=environment(),
            timeout=PATIENCE,
            check=False,
        )
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, b"")


# -- --watch


def test_watch_goes_on_until_ctrl_c(pair: Pair) -> None:
    with started_portico("sockets", "--watch", "--every", "0.05", "--port", str(pair.port)) as program:
        program.stdout.wait_for(r"(?s)4321.*\n\nkind.*4321")
        pair.accepted.recv(4000)
        program.stdout.wait_for(r"(?s)\n\nkind.* 321 ")
        program.send_signal(signal.SIGINT)
        assert program.wait() == 0
        assert program.stderr.all() == b""


def test_watch_prints_an_array_a_line(pair: Pair) -> None:
    with started_portico("sockets", "--watch", "--every", "0.05", "--json", "--port", str(pair.port)) as program:
        program.stdout.wait_for(r"\n.*\n")
        program.send_signal(signal.SIGTERM)
        assert program.wait() == 128 + signal.SIGTERM
    rounds = program.stdout.all().splitlines()
    assert len(rounds) >= 2 and all(len(json.loads(line)) == 3 for line in rounds)


# -- on a terminal


class Screen:
    """A terminal that the command writes to."""

    def __init__(self, columns: int, *words: str, rows: int = 24) -> None:
        self.near, far = pty.openpty()
        fcntl.ioctl(far, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        env = {name: value for name, value in environment(TERM="xterm").items() if name not in ("COLUMNS", "LINES")}
        self.process = subprocess.Popen([*PORTICO, "sockets", *words], stdin=far, stdout=far, stderr=far, env=env)
        os.close(far)
        self.text = ""

    def read(self, wanted: str = "") -> str:
        """Read until it shows `wanted`, or to the end."""
        limit = time.monotonic() + PATIENCE
        while not wanted or not re.search(wanted, self.text, re.S):
            assert select.select([self.near], [], [], max(0, limit - time.monotonic()))[0], self.text
            try:
                data = os.read(self.near, 1 << 16)
            except OSError:  # EIO: everybody has closed it
                data = b""
            if not data:
                assert not wanted, self.text
                break
            self.text += data.decode()
        return self.text

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(PATIENCE)
        os.close(self.near)


@contextlib.contextmanager
def screen(columns: int, *words: str) -> Iterator[Screen]:
    made = Screen(columns, *words)
    try:
        yield made
    finally:
        made.close()


def lines_of(text: str) -> list[str]:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).replace("\r", "").splitlines()


@pytest.mark.parametrize("columns", [80, 100, 120])
def test_the_table_fits_the_terminal_and_loses_nothing(pair: Pair, columns: int, tmp_path: Path) -> None:
    path = str(tmp_path / ("long" * 8) / "x")
    os.mkdir(os.path.dirname(path))
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as packets,
        screen(columns, "--pid", str(os.getpid())) as on,
    ):
        packets.bind(path)
        packets.listen()
        lines = lines_of(on.read())
        assert on.process.wait(PATIENCE) == 0
    assert max(map(len, lines)) <= columns
    assert pair.end in "\n".join(lines) and "4321" in "\n".join(lines)
    assert re.search(r"\d+ sockets", lines[-1])
    if columns == 120:
        assert lines[0].split() == HEADER
        assert any(re.match(rf"tcp +estab +{HERE}:{pair.port} +{pair.end} +4321 +0 ", line) for line in lines)
    else:
        assert lines[1].split() == ["kind", "state", "remote", "recv-q", "send-q", "rtt", "user"]
    start = next(at for at, line in enumerate(lines) if line.startswith("unixpacket"))
    column = lines[1 if columns < 120 else 0].index("remote" if columns < 120 else "local")
    folded = "".join(line[column:].split(" ")[0] for line in lines[start : start + 8])
    assert folded.startswith(path)


def test_columns_in_which_nothing_stands_are_left_out(pair: Pair) -> None:
    with screen(80, "--listening", "--port", str(pair.port)) as on:
        lines = lines_of(on.read())
        assert lines[0].split() == ["kind", "state", "local", "recv-q", "send-q", "user", "process"]
        assert lines[-1] == "1 socket"


def test_watch_redraws_the_screen_and_leaves_it_as_it_was(pair: Pair) -> None:
    with screen(120, "--watch", "--every", "0.05", "--port", str(pair.port)) as on:
        on.read(r"\x1b\[\?1049h.*4321.*every 0.05 s, Ctrl-C ends; 3 sockets")
        pair.accepted.recv(4000)
        on.read(r" 321 ")
        on.process.send_signal(signal.SIGINT)
        assert re.search(r"\x1b\[\?1049l[^A-Za-z]*(\x1b\[\?25h)?", on.read().split("4321")[-1])
        assert on.process.wait(PATIENCE) == 0
        assert "Traceback" not in on.text


def test_watch_says_what_does_not_fit() -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(30):
            stack.enter_context(socket.create_server((HERE, 0)))
        with screen(100, "--watch", "--tcp", "--listening", "--pid", str(os.getpid())) as on:
            on.read(r"every 1 s, Ctrl-C ends, \d+ lines do not fit; \d+ sockets")
            assert on.text.count(f"{HERE}:") == 22  # of 24 lines, one is the head and one tells this


# -- beside ss(8)


def test_ss_says_the_same(pair: Pair) -> None:
    program = need_program("ss")
    with (
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as six,
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as to,
    ):
        six.bind(("::1", 0))
        to.sendto(b"x" * 10, six.getsockname())
        ports = {str(port) for port in (pair.port, pair.client.getsockname()[1], six.getsockname()[1])}
        done = subprocess.run([program, "-H", "-tuanp"], capture_output=True, text=True, check=True, timeout=PATIENCE)
        ours = rows(portico("sockets", "--tcp", "--udp", "--pid", str(os.getpid())).stdout)[1:]
    theirs = []
    for line in done.stdout.splitlines():
        kind, state, receive_queue, send_queue, local, remote, *process = line.split(maxsplit=6)
        if process and f"pid={os.getpid()}," in process[0] and local.rpartition(":")[2] in ports:
            words = [kind, state.lower(), local, "-" if remote.endswith(":*") else remote, receive_queue, send_queue]
            theirs.append(words)
    assert len(theirs) == 4
    assert sorted(row[:6] for row in ours if row[2].rpartition(":")[2] in ports) == sorted(theirs)
