"""Each test of the blocking face ends without its thread, and without a descriptor."""

import gc
import threading
from collections.abc import Iterator

import pytest
from leaks import descriptors
from server.support import ErrorRecords, leftovers

from portico import blocking
from portico.transports import resolve as resolving


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    gc.collect()
    threads, files = set(threading.enumerate()), descriptors()
    with ErrorRecords() as logged:
        yield
        blocking.shutdown()
    if resolving._default is not None:
        resolving._default.close()
    gc.collect()
    for thread in set(threading.enumerate()) - threads:
        thread.join(5)
    assert set(threading.enumerate()) <= threads, "threads left"
    assert not leftovers(files), f"descriptors left: {leftovers(files)}"
    assert not logged.records, [record.getMessage() for record in logged.records]
