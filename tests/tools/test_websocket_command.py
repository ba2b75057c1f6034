"""`portico connect` and `portico listen` over WebSockets, with the `websockets` package and curl on the other side."""

import asyncio
import base64
import contextlib
import os
import pty
import signal
import ssl
import subprocess
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import websockets
from peers import need_program
from ports import free_port
from server.support import Certificates, certificates
from websockets.sync.client import connect as connect_to

from tools.command import port_of, portico, started_portico

__all__ = ["certificates"]

LARGE = 3 << 20


class Peer:
    """A server that others wrote, in a thread of its own; it remembers who asked."""

    def __init__(self, context: ssl.SSLContext | None = None, **settings: Any) -> None:
        self.requests: list[Any] = []
        self.ends: list[tuple[int | None, str | None]] = []
        self.over = threading.Event()
        self._context, self._settings = context, settings
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=lambda: self._loop.run_until_complete(self._serve()))
        self.address = ""

    def __enter__(self) -> "Peer":
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *unused: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        self._loop.close()

    async def _serve(self) -> None:
        serving = websockets.serve(self._handle, "127.0.0.1", 0, ssl=self._context, **self._settings)
        async with serving as server:
            port = next(iter(server.sockets)).getsockname()[1]
            self.address = f"ws{'s' if self._context else ''}://127.0.0.1:{port}/chat"
            self._ready.set()
            await self._stop.wait()

    async def _handle(self, websocket: Any) -> None:
        self.requests.append(websocket.request)
        with contextlib.suppress(websockets.ConnectionClosed):
            async for message in self._messages(websocket):
                await websocket.send(message)
        self.ends.append((websocket.close_code, websocket.close_reason))
        self.over.set()

    async def _messages(self, websocket: Any) -> AsyncIterator[str | bytes]:
        async for message in websocket:
            if message == "leave":
                await websocket.close(1000, "see\x1b[31m you")
            elif message == "fail":
                await websocket.close(4001, "no such room")
            elif message == "large":
                yield "a" * (2 << 20)
            elif message == "who":
                yield f"{websocket.subprotocol}"
            elif message == "both":
                yield b"\x00\xff"
                yield "text"
            else:
                yield message


@pytest.fixture(scope="module")
def peer() -> Iterator[Peer]:
    with Peer(max_size=None) as peer:
        yield peer


def lines(done: "subprocess.CompletedProcess[bytes]") -> list[str]:
    return done.stderr.decode().splitlines()


def asked(server: Peer, *words: str) -> Any:
    """Connect with `words`, and return the request that came."""
    before = len(server.requests)
    done = portico("connect", server.address, "--eof", "close", *words)
    assert (done.returncode, done.stderr) == (0, b"")
    (request,) = server.requests[before:]
    return request


# connect


def test_each_line_is_a_text_and_each_text_a_line(peer: Peer) -> None:
    done = portico("connect", peer.address, stdin="hello\nwörld\r\n\nthe last".encode())
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode() == "hello\nwörld\n\nthe last\n"
    assert peer.over.wait(10) and peer.ends[-1] == (1000, "")


def test_binary_messages_pass_byte_for_byte(peer: Peer) -> None:
    data = os.urandom(LARGE)
    done = portico("connect", peer.address, "--binary", stdin=data)
    assert (done.returncode, done.stdout, done.stderr) == (0, data, b"")


def test_many_lines_come_back_in_order(peer: Peer) -> None:
    data = b"".join(b"line %d\n" % number for number in range(30_000))
    done = portico("connect", peer.address, stdin=data)
    assert (done.returncode, done.stdout, done.stderr) == (0, data, b"")


def test_what_comes_as_binary_is_written_as_it_is(peer: Peer) -> None:
    assert portico("connect", peer.address, stdin=b"both\n").stdout == b"\x00\xfftext\n"


def test_hex_tells_text_from_binary(peer: Peer) -> None:
    done = portico("connect", peer.address, "--hex", stdin=b"both\n")
    dump = [line.split("  ")[0] for line in done.stdout.decode().splitlines()]
    assert sorted(dump) == ["< 00000000", "text < 00000000", "text > 00000000"]


def test_the_end_of_input_may_close_at_once(peer: Peer) -> None:
    before = len(peer.ends)
    done = portico("connect", peer.address, "--eof", "close", "-v", stdin=b"one\n")
    assert done.returncode == 0 and lines(done)[-1] == "portico: closed with 1000 normal closure"
    assert peer.ends[before:] == [(1000, "")]


def test_code_and_reason_of_the_peer_are_told(peer: Peer) -> None:
    done = portico("connect", peer.address, stdin=b"leave\n")
    assert (done.returncode, lines(done)) == (0, ["portico: closed with 1000 normal closure: see [31m you"])
    done = portico("connect", peer.address, stdin=b"fail\n")
    assert (done.returncode, len(lines(done))) == (1, 1)
    assert "4001" in lines(done)[0] and lines(done)[0].endswith(": no such room")


def test_the_peer_ends_it_though_the_input_goes_on(peer: Peer) -> None:
    with started_portico("connect", peer.address) as here:
        here.write(b"leave\n")
        here.stderr.wait_for("closed with 1000")
        assert here.wait() == 0


def test_a_person_who_types_is_through_when_the_peer_is(peer: Peer) -> None:
    own, other = pty.openpty()
    try:
        with started_portico("connect", peer.address, stdin=other) as here:
            os.write(own, b"hello\n")
            here.stdout.wait_for("hello")
            os.write(own, b"leave\n")
            assert here.wait() == 0
    finally:
        os.close(own)
        os.close(other)


def test_interrupted_it_says_goodbye(peer: Peer) -> None:
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        before = len(peer.ends)
        peer.over.clear()
        with started_portico("connect", peer.address) as here:
            here.write(b"hello\n")
            here.stdout.wait_for("hello")
            here.send_signal(number)
            assert here.wait() == code and here.stderr.all() == b""
        assert peer.over.wait(10) and peer.ends[before:] == [(1001, "")]


def test_verbose_tells_what_was_agreed_and_round_trip_times() -> None:
    with Peer(subprotocols=["chat.v2"]) as server:
        words = ("-v", "--ping", "0.05", "--subprotocol", "chat.v3", "--subprotocol", "chat.v2")
        with started_portico("connect", server.address, *words) as here:
            here.stderr.wait_for(r"^portico: connected to \S+ from \S+, subprotocol chat.v2, compressed$")
            here.stderr.wait_for(r"(?s)(portico: round trip \d+\.\d ms\n.*){3}")
            here.write(b"who\n")
            here.stdout.wait_for("^chat.v2$")
            here.end_input()
            assert here.wait() == 0


def test_options_of_the_handshake_arrive(peer: Peer) -> None:
    request = asked(peer, "-H", "X-Room: blue", "-H", "x-room:green", "--origin", "https://example.org")
    assert request.path == "/chat" and request.headers.get_all("X-Room") == ["blue", "green"]
    assert request.headers["Origin"] == "https://example.org"
    assert "permessage-deflate" in request.headers["Sec-WebSocket-Extensions"]
    request = asked(peer, "--no-compress", "--user", "ann:se:cret", "--cookie", "a=1", "--cookie", "b=2")
    assert request.headers["Authorization"] == "Basic " + base64.b64encode(b"ann:se:cret").decode()
    assert request.headers["Cookie"] == "a=1; b=2" and "Sec-WebSocket-Extensions" not in request.headers
    assert asked(peer, "--bearer", "abc").headers["Authorization"] == "Bearer abc"


def test_a_message_that_is_too_large_is_told(peer: Peer) -> None:
    done = portico("connect", peer.address, stdin=b"large\n")
    assert (done.returncode, len(lines(done))) == (1, 1) and "raise --max-size" in lines(done)[0]
    assert peer.ends[-1][0] == 1006 or peer.ends[-1][0] == 1009
    done = portico("connect", peer.address, "--max-size", "3000000", stdin=b"large\n")
    assert (done.returncode, len(done.stdout)) == (0, (2 << 20) + 1)
    done = portico("connect", peer.address, "--max-size", "10", stdin=b"short\n" + b"a" * 11)
    assert done.returncode == 1 and "raise --max-size" in lines(done)[0]


def test_input_that_is_no_text_is_told(peer: Peer) -> None:
    done = portico("connect", peer.address, stdin=b"fine\n\xff\xfe\n")
    assert (done.returncode, len(lines(done))) == (1, 1)
    assert lines(done)[0].endswith("the input is not UTF-8, as text must be: b'\\xff\\xfe'; send it with --binary")


def test_tls_and_its_options(certificates: Certificates) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.issue("127.0.0.1"))
    with Peer(context) as server:
        done = portico("connect", server.address, "--ca", certificates.ca, "-v", stdin=b"hello\n")
        assert (done.returncode, done.stdout) == (0, b"hello\n") and ", TLSv1.3 " in lines(done)[0]
        assert portico("connect", server.address, "--insecure", stdin=b"hello\n").stdout == b"hello\n"
        done = portico("connect", server.address)
        assert (done.returncode, len(lines(done))) == (1, 1) and "--ca" in lines(done)[0]


def test_through_a_proxy(peer: Peer) -> None:
    need_program("ncat")
    with started_ncat_proxy() as proxy:
        done = portico("connect", peer.address, "--proxy", f"http://127.0.0.1:{proxy}", stdin=b"hello\n")
        assert (done.returncode, done.stdout, done.stderr) == (0, b"hello\n", b"")


@contextlib.contextmanager
def started_ncat_proxy() -> Iterator[str]:
    from tools.command import started
    from tools.test_piping import wait_for_listener

    port = str(free_port())
    with started("ncat", "-l", "-k", "--proxy-type", "http", "127.0.0.1", port, stdin=subprocess.DEVNULL):
        wait_for_listener(port)
        yield port


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (401, "answered 401 Unauthorized: no entry; log in with --user NAME:PASSWORD or --bearer TOKEN"),
        (403, "answered 403 Forbidden: no entry; it may want a login, or another --origin"),
        (404, "answered 404 Not Found: no entry; check the path"),
        (503, "answered 503 Service Unavailable: no entry"),
    ],
)
def test_a_refusal_says_what_the_server_answered(status: int, said: str) -> None:
    def refuse(connection: Any, request: Any) -> Any:
        return connection.respond(status, "no entry\n")

    with Peer(process_request=refuse) as server:
        done = portico("connect", server.address)
    assert (done.returncode, len(lines(done)), done.stdout) == (1, 1, b"")
    assert lines(done)[0].endswith(said)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["connect", "http://localhost/"], "ask with: portico fetch http://localhost/"),
        (["listen", "https://localhost:0/"], "a portico.Door answers it; see: portico run --help"),
        (
            ["connect", "localhost:80", "--binary"],
            "--binary is for WebSockets, not for tcp://localhost:80; write ws://",
        ),
        (["connect", "localhost:80", "-H", "a: b"], "--header is for WebSockets"),
        (["connect", "tls://localhost:80", "--bearer", "x"], "--bearer is for WebSockets"),
        (["connect", "tls://localhost:80", "--user", "x:y"], "--user is for WebSockets"),
        (["connect", "unix:x", "--cookie", "x=y"], "--cookie is for WebSockets"),
        (["connect", "unix:x", "--origin", "x"], "--origin is for WebSockets"),
        (["listen", "localhost:0", "--origins", "*"], "--origins is for WebSockets"),
        (["listen", "localhost:0", "--ping", "1"], "--ping is for WebSockets"),
        (["connect", "ws://localhost/", "--user", "ann"], "--user has no password; write it as NAME:PASSWORD"),
        (["connect", "ws://localhost/", "--user", "a:b", "--bearer", "x"], "exclude one another"),
        (["connect", "ws://localhost/", "--cookie", "a"], "--cookie has no value; write it as NAME=VALUE"),
        (["connect", "ws://localhost/", "-H", "a"], "--header 'a' has no colon"),
        (["connect", "ws://localhost/", "-H", "Upgrade: x"], "leave it out of --header"),
        (["connect", "ws://localhost/", "--origin", "here"], "--origin 'here' is no origin"),
        (["connect", "ws://localhost/", "--subprotocol", "a b"], "the subprotocol 'a b' is no token"),
        (
            ["connect", "ws://localhost/", "--subprotocol", "a", "--subprotocol", "a"],
            "--subprotocol ('a', 'a') has one",
        ),
        (["connect", "ws://localhost/", "--ping", "-1"], "-1 is less than 0"),
        (["connect", "ws://localhost/", "--max-size", "0"], "--max-size"),
        (["connect", "ws://localhost/", "--insecure"], "is without TLS; write wss:// where --tls is meant"),
        (["listen", "ws://localhost:0/?a"], "a server listens at a path"),
        (["listen", "ws://localhost:0/", "--origins", "here"], "'here' is no origin; write it as https://"),
    ],
)
def test_wrong_usage_is_one_line(words: list[str], said: str) -> None:
    done = portico(*words)
    assert (done.returncode, len(lines(done)), done.stdout) == (2, 1, b""), done.stderr
    assert said in lines(done)[0]


# listen


@contextlib.contextmanager
def listening(*words: str, stdin: Any = subprocess.PIPE) -> Iterator[tuple[Any, str]]:
    with started_portico("listen", "ws://127.0.0.1:0/chat", *words, stdin=stdin) as here:
        yield here, here.listening()


def test_listen_is_the_terminal_of_the_first(tmp_path: Path) -> None:
    with listening("--subprotocol", "b", "-H", "X-Room: blue") as (here, address):
        with connect_to(address, subprotocols=["a", "b"]) as client:  # type: ignore[list-item]
            assert (client.subprotocol, client.response.headers["X-Room"]) == ("b", "blue")  # type: ignore[union-attr]
            client.send("hello")
            here.stdout.wait_for("^hello$")
            here.write(b"welcome\nback\n")
            assert (client.recv(10), client.recv(10)) == ("welcome", "back")
            client.send(b"raw")
            here.stdout.wait_for("^raw")
            client.close(1001, "that is all")
        assert here.wait() == 0
        assert "portico: closed with 1001 going away: that is all\n" in here.stderr.all().decode()


def test_listen_closes_when_its_input_is_over_and_nothing_comes() -> None:
    with listening("--binary", stdin=subprocess.PIPE) as (here, address), connect_to(address) as client:
        here.write(b"\x00data")
        here.end_input()
        assert client.recv(10) == b"\x00data"
        with pytest.raises(websockets.ConnectionClosedOK):
            client.recv(10)
        assert here.wait() == 0


def test_many_hear_what_is_typed_and_each_is_named() -> None:
    with listening("--keep-open", "--hex", "-v") as (here, address):
        with connect_to(address) as one, connect_to(address) as other:
            here.stderr.wait_for(r"(?s)(connection from tcp.*){2}")
            here.stderr.wait_for(r"^portico: tcp://\S+: round trip ")
            here.write(b"to all\n")
            assert (one.recv(10), other.recv(10)) == ("to all", "to all")
            other.send("from one")
            here.stdout.wait_for(r"^tcp://\S+ text < 00000000 ")
            other.close(4000, "bored")
            here.stderr.wait_for(r"^portico: tcp://\S+: the peer closed the WebSocket with 4000: bored$")
            here.write(b"who is left\n")
            assert one.recv(10) == "who is left"
            here.send_signal(signal.SIGINT)
            with pytest.raises(websockets.ConnectionClosedOK):
                one.recv(10)
            assert one.close_code == 1001
        assert here.wait() == 130


def test_without_input_many_are_heard_until_they_leave() -> None:
    with listening("--keep-open", stdin=subprocess.DEVNULL) as (here, address), connect_to(address) as client:
        with pytest.raises(TimeoutError):
            client.recv(1.5)
        client.send("still here")
        here.stdout.wait_for("^still here$")


def test_others_than_websockets_are_refused_and_it_goes_on() -> None:
    curl = need_program("curl")
    with listening() as (here, address):
        for url, status in ((address, "426"), (address.replace("/chat", "/other"), "404")):
            words = [curl, "-s", "-o", "/dev/null", "-w", "%{http_code}", "http" + url.removeprefix("ws")]
            assert subprocess.run(words, capture_output=True, text=True, timeout=10, check=True).stdout == status
        with pytest.raises(websockets.InvalidStatus, match="403"):
            connect_to(address, origin="https://example.org").close()  # type: ignore[arg-type]
        with connect_to(address) as client:
            client.send("hello")
            here.stdout.wait_for("^hello$")


@pytest.mark.parametrize("origin", ["*", "https://*.example.org"])
def test_origins_are_let_in(origin: str) -> None:
    with listening("--origins", origin, "--origins", "http://localhost") as (here, address):
        with connect_to(address, origin="https://www.example.org") as client:  # type: ignore[arg-type]
            client.send("hello")
            here.stdout.wait_for("^hello$")


def test_no_compress_and_max_size_of_the_server() -> None:
    with listening("--no-compress", "--max-size", "10", "-k") as (here, address), connect_to(address) as client:
        assert client.response is not None and "Sec-WebSocket-Extensions" not in client.response.headers
        client.send("a" * 11)
        with pytest.raises(websockets.ConnectionClosedError):
            client.recv(10)
        assert client.close_code == 1009
        here.stderr.wait_for("over the limit of 10 bytes; raise --max-size")


def both_ends(server: list[str], client: Callable[[str, str], list[str]]) -> None:
    with started_portico("listen", *server, stdin=subprocess.PIPE) as here:
        address = here.listening()
        ca = here.stderr.wait_for(r"--ca (\S+)")[1] if "wss" in address or "--tls" in server else ""
        with started_portico("connect", *client(address, ca)) as there:
            there.write(b"hello\n")
            here.stdout.wait_for("^hello$")
            here.write(b"welcome\n")
            there.stdout.wait_for("^welcome$")
            there.end_input()
            assert (there.wait(), here.wait()) == (0, 0)


def test_both_ends_over_tls_and_unix_sockets(tmp_path: Path) -> None:
    both_ends(["wss://127.0.0.1:0/chat"], lambda address, ca: [address, "--ca", ca])
    both_ends(["ws://127.0.0.1:0/", "--tls"], lambda address, ca: [address, "--ca", ca])
    both_ends([f"ws+unix:{tmp_path}/x:/chat"], lambda address, ca: [address])
    assert list(tmp_path.iterdir()) == []


def test_listen_at_a_port_that_is_taken_is_one_line(peer: Peer) -> None:
    done = portico("listen", f"ws://127.0.0.1:{port_of(peer.address.removesuffix('/chat'))}/")
    assert (done.returncode, len(lines(done))) == (1, 1) and ": address already in use by " in lines(done)[0]


def test_resolve_takes_their_addresses() -> None:
    for scheme, port in (("ws", 80), ("wss", 443), ("http", 80), ("https", 443)):
        done = portico("resolve", f"{scheme}://127.0.0.1/path?query")
        assert (done.returncode, done.stdout.decode()) == (0, f"127.0.0.1:{port}\n"), scheme
