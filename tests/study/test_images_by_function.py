"""Images that a Python function makes, named in a study: found, checked, and called for no stranger."""

from __future__ import annotations

import json
import shutil
import sys

import pytest
import yaml
from commands import ofbnas
from conftest import KWARGS, NAME

from ofbnas.config.study_file import load_study
from ofbnas.errors import InputError
from ofbnas.study.images import data_of
from ofbnas.table.store import read_table

MODULE = '''
"""Images of noise, for tests."""
from pathlib import Path

import torch
from torch.utils.data import TensorDataset

import ofbnas


def make(count=60, size=8, classes=10):
    Path(__file__).with_name("called").touch()
    images = torch.rand(count, 1, size, size, generator=torch.Generator().manual_seed(0))
    split = TensorDataset(images, torch.arange(count) % classes)
    return ofbnas.data_from(split, split, num_classes=classes)


def nothing():
    return None
'''
NAME_OF_MODULE = "noise_of_tests"


@pytest.fixture(autouse=True)
def path(monkeypatch):
    """Python's path and modules as they were."""

    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    sys.modules.pop(NAME_OF_MODULE, None)


def study_with(folder, **data):
    """A study in a folder of its own, and the module of its images beside it."""
    folder.mkdir(exist_ok=True)
    (folder / f"{NAME_OF_MODULE}.py").write_text(MODULE)
    tree = {
        "name": "own",
        "model": {"name": NAME, "kwargs": {k: v for k, v in KWARGS.items() if k != "num_classes"}},
        "data": {"name": f"{NAME_OF_MODULE}:make", "num_classes": 10} | data,
        "pretrain": {"epochs": 1, "batch_size": 30},
        "search": {"epochs": 1, "batch_size": 30, "budget": {"gmacs_share": 0.6}},
    }
    tree["search"]["refine"] = {"candidates": 0}
    file = folder / "study.yaml"
    file.write_text(yaml.safe_dump(tree))
    return file


def test_the_function_lies_beside_the_study_and_gets_its_arguments(tmp_path):
    data = data_of(load_study(study_with(tmp_path / "mine", kwargs={"count": 40})))
    assert data.train_images == 40 and data.num_classes == 10


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"name": "no_such_module:make"}, "there is no module no_such_module in .*data.path"),
        ({"name": f"{NAME_OF_MODULE}:missing"}, "has no function missing"),
        ({"name": f"{NAME_OF_MODULE}:nothing"}, "returns a NoneType, expected an ofbnas.Data"),
        ({"num_classes": 5}, "data.num_classes is 5, but .* makes data with 10"),
        ({"train_images": 61}, "data.train_images is 61, but .* makes data with 60"),
        ({"kwargs": {"size": 12}}, r"makes images of \(1, 12, 12\).* takes \(1, 8, 8\)"),
    ],
)
def test_what_does_not_fit_is_said(tmp_path, data, message):
    with pytest.raises(InputError, match=message):
        data_of(load_study(study_with(tmp_path / "mine", **data)))


def test_a_missing_import_of_the_users_module_is_their_own_traceback(tmp_path):
    file = study_with(tmp_path / "mine")
    (tmp_path / "mine" / f"{NAME_OF_MODULE}.py").write_text("import not_installed_anywhere\n")
    with pytest.raises(ModuleNotFoundError, match="not_installed_anywhere"):
        data_of(load_study(file))


def test_a_plan_calls_no_function_unless_it_may(tmp_path):
    file = study_with(tmp_path / "mine")
    refused = ofbnas("study", "plan", file)
    assert refused.returncode == 2 and "--connect, or data.train_images" in refused.stderr
    assert not file.with_name("called").exists()
    stated = ofbnas("study", "plan", file, "--set", "data.train_images=60", "--json")
    assert json.loads(stated.stdout)["train_images"] == 60
    assert not file.with_name("called").exists()
    counted = ofbnas("study", "plan", file, "--connect", "--json")
    assert json.loads(counted.stdout)["train_images_counted"] and file.with_name("called").exists()


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """The folder of a search of such a study, as if a stranger had given it."""
    folder = tmp_path_factory.mktemp("stranger")
    file = study_with(folder / "mine")
    done = ofbnas("search", file, "--output", folder / "table", "--json")
    assert done.returncode == 0, done.stderr
    shutil.copy(file, folder / "table" / "study.yaml")
    (folder / "mine" / "called").unlink()
    return folder


@pytest.mark.parametrize("with_study", [True, False], ids=["study", "rows"])
@pytest.mark.parametrize("command", ["evaluate", "finetune", "arch export"])
def test_no_function_that_only_a_table_names_is_called(searched, tmp_path, command, with_study):
    table = shutil.copytree(searched / "table", tmp_path / "table")
    shutil.copy(searched / "mine" / f"{NAME_OF_MODULE}.py", table)
    if not with_study:
        (table / "study.yaml").unlink()
    (arch,) = read_table(table)["arch_id"]
    words = [*command.split(), table, "--arch", arch]
    refused = ofbnas(*words, cwd=table)
    assert refused.returncode == 2, refused.stderr
    assert f"--data {NAME_OF_MODULE}:make allows it" in refused.stderr
    assert not list(tmp_path.rglob("called"))


def test_a_function_that_the_user_names_is_called_where_the_user_is(searched, tmp_path):
    (tmp_path / f"{NAME_OF_MODULE}.py").write_text(MODULE)
    table = searched / "table"
    row = read_table(table).iloc[0]
    words = ["evaluate", table, "--arch", row["arch_id"], "--data", f"{NAME_OF_MODULE}:make"]
    done = ofbnas(*words, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["top1"] == row["top1"]
    assert (tmp_path / "called").exists() and not (searched / "mine" / "called").exists()


def test_fine_tuning_with_other_images_calls_no_function_for_the_parent(searched):
    table = searched / "table"
    (arch,) = read_table(table)["arch_id"]
    words = ["finetune", table, "--arch", arch, "--data", "digits", "--distill", "--epochs", 1]
    refused = ofbnas(*words, cwd=searched)
    assert refused.returncode == 2, refused.stderr
    assert "makes the images of the parent" in refused.stderr
    assert not (searched / "mine" / "called").exists()
