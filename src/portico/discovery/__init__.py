"""Finding servers on the local network, and being found: DNS-SD over multicast DNS (RFC 6763, RFC 6762).

    async with discovery.announce(server, "_portico-chat._tcp", name="our chat"):
        ...
    chat = await discovery.find("_portico-chat._tcp")
    async with chat.connect(codec=portico.Lines()) as channel:
        ...

Whatever else speaks it takes part: Avahi, Bonjour, printers. It needs the extra `discovery` (the zeroconf library);
without it each call here raises UnsupportedError. Nothing of it reaches beyond the local network, and nothing that is
found there is proven: anybody may announce any name.
"""

from portico.discovery.announcing import Announcement as Announcement
from portico.discovery.announcing import announce as announce
from portico.discovery.browsing import Browser as Browser
from portico.discovery.browsing import browse as browse
from portico.discovery.browsing import find as find
from portico.discovery.browsing import service_types as service_types
from portico.discovery.found import Found as Found
from portico.discovery.found import Lost as Lost

__all__ = [
    "Announcement",
    "Browser",
    "Found",
    "Lost",
    "announce",
    "browse",
    "find",
    "service_types",
]
