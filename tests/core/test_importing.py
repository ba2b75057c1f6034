"""What importing Portico does to others: nothing."""

import subprocess
import sys

CODE = """
import portico, asyncio
async def main():
    return asyncio.current_task()
assert asyncio.run(main()) is not None
"""


def test_asyncio_is_whole_when_portico_was_imported_first() -> None:
    assert subprocess.run([sys.executable, "-c", CODE], timeout=20, check=False).returncode == 0
