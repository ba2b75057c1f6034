"""Conditional requests (RFC 9110, section 13): whether what the client has, or believes, is still so."""

import re
import time
from datetime import UTC, datetime

from portico.protocols.http_headers import Headers

NAMES = ("if-none-match", "if-modified-since", "range", "if-match", "if-unmodified-since")
"""Fields that make another answer of a GET than 200 with everything."""

_TAG = re.compile(r'(?:W/)?"[^"]*"')
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DATES = (
    re.compile(r"[a-z]{3}, (?P<d>\d\d) (?P<m>[a-z]{3}) (?P<y>\d{4}) (?P<t>\d\d:\d\d:\d\d) gmt", re.ASCII),
    re.compile(r"[a-z]{6,9}, (?P<d>\d\d)-(?P<m>[a-z]{3})-(?P<y>\d\d) (?P<t>\d\d:\d\d:\d\d) gmt", re.ASCII),
    re.compile(r"[a-z]{3} (?P<m>[a-z]{3}) (?P<d>[ \d]\d) (?P<t>\d\d:\d\d:\d\d) (?P<y>\d{4})", re.ASCII),
)
_SURELY_OVER = 1.0
"""Seconds after which a file's time of change tells two contents apart (RFC 9110, 8.8.2.2)."""


def failed_condition(headers: Headers, etag: str, modified: int | None) -> int | None:
    """Return the status that the conditions of a GET or HEAD ask for in place of 200: 304, 412, or None. Their order is
    that of RFC 9110, 13.2.2.

    :param etag: the strong entity tag of what there is, quotes included.
    :param modified: when it last changed, in whole seconds since 1970; None: nobody knows."""
    wanted = headers.get("if-match")
    if wanted is not None:
        if not _has_tag(wanted, etag, weak=False):
            return 412
    elif modified is not None:
        latest = parse_date(headers.get("if-unmodified-since"))
        if latest is not None and modified > latest:
            return 412
    known = headers.get("if-none-match")
    if known is not None:
        return 304 if _has_tag(known, etag, weak=True) else None
    if modified is not None:
        since = parse_date(headers.get("if-modified-since"))
        if since is not None and modified <= since:
            return 304
    return None


def range_applies(headers: Headers, etag: str, modified: int | None) -> bool:
    """Say whether the Range field is to be heeded: If-Range (RFC 9110, 13.1.5) is missing, or names what there is."""
    wanted = headers.get("if-range")
    if wanted is None:
        return True
    if wanted.endswith('"'):
        return wanted == etag
    return modified is not None and parse_date(wanted) == modified and modified + _SURELY_OVER <= time.time()


def parse_date(text: str | None) -> int | None:
    """Return an HTTP date (RFC 9110, 5.6.7: its three forms) in seconds since 1970; None if it is none."""
    if text is None or len(text) > 40:
        return None
    for form in _DATES:
        found = form.fullmatch(text.lower())
        if found is not None and found["m"] in _MONTHS:
            year = int(found["y"])
            if len(found["y"]) == 2:
                now = time.gmtime().tm_year
                year += now - now % 100
                year -= 100 * (year > now + 50)
            hour, minute, second = map(int, found["t"].split(":"))
            try:
                at = datetime(year, 1 + _MONTHS.index(found["m"]), int(found["d"]), hour, minute, tzinfo=UTC)
            except ValueError:  # no such day
                return None
            return int(at.timestamp()) + second if second <= 60 else None  # 60: a leap second
    return None


def _has_tag(listed: str, etag: str, *, weak: bool) -> bool:
    """Whether `etag` is in a list of entity tags; weak ones count by weak comparison alone (RFC 9110, 8.8.3.2)."""
    if listed.strip() == "*":
        return True
    tags = _TAG.findall(listed)
    return etag in tags or (weak and "W/" + etag in tags)
