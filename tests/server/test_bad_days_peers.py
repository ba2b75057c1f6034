"""Peers that misbehave or vanish: nonsense, silence, halves, resets. Each costs its own connection alone."""

import asyncio
import contextlib
import os
import socket
import ssl
from typing import Any

import pytest

import portico
from portico import Limits
from portico.errors import ClosedError, EndOfStream, MessageTooLarge

from .support import (
    EVERYWHERE,
    RESET,
    Certificates,
    certificates,
    client_of,
    clients,
    echo,
    scenario,
    until,
    wait_for_end,
)

ANYWHERE = "tcp://127.0.0.1:0"
__all__ = ["certificates"]

SECURE = pytest.mark.parametrize("secure", [False, True], ids=["tcp", "tls"])


class Recorder:
    """A handler that keeps what came, and the error that ended it."""

    def __init__(self) -> None:
        self.received: list[Any] = []
        self.error: BaseException | None = None
        self.over = asyncio.Event()

    async def __call__(self, connection: Any) -> None:
        try:
            async for message in connection:
                self.received.append(message)
        except Exception as error:
            self.error = error
            raise
        finally:
            self.over.set()

    async def ended(self) -> BaseException | None:
        await asyncio.wait_for(self.over.wait(), 5)
        return self.error


# What is too large.


OVERSIZE = {
    "line": (portico.Lines(max_size=10), b"x" * 50 + b"\n", b"fits\n", "fits"),
    "length-prefixed message": (
        portico.LengthPrefix(4, max_size=10),
        b"\0\0\0\x32" + b"x" * 50,
        b"\0\0\0\4fits",
        b"fits",
    ),
    "netstring": (portico.Netstrings(max_size=10), b"50:" + b"x" * 50 + b",", b"4:fits,", b"fits"),
}


@pytest.mark.parametrize("what", OVERSIZE)
@scenario(on=EVERYWHERE)
async def test_an_oversize_message_is_refused_and_the_next_can_be_read(what: str) -> None:
    codec, oversize, fitting, message = OVERSIZE[what]
    told: list[MessageTooLarge] = []

    async def handler(channel: portico.Channel[Any]) -> None:
        try:
            await channel.recv()
        except MessageTooLarge as error:
            told.append(error)
        assert await channel.recv() == message
        await channel.send(message)
        await channel.recv()

    async with portico.serve(handler, ANYWHERE, codec=codec) as server, clients(server.address) as (client,):
        await client.send(oversize + fitting)
        assert await client.recv_exactly(len(fitting)) == fitting
        assert told[0].limit == 10 and told[0].size > 10 and "max_size" in str(told[0])
        await client.send(oversize)  # this one the handler does not catch
        assert await client.is_over()
        client.close()
        await until(lambda: server.stats.open == 0)
        assert (server.stats.protocol_errors, server.stats.handler_errors) == (1, 0)


def over_max_head() -> bytes:
    head = (
        b'{"byteorder":"little","content-type":"text/json","content-encoding":"utf-8","content-length":2,"x":"'
        + b"y" * 40000
        + b'"}'
    )
    return len(head).to_bytes(2, "big") + head + b"{}"


@scenario(on=EVERYWHERE)
async def test_an_oversize_or_broken_header_ends_that_connection_alone() -> None:
    recorder = Recorder()
    async with portico.serve(recorder, ANYWHERE, codec=portico.Messages(max_size=1000)) as server:
        async with clients(server.address) as (client,):
            await client.send(over_max_head())
            client.end()
            assert await client.is_over()
            error = await recorder.ended()
            assert isinstance(error, MessageTooLarge | portico.ProtocolError), error
        recorder.over.clear()
        async with clients(server.address) as (client,):
            await client.send(b"\0\x09{nonsense")
            assert await client.is_over()
            assert isinstance(await recorder.ended(), portico.ProtocolError)
        assert (server.stats.protocol_errors, server.stats.handler_errors) == (2, 0)


@scenario(on=EVERYWHERE)
async def test_an_endless_line_is_never_kept() -> None:
    limits = Limits(close_timeout=0.1)
    async with portico.serve(wait_for_end, ANYWHERE, codec=portico.Lines(max_size=1000), limits=limits) as server:
        async with clients(server.address) as (client,):
            with pytest.raises((ConnectionResetError, BrokenPipeError)):
                async with asyncio.timeout(5):
                    while True:
                        await client.send(b"x" * 65536)
                        kept = [each.connection.queued[0] for each in server.listeners[0].sessions if each.connection]
                    assert sum(kept) < 300_000
        await until(lambda: server.stats.open == 0)
        assert server.stats.protocol_errors == 1


@scenario(on=EVERYWHERE)
async def test_bytes_that_are_no_text_end_that_connection_alone() -> None:
    recorder = Recorder()
    async with portico.serve(recorder, ANYWHERE, codec=portico.Lines()) as server, clients(server.address) as (client,):
        await client.send(b"fine\n\xff\xfe\n")
        assert await client.is_over()
        assert isinstance(await recorder.ended(), portico.ProtocolError) and recorder.received == ["fine"]
        assert server.stats.protocol_errors == 1


# Silence.


@SECURE
@scenario(on=EVERYWHERE)
async def test_a_client_that_sends_nothing_is_dropped(secure: bool, certificates: Certificates) -> None:
    limits = Limits(idle_timeout=0.1, handshake_timeout=0.1, close_timeout=0.1)
    tls = certificates.server() if secure else None
    async with portico.serve(echo, ANYWHERE, tls=tls, limits=limits) as server, clients(server.address) as (client,):
        async with asyncio.timeout(3):
            assert await client.is_over()
        client.close()
        await until(lambda: server.stats.open == 0)
        assert (server.stats.handshakes_failed if secure else server.stats.timeouts) == 1
        assert server.stats.handler_errors == 0


@scenario(on=EVERYWHERE)
async def test_a_client_of_one_byte_at_a_time_gets_so_long_for_a_message() -> None:
    limits = Limits(idle_timeout=30, message_timeout=0.2, close_timeout=0.1)
    async with (
        portico.serve(wait_for_end, ANYWHERE, codec=portico.Lines(), limits=limits) as server,
        clients(server.address) as (client,),
    ):
        begun = asyncio.get_running_loop().time()
        with pytest.raises((ConnectionError, TimeoutError)):
            async with asyncio.timeout(5):
                while server.stats.timeouts == 0:
                    await client.send(b"x")
                    await asyncio.sleep(0.01)
                raise TimeoutError
        assert asyncio.get_running_loop().time() - begun < 4
        assert server.stats.timeouts == 1 and server.stats.messages_received == 0


@SECURE
@pytest.mark.parametrize("how", ["end", "reset", "silence"])
@scenario(on=EVERYWHERE)
async def test_half_a_message_and_then_nobody(how: str, secure: bool, certificates: Certificates) -> None:
    recorder = Recorder()
    limits = Limits(message_timeout=0.1, close_timeout=0.1)
    settings: dict[str, Any] = {"tls": certificates.server()} if secure else {}
    async with portico.serve(recorder, ANYWHERE, codec=portico.Lines(), limits=limits, **settings) as server:
        stream = await portico.connect(server.address, tls=certificates.client() if secure else None)
        await stream.send(b"whole\nha")
        await stream.flush()
        await until(lambda: recorder.received)
        if how == "end":
            stream.send_eof()
        elif how == "reset":
            stream.abort()
        error = await recorder.ended()
        if how == "end":
            assert isinstance(error, EndOfStream) and error.partial == b"ha"
        elif how == "reset":
            assert isinstance(error, ClosedError) and isinstance(error.__cause__, ConnectionError)
        else:
            assert isinstance(error, ClosedError) and "message_timeout" in str(error)
        assert recorder.received == ["whole"]
        stream.abort()
        await until(lambda: server.stats.open == 0)
        assert (server.stats.peer_errors, server.stats.handler_errors) == (1, 0)
        async with portico.connect(server.address, tls=certificates.client() if secure else None) as other:
            await other.send(b"others are served\n")


@scenario(on=EVERYWHERE)
async def test_a_reset_while_the_server_sends() -> None:
    told: list[BaseException] = []

    async def flood(stream: portico.Stream) -> None:
        try:
            while True:
                await stream.send(b"x" * 100_000)
        except ClosedError as error:
            told.append(error)
            raise

    async with portico.serve(flood, ANYWHERE) as server:
        client = await client_of(server.address)
        await client.recv_exactly(1000)
        client.reset()
        await until(lambda: server.stats.open == 0 and told and server.stats.peer_errors)
        assert isinstance(told[0].__cause__, ConnectionResetError | BrokenPipeError)
        assert (server.stats.peer_errors, server.stats.handler_errors) == (1, 0)


@scenario(on=EVERYWHERE)
async def test_a_server_that_aborts_in_mid_message_is_a_lost_connection_for_the_client() -> None:
    async def rude(stream: portico.Stream) -> None:
        await stream.send(b"whole\nha")
        await stream.flush()
        await stream.recv()
        stream.abort()

    async with (
        portico.serve(rude, ANYWHERE) as server,
        portico.connect(server.address, codec=portico.Lines()) as channel,
    ):
        assert await channel.recv() == "whole"
        await channel.send("go")
        with pytest.raises(ClosedError) as caught:
            await channel.recv()
        assert isinstance(caught.value.__cause__, ConnectionResetError)


@scenario(on=EVERYWHERE)
async def test_gone_before_it_was_accepted() -> None:
    async with portico.serve(echo, ANYWHERE) as server:
        for _ in range(20):
            sock = socket.create_connection(("127.0.0.1", server.address.port))
            sock.send(b"x")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            sock.close()
        async with clients(server.address) as (client,):
            await client.ask(b"served")
            await until(lambda: server.stats.open == 1)
        assert server.stats.handler_errors == 0


# A peer that never reads.


@SECURE
@scenario(on=EVERYWHERE)
async def test_a_peer_that_never_reads_stops_the_sender_and_is_dropped(
    secure: bool, certificates: Certificates
) -> None:
    sent: list[int] = []

    async def flood(stream: portico.Stream) -> None:
        while True:
            await stream.send(b"x" * 65536)
            sent.append(65536)

    limits = Limits(send_timeout=0.3, close_timeout=0.1)
    options = {"send_buffer": 65536}
    tls = certificates.server() if secure else None
    async with portico.serve(flood, ANYWHERE, tls=tls, limits=limits, options=options) as server:
        if secure:
            stream = await portico.connect(server.address, tls=certificates.client(), options={"receive_buffer": 4096})
            await until(lambda: server.stats.closed == 1)
            stream.abort()
        else:
            async with clients(server.address):
                await until(lambda: server.stats.closed == 1)
        assert server.stats.timeouts == 1 and sum(sent) < 24 << 20
        await until(lambda: server.stats.peer_errors == 1)


@scenario(on=["uvloop"])
async def test_a_handler_that_never_reads_stops_the_peer() -> None:
    release = asyncio.Event()

    async def deaf(stream: portico.Stream) -> None:
        await release.wait()
        assert stream.info().queued_receive <= 400_000

    async with portico.serve(deaf, ANYWHERE) as server, clients(server.address) as (client,):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                for _ in range(1000):
                    await client.send(b"x" * 65536)
        release.set()
        assert await client.is_over()
        assert server.stats.handler_errors == 0


# TLS.


@pytest.mark.parametrize(
    "garbage",
    [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\xff\xff" + b"\0" * 100, b"\0" * 20000, b"\x16\x03"],
    ids=["http", "hello", "zeros", "half"],
)
@scenario(on=EVERYWHERE)
async def test_garbage_instead_of_tls(
    garbage: bytes, certificates: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="portico.server")
    limits = Limits(handshake_timeout=0.3)
    async with portico.serve(echo, "tls://127.0.0.1:0", tls=certificates.server(), limits=limits) as server:
        async with clients(server.address) as (client,):
            await client.send(garbage)
            async with asyncio.timeout(3):
                with contextlib.suppress(ConnectionResetError):
                    await client.recv_all()
            assert server.stats.handshakes_failed == 1 and server.stats.handler_errors == 0
            assert str(client.sock.getsockname()[1]) in caplog.text and "TLS" in caplog.text
        async with portico.connect(server.address, tls=certificates.client()) as stream:
            await stream.send(b"secure")
            assert await stream.recv() == b"secure"


@scenario(on=EVERYWHERE)
async def test_garbage_in_the_middle_of_tls(certificates: Certificates) -> None:
    recorder = Recorder()
    async with portico.serve(recorder, "tls://127.0.0.1:0", tls=certificates.server()) as server:
        loop = asyncio.get_running_loop()
        context = ssl.create_default_context(cafile=certificates.ca)

        def spoil() -> None:
            with socket.create_connection(("127.0.0.1", server.address.port)) as sock:
                secure = context.wrap_socket(sock, server_hostname="localhost", do_handshake_on_connect=True)
                secure.send(b"hello")
                os.write(secure.fileno(), b"this is no TLS record at all")
                os.close(secure.detach())

        await asyncio.to_thread(spoil)
        error = await recorder.ended()
        assert isinstance(error, ClosedError) and recorder.received == [b"hello"]
        assert (server.stats.peer_errors, server.stats.handler_errors) == (1, 0)
        await loop.shutdown_default_executor()


@scenario(on=["uvloop"])
async def test_certificates_that_are_expired_or_of_another_host_are_told_apart(certificates: Certificates) -> None:
    import datetime

    past = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    for issue, told in (
        ({"names": ["localhost"], "not_before": past, "not_after": past + datetime.timedelta(days=1)}, "expired"),
        ({"names": ["elsewhere.test"]}, "elsewhere.test|localhost"),
    ):
        names = issue.pop("names")
        tls = portico.TLS(certificate=certificates.issue(*names, **issue))  # type: ignore[arg-type,misc]
        async with portico.serve(echo, "tls://127.0.0.1:0", tls=tls) as server:
            with pytest.raises(portico.ConnectError, match=f"(?s)tls: .*({told})"):
                await portico.connect(f"tls://localhost:{server.address.port}", tls=certificates.client())
            await until(lambda: server.stats.handshakes_failed == 1 and server.stats.open == 0)


@scenario(on=["uvloop"])
async def test_a_certificate_that_cannot_be_read_is_said_before_anything_listens(certificates: Certificates) -> None:
    missing = portico.TLS(certificate=str(certificates.directory / "missing.pem"))
    with pytest.raises(portico.errors.ConfigurationError, match=r"missing\.pem"):
        portico.serve(echo, "tls://127.0.0.1:0", tls=missing)
    (certificates.directory / "broken.pem").write_text("nonsense")
    with pytest.raises(portico.errors.ConfigurationError, match=r"broken\.pem"):
        portico.serve(
            echo, "tls://127.0.0.1:0", tls=portico.TLS(certificate=str(certificates.directory / "broken.pem"))
        )


@scenario(on=["uvloop"])
async def test_changed_certificates_are_taken_up_and_broken_ones_are_not(
    certificates: Certificates, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("portico.transports.tls.CHECK_INTERVAL", 0.0)
    tls = certificates.server()

    async def serial(server: portico.Server) -> str:
        async with portico.connect(server.address, tls=certificates.client()) as stream:
            assert stream.tls is not None and stream.tls.peer_certificate is not None
            return str(stream.tls.peer_certificate["serialNumber"])

    async with (
        portico.serve(echo, "tls://127.0.0.1:0", tls=tls) as server,
        portico.connect(server.address, tls=certificates.client()) as before,
    ):
        first = await serial(server)
        assert await serial(server) == first
        certificates.issue("localhost", "127.0.0.1")
        second = await serial(server)
        assert second != first and tls.reloads == 1
        (certificates.directory / "server.pem").write_text("damaged")
        assert await serial(server) == second and tls.failed_reloads == 1
        assert "old ones stay in use" in caplog.text
        await before.send(b"untouched")
        assert await before.recv() == b"untouched"
