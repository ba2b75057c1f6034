"""The fuzzing side of the Autobahn test suite; runs on Python 2.7, within the suite's own environment.

`python fuzzer.py fuzzingclient|fuzzingserver SPECIFICATION` does what `wstest -m ... -s ...` does, but a server listens
on 127.0.0.1 alone, on a port that the system chooses. It prints one line of JSON: the port and the cases to be run.
"""

import json
import socket
import sys

from autobahntestsuite import wstest  # first, as it chooses the reactor  # isort: skip
from autobahntestsuite.case import CaseBasename, CaseCategories, Cases, CaseSetname, CaseSubCategories
from autobahntestsuite.caseset import CaseSet
from twisted.internet import reactor


def listen():
    """Let the suite's server take a socket of ours whatever port it asks for; return the one that this has."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.bind(("127.0.0.1", 0))
    sock.listen(50)
    sock.setblocking(False)
    reactor.listenTCP = lambda port, factory, *_, **__: reactor.adoptStreamPort(sock.fileno(), socket.AF_INET, factory)
    return sock.getsockname()[1]


def main(mode, path):
    """Run the cases of the specification at `path`."""
    with open(path) as file:
        specification = json.load(file)
    port = None
    if mode == "fuzzingserver":
        port = listen()
        specification["url"] = "ws://127.0.0.1:" + str(port)
    cases = CaseSet(CaseSetname, CaseBasename, Cases, CaseCategories, CaseSubCategories).parseSpecCases(specification)
    sys.stdout.write(json.dumps({"port": port, "cases": cases}) + "\n")
    sys.stdout.flush()
    sys.stdout = sys.stderr  # what the suite tells goes to the log
    wstest.start({"mode": mode, "webport": 0, "debug": False}, specification)


if __name__ == "__main__":
    main(*sys.argv[1:])
