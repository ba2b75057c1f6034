"""Web origins (RFC 6454): which pages may use a server, said once for CORS and for WebSocket handshakes."""

import re
from collections.abc import Iterable

from portico.errors import ConfigurationError

DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}

_ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*)://(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::([0-9]{1,5}))?", re.ASCII)
_PATTERN = re.compile(
    r"([a-z][a-z0-9+.-]*)://(\*|\[[0-9a-f:.]+\]|(?:\*\.)?[a-z0-9._-]+)(?::([0-9]{1,5}|\*))?", re.ASCII
)
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::([0-9]{1,5}))?", re.ASCII)


class Origins:
    """Origins that are let in: `"*"`, or any of a list.

    `https://chat.example.org` is that origin alone; `https://*.example.org` every subdomain at any depth, but not
    `example.org` itself; `https://*` every host; `http://localhost:*` every port. Without a port it is the scheme's
    own. `null`, what sandboxed pages and local files send, is let in only where it is listed or by `"*"`."""

    def __init__(self, allowed: str | Iterable[str], *, setting: str = "origins") -> None:
        """Check `allowed`; `setting` is its name in the errors.

        :raises ConfigurationError: one is neither an origin nor a pattern of some."""
        patterns = [allowed] if isinstance(allowed, str) else list(allowed)
        self.any = "*" in patterns
        """Everybody is let in."""
        self._exact: set[tuple[str, str, int | None]] = set()
        self._patterns: list[tuple[str, str, int | None]] = []
        self._null = self.any or "null" in patterns
        for pattern in patterns:
            if pattern not in ("*", "null"):
                self._add(pattern, setting)

    def _add(self, pattern: str, setting: str) -> None:
        found = _PATTERN.fullmatch(pattern.lower()) if isinstance(pattern, str) else None
        if found is None:
            raise ConfigurationError(
                f"{setting}: {pattern!r} is no origin; write it as https://chat.example.org, https://*.example.org, "
                'http://localhost:* or "*", with nothing behind host and port'
            )
        scheme, host, port = found.groups()
        if "*" not in host and port != "*":
            self._exact.add((scheme, host, _port(scheme, port)))
        else:
            self._patterns.append((scheme, host, -1 if port == "*" else _port(scheme, port)))

    def __contains__(self, origin: object) -> bool:
        """Say whether `origin`, the value of an Origin field (RFC 6454 7), is let in."""
        if self.any:
            return True
        parsed = parse_origin(origin) if isinstance(origin, str) else None
        if parsed is None:
            return origin == "null" and self._null
        return parsed in self._exact or any(_matches(pattern, parsed) for pattern in self._patterns)


def parse_origin(origin: str) -> tuple[str, str, int | None] | None:
    """Return scheme, host and port of an origin in lower case, with the scheme's own port where it names none (None: a
    scheme without one); None if it is no origin of that form, such as `null`."""
    found = _ORIGIN.fullmatch(origin.lower())
    if found is None:
        return None
    scheme, host, port = found.groups()
    return scheme, host, _port(scheme, port)


def same_origin(origin: str, host: str, *, secure: bool) -> bool:
    """Say whether a page of `origin` came from the server that was asked as `host` (the Host field, port included).

    Over TLS only `https` is the same origin. Without TLS both `http` and `https` are, for a proxy in front may have
    taken the TLS away."""
    page, asked = parse_origin(origin), _HOST.fullmatch(host.lower())
    if page is None or asked is None:
        return False
    scheme, name, port = page
    if scheme not in ("http", "https") or (secure and scheme != "https"):
        return False
    return (name, port) == (asked[1], _port(scheme, asked[2]))


def _port(scheme: str, written: str | None) -> int | None:
    return int(written) if written else DEFAULT_PORTS.get(scheme)


def _matches(pattern: tuple[str, str, int | None], origin: tuple[str, str, int | None]) -> bool:
    scheme, host, port = pattern
    if scheme != origin[0] or port not in (-1, origin[2]):
        return False
    if host.startswith("*"):
        return len(origin[1]) >= len(host) and origin[1].endswith(host[1:])
    return host == origin[1]
