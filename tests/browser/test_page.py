"""The chat's page in a browser: people on pages and in terminals are in one room."""

import asyncio
import contextlib
import http.client

from tools.command import Process

from browser.page import Page, until
from browser.rooms import Room, demo, terminal
from browser.webdriver import Browser


def test_two_pages_and_nc_talk_to_each_other(browser: Browser) -> None:
    with demo() as (_, url, commands), terminal(commands["tcp"], "Chen") as chen:
        ann, bob = Page(browser, url).connected(), Page(browser, url, new=True).connected()
        ann.call_me("Ann")
        bob.call_me("Bob")
        chen.stdout.wait_for(r"^\* guest-3 is Bob now$")
        ann.say("hello from a page")
        chen.stdout.wait_for("^Ann: hello from a page$")
        chen.write(b"hello from a terminal\n")
        bob.wait_for("#messages", "^hello from a terminal$")
        bob.say("hello from the other page")
        chen.stdout.wait_for("^Bob: hello from the other page$")
        for page in (ann, bob):
            page.wait_said("hello from a page", "hello from a terminal", "hello from the other page")
        assert ann.script("return document.querySelector('.message.own .name').textContent") == "Ann"
        assert browser.complaints() == []


def test_the_people_are_shown_with_the_door_that_each_came_by(browser: Browser) -> None:
    names = {"tcp": "Chen", "tls": "Dora", "unix": "Emil", "udp": "Fatima"}
    with demo() as (_, url, commands), contextlib.ExitStack() as stack:
        page = Page(browser, url).connected()
        terminals: dict[str, Process] = {}
        for door, name in names.items():
            terminals[door] = stack.enter_context(terminal(commands[door], name))
        there = [("Chen", "TCP"), ("Dora", "TLS"), ("Emil", "Unix"), ("Fatima", "UDP")]
        page.wait_people(("guest-1", "Browser"), *there)
        terminals["tcp"].write(b"/who\n")
        terminals["tcp"].stdout.wait_for(
            r"guest-1 \(browser\), Chen \(tcp\), Dora \(tls\), Emil \(unix\), Fatima \(udp\)"
        )
        terminals["tls"].end_input()
        terminals["unix"].write(b"/quit\n")
        terminals["tls"].send_signal()
        page.wait_people(("guest-1", "Browser"), there[0], there[3])
        page.wait_for("#messages", "^Emil left$")
        assert page.text("#people-title").split() == ["People", "3"]


def test_what_people_say_is_text_and_nothing_else(browser: Browser) -> None:
    with demo() as (_, url, commands), terminal(commands["tcp"], "Chen") as chen:
        page = Page(browser, url).connected()
        chen.write("<img src=x onerror='document.title=1'> \x1b[31mred\x07 ab\u202ecd\n".encode())
        page.wait_said("<img src=x onerror='document.title=1'> red abcd")
        page.say("<script>document.title = 2</script> &amp; 1")
        chen.stdout.wait_for(r"guest-\d: <script>document.title = 2</script> &amp; 1$")
        page.wait_for("#messages", "^<script>document.title = 2</script> &amp; 1$")
        assert page.script("return document.title") == "the Portico chat"
        assert page.script("return document.querySelectorAll('#messages img, #messages script').length") == 0
        assert browser.complaints() == []


def test_the_policy_keeps_out_what_is_inline_or_from_elsewhere(browser: Browser) -> None:
    with Room() as room:
        page = Page(browser, room.url).connected()
        script = """const made = document.createElement('script'); const done = arguments[0];
            try { made.textContent = 'document.title = "broken"'; } catch (error) { return error.name; }
            document.body.append(made); return document.title;"""
        assert page.script(script) in ("TypeError", "test room")
        assert (
            page.script("try { document.body.innerHTML = '<p>'; } catch (error) { return error.name }") == "TypeError"
        )
        host, port = room.url.split("/")[2].split(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=20)
        for path in ("/", "/chat.css", "/chat.js", "/icon.svg"):
            connection.request("GET", path)
            answer = connection.getresponse()
            policy = answer.headers["Content-Security-Policy"]
            assert answer.status == 200 and answer.read()
            assert "default-src 'none'" in policy and "unsafe" not in policy
        connection.close()


def test_a_name_that_somebody_has_is_refused_and_the_old_one_stays(browser: Browser) -> None:
    with Room() as room:
        ann, bob = Page(browser, room.url).connected(), Page(browser, room.url, new=True).connected()
        ann.call_me("Ann")
        bob.type("#name", "\ue009a")
        bob.type("#name", "ann\ue007")
        bob.wait_for("#messages", "^somebody is called ann already$")
        assert bob.script("return document.getElementById('name').value") == "guest-2"
        ann.load()
        ann.wait_people(("Ann", "Browser"), ("guest-2", "Browser"))  # it remembers


def test_a_page_that_reloads_a_hundred_times_leaves_nothing_behind(browser: Browser) -> None:
    with Room() as room:
        tasks = room.ask(lambda: len(asyncio.all_tasks()))
        other = Page(browser, room.url).connected()
        page = Page(browser, room.url, new=True).connected()
        page.call_me("Ann")
        for number in range(100):
            page.load()
            if number % 10 == 0:  # the others go while they are still coming in
                page.connected()
        page.connected()
        page.wait_people(("Ann", "Browser"), ("guest-1", "Browser"))
        other.wait_people(("Ann", "Browser"), ("guest-1", "Browser"))
        until(
            lambda: room.ask(lambda: (len(room.chat.people), len(room.chat.pages), len(room.chat.room))) == (2, 2, 0),
            lambda: f"{room.chat.people}",
        )
        assert len(room.chat._channels) == 2
        other.script("location = 'about:blank'")
        page.script("location = 'about:blank'")
        until(lambda: not room.ask(lambda: room.server.stats.open), lambda: f"{room.server.stats}")
        until(lambda: room.ask(lambda: len(asyncio.all_tasks())) == tasks, lambda: "no task more than before")
        assert not room.chat.people and not room.chat._channels and not len(room.chat.pages)


def test_messages_are_bounded_in_the_page_and_in_the_room(browser: Browser) -> None:
    with Room() as room:
        room.ask(
            lambda: [room.chat.history.add(by=9, name="Bob", door="tcp", text=str(n), ref="") for n in range(1000)]
        )
        page = Page(browser, room.url).connected()
        page.wait_said(*map(str, range(700, 1000)))
        for number in range(20):
            page.script(
                "const input = document.getElementById('say'); for (let n = 0; n < 20; n++) {"
                "input.value = `${arguments[0]}-${n}`; document.getElementById('say-form').requestSubmit(); }",
                number,
            )
            page.wait_for("#messages", f"^{number}-19$")
        assert len(page.said()) <= 600
        assert page.said()[-1] == "19-19"
