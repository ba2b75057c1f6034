import contextlib
import itertools
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portico.errors import ConfigurationError, ProtocolError
from portico.protocols.deflate import Agreed, Deflate, parse_extensions

PLAIN = Deflate(window_bits=15, context_takeover=True)


@pytest.mark.parametrize(
    ("settings", "offer"),
    [
        (
            Deflate(),
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover; "
            "server_max_window_bits=12; client_max_window_bits=12",
        ),
        (PLAIN, "permessage-deflate; client_max_window_bits"),
        (
            Deflate(window_bits=9, context_takeover=True),
            "permessage-deflate; server_max_window_bits=9; client_max_window_bits=9",
        ),
        (
            Deflate(window_bits=15),
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover; client_max_window_bits",
        ),
    ],
)
def test_a_client_offers_what_it_is_set_to(settings: Deflate, offer: str) -> None:
    assert settings.offer() == offer


@pytest.mark.parametrize(
    ("offer", "answer"),
    [
        ("permessage-deflate", "permessage-deflate"),
        ("permessage-deflate; client_max_window_bits", "permessage-deflate"),
        ("permessage-deflate; client_max_window_bits=10", "permessage-deflate; client_max_window_bits=10"),
        ("permessage-deflate; client_max_window_bits=8", "permessage-deflate; client_max_window_bits=8"),
        ("permessage-deflate; server_max_window_bits=10", "permessage-deflate; server_max_window_bits=10"),
        ("permessage-deflate; server_max_window_bits=8", "permessage-deflate; server_max_window_bits=8"),
        ("permessage-deflate; server_max_window_bits=15", "permessage-deflate; server_max_window_bits=15"),
        ('permessage-deflate; server_max_window_bits="10"', "permessage-deflate; server_max_window_bits=10"),
        (r'permessage-deflate; server_max_window_bits="1\0"', "permessage-deflate; server_max_window_bits=10"),
        ("permessage-deflate;server_no_context_takeover", "permessage-deflate; server_no_context_takeover"),
        ("permessage-deflate ; client_no_context_takeover", "permessage-deflate; client_no_context_takeover"),
    ],
)
def test_a_server_without_wishes_grants_what_is_asked(offer: str, answer: str) -> None:
    accepted = PLAIN.accept([offer])
    assert accepted is not None and accepted[1] == answer


def test_a_server_keeps_its_windows_small_where_it_may() -> None:
    server = Deflate(window_bits=11)
    accepted = server.accept(["permessage-deflate; client_max_window_bits"])
    assert accepted == (
        Agreed(True, True, 11, 11, server),
        "permessage-deflate; server_no_context_takeover; client_no_context_takeover; "
        "server_max_window_bits=11; client_max_window_bits=11",
    )
    accepted = server.accept(["permessage-deflate"])  # without client_max_window_bits the client cannot be told
    assert accepted is not None
    assert accepted[0].client_max_window_bits == 15 and "client_max_window_bits" not in accepted[1]


WRONG = [
    "server_max_window_bits",
    "server_max_window_bits=7",
    "server_max_window_bits=16",
    "server_max_window_bits=08",
    "server_max_window_bits=+9",
    "client_max_window_bits=0",
    "client_max_window_bits=1e1",
    "server_no_context_takeover=1",
    "client_no_context_takeover=true",
    "unknown",
    "unknown=1",
    "Server_No_Context_Takeover",
    "server_no_context_takeover; server_no_context_takeover",
    "client_max_window_bits; client_max_window_bits=10",
]


@pytest.mark.parametrize("parameters", WRONG)
def test_an_offer_that_cannot_be_is_declined_and_the_next_one_taken(parameters: str) -> None:
    assert PLAIN.accept([f"permessage-deflate; {parameters}"]) is None
    accepted = PLAIN.accept(
        [f"x-other; a=1, permessage-deflate; {parameters}", "permessage-deflate; server_max_window_bits=9"]
    )
    assert accepted is not None and accepted[0].server_max_window_bits == 9


@pytest.mark.parametrize("parameters", [*WRONG, "client_max_window_bits"])
def test_an_answer_that_cannot_be_fails_the_client(parameters: str) -> None:
    with pytest.raises(ProtocolError, match="parameters that cannot be"):
        PLAIN.agree([f"permessage-deflate; {parameters}"])


@pytest.mark.parametrize(
    ("settings", "answer", "said"),
    [
        (PLAIN, "x-webkit-deflate-frame", "chose the extension 'x-webkit-deflate-frame'"),
        (PLAIN, "permessage-deflate, permessage-deflate", "chose the extension 'permessage-deflate'"),
        (PLAIN, "permessage-deflate, foo", "chose the extension 'foo'"),
        (Deflate(), "permessage-deflate; server_max_window_bits=12", "without server_no_context_takeover"),
        (Deflate(), "permessage-deflate; server_no_context_takeover", "larger window than server_max_window_bits=12"),
        (
            Deflate(),
            "permessage-deflate; server_no_context_takeover; server_max_window_bits=13",
            "larger window than server_max_window_bits=12",
        ),
    ],
)
def test_an_answer_that_was_not_asked_for_fails_the_client(settings: Deflate, answer: str, said: str) -> None:
    with pytest.raises(ProtocolError, match=said):
        settings.agree([answer])


def test_a_client_may_be_told_to_keep_less() -> None:
    agreed = PLAIN.agree(
        ["permessage-deflate; client_no_context_takeover; client_max_window_bits=9; server_max_window_bits=8"]
    )
    assert agreed == Agreed(False, True, 8, 9, PLAIN)


def test_a_client_keeps_within_its_own_settings_whatever_it_was_allowed() -> None:
    settings = Deflate()
    agreed = settings.agree(["permessage-deflate; server_no_context_takeover; server_max_window_bits=10"])
    assert agreed == Agreed(True, True, 10, 12, settings)


def test_no_answer_is_no_compression() -> None:
    assert PLAIN.agree([]) is None
    assert PLAIN.agree([""]) is None
    assert PLAIN.accept([]) is None
    assert PLAIN.accept(["x-webkit-deflate-frame"]) is None


SETTINGS = [
    Deflate(window_bits=bits, context_takeover=takeover)
    for bits, takeover in itertools.product((9, 12, 15), (False, True))
]


@pytest.mark.parametrize("client", SETTINGS, ids=repr)
@pytest.mark.parametrize("server", SETTINGS, ids=repr)
def test_both_ends_of_any_settings_understand_each_other(client: Deflate, server: Deflate) -> None:
    accepted = server.accept([client.offer()])
    assert accepted is not None
    theirs, answer = accepted
    ours = client.agree([answer])
    assert ours is not None
    assert ours.server_max_window_bits == theirs.server_max_window_bits <= min(server.window_bits, client.window_bits)
    assert ours.server_no_context_takeover == theirs.server_no_context_takeover
    # what the client sends may need less of the server than that has ready, never more
    assert ours.client_max_window_bits <= theirs.client_max_window_bits
    assert ours.client_no_context_takeover >= theirs.client_no_context_takeover


def test_what_zlib_writes_with_9_bits_can_be_read_with_8() -> None:
    packer, unpacker = zlib.compressobj(9, zlib.DEFLATED, -9, 9), zlib.decompressobj(-8)
    data = bytes(i * i % 251 for i in range(300)) * 50
    assert unpacker.decompress(packer.compress(data) + packer.flush()) == data


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("", []),
        (" , ,, ", []),
        ("a", [("a", [])]),
        ("a;b", [("a", [("b", None)])]),
        ('a ; b = c ,\td;e="f"', [("a", [("b", "c")]), ("d", [("e", "f")])]),
        (r'a;b="\c\d"', [("a", [("b", "cd")])]),
    ],
)
def test_lists_of_extensions_are_read(value: str, found: object) -> None:
    assert parse_extensions([value]) == found


@pytest.mark.parametrize(
    "value",
    [
        ";",
        "a;",
        "a;;b",
        "a b",
        "a;b=",
        'a;b="',
        'a;b="c',
        'a;b=""',
        'a;b="c d"',
        'a;b="c"d',
        "a=b",
        "a;b=c=d",
        "ä",
        "a/b",
    ],
)
def test_what_is_no_list_of_extensions_is_refused(value: str) -> None:
    with pytest.raises(ProtocolError, match="no list of extensions"):
        parse_extensions([value])


def test_a_list_without_end_is_refused() -> None:
    assert len(parse_extensions(["a," * 32])) == 32
    with pytest.raises(ProtocolError, match="more than 32"):
        parse_extensions(["a," * 20, "a," * 13])


@given(st.lists(st.text(st.sampled_from('permsag-dflt_wbk;,="\\ \t019'), max_size=60), max_size=3))
def test_anything_is_accepted_declined_or_a_protocol_error(values: list[str]) -> None:
    for act in (PLAIN.accept, PLAIN.agree):
        with contextlib.suppress(ProtocolError):
            act(values)


@pytest.mark.parametrize(
    "settings",
    [{"window_bits": 8}, {"window_bits": 16}, {"memory_level": 0}, {"level": 10}, {"threshold": -1}, {"level": 1.5}],
    ids=repr,
)
def test_numbers_out_of_range_are_refused(settings: dict[str, int]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(settings))):
        Deflate(**settings)
