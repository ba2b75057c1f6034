"""What a Poller tells of a connection is what receiving and sending then do, over every transport."""

import portico
from portico import Events

from .support import Net, contract, rest_of


@contract()
async def test_a_handler_that_waits_before_each_call_never_waits_in_one(net: Net) -> None:
    waited = []

    async def echo(stream: portico.Stream) -> None:
        with portico.Poller() as poller:
            poller.register(stream)
            while True:
                ((_, events, _),) = await poller.wait(4)
                waited.append(stream.readiness[0])
                data = await stream.recv()
                if not data:
                    assert Events.CLOSED in events
                    return
                poller.modify(stream, Events.WRITABLE)
                ((_, events, _),) = await poller.wait(4)
                assert Events.WRITABLE in events
                stream.send(data)
                poller.modify(stream, Events.READABLE)

    async with net.serve(echo) as server, await net.connect(server) as near:
        with portico.Poller() as poller:
            poller.register(near)
            for piece in (b"a", bytes(100_000), b"c"):
                near.send(piece)
                got = b""
                while len(got) < len(piece):
                    ((_, events, _),) = await poller.wait(4)
                    assert Events.READABLE in events
                    got += await near.recv()
                assert got == piece
            near.send_eof() if net.transport.can_half_close else near.close()
            await rest_of(near)
    assert all(waited)


@contract()
async def test_room_is_told_when_the_peer_takes_again(net: Net) -> None:
    async with net.pair() as (near, far):
        with portico.Poller() as poller:
            poller.register(near, Events.WRITABLE)
            sent = 0
            while await poller.wait(0):
                near.send(bytes(1 << 18))
                sent += 1 << 18
            got = 0
            while not await poller.wait(0):
                got += len(await far.recv())
            near.send_eof() if net.transport.can_half_close else None
            while got < sent:
                got += len(await far.recv())
            assert got == sent


@contract()
async def test_an_abort_here_or_there_is_told(net: Net) -> None:
    for aborted in (0, 1):
        async with net.pair() as ends:
            with portico.Poller() as poller:
                for each in ends:
                    poller.register(each)
                ends[aborted].abort()
                while len(keys := await poller.wait(4)) < 2:
                    assert {key.object for key in keys} <= set(ends)
                assert all(key.events & Events.CLOSED for key in keys)
