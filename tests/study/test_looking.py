"""Looking at a stranger's study connects to nothing and opens nothing outside its folder."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import threading
import urllib.request

import pytest
from commands import OFBNAS, PATIENCE, ofbnas
from conftest import DIGITS, ROOT
from made_studies import NAN, add, begin, failed_row, finished, row_of
from optuna.storages.journal import JournalFileBackend
from optuna.storages.journal._base import BaseJournalSnapshot
from optuna.storages.journal._storage import JournalOperation
from test_sampling import config

from ofbnas.config.study_file import dump_study, load_study
from ofbnas.study.cluster.sampling import StudySearch
from ofbnas.study.tuning.journal import (
    CREATE_STUDY,
    CREATE_TRIAL,
    MAX_RECORDS_OF_A_TRIAL,
    MAX_TRIALS,
)

LEFT_OUT = "which was not opened"


@pytest.fixture
def listening(monkeypatch):
    """A socket in place of a database, with its password set, and the connections that it got."""
    monkeypatch.setenv("OFBNAS_PASSWORD_OF_MINE", "secret")
    monkeypatch.setenv("PGPASSWORD", "secret")
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:  # it was closed
                    return
                with connection:
                    heard.append(connection.recv(1000))

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1], heard
        server.shutdown(socket.SHUT_RDWR)
        thread.join(PATIENCE)


def elsewhere(folder, storage):
    """A stranger's study with a row and an architecture, in a storage of their choice."""
    begin(folder)
    study = load_study(DIGITS, ["sweep.n_trials=12"]).model_dump(mode="json", exclude_none=True)
    study["sweep"]["storage"] = storage
    (folder / "study.yaml").write_text(json.dumps(study))
    add(folder, row_of(0))
    return folder


def looked_at(folder):
    """All ways of looking at a study."""
    arch_id = row_of(0)["arch_id"]
    yield from (
        ("study", "show", folder), ("study", "list", folder.parent), ("study", "report", folder),
        ("study", "plan", folder / "study.yaml"), ("space", "show", folder / "study.yaml"),
        ("front", "show", folder), ("front", "compare", folder, ROOT / "studies" / "tables" / "digits"),
        ("front", "plot", folder, "--out", folder / "front.png"), ("arch", "list", folder),
        ("arch", "show", folder, "--arch", arch_id), ("table", "describe", folder),
    )  # fmt: skip


@pytest.mark.parametrize("driver", ["postgresql+psycopg", "postgresql"])
def test_looking_connects_to_nobody(listening, tmp_path, driver):
    port, heard = listening
    folder = elsewhere(
        tmp_path / "study", f"{driver}://u:${{OFBNAS_PASSWORD_OF_MINE}}@127.0.0.1:{port}/n"
    )
    for words in looked_at(folder):
        done = ofbnas(*words)
        assert done.returncode == 0, (words, done.stderr)
        assert (LEFT_OUT in done.stderr) == (words[1] == "report")
    page = (folder / "report.html").read_text()
    assert LEFT_OUT in page and "--connect" in page and row_of(0)["arch_id"] in page
    assert not heard


def test_a_flag_connects(listening, tmp_path):
    port, heard = listening
    folder = elsewhere(
        tmp_path, f"postgresql+psycopg://u:${{OFBNAS_PASSWORD_OF_MINE}}@127.0.0.1:{port}/n"
    )
    for count, words in enumerate(([], ["--serve"]), start=1):
        done = ofbnas("study", "report", folder, "--connect", *words)
        assert (
            done.returncode == 2
            and "sweep.storage postgresql" in done.stderr
            and done.stderr.count("\n") == 1
        )
        assert len(heard) >= count and "secret" not in done.stderr
    assert not (folder / "report.html").exists()


@pytest.mark.slow
def test_a_page_that_is_served_connects_to_nobody(listening, tmp_path):
    port, heard = listening
    folder = elsewhere(tmp_path, f"postgresql+psycopg://u@127.0.0.1:{port}/n")
    command = [OFBNAS, "study", "report", folder, "--serve"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        url = process.stdout.readline().strip()
        assert LEFT_OUT in process.stderr.readline()
        for _ in range(2):
            add(folder, row_of(1))
            assert LEFT_OUT in json.load(urllib.request.urlopen(f"{url}data.json"))["left_out"]
        process.kill()
    assert not heard


def test_a_variable_of_others_is_sent_nowhere(listening, tmp_path, monkeypatch):
    port, heard = listening
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    folder = elsewhere(
        tmp_path / "study", f"postgresql+psycopg://u:${{AWS_SECRET_ACCESS_KEY}}@127.0.0.1:{port}/n"
    )
    for words in (
        ("report", folder),
        ("report", folder, "--connect"),
        ("show", folder),
        ("run", folder / "study.yaml"),
    ):
        done = ofbnas("study", *words, cwd=tmp_path)
        assert done.returncode == 2 and done.stderr.count("\n") == 1 and "secret" not in done.stderr
        assert (
            "from AWS_SECRET_ACCESS_KEY, expected a variable whose name begins with OFBNAS_"
            in done.stderr
        )
    assert not heard


@pytest.mark.parametrize("storage", ["{}/pipe", "../pipe", "sqlite:///{}/pipe"])
def test_a_file_elsewhere_is_opened_where_a_flag_says_so(tmp_path, storage):
    os.mkfifo(tmp_path / "pipe")
    folder = elsewhere(tmp_path / "study", storage.format(tmp_path))
    for words in looked_at(folder):
        assert ofbnas(*words).returncode == 0
    assert LEFT_OUT in ofbnas("study", "report", folder).stderr
    refused = ofbnas("study", "report", folder, "--connect")
    assert (
        refused.returncode == 2
        and "pipe: cannot be read, it is not a regular file" in refused.stderr
    )


def test_a_flag_reads_what_a_file_elsewhere_knows(tmp_path):
    folder = tmp_path / "study"
    folder.mkdir()
    study = config(storage=str(tmp_path / "all.log"))
    search = StudySearch(study, folder)
    for name in ("a", "b"):
        search.suggest(name)
    (folder / "study.yaml").write_text(dump_study(study))
    assert ofbnas("study", "report", folder, "--connect").stderr == ""
    assert (folder / "report.html").read_text().count('"status":"running"') == 2
    assert LEFT_OUT in ofbnas("study", "report", folder).stderr
    assert (folder / "report.html").read_text().count('"status":"running"') == 0


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (os.mkfifo, "journal.log: cannot be read, it is not a regular file"),
        (
            lambda file: file.symlink_to("/dev/zero"),
            "journal.log: cannot be read, it is not a regular file",
        ),
        (lambda file: file.symlink_to(DIGITS), "leads through a link"),
        (
            lambda file: os.truncate(os.open(file, os.O_CREAT | os.O_WRONLY), 2**27),
            "has 134,217,728 bytes, .*--connect",
        ),
    ],
)
def test_a_journal_is_a_file_of_the_folder_and_not_too_large(tmp_path, make, told):
    folder = finished(tmp_path)
    (folder / "journal.log").unlink()
    make(folder / "journal.log")
    done = ofbnas("study", "report", folder)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and re.search(told, done.stderr)


RECORDS = [
    "{}", "[]", "1", "null", '{"op_code": 99}', '{"op_code": 0}', '{"op_code": 4, "study_id": 7}', "[" * 100_000,
    '{"op_code": 0, "worker_id": "w", "study_name": [], "directions": [9]}',
    '{"op_code": 5, "worker_id": "w", "trial_id": 0, "param_name": "x", "distribution": "1"}',
    '{"op_code": 6, "worker_id": "w", "trial_id": 99, "state": 77}',
    '{"op_code": 4, "worker_id": "w", "study_id": 0, "state": 1, "values": [null], "datetime_start": "x"}',
    '{"op_code": 2, "worker_id": "w", "study_id": 0, "user_attr": 7}',
]  # fmt: skip


@pytest.mark.parametrize("record", RECORDS)
def test_records_that_optuna_did_not_write_are_reported_in_one_line(tmp_path, record):
    folder = finished(tmp_path, num=12)
    with (folder / "journal.log").open("a") as journal:
        journal.write(f"{record}\n")
    done = ofbnas("study", "report", folder)
    assert "Traceback" not in done.stderr
    assert done.returncode == 0 or (done.returncode == 2 and done.stderr.count("\n") == 1), (
        done.stderr
    )


@pytest.mark.parametrize(
    ("record", "count", "told"),
    [
        (
            {"op_code": 8, "trial_id": 0, "user_attr": {"x": 1}},
            MAX_RECORDS_OF_A_TRIAL + 1,
            "records of one trial",
        ),
        (
            {"op_code": 4, "study_id": 0, "datetime_start": "2026-11-21"},
            MAX_TRIALS + 1,
            "trials, expected at most",
        ),
    ],
)
def test_a_journal_that_optuna_would_replay_for_hours_is_refused(tmp_path, record, count, told):
    folder = finished(tmp_path)
    with (folder / "journal.log").open("a") as journal:
        journal.write((json.dumps({"worker_id": "w"} | record) + "\n") * count)
    done = ofbnas("study", "report", folder)
    assert done.returncode == 2 and told in done.stderr and "--connect" in done.stderr
    assert ofbnas("study", "report", folder, "--connect").returncode == 0


def test_a_journal_is_json_and_holds_no_pickle():
    """Optuna unpickles the snapshots that some journal backends keep; a file keeps none."""
    assert not issubclass(JournalFileBackend, BaseJournalSnapshot)
    assert (CREATE_STUDY, CREATE_TRIAL) == (
        JournalOperation.CREATE_STUDY,
        JournalOperation.CREATE_TRIAL,
    )


def test_a_data_set_that_would_be_downloaded_is_planned_by_its_promise(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    study = ROOT / "studies" / "deit_t.yaml"
    named = ["--set", "data.name=hfds/somebody/images", "--set", "data.path=null"]
    planned = ofbnas("study", "plan", study, *named, "--json")
    assert json.loads(planned.stdout)["train_images_counted"] is False
    refused = ofbnas("study", "plan", study, *named, "--set", "data.train_images=null")
    assert (
        refused.returncode == 2
        and "give --connect to allow that, or data.train_images" in refused.stderr
    )


def broken(folder, kind):
    """A study's folder that cannot be read."""
    begin(folder)
    file = folder / "study.yaml"
    if kind == "row":
        add(folder, failed_row(0, NAN))
        (folder / "architectures" / "trial-00000.parquet").write_text("no parquet")
        return folder
    file.unlink()
    if kind == "pipe":
        os.mkfifo(file)
    elif kind == "folder":
        file.mkdir()
    elif kind == "link":
        file.symlink_to(folder / "nothing")
    else:
        file.write_bytes(
            {"empty": b"", "cut": b"name: [", "bytes": b"\xff\xfe\0", "other": b"a: 1"}[kind]
        )
    return folder


BROKEN = ["empty", "cut", "bytes", "other", "pipe", "folder", "link", "row"]


def test_a_study_that_cannot_be_read_does_not_hide_the_others(tmp_path):
    for kind in BROKEN:
        broken(tmp_path / f"{kind} one", kind)
    for name in ("a", "z"):
        add(begin(tmp_path / name), row_of(0))
    (tmp_path / "no study").mkdir()
    done = ofbnas("study", "list", tmp_path, "--json")
    assert done.returncode == 0
    found = {row["folder"].removeprefix(f"{tmp_path}/"): row for row in json.loads(done.stdout)}
    assert list(found) == sorted(["a", "z", *(f"{kind} one" for kind in BROKEN)])
    for kind in BROKEN:
        assert found[f"{kind} one"]["study"] is None and found[f"{kind} one"]["problem"]
    assert {found[name]["trials"] for name in ("a", "z")} == {1} and found["a"]["problem"] is None
    assert done.stderr.count("\n") == len(BROKEN) == done.stderr.count("cannot be read: ")
    text = " ".join(ofbnas("study", "list", tmp_path).stdout.split())
    assert all(f"{kind} one - - -" in text for kind in BROKEN)


def test_dumped_studies_come_back(tmp_path):
    """`elsewhere` writes a valid study with the given storage."""
    folder = elsewhere(tmp_path, "postgresql://u:${OFBNAS_X}@h/n")
    study = load_study(folder / "study.yaml")
    assert (
        "${OFBNAS_X}" in dump_study(study)
        and study.sweep.storage == "postgresql://u:${OFBNAS_X}@h/n"
    )
