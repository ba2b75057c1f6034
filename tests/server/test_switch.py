"""`Switch`: TLS and plain text, HTTP, WebSockets and a line protocol on one port."""

import asyncio
import contextlib
import ssl
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tools.command import PORTICO, environment

import portico
from portico.server.switch import choose, is_http, is_tls, starts_with
from server.support import Certificates, certificates, client_of, clients, echo, scenario, until

__all__ = ["certificates"]

GET = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
LIMIT = portico.Limits(trust_loopback=True)


async def shout(channel: portico.Channel[str]) -> None:
    """The line protocol: a greeting, then each line in capitals."""
    await channel.send("hello")
    async for line in channel:
        await channel.send(line.upper())


def front() -> portico.Door:
    door = portico.Door()
    door.get("/", lambda request: "secure\n" if request.secure else "plain\n")
    door.websocket("/echo", echo)
    return door


def everything(tls: portico.TLS | None = None, **settings: Any) -> portico.Switch:
    return portico.Switch(tls=tls, http=front(), otherwise=shout, codec=portico.Lines(), **settings)


@contextlib.asynccontextmanager
async def serving(switch: portico.Switch, address: str = "tcp://127.0.0.1:0") -> AsyncIterator[portico.Server]:
    async with portico.serve(portico.Service().listen(address, switch)) as server:
        yield server


async def answer_to(server: portico.Server, *pieces: bytes) -> bytes:
    """What comes until the end for `pieces`, each a packet of its own, and then the end of our side."""
    async with clients(server.address) as (client,):
        for piece in pieces:
            await client.send(piece)
            await asyncio.sleep(0)
        client.end()
        return await client.recv_all()


def address_for(server: portico.Server, scheme: str, path: str = "") -> str:
    return f"{scheme}://127.0.0.1:{server.address.port}{path}"


# telling protocols apart


@pytest.mark.parametrize(
    ("first", "verdict"),
    [
        (b"", None),
        (b"G", None),
        (b"GET", None),
        (b"GET /a?b HTT", None),
        (b"GET /a?b HTTP/1.1\r\n", True),
        (b"OPTIONS * HTTP/1.0\n", True),
        (b"get / HTTP/1.1\r\n", False),
        (b"GET / HTTP/2.0\r\n", False),
        (b"HELLO\n", False),
        (b"HELLO there you", False),
        (b" GET", False),
        (b"ABCDEFGHIJKLMNOPQ", False),
        (b"GET \xff HTTP/1.1\r\n", False),
        (b"\n", False),
        (b"\x00", False),
    ],
)
def test_http_is_told_by_its_whole_request_line(first: bytes, verdict: bool | None) -> None:
    assert is_http(first) is verdict


@pytest.mark.parametrize(
    ("first", "verdict"),
    [(b"", None), (b"\x16", None), (b"\x16\x03", True), (b"\x16\x02", False), (b"\x17\x03", False), (b"x", False)],
)
def test_tls_is_told_by_the_head_of_its_record(first: bytes, verdict: bool | None) -> None:
    assert is_tls(first) is verdict


def test_who_gets_a_connection_does_not_depend_on_how_its_bytes_were_cut() -> None:
    switch = portico.Switch(http=front(), otherwise=shout).add(b"GET ", echo).add(b"PUT", echo)
    for text in (b"GET / HTTP/1.1\r\n", b"GET lost\n", b"PUT / HTTP/1.0\r\n", b"PUTTY\r\n", b"nothing of all this\n"):
        whole = choose(switch._ways, text, final=True)
        early = [choose(switch._ways, text[:size], final=False) for size in range(len(text))]
        assert all(each == whole for each in early if each[0]), text


def test_a_prefix_is_undecided_as_long_as_it_may_come() -> None:
    look = starts_with(b"SSH-")
    assert [look(first) for first in (b"", b"SS", b"SSH-", b"SSH-2", b"SX")] == [None, None, True, True, False]


# one port


@scenario()
async def test_everything_on_one_port_in_plain_and_over_tls(certificates: Certificates) -> None:
    async with serving(everything(certificates.server())) as server:
        for secure in (False, True):
            tls = certificates.client() if secure else None
            s = "s" if secure else ""
            answer = await portico.fetch(address_for(server, f"http{s}", "/"), tls=tls)
            assert answer.text == ("secure\n" if secure else "plain\n")
            async with portico.connect(address_for(server, f"ws{s}", "/echo"), tls=tls) as websocket:
                await websocket.send("text")
                assert await websocket.recv() == "text"
                await websocket.send(b"binary")
                assert await websocket.recv() == b"binary"
            lines = address_for(server, "tls" if secure else "tcp")
            async with portico.connect(lines, tls=tls, codec=portico.Lines()) as channel:
                await channel.send("is it you")
                assert [await channel.recv(), await channel.recv()] == ["hello", "IS IT YOU"]
        assert server.stats.open <= 1 and not server.stats.handler_errors


@scenario()
async def test_each_place_to_cut_the_first_bytes_gives_the_same() -> None:
    async with serving(everything()) as server:
        whole = await answer_to(server, GET)
        assert whole.endswith(b"\r\n\r\nplain\n")
        for cut in range(1, 25):
            again = await answer_to(server, GET[:cut], GET[cut:])
            assert again.endswith(b"plain\n"), cut
        for cut in range(1, 12):
            line = b"GET lost\nok\n"
            assert await answer_to(server, line[:cut], line[cut:]) == b"hello\nGET LOST\nOK\n"


@scenario()
async def test_a_client_hello_may_come_byte_by_byte(certificates: Certificates) -> None:
    context = ssl.create_default_context(cafile=certificates.ca)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    async with serving(everything(certificates.server())) as server, clients(server.address) as (client,):
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                for byte in outgoing.read():
                    await client.send(bytes([byte]))
                    await asyncio.sleep(0)
                incoming.write(await client.recv())
        tls.write(GET)
        await client.send(outgoing.read())
        answer = b""
        while not answer.endswith(b"secure\n"):
            incoming.write(await client.recv())
            with contextlib.suppress(ssl.SSLWantReadError):
                answer += tls.read()


@scenario()
async def test_a_silent_client_goes_to_the_line_protocol_after_a_while() -> None:
    async with serving(everything(wait=0.05)) as server, clients(server.address, 2) as (client, other):
        assert await client.recv_exactly(6) == b"hello\n"
        await client.send(GET)  # too late to be HTTP
        assert (await client.recv()).startswith(b"GET / HTTP/1.1\r\nHOST: ")
        other.end()
        assert await other.recv_all() == b"hello\n"


@scenario()
async def test_a_client_that_says_nothing_over_tls_goes_there_too(certificates: Certificates) -> None:
    async with serving(everything(certificates.server(), wait=0.05)) as server:
        where = address_for(server, "tls")
        async with portico.connect(where, tls=certificates.client(), codec=portico.Lines()) as channel:
            assert await channel.recv() == "hello"


@scenario()
async def test_who_ends_its_side_at_once_still_gets_the_greeting() -> None:
    async with serving(everything()) as server:
        assert await answer_to(server) == b"hello\n"


@scenario()
async def test_an_unfinished_request_line_goes_there_at_its_end() -> None:
    async with serving(portico.Switch(http=front(), otherwise=echo)) as server:
        assert await answer_to(server, b"GET /") == b"GET /"


@scenario()
async def test_slow_first_bytes_have_a_deadline() -> None:
    async def dribble(server: portico.Server) -> bytes:
        async with clients(server.address) as (client,):
            reading = asyncio.ensure_future(client.recv_all())
            while not reading.done():
                with contextlib.suppress(ConnectionError):
                    await client.send(b"A")
                await asyncio.wait([reading], timeout=0.02)
            try:
                return reading.result()
            except ConnectionResetError:
                return b""

    async with serving(portico.Switch(http=front(), handshake_timeout=0.2)) as server:
        assert await dribble(server) == b""
        assert server.stats.protocol_errors == 1
    switch = portico.Switch(handshake_timeout=0.1).add(lambda first: None, echo)
    async with serving(switch) as server:
        assert await dribble(server) == b""
        async with clients(server.address) as (client,):
            assert await client.is_over()


@scenario()
async def test_only_so_many_bytes_are_looked_at() -> None:
    async with serving(portico.Switch(http=front())) as server, clients(server.address) as (client,):
        await client.send(b"GET /" + b"a" * 20_000)
        assert await client.is_over()
        await until(lambda: server.stats.protocol_errors == 1)


@pytest.mark.parametrize("garbage", [b"\x00\x01\x02", b"\xff" * 5000, b"\r\n\r\n", b"\x15\x03\x01"])
@scenario()
async def test_garbage_is_turned_away_where_nobody_takes_it(garbage: bytes) -> None:
    async with serving(portico.Switch(http=front())) as server, clients(server.address) as (client,):
        await client.send(garbage)
        assert await client.is_over()
        client.close()
        await until(lambda: server.stats.open == 0)
        assert (server.stats.protocol_errors, server.stats.handler_errors) == (1, 0)


@scenario()
async def test_a_failing_tls_handshake_is_no_error_of_the_server(certificates: Certificates) -> None:
    async with serving(everything(certificates.server())) as server:
        with pytest.raises(portico.ConnectError):
            await portico.connect(address_for(server, "tls"))  # trusts nobody here
        async with clients(server.address) as (client,):
            await client.send(b"\x16\x03\x01\x00\x05hello, world")
            await client.recv_all()
        await until(lambda: server.stats.open == 0)
        assert (server.stats.protocol_errors, server.stats.handler_errors) == (2, 0)


@scenario()
async def test_a_tls_handshake_has_the_rest_of_the_time(certificates: Certificates) -> None:
    switch = everything(certificates.server(), handshake_timeout=0.1)
    async with serving(switch) as server, clients(server.address) as (client,):
        await client.send(b"\x16\x03\x01\x02\x00")
        assert await client.is_over()
        await until(lambda: server.stats.protocol_errors == 1)


@pytest.mark.parametrize("said", [b"", b"G", b"\x16", b"\x16\x03\x01"])
@scenario()
async def test_a_client_may_vanish_while_it_is_looked_at(said: bytes, certificates: Certificates) -> None:
    async with serving(portico.Switch(tls=certificates.server(), http=front())) as server:
        for leave in ("end", "reset"):
            client = await client_of(server.address)
            await client.send(said)
            await until(lambda: server.stats.open == 1)
            getattr(client, leave)()
            await until(lambda: server.stats.open == 0)
            client.close()
        assert server.stats.handler_errors == 0
        assert server.stats.peer_errors + server.stats.protocol_errors == 2


# the server around it


@scenario()
async def test_draining_does_not_wait_for_who_says_nothing() -> None:
    switch = portico.Switch(http=front(), wait=0.02)
    async with serving(switch) as server, clients(server.address, 2) as (silent, late):
        await until(lambda: server.stats.open == 2)
        draining = asyncio.ensure_future(server.drain(15))
        await late.send(GET)
        assert (await late.recv_all()).endswith(b"plain\n")
        assert await silent.is_over()
        silent.end()
        late.end()
        await draining
        assert (server.stats.aborted, server.stats.protocol_errors) == (0, 0)


@scenario()
async def test_draining_reaches_what_a_connection_has_become(certificates: Certificates) -> None:
    async def until_drained(channel: portico.Channel[str]) -> None:
        await channel.send("hello")
        await channel.draining
        await channel.send("goodbye")

    door = portico.Door()
    door.websocket("/", until_drained)
    switch = portico.Switch(tls=certificates.server(), http=door, otherwise=until_drained, codec=portico.Lines())
    async with serving(switch) as server:
        async with (
            portico.connect(address_for(server, "ws", "/")) as websocket,
            portico.connect(address_for(server, "tls"), tls=certificates.client(), codec=portico.Lines()) as lines,
        ):
            await lines.send("a line")
            assert (await websocket.recv(), await lines.recv()) == ("hello", "hello")
            await asyncio.gather(server.drain(10), *(take_goodbye(each) for each in (websocket, lines)))
            assert websocket.close_code == 1001
        assert server.stats.aborted == 0


async def take_goodbye(channel: portico.Channel[Any]) -> None:
    assert [each async for each in channel] == ["goodbye"]
    await channel.close()


@scenario()
async def test_aborting_ends_connections_in_every_state(certificates: Certificates) -> None:
    async with serving(everything(certificates.server(), wait=5)) as server:
        async with clients(server.address, 4) as everybody:
            for client, said in zip(everybody, (b"", b"GET", b"\x16\x03\x01\x02", b"line\n"), strict=True):
                await client.send(said)
            assert await everybody[3].recv_exactly(11) == b"hello\nLINE\n"
            await until(lambda: server.stats.open == 4)
            await server.abort()
            for client in everybody:
                with contextlib.suppress(ConnectionResetError):
                    await client.recv_all()
        assert server.stats.open == 0


@scenario()
async def test_plain_functions_serve_in_threads_that_end(certificates: Certificates) -> None:
    names: list[str] = []

    def sync(channel: portico.BlockingChannel[str]) -> None:
        names.append(threading.current_thread().name)
        for line in channel:
            channel.send(line[::-1])

    switch = portico.Switch(tls=certificates.server(), http=front(), otherwise=sync, codec=portico.Lines())
    async with serving(switch) as server:
        assert await answer_to(server, b"desserts\n") == b"stressed\n"
        async with portico.connect(
            address_for(server, "tls"), tls=certificates.client(), codec=portico.Lines()
        ) as channel:
            await channel.send("drawer")
            assert await channel.recv() == "reward"
    assert set(names) == {"portico-handler"}


@scenario()
async def test_further_protocols_are_added_by_prefix_and_by_function() -> None:
    async def number(stream: portico.Stream) -> None:
        size = int.from_bytes(await stream.recv_exactly(2))
        await stream.send(b"%d bytes: " % size + await stream.recv_exactly(size))

    async def ssh(channel: portico.Channel[str]) -> None:
        await channel.send("you are " + await channel.recv())

    def is_short(first: bytes) -> bool | None:
        return first[0] == 0 if first else None

    switch = everything().add(b"SSH-", ssh, codec=portico.Lines()).add(is_short, number)
    async with serving(switch) as server:
        assert await answer_to(server, b"S", b"SH-2.0-me\n") == b"you are SSH-2.0-me\n"
        assert await answer_to(server, b"\x00", b"\x03abc") == b"3 bytes: abc"
        assert await answer_to(server, b"SSL\n") == b"hello\nSSL\n"


@scenario(errors=True)
async def test_a_function_that_fails_is_an_error_of_the_server() -> None:
    switch = portico.Switch().add(lambda first: bool(first[5]), echo)
    async with serving(switch) as server, clients(server.address) as (client,):
        await client.send(b"x")
        assert await client.is_over()
        await until(lambda: server.stats.handler_errors == 1)


class Part:
    """A handler that is started and ended, as an object and as a plain function."""

    def __init__(self, log: list[str], name: str, *, fails: bool = False) -> None:
        self.log, self.name, self.fails = log, name, fails

    async def startup(self) -> None:
        if self.fails:
            raise portico.ConfigurationError("not today")
        self.log.append(f"{self.name} starts")

    async def shutdown(self) -> None:
        self.log.append(f"{self.name} ends")

    def __call__(self, stream: object) -> None:
        pass


@scenario()
async def test_handlers_are_started_and_ended_once_for_all_servers() -> None:
    log: list[str] = []
    part = Part(log, "a")
    switch = portico.Switch(http=front(), otherwise=part).add(b"x", part).add(b"y", Part(log, "b"))
    async with serving(switch), serving(switch):
        assert log == ["a starts", "b starts"]
    assert log == ["a starts", "b starts", "b ends", "a ends"]


@scenario()
async def test_what_has_started_is_ended_when_another_handler_cannot() -> None:
    log: list[str] = []
    switch = portico.Switch(http=Part(log, "a"), otherwise=Part(log, "b", fails=True))
    with pytest.raises(portico.ConfigurationError, match="not today"):
        async with serving(switch):
            pass
    assert log == ["a ends", "a starts"][::-1]


@scenario()
async def test_the_lifespan_of_an_application_behind_a_door_passes_through() -> None:
    log: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            for phase in ("startup", "shutdown"):
                assert (await receive())["type"] == f"lifespan.{phase}"
                log.append(phase)
                await send({"type": f"lifespan.{phase}.complete"})
            return
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    door = front()
    door.mount("/app", app)
    async with serving(portico.Switch(http=door, otherwise=shout, codec=portico.Lines())) as server:
        assert log == ["startup"]
        assert (await answer_to(server, GET.replace(b"/ ", b"/app "))).endswith(b"ok")
    assert log == ["startup", "shutdown"]


@scenario()
async def test_it_serves_unix_sockets_and_memory(tmp_path: Any) -> None:
    for address in (f"unix:{tmp_path}/x", "mem:switch"):
        async with serving(everything(), address) as server:
            async with portico.connect(server.address, codec=portico.Lines()) as channel:
                await channel.send("i see")
                assert [await channel.recv(), await channel.recv()] == ["hello", "I SEE"]


@scenario(timeout=60)
async def test_the_command_reaches_every_protocol(certificates: Certificates) -> None:
    async def run(*words: str, said: bytes = b"") -> bytes:
        pipe = asyncio.subprocess.PIPE
        command = await asyncio.create_subprocess_exec(
            *PORTICO, *words, stdin=pipe, stdout=pipe, stderr=pipe, env=environment()
        )
        out, error = await command.communicate(said)
        assert (command.returncode, error) == (0, b""), words
        return out

    async with serving(everything(certificates.server())) as server:
        trust = ["--ca", certificates.ca]
        for end, more in (("", []), ("s", trust)):
            assert await run("fetch", address_for(server, f"http{end}"), *more) in (b"plain\n", b"secure\n")
            assert await run("connect", address_for(server, f"ws{end}", "/echo"), *more, said=b"x\n") == b"x\n"
        for scheme, more in (("tcp", []), ("tls", trust)):
            assert await run("connect", address_for(server, scheme), *more, said=b"x\n") == b"hello\nX\n"


@scenario()
async def test_what_is_no_stream_is_an_error_of_who_listens() -> None:
    async with portico.serve(portico.Service().listen("mem:lines", everything(), codec=portico.Lines())) as server:
        with pytest.raises(portico.ConfigurationError, match="looks at streams of bytes"):
            await everything()(await portico.connect(server.address, codec=portico.Lines()))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: portico.Switch(wait=0),
        lambda: portico.Switch(handshake_timeout=-1),
        lambda: portico.Switch(codec=portico.Lines()),
        lambda: portico.Switch(otherwise="nothing"),  # type: ignore[arg-type]
        lambda: portico.Switch().add(b"", echo),
        lambda: portico.Switch().add("text", echo),  # type: ignore[arg-type]
        lambda: portico.Switch(tls=portico.TLS()),
        lambda: portico.Switch(tls=portico.TLS(certificate="/none.pem")),
    ],
)
def test_settings_that_cannot_work_are_told_at_once(wrong: Any) -> None:
    with pytest.raises(portico.ConfigurationError):
        wrong()
