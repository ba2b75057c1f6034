"""`fetch` and servers and proxies that others wrote, and our own Door."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from interop.support import sample
from interop.test_proxies import microsocks, program, tinyproxy
from peers import need_program, nginx_settings
from ports import free_port
from server.support import Certificates, certificates, scenario

import portico

from .fetch_kit import OK, playing, python_server

__all__ = ["certificates"]

NGINX = nginx_settings("""
    server {{
        listen 127.0.0.1:{port};
        listen 127.0.0.1:{secure} ssl;
        listen unix:{folder}/nginx.sock;
        ssl_certificate {certificate};
        ssl_certificate_key {certificate};
        root {folder}/files;
        client_max_body_size 1000;
        location /old {{ return 301 /sample; }}
        location /moved {{ return 308 https://127.0.0.1:{secure}/sample; }}
        location /busy {{ return 503 "come back later\\n"; }}
        location /upload {{ proxy_pass http://127.0.0.1:{port}/taken; }}
        location /taken {{ return 200 "$content_type $content_length"; }}
        location /private {{ auth_basic "door"; auth_basic_user_file {folder}/users; }}
    }}
""")


@contextlib.asynccontextmanager
async def nginx(folder: Path, certificates: Certificates) -> AsyncIterator[tuple[str, str]]:
    """nginx on two ports and a Unix socket: give its URLs for HTTP and HTTPS."""
    path, port, secure = need_program("nginx"), free_port(), free_port()
    (folder / "files").mkdir()
    (folder / "files" / "sample").write_bytes(sample())
    (folder / "files" / "private").mkdir()
    (folder / "files" / "private" / "note").write_text("for joe")
    (folder / "users").write_text("joe:{PLAIN}secret\n")
    certificate = certificates.issue("127.0.0.1")
    file = folder / "nginx.conf"
    file.write_text(NGINX.format(folder=folder, port=port, secure=secure, certificate=certificate))
    folder.chmod(0o755)
    async with program(path, "-p", str(folder), "-c", str(file), "-e", f"{folder}/error.log", port=port):
        yield f"http://127.0.0.1:{port}", f"https://127.0.0.1:{secure}"


@scenario(timeout=40)
async def test_nginx(tmp_path: Path, certificates: Certificates) -> None:
    async with nginx(tmp_path, certificates) as (plain, secure):
        tls = certificates.client()
        for url in (f"{plain}/sample", f"{plain}/old", f"{plain}/moved", f"{secure}/sample"):
            got = await portico.fetch(url, tls=tls)
            assert got.body == sample() and got.url.path == "/sample" and "nginx" in (got.headers.get("Server") or "")
        got = await portico.fetch(f"http+unix:{tmp_path}/nginx.sock:/sample", headers={"Range": "bytes=10-19"})
        assert (got.status, got.body) == (206, sample()[10:20])
        got = await portico.fetch(f"{plain}/sample", "HEAD")
        assert got.headers.get("Content-Length") == str(len(sample())) and got.body == b""
        with pytest.raises(
            portico.StatusError, match="/busy answered 503 Service Temporarily Unavailable: come back later"
        ):
            await portico.fetch(f"{plain}/busy")
        with pytest.raises(portico.StatusError, match="answered 401 Unauthorized"):
            await portico.fetch(f"{plain}/private/note")
        got = await portico.fetch(f"{plain}/private/note", credentials=("joe", "secret"))
        assert got.text == "for joe"
        with pytest.raises(portico.StatusError, match="answered 413"):
            await portico.fetch(f"{plain}/upload", "POST", body=b"x" * 2_000_000)
        assert (await portico.fetch(f"{plain}/upload", "POST", json=[1])).text == "application/json 3"

        async def pieces() -> AsyncIterator[bytes]:
            yield b"abc"
            yield b"def"

        got = await portico.fetch(f"{plain}/upload", "PUT", body=pieces())
        assert got.text == "application/octet-stream 6"  # nginx counts what came in chunks
        async with portico.fetch(f"{plain}/sample") as streamed:
            assert b"".join([piece async for piece in streamed]) == sample()
        with pytest.raises(portico.StatusError, match="answered 400 Bad Request"):
            await portico.fetch(secure.replace("https", "http"))


@scenario()
async def test_pythons_own_server(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "index.html").write_bytes(sample())
    with python_server(tmp_path) as url:
        got = await portico.fetch(f"{url}/files")  # which it redirects to files/
        assert got.body == sample() and got.url.path == "/files/" and got.version == "1.0"
        assert (await portico.fetch(f"{url}/files/", "HEAD")).headers.get("Content-Length") == str(len(sample()))
        with pytest.raises(portico.StatusError, match="answered 404 File not found"):
            await portico.fetch(f"{url}/none")
        with pytest.raises(portico.StatusError, match="answered 501"):
            await portico.fetch(url, "POST", body="x")


@pytest.mark.parametrize("scheme", ["socks5", "socks5h", "http"])
@scenario(timeout=30)
async def test_proxies(scheme: str, tmp_path: Path, certificates: Certificates) -> None:
    proxy = tinyproxy(tmp_path) if scheme == "http" else microsocks()
    both = certificates.server()

    async def hello(stream: portico.Stream) -> None:
        await stream.recv_until(b"\r\n\r\n")
        await stream.send(OK)

    async with proxy as place, playing(OK) as server, portico.serve(hello, "tls://127.0.0.1:0", tls=both) as secure:
        through = f"{scheme}://{place}"
        assert (await portico.fetch(server.url, proxy=through)).body == b"hello"
        url = f"https://localhost:{secure.address.port}/"
        assert (await portico.fetch(url, proxy=through, tls=certificates.client())).body == b"hello"
        nobody = f"http://127.0.0.1:{free_port()}/"
        with pytest.raises(portico.ConnectError) as caught:
            await portico.fetch(nobody, proxy=through)
        assert caught.value.attempts[-1].stage == "proxy"


@scenario()
async def test_the_proxy_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", f"socks5h://127.0.0.1:{free_port()}")
    monkeypatch.setenv("NO_PROXY", "")
    async with playing(OK) as server:
        assert (await portico.fetch(server.url)).body == b"hello"
        with pytest.raises(portico.ConnectError, match="refused"):
            await portico.fetch(server.url, proxy="environment")


@scenario()
async def test_our_own_door(tmp_path: Path, certificates: Certificates) -> None:
    door = portico.Door(max_body=1 << 24)
    (tmp_path / "sample").write_bytes(sample())
    door.files("/files", tmp_path)

    @door.post("/echo")
    async def echo(request: object) -> bytes:
        return await request.body()  # type: ignore[attr-defined, no-any-return]

    @door.get("/pieces")
    async def pieces(request: object) -> object:
        async def numbers() -> AsyncIterator[bytes]:
            for number in range(1000):
                yield b"%d\n" % number
                await asyncio.sleep(0)

        return portico.Response(numbers())

    door.health("/healthz")
    service = portico.Service()
    service.listen("http://127.0.0.1:0", door)
    service.listen(f"http+unix:{tmp_path}/door", door)
    service.listen("https://127.0.0.1:0", door, tls=certificates.server())
    async with portico.serve(service) as server:
        tls = certificates.client()
        for address in server.addresses:
            base = str(address).rstrip("/")
            assert (await portico.fetch(f"{base}/healthz", tls=tls)).status == 200
            assert (await portico.fetch(f"{base}/files/sample", tls=tls)).body == sample()
            assert (await portico.fetch(f"{base}/echo", "POST", body=sample(), tls=tls)).body == sample()
            lines = (await portico.fetch(f"{base}/pieces", tls=tls)).text.split()
            assert lines == [str(number) for number in range(1000)]
            assert (await portico.fetch(f"{base}/pieces", "HEAD", tls=tls)).body == b""
            with pytest.raises(portico.StatusError, match="answered 404"):
                await portico.fetch(f"{base}/none", tls=tls)
            with pytest.raises(portico.StatusError, match="answered 405"):
                await portico.fetch(f"{base}/echo", tls=tls)
