"""`portico run`: services that people write."""

import signal
import socket
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosedError
from websockets.sync.client import connect as connect_to
from websockets.typing import Origin, Subprotocol

from portico.transports.tls import throwaway_certificate
from tools.command import port_of, portico, started_portico

SERVICE = """
import portico

async def echo(stream):
    async for data in stream:
        if data == b"fail\\n":
            raise ValueError("asked for")
        await stream.send(data)

service = portico.Service()
service.listen("tcp://127.0.0.1:0", echo)
nothing = 5

def make():
    return service

def fails():
    raise ValueError("not today")

def needs(argument):
    return service
"""


@pytest.fixture
def app(tmp_path: Path) -> Path:
    file = tmp_path / "an_app.py"
    file.write_text(SERVICE)
    return file


@pytest.mark.parametrize("more", [[], ["--loop", "asyncio"]])
@pytest.mark.parametrize("name", ["service", "make"])
def test_a_service_runs_until_sigterm(app: Path, name: str, more: list[str]) -> None:
    with started_portico("run", f"{app}:{name}", *more) as server:
        port = int(port_of(server.listening()))
        with socket.create_connection(("127.0.0.1", port), 10) as sock:
            sock.sendall(b"hello\n")
            assert sock.recv(100) == b"hello\n"
        server.send_signal(signal.SIGTERM)
        assert server.wait() == 0


def test_a_failing_handler_is_one_line_in_the_log(app: Path) -> None:
    with started_portico("run", f"{app}:service") as server:
        with socket.create_connection(("127.0.0.1", int(port_of(server.listening()))), 10) as sock:
            sock.sendall(b"fail\n")
            assert sock.recv(100) == b""
        line = server.stderr.wait_for(r"^.* ERROR .*the handler failed.*$")[0]
        assert "asked for" in line and "an_app.py, line 7" in line and "--debug" in line
        server.send_signal(signal.SIGINT)
        assert server.wait() == 0
        assert "Traceback" not in server.stderr.text


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("missing", "has no 'missing'; there is"),
        ("nothing", "is a int, not a portico.Service"),
        ("fails", "ValueError: not today (an_app.py, line"),
        ("needs", "needs arguments"),
    ],
)
def test_what_is_no_service_is_told_in_one_line(app: Path, name: str, said: str) -> None:
    done = portico("run", f"{app}:{name}")
    assert (done.returncode, done.stderr.count(b"\n")) == (2, 1)
    assert said in done.stderr.decode()


def test_a_module_that_does_not_load_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("x = (\n")
    done = portico("run", f"{tmp_path}/broken.py:service")
    assert (done.returncode, done.stderr.count(b"\n")) == (2, 1)
    assert b"SyntaxError" in done.stderr


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("[limits]\nidle = 5\n", "there is no 'idle'"),
        ("[limits]\nidle_timeout = -5\n", "idle_timeout must be"),
        ('[limits]\nmax_fds = "3"\n', "max_fds must be"),
        ('[tls]\ncertificate = "missing.pem"\n', "missing.pem"),
        ("[tls]\ncertificate = 5\n", "TLS: a value of the wrong kind"),
        ("[tls]\nalpn = 5\n", "TLS: a value of the wrong kind"),
        ('[websocket]\nheaders = ["a"]\n', "websocket: a value of the wrong kind"),
        ("[websocket]\nheaders = {a = 5}\n", "the value of a header is text"),
        ("[other]\n", "there is no [other]"),
        ("nonsense", "cannot read"),
    ],
)
def test_settings_that_cannot_be_are_told(app: Path, settings: str, said: str) -> None:
    config = app.with_name("settings.toml")
    config.write_text(settings)
    done = portico("run", f"{app}:service", "--config", str(config))
    assert (done.returncode, done.stderr.count(b"\n")) == (2, 1)
    assert said in done.stderr.decode()


def test_settings_apply_to_the_listeners(app: Path) -> None:
    config = app.with_name("settings.toml")
    config.write_text("[limits]\nidle_timeout = 0.1\n")
    with started_portico("run", f"{app}:service", "--config", str(config)) as server:
        with socket.create_connection(("127.0.0.1", int(port_of(server.listening()))), 10) as sock:
            assert sock.recv(100) == b""
        server.send_signal(signal.SIGTERM)
        assert server.wait() == 0


WEB = """
import portico

async def echo(channel):
    async for message in channel:
        await channel.send(message)

service = portico.Service()
service.listen("ws://127.0.0.1:0/echo", echo, websocket=portico.WebSocketSettings(headers=[("X-Kept", "yes")]))
service.listen("tcp://127.0.0.1:0", echo)
door = portico.Door()
door.get("/", lambda request: "hello\\n")
"""

PROTOCOLS = [Subprotocol("a"), Subprotocol("b")]


@pytest.fixture
def web(tmp_path: Path) -> Path:
    file = tmp_path / "a_web_app.py"
    file.write_text(WEB)
    return file


def test_a_file_sets_up_websockets(web: Path) -> None:
    config = web.with_name("settings.toml")
    config.write_text(
        '[websocket]\nsubprotocols = ["b", "a"]\ndeflate = false\nping_interval = false\nmax_size = 5\norigins = "*"\n'
    )
    with started_portico("run", f"{web}:service", "--config", str(config)) as server:
        with connect_to(
            server.listening(), origin=Origin("https://elsewhere.example"), subprotocols=PROTOCOLS
        ) as client:
            assert client.response is not None and client.subprotocol == "b"
            assert client.response.headers["X-Kept"] == "yes"  # what the program says otherwise stays
            assert "Sec-WebSocket-Extensions" not in client.response.headers
            client.send("short")
            assert client.recv(10) == "short"
            client.send("longer")
            with pytest.raises(ConnectionClosedError):
                client.recv(10)
            assert client.close_code == 1009
        server.send_signal(signal.SIGTERM)
        assert server.wait() == 0


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("origin = 1", "websocket: there is no 'origin'; known are"),
        ('deflate = {colour = "red"}', "colour"),
        ("deflate = 7", "websocket: "),
        ("max_size = 0", "max_size=0 must be a whole number"),
        ('origins = ["here"]', "'here' is no origin"),
        ("subprotocols = 5", "websocket: "),
    ],
)
def test_settings_of_websockets_that_cannot_be_are_told(web: Path, settings: str, said: str) -> None:
    config = web.with_name("settings.toml")
    config.write_text(f"[websocket]\n{settings}\n")
    done = portico("run", f"{web}:service", "--config", str(config))
    assert (done.returncode, done.stderr.count(b"\n")) == (2, 1)
    assert said in done.stderr.decode()


def test_settings_of_websockets_want_a_listener_for_them(web: Path, app: Path) -> None:
    config = web.with_name("settings.toml")
    config.write_text("[websocket]\nmax_size = 5\n")
    for target in (f"{web}:door", f"{app}:service"):
        done = portico("run", target, "--config", str(config))
        assert (done.returncode, done.stderr.count(b"\n")) == (2, 1)
        said = f"portico: {config}: [websocket] is for listeners at ws://, wss:// and ws+unix:, and there is none; give"
        assert done.stderr.decode().startswith(said)


def test_a_door_is_served_where_the_line_says(web: Path) -> None:
    words = ("--listen", "http://127.0.0.1:0", "--listen", f"http+unix:{web.parent}/web.sock:/")
    with started_portico("run", f"{web}:door", *words) as server:
        done = portico("fetch", server.listening())
        assert (done.returncode, done.stdout) == (0, b"hello\n")
        assert portico("fetch", f"http+unix:{web.parent}/web.sock:/").stdout == b"hello\n"
        server.send_signal(signal.SIGTERM)
        assert server.wait() == 0


def test_a_door_over_tls_has_its_certificate_in_the_file(web: Path) -> None:
    where = ("run", f"{web}:door", "--listen", "https://127.0.0.1:0")
    done = portico(*where)
    assert (done.returncode, done.stderr.count(b"\n")) == (2, 1)
    assert b"https://127.0.0.1:0 needs a certificate; write" in done.stderr and b"--config" in done.stderr
    certificate, key = throwaway_certificate(["127.0.0.1"], directory=web.parent)
    config = web.with_name("settings.toml")
    config.write_text(f'[tls]\ncertificate = "{Path(certificate).name}"\nkey = "{Path(key).name}"\n')
    with started_portico(*where, "--config", str(config)) as server:
        assert portico("fetch", server.listening(), "--ca", certificate).stdout == b"hello\n"
        server.send_signal(signal.SIGTERM)
        assert server.wait() == 0


def test_listen_is_for_doors_at_addresses_of_http(web: Path) -> None:
    done = portico("run", f"{web}:service", "--listen", "http://127.0.0.1:0")
    assert done.returncode == 2 and b"--listen is for a Door; a Service listens where it says itself" in done.stderr
    done = portico("run", f"{web}:door", "--listen", "ws://127.0.0.1:0")
    assert done.returncode == 2 and done.stderr.count(b"\n") == 1
