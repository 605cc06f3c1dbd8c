"""How long `ofbnas study run` takes to the first epoch of a first trial, and what it waits for.

    python benchmarks/first_epoch.py [--runs 3] [--study studies/digits.yaml]

For each run: wall time and processor time of all its processes, when each of these has happened first. The parent is
trained in the first run, and cached for the others. Other programs on the same processors lengthen the wall time; the
load before a run says whether there are any.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

LIMIT = 600.0  # seconds


def happened(driver: psutil.Process, out: Path) -> set[str]:
    """What has happened in a run so far."""
    log = out / "study.log"
    text = log.read_text() if log.is_file() else ""
    commands = [" ".join(process.cmdline()) for process in alive(driver)]
    signs = {
        "Ray's node runs": any("raylet/raylet" in command for command in commands),
        "Ray's processes for trials run": any("ray::IDLE" in command for command in commands),
        "the modules are imported": log.is_file(),
        "the parent is ready": " parent " in text,
        "a trial runs": " runs on " in text,
        "its first epoch is over": any(out.glob("checkpoints/*/search.pt")),
    }
    return {sign for sign, seen in signs.items() if seen}


def alive(driver: psutil.Process) -> list[psutil.Process]:
    """The driver and its descendants."""
    return [
        process
        for process in [driver, *driver.children(recursive=True)]
        if process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    ]


def watch(study: str, place: Path) -> None:
    """Run a study until a first epoch is over, and print when what happened."""
    out = place / "study"
    print(f"load {os.getloadavg()[0]:.1f}")
    begin = time.monotonic()
    command = [sys.executable, "-m", "ofbnas", "study", "run", study, "--output", str(out)]
    environment = os.environ | {"OFBNAS_CACHE": str(place.parent / "cache")}
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as started:
        driver = psutil.Process(started.pid)
        seconds: dict[int, float] = {}  # of processor time, by process
        seen: set[str] = set()
        while "its first epoch is over" not in seen:
            if started.poll() is not None or time.monotonic() - begin > LIMIT:
                raise SystemExit(f"{study}: ended, or took too long, before a first epoch")
            try:
                for process in alive(driver):
                    times = process.cpu_times()
                    seconds[process.pid] = times.user + times.system
                new = happened(driver, out) - seen
            except psutil.NoSuchProcess:  # it ended just now: look again
                continue
            for sign in sorted(new):
                wall = time.monotonic() - begin
                print(f"{wall:7.2f} s, processors {sum(seconds.values()):6.2f} s: {sign}")
            seen |= new
            time.sleep(0.05)
        started.send_signal(signal.SIGINT)


def main() -> None:
    """Run and watch a study several times."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--study", default="studies/digits.yaml")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for run in range(options.runs):
            watch(options.study, Path(folder) / str(run))


if __name__ == "__main__":
    main()
