"""The command line as a process, and what tests that start processes need."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from pathlib import Path

OFBNAS = Path(sys.executable).parent / "ofbnas"
PATIENCE = 900  # seconds after which a test calls a process hung; no limit on how slow a machine may be


def ofbnas(*args, cwd=None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [OFBNAS, *map(str, args)], cwd=cwd, capture_output=True, text=True, check=False, timeout=PATIENCE
    )


def free_port(host: str = "127.0.0.1") -> int:
    with socket.socket() as found:
        found.bind((host, 0))
        return found.getsockname()[1]


def wait(condition) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def processes(word: str, ancestor: int | None = None) -> list[int]:
    """Processes with a word in their command line, descending from an ancestor where one is given."""
    parents, found = {}, []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            pid, line = int(folder.name), (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
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
