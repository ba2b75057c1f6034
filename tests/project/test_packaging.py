"""The source distribution builds a wheel in isolation, and the wheel works where nothing else of the project is."""

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(*command: object, cwd: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run([str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build from a clean copy of what git knows: first the sdist, then the wheel from it alone."""
    folder = tmp_path_factory.mktemp("built")
    copy = folder / "copy"
    copy.mkdir()
    files = run("git", "ls-files", "--cached", "--others", "--exclude-standard", cwd=ROOT).splitlines()
    for name in files:
        if (ROOT / name).is_file():
            target = copy / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((ROOT / name).read_bytes())
    run(sys.executable, "-m", "build", "--outdir", folder / "dist", copy, cwd=folder)
    return folder / "dist"


def test_the_sdist_has_what_the_build_needs(built: Path) -> None:
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        names = {name.partition("/")[2] for name in tar.getnames()}
    for needed in ("src/portico/_core/hub.pyx", "src/portico/_core/hub.pxd", "src/portico/_core/native.h", "setup.py"):
        assert needed in names
    assert not any(name.endswith((".so", ".c")) for name in names)


def test_the_wheel_has_stubs_and_no_sources_of_c(built: Path) -> None:
    (archive,) = built.glob("*.whl")
    with zipfile.ZipFile(archive) as wheel:
        names = wheel.namelist()
    assert "portico/py.typed" in names and "portico/_core/hub.pyi" in names
    assert not any(name.endswith(".c") or name.startswith("tests") for name in names)


def test_the_wheel_serves_in_a_new_environment_without_the_extras(built: Path, tmp_path: Path) -> None:
    (wheel,) = built.glob("*.whl")
    run(sys.executable, "-m", "venv", "new", cwd=tmp_path)
    python = tmp_path / "new/bin/python"
    run(python, "-m", "pip", "install", "--quiet", wheel, cwd=tmp_path)
    code = """
import asyncio, portico
async def echo(channel):
    async for line in channel:
        await channel.send(line)
async def main():
    async with portico.serve(echo, "tcp://127.0.0.1:0", codec=portico.Lines()) as server:
        async with portico.connect(server.address, codec=portico.Lines()) as channel:
            await channel.send("it works")
            print(await channel.recv())
asyncio.run(main())
"""
    assert run(python, "-W", "error", "-c", code, cwd=tmp_path) == "it works\n"
    command = subprocess.run([tmp_path / "new/bin/portico", "--help"], capture_output=True, text=True)
    assert command.returncode == 2
    assert "pip install 'portico[cli]'" in command.stderr and "Traceback" not in command.stderr
