"""Disks that are full: a real small file system that a study runs out of."""

from __future__ import annotations

import errno
import os
import subprocess

import pyarrow as pa
import pytest
import torch
from commands import PATIENCE, process, wait
from running import STUDY, finish, rows, start, trials, write
from safetensors.torch import save_file
from test_sampling import config

import ofbnas
from ofbnas import parquet
from ofbnas.errors import DiskFullError
from ofbnas.ledger.storage import mend
from ofbnas.sweep.disk import EarlyEnd, is_full, size_of
from ofbnas.training import save_checkpoint


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 2 MB in memory."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", place], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def test_a_full_disk_is_known_by_its_number_or_its_words():
    assert is_full(OSError(errno.ENOSPC, "no room")) and is_full(OSError(errno.EDQUOT, "quota"))
    wrapped = RuntimeError("could not save")
    wrapped.__cause__ = ValueError("I/O error: No space left on device (os error 28)")
    assert is_full(wrapped)
    assert not is_full(OSError(errno.EACCES, "no")) and not is_full(None)


def test_torch_parquet_and_safetensors_tell_a_full_disk(small_disk):
    """What writes a study's files really gives an error that is known for what it is, and leaves no part behind."""
    large = {"x": torch.rand(2_000_000)}
    for write_large in (
        lambda: save_checkpoint(small_disk / "a" / "search.pt", large, ""),
        lambda: save_file(large, small_disk / "b.safetensors"),
        lambda: parquet.write(pa.table({"x": large["x"].numpy()}), small_disk / "c.parquet"),
    ):
        with pytest.raises(Exception) as raised:
            write_large()
        assert is_full(raised.value), raised.value
        (small_disk / "b.safetensors").unlink(missing_ok=True)
        assert size_of(small_disk) == 0


@pytest.mark.parametrize("given", [None, "all.log"])
def test_a_journal_that_ends_within_a_record_loses_only_that(tmp_path, given):
    journal = tmp_path / (given or "journal.log")
    study = config(storage=given and str(journal))
    journal.write_bytes(b'{"op_code": 0}\n{"op_c')
    mend(study, tmp_path)
    mend(study, tmp_path)
    assert list(tmp_path.iterdir()) == [journal]
    assert journal.read_bytes() == b'{"op_code": 0}\n'


def test_the_budget_counts_all_files_of_a_study(tmp_path):
    (tmp_path / "subnets").mkdir()
    (tmp_path / "subnets" / "weights").write_bytes(bytes(3_000_000))
    for limit, over in ((None, False), (0.004, False), (0.002, True)):
        end = EarlyEnd(tmp_path, None, limit)
        assert not end.stop_all() and not end("1", {"phase": "ended"})
        assert end.stop_all() == over
    with pytest.raises(DiskFullError, match=r"after 1 of 3 trials: .*0.003 GB of the 0.002 GB that resources.disk_gb"):
        end.check(1, 3)


@pytest.mark.slow
def test_a_study_stops_on_a_full_disk_and_goes_on_when_there_is_room(small_disk, tmp_path):
    two = {"search": STUDY["search"] | {"epochs": 15}, "sweep": STUDY["sweep"] | {"n_trials": 2}}
    file, out = write(tmp_path, **two, resources={"max_concurrent": 1}), small_disk / "out"
    filler = small_disk / "filler"
    study = start(file, out)
    wait(lambda: rows(out) >= 1)
    free = os.statvfs(small_disk)
    filler.write_bytes(bytes(max(0, free.f_bavail * free.f_frsize - 8192)))
    _, err = study.communicate(timeout=PATIENCE)
    assert study.returncode == 1 and "Traceback" not in err, err
    assert "is full" in err.splitlines()[-1] and "the same command goes on" in err.splitlines()[-1]
    done = rows(out)
    assert done == 1 and len(ofbnas.read_table(out)) == done, "what is done can be read"
    assert "failed" not in set(ofbnas.read_table(out)["status"]), "a full disk is no trial's fault"
    filler.unlink()
    finish(file, out)
    assert ofbnas.read_table(out)["status"].tolist() == ["complete"] * 2
    assert [trial.state.name for trial in trials(out)] == ["COMPLETE"] * 2


@pytest.mark.slow
def test_a_study_stops_at_its_budget_of_disk(tmp_path):
    file, out = write(tmp_path), tmp_path / "out"
    asked = process("study", "run", file, "--output", out, "--set", "resources.disk_gb=0.0001")
    assert asked.returncode == 1 and "resources.disk_gb" in asked.stderr.splitlines()[-1]
    assert rows(out) < 3 and all(trial.state.name in ("RUNNING", "COMPLETE") for trial in trials(out))
