"""One browser for all tests here, and no window left behind by any."""

from collections.abc import Iterator

import pytest

from browser.webdriver import Browser, chromium


@pytest.fixture(scope="session")
def session() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def browser(session: Browser) -> Iterator[Browser]:
    """A browser whose windows close at the end."""
    before = session.window
    session.go_to(session.new_window())
    yield session
    for window in session.call("GET", "/window/handles"):
        if window != before:
            session.go_to(window)
            session.call("DELETE", "/window")
    session.go_to(before)
    session.complaints()
