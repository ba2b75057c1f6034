"""A server says on the local network that it is there, and a client finds it by what it is, not by where it is."""

import asyncio

import portico
from portico import discovery

ECHO = "_portico-echo._tcp"


async def echo(channel: portico.Channel[str]) -> None:
    async for line in channel:
        await channel.send(f"{line} indeed")


async def main() -> None:
    # on loopback it is announced on this machine alone; with "tcp://*:0" to every network that this machine is on
    async with portico.serve(echo, "tcp://127.0.0.1:0", codec=portico.Lines()) as server:
        async with discovery.announce(server, ECHO, name="an echo", properties={"language": "English"}) as known:
            found = await discovery.find(ECHO, known.name)
            print(f"found {found.name}, which speaks {found.properties['language']}")
            async with found.connect(codec=portico.Lines()) as channel:
                await channel.send("hello")
                print(await channel.recv())


asyncio.run(main())
