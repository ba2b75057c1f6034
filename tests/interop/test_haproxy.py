"""HAProxy before and behind: PROXY headers of both versions both ways, its health checks, TLS; and curl's header."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Literal

import pytest
from peers import need_program
from ports import free_port
from server.support import Certificates, certificates, scenario, until

import portico
from portico import Address, ProxyHeader
from portico.protocols.proxy_header import TLV

from .support import answer_after_the_end, connected, exchange, running, sample, transfer, whole_answer

ANYWHERE = "tcp://127.0.0.1:0"
CLIENT, WANTED = Address.parse("tcp://203.0.113.5:1000"), Address.parse("tcp://198.51.100.7:443")
__all__ = ["certificates"]

CONFIGURATION = """
global
    {globals}
defaults
    mode tcp
    timeout connect 5s
    timeout client 20s
    timeout server 20s
listen relay
    bind {bind}
    {rules}
    server portico {server}
"""


@contextlib.asynccontextmanager
async def haproxy(directory: Path, bind: str, server: str, *rules: str, globals: str = "") -> AsyncIterator[Address]:
    """Run HAProxy: what it takes at a port, with the settings `bind`, goes on to `server`."""
    program = need_program("haproxy")
    port = free_port()
    file = directory / "haproxy.cfg"
    text = CONFIGURATION.format(
        bind=f"127.0.0.1:{port} {bind}", server=server, rules="\n    ".join(rules), globals=globals
    )
    file.write_text(text)
    async with running(program, "-db", "-q", "-f", str(file), stdin=asyncio.subprocess.DEVNULL) as process:
        address = Address("tcp", "127.0.0.1", port)
        probing = asyncio.create_task(is_listening(address))
        died = asyncio.create_task(process.wait())
        await asyncio.wait([probing, died], return_when=asyncio.FIRST_COMPLETED, timeout=10)
        assert probing.done(), (await process.stderr.read()).decode() if died.done() and process.stderr else "no answer"
        try:
            yield address
        finally:
            process.kill()
            await died


async def is_listening(address: Address) -> None:
    stream = await connected(str(address))
    stream.abort()
    await stream.wait_closed()


class Guests:
    """A handler that keeps the connections of clients, and answers to each once it has ended its side."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    async def __call__(self, stream: portico.Stream) -> None:
        self.seen.append(stream)
        await answer_after_the_end(stream)


VERSIONS: dict[str, Literal[1, 2]] = {"send-proxy": 1, "send-proxy-v2": 2}


@pytest.mark.parametrize("word", VERSIONS)
@scenario(timeout=40)
async def test_haproxy_tells_who_the_client_is(word: str, tmp_path: Path) -> None:
    guests = Guests()
    async with portico.serve(guests, ANYWHERE, proxied_by=["loopback"]) as server:
        async with haproxy(tmp_path, "", f"127.0.0.1:{server.address.port} {word}") as front:
            await until(lambda: server.stats.open == 0)
            guests.seen.clear()
            stream = await portico.connect(front, source="127.0.0.9")
            client, data = stream.local_address, sample(1, 300_000)
            assert await transfer(stream, data) == whole_answer(data)
            await stream.close()
            (seen,) = guests.seen
            assert (seen.remote_address, seen.local_address) == (client, front)
            assert seen.proxy_header == ProxyHeader(VERSIONS[word], source=client, destination=front)
    assert server.stats.proxy_headers_failed == server.stats.handler_errors == 0


@pytest.mark.parametrize("word", VERSIONS)
@scenario(timeout=40)
async def test_tls_goes_through_haproxy(word: str, tmp_path: Path, certificates: Certificates) -> None:
    guests = Guests()
    settings = {"tls": certificates.server(), "proxied_by": ["loopback"]}
    async with portico.serve(guests, "tls://127.0.0.1:0", **settings) as server:
        async with haproxy(tmp_path, "", f"127.0.0.1:{server.address.port} {word}") as front:
            await until(lambda: server.stats.open == 0)
            stream = await portico.connect(front.replace(scheme="tls"), tls=certificates.client())
            client, data = stream.local_address, sample(1, 300_000)
            assert await transfer(stream, data) == whole_answer(data)
            await stream.close()
            (seen,) = guests.seen
            assert (seen.remote_address, seen.local_address) == (client, front.replace(scheme="tls"))


@scenario(timeout=40)
async def test_what_haproxy_knows_of_the_clients_tls_is_told(tmp_path: Path, certificates: Certificates) -> None:
    guests = Guests()
    certificate = certificates.issue("localhost", "127.0.0.1")
    options = "proxy-v2-options ssl,cert-cn,ssl-cipher,cert-key,cert-sig,authority,crc32c,unique-id"
    async with portico.serve(guests, ANYWHERE, proxied_by=["loopback"]) as server:
        back = f"127.0.0.1:{server.address.port} send-proxy-v2 {options}"
        rule = "unique-id-format number-%pid"
        async with haproxy(tmp_path, f"ssl crt {certificate} alpn echo", back, rule) as front:
            await until(lambda: server.stats.open == 0)
            guests.seen.clear()
            tls = portico.TLS(ca=certificates.ca, server_name="localhost", alpn=("echo",))
            stream = await portico.connect(front.replace(scheme="tls"), tls=tls)
            assert stream.tls is not None
            assert await transfer(stream, b"hello") == whole_answer(b"hello")
            header: ProxyHeader = guests.seen[0].proxy_header
            assert header.authority == "localhost" and header.alpn == b"echo"
            assert header.crc32c is not None and (header.unique_id or b"").startswith(b"number-")
            assert header.ssl is not None and header.ssl.client == 1 and not header.ssl.verified
            assert (header.ssl.version, header.ssl.cipher) == (stream.tls.version, stream.tls.cipher)
            assert header.ssl.signature_algorithm and header.ssl.key_algorithm and header.ssl.common_name is None
            await stream.close()


@pytest.mark.parametrize("secure", [False, True], ids=["tcp", "tls"])
@scenario(timeout=40)
async def test_health_checks_are_answered(secure: bool, tmp_path: Path, certificates: Certificates) -> None:
    """HAProxy's check asks and waits for the answer; it comes with LOCAL, from an address that `allow` knows not."""
    checks: list[portico.Stream] = []

    async def handler(stream: portico.Stream) -> None:
        assert stream.proxy_header is not None
        if stream.proxy_header.local:
            checks.append(stream)
            await stream.recv_until(b"\n")
            await stream.send(b"alive\n")

    settings: dict[str, Any] = {"proxied_by": ["loopback"], "allow": ["203.0.113.0/24"]}
    limits = portico.Limits(max_per_address=1, trust_loopback=False)
    if secure:
        settings["tls"] = certificates.server()
    async with portico.serve(handler, ANYWHERE, limits=limits, **settings) as server:
        back = f"127.0.0.1:{server.address.port} send-proxy-v2 check inter 50ms"
        back += f" check-ssl verify required ca-file {certificates.ca} verifyhost localhost" if secure else ""
        rules = ["option tcp-check", r"tcp-check send health\n", "tcp-check expect string alive"]
        socket = tmp_path / "admin.sock"
        async with haproxy(tmp_path, "", back, *rules, globals=f"stats socket {socket}"):
            await until(lambda: len(checks) >= 5, 10)
            admin = await portico.connect(f"unix:{socket}")
            await admin.send(b"show stat\n")
            table = b"".join([data async for data in admin]).decode()
            await admin.close()
            (row,) = [line for line in table.splitlines() if line.startswith("relay,portico,")]
            assert ",UP," in row and "L7OK," in row  # behind a star while the next check is on its way
        assert all(each.remote_address.host == "127.0.0.1" for each in checks)
        assert server.stats.proxy_headers_failed == server.stats.handler_errors == server.stats.rejected_address == 0


HEADERS = {
    "v1": ProxyHeader(1, source=CLIENT, destination=WANTED),
    "v1-tcp6": ProxyHeader(1, source=Address("tcp", "2001:db8::5", 1), destination=Address("tcp", "2001:db8::7", 2)),
    "v2": ProxyHeader(source=CLIENT, destination=WANTED),
    "v2-tcp6": ProxyHeader(source=Address("tcp", "2001:db8::5", 1), destination=Address("tcp", "2001:db8::7", 2)),
    "v2-tlvs": ProxyHeader(
        source=CLIENT, destination=WANTED, tlvs=((TLV.CRC32C, b""), (TLV.UNIQUE_ID, b"x1"), (TLV.AUTHORITY, b"a.b"))
    ),
    "local": ProxyHeader(local=True),
    "unknown": ProxyHeader(1),
}


@pytest.mark.parametrize("secure", [False, True], ids=["tcp", "tls"])
@pytest.mark.parametrize("name", HEADERS)
@scenario(on=["uvloop"], timeout=40)
async def test_haproxy_understands_our_header(
    name: str, secure: bool, tmp_path: Path, certificates: Certificates
) -> None:
    """It hands on what it understood in a header of its own; TLS is spoken with it, behind the first header."""
    guests = Guests()
    header = HEADERS[name]
    bind = "accept-proxy" + (f" ssl crt {certificates.issue('localhost', '127.0.0.1')}" if secure else "")
    async with portico.serve(guests, ANYWHERE, proxied_by=["loopback"]) as server:
        async with haproxy(tmp_path, bind, f"127.0.0.1:{server.address.port} send-proxy-v2") as front:
            tls = certificates.client() if secure else None
            stream = await portico.connect(front, proxy_header=header, tls=tls)
            assert await transfer(stream, b"hello") == whole_answer(b"hello")
            (seen,) = guests.seen
            if header.source is None:
                assert seen.remote_address.port == stream.local_address.port
            else:
                assert (seen.remote_address, seen.local_address) == (header.source, header.destination)
            await stream.close()


@pytest.mark.parametrize("version", ["v1", "v2"])
@scenario(on=["uvloop"], timeout=40)
async def test_a_relay_of_ours_keeps_the_client_through_haproxy(version: Literal["v1", "v2"], tmp_path: Path) -> None:
    """Client, our relay, HAProxy, server: each tells the next of the client."""
    guests = Guests()
    async with portico.serve(guests, ANYWHERE, proxied_by=["loopback"]) as server:
        back = f"127.0.0.1:{server.address.port} send-proxy{'-v2' if version == 'v2' else ''}"
        async with haproxy(tmp_path, "accept-proxy", back) as front:

            async def relay(near: portico.Stream) -> None:
                header = ProxyHeader.of(near, 1 if version == "v1" else 2)
                async with portico.connect(front, proxy_header=header) as far:
                    asked = b"".join([data async for data in near])
                    await near.send(await transfer(far, asked))

            async with portico.serve(relay, ANYWHERE) as first:
                stream = await portico.connect(first.address, source="127.0.0.7")
                assert await transfer(stream, b"hello") == whole_answer(b"hello")
                (seen,) = guests.seen
                assert (seen.remote_address, seen.local_address) == (stream.local_address, first.address)
                await stream.close()


@scenario(timeout=30)
async def test_haproxy_refuses_what_we_send_without_a_header(tmp_path: Path) -> None:
    async with portico.serve(answer_after_the_end, ANYWHERE, proxied_by=["loopback"]) as server:
        back = f"127.0.0.1:{server.address.port} send-proxy"
        async with haproxy(tmp_path, "accept-proxy", back) as front:
            stream = await portico.connect(front)
            await stream.send(b"GET / HTTP/1.1\r\n\r\n")
            with contextlib.suppress(portico.ClosedError):
                assert await stream.recv() == b""
            await stream.close()
    assert server.stats.accepted == 0


async def http(stream: portico.Stream) -> None:
    """Say who asks."""
    await stream.recv_until(b"\r\n\r\n")
    answer = f"{stream.remote_address} {stream.local_address} {stream.proxy_header.version}".encode()  # type: ignore[union-attr]
    await stream.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(answer) + answer)


@pytest.mark.parametrize("scheme", ["http", "https"])
@scenario(timeout=30)
async def test_curl_sends_a_header(scheme: str, certificates: Certificates) -> None:
    curl = need_program("curl")
    tls = certificates.server() if scheme == "https" else None
    async with portico.serve(http, ANYWHERE, tls=tls, proxied_by=["loopback"]) as server:
        port = server.address.port
        options = ["-s", "-S", "--noproxy", "*", "--haproxy-protocol", "--local-port", "20000-40000", "-4"]
        options += ["--cacert", certificates.ca, "-w", " %{local_ip}:%{local_port}"]
        told = (await exchange(curl, *options, f"{scheme}://localhost:{port}/", data=b"")).decode()
        scheme = "tls" if tls else "tcp"
        remote, local, version, client = told.split()
        assert (remote, local, version) == (f"{scheme}://{client}", str(server.address), "1")
