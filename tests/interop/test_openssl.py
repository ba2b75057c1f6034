"""OpenSSL's own client and server: both versions of TLS, client certificates, ALPN, SNI, and how connections end."""

import asyncio

import pytest
from peers import need_program
from ports import free_port
from server.support import Certificates, certificates, scenario

import portico

from .support import answer_after_the_end, connected, running, sample

VERSIONS = {"1.2": "-tls1_2", "1.3": "-tls1_3"}
BOTH_VERSIONS = pytest.mark.parametrize("version", VERSIONS)
__all__ = ["certificates"]


@BOTH_VERSIONS
@scenario(timeout=30)
async def test_s_client_with_certificate_alpn_and_sni(version: str, certificates: Certificates) -> None:
    openssl = need_program("openssl")
    seen: list[portico.TLSInfo | None] = []

    async def echo_once(stream: portico.Stream) -> None:
        seen.append(stream.tls)
        await stream.send(await stream.recv_until(b"\n") + b", too\n")

    mine = certificates.issue("client.test", file="client.pem")
    tls = certificates.server(client_authority=certificates.ca, alpn=("portico", "other"))
    async with portico.serve(echo_once, "tls://127.0.0.1:0", tls=tls) as server:
        options = ["-quiet", "-verify_return_error", "-CAfile", certificates.ca, "-servername", "localhost"]
        options += ["-cert", mine, "-key", mine, "-alpn", "other", VERSIONS[version]]
        async with running(openssl, "s_client", *options, "-connect", f"127.0.0.1:{server.address.port}") as process:
            assert process.stdin is not None and process.stdout is not None
            process.stdin.write(b"hello\n")
            assert await process.stdout.readline() == b"hello, too\n"
            assert await process.stdout.read() == b""  # it ends upon our close_notify
            assert await asyncio.wait_for(process.wait(), 10) == 0
        (info,) = seen
        assert info is not None and info.version == f"TLSv{version}"
        assert (info.alpn, info.server_name) == ("other", "localhost")
        assert info.peer_certificate is not None and "client.test" in str(info.peer_certificate["subjectAltName"])
        async with running(
            openssl,
            "s_client",
            "-quiet",
            "-CAfile",
            certificates.ca,
            VERSIONS[version],
            "-connect",
            f"127.0.0.1:{server.address.port}",
        ) as process:
            await asyncio.wait_for(process.communicate(b"x\n"), 10)  # without a certificate
        assert len(seen) == 1 and server.stats.handshakes_failed == 1


@BOTH_VERSIONS
@scenario(timeout=30)
async def test_s_server_sends_much_and_ends(version: str, certificates: Certificates) -> None:
    openssl = need_program("openssl")
    port, mine = free_port(), certificates.issue("localhost", "127.0.0.1")
    options = ["-quiet", "-naccept", "1", "-alpn", "portico", "-cert", mine, "-key", mine, VERSIONS[version]]
    async with running(openssl, "s_server", *options, "-accept", f"127.0.0.1:{port}") as process:
        assert process.stdin is not None and process.stdout is not None
        stream = await connected(f"tls://127.0.0.1:{port}", tls=certificates.client(alpn=("portico",)))
        assert stream.tls is not None and (stream.tls.version, stream.tls.alpn) == (f"TLSv{version}", "portico")
        data = sample(3, 1_000_000)
        await stream.send(data)
        assert await asyncio.wait_for(process.stdout.readexactly(len(data)), 10) == data
        process.stdin.write(sample(4, 1_000_000))
        assert await stream.recv_exactly(1_000_000) == sample(4, 1_000_000)
        stream.send_eof()
        assert await asyncio.wait_for(stream.recv(), 10) == b""  # it answers our close_notify
        await stream.close()


@scenario(timeout=30)
async def test_a_peer_that_leaves_without_close_notify_is_told_apart(certificates: Certificates) -> None:
    openssl = need_program("openssl")
    ends: list[BaseException | None] = []

    async def handler(stream: portico.Stream) -> None:
        try:
            async for _ in stream:
                await stream.send(b"got it\n")
            ends.append(None)
        except portico.ClosedError as error:
            ends.append(error)

    async with portico.serve(handler, "tls://127.0.0.1:0", tls=certificates.server()) as server:
        command = ["s_client", "-quiet", "-CAfile", certificates.ca, "-connect", f"127.0.0.1:{server.address.port}"]
        for _ in range(2):
            async with running(openssl, *command) as process:
                assert process.stdin is not None and process.stdout is not None
                process.stdin.write(b"hello\n")
                assert await process.stdout.readline() == b"got it\n"
                process.kill()
                await process.wait()
        async with asyncio.timeout(5):
            while len(ends) < 2:
                await asyncio.sleep(0.005)
    assert all(isinstance(each, portico.ClosedError) and "close_notify" in str(each) for each in ends)


@BOTH_VERSIONS
@scenario(timeout=30)
async def test_an_answer_after_the_peers_close_notify(version: str, certificates: Certificates) -> None:
    """Half-close over TLS, which the programs cannot do with 1.3: here Portico is at both ends."""
    tls = certificates.server(minimum_version=version)
    async with (
        portico.serve(answer_after_the_end, "tls://127.0.0.1:0", tls=tls) as server,
        portico.connect(server.address, tls=certificates.client()) as stream,
    ):
        await stream.send(b"question")
        stream.send_eof()
        assert (await stream.recv_until(b"\n")) and await stream.recv_exactly(8) == b"question"
        assert await stream.recv() == b""
