"""A headless Chromium, driven by chromedriver over the WebDriver protocol (W3C WebDriver, sections 8 to 17)."""

import base64
import contextlib
import http.client
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from peers import need_program
from tools.command import started

PATIENCE = 40.0

ENTER, TAB, SHIFT, CONTROL, SPACE = "\ue007", "\ue004", "\ue008", "\ue009", " "
"""Keys (section 17.4.2)."""

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-proxy-server",
    "--lang=en-GB",
    "--window-size=1100,760",
)

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
"""The key of a reference to an element (section 12.1)."""


class NotThere(Exception):
    """An element that is not there, or not any more."""


class Browser:
    """One session of chromedriver."""

    def __init__(self, port: int, profile: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        chrome = {
            "binary": need_program("chromium"),
            "args": [*FLAGS, f"--user-data-dir={profile}"],
        }
        wanted = {"goog:chromeOptions": chrome, "goog:loggingPrefs": {"browser": "ALL"}}
        self._session = ""
        opened = self._ask("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
        self._session = f"/session/{opened['sessionId']}"
        self._window = self.call("GET", "/window")

    def _ask(self, method: str, path: str, body: object = None) -> Any:
        data = None if method in ("GET", "DELETE") else json.dumps(body or {})
        self._connection.request(method, path, data, {"Content-Type": "application/json"})
        answer = json.loads(self._connection.getresponse().read())["value"]
        if isinstance(answer, dict) and "error" in answer:
            if answer["error"] in ("no such element", "stale element reference"):
                raise NotThere(answer["message"])
            raise AssertionError(f"{method} {path}: {answer['error']}: {answer['message']}")
        return answer

    def call(self, method: str, path: str, **body: Any) -> Any:
        """Give one command of the session."""
        return self._ask(method, self._session + path, body)

    def cdp(self, command: str, **parameters: Any) -> Any:
        """Give one command of Chromium's own protocol."""
        return self.call("POST", "/goog/cdp/execute", cmd=command, params=parameters)

    def new_window(self) -> str:
        handle: str = self.call("POST", "/window/new", type="window")["handle"]
        return handle

    def go_to(self, window: str) -> None:
        """Let the commands that follow be for that window."""
        if window != self._window:
            self.call("POST", "/window", handle=window)
            self._window = window

    @property
    def window(self) -> str:
        return self._window

    def script(self, code: str, *arguments: Any) -> Any:
        return self.call("POST", "/execute/sync", script=code, args=list(arguments))

    def find(self, css: str) -> str:
        element: str = self.call("POST", "/element", using="css selector", value=css)[ELEMENT]
        return f"/element/{element}"

    def press(self, *keys: str) -> None:
        """Press keys together, as on a keyboard: whatever has the focus gets them."""
        actions = [{"type": "keyDown", "value": key} for key in keys]
        actions += [{"type": "keyUp", "value": key} for key in reversed(keys)]
        self.call("POST", "/actions", actions=[{"type": "key", "id": "keyboard", "actions": actions}])

    def picture(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.call("GET", "/screenshot")))

    def complaints(self) -> list[str]:
        """What the browser has complained of since it was asked last."""
        return [entry["message"] for entry in self.call("POST", "/se/log", type="browser")]

    def close(self) -> None:
        with contextlib.suppress(OSError, http.client.HTTPException):
            self._ask("DELETE", self._session)
        self._connection.close()


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """A browser with a new profile."""
    need_program("chromium")
    with (
        started(need_program("chromedriver"), "--port=0") as driver,
        tempfile.TemporaryDirectory(prefix="portico-chromium-", ignore_cleanup_errors=True) as profile,
        contextlib.closing(
            Browser(int(driver.stdout.wait_for(r"started successfully on port (\d+)")[1]), profile)
        ) as browser,
    ):
        yield browser
