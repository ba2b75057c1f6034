"""What a test must not leave behind."""

import contextlib
import os


def descriptors() -> dict[str, str]:
    """Return every open descriptor of this process with what it leads to (proc(5))."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the one that lists the directory
            found[name] = os.readlink(f"/proc/self/fd/{name}")
    return found


def opened_since(before: dict[str, str]) -> dict[str, str]:
    """Return the descriptors that `before` has not, or that led elsewhere then."""
    return {name: target for name, target in descriptors().items() if before.get(name) != target}
