"""Portico as the suite wants it: a server and a client that echo every message.

`python agents.py server KIND` prints the port that it serves on. `python agents.py client KIND PORT NAME CASE ...` runs
cases of a fuzzing server one by one, and then lets it write its reports. KIND names one of `SETTINGS`.
"""

import asyncio
import sys
from urllib.parse import urlencode

import portico

MAX_SIZE = 16 << 20
"""Of the largest messages, in 9.1.6 and 9.2.6."""
MAX_FRAGMENTS = 1 << 17
"""Of the messages in most pieces, in 9.3.1 and 9.4.1."""
CASE_TIME = 500.0
"""Seconds for a case; the suite itself gives up after 480 at the latest."""

DEFLATES = {
    "default": portico.Deflate(threshold=0),
    "takeover": portico.Deflate(threshold=0, context_takeover=True, window_bits=15, memory_level=8),
}
SETTINGS = {
    kind: portico.WebSocketSettings(max_size=MAX_SIZE, max_fragments=MAX_FRAGMENTS, deflate=deflate, ping_interval=None)
    for kind, deflate in DEFLATES.items()
}
"""No pings of our own: some cases would count them."""


async def echo(channel: portico.Channel[str | bytes]) -> None:
    """Send everything back."""
    async for message in channel:
        await channel.send(message)


def serve(kind: str) -> None:
    """Serve until SIGTERM."""

    def tell(server: portico.Server) -> None:
        print(server.address.port, flush=True)

    portico.run(portico.Service().listen("ws://127.0.0.1:0", echo, websocket=SETTINGS[kind]), banner=tell)


async def converse(kind: str, url: str, **query: str) -> None:
    """Echo on one connection until the fuzzing server is done with it. How it judges is in its report, not here."""
    try:
        async with asyncio.timeout(CASE_TIME):
            async with portico.connect(f"{url}?{urlencode(query)}", websocket=SETTINGS[kind]) as channel:
                await echo(channel)
    except (portico.PorticoError, TimeoutError) as error:
        print(query, repr(error), file=sys.stderr)


async def run_cases(kind: str, port: int, name: str, cases: list[str]) -> None:
    """Run the cases, then end the fuzzing server, which writes its reports before."""
    server = f"ws://127.0.0.1:{port}"
    for case in cases:
        await converse(kind, f"{server}/runCase", casetuple=case, agent=name)
    await converse(kind, f"{server}/updateReports", agent=name, shutdownOnComplete="true")


if __name__ == "__main__":
    role, kind, *rest = sys.argv[1:]
    if role == "server":
        serve(kind)
    else:
        port, name, *cases = rest
        asyncio.run(run_cases(kind, int(port), name, cases))
