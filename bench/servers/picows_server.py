"""picows on uvloop, its listeners: a callback for each frame, no handler task and no back-pressure."""

from __future__ import annotations

from typing import ClassVar

import uvloop
from common import BACKLOG, JOIN, JOINED, LARGEST_MESSAGE, SEND, WS_GROUP, WS_IDLE, Numbered, arguments, ready
from picows import WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeRequest, ws_create_server

BINARY = WSMsgType.BINARY
SMALL_BUFFER, LARGE_BUFFER = 2048, 16384


class Echo(WSListener):
    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type is BINARY:
            transport.send(BINARY, frame.get_payload_as_memoryview())
        elif frame.msg_type is WSMsgType.CLOSE:
            transport.disconnect()


class Member(WSListener):
    """Members are a list of transports; a burst is a plain loop over them, all in one turn."""

    members: ClassVar[list[WSTransport]] = []
    lines = Numbered()

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        message = frame.get_payload_as_bytes()
        if message == JOIN:
            self.members.append(transport)
            transport.send(BINARY, JOINED)
        elif message.startswith(SEND):
            for _ in range(int(message[len(SEND) :])):
                data = self.lines.next_message()
                for member in self.members:
                    member.send(BINARY, data)


async def serve() -> None:
    port, mode = arguments()
    listener = Member if mode == WS_GROUP else Echo

    def accept(_: WSUpgradeRequest) -> WSListener:
        return listener()

    server = await ws_create_server(
        accept,
        "127.0.0.1",
        port,
        websocket_handshake_timeout=60,
        max_frame_size=LARGEST_MESSAGE,
        read_buffer_init_size=SMALL_BUFFER if mode == WS_IDLE else LARGE_BUFFER,
        backlog=BACKLOG,
    )
    ready(port)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve())
