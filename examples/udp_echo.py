"""A UDP echo: every packet goes back to where it came from, as many at once as there are."""

import asyncio
import contextlib

import portico


async def echo(packets: portico.Datagrams) -> None:
    async for batch in packets.batches():
        with contextlib.suppress(portico.DeliveryError):  # one of them has gone, and its machine says so (ICMP)
            await packets.send_many((packet.data, packet) for packet in batch)


async def main() -> None:
    async with portico.datagrams("udp://127.0.0.1:0") as server, portico.datagrams("udp://127.0.0.1:0") as client:
        echoing = asyncio.create_task(echo(server))
        await client.send(b"hello", to=server.local_address)
        answer = await client.recv()
        print(answer.data.decode(), "came back" if answer.address == server.local_address else "from a stranger")
        echoing.cancel()


if __name__ == "__main__":
    asyncio.run(main())
