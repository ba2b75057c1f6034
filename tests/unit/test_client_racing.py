import asyncio

import pytest
from client_kit import on_both_loops, wait_until

from portico.address import Address
from portico.client.racing import ATTEMPT_DELAY, interleaved, race

SIX = [Address("tcp", f"2001:db8::{n}", 80) for n in (1, 2, 3)]
FOUR = [Address("tcp", f"192.0.2.{n}", 80) for n in (1, 2)]


class Runners:
    """Attempts that end when the test says so."""

    def __init__(self) -> None:
        self.started: list[Address] = []
        self.cancelled: list[Address] = []
        self.discarded: list[str] = []
        self.ends: dict[Address, asyncio.Future[str]] = {}

    async def attempt(self, address: Address) -> str:
        self.started.append(address)
        end = self.ends.setdefault(address, asyncio.get_running_loop().create_future())
        try:
            return await end
        except asyncio.CancelledError:
            self.cancelled.append(address)
            raise

    def end(self, address: Address, result: str | BaseException) -> None:
        end = self.ends.setdefault(address, asyncio.get_running_loop().create_future())
        if isinstance(result, BaseException):
            end.set_exception(result)
        else:
            end.set_result(result)

    def race(self, addresses: list[Address], delay: float | None) -> "asyncio.Task[tuple[Address, str]]":
        running = race(addresses, self.attempt, discard=self.discarded.append, delay=delay)
        return asyncio.ensure_future(running)


def test_the_families_take_turns_and_the_first_begins() -> None:
    assert interleaved([*SIX, *FOUR]) == [SIX[0], FOUR[0], SIX[1], FOUR[1], SIX[2]]
    assert interleaved([FOUR[0], *SIX, FOUR[1]]) == [FOUR[0], SIX[0], FOUR[1], SIX[1], SIX[2]]
    assert interleaved(FOUR) == FOUR
    assert interleaved([]) == []


def test_the_delay_is_that_of_the_rfc() -> None:
    assert ATTEMPT_DELAY == 0.25


@on_both_loops
async def test_the_next_address_is_tried_after_the_delay_beside_the_first() -> None:
    runners = Runners()
    begun = asyncio.get_running_loop().time()
    running = runners.race(SIX, 0.03)
    await wait_until(lambda: len(runners.started) == 2)
    assert asyncio.get_running_loop().time() - begun >= 0.029
    runners.end(SIX[0], "first")
    assert await running == (SIX[0], "first")
    assert runners.cancelled == [SIX[1]]
    assert runners.started == SIX[:2]


@on_both_loops
async def test_the_next_address_is_tried_at_once_when_one_fails() -> None:
    runners = Runners()
    running = runners.race(SIX, 1000.0)
    await wait_until(lambda: runners.started == SIX[:1])
    runners.end(SIX[0], ConnectionRefusedError())
    await wait_until(lambda: runners.started == SIX[:2])
    runners.end(SIX[1], "second")
    assert await running == (SIX[1], "second")
    assert runners.started == SIX[:2]


@on_both_loops
async def test_a_later_attempt_may_win() -> None:
    runners = Runners()
    running = runners.race(SIX, 0.001)
    await wait_until(lambda: len(runners.started) == 3)
    runners.end(SIX[2], "third")
    assert await running == (SIX[2], "third")
    assert set(runners.cancelled) == {SIX[0], SIX[1]}


@on_both_loops
async def test_of_two_that_succeed_at_once_the_loser_is_discarded() -> None:
    runners = Runners()
    running = runners.race(SIX[:2], 0.001)
    await wait_until(lambda: len(runners.started) == 2)
    runners.end(SIX[1], "second")
    runners.end(SIX[0], "first")
    _, won = await running
    assert {won, *runners.discarded} == {"first", "second"}
    assert len(runners.discarded) == 1


@on_both_loops
async def test_the_last_failure_is_raised_when_all_fail() -> None:
    runners = Runners()
    for address in SIX:
        runners.end(address, ConnectionRefusedError(address.host))
    with pytest.raises(ConnectionRefusedError, match="2001:db8::3"):
        await runners.race(SIX, 1000.0)
    assert runners.started == SIX


@on_both_loops
async def test_an_error_that_is_no_network_error_ends_the_race() -> None:
    runners = Runners()
    running = runners.race(SIX, 0.001)
    await wait_until(lambda: len(runners.started) == 3)
    runners.end(SIX[1], KeyError("a bug"))
    with pytest.raises(KeyError):
        await running
    assert set(runners.cancelled) == {SIX[0], SIX[2]}


@on_both_loops
async def test_a_cancelled_race_cancels_all_and_discards_what_was_just_won() -> None:
    runners = Runners()
    running = runners.race(SIX, 0.001)
    await wait_until(lambda: len(runners.started) == 3)
    runners.end(SIX[1], "second")
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await wait_until(lambda: runners.discarded)
    assert runners.discarded == ["second"]
    assert set(runners.cancelled) == {SIX[0], SIX[2]}


@on_both_loops
async def test_without_a_delay_only_one_address_is_tried_at_a_time() -> None:
    runners = Runners()
    running = runners.race(SIX[:2], None)
    await asyncio.sleep(0.02)
    assert runners.started == SIX[:1]
    runners.end(SIX[0], ConnectionRefusedError())
    runners.end(SIX[1], "second")
    assert await running == (SIX[1], "second")


@on_both_loops
async def test_no_address_is_an_error_of_the_caller() -> None:
    with pytest.raises(ValueError, match="no address"):
        await Runners().race([], 0.001)
