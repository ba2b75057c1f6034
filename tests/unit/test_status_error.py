"""What a StatusError says."""

import pytest

from portico.errors import StatusError


@pytest.mark.parametrize(
    ("reason", "body", "said"),
    [
        ("Forbidden", b"", "403 Forbidden"),
        ("", b"", "403"),
        ("Forbidden", b"403 Forbidden\n", "403 Forbidden"),
        ("Forbidden", b"403 Forbidden: pages of this origin may not come here\n", None),
        ("Forbidden", b"403 forbidden: pages of this origin may not come here\n", None),
        ("Forbidden", b"Forbidden: pages of this origin may not come here\nand more", None),
        ("Forbidden", b"Forbidden", "403 Forbidden"),
        ("", b"403: no", "403: no"),
        ("Forbidden", b"Forbidden fruit", "403 Forbidden: Forbidden fruit"),
        ("Forbidden", b"pages of this origin may not come here", None),
        ("Forbidden", b"<html>403 Forbidden", "403 Forbidden"),
        ("Forbidden", b"403 Forbidden: <html>", "403 Forbidden"),
        ("Forbidden", b"403 Forbidden\nsecond line", "403 Forbidden"),
        ("Forbidden", b"a\x1b[31m", "403 Forbidden"),
    ],
)
def test_the_status_line_is_said_once(reason: str, body: bytes, said: str | None) -> None:
    said = said or "403 Forbidden: pages of this origin may not come here"
    assert str(StatusError(403, reason, address="ws://a/", body=body)) == f"ws://a/ answered {said}"
    assert str(StatusError(403, reason, body=body)) == f"the server answered {said}"
