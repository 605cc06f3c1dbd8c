"""Ray starts while the driver imports, a study that is refused leaves none of it, and trials find modules imported."""

from __future__ import annotations

import inspect
import os
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest
import ray
from commands import PATIENCE, processes, wait
from ray import tune
from running import STUDY, finish, start, write

from ofbnas.config import StudyConfig
from ofbnas.study.cluster import connection, early_start, ray_private

CPUS = os.cpu_count() or 1


@pytest.fixture
def sessions(monkeypatch):
    """The folder of Ray's sessions; its path is short, as Ray's sockets are in it."""
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        monkeypatch.setenv("RAY_TMPDIR", folder)
        yield Path(folder)


@pytest.fixture
def nothing_imported(monkeypatch):
    """A process that seems to have imported nothing yet, and that starts no Ray."""
    monkeypatch.delitem(sys.modules, "torch")
    started = []
    monkeypatch.setattr(early_start, "start", started.append)
    return started


def study(**changes) -> StudyConfig:
    return StudyConfig.model_validate(STUDY | changes)


def test_ray_starts_while_this_process_imports(monkeypatch, nothing_imported, tmp_path):
    both = threading.Barrier(
        2, timeout=PATIENCE
    )  # each waits here until the other one is there too
    threads = {}

    def arrive(name):
        threads[name] = threading.current_thread()
        both.wait()

    monkeypatch.setattr(early_start, "start", lambda preload: arrive("ray"))
    monkeypatch.setattr(early_start, "_import_slow", lambda: arrive("imports"))
    with early_start.early_start(study(), tmp_path, None):
        assert not threads["imports"].is_alive(), "what follows finds everything imported"
    assert threads["ray"] is threading.main_thread()


def test_ray_does_not_start_early_where_nothing_is_gained(nothing_imported, tmp_path):
    with early_start.early_start(study(), tmp_path, "auto"):
        pass
    (tmp_path / "architectures").mkdir()
    for trial in range(STUDY["sweep"]["n_trials"]):
        (tmp_path / "architectures" / f"trial-{trial:05}.parquet").touch()
    with early_start.early_start(study(), tmp_path, None):
        pass
    assert not nothing_imported


@pytest.mark.parametrize(
    ("resources", "n_trials", "preloads"),
    [
        ({}, CPUS, True),
        ({}, CPUS - 1, CPUS == 1),
        ({"cpus_per_trial": 2}, CPUS, False),
        ({"cpus_per_trial": 2, "workers_per_trial": 2}, CPUS, True),
        ({"max_concurrent": 1}, CPUS, CPUS == 1),
        ({"gpus_per_trial": 1}, CPUS, False),
    ],
)
def test_processes_import_ahead_where_all_of_them_will_run_trials_on_cpus(
    nothing_imported, tmp_path, resources, n_trials, preloads
):
    config = study(resources=resources, sweep=STUDY["sweep"] | {"n_trials": max(1, n_trials)})
    with early_start.early_start(config, tmp_path, None):
        pass
    assert nothing_imported == [[early_start.PRELOADED] if preloads else []]


def test_what_is_imported_ahead_does_not_look_for_gpus():
    """Ray assigns a process its GPUs after that; CUDA looks once."""
    code = (
        "import torch\n"
        "def refuse(*args): raise AssertionError('looked for GPUs')\n"
        "for module in (torch.cuda, torch.accelerator):\n"
        "    for name in ('is_available', 'device_count'): setattr(module, name, refuse)\n"
        "import ofbnas.study.cluster.preload\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=PATIENCE)


def test_a_start_that_takes_too_long_is_tried_again(monkeypatch):
    """Ray gives up after 30 s, as on a machine with much else to do."""
    assert ray_private.TOO_SLOW in inspect.getsource(ray._private.node)
    waiting = [sys.executable, "-c", "import time; time.sleep(900)", "/ray/core"]
    left = subprocess.Popen(waiting)
    errors = [Exception(f"The current node {ray_private.TOO_SLOW}."), None]

    def init(**settings):
        if error := errors.pop(0):
            raise error

    monkeypatch.setattr(connection.ray, "init", init)
    connection.start()
    assert not errors and left.wait(PATIENCE) == -signal.SIGKILL

    errors[:] = [Exception(ray_private.TOO_SLOW)] * connection.STARTS
    with pytest.raises(TimeoutError, match="let other work on it end"):
        connection.start()
    errors[:] = [ValueError("another error")]
    with pytest.raises(ValueError, match="another error"):
        connection.start()


@pytest.mark.slow
def test_trials_run_in_the_processes_that_ray_has_started(monkeypatch, sessions, tmp_path):
    monkeypatch.setenv("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "propagated by Tune")

    def trial(config):
        import os
        import sys

        imported = "ofbnas.study.cluster.preload" in sys.modules
        tune.report({"process": os.getpid(), "imported": imported})

    connection.start([early_start.PRELOADED])
    try:
        wait(lambda: len(processes("ray::IDLE", os.getpid())) == CPUS)
        started = processes("ray::IDLE", os.getpid())
        tuner = tune.Tuner(
            tune.with_resources(trial, tune.PlacementGroupFactory([{"CPU": 1}])),
            tune_config=tune.TuneConfig(num_samples=CPUS),
            run_config=tune.RunConfig(storage_path=str(tmp_path), verbose=0),
        )
        with ray_private.in_started_processes():
            results = tuner.fit()
    finally:
        ray.shutdown()
    assert all(result.metrics["imported"] for result in results)
    changed = f"Ray {ray.__version__} changed: adapt ofbnas/study/cluster/ray_private.py"
    assert {result.metrics["process"] for result in results} <= set(started), changed


@pytest.mark.slow
def test_a_study_that_is_refused_leaves_no_ray(sessions, tmp_path):
    file = write(tmp_path, model={"name": "no_such_model"})
    err = finish(file, tmp_path / "out", code=2)
    assert len(err.splitlines()) == 1 and "no_such_model" in err
    assert list(sessions.rglob("raylet.out")), "Ray had been started"
    wait(lambda: not processes(str(sessions)))
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_study_is_stopped_while_it_starts(sessions, tmp_path, number):
    started = start(write(tmp_path), tmp_path / "out")
    wait(lambda: processes("raylet/raylet", started.pid))
    started.send_signal(number)
    _, err = started.communicate(timeout=PATIENCE)
    assert started.returncode != 0 and "Traceback" not in err
    wait(lambda: not processes(str(sessions)))
