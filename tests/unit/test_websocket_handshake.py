import base64
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portico.address import Address
from portico.errors import ConfigurationError, ProtocolError
from portico.protocols.deflate import Deflate
from portico.protocols.http_asking import authority, authorization, has_same_origin, redirected
from portico.protocols.http_headers import Headers, encode
from portico.protocols.http_response import ResponseParser
from portico.protocols.websocket import Agreement, Offer, Refusal, Upgrade, accept_value, read_request
from portico.websocket.settings import WebSocketSettings

SAMPLE_KEY, SAMPLE_ACCEPT = "dGhlIHNhbXBsZSBub25jZQ==", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
"""From RFC 6455, section 1.3."""

Fields = list[tuple[str, str]]

REQUEST: Fields = [
    ("Host", "server.example.com"),
    ("Upgrade", "websocket"),
    ("Connection", "Upgrade"),
    ("Sec-WebSocket-Key", SAMPLE_KEY),
    ("Sec-WebSocket-Version", "13"),
]
ANSWER: Fields = [
    ("Upgrade", "websocket"),
    ("Connection", "Upgrade"),
    ("Sec-WebSocket-Accept", SAMPLE_ACCEPT),
]


def changed(fields: Fields, *changes: tuple[str, str | None]) -> Headers:
    """`fields` with other values, None for none; a name that is not there is added."""
    made = list(fields)
    for name, value in changes:
        made = [each for each in made if each[0] != name]
        if value is not None:
            made.append((name, value))
    return Headers(made)


def sample_offer(**settings: object) -> Offer:
    return Offer(base64.b64decode(SAMPLE_KEY), **settings)  # type: ignore[arg-type]


def read(
    *changes: tuple[str, str | None], more: Sequence[tuple[str, str]] = (), method: str = "GET", version: str = "1.1"
) -> Upgrade | Refusal:
    return read_request(method, version, Headers([*changed(REQUEST, *changes), *more]))


def test_the_accept_value_is_that_of_the_rfc() -> None:
    assert accept_value(SAMPLE_KEY) == SAMPLE_ACCEPT


# the server


def test_a_request_as_in_the_rfc_is_answered() -> None:
    found = read()
    assert isinstance(found, Upgrade)
    assert found.agree((), None) == (Agreement(), ANSWER)


@pytest.mark.parametrize(
    "changes",
    [
        [("Upgrade", "WebSocket")],
        [("Connection", "keep-alive, UPGRADE")],
        [("Content-Length", "0")],
        [("Sec-WebSocket-Version", " 13")],
        [("Sec-WebSocket-Protocol", "")],
        [("Sec-WebSocket-Extensions", "")],
    ],
    ids=repr,
)
def test_what_is_allowed_is_taken(changes: Fields) -> None:
    assert isinstance(read(*changes), Upgrade)


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ([("Upgrade", None)], 426),
        ([("Upgrade", "h2c")], 426),
        ([("Upgrade", "websocket, h2c")], 426),
        ([("Connection", None)], 400),
        ([("Connection", "keep-alive")], 400),
        ([("Sec-WebSocket-Key", None)], 400),
        ([("Sec-WebSocket-Key", "")], 400),
        ([("Sec-WebSocket-Key", base64.b64encode(bytes(15)).decode())], 400),
        ([("Sec-WebSocket-Key", base64.b64encode(bytes(17)).decode())], 400),
        ([("Sec-WebSocket-Key", SAMPLE_KEY[:-1])], 400),
        ([("Sec-WebSocket-Key", SAMPLE_KEY + "=")], 400),
        ([("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZ?==")], 400),
        ([("Sec-WebSocket-Key", "é" * 24)], 400),
        ([("Sec-WebSocket-Version", None)], 400),
        ([("Sec-WebSocket-Version", "8")], 426),
        ([("Sec-WebSocket-Version", "14")], 426),
        ([("Sec-WebSocket-Version", "13, 8")], 426),
        ([("Sec-WebSocket-Version", "")], 426),
        ([("Content-Length", "1")], 400),
        ([("Transfer-Encoding", "chunked")], 400),
        ([("Sec-WebSocket-Protocol", "a b")], 400),
        ([("Sec-WebSocket-Protocol", "a,b/c")], 400),
    ],
    ids=repr,
)
def test_what_is_wrong_is_refused_with_its_status(changes: list[tuple[str, str | None]], status: int) -> None:
    found = read(*changes)
    assert isinstance(found, Refusal)
    assert found.status == status and found.reason
    if status == 426:
        assert ("Upgrade", "websocket") in found.fields


@pytest.mark.parametrize("name", ["Sec-WebSocket-Key", "Sec-WebSocket-Version", "Upgrade"])
def test_what_may_be_there_once_is_refused_twice(name: str) -> None:
    found = read(more=[each for each in REQUEST if each[0] == name])
    assert isinstance(found, Refusal) and found.status in (400, 426)


def test_a_wrong_version_hears_the_right_one() -> None:
    found = read(("Sec-WebSocket-Version", "12"))
    assert isinstance(found, Refusal) and ("Sec-WebSocket-Version", "13") in found.fields


@pytest.mark.parametrize("method", ["HEAD", "POST", "OPTIONS", "get"])
def test_only_get_asks_for_a_websocket(method: str) -> None:
    found = read(method=method)
    assert isinstance(found, Refusal)
    assert (found.status, found.fields) == (405, [("Allow", "GET")])


def test_http_1_0_has_no_upgrade() -> None:
    found = read(version="1.0")
    assert isinstance(found, Refusal) and found.status == 400


@pytest.mark.parametrize(
    ("offered", "own", "chosen"),
    [
        (["a, b"], ("b", "a"), "b"),
        (["a", "b"], ("b", "a"), "b"),
        (["a,,b"], ("c", "a"), "a"),
        (["A"], ("a",), None),
        (["a"], (), None),
        ([], ("a",), None),
    ],
)
def test_the_server_chooses_one_subprotocol_by_its_own_preference(
    offered: list[str], own: tuple[str, ...], chosen: str | None
) -> None:
    found = read(more=[("Sec-WebSocket-Protocol", each) for each in offered])
    assert isinstance(found, Upgrade)
    agreement, items = found.agree(own, None)
    assert agreement.subprotocol == chosen
    assert [value for name, value in items if name == "Sec-WebSocket-Protocol"] == ([chosen] if chosen else [])


def test_the_server_says_nothing_of_compression_unless_it_takes_an_offer() -> None:
    found = read(("Sec-WebSocket-Extensions", "permessage-deflate"))
    assert isinstance(found, Upgrade)
    assert found.agree((), None)[0].deflate is None
    agreement, items = found.agree((), Deflate())
    assert agreement.deflate is not None and items[-1][0] == "Sec-WebSocket-Extensions"
    found = read(("Sec-WebSocket-Extensions", ";"))
    assert isinstance(found, Upgrade)
    with pytest.raises(ProtocolError):
        found.agree((), Deflate())


# the client


def test_the_client_asks_as_in_the_rfc() -> None:
    assert sample_offer().fields() == REQUEST[1:]
    offer = sample_offer(subprotocols=("a", "b"), deflate=Deflate(window_bits=15, context_takeover=True))
    assert offer.fields()[4:] == [
        ("Sec-WebSocket-Protocol", "a, b"),
        ("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits"),
    ]


@pytest.mark.parametrize(
    "fields",
    [
        Headers(ANSWER),
        changed(ANSWER, ("Upgrade", "WEBSOCKET"), ("Connection", "keep-alive, upgrade")),
        changed(ANSWER, ("Sec-WebSocket-Extensions", "")),
    ],
)
def test_a_right_answer_is_taken(fields: Headers) -> None:
    assert sample_offer().check(fields) == Agreement()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ([("Upgrade", None)], "switched to 'nothing', not to websocket"),
        ([("Upgrade", "h2c")], "switched to 'h2c'"),
        ([("Upgrade", "websocket, h2c")], "switched to"),
        ([("Connection", None)], "does not say Upgrade"),
        ([("Connection", "close")], "does not say Upgrade"),
        ([("Sec-WebSocket-Accept", None)], "does not fit the key"),
        ([("Sec-WebSocket-Accept", SAMPLE_ACCEPT.lower())], "does not fit the key"),
        ([("Sec-WebSocket-Accept", SAMPLE_KEY)], "does not fit the key"),
        ([("Sec-WebSocket-Protocol", "a")], "chose the subprotocol 'a'; offered: none"),
        ([("Sec-WebSocket-Extensions", "permessage-deflate")], "none was offered"),
        ([("Sec-WebSocket-Extensions", "foo")], "none was offered"),
    ],
    ids=repr,
)
def test_a_wrong_answer_fails_the_client(changes: list[tuple[str, str | None]], said: str) -> None:
    with pytest.raises(ProtocolError, match=said):
        sample_offer().check(changed(ANSWER, *changes))


@pytest.mark.parametrize("name", ["Sec-WebSocket-Accept", "Upgrade"])
def test_a_doubled_answer_fails_the_client(name: str) -> None:
    with pytest.raises(ProtocolError):
        sample_offer().check(Headers([*ANSWER, *(each for each in ANSWER if each[0] == name)]))


@pytest.mark.parametrize(
    ("chosen", "result"),
    [(["b"], "b"), ([], None), (["c"], ProtocolError), (["a", "b"], ProtocolError), (["a, b"], ProtocolError)],
)
def test_the_client_takes_only_one_subprotocol_that_it_offered(chosen: list[str], result: object) -> None:
    offer = sample_offer(subprotocols=("a", "b"))
    headers = Headers([*ANSWER, *(("Sec-WebSocket-Protocol", each) for each in chosen)])
    if result is ProtocolError:
        with pytest.raises(ProtocolError, match="offered: a, b"):
            offer.check(headers)
    else:
        assert offer.check(headers).subprotocol == result


@given(st.lists(st.tuples(st.sampled_from([name for name, _ in REQUEST + ANSWER]), st.text(max_size=30)), max_size=8))
def test_any_fields_end_in_an_answer_or_a_protocol_error(fields: Fields) -> None:
    headers = Headers((name, value.encode("latin-1", "replace").decode("latin-1")) for name, value in fields)
    assert isinstance(read_request("GET", "1.1", headers), Upgrade | Refusal)
    with pytest.raises(ProtocolError):
        Offer(bytes(16)).check(headers)


WHOLE = b"HTTP/1.1 101 Switching Protocols\r\n" + encode(ANSWER) + b"\r\n\x81\x02hi"


@given(st.integers(0, len(WHOLE)), st.integers(0, 3), st.binary(max_size=4), st.integers(1, 50))
def test_a_damaged_answer_is_right_unfinished_or_a_protocol_error(at: int, cut: int, more: bytes, step: int) -> None:
    damaged = WHOLE[:at] + more + WHOLE[at + cut :]
    parser = ResponseParser()
    try:
        for start in range(0, len(damaged), step):
            parser.feed(damaged[start : start + step])
        if parser.head is not None and parser.head.status == 101:
            assert sample_offer().check(parser.head.headers) == Agreement()
    except ProtocolError:
        return


# settings


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: WebSocketSettings(subprotocols="chat"), "is one string"),
        (lambda: WebSocketSettings(subprotocols=["a b"]), "is no token"),
        (lambda: WebSocketSettings(subprotocols=["a", "a"]), "has one twice"),
        (lambda: WebSocketSettings(headers={"Upgrade": "x"}), "belongs to the handshake"),
        (lambda: WebSocketSettings(headers=[("sec-websocket-key", "x")]), "belongs to the handshake"),
        (lambda: WebSocketSettings(headers={"X": "a\r\nY: b"}), "CR, LF or NUL"),
        (lambda: WebSocketSettings(deflate=True), "must be a Deflate"),  # type: ignore[arg-type]
        (lambda: WebSocketSettings(max_size=0), "max_size=0"),
        (lambda: WebSocketSettings(max_redirects=-1), "max_redirects=-1"),
        (lambda: WebSocketSettings(ping_interval=0), "ping_interval=0"),
        (lambda: WebSocketSettings(origins=["example.org"]), "is no origin"),
        (lambda: WebSocketSettings(origins=5), "must be"),  # type: ignore[arg-type]
        (lambda: WebSocketSettings(authorize="x"), "must be a function"),  # type: ignore[arg-type]
        (lambda: WebSocketSettings(origin="example.org"), "is no origin"),
        (lambda: WebSocketSettings(credentials="a b"), "bearer token"),
        (lambda: WebSocketSettings(credentials=("a:b", "c")), "without ':'"),
        (lambda: WebSocketSettings(credentials=("a", "b", "c")), "as a pair"),  # type: ignore[arg-type]
        (
            lambda: WebSocketSettings(credentials="t", headers={"authorization": "Basic eA=="}),
            "'Authorization' say the",
        ),
        (lambda: WebSocketSettings(cookies={"a": "b"}, headers={"Cookie": "c=d"}), "'Cookie' say the same; give one"),
        (lambda: WebSocketSettings(origin="http://a", headers={"Origin": "http://a"}), "'Origin' say the same"),
        (lambda: WebSocketSettings(cookies={"a": "b; c=d"}), "cookie 'a'"),
        (lambda: WebSocketSettings(cookies={"a b": "c"}), "cookie 'a b'"),
    ],
)
def test_settings_that_cannot_work_are_refused_at_once(make: Callable[[], object], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        make()


def test_no_text_shows_credentials() -> None:
    shown = repr(WebSocketSettings(credentials=("joe", "secret"), cookies={"a": "secret"}))
    assert "secret" not in shown


# whom a client asks


@pytest.mark.parametrize(
    ("address", "host"),
    [
        ("ws://example.org/x", "example.org"),
        ("ws://example.org:443/x", "example.org:443"),
        ("wss://example.org:443/x", "example.org"),
        ("ws://[::1]:8000/", "[::1]:8000"),
        ("ws://[fe80::1%eth0]/", "[fe80::1]"),
        ("ws+unix:/run/x.sock:/a", "localhost"),
    ],
)
def test_the_host_field_names_the_server(address: str, host: str) -> None:
    assert authority(Address.parse(address)) == host


def test_credentials_are_written_as_the_rfcs_say() -> None:
    assert authorization(("Aladdin", "open sesame")) == "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="  # RFC 7617, section 2
    assert authorization("mF_9.B5f-4.1JqM") == "Bearer mF_9.B5f-4.1JqM"  # RFC 6750, section 2.1


@pytest.mark.parametrize(
    ("address", "place", "there"),
    [
        ("ws://h/a/b?c", "x", "ws://h/a/x"),
        ("ws://h/a", "/z?q#f", "ws://h/z?q"),
        ("ws://h/a", "//k:81/z", "ws://k:81/z"),
        ("ws://h/a", "https://h/q", "wss://h/q"),
        ("ws://h/a", "WSS://h/q", "wss://h/q"),
        ("wss://h:1/a", "wss://k/", "wss://k/"),
        ("ws://[fe80::1%eth0]:7/a", "/z", "ws://[fe80::1%eth0]:7/z"),
        ("ws+unix:/run/s:/a/b", "c", "ws+unix:/run/s:/a/c"),
        ("http://h/a", "/ä", "http://h/%E4"),
    ],
)
def test_redirects_lead_to(address: str, place: str, there: str) -> None:
    assert redirected(Address.parse(address), 302, place) == Address.parse(there)


@pytest.mark.parametrize(
    ("address", "place", "said"),
    [
        ("wss://h/", "http://h/", "from TLS to none"),
        ("wss://h/", "ws://h/", "from TLS to none"),
        ("ws://h/", "ftp://h/", "no URL of ws or wss"),
        ("ws://h/", "unix:/run/s", "no URL of ws or wss"),
        ("ws://h/", "ws+unix:/run/s:/", "no URL of ws or wss"),
        ("ws://h/", "http://[/", "no URL that can be reached"),
        ("ws://h/", "http://h:99999/", "no URL that can be reached"),
        ("ws://h/", "http://joe:pw@h/", "no URL that can be reached"),
        ("ws+unix:/run/s:/a", "http://example.org/", "leads to no other server"),
    ],
)
def test_redirects_that_lead_nowhere_are_protocol_errors(address: str, place: str, said: str) -> None:
    with pytest.raises(ProtocolError, match=said):
        redirected(Address.parse(address), 307, place)


def test_an_origin_is_scheme_host_and_port() -> None:
    here = Address.parse("ws://h/a")
    assert has_same_origin(here, Address.parse("ws://H:80/b?c"))
    for other in ("wss://h/a", "ws://h:81/a", "ws://k/a"):
        assert not has_same_origin(here, Address.parse(other))
