"""A line protocol that is upgraded to TLS on request, server and client: python starttls.py cert.pem key.pem ca.pem"""

import asyncio
import sys

import portico


def server(tls: portico.TLS) -> portico.Service:
    async def handler(stream: portico.Stream) -> None:
        await stream.send(b"220 ready\n")
        while (line := await stream.recv_until(b"\n", 1000)) != b"STARTTLS":
            await stream.send(b"500 first STARTTLS, not " + line + b"\n")
        await stream.send(b"220 go ahead\n")
        await stream.start_tls(tls, server_side=True)
        async for text in stream.channel(portico.Lines()):
            await stream.successor.send(text.upper())

    return portico.Service().listen("tcp://127.0.0.1:0", handler)


async def client(address: portico.Address, tls: portico.TLS) -> str:
    async with portico.connect(address, timeout=5) as stream:
        assert (await stream.recv_until(b"\n")).startswith(b"220")
        await stream.send(b"STARTTLS\n")
        assert (await stream.recv_until(b"\n")).startswith(b"220")
        await stream.start_tls(tls, server_name="localhost")
        async with stream.channel(portico.Lines()) as channel:
            await channel.send("secret")
            return await channel.recv()


async def main(certificate: str, key: str, ca: str) -> None:
    async with portico.serve(server(portico.TLS(certificate=certificate, key=key))) as running:
        print(await client(running.address, portico.TLS(ca=ca)))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:4]))
