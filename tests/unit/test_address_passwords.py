"""A password in an address is refused, and shown to nobody."""

import pytest

from portico import Address
from portico.errors import AddressError


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("ws://u:pass@h/", "ws://u:…@h/"),
        ("http://u:pass@[::1]:80/", "http://u:…@[::1]:80/"),
        ("tcp://u:pass@[::1?flow=5]:1", "tcp://u:…@[::1?flow=5]:1"),
        ("ws://:pass@h/", "ws://:…@h/"),
        ("ws://u:1pass@h/", "ws://u:…@h/"),
        ("ws://u:pass@pass@h/", "ws://u:…@h/"),
        ("ws://u:pass/@h/", "ws://u:…@h/"),
        ("ws://u:pass word@h/", "ws://u:…@h/"),
        ("ws://u:pass\nword@h/", "ws://u:…@h/"),
        ("ws://u:pass\u00e9#?[@h/", "ws://u:…@h/"),
        ("gopher://u:pass@h/", "gopher://u:…@h/"),
        ("u:pass@h", "u:…@h"),
    ],
)
def test_no_error_shows_a_password(text: str, shown: str) -> None:
    with pytest.raises(AddressError) as caught:
        Address.parse(text)
    error = caught.value
    assert error.text == shown and "pass" not in str(error).replace("password", "")
    assert error.__suppress_context__ or error.__context__ is None
