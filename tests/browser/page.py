"""What a person sees and does in the chat's page."""

import contextlib
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from browser.webdriver import CONTROL, ENTER, PATIENCE, Browser, NotThere

T = TypeVar("T")

ONLINE = "Object.defineProperty(navigator, 'onLine', { get: () => window.deviceOnline ?? true });"
"""A machine that tests may have no network but loopback, which a browser takes for none."""

WATCH_LIGHT = """
const text = document.getElementById('light-text');
window.lights = [];
new MutationObserver(() => window.lights.push(text.textContent)).observe(text, { childList: true });
"""
"""Collects what the light says, as it may be short."""


def until(come: Callable[[], T], what: Callable[[], str]) -> T:
    """Return what `come` returns, as soon as that is true."""
    deadline = time.monotonic() + PATIENCE
    while True:
        with contextlib.suppress(NotThere):
            if found := come():
                return found
        assert time.monotonic() < deadline, f"it did not come within {PATIENCE:g} s: {what()}"
        time.sleep(0.02)


class Page:
    """One window with the page."""

    def __init__(self, browser: Browser, url: str, *, new: bool = False) -> None:
        self.browser, self.url = browser, url
        self.window = browser.new_window() if new else browser.window
        self.here.cdp("Page.addScriptToEvaluateOnNewDocument", source=ONLINE)
        self.load()

    def load(self) -> None:
        self.here.call("POST", "/url", url=self.url)

    @property
    def here(self) -> Browser:
        """The browser, at this window."""
        self.browser.go_to(self.window)
        return self.browser

    def script(self, code: str, *arguments: Any) -> Any:
        """Run a script in it."""
        return self.here.script(code, *arguments)

    def type(self, css: str, text: str) -> None:
        """Type into a field."""
        self.here.call("POST", self.here.find(css) + "/value", text=text)

    def click(self, css: str) -> None:
        self.here.call("POST", self.here.find(css) + "/click")

    def text(self, css: str) -> str:
        """What is seen of an element."""
        code = """const found = document.querySelector(arguments[0]);
            return found?.getClientRects().length ? found.innerText : ''"""
        return str(self.script(code, css))

    def wait_for(self, css: str, pattern: str) -> "re.Match[str]":
        """Wait until an element shows `pattern`."""
        found = until(
            lambda: re.search(pattern, self.text(css), re.M), lambda: f"{pattern!r}, but {self.text(css)!r} in {css}"
        )
        assert found is not None
        return found

    def connected(self) -> "Page":
        """Wait until the light says so, with a round-trip time."""
        self.wait_for("#light", r"^Connected · (<1|\d+) ms$")
        return self

    def say(self, text: str) -> None:
        self.type("#say", text + ENTER)

    def call_me(self, name: str) -> None:
        self.type("#name", CONTROL + "a")
        self.type("#name", name + ENTER)
        until(lambda: name in dict(self.people()), lambda: f"{name} among {self.people()}")

    def people(self) -> list[tuple[str, str]]:
        """The people shown, each with their door."""
        code = """return [...document.querySelectorAll('#people-list li')].map(
            each => [each.querySelector('.name').textContent, each.querySelector('.door').textContent])"""
        return [(name, door) for name, door in self.script(code)]

    def wait_people(self, *people: tuple[str, str]) -> None:
        until(lambda: sorted(self.people()) == sorted(people), lambda: f"{people}, but {self.people()}")

    def said(self) -> list[str]:
        """The texts of the messages shown, those that are not sent yet left out."""
        code = "return [...document.querySelectorAll('.message:not(.pending) .text')].map(each => each.textContent)"
        return list(self.script(code))

    def wait_said(self, *texts: str) -> None:
        until(lambda: self.said() == [*texts], lambda: f"{texts}, but {self.said()}")

    def device(self, width: int, height: int, scale: float = 1, *, mobile: bool = False) -> None:
        """Make it the screen of some device."""
        self.here.cdp(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=mobile
        )
        until(lambda: self.script("return innerWidth") == width, lambda: f"a width of {width}")

    def media(self, **features: str) -> None:
        """Emulate what the person prefers: `prefers_color_scheme="dark"`."""
        wanted = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
        self.here.cdp("Emulation.setEmulatedMedia", features=wanted)

    def picture(self, path: Path) -> None:
        self.here.picture(path)
