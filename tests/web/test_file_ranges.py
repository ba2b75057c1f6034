"""`door.files`: byte ranges, and requests on condition."""

import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from server.support import scenario

from portico.protocols.http_headers import Headers
from portico.web.conditions import parse_date, range_applies
from portico.web.file_ranges import MAX_RANGES, parse_ranges

from .files_kit import AFTER, BEFORE, BIG, ETAG, LONG_AGO, MODIFIED, TEN, door_of, folder, settled
from .front_kit import Reply, front

__all__ = ["folder", "settled"]

# ranges


@pytest.mark.parametrize(
    ("value", "ranges"),
    [
        ("bytes=0-0", [(0, 1)]),
        ("bytes=2-5", [(2, 6)]),
        ("BYTES=2-5", [(2, 6)]),
        ("bytes=2-", [(2, 10)]),
        ("bytes=2-99999999999999999999999", [(2, 10)]),
        ("bytes=-3", [(7, 10)]),
        ("bytes=-11", [(0, 10)]),
        ("bytes=5-6, 0-1,,\t-1", [(5, 7), (0, 2), (9, 10)]),
        ("bytes=10-", []),
        ("bytes=10-11,20-", []),
        ("bytes=-0", []),
        ("bytes=9-,10-", [(9, 10)]),
        (f"bytes={'9' * 5000}-", []),
        ("bytes=5-2", None),
        ("bytes=-", None),
        ("bytes=", None),
        ("bytes=1", None),
        ("bytes=a-b", None),
        ("bytes=1-2-3", None),
        ("bytes=+1-2", None),
        ("bytes=\u0661-\u0662", None),
        ("bytes 1-2", None),
        ("lines=1-2", None),
        ("", None),
        ("bytes=0-5,3-9", None),
        ("bytes=" + ",".join(["0-0"] * (MAX_RANGES + 1)), None),
    ],
)
def test_a_range_field_is_read_as_rfc_9110_says(value: str, ranges: list[tuple[int, int]] | None) -> None:
    assert parse_ranges(value, 10) == ranges


@given(value=st.text("bytes=0123456789-, \t", max_size=40).map("bytes={}".format), size=st.integers(0, 200))
def test_whatever_is_asked_for_is_within_the_file(value: str, size: int) -> None:
    ranges = parse_ranges(value, size) or []
    assert all(0 <= begin < end <= size for begin, end in ranges)
    assert sum(end - begin for begin, end in ranges) <= size and len(ranges) <= MAX_RANGES


@pytest.mark.parametrize(("value", "ranges"), [("bytes=0-", []), ("bytes=-5", None), ("bytes=-0", [])])
def test_of_an_empty_file_there_is_no_range(value: str, ranges: list[tuple[int, int]] | None) -> None:
    assert parse_ranges(value, 0) == ranges


@scenario()
async def test_one_range_is_sent_from_small_and_large_files(folder: Path) -> None:
    async with front(door_of(folder)) as door:
        for name, content in (("ten.txt", TEN), ("big.bin", BIG)):
            size = len(content)
            for value, first, end in (("2-5", 2, 6), ("4-", 4, size), ("-3", size - 3, size), (f"0-{size}", 0, size)):
                got = await door.ask(f"/s/{name}", f"Range: bytes={value}")
                assert (got.status, got.body) == (206, content[first:end])
                assert got.headers["content-range"] == f"bytes {first}-{end - 1}/{size}"
            got = await door.ask(f"/s/{name}", f"Range: bytes={size}-")
            assert got.status == 416 and got.headers["content-range"] == f"bytes */{size}"
            head = await door.ask(f"/s/{name}", "Range: bytes=2-5", method="HEAD")
            assert head.status == 200 and head.headers["content-length"] == str(size)


def parts(reply: Reply) -> list[tuple[str, str, bytes]]:
    """Type, range and content of each part of multipart/byteranges (RFC 2046)."""
    kind, boundary = reply.headers["content-type"].split("; boundary=")
    assert kind == "multipart/byteranges"
    before, *found, end = (b"\r\n" + reply.body).split(f"\r\n--{boundary}".encode())
    assert (before, end) == (b"", b"--\r\n")
    result = []
    for part in found:
        head, _, content = part.partition(b"\r\n\r\n")
        fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:])
        result.append((fields["Content-Type"], fields["Content-Range"], content))
    return result


@scenario()
async def test_several_ranges_come_in_parts(folder: Path) -> None:
    async with front(door_of(folder)) as door:
        got = await door.ask("/s/ten.txt", "Range: bytes=7-8,0-1, 40-")
        text = "text/plain; charset=utf-8"
        assert got.status == 206 and "content-range" not in got.headers
        assert parts(got) == [(text, "bytes 7-8/10", b"78"), (text, "bytes 0-1/10", b"01")]
        last = len(BIG) - 70_000
        got = await door.ask("/s/big.bin", f"Range: bytes=0-0,5-6,{last}-")
        assert [content for _, _, content in parts(got)] == [BIG[:1], BIG[5:7], BIG[last:]]


@pytest.mark.parametrize(
    ("value", "status"),
    [
        (ETAG, 206),
        (MODIFIED, 206),
        ("Sunday, 09-Sep-01 01:46:40 GMT", 206),
        (f"W/{ETAG}", 200),
        ('"other"', 200),
        (BEFORE, 200),
        (AFTER, 200),
        ("nonsense", 200),
    ],
)
@scenario()
async def test_a_range_is_for_those_who_have_the_rest(folder: Path, value: str, status: int) -> None:
    async with front(door_of(folder)) as door:
        assert (await door.ask("/s/ten.txt", "Range: bytes=0-1", f"If-Range: {value}")).status == status


@pytest.mark.parametrize(("later", "applies"), [(0.5, False), (1.0, True)])
def test_a_date_does_not_tell_contents_of_one_second_apart(
    later: float, applies: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time", lambda: LONG_AGO + later)
    assert range_applies(Headers([("If-Range", MODIFIED)]), ETAG, LONG_AGO) == applies


# conditions


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ([f"If-None-Match: {ETAG}"], 304),
        ([f"If-None-Match: W/{ETAG}"], 304),
        ([f'If-None-Match: "a", {ETAG}, "b"'], 304),
        (['If-None-Match: "a"', f"If-None-Match: {ETAG}"], 304),
        (["If-None-Match: *"], 304),
        (['If-None-Match: "other"'], 200),
        (["If-None-Match: "], 200),
        ([f"If-Modified-Since: {MODIFIED}"], 304),
        ([f"If-Modified-Since: {AFTER}"], 304),
        (["If-Modified-Since: Sun Sep  9 01:46:40 2001"], 304),
        ([f"If-Modified-Since: {BEFORE}"], 200),
        (["If-Modified-Since: yesterday"], 200),
        ([f"If-Match: {ETAG}"], 200),
        (["If-Match: *"], 200),
        ([f"If-Match: W/{ETAG}"], 412),
        (['If-Match: "other"'], 412),
        ([f"If-Unmodified-Since: {MODIFIED}"], 200),
        ([f"If-Unmodified-Since: {BEFORE}"], 412),
        (["If-Unmodified-Since: never"], 200),
        # precedence, RFC 9110, 13.2.2
        ([f"If-Match: {ETAG}", f"If-Unmodified-Since: {BEFORE}"], 200),
        (['If-None-Match: "other"', f"If-Modified-Since: {MODIFIED}"], 200),
        ([f"If-None-Match: {ETAG}", f"If-Modified-Since: {BEFORE}"], 304),
        (['If-Match: "other"', f"If-None-Match: {ETAG}"], 412),
        ([f"If-Match: {ETAG}", f"If-None-Match: {ETAG}"], 304),
        ([f"If-Unmodified-Since: {BEFORE}", f"If-None-Match: {ETAG}"], 412),
        ([f"If-None-Match: {ETAG}", "Range: bytes=0-1"], 304),
        (["If-Match: *", "Range: bytes=0-1"], 206),
        (["If-Match: *", "Range: bytes=10-"], 416),
        (['If-Match: "other"', "Range: bytes=10-"], 412),
    ],
)
@scenario()
async def test_conditions_are_met_in_their_order(folder: Path, settled: None, fields: list[str], status: int) -> None:
    async with front(door_of(folder)) as door:
        for _ in range(2):  # from the file, from memory
            got = await door.ask("/s/ten.txt", *fields)
            assert got.status == status
            if status == 304:
                assert (got.headers["etag"], got.headers["last-modified"]) == (ETAG, MODIFIED)
                assert "content-type" not in got.headers


@scenario()
async def test_a_time_of_change_in_the_future_is_not_told(folder: Path) -> None:
    os.utime(folder / "ten.txt", (2**33, 2**33))
    async with front(door_of(folder)) as door:
        got = await door.ask("/s/ten.txt", f"If-Modified-Since: {AFTER}", f"If-Unmodified-Since: {AFTER}")
        assert got.status == 200 and "last-modified" not in got.headers


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("Sun, 06 Nov 1994 08:49:37 GMT", 784111777),
        ("Sunday, 06-Nov-94 08:49:37 GMT", 784111777),
        ("Sun Nov  6 08:49:37 1994", 784111777),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
        ("Sun, 06 Nov 1994 08:49:37 CET", None),
        ("Sun, 06 Nov 1994 24:49:37 GMT", None),
        ("Sun, 00 Nov 1994 08:49:37 GMT", None),
        ("Sun, 06 Noo 1994 08:49:37 GMT", None),
        ("Sun, 06 Nov 0000 08:49:37 GMT", None),
        ("Fri, 31 Feb 2020 00:00:00 GMT", None),
        ("Sat, 29 Feb 2020 23:59:60 GMT", 1583020800),
        ("Sun, 29 Feb 2021 00:00:00 GMT", None),
        ("Sun, 06 Nov 1994 08:49:61 GMT", None),
        ("784111777", None),
        ("", None),
        (None, None),
        ("S" * 100_000, None),
    ],
)
def test_the_three_forms_of_a_date_are_read(text: str | None, seconds: int | None) -> None:
    assert parse_date(text) == seconds
