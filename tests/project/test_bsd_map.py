"""Every row of docs/from-bsd-sockets.md is run, with both faces, and gives what the page says."""

import socket
import sys

import pytest

import portico
from portico import blocking
from portico.options import OPTIONS

from . import bsd_map

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the page speaks of Linux")
