"""Two listeners of the web on one port: the error says that one Door serves both."""

from pathlib import Path

import pytest
from ports import free_port

import portico
from portico.errors import BindError

from .support import Certificates, certificates, echo, scenario

__all__ = ["certificates"]


async def refused(service: portico.Service) -> str:
    with pytest.raises(BindError) as caught:
        await portico.serve(service)
    return str(caught.value)


@scenario()
async def test_two_websockets_on_one_port_want_one_door() -> None:
    at = f"127.0.0.1:{free_port()}"
    said = await refused(portico.Service().listen(f"ws://{at}/a", echo).listen(f"ws://{at}/b", echo))
    assert said == (
        f"cannot listen on ws://{at}/b: address already in use by this process; "
        f'one Door serves both at http://{at}/: door.websocket("/a", …) and door.websocket("/b", …)'
    )


@scenario()
async def test_a_door_and_a_websocket_want_one_door() -> None:
    at = f"127.0.0.1:{free_port()}"
    said = await refused(portico.Service().listen(f"http://{at}", portico.Door()).listen(f"ws://{at}/b", echo))
    assert said.endswith(f'; one Door serves both at http://{at}/: door.websocket("/b", …)')
    doors = portico.Service().listen(f"http://{at}", portico.Door()).listen(f"http://{at}", portico.Door())
    assert (await refused(doors)).endswith(f"; one Door serves both at http://{at}/")


@scenario()
async def test_the_same_holds_over_tls_and_unix_sockets(certificates: Certificates, tmp_path: Path) -> None:
    at, tls = f"127.0.0.1:{free_port()}", certificates.server()
    said = await refused(
        portico.Service().listen(f"wss://{at}/a", echo, tls=tls).listen(f"wss://{at}/b", echo, tls=tls)
    )
    assert f"one Door serves both at https://{at}/: " in said
    at = f"{tmp_path}/s"
    said = await refused(portico.Service().listen(f"ws+unix:{at}:/a", echo).listen(f"ws+unix:{at}:/b", echo))
    assert f"one Door serves both at http+unix:{at}:/: " in said


@scenario()
async def test_what_one_door_cannot_serve_is_told_as_before(certificates: Certificates) -> None:
    at, tls = f"127.0.0.1:{free_port()}", certificates.server()
    for service in (
        portico.Service().listen(f"ws://{at}/a", echo).listen(f"wss://{at}/b", echo, tls=tls),
        portico.Service().listen(f"tcp://{at}", echo).listen(f"ws://{at}/b", echo),
        portico.Service().listen(f"ws://{at}/b", echo).listen(f"tcp://{at}", echo),
    ):
        assert (await refused(service)).endswith("by this process; stop it, or listen on another port")
