"""What of a line reaches other people's terminals."""

import pytest

from portico.tools.chat import clean
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
