"""`door.files`: types, ranges, conditions, and nothing that is not in the folder."""

import asyncio
import contextlib
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from server.support import scenario, until

from portico.errors import ClosedError, ConfigurationError
from portico.web import file_body, files
from portico.web.door import Door
from portico.web.file_body import FileBody
from portico.web.files import KEPT_FILES, SMALL, Files, content_type

from .files_kit import BEFORE, BIG, ETAG, MODIFIED, TEN, door_of, folder, opened, settled
from .front_kit import Front, Reply, front

__all__ = ["folder", "settled"]

# what is sent


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.js", "text/javascript; charset=utf-8"),
        ("a.mjs", "text/javascript; charset=utf-8"),
        ("A.CSS", "text/css; charset=utf-8"),
        ("a.html", "text/html; charset=utf-8"),
        ("a.md", "text/markdown; charset=utf-8"),
        ("a.txt", "text/plain; charset=utf-8"),
        ("a.json", "application/json"),
        ("a.svg", "image/svg+xml"),
        ("a.wasm", "application/wasm"),
        ("a.webp", "image/webp"),
        ("a.woff2", "font/woff2"),
        ("a.tar.gz", "application/gzip"),
        ("a.js.gz", "application/gzip"),
        ("a.txt.Z", "application/octet-stream"),
        ("a.unheard-of", "application/octet-stream"),
        ("js", "application/octet-stream"),
    ],
)
def test_a_type_is_told_by_the_name(name: str, kind: str) -> None:
    assert content_type(f"/folder.css/{name}") == kind


@scenario()
async def test_small_and_large_files_are_sent_with_what_caches_need(folder: Path) -> None:
    async with front(door_of(folder)) as door:
        for name, content in (("ten.txt", TEN), ("big.bin", BIG), ("empty.bin", b"")):
            got = await door.ask(f"/s/{name}")
            assert (got.status, got.body) == (200, content)
            assert got.headers["accept-ranges"] == "bytes" and got.headers["x-content-type-options"] == "nosniff"
            assert got.headers["cache-control"] == "no-cache" and got.headers["etag"].startswith('"')
            head = await door.ask(f"/s/{name}", method="HEAD")
            assert head == Reply(200, got.headers | {"date": head.headers["date"]}, b"")
        assert (await door.ask("/s/ten.txt")).headers["last-modified"] == MODIFIED
        assert not opened(folder)


@scenario()
async def test_pipelined_files_come_in_order(folder: Path) -> None:
    async with front(door_of(folder)) as door:
        wanted = {"big.bin": BIG, "ten.txt": TEN, "sub/": b"sub"}
        for name in wanted:
            await door.send(f"/s/{name}")
        assert [(await door.reply()).body for _ in wanted] == list(wanted.values())


@scenario()
async def test_curl_gets_whole_files_and_resumes(folder: Path, tmp_path: Path) -> None:
    async with front(door_of(folder, "/")) as door:
        assert await door.curl(f"{door.url}/big.bin") == BIG
        assert await door.curl(f"{door.url}/") == b"<p>"
        assert await door.curl("--location", f"{door.url}/sub") == b"sub"
        part = tmp_path / "part"
        part.write_bytes(BIG[:1000])
        await door.curl("--continue-at", "-", "--output", str(part), f"{door.url}/big.bin")
        assert part.read_bytes() == BIG
        assert await door.curl("--range", "2-4", f"{door.url}/ten.txt") == b"234"
        assert await door.curl("--range", "-3", f"{door.url}/big.bin") == BIG[-3:]


@scenario()
async def test_curl_asks_whether_a_file_has_changed(folder: Path, tmp_path: Path) -> None:
    async with front(door_of(folder)) as door:
        url, tag = f"{door.url}/s/ten.txt", str(tmp_path / "tag")
        told = ["--write-out", "%{http_code}", "--output", os.devnull]
        assert await door.curl(*told, "--etag-save", tag, url) == b"200"
        assert await door.curl(*told, "--etag-compare", tag, url) == b"304"
        assert await door.curl(*told, "--time-cond", MODIFIED, url) == b"304"
        assert await door.curl(*told, "--time-cond", BEFORE, url) == b"200"
        (folder / "ten.txt").write_bytes(b"other")
        assert await door.curl(*told, "--etag-compare", tag, url) == b"200"
        assert await door.curl(*told, "--time-cond", MODIFIED, url) == b"200"


@pytest.mark.parametrize(
    ("cache", "told"),
    [(3600, "max-age=3600"), (0, "max-age=0"), ("public, immutable", "public, immutable"), (None, None)],
)
@scenario()
async def test_cache_control_is_as_it_was_set(folder: Path, cache: int | str | None, told: str | None) -> None:
    async with front(door_of(folder, cache=cache)) as door:
        assert (await door.ask("/s/ten.txt")).headers.get("cache-control") == told
        unchanged = await door.ask("/s/ten.txt", f"If-None-Match: {ETAG}")
        assert unchanged.headers.get("cache-control") == told


@scenario()
async def test_only_get_and_head_are_answered(folder: Path) -> None:
    async with front(door_of(folder)) as door:
        for method in ("POST", "PUT", "DELETE"):
            got = await door.ask("/s/ten.txt", "Content-Length: 0", method=method)
            assert got.status == 405 and got.headers["allow"] == "GET, HEAD, OPTIONS"
        assert (folder / "ten.txt").read_bytes() == TEN


# folders


@scenario()
async def test_a_folder_is_its_index_and_never_a_list(folder: Path) -> None:
    (folder / "bare").mkdir()
    (folder / "odd" / "index.html").mkdir(parents=True)
    async with front(door_of(folder)) as door:
        assert (await door.ask("/s/")).body == b"<p>"
        for target, place in (("/s", "./s/"), ("/s/sub", "./sub/"), ("/s/sub?a=b/c", "./sub/?a=b/c")):
            got = await door.ask(target)
            assert (got.status, got.headers["location"]) == (301, place)
        for target in ("/s/bare/", "/s/odd/", "/s/ten.txt/", "/s/ten.txt/index.html"):
            assert (await door.ask(target)).status == 404
    async with front(door_of(folder, index=None)) as door:
        assert [(await door.ask(target)).status for target in ("/s/", "/s", "/s/sub", "/s/sub/index.html")] == [
            404,
            404,
            404,
            200,
        ]


@scenario()
async def test_a_redirect_never_leads_to_another_host(folder: Path) -> None:
    (folder / "\\evil.example").mkdir()
    (folder / "javascript:x").mkdir()
    async with front(door_of(folder, "/")) as door:
        for target in ("//evil.example", "//sub", "///sub"):
            assert (await door.ask(target)).status == 404
        for target in ("/\\evil.example", "/%5Cevil.example", "/javascript:x"):
            assert (await door.ask(target)).headers["location"] == f".{target}/"


# escapes


@scenario()
async def test_nothing_outside_of_the_folder_can_be_had(folder: Path, tmp_path: Path) -> None:
    secret = b"the secret"
    for place in ("secret.txt", "site-secret", "site/.env", "site/.git/config", "site/sub/.hidden"):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).write_bytes(secret)
    (tmp_path / "beside").mkdir()
    (tmp_path / "beside" / "index.html").write_bytes(secret)
    (folder / "out").symlink_to(tmp_path / "secret.txt")
    (folder / "out-relative").symlink_to("../secret.txt")
    (folder / "out-folder").symlink_to(tmp_path / "beside")
    (folder / "out-root").symlink_to("/")
    (folder / "out-prefix").symlink_to(tmp_path / "site-secret")
    (folder / "out-twice").symlink_to("out")
    (folder / "linked").mkdir()
    (folder / "linked" / "index.html").symlink_to(tmp_path / "secret.txt")
    (folder / "circle").symlink_to("circle")
    (folder / "dangling").symlink_to("nowhere")
    targets = """
        ../secret.txt .. ../ ./ten.txt . %2e%2e/secret.txt %2E%2e%2fsecret.txt ..%2fsecret.txt sub/../../secret.txt
        sub/%2e%2e/%2e%2e/secret.txt ..%5csecret.txt ..\\secret.txt %252e%252e/secret.txt ..;/secret.txt
        ..%c0%afsecret.txt %c0%ae%c0%ae/secret.txt ..%u2215secret.txt
        /etc/passwd %2fetc%2fpasswd //etc/passwd file:///etc/passwd ~root/.bashrc
        ../site-secret ../site/ten.txt .env .git/config .git sub/.hidden %2eenv
        out out-relative out-folder out-folder/ out-folder/index.html out-root out-root/etc/passwd out-prefix out-twice
        linked/ circle dangling ten.txt%20 ten.txt:stream CON
    """.split()  # noqa: SIM905
    targets += ["a" * 300, "a/" * 2000, "%ff%fe", "ten.txt%0d%0aX:y", "%", "%2", "%zz"]
    async with front(door_of(folder)) as door:
        for target in targets:
            got = await door.ask(f"/s/{target}")
            assert got.status == 404, target
            assert secret not in got.body and b"root:" not in got.body
        assert (await door.ask("/s/ten.txt")).status == 200
    assert not opened(tmp_path)


@scenario()
async def test_a_nul_in_a_path_is_refused(folder: Path) -> None:
    async with front(door_of(folder)) as door:
        assert (await door.ask("/s/ten.txt%00.html")).status in (400, 404)


@scenario()
async def test_links_within_the_folder_and_well_known_are_served(folder: Path) -> None:
    (folder / "link").symlink_to("ten.txt")
    (folder / "link-folder").symlink_to("sub")
    (folder / ".well-known").mkdir()
    (folder / ".well-known" / "token").write_bytes(b"token")
    (folder / "gr\u00fc\u00dfe").write_bytes(b"hello")
    (folder / os.fsdecode(b"latin-\xfc")).write_bytes(b"old")
    async with front(door_of(folder)) as door:
        wanted = {"link": TEN, "link-folder/": b"sub", ".well-known/token": b"token", "gr%C3%BC%C3%9Fe": b"hello"}
        for name, content in (wanted | {"latin-%fc": b"old", "%74en.txt": TEN}).items():
            assert (await door.ask(f"/s/{name}")).body == content


@scenario()
async def test_what_is_no_regular_file_is_not_opened(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opens: list[str] = []
    before = os.open
    monkeypatch.setattr(os, "open", lambda path, *rest: (opens.append(str(path)), before(path, *rest))[1])
    os.mkfifo(folder / "fifo")
    (folder / "device").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(folder / "socket"))
        async with front(door_of(folder)) as door:
            for name in ("fifo", "socket", "device"):
                assert (await door.ask(f"/s/{name}")).status == 404
            assert (await door.ask("/s/ten.txt")).status == 200
    assert [path for path in opens if path.startswith(("/dev/zero", str(folder)))] == [str(folder / "ten.txt")]


@scenario()
async def test_a_link_that_is_turned_while_it_is_opened_shows_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "page").write_bytes(b"secret")
    (folder / "real").mkdir()
    (folder / "real" / "page").write_bytes(b"public")
    before = os.open

    def turned(path: str, *rest: int) -> int:
        if path == str(folder / "real" / "page"):
            (folder / "real").rename(folder / "gone")
            (folder / "real").symlink_to(tmp_path / "secret")
        return before(path, *rest)

    monkeypatch.setattr(os, "open", turned)
    async with front(door_of(folder)) as door:
        got = await door.ask("/s/real/page")
        assert got.status == 404 and b"secret" not in got.body
    assert not opened(tmp_path)


# files that change


@scenario()
async def test_a_small_file_is_kept_until_it_changes(
    folder: Path, tmp_path: Path, settled: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    opens: list[str] = []
    before = os.open
    monkeypatch.setattr(os, "open", lambda path, *rest: (opens.append(str(path)), before(path, *rest))[1])
    page = folder / "page"
    page.write_bytes(b"one")
    (tmp_path / "secret").write_bytes(b"secret")

    async def content(door: Front) -> bytes | int:
        got = await door.ask("/s/page")
        return got.body if got.status == 200 else got.status

    async with front(door_of(folder)) as door:
        assert [await content(door) for _ in range(3)] == [b"one"] * 3
        assert opens.count(str(page)) == 1
        changes: list[tuple[Callable[[], object], bytes | int]] = [
            (lambda: page.write_bytes(b"two"), b"two"),
            (lambda: page.write_bytes(b"three"), b"three"),
            (lambda: (folder / "new").write_bytes(b"newer"), b"three"),
            (lambda: (folder / "new").rename(page), b"newer"),
            (lambda: page.unlink(), 404),
            (lambda: page.symlink_to("ten.txt"), TEN),
            (lambda: (page.unlink(), page.symlink_to(tmp_path / "secret")), 404),
            (lambda: (page.unlink(), page.mkdir()), 301),
        ]
        for change, seen in changes:
            change()
            assert [await content(door), await content(door)] == [seen] * 2


@scenario()
async def test_the_folder_itself_may_be_a_link_that_is_turned(folder: Path, tmp_path: Path, settled: None) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "ten.txt").write_bytes(b"of the other release")
    current = tmp_path / "current"
    current.symlink_to(folder)
    async with front(door_of(current)) as door:
        assert (await door.ask("/s/ten.txt")).body == TEN
        (tmp_path / "next").symlink_to(other)
        (tmp_path / "next").rename(current)
        assert (await door.ask("/s/ten.txt")).body == b"of the other release"


@scenario()
async def test_a_file_that_was_just_written_is_not_kept(folder: Path) -> None:
    endpoint = Files("/s", folder)
    door = Door()
    door.get("/s/{rest:path}", endpoint)
    async with front(door) as client:
        (folder / "new").write_bytes(b"new")
        assert (await client.ask("/s/new")).body == b"new"
        assert not endpoint._kept


@scenario()
async def test_what_is_kept_is_bounded(folder: Path, settled: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "KEPT_BYTES", 5 * SMALL)
    endpoint = Files("/s", folder)
    door = Door(max_requests=10_000)
    door.get("/s/{rest:path}", endpoint)
    (folder / "small").write_bytes(bytes(SMALL))
    for number in range(KEPT_FILES + 3):
        (folder / f"tiny{number}").write_bytes(b"x")
    async with front(door) as client:
        for alias in ("small", "%73mall", "s%6dall", "sm%61ll", "sma%6cl", "smal%6c", "%73%6dall"):
            assert len((await client.ask(f"/s/{alias}")).body) == SMALL
        assert len(endpoint._kept) == 5 and endpoint._kept_bytes == 5 * SMALL
        for number in range(KEPT_FILES + 3):
            assert (await client.ask(f"/s/tiny{number}")).body == b"x"
        assert len(endpoint._kept) == KEPT_FILES and endpoint._kept_bytes == KEPT_FILES
        assert (await client.ask("/s/big.bin")).body == BIG
        assert "/s/big.bin" not in endpoint._kept


HUGE = 32 << 20
"""More than sockets and connection buffer together."""


@scenario(errors=True)
async def test_a_file_that_shrinks_ends_the_connection_short_of_its_length(folder: Path) -> None:
    path = folder / "huge"
    with open(path, "wb") as file:
        file.truncate(HUGE)
    async with front(door_of(folder)) as door:
        await door.send("/s/huge")
        status, headers = await door.head()
        assert (status, headers["content-length"]) == (200, str(HUGE))
        os.truncate(path, SMALL)
        assert len(await door.rest()) < HUGE
        await until(lambda: not opened(folder))


@scenario()
async def test_a_body_says_that_its_file_became_shorter(folder: Path) -> None:
    path = folder / "big.bin"
    body = FileBody(os.open(path, os.O_RDONLY), str(path), [b"before", (10, len(BIG))])
    assert [await body.__anext__(), await body.__anext__()] == [b"before", BIG[10 : 10 + SMALL]]
    os.truncate(path, SMALL)
    with pytest.raises(ClosedError, match="became shorter while it was sent"):
        await body.__anext__()
    assert not opened(folder)
    with pytest.raises(StopAsyncIteration):
        await body.__anext__()


@scenario()
async def test_a_file_that_is_replaced_or_grows_is_sent_as_it_was_promised(folder: Path) -> None:
    path = folder / "huge"
    with open(path, "wb") as file:
        file.truncate(HUGE)
    async with front(door_of(folder)) as door:
        await door.send("/s/huge")
        await door.head()
        with open(path, "ab") as file:
            file.write(b"more")
        path.unlink()
        path.write_bytes(b"other")
        await door.send("/s/huge", "Connection: close")
        rest = await door.rest()
        assert (
            rest[:HUGE] == bytes(HUGE) and rest[HUGE:].startswith(b"HTTP/1.1 200") and rest.endswith(b"\r\n\r\nother")
        )


@scenario()
async def test_a_client_that_vanishes_leaves_no_file_open(folder: Path) -> None:
    with open(folder / "huge", "wb") as file:
        file.truncate(HUGE)
    async with front(door_of(folder)) as door:
        await door.send("/s/huge")
        await door.head()
        assert opened(folder)
        door.client.reset()
        await until(lambda: not opened(folder))


@scenario()
async def test_a_shortage_of_descriptors_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(*unused: object) -> int:
        raise OSError(24, "Too many open files")

    async with front(door_of(folder)) as door:
        with monkeypatch.context() as patch:
            patch.setattr(os, "open", none_left)
            got = await door.ask("/s/ten.txt")
        assert got.status == 503 and got.headers["retry-after"] == "1"


# reading


@scenario()
async def test_what_the_kernel_has_not_in_memory_is_read_in_a_thread(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def not_there(*unused: object) -> int:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "preadv", not_there)
    async with front(door_of(folder)) as door:
        assert (await door.ask("/s/big.bin")).body == BIG


@scenario()
async def test_a_descriptor_is_not_closed_under_the_thread_that_reads(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, goes_on = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def slow(fd: int, size: int, offset: int) -> bytes:
        loop.call_soon_threadsafe(begun.set)
        goes_on.wait(10)
        return b""

    monkeypatch.setattr(file_body, "_NOWAIT", None)
    monkeypatch.setattr(file_body, "_read_at", slow)
    body = FileBody(os.open(folder / "big.bin", os.O_RDONLY), "big.bin", [(0, len(BIG))])
    reading = asyncio.ensure_future(body.__anext__())
    await begun.wait()
    reading.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await reading
    await body.aclose()
    assert opened(folder)
    goes_on.set()
    await until(lambda: not opened(folder))


# settings


@pytest.mark.parametrize(
    "settings",
    [{"index": "../x"}, {"index": ""}, {"index": "a/b"}, {"cache": -1}, {"cache": True}],
    ids=["up", "empty", "deeper", "negative", "bool"],
)
def test_settings_that_cannot_work_are_refused(folder: Path, settings: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError, match=r"^files: (index|cache)"):
        Files("/s", folder, **settings)  # type: ignore[arg-type]


def test_a_folder_that_is_none_is_refused(folder: Path) -> None:
    for wrong in ("nowhere", "ten.txt"):
        with pytest.raises(ConfigurationError, match=f"{wrong}' is no folder"):
            Files("/s", folder / wrong)
