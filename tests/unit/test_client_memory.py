import asyncio
import contextvars

import pytest
from client_kit import on_both_loops

from portico._core import Lines, Settings, Wire
from portico.client import connect
from portico.errors import BindError, ClosedError, ConnectError
from portico.transports.connection import Stream
from portico.transports.memory import dial_memory, listen_memory


class Server:
    """Keeps what it accepted."""

    def __init__(self) -> None:
        self.accepted: asyncio.Queue[Stream] = asyncio.Queue()

    def accept(self, wire: Wire) -> None:
        self.accepted.put_nowait(Stream(wire, Settings(), scheme="mem"))


@on_both_loops
async def test_a_name_is_connected_to() -> None:
    server = Server()
    listener = listen_memory("room", server.accept)
    async with connect("mem:room", codec=Lines()) as channel:
        await channel.send("hello")
        there = await server.accepted.get()
        assert await there.recv_exactly(6) == b"hello\n"
        assert str(channel.remote_address) == str(channel.local_address) == "mem:room"
        there.close()
    listener.close()


@on_both_loops
async def test_a_taken_name_is_refused_until_it_is_given_up() -> None:
    first = listen_memory("room", Server().accept)
    with pytest.raises(BindError, match="cannot listen on mem:room: address already in use; choose another name"):
        listen_memory("room", Server().accept)
    first.close()
    second = listen_memory("room", Server().accept)
    first.close()  # a second time: the name is not its own any more
    with pytest.raises(BindError):
        listen_memory("room", Server().accept)
    second.close()


@on_both_loops
async def test_nobody_listens() -> None:
    with pytest.raises(ConnectionRefusedError):
        dial_memory("room")
    with pytest.raises(ConnectError) as caught:
        await connect("mem:room")
    assert str(caught.value) == ("cannot connect to mem:room: connect: nobody listens on that name in this event loop")


def test_each_loop_has_its_own_names() -> None:
    async def listen() -> None:
        listen_memory("room", Server().accept)

    asyncio.run(listen())
    asyncio.run(listen())


@on_both_loops
async def test_who_connected_just_before_the_end_is_turned_away() -> None:
    listener = listen_memory("room", Server().accept)
    stream = await connect("mem:room")
    listener.close()
    with pytest.raises(ClosedError):
        await stream.recv()
    await stream.close()


@on_both_loops
async def test_the_server_is_called_in_its_own_context() -> None:
    who = contextvars.ContextVar("who", default="nobody")
    seen: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    who.set("server")
    server = Server()

    def accept(wire: Wire) -> None:
        seen.set_result(who.get())
        server.accept(wire)

    listener = listen_memory("room", accept)
    who.set("client")
    async with connect("mem:room"):
        assert await seen == "server"
        (await server.accepted.get()).close()
    listener.close()
