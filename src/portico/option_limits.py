"""What the kernel's settings (sysctl) say about a socket option: its default and its maximum."""

import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from portico.option_row import Option, Sysctl, in_scope
from portico.options import find_option

__all__ = ["KernelLimits", "kernel_limits"]

SETTINGS: Final = Path("/proc/sys")


@dataclass(frozen=True, slots=True)
class KernelLimits:
    """What the kernel's settings say about an option; None where there is no such setting, or it cannot be read.

    :ivar default: the value of a new socket, in the option's unit.
    :ivar maximum: the most that a program without privileges gets, in the option's unit; more is cut to it.
    :ivar default_setting: where the default comes from, such as "net.ipv4.tcp_rmem", or "".
    :ivar maximum_setting: where the maximum comes from, or "".
    """

    default: int | str | None = None
    maximum: int | str | None = None
    default_setting: str = ""
    maximum_setting: str = ""


def kernel_limits(name: str, sock: socket.socket | None = None) -> KernelLimits:
    """Return what the settings of this machine's kernel, or of this network namespace, say about the option `name`.

    :param sock: the socket that it is about, as TCP has settings of its own; without one, those for all sockets count
        where there are any.
    :raises ConfigurationError: if there is no such option."""
    option = find_option(name)
    default, maximum = _setting(option, "default", sock), _setting(option, "maximum", sock)
    return KernelLimits(
        _read(default), _read(maximum), default.name if default else "", maximum.name if maximum else ""
    )


def _setting(option: Option, role: str, sock: socket.socket | None) -> Sysctl | None:
    found = [
        each
        for each in option.sysctls
        if each.role == role and (each.scope == "any" if sock is None else in_scope(each.scope, sock))
    ]
    return found[-1] if found else None


def _read(setting: Sysctl | None) -> int | str | None:
    if setting is None:
        return None
    try:
        words = SETTINGS.joinpath(*setting.name.split(".")).read_text().split()
    except OSError:
        return None
    if setting.column is not None:
        words = words[setting.column : setting.column + 1]
    text = " ".join(words)
    return int(text) if text.lstrip("-").isdigit() else text
