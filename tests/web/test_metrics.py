"""`door.metrics`: every counter, in the two formats that Prometheus reads, checked by its own parsers."""

import asyncio
import re
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import pytest
from prometheus_client import parser as text_parser
from prometheus_client.openmetrics import parser as openmetrics_parser
from server.support import client_of, echo, scenario

import portico
from portico.errors import ConfigurationError
from portico.server.stats import COUNTERS
from portico.web.door import Door
from portico.web.metrics import BUCKETS, GAUGES, GROUP_HELP, SERVER_HELP, Metrics, RequestCounts, wants_openmetrics
from portico.web.request import Request

from .front_kit import Reply, front

OPENMETRICS = "Accept: application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1"
ANYWHERE = "tcp://127.0.0.1:0"

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def families(reply: Reply) -> Iterator[Any]:
    assert reply.status == 200
    text = reply.body.decode()
    if reply.headers["content-type"] == "application/openmetrics-text; version=1.0.0; charset=utf-8":
        return openmetrics_parser.text_string_to_metric_families(text)  # type: ignore[no-any-return]
    assert reply.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return text_parser.text_string_to_metric_families(text)  # type: ignore[no-any-return]


def samples(reply: Reply) -> Samples:
    found: Samples = {}
    for family in families(reply):
        for sample in family.samples:
            key = sample.name, frozenset(sample.labels.items())
            assert key not in found
            found[key] = sample.value
    return found


def value(found: Samples, name: str, **labels: str) -> float:
    return found[name, frozenset(labels.items())]


def door_of(*groups: portico.Group[Any]) -> Door:
    door = Door()
    door.metrics(groups=groups)

    async def echoed(request: Request) -> bytes:
        return await request.body()

    door.route(("GET", "POST"), "/echo", echoed)
    return door


@pytest.mark.parametrize("accept", [[], [OPENMETRICS]], ids=["text", "openmetrics"])
@scenario()
async def test_every_counter_of_every_listener_is_there(accept: list[str]) -> None:
    service = portico.Service().listen(ANYWHERE, echo)
    async with front(door_of(), service) as client:
        lines, http = client.server.listeners
        other = await client_of(lines.address)
        assert await other.ask(b"hello\n") == b"hello\n"
        got = await client.ask("/metrics", *accept)
        found = samples(got)
        for listener in (lines, http):
            for name in COUNTERS:
                told = f"portico_{name}" if name in GAUGES else f"portico_{name}_total"
                value(found, told, address=str(listener.address), scheme="tcp")
        where = {"address": str(lines.address), "scheme": "tcp"}
        assert value(found, "portico_bytes_received_total", **where) == 6
        assert value(found, "portico_open", **where) == value(found, "portico_accepted_total", **where) == 1
        assert {family.type for family in families(got)} == {"counter", "gauge", "histogram"}
        assert all(family.documentation.endswith(".") for family in families(got))
        other.close()


def test_each_counter_has_its_help() -> None:
    assert list(SERVER_HELP) == list(COUNTERS)
    assert list(GROUP_HELP) == [field.name for field in fields(portico.GroupStats)]
    assert set(COUNTERS) >= GAUGES


@scenario()
async def test_requests_are_counted_by_method_and_class_of_status() -> None:
    async with front(door_of()) as client:
        await client.ask("/echo")
        await client.ask("/echo", "Content-Length: 0", method="POST")
        await client.ask("/nowhere")
        await client.ask("/nowhere", method="MKCOL")
        await client.ask("/nowhere", method="PROPFIND")
        found = samples(await client.ask("/metrics"))
        counted = {
            tuple(sorted(dict(labels).values(), reverse=True)): count
            for (name, labels), count in found.items()
            if name == "portico_http_requests_total"
        }
        assert counted == {("GET", "2xx"): 1, ("POST", "2xx"): 1, ("GET", "4xx"): 1, ("other", "4xx"): 2}
        assert value(found, "portico_http_request_duration_seconds_count") == 5
        assert value(found, "portico_http_request_duration_seconds_bucket", le="+Inf") == 5
        assert 0 < value(found, "portico_http_request_duration_seconds_sum") < 5


@scenario()
async def test_what_is_no_request_is_counted_and_so_is_an_upgrade() -> None:
    async def echo(channel: portico.WebSocket) -> None:
        async for message in channel:
            await channel.send(message)

    door = door_of()
    door.websocket("/chat", echo)
    async with portico.serve(door, "http://127.0.0.1:0") as server:
        async with portico.connect(server.address.replace(scheme="ws", path="/chat")) as channel:
            await channel.send("here")
            await channel.recv()
        async with portico.connect(server.address.replace(scheme="tcp", path="")) as stream:
            await stream.send(b"GET / HTTP/1.1\r\n\r\n")  # without Host
            assert (await stream.recv()).startswith(b"HTTP/1.1 400")
        text = (await portico.fetch(str(server.address) + "metrics")).text
    assert 'portico_http_requests_total{method="GET",status="1xx"} 1' in text
    assert 'portico_http_requests_total{method="other",status="4xx"} 1' in text
    assert "portico_http_request_duration_seconds_count 0" in text


@pytest.mark.parametrize("accept", [None, OPENMETRICS.partition(" ")[2]], ids=["text", "openmetrics"])
def test_durations_are_counted_up_to_each_bound(accept: str | None) -> None:
    requests = RequestCounts()
    metrics = Metrics((), requests)
    for seconds in (0.0, BUCKETS[0], BUCKETS[0] + 1e-6, BUCKETS[-1], BUCKETS[-1] * 2):
        requests.observe("GET", 200, seconds)
    text = "".join(metrics._lines(None, accept is not None))
    parser = openmetrics_parser if accept else text_parser
    counts = {
        float(sample.labels["le"]): sample.value
        for family in parser.text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.endswith("_bucket")
    }
    assert counts[BUCKETS[0]] == 2 and counts[BUCKETS[1]] == 3
    assert counts[BUCKETS[-1]] == 4 and counts[float("inf")] == 5 and len(counts) == len(BUCKETS) + 1


@pytest.mark.parametrize("accept", [[], [OPENMETRICS]], ids=["text", "openmetrics"])
@scenario()
async def test_groups_are_shown_by_name_whatever_is_in_it(accept: list[str]) -> None:
    odd = 'a "quoted"\\ \n{name}="x"'
    lobby, other = portico.Group[str]("lobby"), portico.Group[str](odd)
    near, far = portico.memory_pair()
    async with front(door_of(lobby, other)) as client, lobby.join(near.channel(portico.Lines())):
        lobby.send("hello")
        found = samples(await client.ask("/metrics", *accept))
        assert value(found, "portico_group_delivered_total", group="lobby") == 1
        assert value(found, "portico_group_members", group="lobby") == 1
        assert (
            value(found, "portico_group_members", group=odd) == value(found, "portico_group_sent_total", group=odd) == 0
        )
    near.abort()
    far.abort()


def test_groups_need_names_of_their_own() -> None:
    for groups in ([portico.Group()], [portico.Group("a"), portico.Group("a")]):
        with pytest.raises(ConfigurationError, match="a name of its own"):
            Metrics(groups, RequestCounts())


@scenario()
async def test_each_page_has_groups_of_its_own_and_the_requests_of_its_door() -> None:
    first, second = portico.Group[str]("first"), portico.Group[str]("second")
    door = Door()
    door.metrics("/a", groups=[first])
    door.metrics("/b", groups=[second])
    door.metrics("/c", host="c.example", groups=[portico.Group[str]("first")])
    async with front(door) as client:
        a, b = samples(await client.ask("/a")), samples(await client.ask("/b"))
    shown = [{dict(labels)["group"] for name, labels in page if name == "portico_group_members"} for page in (a, b)]
    assert shown == [{"first"}, {"second"}]
    assert value(b, "portico_http_requests_total", method="GET", status="2xx") == 1


@scenario()
async def test_a_door_outside_of_a_server_shows_its_own_requests() -> None:
    near, far = portico.memory_pair()
    serving = asyncio.ensure_future(door_of()(near))
    await far.send(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    await serving
    await near.close()
    text = b"".join([piece async for piece in far]).decode()
    assert "portico_http_requests" in text and "portico_accepted" not in text
    await far.close()


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        (None, False),
        ("", False),
        ("*/*", False),
        ("text/plain", False),
        ("application/openmetrics-text", True),
        ("Application/OpenMetrics-Text; version=1.0.0 ; Q=0.5, text/plain;q=0.3", True),
        ("application/openmetrics-text;q=0.3,text/plain;q=0.5", False),
        ("application/openmetrics-text;q=0", False),
        ("application/openmetrics-text;q=high", False),
        ("application/openmetrics-text;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,*/*;q=0.1", True),
    ],
)
def test_the_format_is_what_the_client_likes_best(accept: str | None, wanted: bool) -> None:
    assert wants_openmetrics(accept) == wanted


def test_the_older_text_is_as_prometheus_documents_it() -> None:
    requests = RequestCounts()
    metrics = Metrics((), requests)
    requests.observe("GET", 200, 0.25)
    text = "".join(metrics._lines(None, False))
    assert (
        '# TYPE portico_http_requests_total counter\nportico_http_requests_total{method="GET",status="2xx"} 1\n' in text
    )
    assert re.fullmatch(r"(# (HELP|TYPE) \S+ .+\n|[a-z_]+(\{[^}]*\})? [0-9.]+\n)+", text)
