"""Requests and answers as headed messages, on the wire as in Real Python's socket guide."""

import asyncio

import portico


async def answer(channel: portico.Channel[portico.Message]) -> None:
    async for message in channel:
        query = message.content
        assert isinstance(query, dict)
        await channel.send(portico.Message({"result": f"found nothing for {query['value']!r}"}))


async def main() -> None:
    async with portico.serve(answer, "tcp://127.0.0.1:0", codec=portico.Messages()) as server:
        async with portico.connect(server.address, codec=portico.Messages()) as channel:
            await channel.send(portico.Message({"action": "search", "value": "morpheus"}))
            print((await channel.recv()).content)


if __name__ == "__main__":
    asyncio.run(main())
