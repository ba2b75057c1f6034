"""What the room and the page say to each other, with neither a browser nor a page: the subprotocol portico.chat.v1."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest

import portico
from portico.tools import chat
from portico.tools.chat import Chat
from portico.tools.chat_door import chat_door
from portico.tools.chat_events import LEFT, MAX_HISTORY, MAX_HISTORY_BYTES, PROTOCOL, Hello, History

SPEAKS = portico.WebSocketSettings(subprotocols=(PROTOCOL,))


class Page:
    """One connection of a page."""

    def __init__(self, channel: "portico.Channel[Any]") -> None:
        self.channel = channel

    async def say(self, **message: Any) -> None:
        await self.channel.send(json.dumps(message))

    async def heard(self, kind: str) -> dict[str, Any]:
        """Return the next event of that type."""
        async for message in self.channel:
            event: dict[str, Any] = json.loads(message)
            if event["type"] == kind:
                return event
        raise AssertionError(f"no {kind!r} came")

    async def caught_up(self, **hello: Any) -> list[dict[str, Any]]:
        """Say hello, and return what comes until the welcome."""
        await self.say(hello=hello)
        came: list[dict[str, Any]] = []
        while not came or came[-1]["type"] != "welcome":
            came.append(json.loads(await self.channel.recv()))
        return came


@contextlib.asynccontextmanager
async def open_room() -> AsyncIterator[tuple[Chat, portico.Server]]:
    room = Chat("test room")
    service = portico.Service(drain_timeout=5.0)
    service.listen("http://127.0.0.1:0", chat_door(room))
    service.listen("tcp://127.0.0.1:0", room.join, codec=room.codec())
    async with asyncio.timeout(30), portico.serve(service) as server:
        yield room, server


@contextlib.asynccontextmanager
async def page_of(server: portico.Server, settings: portico.WebSocketSettings = SPEAKS) -> AsyncIterator[Page]:
    web = server.addresses[0]
    async with portico.connect(web.replace(scheme="ws", path="/chat"), websocket=settings) as channel:
        yield Page(channel)


def running(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """Run a test that is a coroutine function."""

    def run() -> None:
        asyncio.run(test())

    run.__name__ = test.__name__
    run.__doc__ = test.__doc__
    return run


@running
async def test_a_page_hears_what_was_said_before_who_is_here_and_what_is_said() -> None:
    async with open_room() as (room, server), portico.connect(server.addresses[1], codec=Chat.codec()) as terminal:
        await terminal.send("before")
        while room.history.last != 1:
            await asyncio.sleep(0)
        async with page_of(server) as page:
            past, said, first, second, _welcome = await page.caught_up(name="Ann", key="k", run="", after=0)
            assert past == {"type": "past", "room": "test room", "run": room.history.run, "first": 1, "last": 1}
            assert (said["id"], said["by"], said["name"], said["door"], said["text"]) == (
                1,
                1,
                "guest-1",
                "tcp",
                "before",
            )
            assert first["who"] == {"id": 1, "name": "guest-1", "door": "tcp"}
            assert second["who"] == {"id": 2, "name": "Ann", "door": "browser"}
            await terminal.send("\x1b[31mnow\x07")
            assert (await page.heard("said"))["text"] == "now"
            await page.say(say="back \x1b[31mto you", ref="r1")
            own = await page.heard("said")
            assert (own["ref"], own["text"], own["id"]) == ("r1", "back to you", 3)
            async for line in terminal:
                if line == "Ann: back to you":
                    break
            await page.say(ping=7)
            assert await page.heard("pong") == {"type": "pong", "ping": 7}
            await terminal.send("/name Chen")
            assert await page.heard("named") == {"type": "named", "id": 1, "name": "Chen"}
            await terminal.send("/quit")
            assert await page.heard("left") == {"type": "left", "id": 1}


@running
async def test_a_room_full_of_people_is_told_as_there_is_room() -> None:
    async with open_room() as (room, server), page_of(server) as other:
        await other.caught_up(name="other", key="", run="", after=0)
        crowd = [room._new(room.people[0].channel) for _ in range(20_000)]
        room.people += crowd
        async with page_of(server) as page:
            await page.say(hello=dict(name="Ann", key="", run="", after=0))
            assert (await page.heard("here"))["who"]["name"] == "other"
            room._leave(crowd.pop(0))  # who has been told of by now, or will not be
            room._rename(crowd[-1], "Chen")
            here: dict[int, str] = {}
            async for message in page.channel:
                event = json.loads(message)
                if event["type"] == "welcome":
                    break
                if event["type"] == "left":
                    here.pop(event["id"], None)
                else:
                    here[event["who"]["id"]] = event["who"]["name"]
            assert here == {each.number: each.name for each in room.people[1:]}
            assert here[crowd[-1].number] == "Chen" and here[event["you"]] == "Ann"
        del room.people[1:]


@running
async def test_who_comes_back_hears_what_was_said_since_and_no_more() -> None:
    async with open_room() as (room, server):
        for number in range(5):
            room.history.add(by=9, name="Bob", door="tcp", text=str(number), ref="")
        for run, after, ids in [
            (room.history.run, 2, [3, 4, 5]),
            (room.history.run, 5, []),
            (room.history.run, 77, [1, 2, 3, 4, 5]),  # which it cannot have heard here
            ("another", 2, [1, 2, 3, 4, 5]),
        ]:
            async with page_of(server) as page:
                came = await page.caught_up(name="", key="", run=run, after=after)
                assert [each["id"] for each in came if each["type"] == "said"] == ids


@running
async def test_who_comes_with_the_key_of_somebody_takes_their_place() -> None:
    async with open_room() as (room, server), page_of(server) as lost, page_of(server) as stranger:
        await lost.caught_up(name="Ann", key="secret", run="", after=0)
        await stranger.caught_up(name="Bob", key="", run="", after=0)
        async with page_of(server) as page:
            came = await page.caught_up(name="Ann", key="secret", run="", after=0)
            assert [each["who"]["name"] for each in came if each["type"] == "here"] == ["Bob", "Ann"]
            with pytest.raises(portico.ClosedError):
                await lost.heard("nothing")
            assert [person.name for person in room.people] == ["Bob", "Ann"]
            async with page_of(server) as other:  # no key is nobody's
                await other.caught_up(name="", key="", run="", after=0)
                assert len(room.people) == 3


@running
async def test_a_name_that_cannot_be_had_is_told_and_another_is_given() -> None:
    async with open_room() as (_, server), page_of(server) as ann, page_of(server) as other:
        await ann.caught_up(name="Ann", key="", run="", after=0)
        came = await other.caught_up(name="ann", key="", run="", after=0)
        assert came[-2]["who"]["name"] == "guest-2"
        assert (await other.heard("note"))["text"] == "somebody is called ann already; you are guest-2"
        await other.say(say="/name <b>")
        assert "a name has" in (await other.heard("note"))["text"]


@pytest.mark.parametrize(
    "message",
    [
        "",
        "hello",
        b"\xff\xfe",
        "[]",
        "{}",
        '{"hello": 1}',
        '{"hello": {"name": 1}}',
        '{"hello": {"after": -1}}',
        '{"hello": {"after": "1"}}',
        '{"hello": {"key": "<>"}}',
        '{"hello": {"run": "' + "x" * 41 + '"}}',
        "[" * 16_000,
        '{"hello": {"after": ' + "9" * 5000 + "}}",
    ],
    ids=lambda message: repr(message[:24]),
)
def test_what_is_no_hello_is_refused(message: str | bytes) -> None:
    async def main() -> None:
        async with open_room() as (room, server), page_of(server) as page:
            await page.channel.send(message)
            with pytest.raises(portico.ClosedError) as caught:
                await page.channel.recv()
            assert caught.value.code == 1008
            assert room.people == [] and len(room.pages) == 0

    asyncio.run(main())


@pytest.mark.parametrize("message", ["no JSON", "{}", '{"say": 1}', '{"say": "x", "ref": "<>"}', '{"ping": "1"}'])
def test_a_page_that_does_not_keep_to_the_protocol_is_refused(message: str) -> None:
    async def main() -> None:
        async with open_room() as (room, server), page_of(server) as page, page_of(server) as other:
            await page.caught_up()
            await other.caught_up()
            await page.channel.send(message)
            with pytest.raises(portico.ClosedError) as caught:
                await page.heard("nothing")
            assert caught.value.code == 1008
            assert await other.heard("left") == {"type": "left", "id": 1}
            assert len(room.people) == 1

    asyncio.run(main())


@running
async def test_too_large_a_message_ends_the_connection_and_too_long_a_line_does_not() -> None:
    async with open_room() as (room, server), page_of(server) as page:
        await page.caught_up()
        await page.say(say="x" * 4096)
        assert "at most 4096 bytes" in (await page.heard("note"))["text"]
        await page.say(say='"' * 4000)  # twice as long in JSON
        assert (await page.heard("said"))["text"] == '"' * 4000
        await page.say(say="x" * 20_000)
        with pytest.raises(portico.ClosedError) as caught:
            await page.heard("nothing")
        assert caught.value.code == 1009
        while room.people:
            await asyncio.sleep(0)


def test_who_says_no_hello_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat, "HELLO_TIMEOUT", 0.05)

    async def main() -> None:
        async with open_room() as (_, server), page_of(server) as page:
            with pytest.raises(portico.ClosedError) as caught:
                await page.channel.recv()
            assert caught.value.code == 1008

    asyncio.run(main())


@running
async def test_a_drain_closes_pages_with_1001_those_that_have_said_nothing_too() -> None:
    async with open_room() as (room, server), page_of(server) as page, page_of(server) as silent:
        await page.caught_up()
        closing = asyncio.ensure_future(room.close_on(server.draining))
        await server.drain()
        await closing
        assert (await page.heard("note"))["text"] == "the room closes, good bye"
        for each in (page, silent):
            with pytest.raises(portico.EndOfStream):
                await each.channel.recv()
            assert each.channel.close_code == 1001  # type: ignore[attr-defined]  # it is a WebSocket


@running
async def test_a_page_that_does_not_read_is_closed_and_the_others_hear_everything() -> None:
    async with open_room() as (room, server), page_of(server) as reader, page_of(server) as other:
        await reader.caught_up()
        await other.caught_up()
        said = 0
        while len(room.pages) == 2:
            room.pages.send(room.history.add(text="x" * 4000))
            said += 1
            assert (await reader.heard("said"))["id"] == said
        with pytest.raises(portico.ClosedError) as caught:
            while True:
                await other.channel.recv()
        assert caught.value.code == 1008 != LEFT  # after all but that a page comes again
        while len(room.people) > 1:
            await asyncio.sleep(0)
        assert room.people[0].number == 1


@running
async def test_who_quits_is_told_by_the_close_code() -> None:
    async with open_room() as (room, server), page_of(server) as page:
        await page.caught_up()
        await page.say(say="/quit")
        assert (await page.heard("note"))["text"] == "good bye, guest-1"
        with pytest.raises(portico.ClosedError) as caught:
            await page.channel.recv()
        assert caught.value.code == LEFT
        while room.people:
            await asyncio.sleep(0)


@running
async def test_pages_of_other_origins_are_turned_away() -> None:
    async with open_room() as (_, server):
        here = server.addresses[0]
        strange = portico.WebSocketSettings(subprotocols=(PROTOCOL,), origin="http://elsewhere.example")
        with pytest.raises(portico.ConnectError, match="403"):
            async with page_of(server, strange):
                raise AssertionError("it was let in")
        own = portico.WebSocketSettings(subprotocols=(PROTOCOL,), origin=f"http://{here.host}:{here.port}")
        async with page_of(server, own) as page:
            await page.caught_up()


@running
async def test_a_websocket_without_the_subprotocol_speaks_lines() -> None:
    async with open_room() as (_, server), page_of(server) as page:
        await page.caught_up(name="Ann", key="", run="", after=0)
        async with page_of(server, portico.WebSocketSettings()) as lines:
            assert await lines.channel.recv() == "* welcome to test room: you are guest-2, one other is here"
            assert (await page.heard("came"))["who"] == {"id": 2, "name": "guest-2", "door": "ws"}
            await lines.channel.send("two\nlines in \x1b[31mone")
            assert (await page.heard("said"))["text"] == "two lines in one"
            await lines.channel.send("Grüße".encode())
            assert (await page.heard("said"))["text"] == "Grüße"


def test_a_history_is_bounded_in_messages_and_in_size() -> None:
    history = History()
    for number in range(1, 2 * MAX_HISTORY):
        history.add(text=str(number))
    assert (history.last, history.first) == (2 * MAX_HISTORY - 1, MAX_HISTORY)
    assert [json.loads(each)["id"] for each in history.after(history.last - 2)] == [history.last - 1, history.last]
    assert len(history.after(0)) == len(history.after(3)) == MAX_HISTORY
    assert history.after(history.last) == history.after(history.last + 5) == []
    for _ in range(MAX_HISTORY):
        history.add(text="x" * 4096)
    assert MAX_HISTORY_BYTES - 5000 < sum(map(len, history.after(0))) <= MAX_HISTORY_BYTES


def test_a_hello_has_what_it_needs_by_itself() -> None:
    assert Hello.read('{"hello": {}}') == Hello("", "", "", 0)
    assert Hello.read('{"hello": {"name": "Ann", "after": 3, "more": 1}}') == Hello("Ann", "", "", 3)
