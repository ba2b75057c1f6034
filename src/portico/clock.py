"""Time and chance as one small object, so that a test can hold both in its hand."""

import time
from typing import Protocol

__all__ = ["Clock", "SystemClock"]


class Clock(Protocol):
    """Where delays and jitter come from."""

    def now(self) -> float:
        """Seconds on a clock that never goes back; only differences mean something."""
        ...

    def random(self) -> float:
        """A number from 0.0 up to, but not, 1.0."""
        ...


class SystemClock:
    """The clock and the randomness of this machine."""

    __slots__ = ()

    def now(self) -> float:
        return time.monotonic()

    def random(self) -> float:
        import random  # it takes long, and only a retry needs it

        return random.random()
