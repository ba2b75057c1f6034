"""A chat that people join with nc and by WebSocket, one room for all: portico run examples/chat.py:service"""

import portico

room = portico.Group()


async def chat(channel: portico.Channel[str]) -> None:
    async with room.join(channel):
        async for text in channel:
            for line in text.splitlines():  # one, unless a browser sent several
                room.send(f"{channel.remote_address}: {line}", skip=channel)


service = portico.Service()
service.listen("tcp://127.0.0.1:9000", chat, codec=portico.Lines())
service.listen("unix:chat.sock", chat, codec=portico.Lines(), mode=0o660)
service.listen("ws://127.0.0.1:8000/chat", chat, websocket=portico.WebSocketSettings(only="text"))

if __name__ == "__main__":
    portico.run(service)
