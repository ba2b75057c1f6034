"""The page when its connection is lost: it says so, comes back by itself, and marks what it has missed."""

import re
import shutil
import signal
from pathlib import Path

from ports import free_port

from browser.page import WATCH_LIGHT, Page, until
from browser.rooms import Room, demo, terminal
from browser.webdriver import Browser

SPAN = "\\(\\d\\d:\\d\\d(\u2013\\d\\d:\\d\\d)?\\)"


def cut(room: Room, messages: int) -> None:
    """Lose the connections of all pages, and let that much be said before they can be back."""

    def lose() -> None:
        for person in list(room.chat.people):
            person.channel.abort()
        for number in range(messages):
            room.chat.history.add(by=999, name="Bob", door="tcp", text=f"missed {number}", ref="")

    room.ask(lose)


def test_the_server_is_killed_and_comes_back_on_the_same_ports(browser: Browser) -> None:
    port, web_port = str(free_port(2)), str(free_port())  # the door of TLS has the second
    words = ("--port", port, "--web-port", web_port)
    with demo(*words) as (server, url, commands):
        ann, bob = Page(browser, url).connected(), Page(browser, url, new=True).connected()
        ann.call_me("Ann")
        bob.call_me("Bob")
        ann.say("before")
        bob.wait_said("before")
        server.send_signal(signal.SIGKILL)
        server.wait()
        for page in (ann, bob):
            page.wait_for("#light", "^Reconnecting")
        ann.say("typed while nobody listened")
        ann.wait_for("#messages", "^typed while nobody listened$")
        assert ann.said() == ["before"]
        shutil.rmtree(Path(commands["unix"].split()[-1]).parent)  # what it could not remove
    with demo(*words) as (_, url, commands), terminal(commands["tcp"], "Chen") as chen:
        for page in (ann, bob):
            page.connected()
            page.wait_for(
                "#messages", rf"^The server restarted while you were away {SPAN}: what was said before is lost"
            )
        chen.stdout.wait_for(r"^Ann: typed while nobody listened$|guest-\d: typed while nobody listened$")
        bob.wait_said("before", "typed while nobody listened")
        ann.wait_said("before", "typed while nobody listened")
        bob.say("after")
        chen.stdout.wait_for("^Bob: after$")
        ann.wait_people(("Ann", "Browser"), ("Bob", "Browser"), ("Chen", "TCP"))


def test_what_was_said_meanwhile_is_shown_between_marks(browser: Browser) -> None:
    with Room() as room:
        page = Page(browser, room.url).connected()
        page.say("heard")
        page.wait_said("heard")
        cut(room, 3)
        page.wait_for("#messages", rf"^While you were away {SPAN}: 3 messages$")
        page.wait_for("#messages", r"^You are back, \d\d:\d\d$")
        page.connected()
        shown = page.text("#messages")
        marks = r"heard\n(.*\n)*While you were away.*\n(.*\n)*missed 0\n(.*\n)*missed 2\n(.*\n)*You are back"
        assert re.search(marks, shown), shown
        assert page.said() == ["heard", "missed 0", "missed 1", "missed 2"]


def test_it_says_how_much_the_server_no_longer_has(browser: Browser) -> None:
    with Room() as room:
        page = Page(browser, room.url).connected()
        cut(room, 310)
        page.wait_for("#messages", rf"^While you were away {SPAN}: 310 messages, of which the server has the last 300$")
        page.connected()
        assert page.said() == [f"missed {number}" for number in range(10, 310)]


def test_it_says_that_nothing_was_missed(browser: Browser) -> None:
    with Room() as room:
        page = Page(browser, room.url).connected()
        cut(room, 0)
        page.wait_for("#messages", rf"^While you were away {SPAN}: nothing was said$")
        page.connected()
        assert "You are back" not in page.text("#messages")


def test_a_server_that_does_not_answer_is_noticed_and_nobody_is_there_twice(browser: Browser) -> None:
    with demo() as (server, url, commands), terminal(commands["tcp"], "Chen") as chen:
        page = Page(browser, url).connected()
        page.call_me("Ann")
        page.script(WATCH_LIGHT)
        server.send_signal(signal.SIGSTOP)
        try:
            page.say("into the silence")
            page.wait_for("#light", "^Reconnecting")
        finally:
            server.send_signal(signal.SIGCONT)
        page.connected()
        assert any(re.match(r"No answer for \d+ s", each) for each in page.script("return window.lights"))
        page.wait_people(("Chen", "TCP"), ("Ann", "Browser"))
        page.wait_said("into the silence")
        chen.write(b"/who\n")
        chen.stdout.wait_for(r"here are: Chen \(tcp\), Ann \(browser\)$")
        assert chen.stdout.text.count("into the silence") == 1


def test_a_page_whose_server_drains_comes_back(browser: Browser) -> None:
    port, web_port = str(free_port(2)), str(free_port())  # the door of TLS has the second
    words = ("--port", port, "--web-port", web_port)
    with demo(*words) as (server, url, _):
        page = Page(browser, url).connected()
        server.send_signal(signal.SIGTERM)
        page.wait_for("#messages", "^the room closes, good bye$")
        page.wait_for("#light", "^Reconnecting")
        assert server.wait() == 0 and server.stderr.all() == b""
    with demo(*words):
        page.connected()
        page.wait_for("#messages", "^The server restarted while you were away")


def test_who_quits_has_left_until_they_want_to_be_back(browser: Browser) -> None:
    with Room() as room:
        page = Page(browser, room.url).connected()
        page.say("/quit")
        page.wait_for("#light", "^You have left")
        until(lambda: not room.ask(lambda: room.chat.people), lambda: "nobody in the room")
        page.wait_for("#retry", "^Join again$")
        page.click("#retry")
        page.connected()
        assert page.script("return document.activeElement.id") == "say"


def test_a_page_that_is_left_and_come_back_to_is_in_the_room_just_then(browser: Browser) -> None:
    with Room() as room:
        page = Page(browser, room.url).connected()
        page.script("location = 'about:blank'")
        until(lambda: not room.ask(lambda: room.chat.people), lambda: "nobody in the room")
        page.here.call("POST", "/back")
        page.connected()
        assert len(room.chat.people) == 1


def test_a_device_without_network_is_told_so_and_comes_back_with_it(browser: Browser) -> None:
    with Room() as room:
        page = Page(browser, room.url).connected()
        page.script("Math.random = () => 1000; window.deviceOnline = false")
        cut(room, 1)
        page.wait_for("#light", r"^Offline \S trying again in 2\d\d s")
        page.script("window.deviceOnline = true; dispatchEvent(new Event('online'))")
        page.connected()
        page.wait_said("missed 0")


def test_a_page_that_offers_to_try_now_does_so(browser: Browser) -> None:
    with Room() as room:
        page = Page(browser, room.url).connected()
        # a random part that puts the next attempt as far away as it can be, and further
        page.script("Math.random = () => 1000")
        cut(room, 0)
        page.wait_for("#light", r"^Reconnecting in 2\d\d s")
        page.click("#retry")
        page.connected()
