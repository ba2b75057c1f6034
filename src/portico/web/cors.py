"""`CORS`: which pages of other origins may read what a door answers (the Fetch standard, section 3.2)."""

from collections.abc import Iterable

from portico.errors import ConfigurationError
from portico.protocols.http11 import RequestHead
from portico.protocols.http_headers import TOKEN
from portico.protocols.origins import Origins
from portico.web.response import Response

METHODS = ("GET", "HEAD", "POST")
"""What pages may use without asking before, and so no more than they can do anyhow."""

HEADERS = ("Content-Type",)
"""So that pages may send JSON; more must be named (rs/cors of Go allows the same, and X-Requested-With)."""


class CORS:
    """Lets pages of other origins call the routes of a `Door(cors=CORS(origins=["https://app.example.org"]))`.

    It says what browsers may hand to scripts, and keeps nobody else out: requests are answered as ever. WebSockets are
    not under CORS; their `origins` are those of WebSocketSettings."""

    def __init__(
        self,
        origins: str | Iterable[str],
        *,
        methods: str | Iterable[str] = METHODS,
        headers: str | Iterable[str] = HEADERS,
        expose: str | Iterable[str] = (),
        credentials: bool = False,
        max_age: int = 600,
    ) -> None:
        """
        :param origins: origins and patterns such as `https://*.example.org` or `http://localhost:*`, or `"*"` for all.
        :param methods: that pages may use; `"*"` for all. Default: GET, HEAD, POST.
        :param headers: that pages may set beyond the harmless ones; `"*"` for all but Authorization. Default:
            Content-Type.
        :param expose: headers of answers that pages may read beyond the harmless ones; `"*"` for all.
        :param credentials: let pages send cookies, passwords and client certificates, and read what is answered then.
        :param max_age: seconds for which browsers need not ask again (600; Chromium keeps it for 7200 at most).
        :raises ConfigurationError: what is no origin, method or header name; `"*"` together with credentials, where
            any page could act as the user, and browsers refuse it
        """
        self._origins = Origins(origins, setting="CORS: origins")
        self._methods = _names(methods, "methods")
        self._headers = _names(headers, "headers")
        self._expose = ", ".join(_names(expose, "expose"))
        if credentials:
            named = {"origins": self._origins.any, "methods": "*" in self._methods, "headers": "*" in self._headers}
            wild = [name for name, any_at_all in (named | {"expose": "*" in self._expose}).items() if any_at_all]
            if wild:
                raise ConfigurationError(f'CORS: {wild[0]}="*" does not go with credentials=True; list which')
        if isinstance(max_age, bool) or not isinstance(max_age, int) or max_age < 0:
            raise ConfigurationError(f"CORS: max_age is whole seconds, 0 or more, not {max_age!r}")
        self._credentials, self._max_age = credentials, max_age

    def preflight(self, request: RequestHead) -> Response | None:
        """Answer a browser that asks whether a page may send a request; None: this is no such question."""
        origin = request.headers.get("origin")
        if request.method != "OPTIONS" or origin is None or "access-control-request-method" not in request.headers:
            return None
        vary = [("Vary", "Origin, Access-Control-Request-Method, Access-Control-Request-Headers")]
        if origin not in self._origins:
            return Response.error(403, "pages of this origin may not call this server (CORS)", headers=vary)
        items = vary + self._allowed(origin)
        items.append(("Access-Control-Allow-Methods", ", ".join(self._methods)))
        if self._headers:
            items.append(("Access-Control-Allow-Headers", ", ".join(self._headers)))
        items.append(("Access-Control-Max-Age", str(self._max_age)))
        return Response(status=204, headers=items)

    def headers_for(self, request: RequestHead, response: Response) -> list[tuple[str, str]]:
        """Return the fields that `response` needs beside its own; none where it says itself who may read it."""
        if response.has("access-control-allow-origin"):
            return []
        vary = [] if self._origins.any else [("Vary", "Origin")]
        origin = request.headers.get("origin")
        if origin is None or origin not in self._origins:
            return vary
        exposed = [("Access-Control-Expose-Headers", self._expose)] if self._expose else []
        return vary + self._allowed(origin) + exposed

    def _allowed(self, origin: str) -> list[tuple[str, str]]:
        items = [("Access-Control-Allow-Origin", "*" if self._origins.any else origin)]
        if self._credentials:
            items.append(("Access-Control-Allow-Credentials", "true"))
        return items


def _names(given: str | Iterable[str], setting: str) -> list[str]:
    names = [given] if isinstance(given, str) else list(given)
    for name in names:
        if not isinstance(name, str) or not TOKEN.fullmatch(name):
            example = "PUT" if setting == "methods" else "X-Request-Id"
            raise ConfigurationError(f"CORS: {setting} are names such as {example}, not {name!r}")
    return names
