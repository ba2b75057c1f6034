"""The lifespan of ASGI applications behind a door: before anybody comes in, and when everybody has gone."""

import logging
from typing import Any

import pytest
from server.support import EVERYWHERE, scenario

import portico
from portico.errors import ConfigurationError

from .asgi_kit import body, start
from .http_kit import browser


def living(log: list[Any], *, failing: str = "", supported: bool = True) -> Any:
    """An app with a lifespan that notes what happens."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "lifespan":
            log.append(scope["state"])
            scope["state"]["own"] = len(log)
            await start(send)
            return await body(send, b"ok")
        if not supported:
            raise KeyError("lifespan")
        assert scope["asgi"] == {"version": "3.0", "spec_version": "2.0"}
        scope["state"]["pool"] = log
        assert await receive() == {"type": "lifespan.startup"}
        log.append("startup")
        if failing == "startup":
            await send({"type": "lifespan.startup.failed", "message": "Traceback\n  line\nKeyError: no database"})
            raise KeyError("no database")
        await send({"type": "lifespan.startup.complete"})
        assert await receive() == {"type": "lifespan.shutdown"}
        log.append("shutdown")
        answer = "failed" if failing == "shutdown" else "complete"
        await send({"type": f"lifespan.shutdown.{answer}", "message": "no way"})

    return app


@scenario(EVERYWHERE)
async def test_the_lifespan_is_around_everything_and_each_scope_has_a_copy_of_the_state() -> None:
    log: list[Any] = []
    door = portico.Door()
    door.mount("/", living(log))
    for _ in range(2):  # a door may be served again
        service = portico.Service()
        service.listen("tcp://127.0.0.1:0", door).listen("tcp://127.0.0.1:0", door)
        async with portico.serve(service) as server:
            assert log == ["startup"]
            async with browser(server.address) as client:
                for _ in range(2):
                    assert (await client.ask("GET /")).body == b"ok"
            assert [set(each) for each in log[1:]] == [{"pool", "own"}, {"pool", "own"}]
            assert log[1]["pool"] is log and log[1]["own"] != log[2]["own"]
        assert log[3:] == ["shutdown"]
        log.clear()


@scenario()
async def test_an_app_that_cannot_start_keeps_the_server_from_starting() -> None:
    log: list[Any] = []
    other: list[Any] = []
    door = portico.Door()
    door.mount("/fine", living(other))
    door.mount("/api", living(log, failing="startup"))
    with pytest.raises(ConfigurationError) as caught:
        async with portico.serve(door, "tcp://127.0.0.1:0"):
            raise AssertionError("it has started")
    assert str(caught.value) == "the app mounted at /api did not start: KeyError: no database"
    assert caught.value.__notes__ == ["Traceback\n  line\nKeyError: no database"]
    assert other == ["startup", "shutdown"]


@scenario()
async def test_an_app_without_lifespan_is_fine() -> None:
    log: list[Any] = []
    door = portico.Door()
    door.mount("/", living(log, supported=False))
    async with portico.serve(door, "tcp://127.0.0.1:0") as server, browser(server.address) as client:
        assert (await client.ask("GET /")).body == b"ok"
    assert log == [{"own": 1}]


@scenario(errors=True)
async def test_a_shutdown_that_fails_is_logged(caplog: Any) -> None:
    door = portico.Door()
    door.mount("/", living([], failing="shutdown"))
    with caplog.at_level(logging.ERROR, "portico.web"):
        async with portico.serve(door, "tcp://127.0.0.1:0"):
            pass
    assert "the app mounted at / did not shut down well: no way" in caplog.text
