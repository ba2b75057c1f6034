"""TLS and plain text, a page, a WebSocket and a chat for nc on one port: python one_port.py cert.pem key.pem"""

import sys

import portico

room = portico.Group()
door = portico.Door()


async def chat(channel: portico.Channel[str]) -> None:
    async with room.join(channel):
        async for text in channel:
            for line in text.splitlines():  # one, unless a browser sent several
                room.send(f"{channel.remote_address}: {line}", skip=channel)


@door.get("/")
async def page(request: portico.Request) -> str:
    return f"{len(room)} people are here; you came {'by TLS' if request.secure else 'in plain text'}\n"


def service(certificate: str, key: str) -> portico.Service:
    door.websocket("/chat", chat, websocket=portico.WebSocketSettings(only="text"))
    tls = portico.TLS(certificate=certificate, key=key)
    switch = portico.Switch(tls=tls, http=door, otherwise=chat, codec=portico.Lines())
    return portico.Service().listen("tcp://127.0.0.1:8000", switch)


if __name__ == "__main__":
    portico.run(service(*sys.argv[1:3]))
