"""How long commands take to start: processor time compared with that of `python -c "import torch"`.

    python benchmarks/startup.py [--runs 5] [--study runs/digits]

Each figure is the lowest of several runs: user and system time of the process and its children. On
a busy machine it varies by a tenth, so compare the ratios within one run of this script.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys

TABLE = "studies/tables/digits"
BASELINE = "import torch"


def children_seconds() -> float:
    """Processor time of all processes that this one has started and waited for, in seconds."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def cpu_seconds(words: list[str], runs: int) -> float:
    """Lowest processor time of a command in several runs, in seconds.

    Raises:
        subprocess.CalledProcessError: It failed, so its time says nothing.
    """
    times = []
    for _ in range(runs):
        before = children_seconds()
        subprocess.run(words, check=True, capture_output=True)
        times.append(children_seconds() - before)
    return min(times)


def commands(study: str | None) -> list[list[str]]:
    """The commands to time."""
    timed = [
        ["--help"],
        ["front", "show", TABLE],
        ["arch", "list", TABLE],
        ["space", "show", "vit_tiny_patch16_224"],
        ["table", "validate", TABLE],
    ]
    if study is not None:
        timed.insert(1, ["study", "list", study])
    return timed


def main() -> None:
    """Time all commands, and print seconds and their ratio to importing torch."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=5, help="runs of each command")
    parser.add_argument("--study", help="a study's folder, or a folder of studies, to list")
    options = parser.parse_args()

    base = cpu_seconds([sys.executable, "-c", BASELINE], options.runs)
    print(f"{base:6.2f} s  {1:5.2f}  {BASELINE}")
    for words in commands(options.study):
        seconds = cpu_seconds([sys.executable, "-m", "ofbnas", *words], options.runs)
        print(f"{seconds:6.2f} s  {seconds / base:5.2f}  ofbnas {' '.join(words)}")


if __name__ == "__main__":
    main()
