"""Programs that others wrote, which tests talk to."""

import os
import shutil

import pytest


def need_program(name: str) -> str:
    """Return the path of a program; without it the test is skipped, or fails if PORTICO_REQUIRE_PEERS is set."""
    found = shutil.which(name)
    if found is None:
        (pytest.fail if os.environ.get("PORTICO_REQUIRE_PEERS") else pytest.skip)(f"{name} is not installed")
    return found
