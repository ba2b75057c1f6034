"""A chat that people join with nc, one room for TCP and a Unix socket: portico run examples/chat.py:service"""

import portico

room = portico.Group()


async def chat(channel: portico.Channel[str]) -> None:
    async with room.join(channel):
        async for text in channel:
            room.send(f"{channel.remote_address}: {text}", skip=channel)


service = portico.Service()
service.listen("tcp://127.0.0.1:9000", chat, codec=portico.Lines())
service.listen("unix:chat.sock", chat, codec=portico.Lines(), mode=0o660)

if __name__ == "__main__":
    portico.run(service)
