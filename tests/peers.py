"""Programs that others wrote, which tests talk to."""

import os
import shutil
from typing import NoReturn

import pytest


def missing(what: str) -> NoReturn:
    """Skip the test, as this machine has not what it needs; fail it if PORTICO_REQUIRE_PEERS is set."""
    (pytest.fail if os.environ.get("PORTICO_REQUIRE_PEERS") else pytest.skip)(what)


def need_program(name: str) -> str:
    """Return the path of a program; without it the test is skipped, or fails if PORTICO_REQUIRE_PEERS is set."""
    found = shutil.which(name)
    if found is None:
        missing(f"{name} is not installed")
    return found


def nginx_settings(http: str) -> str:
    """Return settings of nginx, to be formatted: `http` in its block, and all that it writes within `folder`."""
    return f"""
daemon off;
master_process off;
pid {{folder}}/pid;
error_log {{folder}}/error.log;
events {{{{ }}}}
http {{{{
    access_log off;
    client_body_temp_path {{folder}}/body;
    proxy_temp_path {{folder}}/proxy;
    fastcgi_temp_path {{folder}}/fastcgi;
    uwsgi_temp_path {{folder}}/uwsgi;
    scgi_temp_path {{folder}}/scgi;
    {http}
}}}}
"""
