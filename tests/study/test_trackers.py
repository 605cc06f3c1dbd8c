"""Trackers get curves, rows and pictures, and none of them can end a study."""

from __future__ import annotations

import io
import json
import struct
import subprocess
import sys
import threading
from collections import defaultdict
from pathlib import Path

import optuna
import pytest
from commands import reserved_port, wait
from conftest import DIGITS
from made_studies import begin, epochs_of, journal_of, row_of
from rows import write_row

from ofbnas.config.study_file import dump_study, load_study, parse_study
from ofbnas.errors import InputError
from ofbnas.study.trackers import mirror as mirrors
from ofbnas.study.trackers.mirror import Mirror, check_trackers
from ofbnas.study.trackers.tensorboard import TensorBoard
from ofbnas.study.tuning.record import find_study
from ofbnas.study.tuning.storage import storage_of
from ofbnas.table.store import read_row

PARAMS = {"search.budget.gmacs_share": 0.3, "search.optimizer": "lamb"}
RECORDS = epochs_of(8)  # six of the search, two of the fine-tuning


@pytest.fixture
def study(tmp_path) -> Path:
    """A study's folder with the row of one trial."""
    folder = begin(tmp_path / "study", 1)
    write_row(folder, row_of(0))
    journal_of(folder, [row_of(0)])
    return folder


def mirrored(folder: Path, *trackers: object) -> list[str]:
    """Tell trackers of a trial that is killed, starts again and completes; what they warn of."""
    config = load_study(DIGITS, [f"sweep.trackers={json.dumps(trackers)}"])
    check_trackers(config)
    warnings: list[str] = []
    optuna_study = find_study(config, folder, storage_of(config, folder))
    mirror = Mirror(config, folder, optuna_study, warnings.append)
    mirror.begin(0, PARAMS)
    mirror.records(0, RECORDS[:3])
    mirror.begin(0, PARAMS)  # again, as what its checkpoint has is reported again
    mirror.records(0, RECORDS[:4])
    mirror.records(0, RECORDS[4:])
    mirror.end(read_row(folder, 0))
    mirror.close()
    return warnings


def expected(phase: str, name: str) -> list[tuple[int, float]]:
    return [
        (record["epoch"], pytest.approx(record[name], rel=1e-6))
        for record in RECORDS
        if record["phase"] == phase
    ]


def events_of(folder: Path):
    """The events in TensorBoard's files of a folder: a length, its checksum, an event, its checksum."""
    from tensorboardX.proto.event_pb2 import Event

    for file in sorted(folder.glob("events.*")):
        content = io.BytesIO(file.read_bytes())
        while header := content.read(12):
            event = Event()
            event.ParseFromString(content.read(struct.unpack("<Q", header[:8])[0]))
            content.read(4)
            yield event


def test_tensorboard_has_curves_hyper_parameters_and_the_front(study):
    assert mirrored(study, "tensorboard") == []
    curves, tags = defaultdict(list), set()
    for event in events_of(study / "tensorboard" / "trial-00000"):
        for value in event.summary.value:
            tags.add(value.tag)
            curves[value.tag].append((event.step, value.simple_value))
    assert curves["search/val_top1"] == expected("search", "val_top1")
    assert curves["finetune/task"] == expected("finetune", "task")
    assert {"trial/text_summary", "_hparams_/session_start_info", "val_top1", "gmacs"} <= tags
    pictures = [
        value.image for event in events_of(study / "tensorboard") for value in event.summary.value
    ]
    assert len(pictures) == 1 and pictures[0].width > 100


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """MLflow's own server."""
    place = tmp_path_factory.mktemp("mlflow")
    with reserved_port() as port, (place / "log").open("w") as log:
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1"]
        command += ["--port", str(port), "--workers", "1"]
        command += ["--backend-store-uri", f"sqlite:///{place}/mlflow.db"]
        command += ["--artifacts-destination", str(place / "artifacts")]
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=place)
        try:
            wait(lambda: "startup complete" in (place / "log").read_text())
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait()


@pytest.mark.slow
def test_mlflow_has_a_run_of_the_study_and_one_of_each_trial(study, server):
    from mlflow.tracking import MlflowClient

    options = {"mlflow": {"uri": server, "experiment": "ours"}}
    for _ in range(2):  # a study that is resumed goes on in its run
        assert mirrored(study, options) == []
    client = MlflowClient(server)
    runs = client.search_runs([client.get_experiment_by_name("ours").experiment_id])
    by_name = {run.info.run_name: run for run in runs}
    assert len(runs) == 2, "of the attempts that did not end, none is left"
    trial, whole = by_name["trial-00000"], by_name["digits"]
    assert trial.data.tags["mlflow.parentRunId"] == whole.info.run_id
    assert trial.data.params == {name: str(value) for name, value in PARAMS.items()}
    row = read_row(study, 0)
    assert trial.data.metrics["val_top1"] == row.val_top1
    assert trial.info.status == whole.info.status == "FINISHED"
    assert row.arch_id in trial.data.tags["mlflow.note.content"]
    points = client.get_metric_history(trial.info.run_id, "search/val_loss")
    assert [(point.step, point.value) for point in points] == expected("search", "val_loss")
    assert [file.path for file in client.list_artifacts(whole.info.run_id)] == ["front.png"]


def records_of(file: Path):
    """The records of W&B's file of a run, which is a log as LevelDB writes it, in blocks."""
    from wandb.proto.wandb_internal_pb2 import Record

    content = file.read_bytes()
    position, parts = 7, b""  # after the file's own header
    while position + 7 <= len(content):
        left = 32_768 - position % 32_768
        size, kind = struct.unpack("<HB", content[position + 4 : position + 7])
        if left < 7 or kind == 0:  # the rest of the block is empty
            position += left
            continue
        parts += content[position + 7 : position + 7 + size]
        position += 7 + size
        if kind in (1, 4):  # a whole record, or the last part of one
            yield Record.FromString(parts)
            parts = b""


@pytest.mark.slow
def test_weights_and_biases_writes_runs_offline(study, monkeypatch):
    for name in ("WANDB_API_KEY", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(study))  # where no key is
    (warning,) = mirrored(study, "wandb")
    assert warning.startswith("tracker wandb: has no key; give WANDB_API_KEY")
    assert mirrored(study, {"wandb": {"mode": "offline"}}) == []
    runs = defaultdict(list)
    for file in study.glob("wandb/offline-run-*/*.wandb"):
        records = list(records_of(file))
        (name,) = {record.run.display_name for record in records if record.HasField("run")}
        runs[name].append(records)
    assert {name: len(files) for name, files in runs.items()} == {"trial-00000": 2, "study": 1}
    most = max(runs["trial-00000"], key=len)
    logged = [
        {
            item.key or "/".join(item.nested_key): json.loads(item.value_json)
            for item in record.history.item
        }
        for record in most
        if record.HasField("history")
    ]
    values = [point["search/val_top1"] for point in logged if "search/val_top1" in point]
    assert values == [value for _, value in expected("search", "val_top1")]


def test_optuna_dashboard_shows_a_note_of_each_trial_and_the_front(study):
    import optuna_dashboard

    assert mirrored(study, "optuna_dashboard") == []
    config = load_study(DIGITS)
    storage = storage_of(config, study)
    app = optuna_dashboard.wsgi(storage)

    def get(path: str):
        asked = {"REQUEST_METHOD": "GET", "PATH_INFO": path, "QUERY_STRING": "after=0"}
        body = app(asked | {"wsgi.input": io.BytesIO()}, lambda *_: None)
        return json.loads(b"".join(body))

    trial = get("/api/studies/0")["trials"][0]
    assert read_row(study, 0).arch_id in trial["note"]["body"]
    artifacts = optuna.artifacts.get_all_artifact_meta(find_study(config, study, storage))
    assert [meta.filename for meta in artifacts] == ["front.png"]
    assert (study / "artifacts" / artifacts[0].artifact_id).stat().st_size > 1000


def test_a_tracker_that_fails_is_left_out_with_one_warning(study, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with reserved_port() as port:
        nowhere = {"mlflow": {"uri": f"http://127.0.0.1:{port}"}}
        (warning,) = mirrored(study, nowhere, "tensorboard")
    assert warning.startswith("tracker mlflow: ") and warning.endswith("goes on without it")
    assert "\n" not in warning
    assert list(events_of(study / "tensorboard" / "trial-00000")), "the others go on"


def test_a_tracker_that_hangs_delays_a_study_for_a_while_at_its_end(study, monkeypatch):
    released = threading.Event()
    monkeypatch.setattr(mirrors, "CLOSE_SECONDS", 0.1)
    monkeypatch.setattr(TensorBoard, "begin", lambda *_: released.wait())
    (warning,) = mirrored(study, "tensorboard")
    released.set()
    assert "has not finished after" in warning


def test_a_package_that_is_missing_is_reported_before_a_study_starts(monkeypatch):
    monkeypatch.setattr(mirrors, "find_spec", lambda name: None)
    config = load_study(DIGITS, ["sweep.trackers=[wandb]"])
    with pytest.raises(
        InputError, match=r"the package wandb is not installed; pip install 'ofbnas"
    ):
        check_trackers(config)


@pytest.mark.parametrize(
    ("trackers", "message"),
    [
        ("[aim]", "trackers"),
        ("[tensorboard, {tensorboard: {folder: logs}}]", "tensorboard twice"),
        ("[{tensorboard: {}, wandb: {}}]", "an item of its own"),
        ("[{mlflow: {uri: 'http://me:secret@host:5000'}}]", "MLFLOW_TRACKING_PASSWORD"),
    ],
)
def test_mistakes_are_reported_and_no_password_is_taken(trackers, message):
    with pytest.raises(InputError, match=message) as error:
        load_study(DIGITS, [f"sweep.trackers={trackers}"])
    assert "secret" not in str(error.value) and "\n" not in str(error.value)


def test_trackers_are_written_as_they_were_given():
    given = load_study(DIGITS, ["sweep.trackers=[tensorboard, {mlflow: {experiment: e}}]"])
    assert parse_study(dump_study(given)) == given
