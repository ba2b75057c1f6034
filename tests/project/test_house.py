"""The house keeps its own rules: what is exported, how long files and functions are, what names no place or person."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

import portico

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
NATIVE = sorted((ROOT / "src").rglob("*.pyx"))

EXPORTED = [
    "Address",
    "AddressError",
    "Attempt",
    "BindError",
    "BlockingChannel",
    "BlockingDatagrams",
    "BlockingRequest",
    "BlockingStream",
    "BlockingWebSocket",
    "BusyError",
    "CORS",
    "Channel",
    "ClosedError",
    "Codec",
    "ConfigurationError",
    "ConnectError",
    "Credentials",
    "Datagrams",
    "DatagramsStats",
    "Deflate",
    "DeliveryError",
    "Descriptors",
    "Door",
    "Dropped",
    "EndOfStream",
    "Events",
    "Fetched",
    "Group",
    "GroupStats",
    "Info",
    "Key",
    "LengthPrefix",
    "Lifespan",
    "LimitError",
    "Limits",
    "Lines",
    "Membership",
    "Message",
    "MessageTooLarge",
    "Messages",
    "Netstrings",
    "OPTIONS",
    "Packet",
    "PacketInfo",
    "Pollable",
    "Poller",
    "PorticoError",
    "PrivilegeError",
    "ProtocolError",
    "Proxy",
    "ProxyError",
    "ProxyHeader",
    "RawAncillary",
    "Records",
    "Request",
    "ResolveError",
    "Resolver",
    "Response",
    "Retry",
    "Scheme",
    "Server",
    "Service",
    "SocketEntry",
    "State",
    "Stats",
    "StatusError",
    "Stream",
    "Switch",
    "SystemResolver",
    "TLS",
    "TLSError",
    "TLSInfo",
    "TOS",
    "TTL",
    "Timestamp",
    "Truncated",
    "UnsupportedError",
    "WebSocket",
    "WebSocketSettings",
    "WouldBlock",
    "adopt",
    "connect",
    "datagrams",
    "fetch",
    "list_sockets",
    "memory_pair",
    "name_of",
    "open_fifo",
    "reconnecting",
    "register_scheme",
    "resolve",
    "run",
    "serve",
    "socketpair",
]


def test_the_public_names_are_these() -> None:
    tree = ast.parse((ROOT / "src/portico/__init__.py").read_text())
    found = []
    for node in [*tree.body, *(each for part in tree.body if isinstance(part, ast.If) for each in part.body)]:
        if isinstance(node, ast.ImportFrom) and node.module != "typing":
            assert all(name.asname == name.name for name in node.names), "export as `X as X`"
            found += [name.name for name in node.names]
    assert sorted(found) == sorted(EXPORTED)


@pytest.mark.parametrize("name", EXPORTED)
def test_every_public_name_says_what_it_does(name: str) -> None:
    public = getattr(portico, name)
    assert name == "OPTIONS" or (public.__doc__ or "").strip()


def test_every_error_is_a_portico_error_and_a_builtin() -> None:
    errors = [getattr(portico, name) for name in EXPORTED if name.endswith("Error") or name == "EndOfStream"]
    for error in [*errors, portico.MessageTooLarge]:
        assert issubclass(error, portico.PorticoError)
        if error is not portico.PorticoError:
            assert any(base is not portico.PorticoError and base is not Exception for base in error.__mro__[1:-3])


@pytest.mark.parametrize("path", SOURCES + NATIVE, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_is_one_idea(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 600


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_functions_are_short(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            length = (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0
            assert length <= 60, f"{node.name} has {length} lines"


def test_no_file_tells_where_it_was_made() -> None:
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    telling = re.compile(r"/(?:home|root|work|Users)/\w|https?://[\w.-]*(?:pypi|npmjs|debian)\.org")
    for name in files:
        path = ROOT / name
        if name and path.is_file() and path.suffix not in {".png"} and path != Path(__file__):
            found = telling.search(path.read_text(errors="replace"))
            assert not found, f"{name}: {found.group()}"
