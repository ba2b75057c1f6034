"""`portico connect` and `portico listen` with the programs that people use on the other side, byte for byte."""

import contextlib
import os
import pty
import random
import select
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from peers import need_program
from ports import free_port

from portico.transports.tls import throwaway_certificate
from tools.command import PORTICO, Process, environment, port_of, started, started_portico

SIZE = 3_000_000
BOUND = 24 << 20
"""More than all buffers on the way hold together, the kernel's included."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("piping") / "data"
    file.write_bytes(random.Random(7).randbytes(SIZE))
    return file


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    return throwaway_certificate(directory=tmp_path_factory.mktemp("tls"))


def certificate_for_both_roles(directory: Path) -> tuple[str, str]:
    certificate, key = str(directory / "both.pem"), str(directory / "key.pem")
    words = [
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=both",
    ]
    names = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate]
    subprocess.run([need_program("openssl"), *words, *names], check=True, capture_output=True)
    return certificate, key


def wait_for_listener(port: str) -> None:
    """Wait until somebody listens there, without connecting: some peers take one connection only."""
    wanted = f":{int(port):04X}"
    deadline = time.monotonic() + 10
    while not any(
        fields[1].endswith(wanted) and fields[3] == "0A"
        for table in ("/proc/net/tcp", "/proc/net/tcp6")
        for fields in (line.split() for line in Path(table).read_text().splitlines()[1:])
    ):
        assert time.monotonic() < deadline, f"nobody listens on port {port}"
        time.sleep(0.01)


@contextlib.contextmanager
def peer(*words: str, stdin: Any = subprocess.DEVNULL) -> Iterator[tuple[Process, str]]:
    """A program that listens on the port that stands for PORT in its words."""
    need_program(words[0])
    port = str(free_port())
    with started(*(word.replace("PORT", port) for word in words), stdin=stdin) as process:
        wait_for_listener(port)
        yield process, port


LISTENERS = {
    "nc": ("nc", "-N", "-l", "127.0.0.1", "PORT"),
    "ncat": ("ncat", "-l", "127.0.0.1", "PORT"),
    "socat": ("socat", "-t10", "STDIO", "TCP-LISTEN:PORT,bind=127.0.0.1"),
}
CALLERS = {
    "nc": ("nc", "-N", "127.0.0.1", "PORT"),
    "ncat": ("ncat", "127.0.0.1", "PORT"),
    "socat": ("socat", "-t10", "STDIO", "TCP:127.0.0.1:PORT"),
}


@pytest.mark.parametrize("name", LISTENERS)
def test_connect_talks_to_others_both_ways(name: str, data: Path) -> None:
    with data.open("rb") as theirs, data.open("rb") as ours, peer(*LISTENERS[name], stdin=theirs) as (other, port):
        with started_portico("connect", f"127.0.0.1:{port}", stdin=ours) as here:
            assert here.stdout.all() == data.read_bytes()
            assert here.wait() == 0
            assert here.stderr.all() == b""
        assert other.stdout.all() == data.read_bytes()


@pytest.mark.parametrize("name", CALLERS)
def test_listen_talks_to_others_both_ways(name: str, data: Path) -> None:
    need_program(name)
    with data.open("rb") as ours, started_portico("listen", "127.0.0.1:0", stdin=ours) as here:
        port = port_of(here.listening())
        words = [word.replace("PORT", port) for word in CALLERS[name]]
        with data.open("rb") as theirs, started(*words, stdin=theirs) as other:
            assert other.stdout.all() == data.read_bytes()
            assert here.stdout.all() == data.read_bytes()
            assert here.wait() == 0


@pytest.mark.parametrize("kind", ["unix:{}/x.sock", "unix:@portico-test-{}"])
def test_unix_sockets(kind: str, tmp_path: Path, data: Path) -> None:
    need_program("socat")
    address = kind.format(tmp_path if "@" not in kind else os.getpid())
    where = f"ABSTRACT-CONNECT:{address[6:]}" if "@" in kind else f"UNIX-CONNECT:{address[5:]}"
    with data.open("rb") as ours, started_portico("listen", address, stdin=ours) as here:
        here.listening()
        with started("socat", "-t10", "STDIO", where, stdin=subprocess.DEVNULL) as other:
            assert other.stdout.all() == data.read_bytes()
            assert here.wait() == 0
    assert list(tmp_path.iterdir()) == []


def test_half_close_brings_everything_back(data: Path) -> None:
    """A hundred megabytes there and back through pipes, with the end of input in between."""
    with peer("socat", "-t10", "TCP-LISTEN:PORT,bind=127.0.0.1", "EXEC:cat") as (_, port):
        source = subprocess.Popen(["head", "-c", "100000000", "/dev/zero"], stdout=subprocess.PIPE)
        with source, started_portico("connect", f"127.0.0.1:{port}", stdin=source.stdout) as here:
            assert source.stdout is not None
            source.stdout.close()
            received = here.stdout.all()
            assert len(received) == 100_000_000 and not received.strip(b"\0")
            assert here.wait() == 0


# TLS


@pytest.mark.parametrize("name", ["openssl", "socat", "ncat"])
def test_connect_speaks_tls_with_others(name: str, pair: tuple[str, str], data: Path) -> None:
    certificate, key = pair
    words = {
        "openssl": ["openssl", "s_server", "-quiet", "-accept", "PORT", "-cert", certificate, "-key", key],
        "socat": [
            "socat",
            "-t10",
            "STDIO",
            f"OPENSSL-LISTEN:PORT,bind=127.0.0.1,cert={certificate},key={key},verify=0",
        ],
        "ncat": ["ncat", "-l", "--ssl", "--ssl-cert", certificate, "--ssl-key", key, "127.0.0.1", "PORT"],
    }
    with contextlib.ExitStack() as stack:
        other, port = stack.enter_context(peer(*words[name], stdin=subprocess.PIPE))
        here = stack.enter_context(started_portico("connect", f"tls://127.0.0.1:{port}", "--ca", certificate))
        _exchange(here, name, other, data.read_bytes())


@pytest.mark.parametrize("name", ["openssl", "socat", "ncat"])
def test_listen_speaks_tls_with_others(name: str, pair: tuple[str, str], data: Path) -> None:
    certificate, key = pair
    need_program(name)
    with started_portico("listen", "127.0.0.1:0", "--cert", certificate, "--key", key) as here:
        where = here.listening().removeprefix("tls://")
        trust = ["-quiet", "-verify_quiet", "-verify_return_error", "-CAfile", certificate]
        words = {
            "openssl": ["openssl", "s_client", *trust, "-connect", where],
            "socat": ["socat", "-t10", "STDIO", f"OPENSSL:{where},cafile={certificate}"],
            "ncat": ["ncat", "--ssl", "--ssl-verify", "--ssl-trustfile", certificate, "localhost", port_of(where)],
        }
        with started(*words[name]) as other:
            _exchange(here, name, other, data.read_bytes())


def _exchange(here: Process, name: str, other: Process, data: bytes) -> None:
    """Send `data` both ways, one after the other, for not every peer can half-close TLS.

    ncat 7.9 leaves the end of a long TLS transfer unread until more comes, whoever sends it: it gets one record."""
    start = data[:4000] if name == "ncat" else data
    here.write(start)
    assert other.stdout.wait_size(len(start)) == start
    other.write(data)
    assert here.stdout.wait_size(len(data)) == data


def test_tls_both_ways_with_half_close(data: Path) -> None:
    with data.open("rb") as theirs, started_portico("listen", "127.0.0.1:0", "--tls", stdin=theirs) as server:
        address = server.listening()
        ca = server.stderr.wait_for(r"--ca (\S+)")[1]
        with data.open("rb") as ours, started_portico("connect", address, "--ca", ca, "-v", stdin=ours) as client:
            assert client.stdout.all() == data.read_bytes()
            assert server.stdout.all() == data.read_bytes()
            assert (client.wait(), server.wait()) == (0, 0)
            client.stderr.wait_for(r"connected to tls://\S+ from \S+, TLSv1.3")
    assert not Path(ca).exists()


def test_mutual_tls(tmp_path: Path) -> None:
    certificate, key = certificate_for_both_roles(tmp_path)
    words = ["listen", "127.0.0.1:0", "--cert", certificate, "--key", key, "--ca", certificate]
    with started_portico(*words, stdin=subprocess.DEVNULL) as server:
        address = server.listening()
        with started_portico("connect", address, "--insecure", stdin=subprocess.DEVNULL) as stranger:
            assert stranger.wait() == 1
        server.stderr.wait_for("sent no certificate")
        known = ["--ca", certificate, "--cert", certificate, "--key", key]
        with started_portico("connect", address, *known, stdin=subprocess.DEVNULL) as friend:
            assert friend.wait() == 0
        assert server.wait() == 0


def test_a_certificate_that_is_not_trusted_is_refused_and_the_listener_goes_on() -> None:
    with started_portico("listen", "127.0.0.1:0", "--tls", stdin=subprocess.DEVNULL) as server:
        address = server.listening()
        with started_portico("connect", address) as client:
            assert client.wait() == 1
            client.stderr.wait_for("self-signed.*--ca$")
        with started_portico("connect", address, "--insecure", stdin=subprocess.DEVNULL) as client:
            assert (client.wait(), server.wait()) == (0, 0)


def test_curl_gets_an_answer() -> None:
    need_program("curl")
    with started_portico("listen", "127.0.0.1:0") as here:
        here.write(b"HTTP/1.0 200 OK\r\n\r\nhello from a pipe")
        here.end_input()
        with started(
            "curl", "-sS", f"http://127.0.0.1:{port_of(here.listening())}/x", stdin=subprocess.DEVNULL
        ) as curl:
            assert curl.stdout.all() == b"hello from a pipe"
        assert here.stdout.all().startswith(b"GET /x HTTP/1.1\r\n")
        assert here.wait() == 0


# ends and signals


@contextlib.contextmanager
def connected(*words: str, stdin: Any = subprocess.PIPE) -> Iterator[tuple[Process, socket.socket]]:
    """The command, connected to a socket of the test's own."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(10)
        with started_portico("connect", f"127.0.0.1:{server.getsockname()[1]}", *words, stdin=stdin) as here:
            sock, _ = server.accept()
            with sock:
                sock.settimeout(10)
                yield here, sock


def test_keep_sends_the_rest_after_the_peer_has_ended() -> None:
    with connected() as (here, sock):
        sock.sendall(b"all I have")
        sock.shutdown(socket.SHUT_WR)
        here.stdout.wait_for("all I have")
        here.write(b"more")
        assert sock.recv(10) == b"more"
        here.end_input()
        assert sock.recv(10) == b""
        assert here.wait() == 0


def test_close_ends_with_the_input() -> None:
    with connected("--eof", "close") as (here, sock):
        here.write(b"last words")
        here.end_input()
        assert sock.recv(100) == b"last words"
        assert sock.recv(100) == b""
        sock.close()
        assert here.wait() == 0


def test_close_ends_with_the_peer() -> None:
    with connected("--eof", "close") as (here, sock):
        sock.sendall(b"bye")
        sock.close()
        assert (here.wait(), here.stdout.all()) == (0, b"bye")


def test_a_reset_is_an_error() -> None:
    with connected() as (here, sock):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        sock.close()
        assert here.wait() == 1
        assert here.stderr.all().count(b"\n") == 1


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_end_it_with_their_code(number: int, code: int, tmp_path: Path) -> None:
    with connected() as (here, sock):
        here.write(b"x")
        sock.recv(1)
        here.send_signal(number)
        assert (here.wait(), here.stderr.all()) == (code, b"")
    with started_portico("listen", f"unix:{tmp_path}/x.sock") as here:
        here.listening()
        here.send_signal(number)
        assert (here.wait(), here.stderr.all().count(b"\n")) == (code, 1)
    assert list(tmp_path.iterdir()) == []


def test_nobody_reads_the_output() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        reading, writing = os.pipe()
        words = [*PORTICO, "connect", f"127.0.0.1:{server.getsockname()[1]}"]
        here = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=writing, stderr=subprocess.PIPE, env=environment(), bufsize=0
        )
        with here:
            os.close(writing)
            os.close(reading)
            sock, _ = server.accept()
            with sock:
                sock.sendall(b"unread")
                assert here.wait(20) == 128 + signal.SIGPIPE
            assert here.stderr is not None and here.stderr.read() == b""


def test_closed_standard_descriptors_do_not_confuse_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        command = " ".join([*PORTICO, "connect", f"127.0.0.1:{server.getsockname()[1]}", "<&-", ">&-"])
        with started("/bin/sh", "-c", f"exec {command}") as here:
            sock, _ = server.accept()
            with sock:
                assert sock.recv(10) == b""
                sock.sendall(b"x")
                sock.shutdown(socket.SHUT_WR)
                assert (here.wait(), here.stderr.all()) == (0, b"")


def test_on_a_terminal_the_end_of_the_peer_ends_it() -> None:
    master, slave = pty.openpty()
    try:
        with connected(stdin=slave) as (here, sock):
            os.write(master, b"typed\n")
            assert sock.recv(100) == b"typed\n"
            sock.sendall(b"bye\n")
            sock.close()
            assert (here.wait(), here.stdout.all()) == (0, b"bye\n")
    finally:
        os.close(master)
        os.close(slave)


def test_hex_shows_both_directions() -> None:
    with connected("--hex") as (here, sock):
        here.write(b"ping\n")
        assert sock.recv(100) == b"ping\n"
        here.stdout.wait_for(r"^> 00000000  70 69 6e 67 0a  ")
        sock.sendall(b"\x00pong")
        here.stdout.wait_for(r"^< 00000000  00 70 6f 6e 67 .*\|\.pong\|$")
        sock.sendall(b"!")
        here.stdout.wait_for(r"^< 00000005  21 ")


# backpressure


def test_a_peer_that_does_not_read_stops_the_input() -> None:
    with connected() as (here, sock):
        pipe = here.process.stdin
        assert pipe is not None
        os.set_blocking(pipe.fileno(), False)
        sent = _push(pipe.fileno(), os.write)
        assert sent < BOUND
        os.set_blocking(pipe.fileno(), True)
        here.end_input()
        assert _count(sock) == sent
        sock.close()
        assert here.wait() == 0


def test_output_that_is_not_read_stops_the_peer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        words = [*PORTICO, "connect", f"127.0.0.1:{server.getsockname()[1]}"]
        here = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env=environment())
        sock, _ = server.accept()
        with here, sock:
            sock.setblocking(False)
            sent = _push(sock.fileno(), os.write)
            assert sent < BOUND
            sock.setblocking(True)
            sock.shutdown(socket.SHUT_WR)
            assert here.stdout is not None and len(here.stdout.read()) == sent
            assert here.wait(20) == 0


def _push(descriptor: int, write: Any) -> int:
    """Write until nothing has been taken for half a second, or far too much was; return how much."""
    block, sent = bytes(1 << 16), 0
    while sent < BOUND and select.select([], [descriptor], [], 0.5)[1]:
        with contextlib.suppress(BlockingIOError):
            sent += write(descriptor, block)
    return sent


def _count(sock: socket.socket) -> int:
    total = 0
    while got := len(sock.recv(1 << 20)):
        total += got
    return total


# several connections


def test_keep_open_sends_input_to_all_and_takes_from_all() -> None:
    with started_portico("listen", "127.0.0.1:0", "--keep-open", "-v") as here:
        port = int(port_of(here.listening()))
        with (
            socket.create_connection(("127.0.0.1", port), 10) as one,
            socket.create_connection(("127.0.0.1", port), 10) as two,
        ):
            here.stderr.wait_for(r"connection from .*\n.*connection from ")
            here.write(b"to all\n")
            assert (one.recv(100), two.recv(100)) == (b"to all\n", b"to all\n")
            one.sendall(b"from one\n")
            here.stdout.wait_for("from one")
            two.sendall(b"from two\n")
            here.stdout.wait_for("from two")
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            one.close()
            here.stderr.wait_for("reset")
            here.write(b"to the rest\n")
            assert two.recv(100) == b"to the rest\n"
        with socket.create_connection(("127.0.0.1", port), 10) as three:
            here.stderr.wait_for(r"(?s)(connection from .*){3}")
            here.write(b"to a newcomer\n")
            assert three.recv(100) == b"to a newcomer\n"
        here.send_signal(signal.SIGINT)
        assert here.wait() == 130


def test_once_turns_others_away() -> None:
    with started_portico("listen", f"127.0.0.1:{free_port()}", "-v") as here:
        port = int(port_of(here.listening()))
        with socket.create_connection(("127.0.0.1", port), 10) as one:
            here.stderr.wait_for("connection from")
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port), 10)
            here.end_input()
            assert one.recv(10) == b""
        assert here.wait() == 0
