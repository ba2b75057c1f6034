"""Handshakes through nginx as reverse proxy, which ends TLS and speaks plain HTTP to the server behind it."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from interop.test_proxies import program
from peers import need_program, nginx_settings
from ports import free_port
from server.support import Certificates, certificates, echo, scenario

import portico
from portico import WebSocketSettings
from portico.errors import StatusError

from .support import failure

__all__ = ["certificates"]

NGINX = nginx_settings("""
    server {{
        listen 127.0.0.1:{port} ssl;
        ssl_certificate {certificate};
        ssl_certificate_key {certificate};
        proxy_http_version 1.1;
        proxy_set_header Upgrade $http_upgrade;
        proxy_set_header Connection upgrade;
        proxy_set_header Host $http_host;
        location /chat {{ proxy_pass {behind}; }}
        location /gone {{ proxy_pass http://127.0.0.1:{closed}; }}
        location /moved {{ return 307 /chat; }}
    }}
""")


@contextlib.asynccontextmanager
async def nginx(folder: Path, certificates: Certificates, behind: str) -> AsyncIterator[str]:
    """nginx before the server at the URL `behind`: give its own."""
    path, port = need_program("nginx"), free_port()
    file = folder / "nginx.conf"
    certificate = certificates.issue("127.0.0.1")
    file.write_text(NGINX.format(folder=folder, port=port, certificate=certificate, behind=behind, closed=free_port()))
    folder.chmod(0o755)
    async with program(path, "-p", str(folder), "-c", str(file), "-e", f"{folder}/error.log", port=port):
        yield f"wss://127.0.0.1:{port}"


@scenario(timeout=40)
async def test_nginx_in_front(tmp_path: Path, certificates: Certificates) -> None:
    tls = certificates.client()
    async with portico.serve(echo, "ws://127.0.0.1:0/chat") as server:
        async with nginx(tmp_path, certificates, f"http://127.0.0.1:{server.address.port}") as front:
            page = WebSocketSettings(origin=front.replace("wss", "https"))
            for path in ("/chat", "/moved"):
                async with portico.connect(front + path, tls=tls, websocket=page) as channel:
                    some: Any = channel
                    await some.send("hello" * 1000)
                    assert await some.recv() == "hello" * 1000
            other = WebSocketSettings(origin="https://evil.example")
            refused = (await failure(portico.connect(front + "/chat", tls=tls, websocket=other))).__cause__
            assert isinstance(refused, StatusError) and refused.status == 403
            gone = (await failure(portico.connect(front + "/gone", tls=tls))).__cause__
            assert isinstance(gone, StatusError) and gone.status == 502


@scenario(timeout=40)
async def test_nginx_in_front_of_a_unix_socket(tmp_path: Path, certificates: Certificates) -> None:
    async with portico.serve(echo, f"ws+unix:{tmp_path}/s:/chat", mode=0o666):
        async with nginx(tmp_path, certificates, f"http://unix:{tmp_path}/s:/chat") as front:
            async with portico.connect(front + "/chat", tls=certificates.client()) as channel:
                some: Any = channel
                await some.send("hello")
                assert await some.recv() == "hello"
