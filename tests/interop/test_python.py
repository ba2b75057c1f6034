"""Python's own asyncio, ssl and socket at the other end, as client and as server."""

import asyncio
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest
from server.support import Certificates, certificates, scenario

import portico

from .support import answer_after_the_end, sample, transfer, whole_answer

SCHEMES = pytest.mark.parametrize("scheme", ["tcp", "unix", "tls", "tls over unix"])
__all__ = ["certificates"]


def where(scheme: str, directory: Path) -> str:
    return f"unix:{directory}/python.sock" if "unix" in scheme else "tcp://127.0.0.1:0"


def contexts(certificates: Certificates) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    server, client = (
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH),
        ssl.create_default_context(cafile=certificates.ca),
    )
    server.load_cert_chain(certificates.issue("localhost", "127.0.0.1", file="python.pem"))
    return server, client


async def take_all_then_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """The counterpart of `answer_after_the_end`; over TLS the size says where the end is."""
    size = int(await reader.readline())
    data = await reader.readexactly(size)
    writer.write(whole_answer(data))
    await writer.drain()
    writer.close()
    await writer.wait_closed()


async def sized_answer(stream: portico.Stream) -> None:
    data = await stream.recv_exactly(int(await stream.recv_until(b"\n")))
    await stream.send(whole_answer(data))


@SCHEMES
@scenario(timeout=30)
async def test_asyncio_streams_as_client(scheme: str, certificates: Certificates, tmp_path: Path) -> None:
    secure = scheme.startswith("tls")
    tls = certificates.server() if secure else None
    _, context = contexts(certificates)
    settings: dict[str, Any] = {"ssl": context, "server_hostname": "localhost"} if secure else {}

    async def answer_and_wait(stream: portico.Stream) -> None:
        await sized_answer(stream)
        await stream.recv()  # uvloop's TLS loses what it has not read when close_notify and FIN come together

    async with portico.serve(answer_and_wait, where(scheme, tmp_path), tls=tls) as server:
        if server.address.scheme == "unix":
            reader, writer = await asyncio.open_unix_connection(server.address.path, **settings)
        else:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.address.port, **settings)
        data = sample()
        writer.write(b"%d\n" % len(data) + data)
        await writer.drain()
        answer = whole_answer(data)
        assert await asyncio.wait_for(reader.readexactly(len(answer)), 20) == answer
        writer.close()
        await writer.wait_closed()
        assert server.stats.handler_errors == 0


@SCHEMES
@scenario(timeout=30)
async def test_asyncio_streams_as_server(scheme: str, certificates: Certificates, tmp_path: Path) -> None:
    secure = scheme.startswith("tls")
    context, _ = contexts(certificates)
    settings: dict[str, Any] = {"ssl": context} if secure else {}
    if "unix" in scheme:
        server = await asyncio.start_unix_server(take_all_then_answer, f"{tmp_path}/python.sock", **settings)
        address = f"unix:{tmp_path}/python.sock"
    else:
        server = await asyncio.start_server(take_all_then_answer, "127.0.0.1", 0, **settings)
        address = f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    tls = certificates.client(server_name="localhost") if secure else None
    async with portico.connect(address, tls=tls) as stream:
        data = sample()
        await stream.send(b"%d\n" % len(data) + data)
        assert b"".join([chunk async for chunk in stream]) == whole_answer(data)
    server.close()
    await server.wait_closed()


@pytest.mark.parametrize("scheme", ["tcp", "unix"])
@scenario(timeout=30)
async def test_half_close_with_plain_sockets(scheme: str, tmp_path: Path) -> None:
    def client(address: portico.Address) -> bytes:
        with socket.socket(address.family) as sock:
            sock.settimeout(20)
            sock.connect(address.sockaddr)
            sock.sendall(sample())
            sock.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: sock.recv(65536), b""))

    async with portico.serve(answer_after_the_end, where(scheme, tmp_path)) as server:
        assert await asyncio.to_thread(client, server.address) == whole_answer(sample())
    await asyncio.get_running_loop().shutdown_default_executor()


@pytest.mark.parametrize("scheme", ["tcp", "unix"])
@scenario(timeout=30)
async def test_half_close_with_a_plain_server(scheme: str, tmp_path: Path) -> None:
    family = socket.AF_INET if scheme == "tcp" else socket.AF_UNIX
    with socket.socket(family) as listening:
        listening.bind(("127.0.0.1", 0) if scheme == "tcp" else f"{tmp_path}/python.sock")
        listening.listen()
        listening.settimeout(20)

        def serve() -> None:
            sock, _ = listening.accept()
            with sock:
                sock.settimeout(20)
                data = b"".join(iter(lambda: sock.recv(65536), b""))
                sock.sendall(whole_answer(data))

        serving = asyncio.create_task(asyncio.to_thread(serve))
        address = portico.Address.from_sockaddr(scheme, family, listening.getsockname())
        async with portico.connect(address) as stream:
            assert await transfer(stream, sample()) == whole_answer(sample())
        await serving
    await asyncio.get_running_loop().shutdown_default_executor()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@scenario(timeout=30)
async def test_ssl_sockets_end_with_close_notify_both_ways(version: ssl.TLSVersion, certificates: Certificates) -> None:
    _, context = contexts(certificates)
    context.minimum_version = context.maximum_version = version

    def client(port: int) -> bytes:
        with (
            socket.create_connection(("127.0.0.1", port), timeout=20) as sock,
            context.wrap_socket(sock, server_hostname="localhost", suppress_ragged_eofs=False) as secure,
        ):
            data = sample()
            secure.sendall(b"%d\n" % len(data) + data)
            answer = b"".join(iter(lambda: secure.recv(65536), b""))  # an end without close_notify would raise
            secure.unwrap()
            return answer

    async with portico.serve(sized_answer, "tls://127.0.0.1:0", tls=certificates.server()) as server:
        assert await asyncio.to_thread(client, server.address.port) == whole_answer(sample())
        assert server.stats.peer_errors == server.stats.handler_errors == 0
    await asyncio.get_running_loop().shutdown_default_executor()
