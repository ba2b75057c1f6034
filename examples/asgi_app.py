"""A FastAPI application behind a Portico door, with a chat of Portico's beside it. Needs `pip install fastapi`.

Open http://127.0.0.1:8000/api/hello/you; the chat is a WebSocket at ws://127.0.0.1:8000/chat
"""

from fastapi import FastAPI

import portico

app = FastAPI()
room: portico.Group[str] = portico.Group()


@app.get("/hello/{name}")
async def hello(name: str) -> dict[str, str | int]:
    return {"hello": name, "chatting": len(room)}


async def chat(channel: portico.Channel[str]) -> None:
    async with room.join(channel):
        async for line in channel:
            room.send(line)


door = portico.Door()
door.mount("/api", app)  # all below /api: HTTP, WebSockets and lifespan, within the door's limits
door.websocket("/chat", chat)

service = portico.Service()
service.listen("http://127.0.0.1:8000", door)

if __name__ == "__main__":
    portico.run(service)
