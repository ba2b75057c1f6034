"""Whatever bytes come, the reader of requests tells events or BadRequest, the same wherever they are cut."""

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from portico.protocols.http11 import BadRequest, RequestHead, RequestParser

PIECES = st.sampled_from(
    [
        b"GET / HTTP/1.1\r\n",
        b"POST /a%00b?c HTTP/1.1\r\n",
        b"OPTIONS * HTTP/1.0\r\n",
        b"GET http://a:80/x HTTP/1.1\r\n",
        b"Host: a\r\n",
        b"Content-Length: 3\r\n",
        b"Content-Length: " + b"0" * 4301 + b"3\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Connection: Upgrade, close\r\n",
        b"Connection: Upgrade\r\n",
        b"Upgrade: h2c\r\n",
        b"Expect: 100-continue\r\n",
        b"Cookie: a=b; c\r\n",
        b"X: \xff\r\n",
        b"\r\n",
        b"abc",
        b"3\r\nabc\r\n",
        b"0\r\n",
        b"\n",
        b" ",
        b"\0",
    ]
)
INPUT = st.lists(PIECES | st.binary(max_size=8), max_size=14).map(b"".join)


def told(data: bytes, cuts: list[int]) -> list[object]:
    """What comes of `data` in pieces: bodies joined, and the status of the error at its end."""
    parser = RequestParser(max_head=120, max_headers=6)
    found: list[object] = []
    body = b""
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    try:
        for start, stop in itertools.pairwise(places):
            events = list(parser.feed(data[start:stop]))
            while parser.rest is not None:
                events += parser.resume()
            for event in events:
                if isinstance(event, bytes):
                    body += event
                    continue
                found += [body] if body else []
                body = b""
                found.append(event if not isinstance(event, RequestHead) else (event.method, event.target, look(event)))
        parser.feed(b"")
    except BadRequest as error:
        assert 400 <= error.status <= 599
        found.append("bad")
    return [*found, body] if body else found


def look(head: RequestHead) -> object:
    """Everything that a head can be asked."""
    return head.path, head.host, head.query_params, head.cookies, head.credentials, list(head.headers), head.body_size


@given(INPUT, st.lists(st.integers(0, 200), max_size=6))
@settings(max_examples=400, deadline=None)
def test_only_events_and_bad_request_come_out_wherever_the_input_is_cut(data: bytes, cuts: list[int]) -> None:
    assert told(data, cuts) == told(data, [])
