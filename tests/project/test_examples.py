"""What the README, the guide and the examples print is what runs."""

import ast
import asyncio
import codeop
import contextlib
import inspect
import re
import runpy
import select
import signal
import socket
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from ports import free_port

import portico
from portico import blocking

ROOT = Path(__file__).parents[2]
PAGES = ["README.md", "docs/guide.md"]
AT_THE_PROMPT = ["packets", "proxies", "blocking", "discovery", "websocket", "web", "asgi"]
"""Pages whose blocks go on from one another, as typed at the prompt of `python -m asyncio`; programs stand alone."""


def blocks(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)


def block(page: str, marker: str) -> str:
    (found,) = [each for each in blocks(page) if marker in each]
    return found


@pytest.mark.parametrize("page", PAGES)
def test_every_block_of_python_compiles(page: str) -> None:
    assert blocks(page)
    for each in blocks(page):
        compile(each, page, "exec")


def typed(text: str, page: str) -> Iterator[types.CodeType]:
    """Make of `text` what the prompt makes of its lines: a blank line ends a block, another statement does not."""
    compiler = codeop.CommandCompiler()
    compiler.compiler.flags |= ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    lines: list[str] = []
    for line in [*text.splitlines(), ""]:
        lines.append(line)
        code = compiler("\n".join(lines), page, "single")
        if code is not None:
            lines.clear()
            yield code
    assert not lines, "the last block does not end"


@pytest.mark.parametrize("page", AT_THE_PROMPT)
def test_the_blocks_of_a_page_print_what_they_say(
    page: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "displayhook", lambda value: None)
    namespace: dict[str, object] = {}
    promised: list[str] = []
    page = f"docs/{page}.md"
    assert blocks(page)
    with asyncio.Runner() as runner:
        for each in blocks(page):
            if "portico.run(" in each:
                continue
            for code in typed(each, page):
                result = types.FunctionType(code, namespace)()
                if code.co_flags & inspect.CO_COROUTINE:
                    runner.run(asyncio.wait_for(result, 30))
            promised += re.findall(r"print\(.*\)  # (.*)$", each, re.MULTILINE)
    blocking.shutdown()
    assert capsys.readouterr().out.splitlines() == promised


@contextlib.contextmanager
def running(code: str, folder: Path, listening: int):
    """Run a program until it has said `listening` times where it listens; end it by SIGTERM and expect 0."""
    program = subprocess.Popen([sys.executable, "-c", code], cwd=folder, stderr=subprocess.PIPE, text=True)
    try:
        assert program.stderr is not None
        for _ in range(listening):
            assert "listening on" in program.stderr.readline()
        yield
        program.send_signal(signal.SIGTERM)
        assert program.wait(20) == 0
        assert program.stderr.read() == ""
    finally:
        program.kill()
        program.wait()
        program.stderr.close()


def test_the_readme_server_lets_a_tcp_and_a_unix_client_talk(tmp_path: Path) -> None:
    port = free_port()
    code = block("README.md", "room = portico.Group()").replace("9000", str(port)).replace("8000", str(free_port()))
    with (
        running(code, tmp_path, 3),
        socket.create_connection(("127.0.0.1", port)) as tcp,
        socket.socket(socket.AF_UNIX) as unix,
    ):
        unix.connect(str(tmp_path / "chat.sock"))
        for _ in range(100):  # the room may not have both yet
            tcp.sendall(b"hello\n")
            if select.select([unix], [], [], 0.1)[0]:
                break
        with unix.makefile() as heard:
            assert heard.readline() == f"tcp://127.0.0.1:{tcp.getsockname()[1]}: hello\n"


def test_the_readme_server_serves_whatever_a_browser_sends(tmp_path: Path) -> None:
    port, web = free_port(), free_port()
    code = block("README.md", "room = portico.Group()").replace("9000", str(port)).replace("8000", str(web))
    with running(code, tmp_path, 3):
        asyncio.run(asyncio.wait_for(visit_as_browsers_do(f"ws://127.0.0.1:{web}/chat", f"tcp://127.0.0.1:{port}"), 20))


async def visit_as_browsers_do(url: str, lines: str) -> None:
    """Talk in a room as a page may: several lines, none, and binary, of which nobody else notices anything."""
    page = portico.WebSocketSettings(origin=url.replace("ws:", "http:").removesuffix("/chat"))
    async with (
        portico.connect(lines, codec=portico.Lines()) as nc,
        portico.connect(url, websocket=page) as one,
        portico.connect(url, websocket=page) as other,
    ):
        await all_there([nc, one, other])
        async with portico.connect(url, websocket=page) as binary:
            await binary.send(b"two\nlines")
            with pytest.raises(portico.ClosedError):
                await binary.recv()
            assert binary.close_code == 1003
        for text in ("two\nlines", "", "\n", "end"):
            await one.send(text)
        for each in (nc, other):
            said = [""]
            while said[-1] != "end":
                said.append(str(await each.recv()).partition(": ")[2])
            assert [text for text in said[1:] if not text.startswith("here is")] == ["two", "lines", "", "end"]
        assert one.close_code is None


async def all_there(people: list[portico.Channel[Any]]) -> None:
    """Wait until everybody hears everybody; they say "here is" and a number for that."""
    for number, one in enumerate(people):
        others = [each for each in people if each is not one]
        while True:
            await one.send(f"here is {number}")
            if all(await asyncio.gather(*(_hears(each, f"here is {number}") for each in others))):
                break


def test_the_readme_handler_answers_over_tcp_and_udp(tmp_path: Path) -> None:
    port = free_port()
    code = block("README.md", "udp://127.0.0.1:9000").replace("9000", str(port)).replace("timeout=5", "timeout=0.2")
    with (
        running(code, tmp_path, 2),
        socket.create_connection(("127.0.0.1", port), 10) as tcp,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
    ):
        tcp.sendall(b"hello\n")
        with tcp.makefile() as answers:
            assert answers.readline() == "HELLO\n"
        udp.settimeout(10)
        udp.connect(("127.0.0.1", port))
        udp.send(b"hello")
        assert udp.recv(100) == b"HELLO\n"


def test_the_readme_client_says_hello(tmp_path: Path) -> None:
    port = free_port()
    code = block("README.md", "print(await channel.recv())").replace("9000", str(port))
    with socket.create_server(("127.0.0.1", port)) as server:
        client = subprocess.Popen(
            [sys.executable, "-c", code + "\nasyncio.run(main())"], stdout=subprocess.PIPE, text=True
        )
        connected, _ = server.accept()
        with connected, connected.makefile("rw") as peer:
            assert peer.readline() == "hello\n"
            peer.write("welcome\n")
            peer.flush()
            assert client.communicate(timeout=10)[0] == "welcome\n"
        assert client.returncode == 0


def test_the_readme_test_passes() -> None:
    code = block("README.md", "async def test_echo()")
    assert subprocess.run([sys.executable, "-W", "error", "-c", code], timeout=20, check=False).returncode == 0


def test_the_guides_codec_works_on_a_connection() -> None:
    namespace: dict[str, object] = {}
    exec(block("docs/guide.md", "class Pairs"), namespace)

    async def echo(channel: portico.Channel[tuple[str, str]]) -> None:
        async for pair in channel:
            await channel.send(pair)

    async def main() -> tuple[str, str]:
        codec = namespace["Pairs"]()  # type: ignore[operator]
        async with portico.serve(echo, "mem:pairs", codec=codec) as server:
            async with portico.connect(server.address, codec=codec) as channel:
                await channel.send(("key", "value"))
                return await channel.recv()

    assert asyncio.run(main()) == ("key", "value")


def test_the_guides_functions_do_what_it_says() -> None:
    printed: list[tuple[object, ...]] = []
    namespace: dict[str, Any] = {"portico": portico, "print": lambda *words: printed.append(words)}
    for marker in ("def tune", "def watch"):
        exec(block("docs/guide.md", marker), namespace)

    async def greet(channel: portico.Channel[str]) -> None:
        await channel.send("a line")
        await channel.wait_closed()

    async def main() -> None:
        async with portico.serve(greet, "tcp://127.0.0.1:0", codec=portico.Lines()) as server:
            follow = block("docs/guide.md", "def follow").replace("tcp://localhost:9000", str(server.address))
            exec(follow, namespace)
            following = asyncio.create_task(namespace["follow"]())
            async with portico.connect(server.address) as stream, portico.datagrams("udp://127.0.0.1:0") as packets:
                await namespace["tune"](stream)
                assert printed[-1][0] == stream.options.receive_buffer
                await packets.send(b"a packet", to=packets.local_address)
                while ("the packets", b"a packet") not in printed:
                    await namespace["watch"](stream, packets)
            while ("a line",) not in printed:
                await asyncio.sleep(0.01)
            following.cancel()
            await asyncio.wait([following])
            await server.abort()

    asyncio.run(main())


def test_the_guides_threaded_service_shouts(tmp_path: Path) -> None:
    port = free_port()
    code = block("docs/guide.md", "def shout").replace("9000", str(port)).replace("group:staff", "any")
    with running(code + "\nportico.run(service)", tmp_path, 2), socket.create_connection(("127.0.0.1", port)) as tcp:
        tcp.sendall(b"quietly\n")
        with tcp.makefile() as answers:
            assert answers.readline() == "QUIETLY\n"


@pytest.mark.parametrize(
    ("name", "printed"),
    [
        ("discovery", "found an echo, which speaks English\nhello indeed\n"),
        ("headed_messages", "{'result': \"found nothing for 'morpheus'\"}\n"),
        ("pass_descriptor", "a file from afar\n"),
        ("blocking_client", "HELLO\nnothing more yet\nAND GOODBYE\n"),
        ("udp_echo", "hello came back\n"),
        ("poller", "the packets: a packet (READABLE)\nthe pipe: a line (READABLE)\nthe stream: hello (READABLE)\n"),
    ],
)
def test_example(name: str, printed: str, capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(ROOT / "examples" / f"{name}.py"), run_name="__main__")
    assert capsys.readouterr().out == printed


def test_example_starttls(tmp_path: Path) -> None:
    ca = trustme.CA()
    issued = ca.issue_cert("localhost")
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    issued.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    issued.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    done = subprocess.run(
        [sys.executable, "-W", "error", str(ROOT / "examples" / "starttls.py"), "cert.pem", "key.pem", "ca.pem"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert (done.stdout, done.stderr, done.returncode) == ("SECRET\n", "", 0)


def test_example_chat_is_the_readmes_service(tmp_path: Path) -> None:
    code = (ROOT / "examples" / "chat.py").read_text().replace("9000", str(free_port()))
    with running(code.replace("8000", str(free_port())), tmp_path, 3), socket.socket(socket.AF_UNIX) as unix:
        unix.connect(str(tmp_path / "chat.sock"))


def test_example_asgi_app_has_fastapi_and_a_chat(tmp_path: Path) -> None:
    port = free_port()
    code = (ROOT / "examples" / "asgi_app.py").read_text().replace("8000", str(port))

    async def visit() -> tuple[object, object]:
        async with await portico.connect(f"ws://127.0.0.1:{port}/chat") as channel:
            await channel.send("hello")
            return await channel.recv(), (await portico.fetch(f"http://127.0.0.1:{port}/api/hello/you")).json()

    with running(code, tmp_path, 1):
        assert asyncio.run(visit()) == ("hello", {"hello": "you", "chatting": 1})


def test_example_one_port_lets_everybody_in(tmp_path: Path) -> None:
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    ca.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "both.pem"))
    port = free_port()
    code = (ROOT / "examples" / "one_port.py").read_text().replace("8000", str(port))
    code = code.replace("*sys.argv[1:3]", "'both.pem', 'both.pem'").replace("import sys\n", "")

    async def visit() -> None:
        tls = portico.TLS(ca=str(tmp_path / "ca.pem"))
        for url, how in ((f"http://localhost:{port}/", "in plain text"), (f"https://localhost:{port}/", "by TLS")):
            answer = await portico.fetch(url, tls=tls if url.startswith("https") else None)
            assert answer.text == f"0 people are here; you came {how}\n"
        async with (
            portico.connect(f"ws://localhost:{port}/chat") as plain,
            portico.connect(f"wss://localhost:{port}/chat", tls=tls) as secure,
            portico.connect(f"tcp://localhost:{port}", codec=portico.Lines()) as lines,
            portico.connect(f"tls://localhost:{port}", codec=portico.Lines(), tls=tls) as secure_lines,
        ):
            people: list[portico.Channel[Any]] = [plain, secure, lines, secure_lines]
            await secure_lines.send("")  # so that it does not look silent
            await all_there(people)
        await visit_as_browsers_do(f"ws://localhost:{port}/chat", f"tcp://localhost:{port}")

    with running(code, tmp_path, 1):
        asyncio.run(asyncio.wait_for(visit(), 20))


async def _hears(channel: portico.Channel[Any], end: str) -> bool:
    """Whether what ends so comes soon."""
    try:
        async with asyncio.timeout(1.5):
            while not str(await channel.recv()).endswith(end):
                pass
    except TimeoutError:
        return False
    return True


def test_example_web_chat_serves_its_page_and_lets_people_talk(tmp_path: Path) -> None:
    port = free_port()
    for name in ("web_chat.py", "web_chat/index.html"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text((ROOT / "examples" / name).read_text())
    code = f"import portico, web_chat\nportico.run(portico.Service().listen('http://127.0.0.1:{port}', web_chat.door))"

    async def visit() -> None:
        page = await portico.fetch(f"http://127.0.0.1:{port}/")
        assert "new WebSocket(" in page.text and page.headers.get("Content-Type", "").startswith("text/html")
        settings = portico.WebSocketSettings(origin=f"http://127.0.0.1:{port}")
        where = f"ws://127.0.0.1:{port}/chat"
        async with portico.connect(where) as one, portico.connect(where, websocket=settings) as browser:
            await one.send("anybody there?")
            assert await one.recv() == "anybody there?"
            await browser.send("<b>me</b>")
            assert await one.recv() == "<b>me</b>"

    with running(code, tmp_path, 1):
        asyncio.run(asyncio.wait_for(visit(), 20))
