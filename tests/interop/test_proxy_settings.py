"""The settings for nginx and HAProxy that docs/websocket.md prints bring WebSockets here."""

import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from peers import need_program, nginx_settings
from ports import free_port
from server.support import scenario

import portico
from portico import WebSocketSettings

from .test_proxies import program

PAGE = Path(__file__).parents[2] / "docs" / "websocket.md"

NGINX = nginx_settings("""
    server {{
        listen 127.0.0.1:{port};
        {settings}
    }}
""")


def settings(name: str) -> str:
    (found,) = re.findall(rf"```{name}\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return str(found)


def arguments(name: str, folder: Path, port: int, behind: int) -> Sequence[str]:
    text, file = settings(name).replace("127.0.0.1:8000", f"127.0.0.1:{behind}"), folder / "settings"
    if name == "nginx":
        file.write_text(NGINX.format(folder=folder, port=port, settings=text))
        return "-p", str(folder), "-c", str(file), "-e", f"{folder}/error.log"
    file.write_text(text.replace("127.0.0.1:8080", f"127.0.0.1:{port}"))
    return "-db", "-q", "-f", str(file)


@pytest.mark.parametrize("name", ["nginx", "haproxy"])
@scenario(timeout=30)
async def test_the_settings_of_the_page(name: str, tmp_path: Path) -> None:
    path, port = need_program(name), free_port()
    clients = []

    async def chat(channel: portico.WebSocket) -> None:
        assert channel.request is not None
        clients.append((channel.remote_address, channel.request.headers.get("X-Forwarded-For")))
        async for message in channel:
            await channel.send(message)

    door = portico.Door()
    door.websocket("/chat", chat)
    door.health()
    proxied_by = ["loopback"] if name == "haproxy" else None
    service = portico.Service().listen("http://127.0.0.1:0", door, proxied_by=proxied_by)
    async with portico.serve(service) as server:
        behind = server.listeners[0].address.port
        assert behind is not None
        async with program(path, *arguments(name, tmp_path, port, behind), port=port):
            page = WebSocketSettings(origin=f"http://127.0.0.1:{port}")
            async with portico.connect(f"ws://127.0.0.1:{port}/chat", websocket=page) as channel:
                await channel.send("hello")
                assert await channel.recv() == "hello"
                (client,) = clients
                if name == "haproxy":
                    assert client == (channel.local_address, None)
                else:
                    assert client[1] == "127.0.0.1"
