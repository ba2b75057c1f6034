"""The request of a WebSocket that an ASGI server has taken, as its scope tells it."""

from typing import Any
from urllib.parse import quote

from portico.address import Address
from portico.errors import AddressError, UnsupportedError
from portico.protocols.http_headers import Headers
from portico.protocols.http_request import RequestHead

__all__ = ["ScopeRequest"]


class ScopeRequest(RequestHead):
    """A request for a WebSocket: its head, where it came from, and what a router found in its path."""

    __slots__ = ("_local", "_remote", "scope")

    def __init__(self, scope: dict[str, Any]) -> None:
        path: bytes = scope.get("raw_path") or quote(scope["path"]).encode()
        query: bytes = scope.get("query_string") or b""
        target = (path + b"?" + query if query else path).decode("latin-1")
        headers = Headers.from_wire([(bytes(name), bytes(value)) for name, value in scope["headers"]])
        super().__init__("GET", target, scope.get("http_version", "1.1"), headers)
        self.scope = scope
        """What the server told."""
        self.params = dict(scope.get("path_params") or {})
        self._local = _address(scope.get("server"))
        self._remote = _address(scope.get("client"))
        if self._remote is None and self._local is not None and self._local.path:
            self._remote = self._local  # as a Unix client, which has usually none of its own

    @property
    def known_addresses(self) -> tuple[Address | None, Address | None]:
        """The address connected to and that of the client, as far as the server told them."""
        return self._local, self._remote

    @property
    def remote_address(self) -> Address:
        """The address of the client.

        :raises UnsupportedError: the server does not tell"""
        return _told(self._remote, "client")

    @property
    def local_address(self) -> Address:
        """The address that the client connected to.

        :raises UnsupportedError: the server does not tell"""
        return _told(self._local, "server")

    @property
    def secure(self) -> bool:
        """Whether it came over TLS, as far as the server knows."""
        return self.scope.get("scheme") == "wss"


def _address(pair: Any) -> Address | None:
    """Return what `client` or `server` of a scope is as an address; None where it is none."""
    if pair is None:
        return None
    host, port = pair
    try:
        return Address("unix", path=host) if port is None else Address("tcp", host, port)
    except AddressError:  # some servers and test clients write names of their own
        return None


def _told(address: Address | None, key: str) -> Address:
    if address is None:
        raise UnsupportedError(f"the ASGI server does not tell the address: its scope has no {key!r}")
    return address
