"""Reading requests: events, whatever the pieces they come in; and what is refused with which status."""

import pytest

import portico
from portico.protocols.http11 import END, REASONS, BadRequest, RequestHead, RequestParser, http_date, response_head
from portico.protocols.http_headers import Headers

PIPELINE = (
    b"GET /a?x=1 HTTP/1.1\r\nHost: one\r\n\r\n"
    b"POST /b HTTP/1.1\r\nHost: two\r\nContent-Length: 5\r\n\r\nhello"
    b"\r\nPUT /c HTTP/1.1\r\nHost: three\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"3;note=1\r\nabc\r\n2\r\nde\r\n0\r\nX-Trailer: 1\r\nHost: evil\r\n\r\n"
    b"GET / HTTP/1.1\r\nHost: four\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
    b"HEAD /last HTTP/1.0\r\n\r\n"
)


def told(parser: RequestParser, data: bytes) -> list[object]:
    """The events of `data`; a request to upgrade is ignored."""
    events: list[object] = list(parser.feed(data))
    while parser.rest is not None:
        events += parser.resume()
    return events


def summary(events: list[object]) -> list[object]:
    """Heads as lines, bodies joined."""
    found: list[object] = []
    for event in events:
        if isinstance(event, RequestHead):
            found.append(f"{event.method} {event.target} {event.host}")
        elif isinstance(event, bytes) and found and isinstance(found[-1], bytes):
            found[-1] += event
        else:
            found.append(event)
    return found


EXPECTED = [
    "GET /a?x=1 one", END, "POST /b two", b"hello", END, "PUT /c three", b"abcde", END, "GET / four", END,
    "HEAD /last ", END,
]  # fmt: skip


def test_pipelined_requests_come_apart_in_order() -> None:
    assert summary(told(RequestParser(), PIPELINE)) == EXPECTED


@pytest.mark.parametrize("place", range(1, len(PIPELINE)))
def test_it_does_not_matter_where_the_input_is_cut(place: int) -> None:
    parser = RequestParser()
    assert summary(told(parser, PIPELINE[:place]) + told(parser, PIPELINE[place:])) == EXPECTED


def test_byte_by_byte() -> None:
    parser = RequestParser()
    events: list[object] = []
    for place in range(len(PIPELINE)):
        events += told(parser, PIPELINE[place : place + 1])
    assert summary(events) == EXPECTED


def test_trailers_are_in_no_head() -> None:
    heads = [event for event in told(RequestParser(), PIPELINE) if isinstance(event, RequestHead)]
    assert all(head.headers.get("x-trailer") is None and head.host != "evil" for head in heads)


def test_after_a_request_that_closes_nothing_is_read() -> None:
    parser = RequestParser()
    data = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    assert summary(list(parser.feed(data + data))) == ["GET / a", END]
    assert parser.feed(b"junk") == []


@pytest.mark.parametrize(
    "framing", [b"Content-Length: 3\r\n\r\nabc", b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"]
)
def test_an_upgrade_that_is_not_wanted_leaves_body_and_next_request_as_they_are(framing: bytes) -> None:
    upgrade = b"POST / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: h2c\r\n" + framing
    data = upgrade + upgrade + b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n"
    for place in range(1, len(data)):
        parser = RequestParser()
        events = told(parser, data[:place]) + told(parser, data[place:])
        assert summary(events) == ["POST / a", b"abc", END, "POST / a", b"abc", END, "GET /next a", END]


def test_an_upgrade_stops_behind_the_head() -> None:
    parser = RequestParser()
    (head,) = parser.feed(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n\x81\x00")
    assert isinstance(head, RequestHead) and head.upgrade
    assert parser.feed(b"\x82") == []
    assert parser.take_rest() == b"\x81\x00\x82"


def test_upgrade_without_the_connection_option_is_nothing() -> None:
    head, end = RequestParser().feed(b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n")
    assert isinstance(head, RequestHead) and not head.upgrade and end is END


POST = b"POST / HTTP/1.1\r\nHost: a\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
BAD = {
    "lengths and coding": (400, POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n"),
    "coding and length": (400, POST + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n"),
    "two lengths": (400, POST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd"),
    "a length twice": (400, POST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc"),
    "list of lengths": (400, POST + b"Content-Length: 3, 3\r\n\r\nabc"),
    "length with sign": (400, POST + b"Content-Length: +3\r\n\r\nabc"),
    "length below 0": (400, POST + b"Content-Length: -3\r\n\r\nabc"),
    "length in hex": (400, POST + b"Content-Length: 0x3\r\n\r\nabc"),
    "no length": (400, POST + b"Content-Length:\r\n\r\nabc"),
    "endless length": (400, POST + b"Content-Length: " + b"0" * 5000 + b"3\r\n\r\nabc"),
    "huge length": (400, POST + b"Content-Length: 18446744073709551616\r\n\r\n"),
    "gzip": (501, POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
    "chunked not last": (400, POST + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n"),
    "chunked twice": (400, POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n"),
    "xchunked": (501, POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
    "identity": (501, POST + b"Transfer-Encoding: identity\r\n\r\n"),
    "no coding": (400, POST + b"Transfer-Encoding: \r\n\r\n"),
    "vertical tab": (400, POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n"),
    "coding in 1.0": (400, b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    "folded": (400, b"GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n"),
    "folded by tab": (400, b"GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n\tc\r\n\r\n"),
    "space at first": (400, b"GET / HTTP/1.1\r\n Host: a\r\n\r\n"),
    "space before colon": (400, b"GET / HTTP/1.1\r\nHost : a\r\n\r\n"),
    "no colon": (400, b"GET / HTTP/1.1\r\nHost: a\r\nfoo\r\n\r\n"),
    "no name": (400, b"GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n"),
    "bare LF": (400, b"GET / HTTP/1.1\nHost: a\n\n"),
    "bare LF in fields": (400, b"GET / HTTP/1.1\r\nHost: a\r\nX: b\nY: c\r\n\r\n"),
    "bare CR": (400, b"GET / HTTP/1.1\r\nHost: a\r\nX: b\rY: c\r\n\r\n"),
    "NUL": (400, b"GET / HTTP/1.1\r\nHost: a\r\nX: b\0c\r\n\r\n"),
    "control character": (400, b"GET / HTTP/1.1\r\nHost: a\r\nX: b\x01c\r\n\r\n"),
    "no Host": (400, b"GET / HTTP/1.1\r\n\r\n"),
    "two Hosts": (400, b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"),
    "odd Host": (400, b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"),
    "user in Host": (400, b"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n"),
    "two in Host": (400, b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n"),
    "authority form": (400, b"GET a:80 HTTP/1.1\r\nHost: a\r\n\r\n"),
    "CONNECT": (501, b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n"),
    "asterisk": (400, b"GET * HTTP/1.1\r\nHost: a\r\n\r\n"),
    "other scheme": (400, b"GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n"),
    "user in URL": (400, b"GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n"),
    "fragment": (400, b"GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n"),
    "NUL in path": (400, b"GET /a%00.html HTTP/1.1\r\nHost: a\r\n\r\n"),
    "space in target": (400, b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n"),
    "bytes in target": (400, b"GET /\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n"),
    "HTTP/0.9": (505, b"GET /\r\n\r\n"),
    "HTTP/1.2": (505, b"GET / HTTP/1.2\r\nHost: a\r\n\r\n"),
    "HTTP/2.0": (505, b"GET / HTTP/2.0\r\nHost: a\r\n\r\n"),
    "HTTP/2 preface": (505, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    "unknown method": (501, b"BREW / HTTP/1.1\r\nHost: a\r\n\r\n"),
    "small letters": (501, b"get / HTTP/1.1\r\nHost: a\r\n\r\n"),
    "TLS": (400, b"\x16\x03\x01\x02\x00\x01\x00"),
    "junk": (400, b"\0\1\2\3"),
    "expectation": (417, b"POST / HTTP/1.1\r\nHost: a\r\nExpect: cake\r\nContent-Length: 1\r\n\r\n"),
    "chunk size with sign": (400, CHUNKED + b"-1\r\n"),
    "chunk size as 0x": (400, CHUNKED + b"0x1\r\nx\r\n"),
    "chunk size with space": (400, CHUNKED + b"1 \r\nx\r\n"),
    "huge chunk": (400, CHUNKED + b"fffffffffffffffff\r\n"),
    "chunk ended by LF": (400, CHUNKED + b"1\nx\r\n"),
    "chunk too long": (400, CHUNKED + b"1\r\nxy\r\n"),
    "length in trailer": (400, CHUNKED + b"0\r\nContent-Length: 1\r\n\r\n"),
}  # fmt: skip


def failure(data: bytes, cut: int | None = None, **limits: int) -> BadRequest:
    parser = RequestParser(**limits)
    with pytest.raises(BadRequest) as caught:
        for piece in [data] if cut is None else [data[i : i + cut] for i in range(0, len(data), cut)]:
            parser.feed(piece)
        parser.feed(b"\r\n")
    return caught.value


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("cut", [None, 1, 7])
def test_what_two_programs_could_read_differently_is_refused(name: str, cut: int | None) -> None:
    status, data = BAD[name]
    error = failure(data, cut)
    assert error.status == status
    assert isinstance(error, portico.ProtocolError) and len(str(error).splitlines()) == 1
    assert "callback" not in str(error)


def test_good_requests_before_a_bad_one_are_told_first() -> None:
    parser = RequestParser()
    assert summary(list(parser.feed(b"GET / HTTP/1.1\r\nHost: a\r\n\r\nnonsense\r\n\r\n"))) == ["GET / a", END]
    assert parser.failure is not None
    with pytest.raises(BadRequest):
        parser.feed(b"")


@pytest.mark.parametrize("cut", [None, 1, 100])
def test_a_head_over_the_limit_is_431_and_a_target_414(cut: int | None) -> None:
    many = b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: %s\r\n" % (b"y" * 50) * 20
    assert failure(many + b"\r\n", cut, max_head=1000).status == 431
    assert failure(b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 2500, 100, max_head=1000).status == 431
    assert failure(b"GET /" + b"y" * 600 + b" HTTP/1.1\r\nHost: a\r\n\r\n", cut, max_head=1000).status == 414
    assert failure(b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X:\r\n" * 10 + b"\r\n", cut, max_headers=10).status == 431


def test_a_head_at_the_limit_behind_a_large_body_is_fine() -> None:
    parser = RequestParser(max_head=100)
    body = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 500\r\n\r\n" + b"x" * 500
    assert len(parser.feed(body + b"GET / HTTP/1.1\r\nHo")) == 3
    assert summary(list(parser.feed(b"st: a\r\n\r\n"))) == ["GET / a", END]


def test_endless_chunk_extensions_and_trailers_are_refused() -> None:
    start = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert failure(start + b"1;" + b"x" * 3000, 500, max_head=1000).status == 400
    assert failure(start + b"0\r\n" + b"X: y\r\n" * 500, 500, max_head=1000).status == 400


def test_a_body_of_single_bytes_is_no_attack() -> None:
    parser = RequestParser(max_head=100)
    parser.feed(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(500):
        assert parser.feed(b"1\r\nx\r\n") == [b"x"]


def head_of(target: str, **headers: str) -> RequestHead:
    return RequestHead(
        "GET", target, "1.1", Headers({name.replace("_", "-"): value for name, value in headers.items()})
    )


def test_a_target_is_taken_apart() -> None:
    head = head_of("/caf%C3%A9/a%2Fb?x=1&x=2&y=&z#", host="Example.org:80")
    assert (head.raw_path, head.path) == ("/caf%C3%A9/a%2Fb", "/café/a/b")
    assert head_of("/a?b=1&b=2&c=").query_params == {"b": ["1", "2"], "c": [""]}
    assert head_of("/a").query_params == {} and head_of("/a").host == ""
    assert head.host == "example.org"
    assert head_of("/", host="[::1]:80").host == "::1"


def test_two_slashes_are_a_path_and_no_host() -> None:
    head = head_of("//evil.example/x", host="a")
    assert (head.host, head.path, head.authority) == ("a", "//evil.example/x", "")


@pytest.mark.parametrize(
    ("target", "authority", "path", "query"),
    [
        ("http://B.example:8080/x?y", "B.example:8080", "/x", "y"),
        ("http://b.example", "b.example", "/", ""),
        ("https://b.example?y", "b.example", "/", "y"),
    ],
)
def test_the_host_of_a_whole_url_comes_before_the_field(target: str, authority: str, path: str, query: str) -> None:
    head = head_of(target, host="a")
    assert (head.authority, head.host, head.path, head.query) == (authority, "b.example", path, query)


def test_cookies() -> None:
    headers = Headers([("Cookie", 'a=1; b="two"; a=3; junk; =x'), ("Cookie", "c=4=5")])
    assert RequestHead("GET", "/", "1.1", headers).cookies == {"a": "1", "b": "two", "": "x", "c": "4=5"}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("Basic dXNlcjpwYTpzcw==", ("basic", "user", "pa:ss")),
        ("basic ZMOpOsOp", ("basic", "dé", "é")),
        ("Bearer abc", ("bearer", "abc")),
        ("Basic !", None),
        ("Basic /w==", None),
        ("Basic \xe9", None),
        ("Basic dXNlcg==", None),
        ("Bearer ", None),
        ("Digest x", None),
        ("", None),
    ],
)
def test_credentials(value: str, expected: object) -> None:
    assert head_of("/", authorization=value).credentials == expected


def test_expecting_100_continue_counts_in_1_1_only() -> None:
    for version, expected in (("1.1", True), ("1.0", False)):
        request = f"POST / HTTP/{version}\r\nHost: a\r\nExpect: 100-Continue\r\nContent-Length: 1\r\n\r\n"
        (head,) = RequestParser().feed(request.encode())
        assert isinstance(head, RequestHead) and head.expects_continue is expected and head.body_size == 1


def test_dates_and_heads_as_the_rfc_writes_them() -> None:
    assert http_date(784111777.9) == "Sun, 06 Nov 1994 08:49:37 GMT"
    assert response_head(200, [("A", "b")]) == b"HTTP/1.1 200 OK\r\nA: b\r\n\r\n"
    assert response_head(101, [], "Fine") == b"HTTP/1.1 101 Fine\r\n\r\n"
    assert REASONS[413] == "Content Too Large"
