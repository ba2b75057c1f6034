"""The counters of a server, named once; every view of them reads these."""

from collections.abc import Iterable
from dataclasses import dataclass, field, fields

from portico._core import Settings

Sources = list[Settings]


@dataclass(slots=True)
class Stats:
    """What a server (or one of its listeners) has seen since it started; `open` counts what is now."""

    accepted: int = 0
    """Connections taken from the kernel, those that were turned away included."""
    open: int = 0
    """Connections that are open now, handshakes under way included."""
    closed: int = 0
    """Connections that are over."""
    rejected_full: int = 0
    """Turned away at `max_connections`."""
    rejected_address: int = 0
    """Turned away at `max_per_address`."""
    rejected_rate: int = 0
    """Turned away over `accept_rate`."""
    rejected_denied: int = 0
    """Turned away by `allow` and `deny`."""
    rejected_untrusted: int = 0
    """Turned away because `proxied_by` does not name them."""
    paused: int = 0
    """Times that accepting paused at a limit."""
    shed: int = 0
    """Turned away because descriptors ran out."""
    accept_errors: int = 0
    """Times that accept(2) failed for want of descriptors or memory."""
    handshakes: int = 0
    """TLS handshakes under way now, and PROXY headers awaited."""
    handshakes_failed: int = 0
    """TLS handshakes that failed or took too long."""
    proxy_headers_failed: int = 0
    """Connections of trusted proxies that did not begin with a good PROXY header, or not in time."""
    handler_errors: int = 0
    """Handlers that ended by an exception of their own."""
    peer_errors: int = 0
    """Handlers that ended because the peer was lost or ended in mid-message."""
    protocol_errors: int = 0
    """Handlers that ended because of what the peer sent: too large, or no message."""
    packets_dropped: int = 0
    """Packets that found a queue full: that of a peer here, or the kernel's receive buffer."""
    aborted: int = 0
    """Connections that a drain had to abort."""
    _sources: Sources = field(default_factory=list, repr=False)

    @property
    def timeouts(self) -> int:
        """Connections closed by `idle_timeout`, `message_timeout` or `send_timeout`."""
        return sum(source.timeouts for source in self._sources)

    @property
    def bytes_received(self) -> int:
        """Payload bytes received, after TLS."""
        return sum(source.bytes_received for source in self._sources)

    @property
    def bytes_sent(self) -> int:
        """Payload bytes sent, before TLS."""
        return sum(source.bytes_sent for source in self._sources)

    @property
    def messages_received(self) -> int:
        """Messages received on channels."""
        return sum(source.messages_received for source in self._sources)

    @property
    def messages_sent(self) -> int:
        """Messages sent on channels."""
        return sum(source.messages_sent for source in self._sources)

    @property
    def rejected(self) -> int:
        """Connections turned away, whatever for."""
        return sum(getattr(self, name) for name in _REJECTIONS)

    def add_source(self, source: Settings) -> None:
        """Add what the connections with these settings move."""
        self._sources.append(source)

    def as_dict(self) -> dict[str, int]:
        """Return every counter by its name."""
        return {name: getattr(self, name) for name in COUNTERS}

    @classmethod
    def total(cls, parts: Iterable["Stats"]) -> "Stats":
        """Return the sum of `parts` as it is now."""
        whole = cls()
        for part in parts:
            for name in _STORED:
                setattr(whole, name, getattr(whole, name) + getattr(part, name))
            whole._sources.extend(part._sources)
        return whole


_STORED = tuple(item.name for item in fields(Stats) if not item.name.startswith("_"))
_REJECTIONS = (*(name for name in _STORED if name.startswith("rejected_")), "shed")
_DERIVED = ("timeouts", "bytes_received", "bytes_sent", "messages_received", "messages_sent", "rejected")
COUNTERS = _STORED + _DERIVED
