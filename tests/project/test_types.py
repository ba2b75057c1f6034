"""What a user writes, with public names only, passes `mypy --strict`."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

PROGRAM = """
import asyncio

import portico
from portico import blocking


def plain(channel: portico.BlockingWebSocket) -> None:
    for message in channel:
        channel.send(message)


def route(request: portico.BlockingRequest) -> str:
    return request.text()


settings = portico.WebSocketSettings()
with blocking.connect("ws://localhost/", websocket=settings, timeout=3) as websocket:
    websocket.send("x")
    websocket.close(1000, "x")
with blocking.connect("tcp://localhost:1", timeout=3) as stream:
    stream.send(b"x")
with blocking.connect("tcp://localhost:1", codec=portico.Lines()) as lines:
    lines.send("x")
for again in blocking.reconnecting("ws://localhost/", websocket=settings):
    print(again.ping() + 1)
for stream_again in blocking.reconnecting("tcp://localhost:1"):
    stream_again.send(b"x")
answer: blocking.BlockingFetched = blocking.fetch("localhost", "POST", body=iter([b"x"]), timeout=3)
print(answer.text + "x", b"".join(answer), answer.status + 1)


async def ask() -> str:
    whole = await portico.fetch("localhost", json=None)
    async with portico.connect("ws://localhost/", websocket=settings) as channel:
        await channel.send("x")
        waiting = asyncio.create_task(channel.recv())
        print(channel.request.path, len(await waiting))
    async for again in portico.reconnecting("ws://localhost/", websocket=settings):
        print(again.close_code)
    return whole.text
"""


def test_a_program_is_clean_for_a_strict_type_checker(tmp_path: Path) -> None:
    file = tmp_path / "program.py"
    file.write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", str(file)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.stdout.startswith("Success"), done.stdout + done.stderr
