"""The command line, and helpers of tests that start processes."""

from __future__ import annotations

import io
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import chdir, contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from unittest.mock import patch

from ofbnas.cli import main

OFBNAS = Path(sys.executable).parent / "ofbnas"
PATIENCE = 900  # seconds after which a process counts as hung, even on a slow machine


def process(*args, **kwargs) -> subprocess.CompletedProcess[str]:
    """A command as a process of its own."""
    words = [OFBNAS, *map(str, args)]
    return subprocess.run(
        words, capture_output=True, text=True, check=False, timeout=PATIENCE, **kwargs
    )


def ofbnas(*args, cwd: Path | str = ".") -> subprocess.CompletedProcess[str]:
    """A command within this process, which has already imported what takes a new process seconds."""
    words = ["ofbnas", *map(str, args)]
    out, err, code = io.StringIO(), io.StringIO(), 0
    # A command may set variables for Ray, which later commands must not inherit.
    variables = patch.dict(os.environ)
    arguments = patch.object(sys, "argv", words)
    with chdir(cwd), redirect_stdout(out), redirect_stderr(err), arguments, variables:
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
    return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())


@contextmanager
def reserved_port(host: str = "127.0.0.1") -> Iterator[int]:
    """A free port that the system gives to nobody else until the block ends.

    A server may listen on it all the same: Linux lets two sockets with SO_REUSEADDR have one port as
    long as only one of them listens.
    """
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind((host, 0))
        yield held.getsockname()[1]


def wait(condition) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def processes(word: str, ancestor: int | None = None) -> list[int]:
    """Processes with a word in their command line, below an ancestor if one is given."""
    parents, found = {}, []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            pid, line = (
                int(folder.name),
                (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(),
            )
            parents[pid] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            continue
        if word in line:
            found.append(pid)

    def descends(pid: int) -> bool:
        while pid and pid != ancestor:
            pid = parents.get(pid, 0)
        return pid == ancestor

    return [pid for pid in found if ancestor is None or descends(pid)]
