"""The page for everybody: with a keyboard, a screen reader, a phone, in the dark, with little motion."""

import contextlib
from collections.abc import Iterator

import pytest

from browser.page import Page, until
from browser.rooms import Room
from browser.webdriver import CONTROL, ENTER, SHIFT, SPACE, TAB, Browser

CONTRAST = """
const numbers = (color) => (color.match(/[\\d.]+/g) ?? [0, 0, 0, 0]).map(Number);
const over = (top, under) => {
  const alpha = top[3] ?? 1;
  return [0, 1, 2].map((n) => top[n] * alpha + under[n] * (1 - alpha));
};
const ground = (element) => {
  const layers = [];
  for (let each = element; each; each = each.parentElement) {
    layers.push(numbers(getComputedStyle(each).backgroundColor));
  }
  return layers.reverse().reduce((under, top) => over(top, under), [255, 255, 255]);
};
const luminance = (color) => {
  const [r, g, b] = color.map((c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const ratio = (one, other) => {
  const [low, high] = [luminance(one), luminance(other)].sort((a, b) => a - b);
  return (high + 0.05) / (low + 0.05);
};
const opacity = (element) => {
  let left = 1;
  for (let each = element; each; each = each.parentElement) left *= Number(getComputedStyle(each).opacity);
  return left;
};
const weak = [];
let seen = 0;
for (const element of document.querySelectorAll('body *')) {
  const style = getComputedStyle(element);
  if (!element.getClientRects().length || style.clipPath !== 'none') continue;
  const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
  const field = element.matches('input');
  if (!own && !field) continue;
  seen += 1;
  const under = ground(element);
  const color = numbers(style.color);
  const shown = over([...color.slice(0, 3), (color[3] ?? 1) * opacity(element)], under);
  const text = ratio(shown, under);
  if (text < 4.5) weak.push(`${element.tagName}.${element.className} ${element.textContent}: ${text.toFixed(2)}`);
  const edge = numbers(style.borderTopColor);
  if (field && ratio(edge, ground(element.parentElement)) < 3) weak.push(`${element.id}: edge`);
}
const dot = document.querySelector('.dot');
const lamp = getComputedStyle(dot).backgroundColor;
const shown = numbers(lamp)[3] === 0 ? getComputedStyle(dot).borderTopColor : lamp;
if (ratio(numbers(shown), ground(dot.parentElement)) < 3) weak.push('the light');
return [seen, weak];
"""
"""WCAG 2.2: 1.4.3 for text (4.5:1), 1.4.11 for the edges of fields and for the light (3:1)."""

UNLABELLED = """
return [...document.querySelectorAll('button, input, [role], img, aside')].filter((element) => {
  const label = element.labels?.[0]?.textContent || element.ariaLabel || element.getAttribute('alt')
    || document.getElementById(element.getAttribute('aria-labelledby'))?.textContent || element.textContent;
  return !label.trim() && element.getAttribute('alt') !== '' && element.getAttribute('role') !== 'status';
}).map((element) => element.outerHTML);
"""


@contextlib.contextmanager
def lively_page(browser: Browser) -> Iterator[tuple[Page, Room]]:
    """A page with everything in it that can be: messages, notes, marks, what is not sent yet."""
    with Room() as room:
        page = Page(browser, room.url).connected()
        page.call_me("Ann")
        page.say("hello")
        page.wait_said("hello")

        def lose() -> None:
            room.chat.people[0].channel.abort()
            for number, name in enumerate(["Bob", "Chen", "Dora", "Emil", "Fatima", "Greta", "Hugo"]):
                room.chat.history.add(by=90 + number, name=name, door="udp", text="x" * 300, ref="")

        room.ask(lose)
        page.wait_for("#messages", "^You are back")
        page.connected()
        yield page, room


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_has_enough_contrast(browser: Browser, scheme: str) -> None:
    with lively_page(browser) as (page, room):
        page.media(prefers_color_scheme=scheme, prefers_reduced_motion="reduce")
        ground = page.script("return getComputedStyle(document.body).backgroundColor")
        bright = sum(int(part) for part in ground.strip("rgb()").split(",")[:3]) / 3
        assert bright > 200 if scheme == "light" else bright < 60
        seen, weak = page.script(CONTRAST)
        assert seen > 30 and weak == []
        page.script("Math.random = () => 1000")  # it shall be away for long
        room.ask(lambda: room.chat.people[0].channel.abort())
        page.wait_for("#light", "^Reconnecting in")
        page.say("not sent")
        page.wait_for("#messages", "^not sent$")
        seen, weak = page.script(CONTRAST)
        assert seen > 30 and weak == []
        page.device(360, 740, mobile=True)
        page.click("#show-people")
        seen, weak = page.script(CONTRAST)
        assert seen > 30 and weak == []


def test_a_keyboard_is_enough(browser: Browser) -> None:
    with Room() as room:
        page = Page(browser, room.url).connected()
        page.device(360, 740)  # where there is a button more

        def focus() -> str:
            return str(page.script("return document.activeElement.id || document.activeElement.innerText"))

        until(lambda: focus() == "say", lambda: f"the focus on the message, but {focus()}")
        for key in "hi":
            page.here.press(key)
        page.here.press(ENTER)
        page.wait_said("hi")
        assert focus() == "say"
        walked = []
        for _ in range(3):
            page.here.press(SHIFT, TAB)
            outline = page.script("return getComputedStyle(document.activeElement).outlineStyle")
            walked.append((focus(), outline))
        assert walked == [("name", "solid"), ("log", "solid"), ("show-people", "solid")]
        assert page.script("return document.activeElement.ariaExpanded") == "false"
        page.here.press(SPACE)
        assert page.script("return document.activeElement.ariaExpanded") == "true"
        assert "guest-1" in page.text("#people")
        page.here.press(TAB)
        page.here.press(TAB)
        assert focus() == "name"
        page.here.press(CONTROL, "a")
        for key in "Ann":
            page.here.press(key)
        page.here.press(ENTER)
        page.wait_people(("Ann", "Browser"))
        assert focus() == "say"
        page.here.press(TAB)
        assert focus() == "Send"


def test_everything_has_a_name_and_changes_are_announced(browser: Browser) -> None:
    with lively_page(browser) as (page, room):
        assert page.script(UNLABELLED) == []
        assert page.script("return document.documentElement.lang") == "en"
        assert page.script("return [...document.querySelectorAll('h1, h2')].map(each => each.tagName)") == ["H1", "H2"]
        landmarks = "return ['header', 'main', 'aside', 'footer'].map(each => document.querySelectorAll(each).length)"
        assert page.script(landmarks) == [1, 1, 1, 1]
        log = page.script("const log = document.querySelector('[role=log]'); return [log.ariaLabel, log.ariaLive]")
        assert log == ["Messages", "polite"]
        tree = page.here.cdp("Accessibility.getFullAXTree")["nodes"]
        named = {(node["role"]["value"], node.get("name", {}).get("value", "")) for node in tree if "role" in node}
        for role, name in [
            ("textbox", "Your name"),
            ("textbox", "Message"),
            ("button", "Send"),
            ("log", "Messages"),
            ("heading", "test room"),
            ("complementary", "People 1"),
        ]:
            assert (role, name) in named, named
        page.script("Math.random = () => 1000")
        room.ask(lambda: room.chat.people[0].channel.abort())
        said = "return document.querySelector('[role=status]').textContent"
        until(lambda: page.script(said) == "Connection lost. Reconnecting.", lambda: str(page.script(said)))
        page.click("#retry")
        until(lambda: page.script(said) == "Connected", lambda: str(page.script(said)))


def test_a_phone_shows_everything_without_scrolling_sideways(browser: Browser) -> None:
    with lively_page(browser) as (page, _):
        page.device(360, 740, 2, mobile=True)
        page.say("https://example.org/" + "long" * 200)
        page.wait_for("#messages", "longlong")
        for _ in range(2):
            wide = """return [...document.querySelectorAll('body *')].filter((element) => {
                const box = element.getBoundingClientRect();
                const seen = getComputedStyle(element).clipPath === 'none' && box.width;
                return seen && (box.right > 360.5 || box.left < -0.5);
            }).map((element) => element.outerHTML)"""
            assert page.script(wide) == []
            assert page.script("return [document.documentElement.scrollWidth, innerWidth, innerHeight]") == [
                360,
                360,
                740,
            ]
            assert page.script("return document.documentElement.scrollHeight <= innerHeight")
            small = """return [...document.querySelectorAll('button, input')].filter((each) => each.offsetHeight
                && each.offsetHeight < 24).map((each) => each.outerHTML)"""
            assert page.script(small) == []  # WCAG 2.5.8
            bottom = page.script("return document.getElementById('say').getBoundingClientRect().bottom")
            log = page.script("return document.getElementById('log').clientHeight")
            assert bottom <= 740 and log > 150
            page.click("#show-people")
        page.click("#show-people")
        page.wait_for("#people", "Ann")


def test_large_letters_fit(browser: Browser) -> None:
    """At twice the size of text, 640 pixels are as many as 320: WCAG 1.4.10."""
    with lively_page(browser) as (page, _):
        page.device(320, 512)
        assert page.script("return document.documentElement.scrollWidth") == 320
        assert page.script("return document.getElementById('say').getBoundingClientRect().bottom") <= 512


@pytest.mark.parametrize(("wish", "moves"), [("reduce", False), ("no-preference", True)])
def test_nothing_moves_for_who_wants_no_motion(browser: Browser, wish: str, moves: bool) -> None:
    with Room() as room:
        page = Page(browser, room.url).connected()
        page.media(prefers_reduced_motion=wish)
        page.script("Math.random = () => 1000")
        room.ask(lambda: room.chat.people[0].channel.abort())
        page.wait_for("#light", "^Reconnecting in")
        assert bool(page.script("return document.getAnimations().length")) == moves


def test_who_reads_what_was_said_before_is_not_moved(browser: Browser) -> None:
    with Room() as room:
        room.ask(lambda: [room.chat.history.add(by=9, name="Bob", door="tcp", text=str(n), ref="") for n in range(200)])
        page, other = Page(browser, room.url).connected(), Page(browser, room.url, new=True).connected()
        at = "return [log.scrollTop, log.scrollHeight - log.scrollTop - log.clientHeight]"
        assert page.script(f"const log = document.getElementById('log'); {at}")[1] < 60
        page.script("document.getElementById('log').scrollTop = 100")
        other.say("something new")
        page.wait_for("#newest", "^New messages")
        assert page.script(f"const log = document.getElementById('log'); {at}")[0] == 100
        page.click("#newest")
        until(lambda: not page.text("#newest"), lambda: "no such button any more")
        assert page.script(f"const log = document.getElementById('log'); {at}")[1] < 60
