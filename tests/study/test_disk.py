"""Full disks: a study on a real, small file system."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from commands import PATIENCE, process, wait
from running import ONE_AT_A_TIME, STUDY, finish, rows, start, trials, write
from safetensors.torch import save_file
from test_sampling import config

import ofbnas
from ofbnas.errors import DiskFullError, FolderLostError, is_full
from ofbnas.study.cluster.disk import EarlyEnd, size_of
from ofbnas.study.run import _tune_folder
from ofbnas.study.tuning.storage import mend
from ofbnas.table import parquet
from ofbnas.training.checkpoint import save_checkpoint


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 2 MB in memory."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", place],
        capture_output=True,
        text=True,
        check=False,
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


def test_torch_parquet_and_safetensors_report_a_full_disk(small_disk):
    """All writers of a study's files raise errors that are recognized, and leave no partial file."""
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


def test_the_disk_budget_counts_all_files_of_a_study(tmp_path):
    (tmp_path / "subnets").mkdir()
    (tmp_path / "subnets" / "weights").write_bytes(bytes(3_000_000))
    (tmp_path / "study.yaml").touch()
    for limit, over in ((None, False), (0.004, False), (0.002, True)):
        end = EarlyEnd(tmp_path, None, limit)
        assert not end.stop_all() and not end("1", {"phase": "ended"})
        assert end.stop_all() == over
    with pytest.raises(
        DiskFullError,
        match=r"after 1 of 3 trials: .*0.003 GB of the 0.002 GB that resources.disk_gb",
    ):
        end.check(1, 3)
    end.check(3, 3)  # all trials are done, so there is nothing that more room would be for


def test_a_study_whose_folder_is_removed_ends_with_one_line(tmp_path):
    (tmp_path / "study.yaml").touch()
    end = EarlyEnd(tmp_path, None, None)
    assert not end("1", {"phase": "search"}) and not end.stop_all()
    (tmp_path / "study.yaml").unlink()
    end.look()
    with pytest.raises(
        FolderLostError, match="after 1 of 3 trials: its folder was removed .*; remove what is left"
    ):
        end.check(1, 3)


def test_temporary_folders_of_killed_drivers_are_removed_at_the_next_start_of_their_study(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    with _tune_folder(tmp_path / "one") as own:
        killed = Path(shutil.copytree(own, f"{own}-killed"))
    with _tune_folder(tmp_path / "other"):
        assert killed.is_dir(), "another study's"
    with _tune_folder(tmp_path / "one"):
        assert not killed.exists()


@pytest.mark.slow
def test_a_study_stops_on_a_full_disk_and_resumes_when_there_is_space(small_disk, tmp_path):
    two = {"search": STUDY["search"] | {"epochs": 15}, "sweep": STUDY["sweep"] | {"n_trials": 2}}
    file, out = write(tmp_path, **two, resources=ONE_AT_A_TIME), small_disk / "out"
    filler = small_disk / "filler"
    study = start(file, out)
    wait(lambda: rows(out) >= 1)
    with suppress(OSError):  # the trial is writing, too
        filler.write_bytes(bytes(2_000_000))
    os.truncate(filler, max(0, filler.stat().st_size - 8192))
    _, err = study.communicate(timeout=PATIENCE)
    assert study.returncode == 1 and "Traceback" not in err, err
    assert "is full" in err.splitlines()[-1] and "the same command resumes" in err.splitlines()[-1]
    done = rows(out)
    assert done == 1 and len(ofbnas.read_table(out)) == done, "what is done can be read"
    assert "failed" not in set(ofbnas.read_table(out)["status"]), "a full disk is no trial's fault"
    filler.unlink()
    finish(file, out)
    assert ofbnas.read_table(out)["status"].tolist() == ["complete"] * 2
    assert [trial.state.name for trial in trials(out)] == ["COMPLETE"] * 2


@pytest.mark.slow
def test_a_study_whose_folder_is_removed_in_mid_run_ends_with_one_line(tmp_path):
    many = {"sweep": STUDY["sweep"] | {"n_trials": 50}, "resources": ONE_AT_A_TIME}
    file, out = write(tmp_path, **many), tmp_path / "out"
    study = start(file, out)
    wait(lambda: (out / "checkpoints").is_dir())
    shutil.rmtree(out, ignore_errors=True)  # a trial may still be writing
    (out / "study.yaml").unlink(missing_ok=True)
    _, err = study.communicate(timeout=PATIENCE)
    assert study.returncode == 1 and "Traceback" not in err, err
    assert (
        "its folder was removed or replaced while it ran; remove what is left"
        in err.splitlines()[-1]
    )


@pytest.mark.slow
def test_a_study_stops_at_its_disk_budget(tmp_path):
    # Its size is measured every few seconds, in which a fast machine would finish short trials.
    endless = {"search": STUDY["search"] | {"epochs": 100_000}, "resources": ONE_AT_A_TIME}
    file, out = write(tmp_path, **endless), tmp_path / "out"
    asked = process("study", "run", file, "--output", out, "--set", "resources.disk_gb=0.0001")
    assert asked.returncode == 1 and "resources.disk_gb" in asked.stderr.splitlines()[-1]
    assert rows(out) == 0
    assert {trial.state.name for trial in trials(out)} == {"RUNNING"}
