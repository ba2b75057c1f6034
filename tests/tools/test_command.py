"""The command line itself: help, versions, errors in one line, exit codes."""

import subprocess
import sys

import pytest

from tools.command import environment, portico

COMMANDS = ["demo", "connect", "listen", "run", "resolve", "sockets", "discover"]


def test_version_is_told() -> None:
    done = portico("--version")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(b"portico 0.")


@pytest.mark.parametrize("columns", ["80", "120"])
@pytest.mark.parametrize("command", COMMANDS)
def test_help_fits_the_terminal_and_has_examples_and_exit_codes(command: str, columns: str) -> None:
    done = portico(command, "--help", COLUMNS=columns)
    text = done.stdout.decode()
    assert done.returncode == 0
    assert max(map(len, text.splitlines())) <= int(columns)
    assert f"  portico {command} " in text and "Exit codes: 0" in text
    assert "\x1b" not in text and "[bold]" not in text


def test_no_arguments_show_the_help() -> None:
    done = portico()
    assert done.returncode == 0
    assert all(command in done.stdout.decode() for command in COMMANDS)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["connect"], 2, "Missing argument 'ADDRESS'; see: portico connect --help"),
        (["connect", "--nonsense", "x"], 2, "No such option: --nonsense"),
        (["nonsense"], 2, "No such command 'nonsense'"),
        (["connect", "localhost"], 2, "the port is missing"),
        (["connect", "localhost:99999"], 2, "at character 11"),
        (["connect", "127.0.0.1:1"], 1, "connection refused; nobody listens there"),
        (["connect", "unix:/nonexistent/x"], 1, "no such file or directory; check the path"),
        (["connect", "127.0.0.1:1", "--ca", "/nonexistent"], 2, "cannot read ca '/nonexistent'"),
        (["connect", "127.0.0.1:1", "--key", "x"], 2, "--key is set without --cert"),
        (["connect", "127.0.0.1:1", "--timeout", "-1"], 2, "-1 is less than 0"),
        (["connect", "127.0.0.1:1", "--eof", "maybe"], 2, "'--eof'"),
        (["connect", ":80"], 2, "every interface, which only a server can use"),
        (["listen", "192.0.2.1:80"], 1, "no interface of this machine has that address"),
        (["listen", "127.0.0.1:0", "--timeout", "0.05"], 1, "nobody connected within 0.05 s"),
        (["listen", "127.0.0.1:0", "--cert", "/nonexistent"], 2, "cannot read certificate"),
        (["resolve", "localhost", "--numeric"], 1, "only numeric addresses are allowed"),
        (["resolve", "localhost", "-4", "-6"], 2, "-4 and -6 together"),
        (["demo", "--discover", "--bots", "1"], 2, "exclude one another; give one of them"),
        (["discover", "_http"], 2, "'_http' is no service type; write _name._tcp or _name._udp"),
        (["discover", "--watch"], 2, "--watch needs a TYPE; such as _http._tcp"),
        (["discover", "_http._tcp", "--interface", "nope0"], 2, "no network interface 'nope0'"),
        (["discover", "_none-here._tcp", "--timeout", "0.1"], 1, "nobody announced _none-here._tcp within 0.1 s"),
        (["run", "nonsense_module:service"], 2, "there is no module 'nonsense_module'"),
        (["run", ":"], 2, "is not MODULE:SERVICE"),
    ],
)
def test_errors_are_one_line_with_their_exit_code(words: list[str], code: int, said: str) -> None:
    done = portico(*words)
    lines = [line for line in done.stderr.decode().splitlines() if not line.startswith("portico: listening on")]
    assert (done.returncode, len(lines)) == (code, 1), done.stderr
    assert lines[0].startswith("portico: ") and said in lines[0]
    assert done.stdout == b""


@pytest.mark.parametrize("words", [["--debug", "connect", "127.0.0.1:1"], ["connect", "127.0.0.1:1", "--debug"]])
def test_debug_shows_the_traceback(words: list[str]) -> None:
    done = portico(*words)
    assert done.returncode == 1
    assert b"Traceback" in done.stderr
    assert done.stderr.splitlines()[-1].startswith(b"portico: cannot connect")


def test_entry_imports_nothing_heavy_and_says_what_to_install() -> None:
    program = """
import importlib.util, sys
from portico.tools import entry
heavy = {"typer", "rich", "cryptography"} & set(sys.modules)
assert not heavy, heavy
real = importlib.util.find_spec
importlib.util.find_spec = lambda name, *more: None if name == "rich" else real(name, *more)
sys.exit(entry.main())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, env=environment(), check=False)
    assert done.returncode == 2
    assert done.stderr.decode().strip().endswith("pip install 'portico[cli]'") and done.stderr.count(b"\n") == 1


def test_resolve_prints_addresses_in_order() -> None:
    assert portico("resolve", "127.0.0.1").stdout == b"127.0.0.1\n"
    assert portico("resolve", "[::1]:443", "-n").stdout == b"[::1]:443\n"
    assert portico("resolve", "127.0.0.1:80", "-n", "-r").stdout == b"127.0.0.1:80\t127.0.0.1\t80\n"
    assert portico("resolve", "localhost:http", "-4").stdout == b"127.0.0.1:80\n"
    assert portico("resolve", "127.0.0.1", "-6").returncode == 1
