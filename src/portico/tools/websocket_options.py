"""The options of WebSockets for `portico connect` and `portico listen`, and the settings that they make."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from portico.address import Address
from portico.tools.parameters import header_field, not_negative
from portico.tools.report import WRONG, Stop

if TYPE_CHECKING:
    from portico.websocket.settings import WebSocketSettings

PANEL = "WebSocket"

Header = Annotated[
    list[str] | None,
    typer.Option(
        "--header",
        "-H",
        metavar="'NAME: VALUE'",
        help="Send this field with the handshake; may be given again.",
        rich_help_panel=PANEL,
    ),
]
Subprotocol = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME", help="Speak this subprotocol; several: the preferred one first.", rich_help_panel=PANEL
    ),
]
NoCompress = Annotated[
    bool, typer.Option("--no-compress", metavar="", help="Never compress messages.", rich_help_panel=PANEL)
]
Ping = Annotated[
    float,
    typer.Option(
        callback=not_negative,
        metavar="SECONDS",
        help="Time between pings, which --verbose tells of; 0: none.",
        rich_help_panel=PANEL,
    ),
]
MaxSize = Annotated[
    int,
    typer.Option(min=1, metavar="BYTES", help="Length of the longest message, either way.", rich_help_panel=PANEL),
]
Origin = Annotated[
    str | None,
    typer.Option(metavar="URL", help="Say that a page of this origin asks, as browsers do.", rich_help_panel=PANEL),
]
Origins = Annotated[
    list[str] | None,
    typer.Option(
        "--origins",
        metavar="URL",
        help="Let in pages of https://example.org, or https://*.example.org, or '*' for all; may be given again. "
        "Default: pages from here, and whatever is no page.",
        rich_help_panel=PANEL,
    ),
]
Cookie = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME=VALUE", help="Send this cookie; may be given again.", rich_help_panel=PANEL),
]

PING, MAX_SIZE = 20.0, 1 << 20  # as WebSocketSettings has them


def refuse_http(address: Address, remedy: str) -> None:
    """:raises Stop: `address` is one of HTTP"""
    if address.scheme in ("http", "https", "http+unix"):
        raise Stop(f"{address} is for HTTP, which has no connection to talk through", WRONG, remedy)


def is_websocket(address: Address) -> bool:
    """Whether `address` is that of a WebSocket."""
    return address.scheme in ("ws", "wss", "ws+unix")


def settings_for(
    address: Address,
    *,
    header: Sequence[str] | None,
    subprotocol: Sequence[str] | None,
    no_compress: bool,
    ping: float,
    max_size: int,
    binary: bool,
    **more: Any,
) -> "WebSocketSettings | None":
    """Return the settings that the options mean; None where `address` is none of a WebSocket.

    :param more: those that only one side has; None is not said.
    :raises Stop: an option that is for WebSockets only, or badly written
    :raises ConfigurationError: a value that cannot be"""
    said = {name: value for name, value in more.items() if value is not None}
    if not is_websocket(address):
        given = {
            "--header": header,
            "--subprotocol": subprotocol,
            "--no-compress": no_compress,
            "--ping": ping != PING,
        }
        given |= {"--max-size": max_size != MAX_SIZE, "--binary": binary}
        given |= {option_of(name, value): True for name, value in said.items()}
        for option in (option for option, value in given.items() if value):
            raise Stop(f"{option} is for WebSockets, not for {address}", WRONG, "write ws:// or wss://")
        return None
    from portico.protocols.deflate import Deflate
    from portico.websocket.settings import WebSocketSettings

    return WebSocketSettings(
        headers=[header_field(each) for each in header or ()],
        subprotocols=subprotocol or (),
        deflate=None if no_compress else Deflate(),
        ping_interval=ping or None,
        max_size=max_size,
        **said,
    )


def option_of(name: str, value: object) -> str:
    """Return the option that the setting `name` with that value came from."""
    if name == "credentials":
        return "--bearer" if isinstance(value, str) else "--user"
    return "--cookie" if name == "cookies" else f"--{name}"


def cookies(texts: Sequence[str] | None) -> dict[str, str] | None:
    """Return what `--cookie` says.

    :raises Stop: one without a value"""
    pairs = [each.partition("=") for each in texts or ()]
    if any(not equals for _, equals, _ in pairs):
        raise Stop("--cookie has no value", WRONG, "write it as NAME=VALUE")
    return {name.strip(): value.strip() for name, _, value in pairs} or None


def origins(texts: Sequence[str] | None) -> Sequence[str] | None:
    """Return what `--origins` says."""
    return "*" if texts and "*" in texts else texts or None
