"""A real PostgreSQL server on this machine, for the tests alone."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from commands import PATIENCE, reserved_port

PLACES = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))  # where Debian installs them
PASSWORD = "se/cr?t #1"


@contextmanager
def postgres() -> Iterator[int]:
    """The server's port; user and database are named ofbnas, with PASSWORD."""
    initdb = str(PLACES[-1]) if PLACES else shutil.which("initdb")
    if initdb is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    user = {"user": "postgres"} if os.getuid() == 0 else {}  # it refuses to run as root
    folder = Path(tempfile.mkdtemp(prefix="ofbnas-postgres-"))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        port = stack.enter_context(reserved_port())
        (folder / "password").write_text(PASSWORD)
        if user:
            shutil.chown(folder, "postgres")
            shutil.chown(folder / "password", "postgres")
        made = [
            initdb,
            "-D",
            folder / "data",
            "-U",
            "ofbnas",
            "-A",
            "scram-sha-256",
            "--pwfile",
            folder / "password",
        ]
        subprocess.run(
            [*made, "-N", "-E", "UTF8"], check=True, capture_output=True, cwd=folder, **user
        )
        options = [
            "-D",
            folder / "data",
            "-p",
            str(port),
            "-h",
            "127.0.0.1",
            "-k",
            folder,
            "-c",
            "fsync=off",
        ]
        command = [Path(initdb).with_name("postgres"), *options]
        with subprocess.Popen(
            command, stderr=subprocess.PIPE, cwd=folder, text=True, **user
        ) as server:
            try:
                for line in server.stderr:
                    if "ready to accept connections" in line:
                        break
                else:
                    pytest.fail("PostgreSQL did not start")
                create = [
                    Path(initdb).with_name("createdb"),
                    "-h",
                    "127.0.0.1",
                    "-p",
                    str(port),
                    "-U",
                    "ofbnas",
                    "ofbnas",
                ]
                subprocess.run(
                    create,
                    check=True,
                    env=os.environ | {"PGPASSWORD": PASSWORD},
                    capture_output=True,
                )
                yield port
            finally:
                server.send_signal(
                    signal.SIGINT
                )  # PostgreSQL's fast shutdown, even with open connections
                server.communicate(timeout=PATIENCE)
