"""`door.metrics`: every counter as text that Prometheus reads."""

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import fields

from portico.errors import ConfigurationError
from portico.server.group import Group
from portico.server.group_policy import GroupStats
from portico.server.service import Server, current_server
from portico.server.stats import COUNTERS
from portico.web.request import Request
from portico.web.response import Response

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of the durations that are counted together, in seconds (those of Prometheus' clients, and two below)."""

METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
"""Methods that are counted by name; clients may make others up."""

GAUGES = frozenset(("open", "handshakes"))
"""What counts what is now; all else only grows."""

SERVER_HELP = {
    "accepted": "Connections taken from the kernel, those turned away included.",
    "open": "Connections open now, handshakes under way included.",
    "closed": "Connections that are over.",
    "rejected_full": "Connections turned away at max_connections.",
    "rejected_address": "Connections turned away at max_per_address.",
    "rejected_rate": "Connections turned away over accept_rate.",
    "rejected_denied": "Connections turned away by allow and deny.",
    "rejected_untrusted": "Connections turned away because proxied_by does not name them.",
    "paused": "Times that accepting paused at a limit.",
    "shed": "Connections turned away because descriptors ran out.",
    "accept_errors": "Times that accept failed for want of descriptors or memory.",
    "handshakes": "TLS handshakes under way now, and PROXY headers awaited.",
    "handshakes_failed": "TLS handshakes that failed or took too long.",
    "proxy_headers_failed": "Connections of trusted proxies without a good PROXY header in time.",
    "handler_errors": "Handlers that ended by an exception of their own.",
    "peer_errors": "Handlers that ended because the peer was lost or ended in mid-message.",
    "protocol_errors": "Handlers that ended because of what the peer sent.",
    "packets_dropped": "Packets that found a queue full.",
    "aborted": "Connections that a drain had to abort.",
    "timeouts": "Connections closed by idle_timeout, message_timeout or send_timeout.",
    "bytes_received": "Payload bytes received, after TLS.",
    "bytes_sent": "Payload bytes sent, before TLS.",
    "messages_received": "Messages received on channels.",
    "messages_sent": "Messages sent on channels.",
    "rejected": "Connections turned away, whatever for.",
}
GROUP_HELP = {
    "sent": "Messages sent to the group.",
    "delivered": "Messages handed over to members, once for each member.",
    "dropped_new": "Messages missed by the policy drop-new, once for each member.",
    "dropped_old": "Messages missed by the policy drop-old, once for each member.",
    "dropped_latest": "Messages missed by the policy latest, once for each member.",
    "dropped_close": "Messages missed because the policy close closed the member.",
    "abandoned": "Messages that still waited for a member when it left.",
    "closed": "Members closed by the policy close.",
    "notices": "Notices of missed messages that were sent.",
}

Labels = tuple[tuple[str, str], ...]
Sample = tuple[str, Labels, float]
"""What follows the name of its family, labels, and the value."""


class RequestCounts:
    """The requests of a door: how many, and how long they took."""

    def __init__(self) -> None:
        self.kinds: dict[tuple[str, int], int] = {}
        """How many there were, by method and class of status."""
        self.durations = [0] * (len(BUCKETS) + 1)
        """How many there were up to each bound of `BUCKETS` and above the one before, and above all."""
        self.seconds = 0.0

    def count(self, method: str, status: int) -> None:
        """Count what was answered with `status`, though it be no request, or the last one before an upgrade."""
        key = (method if method in METHODS else "other", status // 100)
        self.kinds[key] = self.kinds.get(key, 0) + 1

    def observe(self, method: str, status: int, seconds: float) -> None:
        """Count a request that was answered with `status` after `seconds`."""
        self.count(method, status)
        self.durations[bisect_left(BUCKETS, seconds)] += 1
        self.seconds += seconds


class Metrics:
    """Answers with the counters of the server whose door it stands in, of that door's requests, and of groups.

    It is for monitoring: let no stranger reach it (`host=`, a listener of its own, a proxy in front)."""

    def __init__(self, groups: Iterable[Group], requests: RequestCounts) -> None:
        """:param groups: whose counters are shown, too, by their names.
        :param requests: those of the door, whichever of its pages asks.
        :raises ConfigurationError: groups without a name, or two of one name"""
        self._groups, self._requests = list(groups), requests
        names = [group.name for group in self._groups]
        if "" in names or len(set(names)) < len(names):
            raise ConfigurationError('metrics: each group needs a name of its own: Group("lobby")')

    async def __call__(self, request: Request) -> Response:
        """Answer a GET or HEAD."""
        openmetrics = wants_openmetrics(request.headers.get("accept"))
        text = "".join(self._lines(current_server(), openmetrics))
        return Response(text, content_type=OPENMETRICS if openmetrics else TEXT)

    def _lines(self, server: Server | None, openmetrics: bool) -> Iterator[str]:
        if server is not None:
            yield from _server_lines(server, openmetrics)
        by_kind = [
            ("_total", (("method", method), ("status", f"{kind}xx")), count)
            for (method, kind), count in sorted(self._requests.kinds.items())
        ]
        text = "Requests answered, by method and class of status: 1xx are upgrades, such as WebSockets."
        yield from _family("portico_http_requests", "counter", text, by_kind, openmetrics)
        text = "Seconds from the head of a request to its answer."
        yield from _family("portico_http_request_duration_seconds", "histogram", text, self._histogram(), openmetrics)
        if self._groups:
            yield from _group_lines(self._groups, openmetrics)
        if openmetrics:
            yield "# EOF\n"

    def _histogram(self) -> Iterator[Sample]:
        below = 0
        for bound, count in zip((*map(str, BUCKETS), "+Inf"), self._requests.durations, strict=True):
            below += count
            yield "_bucket", (("le", bound),), below
        yield "_count", (), below
        yield "_sum", (), self._requests.seconds


def wants_openmetrics(accept: str | None) -> bool:
    """Say whether an Accept field (RFC 9110, 12.5.1) likes OpenMetrics at least as much as the older text."""
    liked = {"application/openmetrics-text": 0.0, "text/plain": 0.0}
    for each in (accept or "").lower().split(","):
        kind, *parameters = (part.strip() for part in each.split(";"))
        if kind not in liked:
            continue
        quality = next((part[2:] for part in parameters if part.startswith("q=")), "1")
        try:
            liked[kind] = max(liked[kind], float(quality))
        except ValueError:
            continue
    return 0 < liked["application/openmetrics-text"] >= liked["text/plain"]


def _server_lines(server: Server, openmetrics: bool) -> Iterator[str]:
    rows: list[tuple[Labels, dict[str, int]]] = []
    for listener in server.listeners:
        labels = (("address", str(listener.address)), ("scheme", listener.scheme))
        rows.append((labels, listener.stats.as_dict()))
    yield from _table("portico_", COUNTERS, SERVER_HELP, rows, openmetrics)


def _group_lines(groups: list[Group], openmetrics: bool) -> Iterator[str]:
    names = [field.name for field in fields(GroupStats)]
    labelled: list[tuple[Labels, Group]] = [((("group", group.name),), group) for group in groups]
    rows = [(labels, {name: getattr(group.stats, name) for name in names}) for labels, group in labelled]
    yield from _table("portico_group_", names, GROUP_HELP, rows, openmetrics)
    members = [("", labels, len(group)) for labels, group in labelled]
    yield from _family("portico_group_members", "gauge", "Members of the group now.", members, openmetrics)


def _table(
    prefix: str,
    names: Iterable[str],
    helps: dict[str, str],
    rows: list[tuple[Labels, dict[str, int]]],
    openmetrics: bool,
) -> Iterator[str]:
    for name in names:
        gauge = name in GAUGES
        samples = [("" if gauge else "_total", labels, values[name]) for labels, values in rows]
        yield from _family(prefix + name, "gauge" if gauge else "counter", helps[name], samples, openmetrics)


def _family(name: str, kind: str, text: str, samples: Iterable[Sample], openmetrics: bool) -> Iterator[str]:
    """Yield the lines of one metric. The older text names a counter as its samples are named."""
    told = name if openmetrics or kind != "counter" else name + "_total"
    yield f"# HELP {told} {text}\n# TYPE {told} {kind}\n"
    for suffix, labels, value in samples:
        listed = ",".join(f'{key}="{_escaped(each)}"' for key, each in labels)
        yield f"{name}{suffix}{{{listed}}} {value!r}\n" if listed else f"{name}{suffix} {value!r}\n"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
