"""socat at the other end."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from ports import free_port

from portico.transports.adopting import adopt
from portico.transports.connection import Channel
from portico.transports.datagrams import datagrams
from tests.interop.support import running
from tests.namespaces import Machine, on_a_machine
from tests.peers import need_program
from tests.server.support import LOOPS, NATIVE, run, scenario, until


@contextlib.asynccontextmanager
async def socat(*arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    async with running(need_program("socat"), *arguments) as process:
        yield process


async def line(process: asyncio.subprocess.Process, text: bytes) -> None:
    assert process.stdin is not None
    process.stdin.write(text)
    await process.stdin.drain()


@scenario(NATIVE)
async def test_socat_sends_and_hears_udp() -> None:
    async with datagrams("udp://127.0.0.1:0") as packets:
        async with socat("-", f"UDP:127.0.0.1:{packets.local_address.port}") as process:
            await line(process, b"hello\n")
            packet = await packets.recv()
            assert packet.data == b"hello\n"
            await packets.send_many([b"one\n", b"two\n"], to=packet)
            assert process.stdout is not None
            assert [await process.stdout.readline() for _ in range(2)] == [b"one\n", b"two\n"]


@scenario(NATIVE)
async def test_socat_echoes_unix_packets(tmp_path: Path) -> None:
    path = tmp_path / "echo"
    async with socat(f"UNIX-RECVFROM:{path},fork", "EXEC:cat"), datagrams(f"unixgram:{tmp_path}/here") as packets:
        await until(path.exists)
        for data in (b"one", b"two" * 1000):
            await packets.send(data, to=f"unixgram:{path}")
            assert (await packets.recv()).data == data
    async with datagrams(f"unixgram:{tmp_path}/there") as packets:
        async with socat("-", f"UNIX-SENDTO:{tmp_path}/there,bind={tmp_path}/socat") as process:
            await line(process, b"hello\n")
            packet = await packets.recv()
            assert (packet.data, packet.address.path) == (b"hello\n", f"{tmp_path}/socat")
            await packets.send(b"back\n", to=packet)
            assert process.stdout is not None
            assert await process.stdout.readline() == b"back\n"


@scenario(NATIVE)
async def test_socat_speaks_seqpacket(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
        server.bind(f"{tmp_path}/server")
        server.listen()
        async with socat("-", f"UNIX-CONNECT:{tmp_path}/server,type=5") as process:
            connected, _ = await asyncio.to_thread(server.accept)
            channel: Channel[bytes] = await adopt(connected)
            await line(process, b"hello\n")
            assert await channel.recv() == b"hello\n"
            await channel.send(b"back\n")
            assert process.stdout is not None
            assert await process.stdout.readline() == b"back\n"
            channel.abort()
            await channel.wait_closed()


@pytest.mark.parametrize("loop", LOOPS)
def test_socat_sends_multicast(loop: str) -> None:
    def body(here: Machine, there: Machine) -> None:
        async def main() -> None:
            async with datagrams(f"udp://0.0.0.0:{free_port()}") as packets:
                packets.join("239.1.2.3", interface="eth7")
                to = f"UDP4-DATAGRAM:239.1.2.3:{packets.local_address.port},ip-multicast-if=10.99.0.2"
                async with running(*there.inside(need_program("socat"), "-", to)) as process:
                    await line(process, b"hello all\n")
                    packet = await packets.recv()
                    assert (packet.data, packet.address.host) == (b"hello all\n", "10.99.0.2")
                    assert (packet.local_address.host, packet.interface) == ("239.1.2.3", "eth7")

        run(main, loop)

    on_a_machine(body)
