"""A SOCKS5 proxy on plain sockets, a program of its own: it hands on bytes, ends and losses, each as what it was."""

import asyncio
import atexit
import functools
import socket
import struct
import subprocess
import sys

RESET = struct.pack("ii", 1, 0)
"""SO_LINGER of no time: close(2) resets the connection."""


@functools.cache
def relay() -> str:
    """Start the proxy in a process of its own, which ends with this one, and return its URL."""
    process = subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None and process.stdout is not None
    atexit.register(process.wait)
    atexit.register(process.stdin.close)
    return f"socks5://127.0.0.1:{process.stdout.readline().strip()}"


async def serve() -> None:
    """Serve on a port of its own, which is printed, until standard input ends."""
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        narrow(listener)  # what it accepts has the same
        print(listener.getsockname()[1], flush=True)

        async def accept() -> None:
            async with asyncio.TaskGroup() as group:
                while True:
                    near, _ = await loop.sock_accept(listener)
                    group.create_task(carry(near))

        serving = loop.create_task(accept())
        loop.add_reader(sys.stdin, serving.cancel)
        await asyncio.wait([serving])
        loop.remove_reader(sys.stdin)


async def carry(near: socket.socket) -> None:
    """Do what one client asks for."""
    with near, socket.socket() as far:
        narrow(far)
        for each in (near, far):
            each.setblocking(False)
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            await connect(near, far)
            async with asyncio.TaskGroup() as group:
                group.create_task(pump(near, far))
                group.create_task(pump(far, near))
        except* OSError:
            reset(near, far)
        except* asyncio.CancelledError:
            reset(near, far)
            raise


def narrow(sock: socket.socket) -> None:
    """Let few bytes rest here, so that a peer that does not read is felt at the other end."""
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        sock.setsockopt(socket.SOL_SOCKET, option, 32 * 1024)


def reset(*sockets: socket.socket) -> None:
    for each in sockets:
        each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)


async def connect(near: socket.socket, far: socket.socket) -> None:
    """Take the request (RFC 1928), which has an IPv4 address and no login, and grant it."""
    loop = asyncio.get_running_loop()
    assert await exactly(near, 3) == b"\5\1\0"
    await loop.sock_sendall(near, b"\5\0")
    request = await exactly(near, 10)
    assert request[:4] == b"\5\1\0\1"
    await loop.sock_connect(far, (socket.inet_ntoa(request[4:8]), int.from_bytes(request[8:], "big")))
    await loop.sock_sendall(near, b"\5\0\0\1" + bytes(6))


async def exactly(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = await asyncio.get_running_loop().sock_recv(sock, size - len(data))
        if not more:
            raise ConnectionResetError
        data += more
    return data


async def pump(source: socket.socket, sink: socket.socket) -> None:
    """Hand on until the end, which is handed on, too."""
    loop = asyncio.get_running_loop()
    while data := await loop.sock_recv(source, 1 << 16):
        await loop.sock_sendall(sink, data)
    sink.shutdown(socket.SHUT_WR)


if __name__ == "__main__":
    asyncio.run(serve())
