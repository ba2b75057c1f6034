"""The room without its programs: what of a line reaches other people's terminals, who is in it, what bots count."""

import asyncio
import re

import pytest

import portico
from portico.tools import bots, chat
from portico.tools.chat import Chat, clean
from portico.tools.hexdump import Dump, lines


@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        ("hello", "hello"),
        ("hello\r", "hello"),
        ("a\tb", "a b"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07x", "x"),
        ("\x1b]8;;http://x\x1b\\link", "link"),
        ("\x1bcreset", "reset"),
        ("bell\x07 back\x08 nul\0 del\x7f csi\x9b31m", "bell back nul del csi31m"),
        ("one\u2028two\u2029three", "onetwothree"),
        ("abc\u202edef", "abcdef"),
        ("Grüße, 世界 👩‍💻", "Grüße, 世界 👩‍💻"),
        ("\x1b", ""),
    ],
)
def test_nothing_is_left_that_a_terminal_would_obey(typed: str, shown: str) -> None:
    assert clean(typed) == shown


def test_hex_lines_show_offset_bytes_and_characters() -> None:
    assert list(lines(b"hello \x00\xffworld, this", 0x20)) == [
        "00000020  68 65 6c 6c 6f 20 00 ff  77 6f 72 6c 64 2c 20 74  |hello ..world, t|",
        "00000030  68 69 73                                          |his|",
    ]


def test_each_direction_has_its_own_offset() -> None:
    dump = Dump()
    assert dump.sent(b"ab").startswith("> 00000000  61 62 ")
    assert dump.received(b"c").startswith("< 00000000  63 ")
    assert dump.sent(b"c").startswith("> 00000002  63 ")


def test_packets_each_have_their_own_offset_and_the_name_of_their_sender() -> None:
    dump = Dump("here", packets=True)
    assert dump.received(b"abc", "there").startswith("there < 00000000  61 62 63 ")
    assert dump.received(b"d", "there").startswith("there < 00000000  64 ")
    assert dump.sent(b"e").startswith("here > 00000000  65 ")
    assert dump.received(b"") == "here < 00000000  (an empty packet)\n"


async def _heard(channel: "portico.Channel[str]", part: str) -> str:
    async for line in channel:
        if part in line:
            return line
    raise AssertionError(f"{part!r} did not come")


def test_who_is_silent_over_udp_leaves_and_who_is_silent_over_tcp_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat, "SILENCE", 0.3)

    async def main() -> None:
        room = Chat()
        service = portico.Service()
        for scheme in ("udp", "tcp"):
            service.listen(f"{scheme}://127.0.0.1:0", room.join, codec=room.codec())
        async with portico.serve(service) as server, asyncio.timeout(10):
            udp, tcp = server.addresses
            async with (
                portico.connect(tcp, codec=room.codec()) as stays,
                portico.connect(udp, codec=room.codec()) as leaves,
            ):
                await _heard(stays, "welcome")
                await leaves.send("")
                await _heard(leaves, "you were silent for too long")
                assert await _heard(stays, "left") == "* guest-2 left"
                await leaves.send("back")
                assert await _heard(stays, ": back") == "guest-3: back"
                await stays.send("still here")
                assert await _heard(leaves, ": still") == "guest-1: still here"

    asyncio.run(main())


def _bot(number: int, scheme: str) -> bots.Bot:
    one, _ = portico.memory_pair()
    return bots.Bot(number, portico.Address(scheme, "127.0.0.1", 1), one.channel(Chat.codec()))


def test_nobody_speaks_while_a_bot_by_udp_is_far_behind() -> None:
    async def main() -> None:
        slow, speaker = _bot(0, "udp"), _bot(1, "tcp")
        window = bots.Window([slow, speaker])
        speaker.spoken = bots.WINDOW - 1
        async with asyncio.timeout(10):
            await window.room()
            speaker.spoken += 1
            waiting = asyncio.ensure_future(window.room())
            await asyncio.sleep(0)
            assert not waiting.done()
            slow.taken += 1
            window.moved.set()
            await waiting
        for bot in (slow, speaker):
            bot.channel.abort()

    asyncio.run(main())


def test_what_a_bot_has_missed_is_not_waited_for_once_more_of_the_same_sender_has_come() -> None:
    """A packet that the kernel has dropped counts as dropped, and does not hold up the others."""

    async def main() -> None:
        one, other = portico.memory_pair()
        bot = bots.Bot(0, portico.Address("udp", "127.0.0.1", 1), one.channel(Chat.codec()))
        room = other.channel(Chat.codec())
        for text in ("bot 1 0 0.0", "bot 1 3 0.0", "bot 1 2 0.0", "bot 1 end 5"):
            await room.send(f"guest-2: {text}")
        speaker = _bot(1, "tcp")
        speaker.sent, speaker.spoken = 5, 6
        async with asyncio.timeout(10):
            await bot.listen(2, bots.Window([bot, speaker]))
        assert (bot.delivered, bot.disordered, bot.taken) == (2, 1, 6)
        assert bots.summary([bot, speaker])[0].dropped == 3
        for each in (bot.channel, room, speaker.channel):
            each.abort()

    asyncio.run(main())


def test_what_the_kernel_drops_is_lost_and_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Bots by UDP with a receive buffer of a packet or two, who all speak at once."""

    async def no_waiting(self: bots.Window) -> None: ...

    monkeypatch.setitem(bots.MORE, "udp", {"options": {"receive_buffer": 1}})
    monkeypatch.setattr(bots.Window, "room", no_waiting)
    monkeypatch.setattr(bots, "PATIENCE", 0.5)
    assert not asyncio.run(bots.run_bots(60, 0.0, "room"))
    shown = capsys.readouterr().out
    assert re.search(r"^\d+ messages were lost$", shown, re.M), shown
    assert re.search(r"^\d+ UDP packets came faster than they were read, and the kernel dropped them$", shown, re.M)
    for door in ("tcp", "tls", "unix", "ws"):
        assert re.search(rf"^ {door} +12 +12 +708 +708 +0 ", shown, re.M), shown
