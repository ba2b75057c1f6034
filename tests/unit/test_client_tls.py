import asyncio
import datetime
import re
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trustme
from client_kit import accept, listening, on_both_loops

from portico._core import Lines
from portico.address import Address
from portico.client import Retry, connect, is_temporary
from portico.errors import ConfigurationError, ConnectError, TLSError
from portico.transports.connection import Channel
from portico.transports.memory import listen_memory
from portico.transports.tls import TLS

# The peers are asyncio's own TLS servers.


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(autouse=True)
def no_key_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSLKEYLOGFILE", raising=False)


@pytest.fixture
def trusting(authority: trustme.CA) -> TLS:
    return TLS(ca=authority.cert_pem.bytes().decode())


def context_of(leaf: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    leaf.configure_cert(context)
    return context


@asynccontextmanager
async def serving(context: ssl.SSLContext, path: Path | None = None) -> AsyncIterator[Address]:
    """An echo server of asyncio's."""
    tasks = set()

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.current_task())
        try:
            while data := await reader.read(1000):
                writer.write(data)
        except (OSError, ssl.SSLError):
            pass
        writer.close()

    if path is None:
        server = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=context)
        address = Address("tls", "127.0.0.1", server.sockets[0].getsockname()[1])
    else:
        server = await asyncio.start_unix_server(echo, path, ssl=context)
        address = Address("unix", path=str(path))
    try:
        yield address
    finally:
        server.close()
        if tasks:
            await asyncio.wait(tasks)


async def refusal(connecting: Awaitable[object], said: str) -> TLSError:
    """Check the error of a handshake that fails, and return it."""
    with pytest.raises(ConnectError) as caught:
        await connecting
    last = caught.value.attempts[-1]
    assert last.stage == "tls"
    assert isinstance(last.error, TLSError)
    assert last.error.address == last.address
    assert re.sub(r":\d{4,5}\b", ":PORT", str(caught.value)) == f"cannot connect to tls://127.0.0.1:PORT: tls: {said}"
    return last.error


@on_both_loops
async def test_a_secure_stream(authority: trustme.CA, trusting: TLS) -> None:
    context = context_of(authority.issue_cert("127.0.0.1"))
    async with serving(context) as address, connect(address, tls=trusting) as stream:
        await stream.send(b"hello")
        assert await stream.recv_exactly(5) == b"hello"
        assert stream.tls is not None
        assert stream.tls.version == "TLSv1.3"
        assert stream.remote_address == address


@on_both_loops
async def test_tls_settings_make_tcp_secure(authority: trustme.CA, trusting: TLS) -> None:
    async with serving(context_of(authority.issue_cert("localhost"))) as address:
        plain = address.replace(scheme="tcp", host="localhost")
        async with connect(plain, tls=trusting, codec=Lines()) as channel:
            assert type(channel) is Channel
            await channel.send("hello")
            assert await channel.recv() == "hello"
            assert str(channel.remote_address) == str(address)
            assert channel.local_address.scheme == "tls"


@on_both_loops
async def test_tls_over_a_unix_socket(authority: trustme.CA, tmp_path: Path) -> None:
    tls = TLS(ca=authority.cert_pem.bytes().decode(), server_name="room.test")
    context = context_of(authority.issue_cert("room.test"))
    async with serving(context, tmp_path / "here") as address, connect(address, tls=tls) as stream:
        await stream.send(b"hello")
        assert await stream.recv_exactly(5) == b"hello"
        assert stream.remote_address == address


@on_both_loops
async def test_a_certificate_of_another_host(authority: trustme.CA, trusting: TLS) -> None:
    async with serving(context_of(authority.issue_cert("other.test"))) as address:
        error = await refusal(
            connect(address, tls=trusting),
            "TLS failed: the certificate of the server is not for '127.0.0.1'; "
            "connect by a name that it lists, or set server_name= to one",
        )
        assert isinstance(error.__cause__, ssl.SSLCertVerificationError)
        assert not is_temporary(error)


@on_both_loops
async def test_an_expired_certificate(authority: trustme.CA, trusting: TLS) -> None:
    then = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    leaf = authority.issue_cert("127.0.0.1", not_before=then, not_after=then + datetime.timedelta(days=1))
    async with serving(context_of(leaf)) as address:
        await refusal(
            connect(address, tls=trusting),
            "TLS failed: the certificate of the server has expired; renew it, or check the clock of this machine",
        )


@on_both_loops
async def test_an_unknown_authority_and_no_second_try(trusting: TLS) -> None:
    async with serving(context_of(trustme.CA().issue_cert("127.0.0.1"))) as address:
        await refusal(
            connect(address, tls=trusting, retry=Retry()),
            "TLS failed: the certificate of the server is signed by an unknown authority; "
            "if it is the right one, give the certificate of the authority that signed it as ca=",
        )


@on_both_loops
async def test_the_default_settings_verify() -> None:
    async with serving(context_of(trustme.CA().issue_cert("127.0.0.1"))) as address:
        with pytest.raises(ConnectError, match="unknown authority"):
            await connect(address)
        async with connect(address, tls=TLS(verify=False)) as stream:
            assert stream.tls is not None


@on_both_loops
async def test_a_peer_that_speaks_plain_text(trusting: TLS) -> None:
    with listening() as (sock, address):
        connecting = asyncio.ensure_future(
            refusal(
                connect(address.replace(scheme="tls"), tls=trusting),
                "TLS failed: the server does not speak TLS: what it sent is plain text or another protocol; "
                "check the port, connect without TLS, or use STARTTLS if the protocol has it",
            )
        )
        with await accept(sock) as peer:
            peer.send(b"220 mail.test ESMTP\r\n")
            await connecting


@on_both_loops
async def test_a_peer_that_hangs_up_in_the_handshake_is_worth_another_try(trusting: TLS) -> None:
    with listening() as (sock, address):
        connecting = asyncio.ensure_future(
            refusal(
                connect(address.replace(scheme="tls"), tls=trusting),
                "TLS failed: the server hung up in the middle of the handshake; "
                "it may speak no TLS on this port, or want another server_name=",
            )
        )
        with await accept(sock) as peer:
            peer.shutdown(socket.SHUT_WR)
            assert is_temporary(await connecting)


@on_both_loops
async def test_a_peer_that_says_nothing_runs_into_the_deadline(trusting: TLS) -> None:
    with listening() as (_, address), pytest.raises(ConnectError, match=r"within 0\.05 s: tls: timed out"):
        await connect(address.replace(scheme="tls"), tls=trusting, timeout=0.05)


@on_both_loops
async def test_mutual_tls(authority: trustme.CA, tmp_path: Path) -> None:
    context = context_of(authority.issue_cert("127.0.0.1"))
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    mine = authority.issue_cert("me@client.test")
    mine.private_key_and_cert_chain_pem.write_to_path(tmp_path / "me.pem")
    ca = authority.cert_pem.bytes().decode()
    async with serving(context) as address:
        async with connect(address, tls=TLS(ca=ca, certificate=tmp_path / "me.pem")) as stream:
            await stream.send(b"hello")
            assert await stream.recv_exactly(5) == b"hello"
        # TLS 1.3: a server refuses the client only after the client's handshake is done
        async with connect(address, tls=TLS(ca=ca)) as stream:
            with pytest.raises(ConnectionError):
                await stream.recv()


@on_both_loops
async def test_a_file_that_does_not_load_is_told_before_anybody_is_asked(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot read ca"):
        await connect("tls://nosuch.test:443", tls=TLS(ca=tmp_path / "missing.pem"))


@on_both_loops
async def test_a_server_name_that_cannot_be() -> None:
    with listening() as (_, address), pytest.raises(ConfigurationError, match="cannot be sent to a TLS server"):
        await connect(address, tls=TLS(server_name=".x"))


@on_both_loops
async def test_tls_over_memory_reports_its_failure_too(trusting: TLS) -> None:
    from portico._core import Settings, Wire
    from portico.transports.connection import Stream

    def accept_and_hang_up(wire: Wire) -> None:
        Stream(wire, Settings(), scheme="mem").close()

    listener = listen_memory("room", accept_and_hang_up)
    with pytest.raises(ConnectError, match="hung up in the middle of the handshake"):
        await connect("mem:room", tls=TLS(verify=False))
    listener.close()
