"""Hand an open file to another process over a Unix socket; here both ends are in one program."""

import asyncio
import os
import tempfile

import portico


async def giver(stream: portico.Stream) -> None:
    with tempfile.TemporaryFile() as file:
        file.write(b"from afar")
        file.flush()
        await stream.send_fds([file.fileno()], b"a file")


async def main() -> None:
    async with portico.serve(giver, "unix:@portico-example") as server, portico.connect(server.address) as stream:
        data, fds = await stream.recv_fds()
        print(data.decode(), os.pread(fds[0], 100, 0).decode())
        os.close(fds[0])


if __name__ == "__main__":
    asyncio.run(main())
