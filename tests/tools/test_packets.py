"""`portico connect` and `portico listen` where packets are kept apart, or no network is: UDP, Unix datagram and
seqpacket sockets, multicast, broadcast, raw and link-layer sockets, FIFOs, devices; and `--proxy`."""

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

import pytest
from namespaces import Machine, machines, two_machines
from peers import need_program
from ports import free_port

from tools.command import PORTICO, Process, port_of, portico, started, started_portico

GROUP = "239.195.7.1"
"""An address of the organization-local scope (RFC 2365)."""


@contextlib.contextmanager
def udp_socket(port: int = 0) -> Iterator[tuple[socket.socket, int]]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        sock.bind(("127.0.0.1", port))
        sock.settimeout(10)
        yield sock, sock.getsockname()[1]


def wait_until_bound(port: str) -> None:
    wanted = f":{int(port):04X}"
    deadline = time.monotonic() + 10
    while not any(
        line.split()[1].endswith(wanted)
        for table in ("/proc/net/udp", "/proc/net/udp6")
        for line in Path(table).read_text().splitlines()[1:]
    ):
        assert time.monotonic() < deadline, f"nobody has the UDP port {port}"
        time.sleep(0.01)


def wait_for_file(path: Path) -> None:
    deadline = time.monotonic() + 10
    while not path.exists():
        assert time.monotonic() < deadline, f"nobody made {path}"
        time.sleep(0.01)


# UDP

LISTENERS = {
    "nc": "nc -u -l 127.0.0.1 PORT",
    "ncat": "ncat -u -l 127.0.0.1 PORT",
    "socat": "socat STDIO UDP4-LISTEN:PORT,bind=127.0.0.1",
}
CALLERS = {
    "nc": "nc -u 127.0.0.1 PORT",
    "ncat": "ncat -u 127.0.0.1 PORT",
    "socat": "socat STDIO UDP4:127.0.0.1:PORT",
}


def talk(here: Process, other: Process) -> None:
    """Say something both ways, and something empty of meaning but not of bytes."""
    for number in range(3):
        here.write(f"from here {number}\n".encode())
        other.stdout.wait_for(f"^from here {number}$")
        other.write(f"from there {number}\n".encode())
        here.stdout.wait_for(f"^from there {number}$")


@pytest.mark.parametrize("name", LISTENERS)
def test_connect_talks_udp_with_others(name: str) -> None:
    need_program(name)
    port = str(free_port())
    with started(*LISTENERS[name].replace("PORT", port).split()) as other:
        wait_until_bound(port)
        with started_portico("connect", f"udp://127.0.0.1:{port}") as here:
            talk(here, other)
            here.end_input()
            assert (here.wait(), here.stderr.all()) == (0, b"")


@pytest.mark.parametrize("name", CALLERS)
def test_listen_talks_udp_with_others(name: str) -> None:
    need_program(name)
    with started_portico("listen", "udp://127.0.0.1:0") as here:
        port = port_of(here.listening())
        with started(*CALLERS[name].replace("PORT", port).split()) as other:
            other.write(b"first\n")
            here.stdout.wait_for("^first$")
            talk(here, other)
            here.end_input()
            assert here.wait() == 0


def test_the_end_of_input_waits_for_an_answer() -> None:
    need_program("socat")
    port = str(free_port())
    with started("socat", f"UDP4-LISTEN:{port},bind=127.0.0.1", "SYSTEM:sleep 0.3; cat") as _:
        wait_until_bound(port)
        done = portico("connect", f"udp://127.0.0.1:{port}", stdin=b"question\n")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"question\n", b"")


def test_with_close_the_end_of_input_waits_for_nothing() -> None:
    with udp_socket() as (sock, port):
        done = portico("connect", f"udp://127.0.0.1:{port}", "--eof", "close", stdin=b"said\n")
        assert (done.returncode, sock.recv(100)) == (0, b"said\n")


def test_a_port_that_nobody_has_is_an_error_in_one_line() -> None:
    port = str(free_port())
    done = portico("connect", f"udp://127.0.0.1:{port}", stdin=b"anybody?\n")
    assert (done.returncode, done.stdout, done.stderr.count(b"\n")) == (1, b"", 1)
    assert f"a packet to udp://127.0.0.1:{port} was not delivered: connection refused; nobody listens".encode() in (
        done.stderr
    )


def test_piped_input_leaves_in_packets_of_8_kib(tmp_path: Path) -> None:
    data = random.Random(7).randbytes(3 * 8192 + 100)
    (tmp_path / "data").write_bytes(data)
    with udp_socket() as (sock, port), (tmp_path / "data").open("rb") as source:
        with started_portico("connect", f"udp://127.0.0.1:{port}", stdin=source) as here:
            packets = [sock.recv(65536) for _ in range(4)]
            assert [len(packet) for packet in packets] == [8192, 8192, 8192, 100]
            assert b"".join(packets) == data
            assert here.wait() == 0


def test_the_hex_dump_shows_each_packet_from_its_beginning() -> None:
    with udp_socket() as (sock, port), started_portico("connect", f"udp://127.0.0.1:{port}", "--hex") as here:
        here.write(b"ping\n")
        _, peer = sock.recvfrom(100)
        here.stdout.wait_for(r"^> 00000000  70 69 6e 67 0a ")
        for packet in (b"\x00pong", b"", b"!"):
            sock.sendto(packet, peer)
        here.stdout.wait_for(
            r"^< 00000000  00 70 6f 6e 67 .*\|\.pong\|\n< 00000000  \(an empty packet\)\n< 00000000  21 .*\|!\|$"
        )


def test_keep_open_hears_everybody_and_speaks_to_everybody() -> None:
    with (
        started_portico("listen", "udp://127.0.0.1:0", "--keep-open", "--hex", "-v") as here,
        udp_socket() as (one, first),
        udp_socket() as (two, second),
    ):
        where = ("127.0.0.1", int(port_of(here.listening())))
        one.sendto(b"one", where)
        two.sendto(b"two", where)
        here.stdout.wait_for(rf"udp://127\.0\.0\.1:{first} < 00000000  6f 6e 65 ")
        here.stdout.wait_for(rf"udp://127\.0\.0\.1:{second} < 00000000  74 77 6f ")
        here.write(b"to all\n")
        assert (one.recv(100), two.recv(100)) == (b"to all\n", b"to all\n")
        here.send_signal(signal.SIGINT)
        assert here.wait() == 130


def test_once_hears_the_first_alone() -> None:
    with (
        started_portico("listen", "udp://127.0.0.1:0", "-v") as here,
        udp_socket() as (one, _),
        udp_socket() as (two, _),
    ):
        where = ("127.0.0.1", int(port_of(here.listening())))
        one.sendto(b"one\n", where)
        here.stdout.wait_for("one")
        two.sendto(b"two\n", where)
        one.sendto(b"more\n", where)
        here.stdout.wait_for("more")
        here.end_input()
        assert (here.wait(), here.stdout.all()) == (0, b"one\nmore\n")


def test_on_a_terminal_each_line_is_a_packet() -> None:
    master, slave = pty.openpty()
    try:
        with udp_socket() as (sock, port), started_portico("connect", f"udp://127.0.0.1:{port}", stdin=slave) as here:
            os.write(master, b"one\ntwo\n")
            assert (sock.recv(100), sock.recv(100)) == (b"one\n", b"two\n")
            os.write(master, b"\x04")  # Ctrl-D
            assert here.wait() == 0
    finally:
        os.close(master)
        os.close(slave)


# Unix sockets that keep packets apart


def test_connect_and_listen_over_unix_datagrams_with_socat(tmp_path: Path) -> None:
    need_program("socat")
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    with started("socat", "STDIO", f"UNIX-RECVFROM:{theirs}") as other:
        wait_for_file(theirs)
        with started_portico("connect", f"unixgram:{theirs}") as here:
            here.write(b"question\n")
            other.stdout.wait_for("question")
            other.write(b"answer\n")
            here.stdout.wait_for("answer")
            here.end_input()
            assert (here.wait(), here.stderr.all()) == (0, b"")
    with started_portico("listen", f"unixgram:{ours}") as here:
        here.listening()
        with started("socat", "STDIO", f"UNIX-SENDTO:{ours},bind={tmp_path}/socat") as other:
            other.write(b"question\n")
            here.stdout.wait_for("question")
            here.write(b"answer\n")
            other.stdout.wait_for("answer")
            here.end_input()
            assert here.wait() == 0
    assert not ours.exists()


def test_a_sender_without_an_address_of_its_own_is_heard(tmp_path: Path) -> None:
    with started_portico("listen", f"unixgram:{tmp_path}/x", stdin=subprocess.DEVNULL) as here:
        here.listening()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"from nobody\n", f"{tmp_path}/x")
        assert (here.wait(), here.stdout.all()) == (0, b"from nobody\n")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("packets") / "data"
    file.write_bytes(random.Random(8).randbytes(3_000_000))
    return file


@pytest.mark.parametrize("role", ["connect", "listen"])
def test_large_files_arrive_whole_over_seqpacket_both_ways(role: str, tmp_path: Path, data: Path) -> None:
    need_program("socat")
    path = tmp_path / "x.sock"
    with data.open("rb") as ours, data.open("rb") as theirs, contextlib.ExitStack() as stack:
        if role == "connect":
            words = ["socat", "-t10", "-b8192", "STDIO", f"UNIX-LISTEN:{path},socktype=5"]
            other = stack.enter_context(started(*words, stdin=theirs))
            wait_for_file(path)
            here = stack.enter_context(started_portico("connect", f"unixpacket:{path}", stdin=ours))
        else:
            here = stack.enter_context(started_portico("listen", f"unixpacket:{path}", stdin=ours))
            here.listening()
            words = ["socat", "-t10", "-b8192", "STDIO", f"UNIX-CONNECT:{path},socktype=5"]
            other = stack.enter_context(started(*words, stdin=theirs))
        assert here.stdout.all() == data.read_bytes()
        assert other.stdout.all() == data.read_bytes()
        assert here.wait() == 0


# one for many


def test_what_is_sent_to_a_group_is_heard_and_answered() -> None:
    need_program("socat")
    port = str(free_port())
    where = f"udp://{GROUP}:{port}"
    with started_portico("listen", where, "--interface", "lo", "--hex") as here:
        here.stderr.wait_for("hears what is sent to the group")
        with started("socat", "STDIO", f"UDP4-DATAGRAM:{GROUP}:{port},ip-multicast-if=127.0.0.1") as socat:
            socat.write(b"by socat\n")
            here.stdout.wait_for(r"^udp://127\.0\.0\.1:\d+ < 00000000  62 79 20 73 6f 63 61 74  0a ")
        done = portico("connect", where, "--interface", "lo", "-v", stdin=b"by us\n")
        assert (done.returncode, done.stdout) == (0, b"")
        assert done.stderr.startswith(f"portico: sending to {where} from udp://0.0.0.0:".encode())
        here.stdout.wait_for(r"^udp://\S+ < 00000000  62 79 20 75 73 0a ")
        with started_portico("listen", where, "--interface", "lo", stdin=subprocess.DEVNULL) as second:
            second.stderr.wait_for("hears what is sent to the group")
            here.write(b"to all\n")
            second.stdout.wait_for("to all")
        here.send_signal(signal.SIGINT)
        assert here.wait() == 130


def test_those_in_a_group_are_heard_when_they_answer_for_themselves() -> None:
    need_program("socat")
    port = str(free_port())
    group = f"ip-add-membership={GROUP}:127.0.0.1"
    with started("socat", f"UDP4-RECVFROM:{port},{group},fork", "EXEC:cat"):
        wait_until_bound(port)
        done = portico("connect", f"udp://{GROUP}:{port}", "--interface", "lo", stdin=b"who is there\n")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"who is there\n", b"")


def wait_for_link(machine: Machine) -> None:
    """Wait until its interface has the address that is its own by itself."""
    asked = machine.inside("ip", "-6", "-o", "address", "show", "dev", "eth7", "scope", "link")
    deadline = time.monotonic() + 10
    while not subprocess.run(asked, check=True, capture_output=True).stdout:
        assert time.monotonic() < deadline, f"{machine.name} has no link-local address"
        time.sleep(0.05)


def test_ipv6_groups_on_a_network() -> None:
    where = f"udp://[ff02::4242%eth7]:{free_port()}"
    with two_machines() as (one, other):
        wait_for_link(one)
        wait_for_link(other)
        with started(*one.inside(*PORTICO, "listen", where), stdin=subprocess.DEVNULL) as here:
            here.stderr.wait_for("hears what is sent to the group")
            with started(*other.inside(*PORTICO, "connect", where)) as there:
                there.write(b"six\n")
                here.stdout.wait_for("six")


def test_a_group_that_no_way_leads_to_is_an_error_in_one_line() -> None:
    with machines(1) as [machine], started(*machine.inside(*PORTICO, "connect", f"udp://{GROUP}:9")) as here:
        here.write(b"there is no way\n")
        assert here.wait() == 1
        said = here.stderr.all()
        assert said.count(b"\n") == 1 and b"network is unreachable" in said


def test_broadcast_is_sent_when_it_is_asked_for() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(10)
        sock.bind(("0.0.0.0", 0))
        where = f"udp://127.255.255.255:{sock.getsockname()[1]}"
        refused = portico("connect", where, stdin=b"to all\n")
        assert refused.returncode == 1
        assert refused.stderr.endswith(b"permission denied; a broadcast address needs --broadcast\n")
        with started_portico("connect", where, "--broadcast") as here:
            here.write(b"to all\n")
            said, sender = sock.recvfrom(100)
            assert said == b"to all\n"
            sock.sendto(b"I am here\n", sender)
            here.stdout.wait_for("I am here")
            here.end_input()
            assert here.wait() == 0


# what needs privileges


def test_frames_are_shown_as_they_pass() -> None:
    with machines(1) as [machine]:
        with started(*machine.inside(*PORTICO, "listen", "packet://lo", "--hex")) as here:
            here.stderr.wait_for("listening on packet://lo  hears every frame, in and out")
            with started(*machine.inside(*PORTICO, "connect", "udp://127.0.0.1:9")) as other:
                other.write(b"a packet that is seen")
                here.stdout.wait_for(r"^packet://lo:0x0800 < 00000000  .*\n(.*\n)?.*\|.*a pack")
            here.send_signal(signal.SIGINT)
            assert here.wait() == 130


def test_raw_packets_are_sent_and_heard() -> None:
    experiment = "253"  # RFC 3692: for experiments
    with machines(1) as [machine]:
        with started(*machine.inside(*PORTICO, "listen", f"raw://127.0.0.1:{experiment}", "--hex")) as here:
            here.stderr.wait_for("hears every packet that comes in")
            with started(*machine.inside(*PORTICO, "connect", f"raw://127.0.0.1:{experiment}")) as other:
                other.write(b"payload")
                here.stdout.wait_for(r"^raw://127\.0\.0\.1:\d+ < 00000000  45 .*\n.*< 00000010 .*\|.*paylo")


@pytest.mark.parametrize(
    "words", [("listen", "packet://lo"), ("listen", "raw://*:icmp"), ("connect", "raw://[::1]:58")]
)
def test_a_missing_privilege_is_one_line(words: tuple[str, ...]) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give privileges up")
    as_nobody = ["setpriv", "--reuid=65534", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all"]
    need_program(as_nobody[0])
    with started(*as_nobody, *PORTICO, *words, stdin=subprocess.DEVNULL) as here:
        assert here.wait() == 1
        said = here.stderr.all()
    assert said.count(b"\n") == 1 and b"it needs CAP_NET_RAW, or root" in said


def test_a_machine_that_is_not_there_is_one_line() -> None:
    done = portico("connect", "vsock://4242:1024", "--timeout", "0.3")
    assert (done.returncode, done.stdout, done.stderr.count(b"\n")) == (1, b"", 1)


# FIFOs and devices


def test_a_fifo_is_made_read_to_its_end_and_removed(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    with started_portico("listen", f"fifo:{path}", stdin=subprocess.DEVNULL) as here:
        here.stderr.wait_for("listening on fifo:")
        with path.open("wb") as writer:
            writer.write(b"x" * 200_000)
        assert (here.wait(), here.stdout.all()) == (0, b"x" * 200_000)
    assert not path.exists()


def test_with_keep_open_a_fifo_has_one_writer_after_the_other_and_one_that_was_there_stays(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    with started_portico("listen", f"fifo:{path}", "-k") as here:
        here.stderr.wait_for("listening on fifo:")
        for text in ("one", "two"):
            path.write_text(f"{text}\n")
            here.stdout.wait_for(text)
        here.send_signal(signal.SIGINT)
        assert here.wait() == 130
    assert path.exists()


@pytest.mark.parametrize("eof", ["keep", "close"])
def test_connect_writes_to_a_fifo_once_somebody_reads(eof: str, tmp_path: Path, data: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    with data.open("rb") as source, started_portico("connect", f"fifo:{path}", "--eof", eof, stdin=source) as here:
        with started("cat", str(path), stdin=subprocess.DEVNULL) as reader:
            assert reader.stdout.all() == data.read_bytes()
        assert (here.wait(), here.stderr.all()) == (0, b"")
    done = portico("connect", f"fifo:{path}", "--timeout", "0.2", stdin=b"x")
    assert done.returncode == 1 and done.stderr.endswith(b"timed out; nobody reads from it\n")


def test_a_device_is_a_terminal_of_its_own() -> None:
    master, slave = pty.openpty()
    try:
        subprocess.run(["stty", "-F", os.ttyname(slave), "raw", "-echo"], check=True)
        with started_portico("connect", f"device:{os.ttyname(slave)}") as here:
            here.write(b"to the device\n")
            assert select.select([master], [], [], 10)[0]
            assert os.read(master, 100) == b"to the device\n"
            os.write(master, b"from the device\n")
            here.stdout.wait_for("from the device")
            here.end_input()
            assert (here.wait(), here.stderr.all()) == (0, b"")
    finally:
        os.close(master)
        os.close(slave)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("listen device:/dev/ttyS0", "open it with: portico connect device:/dev/ttyS0"),
        ("connect packet://lo", "hear it with: portico listen packet://lo"),
        ("connect tcp://127.0.0.1:1 --broadcast", "--broadcast is for UDP"),
        ("connect udp://127.0.0.1:1 --interface lo", "--interface is for multicast groups"),
        ("listen udp://127.0.0.1:0 --interface lo", "--interface is for multicast groups"),
        (f"listen udp://{GROUP}:0 --interface nix", "there is no interface 'nix'"),
        (f"connect udp://{GROUP}:9 --proxy socks5://127.0.0.1:1", "udp"),
        ("connect udp://127.0.0.1:9 --tls", "there is no DTLS"),
    ],
)
def test_what_cannot_be_is_one_line_with_a_remedy(words: str, said: str) -> None:
    done = portico(*words.split())
    assert (done.returncode, done.stdout, done.stderr.count(b"\n")) == (2, b"", 1)
    assert said in done.stderr.decode()


# proxies


@contextlib.contextmanager
def microsocks(*words: str) -> Iterator[str]:
    """A SOCKS proxy; its port."""
    need_program("microsocks")
    port = str(free_port())
    with started("microsocks", "-i", "127.0.0.1", "-p", port, *words, stdin=subprocess.DEVNULL):
        deadline = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", int(port)), 1).close()
                break
            except ConnectionRefusedError:
                assert time.monotonic() < deadline
                time.sleep(0.01)
        yield port


def test_connect_goes_through_a_proxy() -> None:
    with microsocks("-u", "me", "-P", "secret") as port, started_portico("listen", "127.0.0.1:0") as server:
        where = server.listening()
        with started_portico("connect", where, "--proxy", f"socks5h://me:secret@127.0.0.1:{port}") as here:
            here.write(b"through\n")
            server.stdout.wait_for("through")
            server.write(b"back\n")
            here.stdout.wait_for("back")
            here.end_input()
            server.end_input()
            assert (here.wait(), server.wait(), here.stderr.all()) == (0, 0, b"")
        done = portico("connect", where, "--proxy", f"socks5h://me:wrong@127.0.0.1:{port}")
    assert (done.returncode, done.stderr.count(b"\n")) == (1, 1)
    assert f"127.0.0.1:{port}".encode() in done.stderr and b"wrong" not in done.stderr


@pytest.mark.parametrize(("url", "code"), [("gopher://127.0.0.1:70", 2), ("socks5://", 2), ("socks5://127.0.0.1:1", 1)])
def test_a_proxy_that_cannot_be_is_one_line(url: str, code: int) -> None:
    done = portico("connect", "127.0.0.1:9", "--proxy", url)
    assert (done.returncode, done.stdout, done.stderr.count(b"\n")) == (code, b"", 1)
