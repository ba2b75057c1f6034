"""`WebSocketSettings`: everything about a WebSocket that one can choose, for both sides."""

import functools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from portico.errors import ConfigurationError
from portico.protocols import http_headers
from portico.protocols.deflate import Agreed, Deflate
from portico.protocols.http_asking import authorization
from portico.protocols.origins import Origins, parse_origin
from portico.protocols.websocket import is_own_field, is_token

if TYPE_CHECKING:
    from portico._core.frames import Frames

__all__ = ["WebSocketSettings"]

COOKIE_VALUE: Final = re.compile(r'"?[!#-+\--:<-\[\]-~]*"?')
"""RFC 6265, section 4.1.1."""
KEPT_FRAMES: Final = 64
"""How many kinds of framing are kept: a kind is one set of settings with one outcome of the negotiation."""

DEFLATE: Final = Deflate()

OriginRule = str | Sequence[str] | Callable[[str, Any], object]


@dataclass(frozen=True)
class WebSocketSettings:
    """How a WebSocket is opened and kept; for `connect`, `Service.listen` and `Door.websocket`, as `websocket=`.

    For both sides:

    :param subprotocols: names in order of preference. A server chooses the first of its own that the client offered,
        or none; a client refuses one that it did not offer.
    :param headers: fields to add to the request, or to the answer of a server: pairs, or a mapping. A `Host` of a
        client takes the place of its own.
    :param deflate: how messages are compressed, where both sides want it; None: not at all.
    :param max_size: bytes of the longest message that is taken, 1 MiB; longer ones end the connection with code 1009.
        Compressed ones count as expanded.
    :param max_fragments: frames that one message may come in.
    :param memoryviews: give binary messages as `memoryview`, without a copy.
    :param only: "text" or "binary" where messages of the other kind are not understood: one that comes ends the
        connection with code 1003. Default: both are taken.
    :param ping_interval: seconds between pings, 20; None: none are sent.
    :param ping_timeout: seconds that a pong may take, 20, before the connection is given up; None: any time.

    For servers:

    :param origins: who may come, beside those that a browser shows a page of this server and whatever is no browser
        (and sends no Origin): "*" for everybody, a list such as `["https://example.org", "https://*.example.org"]`, or
        a function `(origin, request)` that tells, which may be async. Others get the status 403.
    :param authorize: a function `(request)`, which may be async, asked before the handshake is answered. True: come
        in. A status (300 to 599), a pair of a status and a body, as routes answer, or a `Response`: that. False, None
        and whatever is empty: 403. Anything else comes in, and is `channel.data`.

    For clients:

    :param origin: what to send as Origin, which browsers do; default: none is sent.
    :param credentials: user and password (Basic, RFC 7617), or a token (Bearer, RFC 6750).
    :param cookies: names and values (RFC 6265).
    :param max_redirects: how many redirects to follow, 5; never from TLS to none, and credentials, cookies and the
        `headers` Authorization and Cookie go to no other origin.
    :raises ConfigurationError: something that cannot be."""

    _: KW_ONLY
    subprotocols: Sequence[str] = ()
    headers: http_headers.Items = ()
    deflate: Deflate | None = DEFLATE
    max_size: int = 1 << 20
    max_fragments: int = 1 << 14
    memoryviews: bool = False
    only: Literal["text", "binary"] | None = None
    ping_interval: float | None = 20.0
    ping_timeout: float | None = 20.0
    origins: OriginRule | None = None
    authorize: Callable[[Any], object] | None = None
    origin: str | None = None
    credentials: tuple[str, str] | str | None = field(default=None, repr=False)
    cookies: Mapping[str, str] = field(default_factory=dict, repr=False)
    max_redirects: int = 5
    listed_origins: Origins = field(init=False, repr=False, compare=False)
    """Those of `origins` that are listed."""
    none_was_told: bool = field(default=False, init=False, repr=False, compare=False)
    """Whether somebody was told that `authorize` returned None."""

    def __post_init__(self) -> None:
        self._keep("headers", tuple(http_headers.pairs(self.headers)))
        self._check_subprotocols()
        self._check_headers()
        self._check_numbers()
        self._check_server()
        self._check_client()

    def _keep(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def _check_subprotocols(self) -> None:
        names = self.subprotocols
        if isinstance(names, str):
            raise ConfigurationError(f"subprotocols={names!r} is one string; give a sequence, such as ({names!r},)")
        self._keep("subprotocols", tuple(names))
        for name in self.subprotocols:
            if not isinstance(name, str) or not is_token(name):
                raise ConfigurationError(f"the subprotocol {name!r} is no token: letters, digits and !#$%&'*+-.^_`|~")
        if len(set(self.subprotocols)) < len(self.subprotocols):
            raise ConfigurationError(f"subprotocols={self.subprotocols!r} has one twice (RFC 6455, section 4.1)")

    def _check_headers(self) -> None:
        http_headers.encode(self.fields)
        for name, _ in self.fields:
            if is_own_field(name):
                raise ConfigurationError(f"the field {name} belongs to the handshake; leave it out of headers=")

    def _check_numbers(self) -> None:
        if self.deflate is not None and not isinstance(self.deflate, Deflate):
            raise ConfigurationError(f"deflate={self.deflate!r} must be a Deflate, or None for no compression")
        if self.only not in (None, "text", "binary"):
            raise ConfigurationError(f"only={self.only!r} must be 'text', 'binary' or None for both")
        for name, least in (("max_size", 1), ("max_fragments", 1), ("max_redirects", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or value < least:
                raise ConfigurationError(f"{name}={value!r} must be a whole number, at least {least}")
        for name in ("ping_interval", "ping_timeout"):
            seconds = getattr(self, name)
            if seconds is not None and not 0 < seconds < math.inf:
                raise ConfigurationError(f"{name}={seconds!r} must be more than 0 seconds, or None for no end")

    def _check_server(self) -> None:
        rule = self.origins
        listed = () if rule is None or callable(rule) else rule
        if not isinstance(listed, str | Sequence):
            raise ConfigurationError(f'origins={rule!r} must be "*", a list of origins, or a function')
        self._keep("listed_origins", Origins(listed))
        if self.authorize is not None and not callable(self.authorize):
            raise ConfigurationError(f"authorize={self.authorize!r} must be a function that takes the request")

    def _check_client(self) -> None:
        if self.origin is not None and self.origin != "null" and parse_origin(self.origin) is None:
            raise ConfigurationError(f"origin={self.origin!r} is no origin; write it as https://example.org")
        if self.credentials is not None:
            authorization(self.credentials)
        given = {name.lower() for name, _ in self.fields}
        for setting, header in (("credentials", "Authorization"), ("cookies", "Cookie"), ("origin", "Origin")):
            if getattr(self, setting) and header.lower() in given:
                raise ConfigurationError(f"{setting}= and a header {header!r} say the same; give one of them")
        for name, value in self.cookies.items():
            if not is_token(name) or not COOKIE_VALUE.fullmatch(value):
                raise ConfigurationError(f"the cookie {name!r} has a name or value that no cookie can (RFC 6265)")

    def is_first_none(self) -> bool:
        """Say whether nobody was told yet that `authorize` returned None; this tells."""
        first = not self.none_was_told
        self._keep("none_was_told", True)
        return first

    @property
    def fields(self) -> list[tuple[str, str]]:
        """`headers` as pairs."""
        return http_headers.pairs(self.headers)

    def frames(self, client: bool, agreed: Agreed | None) -> "Frames":
        """Return the codec of messages for that side and that outcome of the negotiation, the same one each time."""
        return _frames(
            client,
            self.max_size,
            self.max_fragments,
            self.memoryviews,
            self.only,
            self.ping_interval,
            self.ping_timeout,
            agreed,
        )


@functools.lru_cache(KEPT_FRAMES)
def _frames(
    client: bool,
    max_size: int,
    max_fragments: int,
    memoryviews: bool,
    only: Literal["text", "binary"] | None,
    ping_interval: float | None,
    ping_timeout: float | None,
    agreed: Agreed | None,
) -> "Frames":
    from portico._core.frames import Frames

    return Frames(
        client=client,
        max_size=max_size,
        max_fragments=max_fragments,
        memoryviews=memoryviews,
        only=only,
        deflate=agreed,
        ping_interval=ping_interval,
        ping_timeout=ping_timeout,
    )
