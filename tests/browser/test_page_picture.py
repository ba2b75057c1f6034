"""The picture of the page in the documentation, with people on every door at once.

`PORTICO_PICTURES=docs pytest tests/browser/test_page_picture.py` takes it anew."""

import base64
import contextlib
import os
import signal
from pathlib import Path

from tools.command import Process

from browser.page import Page, until
from browser.rooms import demo, terminal
from browser.webdriver import Browser

TALK = [
    ("ann", "Morning! Is the gateway back up?"),
    ("tcp", "yes, since six. I am on plain nc here"),
    ("tls", "same room over TLS, with openssl s_client"),
    ("bob", "And I am on my phone."),
    ("unix", "a script on the machine itself, through the Unix socket"),
]
MEANWHILE = [("udp", "packets get here, too: nc -u"), ("tcp", "moving the switch now, hold on")]
AFTERWARDS = [("ann", "I was gone for a moment, and have it all."), ("bob", "Same here.")]

COMPOSED = """
const [desktop, phone] = arguments;
const part = (data, css) => {
  const made = document.createElement('img');
  made.src = `data:image/png;base64,${data}`;
  made.style.cssText = `display:block; border-radius:14px; box-shadow:0 10px 36px rgb(15 23 42 / .28); ${css}`;
  return made;
};
document.body.style.cssText = 'margin:0; padding:36px; display:flex; gap:36px; align-items:center; background:#dfe5ee';
document.body.append(part(desktop, 'width:1000px'), part(phone, 'width:330px'));
return Promise.all([...document.images].map((each) => each.decode())).then(() => true);
"""


def talk(
    lines: list[tuple[str, str]], pages: dict[str, Page], terminals: dict[str, Process], shown: list[Page]
) -> None:
    """Let everybody say something, one after another."""
    for who, text in lines:
        if who in pages:
            pages[who].say(text)
        else:
            terminals[who].write(f"{text}\n".encode())
        for page in shown:
            until(lambda page=page, text=text: text in page.said(), lambda text=text: text)


def test_people_on_every_door_are_in_the_picture(browser: Browser, tmp_path: Path) -> None:
    folder = Path(os.environ.get("PORTICO_PICTURES") or tmp_path)
    names = {"tcp": "Chen", "tls": "Dora", "unix": "Emil", "udp": "Fatima"}
    with demo("--port", "0", "--name", "the lighthouse") as (server, url, commands), contextlib.ExitStack() as stack:
        terminals = {door: stack.enter_context(terminal(commands[door], name)) for door, name in names.items()}
        pages = {"ann": Page(browser, url).connected()}
        pages["ann"].device(1000, 720, 2)
        pages["ann"].call_me("Ann")
        pages["bob"] = Page(browser, url, new=True).connected()
        pages["bob"].device(360, 780, 2, mobile=True)
        pages["bob"].call_me("Bob")
        pages["bob"].media(prefers_color_scheme="dark")
        both = list(pages.values())
        talk(TALK, pages, terminals, both)
        server.send_signal(signal.SIGSTOP)
        try:
            for page in both:
                page.wait_for("#light", "^Reconnecting")
            talk(MEANWHILE, pages, terminals, [])
        finally:
            server.send_signal(signal.SIGCONT)
        for page in both:
            page.wait_for("#messages", "^While you were away .*: 2 messages$")
            page.connected()
        talk(AFTERWARDS, pages, terminals, both)
        doors = [
            (name, {"tcp": "TCP", "tls": "TLS", "unix": "Unix", "udp": "UDP"}[door]) for door, name in names.items()
        ]
        for page in both:
            page.wait_people(("Ann", "Browser"), ("Bob", "Browser"), *doors)
        parts = []
        for name, page in pages.items():
            page.picture(tmp_path / f"{name}.png")
            parts.append(base64.b64encode((tmp_path / f"{name}.png").read_bytes()).decode())
    sheet = Page(browser, "about:blank", new=True)
    sheet.device(1438, 792, 1.5)
    assert sheet.script(COMPOSED, *parts)
    sheet.picture(folder / "chat-page.png")
    picture = (folder / "chat-page.png").read_bytes()
    assert picture[16:24] == (2157).to_bytes(4, "big") + (1188).to_bytes(4, "big")  # what its header says of its size
