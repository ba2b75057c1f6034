"""The chat's door for browsers: the page, and the WebSocket that it opens."""

from pathlib import Path
from typing import Final

from portico.tools.chat import Chat
from portico.tools.chat_events import MAX_MESSAGE, PROTOCOL
from portico.web.door import Door
from portico.web.files import Files
from portico.web.request import Request
from portico.web.response import Response
from portico.websocket.settings import WebSocketSettings

PAGE: Final = Path(__file__).parent / "page"

CHAT_PATH: Final = "/chat"

KEEP_ALIVE: Final = 5.0
"""Seconds for the next request: a page asks for all that it needs at once (Apache: the same)."""

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)
"""Content-Security-Policy: nothing from elsewhere, nothing inline, and no text that becomes markup."""

HEADERS: Final = (("Content-Security-Policy", POLICY), ("Referrer-Policy", "no-referrer"))

SETTINGS: Final = WebSocketSettings(subprotocols=(PROTOCOL,), max_size=MAX_MESSAGE)
"""Pages of other origins are turned away, as by default."""


def chat_door(chat: Chat) -> Door:
    """Return a door with the page at `/` and the room at `/chat`: events for the page, lines for what offers no
    subprotocol."""
    door, files = Door(keep_alive=KEEP_ALIVE), Files("/", PAGE)

    async def page(request: Request) -> Response:
        response = await files(request)
        response.headers.extend(HEADERS)
        return response

    door.get("/{rest:path}", page)
    door.websocket(CHAT_PATH, chat.join, websocket=SETTINGS)
    return door
