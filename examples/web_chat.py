"""A chat for browsers: portico run examples/web_chat.py:door --listen http://127.0.0.1:8000"""

from pathlib import Path

import portico

room = portico.Group()
door = portico.Door()


async def chat(channel: portico.WebSocket) -> None:
    async with room.join(channel):
        async for text in channel:
            room.send(text)


door.websocket("/chat", chat)
door.files("/", Path(__file__).parent / "web_chat")

if __name__ == "__main__":
    portico.run(portico.Service().listen("http://127.0.0.1:8000", door))
