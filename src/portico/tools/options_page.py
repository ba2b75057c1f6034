"""The documentation page of the socket options, made of the table: `portico options --markdown > docs/options.md`."""

from collections.abc import Iterator
from itertools import groupby

from portico.option_row import Option, describe_scope
from portico.options import OPTIONS

HEAD = """\
# Socket options

<!-- Made from the table of options; to make it again: portico options --markdown > docs/options.md -->

Every option has a name. `connection.options` reads and sets those of a live socket; `options=` sets them before
connecting, listening or binding:

```python
connection.options.receive_buffer = 1 << 20
print(connection.options.receive_buffer)
connection.options["mtu_discover"] = "do"
await portico.connect("example.org:80", options={"keepalive": True, "keepalive_idle": 30})
```

- Nothing is remembered: each read asks the kernel, each assignment tells it. So what the kernel made of a value can
  be read back. `receive_buffer` and `send_buffer` read back as **twice** what was asked for, as Linux adds room for
  its own bookkeeping, and before that it cuts the value to the maximum (`net.core.rmem_max`, `net.core.wmem_max`);
  the `_force` forms are not cut, and need a privilege.
- A value of the wrong type or out of range raises `ConfigurationError` before the kernel sees it; so does a value
  that the kernel refuses, and the message names the privilege that is missing. An option that this platform or this
  kernel lacks raises `UnsupportedError`. Each is one line.
- `dict(connection.options)` has those that can be read just now. Options whose reading changes something are left
  out there: {unlisted}.
- `portico options` prints the values of a new socket, `portico options ADDRESS` those of a socket for that address,
  with the default and the maximum that the kernel's settings give.

In the tables, *number* is level and number as setsockopt(2) takes them on Linux. *Since* names the systems that
have the option, and the first version of Linux; `any` is every platform. *Setting* says who may set it: anyone,
nobody (it can only be read), or who has a capability, which root has.

Not here: joining and leaving multicast groups, which are calls of `Datagrams`; `SO_RCVTIMEO` and `SO_SNDTIMEO`, as
no socket here blocks and every call takes a timeout; filters (`SO_ATTACH_FILTER`, `SO_ATTACH_BPF`), packet rings,
`TCP_MD5SIG`, `TCP_REPAIR` and `TCP_ULP`, which take structures or several steps; `SO_PASSPIDFD` and `SO_PEERPIDFD`,
which make descriptors. For those there is `connection.socket`. What `tcp_info` holds is in fields in
`connection.info()`.
"""

COLUMNS = ("name", "constant", "number", "value", "sockets", "setting", "since", "kernel settings", "what it does")


def page() -> str:
    """Return the page, in Markdown."""
    unlisted = ", ".join(f"`{option.name}`" for option in OPTIONS.values() if not option.listed)
    parts = [HEAD.replace("{unlisted}", unlisted)]
    for heading, rows in groupby(OPTIONS.values(), lambda option: option.page):
        parts += [f"\n## {heading}\n", _line(COLUMNS), _line(["---"] * len(COLUMNS))]
        parts += [_line(_cells(option)) for option in rows]
    return "\n".join(parts) + "\n"


def who_sets(option: Option) -> str:
    """Say who may set it."""
    return (option.privilege or "anyone") if option.settable else "nobody"


def value_text(option: Option) -> str:
    """Say what values it takes, with their unit and range."""
    kind = option.kind
    also = " or None" if option.none is not None or kind in ("linger", "ports") else ""
    if kind in ("enum", "flags"):
        names = ", ".join(name for name, _ in option.choices)
        return f"one of {names}" if kind == "enum" else f"names of {names}"
    if kind in ("bool", "interface", "address"):
        return {"bool": "bool", "interface": "interface", "address": "IPv4 address or interface"}[kind]
    if kind in ("str", "bytes"):
        return f"{kind}, {option.maximum} at most"
    if kind == "numbers":
        return "numbers" if option.layout.endswith("*") else f"{_count(option.layout)} numbers"
    if kind == "ports":
        return f"pair of ports{also}"
    unit = f" {option.unit}" if option.unit else ""
    if not option.settable:
        return f"int{unit}"
    return f"{option.minimum} to {_short(option.maximum)}{unit}{also}"


def _count(layout: str) -> int:
    digits = layout.rstrip("iIQ")
    return int(digits) if digits else len(layout)


def _short(number: int) -> str:
    for bits in (31, 32, 64):
        if number == 2**bits - 1:
            return f"2^{bits} - 1"
    return "2^64 - 2" if number == 2**64 - 2 else str(number)


def _cells(option: Option) -> Iterator[str]:
    yield f"`{option.name}`"
    yield f"`{option.constant}`"
    yield f"{option.level}, {option.number}"
    yield value_text(option)
    yield describe_scope(option.scope)
    yield who_sets(option) + ("" if option.readable else "; only to be set")
    yield option.platform
    yield "<br>".join(
        f"{each.role} `{each.name}`" + (f" ({describe_scope(each.scope)})" if each.scope != "any" else "")
        for each in option.sysctls
    )
    yield option.doc


def _line(cells: "Iterator[str] | list[str] | tuple[str, ...]") -> str:
    return "| " + " | ".join(cells) + " |"
