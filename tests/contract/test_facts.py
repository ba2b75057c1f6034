"""Promise 8: addresses, options, the kernel's view, the socket, TLS and the peer's credentials."""

import os
import socket

import pytest

import portico

from .support import contract, spawn, taken, turns
from .transports import ALL, EVERY, PACKETS, PLAIN, TRANSPORTS

LINES = portico.Lines(text=False)
INET = [name for name in ALL if TRANSPORTS[name].inet]
UNIX = [name for name in ALL if TRANSPORTS[name].unix]
UDP = [name for name in PACKETS if TRANSPORTS[name].scheme == "udp"]
MEMORY = [name for name in ALL if TRANSPORTS[name].memory]


@contract(EVERY)
async def test_the_addresses_of_both_ends_fit_together(net):
    async with net.pair() as (near, far):
        for end in (near, far):
            for address in (end.local_address, end.remote_address):
                assert isinstance(address, portico.Address)
                assert address.scheme == net.transport.scheme
                assert portico.Address.parse(str(address)) == address or not str(address.path or address.host)
            assert str(end.remote_address) in repr(end) and "open" in repr(end)
        assert near.remote_address == far.local_address
        if net.transport.proxied:
            assert far.remote_address != near.local_address  # it is the proxy's
        elif net.transport.inet or not net.transport.tells_start:
            assert far.remote_address == near.local_address
            assert near.local_address != near.remote_address
        else:
            assert far.remote_address.path == far.local_address.path  # of a client that has no address of its own
        addresses = near.local_address, near.remote_address
        await turns()
        near.abort()
        await near.wait_closed()
        assert (near.local_address, near.remote_address) == addresses


@contract([*INET, *UDP])
async def test_a_source_address_is_the_peers_remote_address(net):
    source = str(portico.Address.parse(net.transport.address).host)
    async with net.pair(source=source) as (near, far):
        assert near.local_address.host == far.remote_address.host == source


@contract([*INET, *UNIX, *PACKETS])
async def test_options_are_those_of_the_live_socket(net):
    async with net.pair(LINES) as (near, far):
        for end in (near, far):
            end.options["send_buffer"] = 30_000
            assert end.options["send_buffer"] == end.socket.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) == 60_000
            assert "receive_buffer" in end.options and "send_buffer" in set(end.options)
            assert ("no_delay" in end.options) is net.transport.inet
            with pytest.raises(portico.ConfigurationError, match="no_such"):
                end.options["no_such"] = 1
        if net.transport.inet:
            assert near.options["no_delay"] is True and far.options["no_delay"] is True
            near.options["keepalive"] = True
            near.options["user_timeout"] = 5000
            assert near.socket.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            assert near.options["user_timeout"] == near.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
            near.options["keepalive"] = False
            assert near.options["keepalive"] is False
        options = near.options
        near.abort()
        await near.wait_closed()
        with pytest.raises(portico.ClosedError):
            options["send_buffer"]


@contract([*INET, *UNIX, *PACKETS])
async def test_the_socket_is_the_way_out(net):
    async with net.pair() as (near, far):
        internet = net.transport.inet or net.transport.scheme == "udp"
        family = {True: (socket.AF_INET, socket.AF_INET6), False: (socket.AF_UNIX,)}[internet]
        for end in (near, far):
            assert end.socket.family in family and end.socket.fileno() >= 0
            assert end.socket is end.socket or not net.native
        if net.transport.inet and not net.transport.proxied:
            assert near.socket.getpeername() == far.socket.getsockname()
        near.send(b"still works")
        assert await taken(far, 11) == b"still works"
        near.abort()
        await near.wait_closed()
        with pytest.raises(portico.ClosedError):
            near.socket.fileno()
            raise near.closed_error()  # a socket object that was given out is closed, and says so by -1


@contract(MEMORY)
async def test_memory_has_no_socket_and_says_so(net):
    async with net.pair() as (near, far):
        for end in (near, far):
            with pytest.raises(portico.UnsupportedError, match="no socket"):
                end.socket.fileno()
            with pytest.raises(portico.UnsupportedError):
                end.options["send_buffer"]


@contract(EVERY)
async def test_info_tells_of_queues_and_of_the_kernel(net):
    async with net.pair() as (near, far):
        near.send(b"x" * 1000)
        assert near.info().queued_send >= 1000
        await near.flush()
        while not far.queued[0]:
            await turns(1)
        assert far.info().queued_receive >= 1000 and near.info().queued_send == 0
        if net.transport.inet:
            info = near.info()
            assert info.state == "established" and info.rtt is not None and info.mss > 0 and info.bytes_sent >= 1000
        else:
            assert near.info().state is None
        near.abort()


@contract([*UNIX, "unixpacket"])
async def test_the_credentials_of_a_unix_peer(net):
    async with net.pair() as (near, far):
        for end in (near, far):
            credentials = end.peer_credentials
            assert credentials == (os.getpid(), os.getuid(), os.getgid())
            assert (credentials.pid, credentials.uid, credentials.gid) == tuple(credentials)


@contract([*INET, *MEMORY, "unixgram", *UDP])
async def test_other_peers_have_no_credentials(net):
    async with net.pair() as (near, far):
        for end in (near, far):
            with pytest.raises(portico.UnsupportedError, match="Unix"):
                _ = end.peer_credentials


@contract(EVERY)
async def test_what_tls_agreed_on(net):
    async with net.pair() as (near, far):
        if net.transport.tls is None:
            assert near.tls is None and far.tls is None
            return
        assert near.tls.version == far.tls.version == net.transport.tls
        assert near.tls.cipher == far.tls.cipher != ""
        assert near.tls.peer_certificate is not None and far.tls.peer_certificate is None
        assert near.tls.server_name == "localhost"


@contract(EVERY)
async def test_a_connection_knows_when_its_server_drains(net):
    async def handler(stream):
        assert net.transport.tells_start or await stream.recv() == b"begin"
        assert not stream.draining
        await stream.send(b"ready")
        await stream.draining
        assert stream.draining
        await stream.send(b"drained")

    async with net.serve(handler) as server:
        client = await net.connect(server)
        if not net.transport.tells_start:
            client.send(b"begin")
        assert await taken(client, 5) == b"ready"
        draining = spawn(server.drain(5))
        assert await taken(client, 7) == b"drained"
        await client.close()
        await draining


def pipe_ends():
    read, write = os.pipe()
    return read, write


@contract([name for name in UNIX if name in PLAIN], wires=["epoll"])
async def test_descriptors_arrive_and_are_usable(net):
    async with net.pair() as (near, far):
        for one, other in ((near, far), (far, near)):
            read, write = pipe_ends()
            one.send(b"before")
            await one.send_fds([read, write], b"two of them")
            os.close(read)
            got, fds = b"", []
            while len(got) < 17:
                data, passed = await other.recv_fds()
                got += data
                fds += passed
            assert got == b"beforetwo of them" and len(fds) == 2
            os.write(fds[1], b"through")
            assert os.read(fds[0], 10) == b"through"
            assert not os.get_inheritable(fds[0])
            for fd in (write, *fds):
                os.close(fd)
        with pytest.raises(ValueError):
            await near.send_fds([], b"x")
        with pytest.raises(ValueError):
            await near.send_fds([0], b"")


@contract([name for name in UNIX if name in PLAIN], wires=["epoll"])
async def test_descriptors_that_nobody_takes_are_closed(net):
    """The runner finds them if not: some are over the limit, some wait when the connection ends."""
    for end in ("close", "abort"):
        async with net.pair(limits=portico.Limits(max_fds=3)) as (near, far):
            read, write = pipe_ends()
            await near.send_fds([write] * 5, b"five")
            os.close(write)
            data, fds = await far.recv_fds(most=1)
            assert data == b"five" and len(fds) == 1
            os.close(fds[0])
            near.close()
            getattr(far, end)()
            await far.wait_closed()
            assert os.read(read, 1) == b""  # the last writer is gone
            os.close(read)


@contract(wires=["epoll", "memory", "loop"])
async def test_descriptors_need_a_plain_unix_socket(net):
    if net.transport.unix and net.transport.tls is None and net.native:
        return
    async with net.pair() as (near, far):
        for end in (near, far):
            with pytest.raises(portico.UnsupportedError, match="plain Unix socket"):
                await end.send_fds([0])
            with pytest.raises(portico.UnsupportedError, match="plain Unix socket"):
                await end.recv_fds()
