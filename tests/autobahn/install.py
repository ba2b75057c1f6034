"""Installs the Autobahn test suite, which needs Python 2.7, into an environment of its own."""

import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

SUITE = "autobahntestsuite==25.10.1"
VIRTUALENV = "virtualenv<20.22"
"""The last ones that make environments for Python 2.7."""
INSTALL_TIME = 600.0
"""Seconds for one step of the installation."""


class Missing(Exception):
    """The suite cannot be installed; the text says in one line what is missing."""


def install(folder: Path) -> Path:
    """Return the Python of an environment below `folder` that has the suite; it is made where there is none yet.

    :raises Missing: there is no Python 2.7, or a package cannot be had."""
    with _alone(folder):
        ready = folder / "ready"
        python = folder / "suite/bin/python"
        if not (ready.is_file() and ready.read_text() == SUITE and python.exists()):
            _install(folder, find_python2(), python)
            ready.write_text(SUITE)
        return python


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep others who install into `folder` waiting."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _install(folder: Path, old: Path, python: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    print(f"installing {SUITE} for Python 2.7 (a minute, once) ...", flush=True)
    tools = folder / "tools/bin"
    _run(sys.executable, "-m", "venv", folder / "tools")
    _run(tools / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", VIRTUALENV)
    _run(tools / "virtualenv", "--quiet", "--python", old, folder / "suite")
    _run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", SUITE)
    _run(python, "-c", "import autobahntestsuite")


def find_python2() -> Path:
    """Return a Python 2.7 that works: `python2.7` of the path, or the newest of pyenv.

    :raises Missing: there is none."""
    found = [Path(each) for each in [shutil.which("python2.7")] if each]
    if shutil.which("pyenv"):
        root = Path(subprocess.run(["pyenv", "root"], capture_output=True, text=True, check=False).stdout.strip())
        found += sorted(root.glob("versions/2.7.*/bin/python2.7"), reverse=True)
    for python in found:
        if subprocess.run([python, "-c", ""], capture_output=True, check=False).returncode == 0:
            return python
    raise Missing("the Autobahn test suite needs Python 2.7; install one, such as with: pyenv install 2.7.18")


def _run(*command: object) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    words = [str(word) for word in command]
    try:
        done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=INSTALL_TIME, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Missing(f"{Path(words[0]).name} did not work: {error}") from error
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip() or "no reason told").splitlines()[-1]
        raise Missing(f"{Path(words[0]).name} {' '.join(words[1:])} failed: {last}")
