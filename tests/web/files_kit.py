"""What the tests of `door.files` share: a site, and a door to it."""

import os
from pathlib import Path

import pytest
from leaks import descriptors

from portico.web import files
from portico.web.door import Door
from portico.web.files import SMALL

TEN = b"0123456789"
LONG_AGO = 1_000_000_000
MODIFIED, BEFORE, AFTER = (f"Sun, 09 Sep 2001 01:46:{second} GMT" for second in (40, 39, 41))
ETAG = f'"{LONG_AGO * 10**9:x}-a"'
BIG = os.urandom(3 * SMALL + 17)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A site of which nothing but `public` may be seen."""
    site = tmp_path / "site"
    (site / "sub").mkdir(parents=True)
    for name, content in {"ten.txt": TEN, "empty.bin": b"", "index.html": b"<p>", "sub/index.html": b"sub"}.items():
        (site / name).write_bytes(content)
    (site / "big.bin").write_bytes(BIG)
    os.utime(site / "ten.txt", (LONG_AGO, LONG_AGO))
    os.utime(site / "big.bin", (LONG_AGO, LONG_AGO))
    return site


def door_of(folder: Path, path: str = "/s", **settings: object) -> Door:
    door = Door()
    door.files(path, folder, **settings)  # type: ignore[arg-type]
    return door


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep small files in memory though they are new."""
    monkeypatch.setattr(files, "SETTLED", -60.0)


def opened(folder: Path) -> list[str]:
    return [target for target in descriptors().values() if target.startswith(str(folder))]
