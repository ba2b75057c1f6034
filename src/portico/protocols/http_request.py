"""`RequestHead`: the request line and header fields of a request, and what they say."""

import base64
import re
from typing import Literal
from urllib.parse import parse_qs, unquote

from portico.protocols.http_headers import Headers

Credentials = tuple[Literal["basic"], str, str] | tuple[Literal["bearer"], str]
"""`("basic", user, password)` or `("bearer", token)`."""

_NONE = Headers()


class RequestHead:
    """A request up to its body.

    `target` is as it was sent, `raw_path` its path still percent-encoded, `query` what follows the first `?`."""

    __slots__ = (
        "_path",
        "authority",
        "body_size",
        "expects_continue",
        "headers",
        "keep_alive",
        "method",
        "params",
        "query",
        "raw_path",
        "target",
        "upgrade",
        "version",
    )

    def __init__(self, method: str, target: str, version: str = "1.1", headers: Headers = _NONE) -> None:
        self.method, self.target, self.version, self.headers = method, target, version, headers
        self.authority = ""
        """Of a target that is a whole URL (RFC 9112, 3.2.2): its host and port, which come before the Host field."""
        self.body_size: int | None = 0
        """Bytes of the body; None: it is chunked."""
        self.params: dict[str, str] = {}
        """What the pattern of the route found in the path: `/rooms/{room}`."""
        self.keep_alive = True
        self.upgrade = self.expects_continue = False
        if target[:1] != "/":
            target = self._split(target)
        self.raw_path, _, self.query = target.partition("?")
        self._path = self.raw_path if "%" not in self.raw_path else None

    def _split(self, target: str) -> str:
        """Return the path and query of a target that does not begin with them."""
        _, mark, rest = target.partition("://")
        if not mark:
            return target
        self.authority = re.split("[/?#]", rest, maxsplit=1)[0]
        path = rest[len(self.authority) :]
        return path if path.startswith("/") else "/" + path

    @property
    def path(self) -> str:
        """The path, percent-decoded as UTF-8; what is none becomes U+FFFD."""
        if self._path is None:
            self._path = unquote(self.raw_path)
        return self._path

    @property
    def query_params(self) -> dict[str, list[str]]:
        """The query as a form writes it: each name with its values."""
        return parse_qs(self.query, keep_blank_values=True) if self.query else {}

    @property
    def host(self) -> str:
        """The host that was asked for, without port, in lower case; "" where HTTP/1.0 named none."""
        authority = self.authority or self.headers.get("host") or ""
        if authority.startswith("["):
            return authority[1:].partition("]")[0].lower()
        return authority.partition(":")[0].lower()

    @property
    def cookies(self) -> dict[str, str]:
        """The cookies (RFC 6265, 4.2); of several with one name the first, as the most specific comes first."""
        found: dict[str, str] = {}
        for value in self.headers.get_all("cookie"):
            for each in value.split(";"):
                name, mark, content = each.partition("=")
                if mark:
                    content = content.strip(" \t")
                    if len(content) > 1 and content[0] == content[-1] == '"':
                        content = content[1:-1]
                    found.setdefault(name.strip(" \t"), content)
        return found

    @property
    def credentials(self) -> Credentials | None:
        """What the Authorization field says, basic (RFC 7617) or bearer (RFC 6750); None: nothing that can be read."""
        scheme, _, value = (self.headers.get("authorization") or "").partition(" ")
        value = value.strip(" \t")
        if scheme.lower() == "bearer" and value:
            return "bearer", value
        if scheme.lower() != "basic":
            return None
        try:
            user, mark, password = base64.b64decode(value, validate=True).decode("utf-8").partition(":")
        except ValueError:  # no base64, no ASCII, no UTF-8
            return None
        return ("basic", user, password) if mark else None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.method} {self.target}>"
