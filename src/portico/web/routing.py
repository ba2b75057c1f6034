"""Which route answers a request: by host, path and method."""

import re
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Any, Literal
from urllib.parse import unquote

from portico.errors import ConfigurationError
from portico.web.request import Request
from portico.web.response import Response

Endpoint = Callable[[Request], Awaitable[Any]]

_NAME = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)(:path)?\}")
_MAX_FOUND, _MAX_PATH = 1024, 256
_HOST = re.compile(r"(?:\*\.)?[^\s/:*\[\]]+|\[[0-9a-f:.]+\]")
_METHOD = re.compile(r"[A-Z]+(?:-[A-Z]+)*")


class Route:
    """A function that answers requests, and how large their bodies may be (None: as the door says).

    Where it `upgrades`, the function returns a Response that refuses, or the coroutine that serves the connection from
    then on."""

    __slots__ = ("function", "max_body", "upgrades")

    def __init__(self, function: Endpoint, max_body: int | None = None, *, upgrades: bool = False) -> None:
        self.function, self.max_body, self.upgrades = function, max_body, upgrades


class Entry:
    """What there is at one path pattern."""

    __slots__ = ("methods", "pattern", "rest", "twins", "upgrade", "whatever")

    def __init__(self, pattern: str) -> None:
        self.pattern, self.rest = _parsed(pattern)
        self.methods: dict[str, Route] = {}
        self.whatever: Route | None = None
        """Answers every method that `methods` has not."""
        self.upgrade: Route | None = None
        """Answers those who ask for a WebSocket."""
        self.twins: list[Entry] = []
        """Those, this one included, that fit the same paths and have other names for their parameters."""

    @property
    def shape(self) -> tuple[object, ...]:
        """Equal for patterns that fit the same paths."""
        return (*(each if isinstance(each, str) else None for each in self.pattern), self.rest is not None)

    @property
    def is_named(self) -> bool:
        """Whether it names a place, in part at least, and is not for whatever comes."""
        return any(isinstance(each, str) for each in self.pattern)

    def is_as_near(self, other: "Entry", params: dict[str, str]) -> bool:
        """Whether this says as much as `other` of a path where it found `params`: it has the same shape, or the path is
        that of its folder."""
        return self.shape == other.shape or (self.rest is not None and not params[self.rest])

    def check_free(self, kind: Literal["upgrade", "whatever"], what: str) -> None:
        """:raises ConfigurationError: something at the same paths is of that kind already"""
        if any(getattr(twin, kind) is not None for twin in self.twins):
            raise ConfigurationError(f"{self} has {what} already")

    def __str__(self) -> str:
        rest = [] if self.rest is None else [f"{{{self.rest}:path}}"]
        return "/" + "/".join([*map(str, self.pattern), *rest])

    def add(self, methods: Iterable[str], route: Route) -> None:
        """Let `route` answer `methods`; GET answers HEAD, too, until something else does.

        :raises ConfigurationError: a method has an answer already, or is none"""
        for method in methods:
            if not _METHOD.fullmatch(method):
                raise ConfigurationError(f'a method is a word such as "GET", not {method!r}')
            for twin in self.twins:
                known = twin.methods.get(method)
                if known is not None and not (method == "HEAD" and known is twin.methods.get("GET")):
                    raise ConfigurationError(f"{method} of {self} has a route already")
                if known is not None:
                    del twin.methods[method]
            self.methods[method] = route
            if method == "GET" and not any("HEAD" in twin.methods for twin in self.twins):
                self.methods["HEAD"] = route

    def match(self, segments: list[str]) -> dict[str, str] | None:
        """Return the parameters that the pattern finds in decoded `segments`, None where it does not fit."""
        pattern = self.pattern
        if len(segments) != len(pattern) and (self.rest is None or len(segments) < len(pattern)):
            return None
        params = {}
        for wanted, segment in zip(pattern, segments, strict=False):
            if isinstance(wanted, str):
                if wanted != segment:
                    return None
            elif segment:
                params[wanted.name] = segment
            else:
                return None
        if self.rest is not None:
            params[self.rest] = "/".join(segments[len(pattern) :])
        return params


class Param:
    """A place in a pattern that any segment fits."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __str__(self) -> str:
        return f"{{{self.name}}}"


def _parsed(pattern: str) -> tuple[list[str | Param], str | None]:
    """Return the segments of a pattern, and the name of the rest where it ends in one."""
    if not pattern.startswith("/"):
        raise ConfigurationError(f'a path begins with "/", which {pattern!r} does not')
    segments: list[str | Param] = []
    names: set[str] = set()
    rest = None
    parts = pattern[1:].split("/")
    for place, part in enumerate(parts):
        found = _NAME.fullmatch(part)
        if found is None:
            if "{" in part or "}" in part or "?" in part or "#" in part:
                raise ConfigurationError(
                    f"{part!r} in the path {pattern!r}: a parameter is a whole segment, {{name}}, or {{name:path}} for "
                    "all the rest; ? and # have no place in it"
                )
            segments.append(part)
            continue
        name = found[1]
        if name in names:
            raise ConfigurationError(f"the path {pattern!r} has {{{name}}} twice")
        names.add(name)
        if not found[2]:
            segments.append(Param(name))
        elif place == len(parts) - 1:
            rest = name
        else:
            raise ConfigurationError(f"{{{name}:path}} takes the rest of a path: nothing can follow it in {pattern!r}")
    return segments, rest


class Table:
    """The paths of one host: literal ones by name, the others in the order of how much they say."""

    __slots__ = ("_shapes", "entries", "literal", "others")

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self.literal: dict[str, Entry] = {}
        self.others: list[Entry] = []
        self._shapes: dict[tuple[object, ...], list[Entry]] = {}

    def entry(self, pattern: str) -> Entry:
        """Return the entry of `pattern`, a new one where there is none.

        :raises ConfigurationError: it is no pattern"""
        entry = self.entries.get(pattern)
        if entry is None:
            entry = Entry(pattern)
            entry.twins = self._shapes.setdefault(entry.shape, [])
            entry.twins.append(entry)
            self.entries[pattern] = entry
            if entry.rest is None and all(isinstance(each, str) for each in entry.pattern):
                self.literal[pattern] = entry
            else:
                self.others.append(entry)
                self.others.sort(key=lambda each: (each.rest is not None, -len(each.pattern)))
        return entry

    def candidates(self, raw_path: str) -> Iterator[tuple[Entry, dict[str, str]]]:
        """Yield the entries that fit a path with what their parameters are: literal ones, then patterns, then those
        with a rest, the longest first."""
        segments = raw_path[1:].split("/")
        if "%" in raw_path:
            segments = [unquote(each) for each in segments]
        if not any("/" in each for each in segments):  # an encoded slash is no separator
            entry = self.literal.get("/" + "/".join(segments))
            if entry is not None:
                yield entry, {}
        for entry in self.others:
            params = entry.match(segments)
            if params is not None:
                yield entry, params


class Router:
    """All routes of a door."""

    def __init__(self) -> None:
        self._table = Table()
        self._found: dict[tuple[str, str], tuple[Route, dict[str, str]]] = {}  # lately, by method and path
        self._hosts: dict[str, Table] = {}
        self._domains: dict[str, Table] = {}

    def entry(self, pattern: str, host: str | None) -> Entry:
        """Return the entry of a path pattern at `host`; None: wherever no other host's route fits.

        :raises ConfigurationError: a pattern or host that cannot be"""
        self._found.clear()  # as the caller is about to add a route
        if host is None:
            return self._table.entry(pattern)
        host = host.lower()
        if not _HOST.fullmatch(host):
            raise ConfigurationError(f'a host is a name such as "chat.example.org" or "*.example.org", not {host!r}')
        if host.startswith("*."):
            return self._domains.setdefault(host[1:], Table()).entry(pattern)
        return self._hosts.setdefault(host.strip("[]"), Table()).entry(pattern)

    def find(self, request: Request) -> Route | Response:
        """Return the route for `request` and set its `params`, or the answer where there is none: 404, 405, 426, or
        what OPTIONS wants to know."""
        if request.upgrade or self._hosts or self._domains:
            return self._search(request)
        key = (request.method, request.raw_path)
        known = self._found.get(key)
        if known is not None:
            route, params = known
            if params:
                request.params = params.copy()
            return route
        found = self._search(request)
        if isinstance(found, Route) and len(key[1]) <= _MAX_PATH:
            if len(self._found) >= _MAX_FOUND:
                self._found.clear()
            self._found[key] = found, request.params.copy()
        return found

    def _tables(self, host: str) -> Iterator[Table]:
        table = self._hosts.get(host)
        if table is not None:
            yield table
        if self._domains:
            place = host.find(".")
            while place >= 0:  # the longest domain first
                table = self._domains.get(host[place:])
                if table is not None:
                    yield table
                place = host.find(".", place + 1)
        yield self._table

    def _search(self, request: Request) -> Route | Response:
        if request.raw_path == "*":
            return Response(status=204, headers=[("Allow", ", ".join(self._all_methods()))])
        method = request.method
        upgrading = method == "GET" and request.upgrade and request.body_size == 0
        upgrading = upgrading and "websocket" in request.headers.tokens("upgrade")
        allowed: set[str] = set()
        found = upgradable = False
        speaks: Entry | None = None
        for table in self._tables(request.host):
            for entry, params in table.candidates(request.raw_path):
                if upgrading and entry.upgrade is not None:
                    request.params = params
                    return entry.upgrade
                route = entry.methods.get(method) or entry.whatever
                if route is not None:
                    if speaks is not None and route is not entry.whatever and not entry.is_as_near(speaks, params):
                        return _instead(method, allowed, upgradable)
                    request.params = params
                    return route
                found = True
                upgradable |= entry.upgrade is not None
                if speaks is None and entry.is_named and entry.upgrade is not None and method in ("GET", "HEAD"):
                    speaks = entry
                allowed.update(entry.methods)
        if not found:
            return Response.error(404)
        return _instead(method, allowed, upgradable)

    def _all_methods(self) -> list[str]:
        found = {"OPTIONS"}
        for table in (self._table, *self._hosts.values(), *self._domains.values()):
            for entry in table.entries.values():
                found.update(entry.methods)
                if entry.upgrade is not None:
                    found.add("GET")
        return sorted(found)


def _instead(method: str, allowed: set[str], upgradable: bool) -> Response:
    """Answer a method that no route at the path answers."""
    if upgradable and method in ("GET", "HEAD"):
        headers = [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Version", "13")]
        return Response.error(426, "this path speaks WebSocket", headers=headers)
    if upgradable:
        allowed.add("GET")
    allow = [("Allow", ", ".join(sorted(allowed | {"OPTIONS"})))]
    if method == "OPTIONS":
        return Response(status=204, headers=allow)
    return Response.error(405, headers=allow)
