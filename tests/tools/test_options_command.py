"""`portico options`: what people and programs get to see, and the page of documentation that is made of the table."""

import os
import pty
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from portico.options import OPTIONS
from tools.command import PATIENCE, PORTICO, environment, portico

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the whole table is there on Linux only")


def rows(output: bytes) -> dict[str, list[str]]:
    return {fields[0]: fields[1:] for fields in (line.split("\t") for line in output.decode().splitlines())}


def one_line(output: bytes) -> str:
    text = output.decode()
    assert text.startswith("portico: ") and text.count("\n") == 1, text
    return text


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


def on_a_terminal(*words: str, columns: int) -> list[str]:
    """Run the command with a terminal for its output and return what it shows there, without colours."""
    ours, theirs = pty.openpty()
    more = {"COLUMNS": str(columns), "TERM": "xterm"}
    with subprocess.Popen(
        [*PORTICO, *words], stdin=theirs, stdout=theirs, stderr=theirs, env=environment(**more)
    ) as it:
        os.close(theirs)
        shown = b""
        while True:
            try:
                data = os.read(ours, 1 << 16)
            except OSError:  # it has ended
                break
            if not data:
                break
            shown += data
        os.close(ours)
        assert it.wait(PATIENCE) == 0, shown
    return re.sub(r"\x1b\[[0-9;]*m", "", shown.decode()).splitlines()


def test_without_an_address_every_option_is_one_line() -> None:
    done = portico("options")
    assert done.returncode == 0 and not done.stderr
    found = rows(done.stdout)
    assert list(found) == list(OPTIONS)
    assert all(len(fields) == 6 and all(fields) for fields in found.values())
    setting = Path("/proc/sys/net/core/rmem_max")  # older kernels hide it from other network namespaces
    maximum = setting.read_text().strip() if setting.exists() else "-"
    assert found["receive_buffer"][3] == maximum and found["receive_buffer"][1] == "bytes"
    assert found["no_delay"][0] == "no" and found["type"][0] == "SOCK_STREAM"
    assert found["mark"][4] == "CAP_NET_ADMIN or CAP_NET_RAW" and found["cookie"][4] == "nobody"
    assert found["receive_buffer_force"][0] == "(only to be set)" and found["error"][0] == "(not read)"
    assert found["path_mtu"][0] == "(unknown yet)"


def test_live_values_of_a_connection(listener: socket.socket) -> None:
    host, port = listener.getsockname()
    done = portico("options", f"{host}:{port}")
    assert done.returncode == 0, done.stderr
    found = rows(done.stdout)
    assert found["path_mtu"][0] == "65535" and found["no_delay"][0] == "yes"
    assert "pass_credentials" not in found and "udp_gro" not in found
    assert found["tcp_info"][0].endswith(" bytes")
    same = rows(portico("options", f"tls://{host}:{port}").stdout)
    assert same["path_mtu"][0] == "65535", "the socket, without speaking TLS"


def test_live_values_of_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(str(path))
        server.listen()
        found = rows(portico("options", f"unix:{path}").stdout)
    assert found["peer_credentials"][0].split(",")[0] == str(os.getpid())
    assert "ttl" not in found


@pytest.mark.parametrize(
    ("address", "name", "value"),
    [
        ("udp://127.0.0.1:9", "path_mtu", "65535"),
        ("udp://127.0.0.1:9", "mtu_discover", "want"),
        ("udp://*:9", "udp_gro", "no"),
        ("udp://[::1]:9", "mtu_discover_v6", "want"),
        ("unixgram:/nowhere/x", "domain", "AF_UNIX"),
    ],
)
def test_sockets_that_carry_packets_are_opened(address: str, name: str, value: str) -> None:
    done = portico("options", address, "--only", name)
    assert done.returncode == 0, done.stderr
    assert rows(done.stdout)[name][0] == value


@pytest.mark.parametrize(
    ("address", "name"), [("raw://127.0.0.1:icmp", "icmp_filter"), ("packet://lo", "bypass_queue")]
)
def test_privileged_sockets(address: str, name: str) -> None:
    done = portico("options", address, "--only", name)
    try:
        socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP).close()
    except PermissionError:
        assert "CAP_NET_RAW" in one_line(done.stderr)
        assert rows(portico("options", "--only", name).stdout)[name][0] == "(needs CAP_NET_RAW)"
    else:
        assert name in rows(done.stdout), done.stderr


def test_only_takes_names_constants_and_pages() -> None:
    assert set(rows(portico("options", "--only", "KeepAlive").stdout)) == {
        "keepalive", "keepalive_idle", "keepalive_interval", "keepalive_count"
    }  # fmt: skip
    assert set(rows(portico("options", "--only", "udp_gro").stdout)) == {"udp_gro"}
    assert next(iter(rows(portico("options", "--only", "vsock(7)").stdout))) == "vsock_buffer"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--only", "keepalife"], 2, "there is no option 'keepalife'; did you mean 'keepalive'?"),
        (["udp://127.0.0.1:9", "--only", "no_delay"], 2, "no option with 'no_delay' in it is for the socket of udp://"),
        (["mem:x"], 2, "there is no socket behind mem:x"),
        (["tcp://127.0.0.1:1"], 1, "connection refused; nobody listens there"),
        (["--markdown", "--only", "x"], 2, "leave out ADDRESS and --only"),
        (["tcp://[::1"], 2, "'tcp://[::1'"),
    ],
)
def test_what_goes_wrong_is_one_line(words: list[str], code: int, said: str) -> None:
    done = portico("options", *words)
    assert done.returncode == code and not done.stdout
    assert said in one_line(done.stderr)


@pytest.mark.parametrize("columns", [80, 120])
def test_a_terminal_gets_names_values_and_what_they_do(columns: int) -> None:
    shown = on_a_terminal("options", columns=columns)
    assert max(map(len, shown)) <= columns
    pages = [line.strip() for line in shown if re.fullmatch(r"\w+\(7\) *", line)]
    assert pages == ["socket(7)", "unix(7)", "tcp(7)", "udp(7)", "ip(7)", "ipv6(7)", "raw(7)", "vsock(7)", "packet(7)"]
    assert any(re.match(r"receive_buffer +\d+ bytes +default \d+", line) for line in shown)
    assert any(re.match(r"mark +0 +setting needs CAP_NET_ADMIN or CAP_NET_RAW", line) for line in shown)
    for name in OPTIONS:
        assert any(line.startswith(f"{name} ") for line in shown), f"{name} is cut"


def test_the_page_is_what_the_table_says() -> None:
    done = portico("options", "--markdown")
    assert done.returncode == 0
    assert (ROOT / "docs/options.md").read_text() == done.stdout.decode(), (
        "make it again: portico options --markdown > docs/options.md"
    )


def test_the_page_has_a_row_for_each_option() -> None:
    lines = (ROOT / "docs/options.md").read_text().splitlines()
    table = [line for line in lines if line.startswith("| `")]
    assert [line.split("`")[1] for line in table] == list(OPTIONS)
    assert all(line.count("|") == 10 for line in table), "nine cells each"
