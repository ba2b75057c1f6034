"""Builds the native core; everything else is in pyproject.toml."""

import sys

from Cython.Build import cythonize
from setuptools import Extension, setup

ROOMS = ["timers", "hub", "queue", "codec", "wire", "memory", "loopwire", "secure", "sender", "connection", "channel"]
ROOMS += ["stream", "packets", "datagrams", "loopport", "frames", "spares", "frame_reader", "pieces", "websocket"]
if sys.platform == "linux":
    ROOMS += ["control", "epoll", "epollport"]
FLAGS = [] if sys.platform == "win32" else ["-O2", "-fno-strict-aliasing"]

setup(
    ext_modules=cythonize(
        [
            Extension(
                f"portico._core.{room}",
                [f"src/portico/_core/{room}.pyx"],
                include_dirs=["src/portico/_core"],
                extra_compile_args=FLAGS,
            )
            for room in ROOMS
        ],
        language_level=3,
        build_dir="build/cython",
    )
)
