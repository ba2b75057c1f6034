"""`Response`: what a route answers."""

import copy
import json
from collections.abc import AsyncIterable, Iterable
from typing import Any

from portico.errors import ConfigurationError
from portico.protocols.http11 import REASONS
from portico.protocols.http_headers import Items, pairs

TEXT = "text/plain; charset=utf-8"
BYTES = "application/octet-stream"
JSON = "application/json"

Body = bytes | bytearray | memoryview | str | AsyncIterable[bytes]


class Response:
    """A status, header fields and a body.

    `headers` is a list of pairs that may be added to. Content-Length, Transfer-Encoding, Connection and Date are
    written for you, and Server is the door's."""

    __slots__ = ("body", "headers", "status")

    body: bytes | AsyncIterable[bytes]

    def __init__(
        self, body: Body = b"", *, status: int = 200, headers: Items = (), content_type: str | None = None
    ) -> None:
        """
        :param body: str is sent as UTF-8. An async iterable of bytes is sent piece by piece: chunked, or, where
            `headers` has a Content-Length, as that many bytes.
        :param status: 200 to 599.
        :param content_type: default: text/plain for str, application/octet-stream for bytes.
        :raises ConfigurationError: a status or a body that cannot be
        """
        self.status = _checked(status)
        self.headers: list[tuple[str, str]] = pairs(headers)
        if isinstance(body, str):
            try:
                self.body = body.encode()
            except UnicodeEncodeError as error:
                raise ConfigurationError(f"the body of an answer is no text that UTF-8 can say: {error}") from error
            content_type = content_type or TEXT
        elif isinstance(body, bytes):
            self.body = body
            if body:
                content_type = content_type or BYTES
        elif isinstance(body, bytearray | memoryview):
            self.body = bytes(body)
            content_type = content_type or BYTES
        elif hasattr(body, "__aiter__"):
            self.body = body
        else:
            raise ConfigurationError(
                f"the body of an answer is bytes, str or an async iterable of bytes, not {type(body).__name__}"
            )
        if content_type is not None and not self.has("content-type"):
            self.headers.append(("Content-Type", content_type))

    def get(self, name: str) -> str | None:
        """Return the first value of header `name` (in any case), None without."""
        wanted = name.lower()
        for each, value in self.headers:
            if each.lower() == wanted:
                return value
        return None

    def with_headers(self, more: list[tuple[str, str]]) -> "Response":
        """Return one that has `more` header fields, too; this one may be answered again, and is left as it is."""
        if not more:
            return self
        made = Response(status=self.status, headers=[*self.headers, *more])
        made.body = self.body
        return made

    def has(self, name: str) -> bool:
        """Say whether there is a header `name`, in any case."""
        return self.get(name) is not None

    @classmethod
    def json(cls, value: Any, *, status: int = 200, headers: Iterable[tuple[str, str]] = ()) -> "Response":
        """Answer `value` as JSON.

        :raises ConfigurationError: JSON cannot say it"""
        try:
            text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise ConfigurationError(f"the answer of a route is no JSON: {error}") from error
        try:
            body = text.encode()
        except UnicodeEncodeError:  # half a surrogate pair, which UTF-8 cannot say (RFC 8259, 8.1) and an escape can
            body = json.dumps(value, separators=(",", ":"), allow_nan=False).encode()
        return cls(body, status=status, headers=headers, content_type=JSON)

    @classmethod
    def of(cls, result: object) -> "Response":
        """Make one of what a route function returned: a Response, str, bytes, dict or list (JSON), None (204), or a
        pair of a status and any of those.

        :raises ConfigurationError: something else"""
        if isinstance(result, Response):
            return result
        if isinstance(result, tuple) and len(result) == 2 and isinstance(result[0], int):
            status, inner = result
            if inner is None:
                return cls(status=status)
            if isinstance(inner, dict | list):
                return cls.json(inner, status=status)
            made = cls.of(inner)
            if made is inner:  # which may be answered elsewhere, too
                made = copy.copy(made)
            made.status = _checked(status)
            return made
        if result is None:
            return cls(status=204)
        if isinstance(result, dict | list):
            return cls.json(result)
        if isinstance(result, str | bytes | bytearray | memoryview) or hasattr(result, "__aiter__"):
            return cls(result)
        raise ConfigurationError(
            "a route returns a Response, str, bytes, dict, list, None, or a status and one of those, "
            f"not {type(result).__name__}"
        )

    @classmethod
    def error(cls, status: int, reason: str = "", *, headers: Items = ()) -> "Response":
        """Answer an error with one line that says what it is."""
        said = f"{status} {REASONS.get(status, 'Error')}"
        return cls(f"{said}: {reason}\n" if reason else f"{said}\n", status=status, headers=headers)

    def __repr__(self) -> str:
        return f"<Response {self.status} {REASONS.get(self.status, '')}>"


def _checked(status: int) -> int:
    if not isinstance(status, int) or not 200 <= status <= 599:
        raise ConfigurationError(f"the status of an answer is a whole number, 200 to 599, not {status!r}")
    return status
