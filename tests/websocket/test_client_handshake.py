"""What a client asks for, and what it makes of answers: right, wrong, late and endless ones."""

import asyncio
import os
from pathlib import Path

import pytest
from interop.test_proxies import microsocks, tinyproxy
from server.support import EVERYWHERE, Certificates, certificates, echo, scenario

import portico
from portico import WebSocketSettings
from portico.client import is_temporary
from portico.errors import ConfigurationError, EndOfStream, ProtocolError, StatusError

from .support import HELLO, SWITCHING, YES, Peer, answer, basic, failure, playing

__all__ = ["certificates"]


# what is asked


@scenario()
async def test_the_request_is_as_the_rfc_has_it() -> None:
    async with playing(YES) as server:
        async with portico.connect(server.address.replace(path="/chat?room=1")) as channel:
            peer = server.peers[0]
            assert peer.line == "GET /chat?room=1 HTTP/1.1"
            assert peer.fields["host"] == f"127.0.0.1:{server.address.port}"
            assert peer.fields["upgrade"] == "websocket"
            assert peer.fields["connection"] == "Upgrade"
            assert peer.fields["sec-websocket-version"] == "13"
            assert len(peer.fields["sec-websocket-key"]) == 24
            assert not {"origin", "authorization", "cookie", "sec-websocket-protocol"} & set(peer.fields)
            assert channel.subprotocol is None
            sent = [f"{name}: {value}" for name, value in channel.request.headers]
            assert (channel.request.path, channel.request.query) == ("/chat", "room=1")
            assert peer.head.split("\r\n")[1:] == sent
            channel.abort()


@scenario()
async def test_the_request_has_what_the_settings_say() -> None:
    settings = WebSocketSettings(
        headers=[("X-One", "1"), ("Host", "chat.example.org")],
        origin="https://example.org",
        credentials=("joe", "secret"),
        cookies={"a": "b", "c": "d"},
        subprotocols=["v2", "v1"],
        deflate=None,
    )
    async with playing(YES) as server:
        async with portico.connect(server.address, websocket=settings) as channel:
            fields = server.peers[0].fields
            assert server.peers[0].head.lower().count("\r\nhost:") == 1
            assert fields["host"] == "chat.example.org"
            assert fields["x-one"] == "1"
            assert fields["origin"] == "https://example.org"
            assert fields["authorization"] == basic("joe", "secret")
            assert fields["cookie"] == "a=b; c=d"
            assert fields["sec-websocket-protocol"] == "v2, v1"
            assert "sec-websocket-extensions" not in fields
            channel.abort()


@scenario()
async def test_no_two_handshakes_have_the_same_key() -> None:
    async with playing(YES) as server:
        for _ in range(3):
            (await portico.connect(server.address)).abort()
        assert len({peer.fields["sec-websocket-key"] for peer in server.peers}) == 3


# right answers


@scenario()
async def test_an_answer_split_at_every_byte_is_one_answer() -> None:
    reply = (YES.replace("{accept}", "{accept}\r\nSec-WebSocket-Protocol: b").encode()) + HELLO
    settings = WebSocketSettings(subprotocols=["a", "b"])
    cuts = iter(range(1, 400))

    async def in_two_pieces(peer: Peer) -> None:
        whole, cut = peer.filled(reply), next(cuts)
        await peer.send(whole[:cut])
        await asyncio.sleep(0.001)
        await peer.send(whole[cut:])
        await peer.until_gone()

    async with playing(in_two_pieces) as server:
        for _ in range(len(reply) + 20):
            channel = await portico.connect(server.address, websocket=settings)
            assert channel.subprotocol == "b"
            assert await channel.recv() == "hello"
            channel.abort()


@scenario(EVERYWHERE)
async def test_an_answer_byte_by_byte_is_one_answer() -> None:
    async def dribbling(peer: Peer) -> None:
        for byte in peer.filled(YES.encode() + HELLO):
            await peer.send(bytes([byte]))
            await asyncio.sleep(0)
        await peer.until_gone()

    async with playing(dribbling) as server:
        channel = await portico.connect(server.address)
        assert await channel.recv() == "hello"
        channel.abort()


@scenario()
async def test_interim_answers_are_passed_over() -> None:
    interim = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    async with playing(interim + YES) as server:
        (await portico.connect(server.address)).abort()


# wrong answers


HOSTILE = {
    "another protocol": b"220 mail.example.org ESMTP\r\n",
    "an alert of TLS": b"\x15\x03\x01\x00\x02\x02\x46",
    "rubbish": bytes(range(256)),
    "HTTP/2": b"\0\0\x12\4\0\0\0\0\0",
    "HTTP/2 in words": b"HTTP/2.0 101 Switching Protocols\r\n\r\n",
    "a wrong accept value": SWITCHING + "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
    "no accept value": SWITCHING + "\r\n",
    "a doubled accept value": SWITCHING + "Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Accept: {accept}\r\n\r\n",
    "a folded field": SWITCHING + "Sec-WebSocket-Accept:\r\n {accept}\r\n\r\n",
    "a space before a colon": SWITCHING + "Sec-WebSocket-Accept : {accept}\r\n\r\n",
    "NUL in a field": SWITCHING + "X: a\0b\r\nSec-WebSocket-Accept: {accept}\r\n\r\n",
    "another upgrade": YES.replace("websocket", "h2c"),
    "no upgrade": YES.replace("Upgrade: websocket\r\n", ""),
    "no connection": YES.replace("Connection: Upgrade\r\n", ""),
    "a subprotocol that nobody offered": YES.replace("\r\n\r\n", "\r\nSec-WebSocket-Protocol: chat\r\n\r\n"),
    "an extension that nobody offered": YES.replace("\r\n\r\n", "\r\nSec-WebSocket-Extensions: x-gzip\r\n\r\n"),
    "a doubled extension": YES.replace(
        "\r\n\r\n", "\r\nSec-WebSocket-Extensions: permessage-deflate, permessage-deflate\r\n\r\n"
    ),
    "a window that nobody offered": YES.replace(
        "\r\n\r\n", "\r\nSec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=16\r\n\r\n"
    ),
    "fields without end": SWITCHING + "X: y\r\n" * 10_000,
    "a field without end": SWITCHING + "X: " + "y" * 100_000,
    "interim answers without end": "HTTP/1.1 100 Continue\r\n\r\n" * 10_000,
}


@pytest.mark.parametrize("reply", HOSTILE.values(), ids=HOSTILE)
@scenario()
async def test_a_wrong_answer_is_told_at_once_and_not_tried_again(reply: str | bytes) -> None:
    async with playing(reply) as server:
        error = await failure(portico.connect(server.address, retry=portico.Retry()))
        (attempt,) = error.attempts
        assert attempt.stage == "handshake"
        assert isinstance(attempt.error, ProtocolError)
        assert str(server.address) in str(attempt.error)
        assert not is_temporary(attempt.error)


@scenario()
async def test_a_server_that_hangs_up_within_its_answer_may_do_better_later() -> None:
    whole = YES.encode()
    sizes = iter(range(len(whole)))

    async def cut_off(peer: Peer) -> None:
        await peer.send(whole[: next(sizes)])

    async with playing(cut_off) as server:
        for _ in range(len(whole)):
            error = await failure(portico.connect(server.address))
            (attempt,) = error.attempts
            assert attempt.stage == "handshake" and isinstance(attempt.error, EndOfStream | portico.ClosedError)
            assert is_temporary(attempt.error)
        assert "hung up before it had answered; check that it is a web server" in str(error)


@scenario()
async def test_the_deadline_covers_the_handshake() -> None:
    async def silent(peer: Peer) -> None:
        await peer.until_gone()

    async def dripping(peer: Peer) -> None:
        while True:
            await peer.send("HTTP/1.1 100 Continue\r\n\r\n")
            await asyncio.sleep(0.01)

    async with playing(silent, dripping) as server:
        for _ in range(2):
            error = await failure(portico.connect(server.address, timeout=0.1))
            assert "within 0.1 s: handshake: " in str(error)
            assert isinstance(error.attempts[-1].error, TimeoutError)


@scenario()
async def test_cancelled_within_the_handshake_it_leaves_nothing() -> None:
    async def half(peer: Peer) -> None:
        await peer.send(SWITCHING)
        await peer.until_gone()

    async with playing(half) as server:
        connecting = asyncio.ensure_future(_connect(server.address))
        await server.asked.wait()
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting


async def _connect(address: portico.Address) -> None:
    await portico.connect(address)


# refusals


@scenario()
async def test_a_refusal_says_what_the_server_answered() -> None:
    reply = answer("401 Unauthorized", "WWW-Authenticate: Basic", "Set-Cookie: a=b", body="who are you?\nreally")
    async with playing(reply) as server:
        error = await failure(portico.connect(server.address))
        refused = error.__cause__
        assert isinstance(refused, StatusError)
        assert (refused.status, refused.reason, refused.body) == (401, "Unauthorized", b"who are you?\nreally")
        assert ("WWW-Authenticate", "Basic") in refused.headers
        assert str(error) == (
            f"cannot connect to {server.address}: handshake: {server.address} answered 401 Unauthorized: who are you?"
        )


@scenario()
async def test_200_is_a_refusal_too() -> None:
    async with playing(answer("200 OK", body="<html>")) as server:
        error = await failure(portico.connect(server.address))
        assert isinstance(error.__cause__, StatusError) and error.__cause__.status == 200


@scenario()
async def test_only_the_start_of_a_body_is_read() -> None:
    async def endless(peer: Peer) -> None:
        await peer.send("HTTP/1.1 403 Forbidden\r\n\r\n")
        while True:
            await peer.send(b"no " * 10_000)

    async with playing(endless) as server:
        refused = (await failure(portico.connect(server.address))).__cause__
        assert isinstance(refused, StatusError)
        assert refused.body == (b"no " * 10_000)[:4096]


@pytest.mark.parametrize(
    "head", ["HTTP/1.1 403 Forbidden\r\nContent-Length: 9\r\n\r\nno", "HTTP/1.1 403 Forbidden\r\n\r\nno"]
)
@scenario()
async def test_the_status_is_told_before_the_deadline_though_the_body_does_not_come(head: str) -> None:
    async with playing(head) as server:
        refused = (await failure(portico.connect(server.address, timeout=0.3))).__cause__
        assert isinstance(refused, StatusError)
        assert (refused.status, refused.body) == (403, b"no")


@scenario()
async def test_a_body_that_is_cut_off_or_wrong_does_not_hide_the_status() -> None:
    async def cut_off(peer: Peer) -> None:
        await peer.send("HTTP/1.1 403 Forbidden\r\nContent-Length: 9\r\n\r\nno")

    async with playing(cut_off, "HTTP/1.1 403 Forbidden\r\nTransfer-Encoding: chunked\r\n\r\nxyz") as server:
        for _ in range(2):
            refused = (await failure(portico.connect(server.address))).__cause__
            assert isinstance(refused, StatusError) and refused.status == 403


# redirects


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@scenario()
async def test_redirects_are_followed(status: int) -> None:
    settings = WebSocketSettings(credentials="token", cookies={"a": "b"}, headers={"X-One": "1"})
    async with playing(answer(f"{status} Moved", "Location: /there?x=1"), YES) as server:
        (await portico.connect(server.address, websocket=settings)).abort()
        assert [peer.line for peer in server.peers] == ["GET / HTTP/1.1", "GET /there?x=1 HTTP/1.1"]
        for peer in server.peers:
            assert (peer.fields["authorization"], peer.fields["cookie"], peer.fields["x-one"]) == (
                "Bearer token",
                "a=b",
                "1",
            )


@scenario()
async def test_another_origin_gets_no_credentials_even_behind_a_further_redirect() -> None:
    settings = WebSocketSettings(
        credentials="token", cookies={"a": "b"}, headers={"X-One": "1", "Host": "mine.example.org"}
    )
    async with playing(answer("302 Found", "Location: /next"), YES) as other:
        there = f"http://127.0.0.1:{other.address.port}/there"
        async with playing(answer("302 Found", f"Location: {there}")) as server:
            (await portico.connect(server.address, websocket=settings)).abort()
        assert [peer.line for peer in other.peers] == ["GET /there HTTP/1.1", "GET /next HTTP/1.1"]
        for peer in other.peers:
            assert not {"authorization", "cookie"} & set(peer.fields)
            assert peer.fields["host"] == f"127.0.0.1:{other.address.port}"
            assert peer.fields["x-one"] == "1"


@scenario()
async def test_headers_that_are_credentials_stay_at_home_too() -> None:
    settings = WebSocketSettings(headers={"Authorization": "Digest x", "Cookie": "a=b"})
    async with playing(YES) as other:
        there = f"ws://127.0.0.1:{other.address.port}/"
        async with playing(answer("307 Moved", f"Location: {there}")) as server:
            (await portico.connect(server.address, websocket=settings)).abort()
            assert server.peers[0].fields["authorization"] == "Digest x"
        assert not {"authorization", "cookie"} & set(other.peers[0].fields)


@scenario()
async def test_redirects_without_end_end() -> None:
    async with playing(answer("302 Found", "Location: /again")) as server:
        error = await failure(portico.connect(server.address, websocket=WebSocketSettings(max_redirects=3)))
        assert "redirected more than max_redirects=3 times" in str(error)
        assert len(server.peers) == 4


@scenario()
async def test_without_redirects_one_is_the_answer() -> None:
    async with playing(answer("302 Found", "Location: /again")) as server:
        error = await failure(portico.connect(server.address, websocket=WebSocketSettings(max_redirects=0)))
        assert isinstance(error.__cause__, StatusError) and error.__cause__.status == 302
        assert ("Location", "/again") in error.__cause__.headers


@scenario()
async def test_the_deadline_covers_all_redirects_together() -> None:
    async def slow(peer: Peer) -> None:
        await asyncio.sleep(0.03)
        await peer.send(answer("302 Found", "Location: /again"))
        await peer.until_gone()

    async with playing(slow) as server:
        settings = WebSocketSettings(max_redirects=1000)
        error = await failure(portico.connect(server.address, websocket=settings, timeout=0.2))
        assert error.timeout == 0.2 and len(server.peers) < 10


# beneath


@scenario()
async def test_tls_and_what_it_says_about_the_protocol(certificates: Certificates) -> None:
    seen = []

    async def handler(channel: portico.Channel[str | bytes]) -> None:
        assert channel.tls is not None
        seen.append(channel.tls.alpn)
        await echo(channel)

    tls = certificates.server(alpn=("h2", "http/1.1"))
    async with portico.serve(handler, "wss://localhost:0/chat", tls=tls) as server:
        address = server.address.replace(host="localhost")
        assert address.scheme == "wss"
        async with portico.connect(address, tls=certificates.client()) as channel:
            await channel.send("hello")
            assert await channel.recv() == "hello"
            assert channel.tls is not None
        assert seen == ["http/1.1"]
        error = await failure(portico.connect(address))
        assert error.attempts[-1].stage == "tls"


@scenario()
async def test_from_tls_to_none_no_redirect_is_followed(certificates: Certificates) -> None:
    door = portico.Door()

    @door.get("/")
    async def away(request: object) -> object:
        from portico.web.response import Response

        return Response(status=302, headers={"Location": "http://localhost/"})

    async with portico.serve(door, "https://localhost:0", tls=certificates.server()) as server:
        address = f"wss://localhost:{server.address.port}/"
        error = await failure(portico.connect(address, tls=certificates.client()))
        assert "from TLS to none no redirect is followed" in str(error)


@scenario()
async def test_a_client_certificate_is_not_shown_elsewhere(certificates: Certificates) -> None:
    shown = []

    async def handler(channel: portico.Channel[str | bytes]) -> None:
        assert channel.tls is not None
        shown.append(channel.tls.peer_certificate)

    door = portico.Door()
    settings = {"client_authority": certificates.ca, "client_certificate": "optional"}
    tls = certificates.server(**settings)
    async with portico.serve(handler, "wss://localhost:0/", tls=tls) as other:

        @door.get("/")
        async def away(request: object) -> object:
            from portico.web.response import Response

            return Response(status=302, headers={"Location": f"https://localhost:{other.address.port}/"})

        async with portico.serve(door, "https://localhost:0", tls=tls) as server:
            own = certificates.client(certificate=certificates.issue("joe@example.org", file="joe.pem"))
            for port in (server.address.port, other.address.port):
                channel = await portico.connect(f"wss://localhost:{port}/", tls=own)
                await channel.close()
    assert [bool(each) for each in shown] == [False, True]


@scenario()
async def test_unix_sockets(tmp_path: Path) -> None:
    place = os.path.relpath(tmp_path / "s")
    async with portico.serve(echo, f"ws+unix:{place}:/chat") as server:
        async with portico.connect(server.address) as channel:
            await channel.send("hello")
            assert await channel.recv() == "hello"
        error = await failure(portico.connect(f"ws+unix:{place}:/other"))
        assert isinstance(error.__cause__, StatusError) and error.__cause__.status == 404


@pytest.mark.parametrize("kind", ["http", "socks5h", "both"])
@scenario()
async def test_through_proxies(kind: str, tmp_path: Path) -> None:
    async with (
        portico.serve(echo, "ws://127.0.0.1:0/chat") as server,
        microsocks() as socks,
        tinyproxy(tmp_path) as http,
    ):
        chains = {"http": [f"http://{http}"], "socks5h": [f"socks5h://{socks}"]}
        chain = chains.get(kind, [f"socks5h://{socks}", f"http://{http}"])
        async with portico.connect(server.address, proxy=chain) as channel:
            await channel.send("hello")
            assert await channel.recv() == "hello"


@scenario()
async def test_a_proxy_header_comes_before_the_handshake() -> None:
    async with portico.serve(echo, "ws://127.0.0.1:0/", proxied_by=["loopback"]) as server:
        async with portico.connect(server.address, proxy_header="v2") as channel:
            await channel.send("hello")
            assert await channel.recv() == "hello"


# what cannot be


@pytest.mark.parametrize(
    ("address", "settings", "said"),
    [
        ("ws://h/", {"codec": portico.Lines()}, "it takes no codec="),
        ("ws://h/", {"tls": portico.TLS()}, "write wss://"),
        ("ws://h/", {"websocket": 5}, "must be a WebSocketSettings"),
        ("tcp://h:1", {"websocket": WebSocketSettings()}, "websocket= is for ws, wss and ws"),
        ("http://h/", {}, "not http"),
        ("ws+unix:/run/s:/", {"proxy": "http://proxy"}, "cannot be reached through a proxy"),
        ("ws://*:80/", {}, "every interface"),
    ],
)
def test_settings_that_do_not_fit_are_refused_at_once(address: str, settings: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        portico.connect(address, **settings)  # type: ignore[call-overload]
