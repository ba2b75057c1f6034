"""Wait for a connection, a socket of packets and a pipe at once, in one task."""

import asyncio
import os

import portico


async def greet(stream: portico.Stream) -> None:
    await stream.send(b"hello")
    await stream.recv()


async def main() -> None:
    said = []
    reading, writing = os.pipe()
    async with (
        portico.serve(greet, "tcp://127.0.0.1:0") as server,
        portico.connect(server.address) as stream,
        portico.datagrams("udp://127.0.0.1:0") as packets,
    ):
        with portico.Poller() as poller:
            poller.register(stream, data="the stream")
            poller.register(packets, data="the packets")
            poller.register(reading, data="the pipe")
            packets.send(b"a packet", packets.local_address)
            os.write(writing, b"a line")
            while len(poller):
                for source, events, name in await poller.wait(timeout=5):
                    if source is stream:
                        data = await stream.recv()
                    elif source is packets:
                        data = (await packets.recv()).data
                    else:
                        data = os.read(reading, 100)
                    said.append(f"{name}: {data.decode()} ({events.name})")
                    poller.unregister(source)
    os.close(reading)
    os.close(writing)
    print(*sorted(said), sep="\n")


if __name__ == "__main__":
    asyncio.run(main())
