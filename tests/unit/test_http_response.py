"""Responses as a client reads them, and heads of requests as it writes them: bytes in, bytes out."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portico.errors import ConfigurationError, EndOfStream, ProtocolError
from portico.protocols.http_response import MAX_HEAD, ResponseHead, ResponseParser, request_head

PLAIN = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;name=value\r\nhel\r\n2\r\nlo\r\n0\r\nChecksum: 17\r\n\r\n"
)
UNTIL_CLOSE = b"HTTP/1.0 200 OK\r\nServer: old\r\n\r\nhello"
INTERIM = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + PLAIN
GOOD = {"length": PLAIN, "chunked": CHUNKED, "until close": UNTIL_CLOSE, "interim": INTERIM}


def read(*pieces: bytes, method: str = "GET") -> tuple[ResponseParser, bytes]:
    """Feed pieces, and return the parser and the body so far."""
    parser = ResponseParser(method)
    found = [event for piece in pieces for event in parser.feed(piece)]
    heads = [event for event in found if isinstance(event, ResponseHead)]
    assert heads == ([parser.head] if parser.head else []) and found[:1] == heads[:1]
    return parser, b"".join(event for event in found if isinstance(event, bytes))


def cut(data: bytes) -> list[tuple[bytes, bytes]]:
    return [(data[:place], data[place:]) for place in range(len(data) + 1)]


@pytest.mark.parametrize("name", GOOD)
def test_a_response_is_the_same_wherever_it_is_cut(name: str) -> None:
    data = GOOD[name]
    for pieces in [*cut(data), tuple(data[i : i + 1] for i in range(len(data)))]:
        parser, body = read(*pieces)
        if name == "until close":
            assert not parser.complete
            parser.end()
        assert parser.complete and body == b"hello" and parser.head is not None
        assert (parser.head.status, parser.head.reason) == (200, "OK")


@pytest.mark.parametrize("name", GOOD)
def test_a_response_that_ends_early_is_told_from_a_whole_one(name: str) -> None:
    data = GOOD[name]
    least = len(UNTIL_CLOSE) - len(b"hello") if name == "until close" else len(data)
    for size in range(least):
        parser, body = read(data[:size])
        assert b"hello".startswith(body)
        with pytest.raises(EndOfStream):
            parser.end()
        assert not parser.complete


def test_fields_are_found_in_any_case_and_trailers_are_none_of_them() -> None:
    parser, _ = read(CHUNKED.replace(b"chunked\r\n", b"chunked\r\nSET-COOKIE: a  \r\nset-cookie: b\r\n"))
    assert parser.head is not None
    assert parser.head.headers.get_all("Set-Cookie") == ["a", "b"] and "Checksum" not in parser.head.headers
    assert parser.head.content_length is None


@pytest.mark.parametrize(
    ("method", "start"),
    [("HEAD", b"HTTP/1.1 200 OK\r\n"), ("GET", b"HTTP/1.1 204 No Content\r\n"), ("GET", b"HTTP/1.1 304 \r\n")],
)
@pytest.mark.parametrize("field", [b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b""])
def test_some_responses_have_no_body_whatever_their_head_says(method: str, start: bytes, field: bytes) -> None:
    for pieces in cut(start + field + b"\r\n"):
        parser, body = read(*pieces, method=method)
        assert parser.complete and body == b""
        assert parser.feed(b"HTTP/1.1 999 more") == []


def test_what_follows_a_response_is_no_part_of_it() -> None:
    for data in (PLAIN, PLAIN.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"), CHUNKED):
        for after in (b"x", b"\r\n\r\n", PLAIN):
            parser, body = read(data + after)
            assert parser.complete and body == b"hello" and parser.feed(after) == []


def test_a_switch_of_protocols_gives_back_what_came_behind_the_head() -> None:
    head = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    for first, second in cut(head + b"\x81\x02hi"):
        parser = ResponseParser()
        parser.feed(first)
        early = parser.rest
        if not parser.complete:
            parser.feed(second)
            early = parser.rest
        else:
            early += second
        assert parser.complete and parser.head is not None and parser.head.status == 101 and early == b"\x81\x02hi"


BAD = {
    "both lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
    "both lengths, the other way": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
    "a list of lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\n",
    "a negative length": b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
    "an endless length": b"HTTP/1.1 200 OK\r\nContent-Length: " + b"0" * 5000 + b"3\r\n\r\nabc",
    "no length": b"HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n",
    "a huge length": b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\n",
    "a huge chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
    "a negative chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n",
    "a chunk longer than it says": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n",
    "a coding nobody asked for": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
    "a coding without chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
    "a name that looks like chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n",
    "chunked twice": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
    "another protocol": b"220 mail.example ESMTP\r\n",
    "one that llhttp knows, too": b"RTSP/1.0 200 OK\r\n\r\n",
    "HTTP/2": b"HTTP/2.0 200 OK\r\n\r\n",
    "HTTP/0.9": b"HTTP/0.9 200 OK\r\n\r\n",
    "a status that is none": b"HTTP/1.1 099 Low\r\n\r\n",
    "a status of letters": b"HTTP/1.1 abc OK\r\n\r\n",
    "a folded field": b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n",
    "a space before the colon": b"HTTP/1.1 200 OK\r\nA : b\r\n\r\n",
    "a NUL": b"HTTP/1.1 200 OK\r\nA: b\0\r\n\r\n",
    "lines without CR": b"HTTP/1.1 200 OK\nA: b\n\n",
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_response_is_told_wherever_it_is_cut(name: str) -> None:
    for pieces in cut(BAD[name]):
        with pytest.raises(ProtocolError) as caught:
            read(*pieces, b"")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("size", [1, 1000])
def test_what_came_before_an_error_is_given_first(size: int) -> None:
    data = CHUNKED.replace(b"\r\n2\r\n", b"\r\nnonsense\r\n")
    parser, body = ResponseParser(), b""
    with pytest.raises(ProtocolError, match="chunk size"):
        for start in range(0, len(data), size):
            body += b"".join(event for event in parser.feed(data[start : start + size]) if isinstance(event, bytes))
        parser.feed(b"")
    assert parser.head is not None and parser.head.status == 200 and body == b"hel"
    for call in (parser.end, lambda: parser.feed(PLAIN)):
        with pytest.raises(ProtocolError, match="chunk size"):
            call()


def test_who_speaks_something_else_is_found_out_at_the_first_byte() -> None:
    with pytest.raises(ProtocolError, match="does not begin with HTTP/"):
        ResponseParser().feed(b"S")
    with pytest.raises(ProtocolError, match="does not begin with HTTP/"):
        read(b"HT", b"ML")


ENDLESS = {
    "status line": (b"HTTP/1.1 200 ", b"x"),
    "name": (b"HTTP/1.1 200 OK\r\n", b"x"),
    "value": (b"HTTP/1.1 200 OK\r\nA: ", b"x"),
    "fields": (b"HTTP/1.1 200 OK\r\n", b"A: b\r\n"),
    "interim responses": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "chunk extension": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;", b"x"),
    "chunk extensions": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1;" + b"x" * 80 + b"\r\na\r\n"),
    "trailers": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"A: b\r\n"),
    "digits of a chunk size": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"0"),
}


@pytest.mark.parametrize("step", [1, 1000, 1 << 16])
@pytest.mark.parametrize("name", ENDLESS)
def test_what_has_no_end_is_refused_after_a_bounded_size(name: str, step: int) -> None:
    start, more = ENDLESS[name]
    data = start + more * (8 * MAX_HEAD // len(more))
    parser = ResponseParser()
    fed = 0
    with pytest.raises(ProtocolError):
        while fed <= len(data):
            parser.feed(data[fed : fed + step])
            fed += step
    assert fed <= 4 * MAX_HEAD


def test_a_head_may_be_as_long_as_the_limit_and_no_longer() -> None:
    start, end = b"HTTP/1.1 204 None\r\nA: ", b"\r\n\r\n"
    fits = start + b"x" * (MAX_HEAD - len(start) - len(end)) + end
    assert read(fits)[0].complete
    with pytest.raises(ProtocolError, match=f"longer than {MAX_HEAD} bytes"):
        read(fits.replace(b"xx", b"xxx", 1))
    with pytest.raises(ProtocolError, match="longer than 20 bytes"):
        ResponseParser(max_head=20).feed(PLAIN)


def test_a_body_of_small_chunks_is_no_attack() -> None:
    chunks = b"1\r\na\r\n" * 50_000
    parser, body = read(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks, b"0\r\n\r\n")
    assert parser.complete and body == b"a" * 50_000


@given(st.lists(st.binary(max_size=60), max_size=6), st.sampled_from([b"", *GOOD.values(), *BAD.values()]))
def test_nothing_but_documented_errors_comes_out(pieces: list[bytes], start: bytes) -> None:
    parser = ResponseParser()
    try:
        for piece in [start[: len(start) - 3], *pieces]:
            parser.feed(piece)
        parser.end()
    except (ProtocolError, EndOfStream):
        pass
    else:
        assert parser.complete


def test_a_request_head_has_its_fields_in_order() -> None:
    assert request_head("GET", "/a?b=%20", [("Host", "x"), ("B", "é")]) == (
        b"GET /a?b=%20 HTTP/1.1\r\nHost: x\r\nB: \xe9\r\n\r\n"
    )


@pytest.mark.parametrize(
    ("method", "target", "items"),
    [
        ("GE T", "/", []),
        ("", "/", []),
        ("GET\r\n", "/", []),
        ("GET", "", []),
        ("GET", "/ HTTP/1.1\r\nX: y", []),
        ("GET", "/ü", []),
        ("GET", "/", [("A", "b\r\nC: d")]),
        ("GET", "/", [("A\r\n", "b")]),
        ("GET", "/", [("A", "\N{SNOWMAN}")]),
    ],
)
def test_nothing_can_be_smuggled_into_a_request_head(method: str, target: str, items: list[tuple[str, str]]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        request_head(method, target, items)
    assert not re.search(r"[\r\n]", str(caught.value))
