"""What commands have in common: parameters, and how their help is written."""

from collections.abc import Sequence
from typing import Annotated

import typer

from portico.tools.report import WRONG, Stop

asked_for_debug: list[bool] = []
"""Not empty once `--debug` was given, wherever on the line."""


def debug_wanted(wanted: bool) -> None:
    """Take note of `--debug`."""
    if wanted:
        asked_for_debug.append(True)


def not_negative(value: float) -> float:
    """Let numbers from 0 on pass.

    :raises typer.BadParameter: it is less."""
    if not value >= 0:
        raise typer.BadParameter(f"{value:g} is less than 0")
    return value


def header_field(text: str) -> tuple[str, str]:
    """Return name and value of a `--header`.

    :raises Stop: it has none"""
    name, colon, value = text.partition(":")
    if not colon:
        raise Stop(f"--header {text!r} has no colon", WRONG, "write it as 'Name: value'")
    return name.strip(), value.strip()


def help_text(*paragraphs: str, examples: Sequence[str] = ()) -> str:
    """Return the text of a command's help: line breaks are kept, so each paragraph is one line."""
    shown = ["Examples:\n" + "\n".join(f"  [bold]{each}[/bold]" for each in examples)] if examples else []
    return "\n\n".join([*(" ".join(text.split()) for text in paragraphs), *shown])


Debug = Annotated[
    bool, typer.Option("--debug", metavar="", callback=debug_wanted, is_eager=True, help="Show tracebacks.")
]
