"""The contracts that a user's own object can fulfil in place of Portico's."""

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

from portico.address import Address

__all__ = ["Lifespan", "Pollable", "Resolver"]


@runtime_checkable
class Lifespan(Protocol):
    """A handler that has something to do before its server begins and after it has ended."""

    async def startup(self) -> None:
        """Called before anything listens; an exception keeps the server from starting."""
        ...

    async def shutdown(self) -> None:
        """Called once when every connection is over, if `startup` ended well."""
        ...


@runtime_checkable
class Pollable(Protocol):
    """What a `Poller` can wait for; Stream, Channel and Datagrams are such."""

    @property
    def readiness(self) -> tuple[bool, bool]:
        """Whether receiving would answer at once (with something, the end or an error), and whether sending would."""
        ...

    def watch(self, watcher: Callable[[], object] | None, /) -> None:
        """Call `watcher()`, which does little and never raises, whenever something became ready; None: no more.

        It replaces the watcher before. The pollers share one, so nobody else may watch what a poller does."""
        ...


class Resolver(Protocol):
    """Turns names into addresses and back; any object with these two methods is one.

    It is asked about names only: numeric, `unix` and `mem` addresses never reach it.
    """

    async def resolve(self, address: Address, *, family: int = 0) -> Sequence[Address]:
        """Give the numeric addresses of `address.host`, best first: `[address.replace(host="192.0.2.1")]`.

        :param family: `socket.AF_INET` or `socket.AF_INET6` to get only these, 0 for both.
        :raises OSError: if there are none; a `socket.gaierror` keeps its pair `(code, text)`.
        """
        ...

    async def name_of(self, address: Address) -> tuple[str, str]:
        """Give the host and service names of a numeric `address`; what has no name stays a number.

        :raises OSError: if that cannot be found out.
        """
        ...
