"""Proxies that others wrote: microsocks, Dante, tinyproxy and ncat, with socat as the TLS in front of one."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from peers import need_program
from ports import free_port
from server.support import Certificates, certificates, scenario

import portico

from .support import answer_after_the_end, connected, sample, transfer, whole_answer

__all__ = ["certificates"]

DANTE = """
logoutput: stderr
internal: 127.0.0.1 port = {port}
external: lo
clientmethod: none
socksmethod: none
user.privileged: root
user.unprivileged: nobody
client pass {{
    from: 127.0.0.1/32 to: 0.0.0.0/0
}}
socks pass {{
    from: 127.0.0.1/32 to: 0.0.0.0/0
    command: connect
}}
"""
TINYPROXY = """
Port {port}
Listen 127.0.0.1
Allow 127.0.0.1
LogLevel Critical
{login}
"""


@contextlib.asynccontextmanager
async def program(*command: str, port: int) -> AsyncIterator[str]:
    """Run a program that listens on `port`, and give `HOST:PORT`; it is told to end, and waited for."""
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        (await connected(f"tcp://127.0.0.1:{port}")).abort()
        yield f"127.0.0.1:{port}"
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await asyncio.wait_for(process.wait(), 10)
        process._transport.close()  # type: ignore[attr-defined]


@contextlib.asynccontextmanager
async def microsocks(*login: str) -> AsyncIterator[str]:
    path, port = need_program("microsocks"), free_port()
    settings = ["-u", login[0], "-P", login[1]] if login else []
    async with program(path, "-i", "127.0.0.1", "-p", str(port), *settings, port=port) as place:
        yield place


@contextlib.asynccontextmanager
async def dante(directory: Path) -> AsyncIterator[str]:
    path, port = need_program("danted"), free_port()
    file = directory / "danted.conf"
    file.write_text(DANTE.format(port=port))
    async with program(path, "-f", str(file), port=port) as place:
        yield place


@contextlib.asynccontextmanager
async def tinyproxy(directory: Path, login: str = "") -> AsyncIterator[str]:
    path, port = need_program("tinyproxy"), free_port()
    file = directory / "tinyproxy.conf"
    file.write_text(TINYPROXY.format(port=port, login=login))
    async with program(path, "-d", "-c", str(file), port=port) as place:
        yield place


@contextlib.asynccontextmanager
async def ncat() -> AsyncIterator[str]:
    path, port = need_program("ncat"), free_port()
    settings = ["-l", "-k", "--proxy-type", "http", "--proxy-auth", "joe:secret", "127.0.0.1", str(port)]
    async with program(path, *settings, port=port) as place:
        yield place


@contextlib.asynccontextmanager
async def tls_front(behind: str, certificates: Certificates) -> AsyncIterator[str]:
    """Take TLS off what comes, and hand it to the proxy `behind`."""
    path, port = need_program("socat"), free_port()
    listen = f"OPENSSL-LISTEN:{port},bind=127.0.0.1,reuseaddr,fork,verify=0,cert={certificates.issue('127.0.0.1')}"
    async with program(path, listen, f"TCP:{behind}", port=port) as place:
        yield place


async def check(server: portico.Server, proxy: object, *, host: str = "127.0.0.1", **settings: object) -> None:
    """Have much sent back through `proxy`."""
    address = server.address.replace(host=host)
    async with portico.connect(address, proxy=proxy, **settings) as stream:  # type: ignore[call-overload]
        assert stream.remote_address == address
        data = sample()[:500_000]

        async def send() -> None:
            for start in range(0, len(data), 10_000):
                await stream.send(data[start : start + 10_000])

        sending = asyncio.create_task(send())
        assert await stream.recv_exactly(len(data)) == data
        await sending


async def echo(stream: portico.Stream) -> None:
    async for data in stream:
        await stream.send(data)


async def refusal(address: object, proxy: str) -> portico.ProxyError:
    """Return what the proxy has against it."""
    with pytest.raises(portico.ConnectError) as caught:
        await portico.connect(str(address), proxy=proxy)
    last = caught.value.attempts[-1]
    assert last.stage == "proxy" and isinstance(last.error, portico.ProxyError)
    assert str(last.address) in str(caught.value) and "wrong" not in str(caught.value)
    return last.error


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
@pytest.mark.parametrize("scheme", ["socks5", "socks5h"])
@scenario(timeout=30)
async def test_microsocks(scheme: str, host: str) -> None:
    async with microsocks() as place, portico.serve(echo, "tcp://127.0.0.1:0") as server:
        await check(server, f"{scheme}://{place}", host=host)
    async with microsocks("joe", "secret") as place, portico.serve(echo, "tcp://127.0.0.1:0") as server:
        await check(server, f"{scheme}://joe:secret@{place}", host=host)
        assert "wants a user and a password" in str(await refusal(server.address, f"{scheme}://{place}"))
        assert "refused the user 'joe'" in str(await refusal(server.address, f"{scheme}://joe:wrong@{place}"))
        error = await refusal(f"tcp://127.0.0.1:{free_port()}", f"{scheme}://joe:secret@{place}")
        assert error.code == 5 and "connection refused" in error.reason


@pytest.mark.parametrize("start", ["socks4://joe@", "socks4://", "socks5://", "socks5h://"])
@scenario(timeout=30)
async def test_dante(start: str, tmp_path: Path) -> None:
    async with dante(tmp_path) as place, portico.serve(echo, "tcp://127.0.0.1:0") as server:
        await check(server, f"{start}{place}")
        await check(server, f"{start}{place}", host="localhost")
        error = await refusal(f"tcp://127.0.0.1:{free_port()}", f"{start}{place}")
        assert error.code == (91 if "4" in start else 5) and "could not reach" in error.reason


@scenario(timeout=30)
async def test_half_close_through_a_proxy_that_knows_it(tmp_path: Path) -> None:
    async with dante(tmp_path) as place, portico.serve(answer_after_the_end, "tcp://127.0.0.1:0") as server:
        stream = await portico.connect(server.address, proxy=f"socks5://{place}")
        assert await transfer(stream, sample()) == whole_answer(sample())
        await stream.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
@scenario(timeout=30)
async def test_tinyproxy(host: str, tmp_path: Path) -> None:
    async with tinyproxy(tmp_path) as place, portico.serve(echo, "tcp://127.0.0.1:0") as server:
        await check(server, f"http://{place}", host=host)
    async with tinyproxy(tmp_path, "BasicAuth joe secret") as place:
        async with portico.serve(echo, "tcp://127.0.0.1:0") as server:
            await check(server, f"http://joe:secret@{place}", host=host)
            assert "wants a user and a password" in str(await refusal(server.address, f"http://{place}"))
            assert "refused the user 'joe'" in str(await refusal(server.address, f"http://joe:wrong@{place}"))
        error = await refusal(f"tcp://127.0.0.1:{free_port()}", f"http://joe:secret@{place}")
        assert error.code is not None and error.code >= 500 and "could not reach" in error.reason


@scenario(timeout=30)
async def test_ncat() -> None:
    async with ncat() as place, portico.serve(echo, "tcp://127.0.0.1:0") as server:
        await check(server, f"http://joe:secret@{place}")
        assert "wants a user and a password" in str(await refusal(server.address, f"http://{place}"))
        assert "refused the user 'joe'" in str(await refusal(server.address, f"http://joe:wrong@{place}"))


@pytest.mark.parametrize("to_target", ["tcp", "tls"])
@scenario(timeout=30)
async def test_tls_to_the_proxy_and_through_it(to_target: str, certificates: Certificates, tmp_path: Path) -> None:
    tls = certificates.server() if to_target == "tls" else None
    client = {"tls": certificates.client()} if to_target == "tls" else {}
    async with portico.serve(echo, f"{to_target}://127.0.0.1:0", tls=tls) as server:
        async with (
            microsocks() as socks,
            tls_front(socks, certificates) as socks_front,
            tinyproxy(tmp_path) as http,
            tls_front(http, certificates) as http_front,
        ):
            trust = certificates.client()
            one = portico.Proxy.parse(f"socks5h+tls://{socks_front}", tls=trust)
            other = portico.Proxy.parse(f"https://{http_front}", tls=trust)
            for proxy in (one, other, [one, other], [other, one]):
                await check(server, proxy, **client)


@scenario(timeout=30)
async def test_a_chain_of_three_with_a_target_in_tls(certificates: Certificates, tmp_path: Path) -> None:
    async with (
        microsocks("joe", "secret") as first,
        tinyproxy(tmp_path) as second,
        dante(tmp_path) as third,
        portico.serve(echo, "tls://127.0.0.1:0", tls=certificates.server()) as server,
    ):
        chain = [f"socks5h://joe:secret@{first}", f"http://{second}", f"socks4://{third}"]
        await check(server, chain, tls=certificates.client())
        with pytest.raises(portico.ConnectError) as caught:
            await portico.connect(server.address, proxy=[*chain[:2], f"socks5://127.0.0.1:{free_port()}"])
        last = caught.value.attempts[-1]
        assert str(last.address) == f"tcp://{second}" and "could not reach" in str(last.error)


@scenario(timeout=30)
async def test_a_proxy_that_ends_takes_the_connection_with_it() -> None:
    async with portico.serve(echo, "tcp://127.0.0.1:0") as server:
        async with microsocks() as place:
            stream = await portico.connect(server.address, proxy=f"socks5://{place}")
            await stream.send(b"hello")
            assert await stream.recv_exactly(5) == b"hello"
        with pytest.raises((portico.ClosedError, portico.EndOfStream)):
            await stream.recv_exactly(1)
        await stream.close()
