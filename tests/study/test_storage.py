"""Optuna's storage: a journal, SQLite, a real PostgreSQL; messages, and passwords that are never written."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import optuna
import pytest
from commands import reserved_port, wait
from conftest import DIGITS
from postgres import PASSWORD, postgres
from rows import write_row
from running import LONG, STUDY, finish, kill_everything, start, write
from test_sampling import config, run
from test_table import row

import ofbnas
from ofbnas.config.storage import located
from ofbnas.config.study_file import dump_study, load_study
from ofbnas.errors import InputError
from ofbnas.study.cluster.sampling import StudySearch
from ofbnas.study.report import stamp
from ofbnas.study.tuning.journal import read_journal
from ofbnas.study.tuning.storage import check_storage, storage_of
from ofbnas.table.store import read_row

SERVER = pytest.param("postgresql", marks=pytest.mark.slow)  # it runs in processes of its own
KINDS = ["default", "journal", "sqlite", SERVER]


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with postgres() as found:
        yield found


@pytest.fixture
def storage(request, tmp_path, monkeypatch) -> str | None:
    """A storage of each kind, without any study."""
    if request.param == "postgresql":
        port = request.getfixturevalue("port")
        monkeypatch.setenv("PGPASSWORD", PASSWORD)
        url = f"postgresql+psycopg://ofbnas@127.0.0.1:{port}/ofbnas"
        for name in optuna.get_all_study_names(storage_of(config(storage=url), tmp_path)):
            optuna.delete_study(study_name=name, storage=storage_of(config(storage=url), tmp_path))
        return url
    places = {
        "default": None,
        "journal": str(tmp_path / "all.log"),
        "sqlite": f"sqlite:///{tmp_path}/all.db",
    }
    return places[request.param]


every_kind = pytest.mark.parametrize("storage", KINDS, indirect=True)
shared_kinds = pytest.mark.parametrize("storage", KINDS[1:], indirect=True)


@every_kind
def test_each_storage_keeps_a_study_as_its_table_has_it(storage, tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    study = config(storage=storage, sampler="random", start=[{"search.budget.gmacs_share": 0.6}])
    drawn, found = run(study, folder, 4)
    assert [trial.params for trial in found.trials] == drawn
    kept = [read_row(folder, number) for number in range(4)]
    assert [trial.values for trial in found.trials] == [[row.val_top1, row.gmacs] for row in kept]
    assert (folder / "journal.log").exists() == (storage is None)
    again = StudySearch(study, folder)
    assert again.suggest("t")["trial"] == 4
    told = read_journal(study, folder, connect=storage is not None)
    assert [trial["trial"] for trial in told["running"]] == [4] and told["importance"][
        "trials"
    ] == 4


@every_kind
@pytest.mark.slow
def test_the_dashboard_opens_each_storage(storage, tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    run(config(storage=storage), folder, 3)
    paths = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    command = [
        shutil.which("optuna-dashboard", path=paths), storage or folder / "journal.log", "--host", "127.0.0.1",
    ]  # fmt: skip
    with (
        reserved_port() as port,
        subprocess.Popen(
            [*command, "--port", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        ) as server,
    ):
        try:
            studies = None
            while studies is None:
                assert server.poll() is None, server.stderr.read()
                try:
                    studies = json.load(
                        urllib.request.urlopen(f"http://127.0.0.1:{port}/api/studies")
                    )
                except OSError:
                    time.sleep(0.2)
            found = next(one for one in studies["study_summaries"] if one["study_name"] == "digits")
            url = f"http://127.0.0.1:{port}/api/studies/{found['study_id']}?after=0"
            trials = json.load(urllib.request.urlopen(url))["trials"]
            assert [trial["state"] for trial in trials] == ["Complete"] * 3
        finally:
            server.terminate()


@shared_kinds
def test_folders_with_studies_of_one_name_do_not_mix(storage, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    study = config(storage=storage)
    run(study, first, 1)
    with pytest.raises(
        InputError, match=f"sweep.storage .*: has a study digits already, of the folder {first}"
    ):
        StudySearch(study, second)
    run(config(storage=storage, n_trials=3).model_copy(update={"name": "other"}), second, 1)
    moved = first.rename(tmp_path / "moved")
    assert StudySearch(study, moved).suggest("t")["trial"] == 1, (
        "a folder that was moved is still the same"
    )
    optuna.create_study(study_name="foreign", storage=storage_of(study, moved))
    with pytest.raises(InputError, match="foreign already, made by other means"):
        StudySearch(study.model_copy(update={"name": "foreign"}), tmp_path / "third")


@shared_kinds
def test_a_storage_without_the_study_is_refused(storage, tmp_path):
    run(config(), tmp_path, 2)
    (tmp_path / "study.yaml").write_text(dump_study(config()))
    with pytest.raises(InputError, match="table has 2 trials, but sweep.storage .* has 0 of them"):
        StudySearch(config(storage=storage), tmp_path)


@pytest.mark.parametrize("storage", [SERVER], indirect=True)
@pytest.mark.parametrize("given", ["in clear", "in a variable", "PGPASSWORD"])
def test_a_password_is_never_written_and_never_printed(
    storage, tmp_path, monkeypatch, given, capfd
):
    written = {
        "in clear": quote(PASSWORD, safe=""),
        "in a variable": "${OFBNAS_SECRET}",
        "PGPASSWORD": None,
    }[given]
    url = storage if written is None else storage.replace("ofbnas@", f"ofbnas:{written}@")
    if given != "PGPASSWORD":
        monkeypatch.delenv("PGPASSWORD")
    monkeypatch.setenv("OFBNAS_SECRET", PASSWORD)
    (tmp_path / "study.yaml").write_text(dump_study(config(storage=url)))
    study = load_study(DIGITS, [f"sweep.storage={url}"])
    assert run(study, tmp_path / "out", 1)[1].trials[0].values, (
        "the password reaches the server all the same"
    )
    held = load_study(tmp_path / "study.yaml")
    shown = [
        dump_study(study),
        study.model_dump_json(),
        repr(study),
        str(study),
        repr(held),
        *capfd.readouterr(),
    ]
    with pytest.raises(InputError) as told:
        StudySearch(
            load_study(DIGITS, [f"sweep.storage={url.replace('/ofbnas', '/absent')}"]), tmp_path
        )
    for text in [*shown, str(told.value)]:
        assert PASSWORD not in text and quote(PASSWORD, safe="") not in text
    if given == "in clear":
        assert held.sweep.storage == storage.replace("ofbnas@", "ofbnas:${OFBNAS_DB_PASSWORD}@")
        with pytest.raises(InputError, match="set the environment variable OFBNAS_DB_PASSWORD"):
            storage_of(held, tmp_path)
        monkeypatch.setenv("OFBNAS_DB_PASSWORD", PASSWORD)
    assert (
        len(optuna.load_study(study_name="digits", storage=storage_of(held, tmp_path)).trials) == 1
    )


@pytest.mark.parametrize(
    ("url", "told"),
    [
        (
            "postgresql+psycopg://ofbnas@127.0.0.1:1/ofbnas",
            "cannot be used .*refused.*check that the server runs",
        ),
        ("postgresql+psycopg://ofbnas@127.0.0.1:PORT/absent", "cannot be used .*does not exist"),
        (
            "postgresql+psycopg://ofbnas:${OFBNAS_WRONG}@127.0.0.1:PORT/ofbnas",
            "cannot be used .*password authentication failed",
        ),
        (
            "postgresql+psycopg://ofbnas:${OFBNAS_UNSET}@127.0.0.1:PORT/ofbnas",
            "set the environment variable OFBNAS_UNSET",
        ),
        (
            "mysql+mysqlconnector://ofbnas@127.0.0.1/ofbnas",
            "Python driver is not installed .*mysql.*; pip install",
        ),
        (
            "postgresql+nothing://ofbnas@127.0.0.1/ofbnas",
            "a driver that is unknown; expected postgresql.psycopg",
        ),
        ("sqlite:///no/such/folder/study.db", "cannot be used .*unable to open database file"),
        ("no/such/folder/study.log", "not a journal of Optuna's .*No such file"),
        (str(DIGITS), "not a journal of Optuna's"),
    ],
)
def test_problems_with_a_storage_are_reported_in_one_line(port, url, told, tmp_path, monkeypatch):
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    monkeypatch.setenv("OFBNAS_WRONG", "mistaken")
    before = DIGITS.read_bytes()
    with pytest.raises(InputError, match=f"^sweep.storage .*{told}") as error:
        StudySearch(config(storage=located(url.replace("PORT", str(port)), tmp_path)), tmp_path)
    assert len(str(error.value).splitlines()) == 1 and "mistaken" not in str(error.value)
    assert DIGITS.read_bytes() == before


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("postgres://ofbnas:hidden@127.0.0.1/ofbnas", "postgres://..., which cannot be read"),
        ("postgresql://ofbnas:hidden", "postgresql://..., which cannot be read"),
        ("postgresql://ofbnas:hid@den@127.0.0.1/ofbnas", "more than one @; write %40"),
        ("postgresql://127.0.0.1/ofbnas?password=hidden", "a password among its options"),
        ("redis://127.0.0.1", "which cannot be read as a URL; expected postgresql"),
        *(
            (
                f"postgresql://u:${{{name}}}@127.0.0.1/n",
                f"from {name}, expected a variable whose name begins with OFBNAS_",
            )
            for name in ("AWS_SECRET_ACCESS_KEY", "PATH", "XOFBNAS_", "ofbnas_x")
        ),
        ("sqlite://", "names no file"),
        ("'sqlite:///:memory:'", "names no file"),
    ],
)
def test_an_invalid_storage_is_refused_without_its_password(given, told):
    with pytest.raises(InputError, match=f"sweep.storage .*{told}") as error:
        load_study(DIGITS, [f"sweep.storage={given}"])
    assert "hid" not in str(error.value)


def test_paths_are_looked_up_from_the_studys_folder_and_those_of_set_from_here(
    tmp_path, monkeypatch
):
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path)
    for given, found in (
        ("all.log", "{}/all.log"),
        ("sqlite:///all.db?timeout=5", "sqlite:///{}/all.db?timeout=5"),
    ):
        (tmp_path / "there" / "study.yaml").write_text(dump_study(config(storage=given)))
        assert load_study(tmp_path / "there" / "study.yaml").sweep.storage == found.format(
            tmp_path / "there"
        )
        assert load_study(DIGITS, [f"sweep.storage={given}"]).sweep.storage == found.format(
            tmp_path
        )


def test_sqlite_is_for_one_machine():
    check_storage(config(storage="sqlite:///all.db"), nodes=1)
    check_storage(config(storage="postgresql://h/n"), nodes=2)
    check_storage(config(), nodes=2)
    with pytest.raises(
        InputError, match="sqlite:///all.db: SQLite is for one machine, and there are 2; leave"
    ):
        check_storage(config(storage="sqlite:///all.db"), nodes=2)


@shared_kinds
def test_a_served_report_looks_again_when_a_trial_begins(storage, tmp_path, monkeypatch):
    study = config(storage=storage)
    search = StudySearch(study, tmp_path)
    (tmp_path / "study.yaml").write_text(dump_study(study))
    before = stamp(tmp_path, connect=True)
    search.suggest("t")
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 6)
    assert stamp(tmp_path, connect=True) != before


@pytest.mark.parametrize("storage", [SERVER], indirect=True)
def test_a_server_that_goes_away_is_reported_in_one_line(storage, tmp_path, monkeypatch):
    from ofbnas.study.tuning.storage import readable

    study = config(storage=storage)
    search = StudySearch(study, tmp_path)
    number = search.suggest("t")["trial"]
    write_row(tmp_path, row(number))
    monkeypatch.setenv("PGPASSWORD", "changed meanwhile")
    with (
        pytest.raises(InputError, match="sweep.storage .*: cannot be used .*password"),
        readable(study),
    ):
        search.on_trial_complete("t")
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    assert (
        StudySearch(study, tmp_path).study.trials[number].state == optuna.trial.TrialState.COMPLETE
    )


@pytest.mark.slow
@pytest.mark.parametrize("storage", [SERVER], indirect=True)
def test_a_killed_study_resumes_from_its_database(storage, tmp_path):
    changes = LONG | {"sweep": STUDY["sweep"] | {"n_trials": 2, "storage": storage}}
    file, out = write(tmp_path, **changes), tmp_path / "out"

    def trials():
        return optuna.load_study(
            study_name="small", storage=storage_of(load_study(file), out)
        ).trials

    study = start(file, out)
    wait(lambda: list(out.glob("checkpoints/*/search.pt")))
    kill_everything(study)
    left = trials()
    assert any(trial.state.name == "RUNNING" for trial in left)
    finish(file, out)
    after, table = trials(), ofbnas.read_table(out)
    assert [trial.state.name for trial in after] == ["COMPLETE"] * 2
    assert all(
        old.params.items() <= new.params.items() for old, new in zip(left, after, strict=False)
    )
    assert [trial.values for trial in after] == [
        list(v) for v in table[["val_top1", "gmacs"]].to_numpy()
    ]
    assert not (out / "journal.log").exists()
