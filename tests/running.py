"""A small study that runs in processes of its own."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import filelock
import optuna
import torch
import yaml
from commands import OFBNAS, PATIENCE, process, processes
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

STUDY = {
    "name": "small",
    "seed": 0,
    "model": {
        "name": "vit_tiny_patch16_224",
        "kwargs": {
            "img_size": 8, "patch_size": 4, "in_chans": 1, "embed_dim": 32, "depth": 2, "num_heads": 2,
            "class_token": False, "global_pool": "avg",
        },
    },
    "data": {"name": "digits", "shift": 1},
    "pretrain": {"epochs": 15, "lr": 5e-3},
    "search": {
        "epochs": 4, "lr": 2e-3, "budget": {"gmacs_share": 0.5}, "compensation": {"images": 128},
        "refine": {"candidates": 2, "images": 128},
    },
    "finetune": {"epochs": 3, "lr": 2e-3},
    "sweep": {
        "n_trials": 3,
        "sampler": "random",
        "params": {"search.budget.gmacs_share": {"low": 0.3, "high": 0.8}},
    },
}  # fmt: skip
# Epochs of half a second or less: enough of them for a test to act before the trial has ended.
LONG = {"search": STUDY["search"] | {"epochs": 15}}
# However fast the machine is, trials are left when the first has ended.
ONE_AT_A_TIME = {"max_concurrent": 1}
# The second trial costs more than the first, so it adds less to the hypervolume, and one of two is
# promoted.
ONE_OF_TWO = {
    "search": STUDY["search"] | {"epochs": 12},
    "sweep": STUDY["sweep"] | {
        "n_trials": 2,
        "start": [{"search.budget.gmacs_share": share} for share in (0.3, 0.8)],
        "early_stopping": {"method": "front", "eta": 4, "first_rung": 1},
    },
}  # fmt: skip


def write(place: Path, **changes) -> Path:
    (place / "small.yaml").write_text(yaml.safe_dump(STUDY | changes))
    return place / "small.yaml"


def start(file: Path, out: Path) -> subprocess.Popen[str]:
    """The study as a process with a session of its own."""
    return subprocess.Popen(
        [OFBNAS, "study", "run", file, "--output", out],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def rows(out: Path) -> int:
    return len(list((out / "architectures").glob("trial-*.parquet")))


def written(out: Path) -> dict[Path, tuple[int, int]]:
    """What would change of each row if it were written again."""
    files = (out / "architectures").glob("trial-*.parquet")
    return {file: (file.stat().st_mtime_ns, file.stat().st_ino) for file in files}


def trials(out: Path) -> list[optuna.trial.FrozenTrial]:
    """Optuna's trials, none while the driver has not recorded its study yet."""
    journal = out / "journal.log"
    if not journal.is_file():  # Optuna would create it
        return []
    storage = JournalStorage(JournalFileBackend(str(journal)))
    if "small" not in optuna.get_all_study_names(storage):
        return []
    return optuna.load_study(study_name="small", storage=storage).trials


def epochs_searched(out: Path) -> int:
    """Epochs of the first trial's search in its checkpoint, 0 before there is one.

    A trial waits for the driver to take each report, so the driver has heard of all but the last.
    """
    checkpoint = out / "checkpoints" / "trial-00000" / "search.pt"
    if not checkpoint.is_file():
        return 0
    return torch.load(checkpoint, weights_only=True)["epoch"]


def finish(file: Path, out: Path, code: int = 0) -> str:
    study = start(file, out)
    _, err = study.communicate(timeout=PATIENCE)
    assert study.returncode == code, err
    return err


def run_once(place: Path) -> Path:
    """Run the study in a folder, unless another process has run it there; what it printed is beside it."""
    with filelock.FileLock(f"{place}.lock"):
        if not (place / "run.json").is_file():
            place.mkdir()
            done = process("study", "run", write(place), "--output", place / "out", "--json")
            assert done.returncode == 0, done.stderr
            (place / "run.err").write_text(done.stderr)
            (place / "run.json").write_text(done.stdout)
    return place


def kill_everything(study: subprocess.Popen[str]) -> None:
    for pid in [study.pid, *processes("", study.pid)]:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    study.communicate()
