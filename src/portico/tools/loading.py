"""`portico run`: find the service that a person has written, set it up by a file, and run it."""

import contextlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from portico.address import SCHEMES, Address
from portico.errors import ConfigurationError, PorticoError
from portico.server.limits import Limits
from portico.server.running import LoopName, run
from portico.server.service import Service
from portico.server.spec import ListenerSpec
from portico.tools.logs import place_of
from portico.tools.report import STARTED_DEBUG, WRONG, Stop
from portico.transports.tls import TLS

if TYPE_CHECKING:
    from portico.websocket.settings import WebSocketSettings

TABLES = ("limits", "tls", "websocket")

WEBSOCKET = (
    "subprotocols",
    "headers",
    "deflate",
    "max_size",
    "max_fragments",
    "ping_interval",
    "ping_timeout",
    "origins",
)
"""The settings of WebSockets that a file can say."""

DOOR_AT = "http://127.0.0.1:8000"
"""Where a Door is served, unless it is said."""

TLS_FILES = ("certificate", "key", "ca", "client_authority", "key_log")


def run_service(
    target: str, *, listen: Sequence[str] = (), loop: LoopName | None, config: Path | None, debug: bool
) -> None:
    """Run the service that `target` names until SIGTERM or Ctrl-C; or the Door, at the addresses `listen`."""
    settings = FileSettings() if config is None else read_settings(config)
    service = load_service(target, listen, tls=settings.tls)
    settings.apply(service)
    try:
        run(service, loop=loop, debug=debug)
    except ImportError:
        raise Stop("uvloop is not installed here", WRONG, "use --loop asyncio") from None


def load_service(target: str, listen: Sequence[str] = (), *, tls: TLS | None = None) -> Service:
    """Return the service that `MODULE:NAME` or `FILE.py:NAME` names; NAME may be a function that returns one. A Door
    becomes a service at the addresses `listen`, those of https with `tls`.

    :raises Stop: there is none
    :raises ConfigurationError: a Door cannot be served there"""
    place, _, name = target.rpartition(":") if ":" in target else (target, "", "service")
    if not place or not name:
        raise Stop(f"{target!r} is not MODULE:SERVICE", WRONG, "such as 'app:service' or './app.py:service'")
    module = _load_file(place) if place.endswith(".py") or "/" in place else _load_module(place)
    found: Any = module
    for part in name.split("."):
        found = getattr(found, part, None)
    if found is None:
        raise Stop(f"{place} has no {name!r}", WRONG, _offer(module, place))
    if not _is_servable(found) and callable(found):
        found = _call(found, target)
    if _is_door(found):
        service = Service()
        for address in listen or [DOOR_AT]:
            secure = Address.parse(address).carrier.scheme == "tls"
            if secure and tls is None:
                hint = "write certificate and key in [tls] of a TOML file, and name that with --config"
                raise Stop(f"{address} needs a certificate", WRONG, hint)
            service.listen(address, found, tls=tls if secure else None)
        return service
    if listen:
        raise Stop("--listen is for a Door", WRONG, "a Service listens where it says itself")
    if not isinstance(found, Service):
        raise Stop(f"{target} is a {type(found).__name__}, not a portico.Service", WRONG, _offer(module, place))
    return found


def _is_servable(found: object) -> bool:
    return isinstance(found, Service) or _is_door(found)


def _is_door(found: object) -> bool:
    """Whether it is a Door; nobody has one without the module that it comes from."""
    web = sys.modules.get("portico.web.door")
    return web is not None and isinstance(found, web.Door)


def _offer(module: ModuleType, place: str) -> str:
    names = [name for name, value in vars(module).items() if _is_servable(value)]
    return f"there is {', '.join(f'{place}:{name}' for name in names)}" if names else "make a portico.Service there"


def _call(function: Any, target: str) -> Any:
    try:
        inspect.signature(function).bind()
    except (TypeError, ValueError):
        raise Stop(f"{target} needs arguments", WRONG, "name a Service, or a function that returns one") from None
    with _told(target):
        return function()


def _load_module(name: str) -> ModuleType:
    sys.path.insert(0, str(Path.cwd()))
    try:
        with _told(name):
            return importlib.import_module(name)
    except Stop as stop:
        cause = stop.__cause__
        if isinstance(cause, ModuleNotFoundError) and cause.name and (name + ".").startswith(cause.name + "."):
            hint = "run it from the directory that holds it, or give the file: ./app.py:service"
            raise Stop(f"there is no module {cause.name!r}", WRONG, hint) from cause
        raise


def _load_file(path: str) -> ModuleType:
    file = Path(path).resolve()
    sys.path[:0] = [str(file.parent), str(Path.cwd())]
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if spec is None or spec.loader is None or not file.is_file():
        raise Stop(f"there is no Python file {path!r}", WRONG, "check the path")
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module
    with _told(path):
        spec.loader.exec_module(module)
    return module


class _told:
    """Turn what somebody else's code raises into one line that says where."""

    def __init__(self, what: str) -> None:
        self.what = what

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if not isinstance(error, Exception) or isinstance(error, PorticoError | Stop):
            return
        raise Stop(f"{self.what}: {type(error).__name__}: {error}{place_of(error)}", WRONG, STARTED_DEBUG) from error


# The file of settings.


@dataclass(frozen=True)
class FileSettings:
    """What a file says of all listeners; `path` is for errors."""

    path: Path | None = None
    limits: Mapping[str, Any] = field(default_factory=dict)
    tls: TLS | None = None
    websocket: Mapping[str, Any] | None = None

    def apply(self, service: Service) -> None:
        """Set limits, TLS and WebSockets of the listeners.

        :raises ConfigurationError: something does not fit one of them, or is for listeners that there are none of"""
        if self.websocket is not None and not any(map(_is_websocket, service.specs)):
            raise ConfigurationError(
                f"{self.path}: [websocket] is for listeners at ws://, wss:// and ws+unix:, and there is none; "
                "give the WebSockets of a Door theirs by door.websocket(…, websocket=…)"
            )
        try:
            service.specs[:] = [self._applied(spec) for spec in service.specs]
        except ConfigurationError as error:
            raise ConfigurationError(f"{self.path}: {error}") from error

    def _applied(self, spec: ListenerSpec) -> ListenerSpec:
        spec = spec.changed(limits=replace(spec.limits, **self.limits))
        if self.tls is not None and spec.address.scheme in ("tcp", "tls"):
            spec = replace(spec, tls=self.tls)
        return spec if self.websocket is None else _with_websocket(spec, self.websocket)


def read_settings(path: Path) -> FileSettings:
    """Return what a TOML file says.

    `[limits]` has the names of `portico.Limits`, for every listener; `[tls]` those of `portico.TLS`, for the listeners
    on TCP; `[websocket]` some of `portico.WebSocketSettings`, for the listeners at ws, wss and ws+unix.
    Files in `[tls]` are looked for beside the TOML file.

    :raises ConfigurationError: the file cannot be read, or says what cannot be"""
    import tomllib

    try:
        settings = tomllib.loads(path.read_text())
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigurationError(f"cannot read {str(path)!r}: {reason}") from error
    for name, table in settings.items():
        if name not in TABLES or not isinstance(table, dict):
            raise ConfigurationError(f"{path}: there is no [{name}]; known are [limits], [tls] and [websocket]")
    try:
        limits = _limits(settings.get("limits", {}))
        tls = _tls(settings["tls"], path.parent) if "tls" in settings else None
        websocket = _websocket(settings["websocket"]) if "websocket" in settings else None
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: {error}") from error
    return FileSettings(path, limits, tls, websocket)


@contextlib.contextmanager
def _values_of(table: str) -> Iterator[None]:
    """Say of values that are of the wrong kind in which table they stand."""
    try:
        yield
    except ConfigurationError:
        raise
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"{table}: a value of the wrong kind: {error}") from error


def _limits(table: Mapping[str, Any]) -> dict[str, Any]:
    values = {
        name: value.encode() if isinstance(value, str) and name == "refusal" else value for name, value in table.items()
    }
    Limits.of(values)
    return values


def _tls(table: Mapping[str, Any], directory: Path) -> TLS:
    known = [item.name for item in fields(TLS) if item.init]
    values = dict(table)
    for name, value in table.items():
        if name not in known:
            raise ConfigurationError(f"TLS: there is no {name!r}; known are {', '.join(known)}")
        if name in TLS_FILES and isinstance(value, str) and "-----BEGIN " not in value:
            values[name] = str(directory / value)
    with _values_of("TLS"):
        tls = TLS(**values)
        tls.server_context()
    return tls


def _websocket(table: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that `table` says; false stands for None."""
    from portico.protocols.deflate import Deflate

    for name in table:
        if name not in WEBSOCKET:
            raise ConfigurationError(f"websocket: there is no {name!r}; known are {', '.join(WEBSOCKET)}")
    may_be_off = ("deflate", "ping_interval", "ping_timeout")
    values = {name: None if value is False and name in may_be_off else value for name, value in table.items()}
    deflate = values.get("deflate")
    with _values_of("websocket"):
        if deflate is not None:
            values["deflate"] = Deflate(**({} if deflate is True else deflate))
        _changed(None, values)
    return values


def _changed(settings: "WebSocketSettings | None", values: Mapping[str, Any]) -> "WebSocketSettings":
    from portico.websocket.settings import WebSocketSettings

    return replace(settings or WebSocketSettings(), **values)


def _is_websocket(spec: ListenerSpec) -> bool:
    return spec.url is not None and spec.upon is not None and bool(SCHEMES[spec.url.scheme].opened_by)


def _with_websocket(spec: ListenerSpec, values: Mapping[str, Any]) -> ListenerSpec:
    """Return `spec` with `values` in place of what the program says of WebSockets, if it serves such."""
    if not _is_websocket(spec):
        return spec
    assert spec.upon is not None  # as it is one
    handler, settings = spec.upon
    return spec.changed(upon=(handler, _changed(settings, values)))
