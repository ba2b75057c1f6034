"""What a server allows: every limit has a default that is safe on the open internet."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, Self

from portico._core import Settings
from portico.errors import ConfigurationError

_COUNTS = ("max_connections", "max_per_address", "accept_burst", "max_handshakes")
_SIZES = ("read_buffer", "send_buffer", "max_unsent", "max_proxy_header", "max_threads")
_RATES = ("accept_rate", "handshake_timeout", "idle_timeout", "message_timeout", "send_timeout")
_NEEDED = (*_SIZES, "close_timeout")


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one listener. Seconds and bytes throughout; None switches a limit off.

    :raises ConfigurationError: a value that cannot work"""

    max_connections: int | None = 10_000
    """Connections open at a time, over all of this listener's sockets (nginx's worker_connections: 512; HAProxy's
    maxconn is derived from the descriptors; each idle one costs some 2 KiB here)."""

    when_full: Literal["reject", "pause"] = "pause"
    """At `max_connections`, `reject` answers a new connection with `refusal` and closes it; `pause` stops to accept,
    so that it waits in the backlog (as HAProxy does at maxconn)."""

    max_per_address: int | None = 256
    """Connections open at a time from one remote address; IPv6 counts by /64, which is one customer (Postfix: 50;
    behind carrier-grade NAT hundreds share an address)."""

    accept_rate: float | None = 100.0
    """New connections a second from one remote address, averaged; more are rejected (Postfix's
    client_connection_rate_limit and HAProxy's conn_rate tables serve the same end)."""

    accept_burst: int | None = 500
    """How many may come at once before `accept_rate` counts."""

    trust_loopback: bool = True
    """Do not count `max_per_address` and `accept_rate` for loopback and Unix peers: a proxy's clients all come from
    there."""

    refusal: bytes = b""
    """What a rejected client is told before it is closed, such as b"server is full\\r\\n". Empty: nothing, but at `ws`,
    `http` and so on, without TLS, 503 with Retry-After where it is over a limit (RFC 9110, section 15.6.4)."""

    handshake_timeout: float | None = 10.0
    """For the TLS handshake to end, the PROXY header before it included (Go's net/http advises 10, HAProxy's examples
    5 to 10). At `ws` and the like also for the request, and then for `origins` and `authorize`; a Door has its own
    `head_timeout`."""

    max_handshakes: int | None = 1_000
    """TLS handshakes under way at a time, and PROXY headers awaited; further connections wait in the backlog
    (HAProxy's maxsslconn)."""

    idle_timeout: float | None = 300.0
    """Without a byte in either direction (Postfix's smtpd_timeout: 300; nginx's keepalive_timeout: 75). A client that
    sends nothing after connecting falls under it."""

    message_timeout: float | None = 60.0
    """From the first byte of a message to its last, on a Channel (nginx's client_header_timeout: 60)."""

    send_timeout: float | None = 60.0
    """While output waits and the peer takes none of it (nginx's send_timeout: 60)."""

    close_timeout: float = 10.0
    """For `close()` to flush and for the peer to end its side; then the connection is aborted."""

    read_buffer: int = 64 * 1024
    """Bytes received and not taken at which reading pauses (asyncio streams: 64 KiB)."""

    send_buffer: int = 64 * 1024
    """Bytes waiting to leave at which awaiting `send` waits: the high-water mark (asyncio: 64 KiB)."""

    max_unsent: int = 16 << 20
    """Bytes waiting to leave at which `send` raises LimitError, for handlers that never await it."""

    max_proxy_header: int = 4096
    """Bytes of a PROXY header (its specification keeps to 536, the smallest TCP segment; the format allows 65551)."""

    max_fds: int = 16
    """Descriptors that a Unix peer may pass before they are taken; more are closed on arrival."""

    max_threads: int = 64
    """Handlers that are plain functions run in that many threads at most; further connections wait for one. A Door has
    its own."""

    def __post_init__(self) -> None:
        for name in (*_COUNTS, *_RATES, *_NEEDED):
            value = getattr(self, name)
            if value is None and name not in _NEEDED:
                continue
            whole = name in _COUNTS or name in _SIZES
            if isinstance(value, bool) or not isinstance(value, int if whole else int | float) or not value > 0:
                kind = "whole number" if whole else "number"
                raise ConfigurationError(f"Limits: {name} must be a {kind} above 0, not {value!r}")
        if self.when_full not in ("reject", "pause"):
            raise ConfigurationError(f"Limits: when_full must be 'reject' or 'pause', not {self.when_full!r}")
        if not isinstance(self.refusal, bytes):
            raise ConfigurationError(f"Limits: refusal must be bytes, not {type(self.refusal).__name__}")
        if not isinstance(self.trust_loopback, bool):
            raise ConfigurationError(f"Limits: trust_loopback must be True or False, not {self.trust_loopback!r}")
        if type(self.max_fds) is not int or not 0 <= self.max_fds <= 253:
            raise ConfigurationError(f"Limits: max_fds must be 0 to 253 (SCM_MAX_FD of unix(7)), not {self.max_fds!r}")

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Self:
        """Make limits from a mapping, as a TOML file gives it.

        :raises ConfigurationError: a name that is no limit"""
        known = {field.name for field in fields(cls)}
        for name in settings:
            if name not in known:
                raise ConfigurationError(f"Limits: there is no {name!r}; known are {', '.join(sorted(known))}")
        return replace(cls(), **dict(settings))

    def settings(self) -> Settings:
        """Return what the native core needs of it, for the connections of one listener to share."""
        return Settings(
            read_limit=self.read_buffer,
            high_water=self.send_buffer,
            low_water=self.send_buffer // 4,
            max_unsent=self.max_unsent,
            idle_timeout=self.idle_timeout,
            message_timeout=self.message_timeout,
            send_timeout=self.send_timeout,
            close_timeout=self.close_timeout,
        )
