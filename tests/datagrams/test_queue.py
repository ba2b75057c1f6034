"""The queue of received packets is bounded, and what does not fit is counted; senders wait for room."""

import asyncio
import socket
import threading
import time
import tracemalloc
from pathlib import Path

import pytest

import portico
from portico.transports.datagrams import datagrams
from tests.core.support import received
from tests.datagrams.support import fallback, taken, udp
from tests.server.support import EVERYWHERE, NATIVE, scenario, until


def send_numbers(address: portico.Address, count: int, *, size: int = 4) -> None:
    with udp() as plain:
        for number in range(count):
            plain.sendto(number.to_bytes(4, "big").ljust(size, b"."), address.sockaddr)


def number_of(packet: portico.transports.datagrams.Packet) -> int:
    return int.from_bytes(packet.data[:4], "big")


@scenario(EVERYWHERE)
async def test_the_newest_are_dropped_if_wanted() -> None:
    async with datagrams("udp://127.0.0.1:0", max_packets=10, when_full="drop-new") as packets:
        send_numbers(packets.local_address, 100)
        await until(lambda: packets.stats.packets_received == 100)
        assert packets.stats.dropped == 90
        assert [number_of(each) for each in await taken(packets, 10)] == list(range(10))
        send_numbers(packets.local_address, 1)
        assert number_of(await packets.recv()) == 0


@scenario(EVERYWHERE)
async def test_the_oldest_are_dropped_if_wanted() -> None:
    async with datagrams("udp://127.0.0.1:0", max_packets=10, when_full="drop-old") as packets:
        send_numbers(packets.local_address, 100)
        await until(lambda: packets.stats.packets_received == 100)
        assert packets.stats.dropped == 90
        assert [number_of(each) for each in await taken(packets, 10)] == list(range(90, 100))


@scenario(EVERYWHERE)
async def test_bytes_count_however_many_small_packets_waited_before() -> None:
    for policy in ("drop-new", "drop-old"):
        async with datagrams("udp://127.0.0.1:0", read_buffer=100_000, when_full=policy) as packets:
            send_numbers(packets.local_address, 200)
            await until(lambda p=packets: p.stats.packets_received == 200)
            for count in range(1, 6):
                send_numbers(packets.local_address, 4, size=40_000)
                await until(lambda p=packets, c=count: p.stats.packets_received == 200 + 4 * c)
                assert packets.queued[0] < 100_000 + 40_064
            assert packets.stats.dropped > 10


@scenario(EVERYWHERE)
async def test_a_full_queue_leaves_packets_to_the_kernel_which_counts_what_it_drops() -> None:
    options = {"receive_buffer": 100_000}
    async with datagrams("udp://127.0.0.1:0", max_packets=100, options=options, gro=False) as packets:
        sent = 5000
        thread = threading.Thread(target=send_numbers, args=(packets.local_address, sent), kwargs={"size": 500})
        thread.start()
        await until(lambda: not thread.is_alive())
        thread.join()
        await asyncio.sleep(0)
        assert packets.queued[0] < 200 * 600
        seen = []
        while packets.queued[0] or packets.info().kernel_receive_queue:
            seen.append(number_of(await packets.recv()))
        assert seen == sorted(set(seen))
        assert 100 <= len(seen) < sent
        assert packets.stats.dropped == 0
        if not fallback():
            assert len(seen) + packets.stats.dropped_by_kernel == sent


@scenario(NATIVE, timeout=40)
@pytest.mark.parametrize("when_full", ["pause", "drop-new", "drop-old"])
@pytest.mark.parametrize("segment", [0, 100])
async def test_in_a_flood_nothing_is_lost_uncounted_and_memory_is_bounded(when_full: str, segment: int) -> None:
    size, count, rounds = (segment * 60, 60, 2000) if segment else (700, 1, 60_000)

    def flood(address: portico.Address) -> None:
        with udp() as plain:
            if segment:
                plain.setsockopt(socket.SOL_UDP, 103, segment)
            plain.setblocking(True)
            for _ in range(rounds):
                plain.sendto(bytes(size), address.sockaddr)

    async with datagrams("udp://127.0.0.1:0", max_packets=500, read_buffer=1 << 20, when_full=when_full) as packets:
        tracemalloc.start()
        thread = threading.Thread(target=flood, args=(packets.local_address,))
        thread.start()
        got = 0
        try:
            while thread.is_alive() or packets.queued[0] or packets.info().kernel_receive_queue:
                try:
                    async with asyncio.timeout(0.05):
                        packet = await packets.recv()
                        assert len(packet.data) == (segment or size)
                        got += 1
                except TimeoutError:
                    continue
                if not got % 50:
                    await asyncio.sleep(0.002)  # a slow reader
            assert tracemalloc.get_traced_memory()[1] < 12 << 20
        finally:
            thread.join()
            tracemalloc.stop()
        stats = packets.stats
        assert got + stats.dropped == stats.packets_received
        if segment:  # the kernel counts what GRO has joined as one
            assert got + stats.dropped + stats.dropped_by_kernel <= rounds * count
            assert got + stats.dropped + stats.dropped_by_kernel * count >= rounds * count
        else:
            assert got + stats.dropped + stats.dropped_by_kernel == rounds


@scenario(EVERYWHERE)
async def test_a_slow_reader_makes_the_sender_wait_and_costs_no_time(tmp_path: Path) -> None:
    path = str(tmp_path / "slow")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as slow:
        slow.bind(path)
        async with datagrams(f"unixgram:{tmp_path}/sender", high_water=100_000, max_unsent=300_000) as packets:
            sent = 0
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3):
                    while True:
                        await packets.send(sent.to_bytes(4, "big") * 1000, to=f"unixgram:{path}")
                        sent += 1
            assert 100_000 < packets.queued[1] <= 104_000 + 4000
            start = time.process_time()
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(asyncio.ensure_future(flushed(packets)), 0.5)
            assert time.process_time() - start < 0.15
            with pytest.raises(portico.LimitError, match="max_unsent"):
                while True:
                    packets.send((sent + 1).to_bytes(4, "big") * 1000, to=f"unixgram:{path}")
                    sent += 1
            assert packets.queued[1] <= 300_000 + 4000
            waiting = asyncio.create_task(flushed(packets))
            slow.setblocking(False)
            heard: list[int] = []
            while not waiting.done() or len(heard) <= sent:
                try:
                    heard.append(int.from_bytes(slow.recv(4000)[:4], "big"))
                except BlockingIOError:
                    await asyncio.sleep(0.001)
            assert heard == list(range(sent + 1))
            assert packets.queued[1] == 0


async def flushed(packets: portico.transports.datagrams.Datagrams) -> None:
    await packets.flush()


@scenario(EVERYWHERE)
async def test_closing_sends_what_waits_or_gives_up_in_time(tmp_path: Path) -> None:
    path = str(tmp_path / "slow")
    for reads in (True, False):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as slow:
            slow.bind(path)
            slow.setblocking(False)
            packets = await datagrams(f"unixgram:{tmp_path}/sender", close_timeout=5 if reads else 0.2)
            for number in range(100):
                packets.send(bytes([number]) * 2000, to=f"unixgram:{path}")
            over = asyncio.ensure_future(closed(packets))
            got = []
            while not over.done():
                await asyncio.sleep(0.001)
                while reads:
                    try:
                        got.append(slow.recv(2000)[0])
                    except BlockingIOError:
                        break
            assert not reads or got == list(range(100))
        (tmp_path / "slow").unlink()


async def closed(packets: portico.transports.datagrams.Datagrams) -> None:
    await packets.close()


@scenario(EVERYWHERE)
async def test_the_readers_turn_comes_though_packets_never_end() -> None:
    """Two sockets that answer each other do not keep the loop from anything else."""
    async with datagrams("udp://127.0.0.1:0") as one, datagrams("udp://127.0.0.1:0") as other:

        async def bounce(packets: portico.transports.datagrams.Datagrams) -> None:
            async for packet in packets:
                await packets.send(packet.data, to=packet)

        tasks = [asyncio.create_task(bounce(each)) for each in (one, other)]
        for number in range(20):
            one.send(bytes([number]), to=other.local_address)
        loop = asyncio.get_running_loop()
        start = loop.time()
        for _ in range(10):
            await asyncio.sleep(0.01)
        assert loop.time() - start < 1
        assert one.stats.packets_received > 100
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@scenario(EVERYWHERE)
async def test_a_sender_that_waits_goes_on_though_another_one_sends_meanwhile(tmp_path: Path) -> None:
    path = str(tmp_path / "slow")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as slow:
        slow.bind(path)
        slow.setblocking(False)
        async with datagrams(f"unixgram:{tmp_path}/sender", high_water=20_000) as packets:

            async def send(count: int) -> None:
                for _ in range(count):
                    await packets.send(bytes(3000), to=f"unixgram:{path}")

            senders = asyncio.gather(*(send(40) for _ in range(5)))
            got = 0
            while got < 200:
                try:
                    slow.recv(3000)
                    got += 1
                except BlockingIOError:
                    await asyncio.sleep(0.001)
            await senders


@scenario(EVERYWHERE)
async def test_a_reader_waits_again_after_a_pause() -> None:
    """A queue of one packet is full all the time."""
    async with datagrams("udp://127.0.0.1:0", max_packets=1) as packets:
        for _ in range(3):
            send_numbers(packets.local_address, 50)
            assert [number_of(each) for each in await taken(packets, 50)] == list(range(50))
            receiving = asyncio.create_task(received(packets))
            await asyncio.sleep(0)
            send_numbers(packets.local_address, 1)
            assert number_of(await receiving) == 0
