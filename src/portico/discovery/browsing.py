"""`browse` and `find`: what is announced on the local network."""

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import Any, Final

from portico.discovery import names
from portico.discovery.found import Found, Lost, found
from portico.discovery.network import Interface, chosen, closed, need_zeroconf, opened
from portico.errors import AddressError, ConfigurationError, ResolveError

logger = logging.getLogger("portico.discovery")

RESOLVE_TIMEOUT: Final = 3.0
"""Seconds that a service gets to tell where it is; it is asked again meanwhile."""

MAX_SERVICES: Final = 1000
"""Services of one type that are told of: no network has so many, unless somebody floods it."""


def browse(service_type: str, *, timeout: float | None = None, interfaces: Sequence[str] | None = None) -> "Browser":
    """Watch what is announced: `async with browse("_http._tcp") as changes: async for change in changes: ...`.

    Each change is a `Found`, for what is new and for what tells something else than before, or a `Lost`. Changes that
    nobody has read yet are told as one, the last, so a slow reader costs no memory. At most 1000 services are told of.

    :param service_type: `_name._tcp` or `_name._udp`.
    :param timeout: seconds after which the iteration ends; None for no end. What is there answers within a second, or
        two where it has told somebody else just before (RFC 6762 section 6).
    :param interfaces: names ("eth0") or addresses of the interfaces to ask on. Default: all that are up and carry
        multicast, tunnels excepted, and loopback.
    :raises ConfigurationError: at once, if that is no service type; on entering, if there is no such interface
    :raises UnsupportedError: at once, if the zeroconf library is not installed
    :raises BindError: on entering, if the port of multicast DNS, 5353, cannot be had
    """
    need_zeroconf()
    return Browser(names.service_type(service_type, own=False), timeout, interfaces)


class Browser:
    """What `browse` returns: a context that is watching, and an iterator over what changes."""

    def __init__(self, service_type: str, timeout: float | None, interfaces: Sequence[str] | None) -> None:
        self.type = service_type
        self._timeout, self._wanted = timeout, interfaces
        self._deadline: float | None = None
        self._on: list[Interface] = []
        self._now: dict[str, Found] = {}
        self._told: dict[str, Found] = {}
        self._changed: dict[str, None] = {}  # in order
        self._something = asyncio.Event()
        self._asking: dict[str, asyncio.Task[None]] = {}

    @property
    def services(self) -> list[Found]:
        """What is there, as far as the iteration has told."""
        return list(self._told.values())

    async def __aenter__(self) -> "Browser":
        from zeroconf.asyncio import AsyncServiceBrowser

        self._on = chosen(self._wanted)
        self._mdns = await opened(self._on)
        if self._timeout is not None:
            self._deadline = asyncio.get_running_loop().time() + self._timeout
        try:
            self._browser = AsyncServiceBrowser(self._mdns.zeroconf, self.type + names.LOCAL, handlers=[self._heard])
        except BaseException:
            await closed(self._mdns)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asking = list(self._asking.values())
        for task in asking:
            task.cancel()
        try:
            await self._browser.async_cancel()
        finally:
            await closed(self._mdns)

    def __aiter__(self) -> AsyncIterator[Found | Lost]:
        return self

    async def __anext__(self) -> Found | Lost:
        while True:
            while self._changed:
                key = next(iter(self._changed))
                del self._changed[key]
                now, told = self._now.get(key), self._told.get(key)
                if now is not None and now != told:
                    self._told[key] = now
                    return now
                if now is None and told is not None:
                    del self._told[key]
                    return Lost(told)
            self._something.clear()
            try:
                async with asyncio.timeout_at(self._deadline):
                    await self._something.wait()
            except TimeoutError:
                raise StopAsyncIteration from None

    def _heard(self, *, name: str, state_change: Any, **unused: object) -> None:
        """Take what the library says of one service: it is there, or has changed, or is gone."""
        from zeroconf import ServiceStateChange

        key = name.lower()  # DNS names are alike in both cases
        before = self._asking.pop(key, None)
        if before is not None:
            before.cancel()
        if state_change is ServiceStateChange.Removed:
            self._now.pop(key, None)
            self._tell(key)
        elif key in self._now or len(self._now) + len(self._asking) < MAX_SERVICES:
            self._asking[key] = asyncio.ensure_future(self._ask(key, name))
        else:
            logger.debug("more than %d services of %s: %r is left out", MAX_SERVICES, self.type, name)

    async def _ask(self, key: str, name: str) -> None:
        """Find out where a service is; what cannot be asked for, or does not answer, is not told of."""
        from zeroconf import Error
        from zeroconf.asyncio import AsyncServiceInfo

        try:
            with contextlib.suppress(Error, AddressError):
                info = AsyncServiceInfo(self.type + names.LOCAL, name)
                if not await info.async_request(self._mdns.zeroconf, RESOLVE_TIMEOUT * 1000):
                    return
                result = found(info, self.type, self._on)
                if result is not None:
                    self._now[key] = result
                    self._tell(key)
        finally:
            if self._asking.get(key) is asyncio.current_task():
                del self._asking[key]

    def _tell(self, key: str) -> None:
        self._changed[key] = None
        self._something.set()


async def find(
    service_type: str,
    name: str | None = None,
    *,
    timeout: float = 3.0,
    interfaces: Sequence[str] | None = None,
) -> Found:
    """Return the first service of a type to be found, or the one called `name` (upper and lower case are alike).

    :param timeout: seconds until it is given up; for `interfaces` see `browse`.
    :raises ResolveError: nobody announces it
    :raises ConfigurationError, UnsupportedError, BindError: see `browse`"""
    async with browse(service_type, timeout=timeout, interfaces=interfaces) as changes:
        async for change in changes:
            if isinstance(change, Found) and (name is None or change.name.casefold() == name.casefold()):
                return change
    which = service_type if name is None else f"{name} ({service_type})"
    raise ResolveError(socket.EAI_NONAME, f"nobody on this network announced it within {timeout:g} s", which)


async def service_types(*, timeout: float = 3.0, interfaces: Sequence[str] | None = None) -> list[str]:
    """Return the service types that somebody announces (RFC 6763 section 9), in order of the alphabet.

    :param timeout: seconds that it takes; for `interfaces` see `browse`.
    :raises ConfigurationError, UnsupportedError, BindError: see `browse`"""
    need_zeroconf()
    from zeroconf.asyncio import AsyncZeroconfServiceTypes

    mdns = await opened(chosen(interfaces))
    try:
        told = await AsyncZeroconfServiceTypes.async_find(mdns, timeout)
    finally:
        await closed(mdns)
    types = set()
    for each in told:
        with contextlib.suppress(ConfigurationError):  # anybody may announce anything
            types.add(names.service_type(each, own=False))
    return sorted(types)
