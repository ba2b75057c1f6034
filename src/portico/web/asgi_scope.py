"""What an ASGI application is told of a request: its scope."""

from collections.abc import Mapping
from typing import Any

from portico.address import Address
from portico.web.request import Request

Scope = dict[str, Any]

SPEC_VERSION = "2.5"
"""Of the HTTP & WebSocket message format: sending raises when the client has gone, its disconnect has a reason."""


def http_scope(request: Request, root_path: str, state: Mapping[str, Any]) -> Scope:
    """Return the scope of a request.

    :raises ClosedError: the client has gone"""
    scope = _common("http", request, root_path, state)
    scope["method"] = request.method
    scope["scheme"] = "https" if request.secure else "http"
    return scope


def websocket_scope(request: Request, root_path: str, state: Mapping[str, Any], subprotocols: list[str]) -> Scope:
    """Return the scope of a request for a WebSocket.

    :raises ClosedError: the client has gone"""
    scope = _common("websocket", request, root_path, state)
    scope["scheme"] = "wss" if request.secure else "ws"
    scope["subprotocols"] = subprotocols
    scope["extensions"] = {"websocket.http.response": {}}
    return scope


def _common(kind: str, request: Request, root_path: str, state: Mapping[str, Any]) -> Scope:
    local, remote = request.local_address, request.remote_address
    return {
        "type": kind,
        "asgi": {"version": "3.0", "spec_version": SPEC_VERSION},
        "http_version": request.version,
        "path": request.path,
        "raw_path": request.raw_path.encode("latin-1"),
        "query_string": request.query.encode("latin-1"),
        "root_path": root_path,
        "headers": [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in request.headers],
        "client": None if remote.port is None else (remote.host, remote.port),
        "server": _server(local),
        "state": dict(state),
        "extensions": {},
    }


def _server(local: Address) -> tuple[str, int | None]:
    return (local.path, None) if local.port is None else (local.host, local.port)
