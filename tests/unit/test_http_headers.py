"""Header fields: names in any case, order kept, and nothing that would begin a field or message of its own."""

import pytest

import portico
from portico.protocols.http_headers import Headers, encode


def test_names_match_in_any_case_and_order_is_kept() -> None:
    headers = Headers([("B", "1"), ("a", "2"), ("b", "3")])
    assert headers.get("b") == "1, 3"
    assert headers.get_all("B") == ["1", "3"]
    assert "A" in headers and "c" not in headers and 1 not in headers
    assert headers.get("c") is None and headers.get("c", "x") == "x"
    assert list(headers) == [("B", "1"), ("a", "2"), ("b", "3")] and len(headers) == 3


def test_a_mapping_makes_headers_too() -> None:
    assert Headers({"X-One": "1"}) == Headers([("x-one", "1")])
    assert hash(Headers({"X-One": "1"})) == hash(Headers({"x-one": "1"}))
    assert Headers({"X-One": "1"}) != Headers({"X-One": "2"}) and Headers() != 1


def test_tokens_are_the_elements_of_lists_over_all_fields() -> None:
    headers = Headers([("Connection", "Upgrade, ,keep-alive"), ("connection", "\tX ")])
    assert headers.tokens("connection") == ["upgrade", "keep-alive", "x"]
    assert headers.tokens("upgrade") == []


def test_what_came_is_latin_1_and_decoded_late() -> None:
    headers = Headers.from_wire([(b"X", b"\xe9")])
    assert headers.get("x") == "é" and "x" in headers and repr(headers) == "Headers([('X', 'é')])"


def test_packed_headers_answer_as_before() -> None:
    headers = Headers([("B", "1"), ("a", ""), ("b", "3: x")])
    same = Headers(list(headers))
    same.pack()
    same.pack()
    assert same == headers and hash(same) == hash(headers) and list(same) == list(headers) and len(same) == 3
    assert same.get("B") == "1, 3: x" and same.get_all("b") == ["1", "3: x"] and "A" in same and "c" not in same
    empty = Headers()
    empty.pack()
    assert list(empty) == [] and empty.get("a") is None


def test_encode_writes_lines() -> None:
    assert encode([("A", "1"), ("B", "é")]) == b"A: 1\r\nB: \xe9\r\n"
    assert encode([]) == b""


@pytest.mark.parametrize("name", ["", "a b", "a:", "a\r\n", "é", "a\0"])
def test_a_name_that_is_no_token_is_refused(name: str) -> None:
    with pytest.raises(portico.ConfigurationError, match="header name"):
        encode([(name, "1")])


@pytest.mark.parametrize("value", ["a\r\nSet-Cookie: x", "a\nb", "a\rb", "\0", "a\r\n"])
def test_a_value_that_would_break_out_is_refused(value: str) -> None:
    with pytest.raises(portico.ConfigurationError, match="must not have CR, LF or NUL"):
        encode([("Good", "1"), ("Location", value)])


def test_a_value_beyond_latin_1_is_refused_with_a_remedy() -> None:
    with pytest.raises(portico.ConfigurationError, match="percent-encode"):
        encode([("X", "€")])
    with pytest.raises(portico.ConfigurationError, match="percent-encode"):
        Headers({"X": "€"})
