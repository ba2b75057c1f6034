"""socat, ncat, nc and curl at the other end: whole transfers both ways, and half-close with each."""

import asyncio
from pathlib import Path

import pytest
from peers import need_program
from ports import free_port
from server.support import Certificates, certificates, scenario, until

import portico

from .support import answer_after_the_end, connected, exchange, running, sample, transfer, whole_answer

ANYWHERE = "tcp://127.0.0.1:0"
__all__ = ["certificates"]


def client_command(program: str, address: portico.Address) -> list[str]:
    """How to connect standard input and output to `address`, ending this side with the input."""
    match program, address.scheme:
        case "socat", "unix":
            return ["-t10", "-", f"UNIX-CONNECT:{address.path}"]
        case "socat", _:
            return ["-t10", "-", f"TCP:{address.host}:{address.port}"]
        case "ncat", "unix":
            return ["-U", address.path]
        case "ncat", _:
            return [address.host, str(address.port)]
        case _, "unix":
            return ["-N", "-U", address.path]
        case _:
            return ["-N", address.host, str(address.port)]


def server_command(program: str, address: portico.Address, file: Path) -> list[str]:
    """How to take one connection at `address` and send back what comes, its end included."""
    match program, address.scheme:
        case "socat", "unix":
            return [f"UNIX-LISTEN:{address.path}", "EXEC:cat"]
        case _:
            return [f"TCP-LISTEN:{address.port},bind=127.0.0.1,reuseaddr", "EXEC:cat"]


@pytest.mark.parametrize("scheme", ["tcp", "unix"])
@pytest.mark.parametrize("program", ["socat", "ncat", "nc"])
@scenario(timeout=30)
async def test_a_program_sends_all_ends_its_side_and_gets_the_answer(program: str, scheme: str, tmp_path: Path) -> None:
    path = need_program(program)
    address = ANYWHERE if scheme == "tcp" else f"unix:{tmp_path}/server.sock"
    async with portico.serve(answer_after_the_end, address) as server:
        data = sample()
        assert await exchange(path, *client_command(program, server.address), data=data) == whole_answer(data)
        assert server.stats.handler_errors == server.stats.peer_errors == 0


@pytest.mark.parametrize("scheme", ["tcp", "unix"])
@pytest.mark.parametrize("program", ["socat"])
@scenario(on=["uvloop"], timeout=30)
async def test_a_program_serves_and_sends_back_what_it_gets(program: str, scheme: str, tmp_path: Path) -> None:
    path = need_program(program)
    text = f"tcp://127.0.0.1:{free_port()}" if scheme == "tcp" else f"unix:{tmp_path}/peer.sock"
    address = portico.Address.parse(text)
    async with running(path, *server_command(program, address, tmp_path), stdin=asyncio.subprocess.DEVNULL):
        stream = await connected(text)
        assert await transfer(stream, sample()) == sample()
        await stream.close()


async def transfer_whole(stream: portico.Stream, data: bytes) -> None:
    await stream.send(data)
    await stream.flush()


@pytest.mark.parametrize("program", ["nc", "ncat"])
@scenario(on=["uvloop"], timeout=30)
async def test_a_program_listens_and_both_directions_end_by_themselves(program: str) -> None:
    path = need_program(program)
    port = free_port()
    async with running(path, "-l", *(["-N"] if program == "nc" else []), "127.0.0.1", str(port)) as process:
        stream = await connected(f"tcp://127.0.0.1:{port}")
        exchanged = asyncio.create_task(process.communicate(sample(2)))
        if program == "nc":
            assert await transfer(stream, sample(1)) == sample(2)
        else:  # a listening ncat leaves upon the peer's end, whatever it has still to send
            sending = asyncio.create_task(transfer_whole(stream, sample(1)))
            assert await stream.recv_exactly(len(sample(2))) == sample(2)
            await sending
            stream.send_eof()
        out, _ = await exchanged
        assert out == sample(1)
        await stream.close()


@pytest.mark.parametrize("program", ["socat", "ncat"])
@scenario(on=["uvloop"], timeout=30)
async def test_a_program_speaks_tls(program: str, certificates: Certificates) -> None:
    path = need_program(program)
    async with portico.serve(answer_after_the_end, "tls://127.0.0.1:0", tls=certificates.server()) as server:
        port, data = server.address.port, sample(1, 300_000)
        command = {
            "socat": ["-t10", "-", f"OPENSSL:localhost:{port},cafile={certificates.ca},pf=ip4"],
            "ncat": ["--ssl-verify", "--ssl-trustfile", certificates.ca, "localhost", str(port), "-4"],
        }[program]
        async with running(path, *command) as process:
            assert process.stdin is not None and process.stdout is not None
            if program == "ncat":  # it cannot half-close TLS: it ends the connection with its input
                process.stdin.write(data)
                process.stdin.close()
                await asyncio.wait_for(process.wait(), 10)
                await until(lambda: server.stats.bytes_received == len(data))
            else:
                out, error = await asyncio.wait_for(process.communicate(data), 15)
                assert out == whole_answer(data), error
        assert server.stats.handler_errors == 0


async def http(stream: portico.Stream) -> None:
    """Ten lines of HTTP: whatever is asked for, say who you are."""
    head = await stream.recv_until(b"\r\n\r\n")
    size = next(
        (int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")), 0
    )
    body = await stream.recv_exactly(size)
    answer = head.split()[1] + b" " + body
    await stream.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(answer) + answer)


@scenario(timeout=30)
async def test_curl_over_tcp_tls_and_unix(certificates: Certificates, tmp_path: Path) -> None:
    curl = need_program("curl")
    service = portico.Service().listen(ANYWHERE, http).listen(f"unix:{tmp_path}/http.sock", http)
    service.listen("tls://127.0.0.1:0", http, tls=certificates.server(alpn=("http/1.1",)))
    async with portico.serve(service) as server:
        tcp, unix, tls = server.addresses
        upload = ["-s", "-S", "--noproxy", "*", "-H", "Expect:", "--data-binary", "@-"]
        data = sample(1, 500_000)
        assert await exchange(curl, *upload, f"http://127.0.0.1:{tcp.port}/a", data=data) == b"/a " + data
        assert await exchange(curl, *upload, "--unix-socket", unix.path, "http://x/b", data=data) == b"/b " + data
        secure = ["--cacert", certificates.ca, f"https://localhost:{tls.port}/c", "-4"]
        assert await exchange(curl, *upload, *secure, data=data) == b"/c " + data
        assert server.stats.handler_errors == server.stats.handshakes_failed == 0


@scenario(on=["uvloop"], timeout=30)
async def test_curl_as_telnet() -> None:
    curl = need_program("curl")

    async def greet(channel: portico.Channel[str]) -> None:
        await channel.send(f"hello {await channel.recv()}")

    async with portico.serve(greet, ANYWHERE, codec=portico.Lines()) as server:
        out = await exchange(curl, "-s", "--noproxy", "*", f"telnet://127.0.0.1:{server.address.port}", data=b"curl\n")
        assert out == b"hello curl\n"
