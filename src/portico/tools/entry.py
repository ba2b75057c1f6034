"""Where the command begins: `portico`, or `python -m portico.tools.entry`. Imports nothing heavy."""

import contextlib
import importlib.util
import os
import sys

NEEDED = ("typer", "rich")

MISSING = "portico: the command needs the packages of the extra 'cli'; install them with: pip install 'portico[cli]'"


def main() -> int:
    """Run the command and return its exit code."""
    _open_standard_descriptors()
    if any(importlib.util.find_spec(name) is None for name in NEEDED):
        print(MISSING, file=sys.stderr)
        return 2
    from portico.tools import cli

    code = cli.main(sys.argv[1:])
    with contextlib.suppress(OSError):  # whoever read the output has gone, which was told already
        sys.stdout.flush()
    return code


def _open_standard_descriptors() -> None:
    """Open what was closed (`portico ... <&-`): else the first socket would become standard input."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number, which is this one
    for name, descriptor, mode in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(descriptor, mode, closefd=False))  # noqa: SIM115 - for as long as the program runs


if __name__ == "__main__":
    sys.exit(main())
