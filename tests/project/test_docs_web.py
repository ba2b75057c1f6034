"""The programs of the pages about the web run; links, tables and command lines of all pages are sound."""

import asyncio
import re
import shlex
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import typer
from ports import free_port
from test_examples import ROOT, block, running

import portico
from portico.tools.cli import app

PAGES = sorted(
    str(page.relative_to(ROOT))
    for folder in (ROOT, ROOT / "docs", ROOT / "docs" / "conformance", ROOT / "bench")
    for page in folder.glob("*.md")
)
WITH_COMMANDS = ["README.md", "docs/guide.md", "docs/command.md", "docs/websocket.md", "docs/web.md", "docs/asgi.md"]


async def ask_echo(port: int) -> None:
    async with portico.connect(f"ws://127.0.0.1:{port}/echo", websocket=portico.WebSocketSettings()) as channel:
        await channel.send("hello")
        assert await channel.recv() == "hello"


async def ask_door(port: int) -> None:
    assert (await portico.fetch(f"http://127.0.0.1:{port}/hello/you")).text == "hello you\n"
    await ask_door_chat(port)


async def ask_door_chat(port: int) -> None:
    assert (await portico.fetch(f"http://127.0.0.1:{port}/healthz")).text == "ok\n"
    url = f"ws://127.0.0.1:{port}/chat"
    async with portico.connect(url, websocket=portico.WebSocketSettings()) as channel:
        await channel.send("hello")
        assert await channel.recv() == "hello"


async def ask_readme(port: int) -> None:
    assert (await portico.fetch(f"http://127.0.0.1:{port}/")).text == "a page"
    await ask_door_chat(port)


async def ask_application(port: int) -> None:
    assert (await portico.fetch(f"http://127.0.0.1:{port}/api/hello/you")).json() == {"hello": "you"}


@pytest.mark.parametrize(
    ("page", "marker", "ask"),
    [
        ("README.md", "door.files", ask_readme),
        ("docs/websocket.md", "portico.run(", ask_echo),
        ("docs/web.md", "portico.run(", ask_door),
        ("docs/asgi.md", "portico.run(", ask_application),
    ],
)
def test_the_program_of_a_page_does_what_it_says(
    page: str, marker: str, ask: Callable[[int], Coroutine[Any, Any, None]], tmp_path: Path
) -> None:
    (tmp_path / "public").mkdir()
    (tmp_path / "public" / "index.html").write_text("a page")
    port = free_port()
    with running(block(page, marker).replace("8000", str(port)), tmp_path, 1):
        asyncio.run(asyncio.wait_for(ask(port), 20))


def prose(page: str) -> str:
    """The page without its blocks of code."""
    return re.sub(r"^```.*?^```$", "", (ROOT / page).read_text(), flags=re.DOTALL | re.MULTILINE)


def anchors(page: str) -> set[str]:
    """The names that headings get."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        there = (ROOT / page).parent / path if path else ROOT / page
        assert there.exists(), target
        if anchor:
            assert anchor in anchors(str(there.resolve().relative_to(ROOT))), target


@pytest.mark.parametrize("page", PAGES)
def test_the_rows_of_a_table_have_as_many_cells_as_its_head(page: str) -> None:
    cells = 0
    for line in prose(page).splitlines():
        if not line.startswith("|"):
            cells = 0
            continue
        found = len(re.findall(r"(?<!\\)\|", re.sub(r"`[^`]*`", lambda code: code[0].replace("\\|", ""), line)))
        cells = cells or found
        assert found == cells, line


def command_lines(page: str) -> list[str]:
    """The calls of `portico` in the blocks of a page, without what pipes, files and explanations stand beside."""
    found = []
    for each in re.findall(r"^```(?:sh)?\n(.*?)^```$", (ROOT / page).read_text(), re.DOTALL | re.MULTILINE):
        for line in each.splitlines():
            call = re.search(r"(?:^|\$ |\| )(portico .*)", line)
            if call is not None:
                found.append(re.split(r" {2,}| [<>|]", call[1])[0])
    return found


@pytest.mark.parametrize("page", WITH_COMMANDS)
def test_every_command_line_has_options_that_there_are(page: str) -> None:
    group: Any = typer.main.get_command(app)
    for line in command_lines(page):
        _, name, *arguments = shlex.split(line)
        group.commands[name].make_context(name, arguments)
