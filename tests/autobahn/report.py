"""What a run of the suite shows: the table of its groups, the cases that are not simply OK, the files that are kept."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from parts import Result

Results = Mapping[str, Mapping[str, Result]]
"""How each case went, by column: "server", "client, takeover"."""

GROUPS = {
    "1": "framing",
    "2": "pings and pongs",
    "3": "reserved bits",
    "4": "opcodes",
    "5": "fragmentation",
    "6": "UTF-8",
    "7": "closing",
    "9": "limits, performance",
    "10": "auto-fragmentation",
    "12": "compression, kinds of data",
    "13": "compression, parameters",
}
COLUMNS = ("OK", "NON-STRICT", "INFORMATIONAL", "UNIMPLEMENTED", "FAILED")
FINE = {"OK", "NON-STRICT", "INFORMATIONAL"}
BEGIN, END = "<!-- results -->", "<!-- end of results -->"


def order(case: str) -> list[int]:
    """The place of a case among others."""
    return [int(number) for number in case.split(".")]


def failures(results: Results) -> int:
    """How many cases went wrong; judged are both the messages and how the connection closed."""
    return sum(not {row.behavior, row.close} <= FINE for column in results.values() for row in column.values())


def table(results: Results) -> list[str]:
    """The lines of a Markdown table, a row for each group. Messages and close are judged apart, as the suite does."""
    rows = [("Portico as", "group", "what", "cases", *COLUMNS, *(f"close {word}" for word in COLUMNS))]
    for name, column in results.items():
        for group in sorted({case.split(".")[0] for case in column}, key=int):
            rows.append((name, group, GROUPS[group], *_numbers(_of(column, group))))
        rows.append((name, "all", "", *_numbers(list(column.values()))))
    return _aligned(_without_empty(rows))


def _of(column: Mapping[str, Result], group: str) -> list[Result]:
    return [row for case, row in column.items() if case.split(".")[0] == group]


def _numbers(rows: list[Result]) -> list[str]:
    """The number of cases, and how many behaved how; a word of the suite that is no column is a failure."""
    behavior = Counter(row.behavior if row.behavior in COLUMNS else "FAILED" for row in rows)
    close = Counter(row.close if row.close in COLUMNS else "FAILED" for row in rows)
    return [str(len(rows)), *(str(behavior[word]) for word in COLUMNS), *(str(close[word]) for word in COLUMNS)]


def _without_empty(rows: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Leave out the columns that are 0 everywhere, but for OK and FAILED."""
    kept = [
        number
        for number, title in enumerate(rows[0])
        if number < 4 or title.endswith(("OK", "FAILED")) or any(row[number] != "0" for row in rows[1:])
    ]
    return [tuple(row[number] for number in kept) for row in rows]


def _aligned(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[number]) for row in rows) for number in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if number in (0, 2) else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append(f"| {' | '.join(cells)} |")
    rule = ["-" * width if number in (0, 2) else "-" * (width - 1) + ":" for number, width in enumerate(widths)]
    return [lines[0], f"| {' | '.join(rule)} |", *lines[1:]]


def others(results: Results) -> Iterable[str]:
    """A line for each case that is not simply OK."""
    for name, column in results.items():
        for case in sorted(column, key=order):
            row = column[case]
            if (row.behavior, row.close) != ("OK", "OK"):
                yield f"{name} {case}: {row.behavior}, close {row.close}: {row.told}"


def keep(results: Results, versions: Mapping[str, str], folder: Path) -> None:
    """Write autobahn.json into `folder`, and the table into its README.md, between two marks."""
    (folder / "autobahn.json").write_text(_json(results, versions))
    readme = folder / "README.md"
    before, begin, rest = readme.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{readme.name} has lost its marks {BEGIN} and {END}; put them back where the table belongs")
    told = ", ".join(f"{name} {version}" for name, version in versions.items())
    lines = [BEGIN, f"With {told}:", "", *table(results), END]
    readme.write_text(before + "\n".join(lines) + after)


def _json(results: Results, versions: Mapping[str, str]) -> str:
    """Case → behaviour, the cases of one second number on a line; that of the close is told where it differs."""
    lines = [f' "versions": {json.dumps(dict(versions))}']
    for name, column in results.items():
        cases: dict[str, list[str]] = {}
        for case in sorted(column, key=order):
            row = column[case]
            said = row.behavior if row.behavior == row.close else f"{row.behavior}, close {row.close}"
            cases.setdefault(".".join(case.split(".")[:2]), []).append(f"{json.dumps(case)}: {json.dumps(said)}")
        text = ",\n  ".join(", ".join(each) for each in cases.values())
        lines.append(f" {json.dumps(name)}: {{\n  {text}\n }}")
    return "{\n" + ",\n".join(lines) + "\n}\n"
