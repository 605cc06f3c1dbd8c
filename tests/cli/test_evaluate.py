"""ofbnas evaluate on tables with weights: what a row says about its images, and what --data adds."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import timm
import torch
from commands import ofbnas
from conftest import DIGITS, KWARGS, NAME, ROOT, make
from safetensors.torch import save_file
from sharing import best, get
from test_images import picture

from ofbnas.config.study_file import dump_study, load_study
from ofbnas.study.images import data_record
from ofbnas.study.networks import load_subnet
from ofbnas.study.trial import base_row
from ofbnas.study.validate import validate
from ofbnas.table.merge import merge
from ofbnas.table.schema import SCHEMA
from ofbnas.table.sharing.share import push
from ofbnas.table.store import read_table, write_table
from ofbnas.training.data import load_data, load_test
from ofbnas.training.evaluation import evaluate

BEFORE = ROOT / "tests" / "data" / "table-before-data"
DATA = {"name": "digits", "split_seed": 5, "test_share": 0.3}


@pytest.fixture
def telling(small_study, tmp_path):
    """A table with its weights but without a study.yaml; its rows say which images were used."""

    def tell(data) -> Path:
        folder = shutil.copytree(small_study, tmp_path / "table")
        rows = read_table(folder).assign(
            data=data if data is None or isinstance(data, str) else json.dumps(data)
        )
        shutil.rmtree(folder / "architectures")
        write_table(rows, folder / "architectures" / "all.parquet")
        return folder

    return tell


def measured(table, *data):
    """What the command prints for the first network on the front."""
    done = ofbnas(
        "evaluate", table, "--arch", best(table)[0], *(f"--data={word}" for word in data), "--json"
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def refused(table, *data, **more):
    done = ofbnas(
        "evaluate", table, "--arch", best(table)[0], *(f"--data={word}" for word in data), **more
    )
    assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1, done.stderr
    return done.stderr


def directly(table, **data):
    """The same accuracy, measured by the package's functions."""
    return evaluate(load_subnet(table, best(table)[0]), load_data(**data).test)


def test_a_pulled_or_merged_table_of_digits_needs_nothing_else(telling, tmp_path):
    push(str(telling(DATA)), str(tmp_path / "shared"), notify=print)
    table = tmp_path / "got"
    get(tmp_path / "shared", table)
    assert not (table / "study.yaml").exists()
    found = measured(table)
    expected = directly(table, **DATA)
    assert (found["top1"], found["top5"], found["images"]) == (expected.top1, expected.top5, 540)
    assert found["recorded_top1"] == read_table(table).set_index("arch_id")["top1"][best(table)[0]]
    assert found["dataset"] == "digits" and found["recorded_top5"] is None
    assert measured(table / "architectures.parquet") == found
    merge([table], tmp_path / "merged")
    assert measured(tmp_path / "merged") == found


@pytest.mark.parametrize(
    ("words", "data"),
    [
        (["digits"], DATA),
        (["split_seed=6"], DATA | {"split_seed": 6}),
        (["data.split_seed=6", "name=digits"], DATA | {"split_seed": 6}),
        ([str(DIGITS)], {"name": "digits"}),
        ([str(DIGITS), "test_share=0.4"], {"name": "digits", "test_share": 0.4}),
    ],
)
def test_given_settings_take_precedence_over_the_tables(telling, words, data):
    table = telling(DATA)
    expected = directly(table, **data)
    found = measured(table, *words)
    assert (found["top1"], found["top5"]) == (expected.top1, expected.top5)


@pytest.mark.parametrize("data", [None, "null"])
def test_a_table_that_does_not_name_its_images_needs_them(telling, data):
    table = telling(data)
    told = refused(table)
    assert "does not say which images" in told or "is not a section of a study" in told
    if data is None:
        assert "--data STUDY.yaml, --data NAME such as digits" in told
        assert measured(table, "digits")["top1"] == directly(table, name="digits").top1


def folder_of(root):
    """A folder with test images only: ten classes of grey pictures."""
    for label in range(10):
        (root / "test" / f"class_{label}").mkdir(parents=True)
        for number in range(3):
            place = root / "test" / f"class_{label}" / f"{number}.png"
            picture(label % 3, number + label // 3).convert("L").save(place)
    return root


IMAGES = {
    "name": "folder", "num_classes": 10, "test_split": "test", "mean": [0.3], "std": [0.1], "crop_pct": 1.0,
    "interpolation": "bilinear", "train_images": 99, "val_share": 0.1,
}  # fmt: skip


def test_images_lie_where_the_reader_says_and_look_as_the_table_says(
    telling, tmp_path, monkeypatch
):
    """Normalisation, interpolation and crop are the trial's; path and workers of a row are ignored."""
    images = folder_of(tmp_path / "images")
    table = telling(IMAGES | {"path": str(images), "workers": 10**6})
    assert "data.path is missing: folder needs the folder of the images" in refused(table)
    monkeypatch.chdir(tmp_path)
    found = measured(table, "path=images", "workers=1")
    told = {field: IMAGES[field] for field in IMAGES.keys() - {"train_images", "val_share"}}

    def expected(**changes):
        split = load_test(
            **{**told, "path": images, "workers": 1, "image_size": (1, 8, 8), **changes}
        )
        return evaluate(load_subnet(table, best(table)[0]), split)

    same, other = expected(), expected(mean=[0.9], std=[3.0])
    assert (found["top1"], found["top5"], found["images"]) == (same.top1, same.top5, 30)
    assert same != other, "or this would show nothing"


def test_a_data_set_that_only_the_table_names_is_not_downloaded(telling, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    table = telling(IMAGES | {"name": "hfds/somebody/images"})
    for words in ([], ["path=/tmp"], ["mean=[0.5]"]):
        assert (
            "hfds/somebody/images, which may be downloaded; --data hfds/somebody/images allows it"
            in refused(table, *words)
        )


@pytest.mark.parametrize(
    ("data", "words", "told"),
    [
        (IMAGES | {"num_classes": 3}, ["path={}"], "has 10 classes, but folder has 3; give --data"),
        (DATA | {"name": "fashion_mnist"}, [], "takes images of .1, 8, 8. .*, but fashion_mnist has .1, 28, 28."),
        (IMAGES | {"name": "wds/x"}, [], "data.path is missing: wds/x needs"),
        (IMAGES | {"name": "torch/cifar10"}, [], "data.path is missing: torch/cifar10 needs"),
        (IMAGES | {"test_split": "../test"}, ["path={}"], "is not the name of a folder"),
        (IMAGES | {"crop_pct": 1e-9}, ["path={}"], "data.crop_pct is 1e-09"),
        (IMAGES | {"std": [0.1] * 3}, ["path={}"], "data.std has 3 values for 1 channels"),
        (DATA | {"code": "x"}, [], "unknown key data.code"),
        (DATA, ["shift=["], "not valid YAML"),
        (DATA, ["nothing"], "data.name is 'nothing'"),
        (DATA, [str(DIGITS), str(DIGITS)], "names 2 studies"),
        (DATA, ["no.yaml"], "no such file"),
        ("{", [], "is not JSON"),
        ("[" * 50_000, [], "nested too deep"),
        ('{"name": ["digits"]}', [], "data.name is"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_reported_in_one_line(telling, tmp_path, data, words, told):
    folder_of(tmp_path / "images")
    message = refused(telling(data), *(word.format(tmp_path / "images") for word in words))
    assert pd.Series([message]).str.contains(told)[0], message


def test_images_of_another_number_of_classes_are_refused(telling, tmp_path):
    folder_of(tmp_path / "images")
    shutil.rmtree(tmp_path / "images" / "test" / "class_9")
    assert "test has 9 classes, data.num_classes is 10" in refused(
        telling(IMAGES), f"path={tmp_path / 'images'}"
    )


def test_a_study_has_all_settings_and_only_a_study_has_those_for_latency(telling):
    table = telling(DATA)
    timed = ofbnas("evaluate", table, "--arch", best(table)[0], "--latency")
    assert (
        timed.returncode == 2
        and "is not a study's folder, so there are no settings for timing" in timed.stderr
    )
    (table / "study.yaml").write_text(dump_study(load_study(DIGITS, ["data.split_seed=7"])))
    assert measured(table)["top1"] == directly(table, name="digits", split_seed=7).top1
    assert (
        measured(table, "split_seed=5")["top1"] == directly(table, name="digits", split_seed=5).top1
    )


def test_a_row_says_which_images_were_used_and_nothing_about_the_machine(tmp_path):
    digits = json.loads(base_row(load_study(DIGITS), {}, 0, "complete").data)
    assert digits == {
        "name": "digits", "val_share": 0.15, "test_share": 0.2, "train_share": 1.0, "split_seed": 0, "shift": 1,
        "flip": False,
    }  # fmt: skip
    assert load_data(**digits).train_images == load_data("digits", shift=1).train_images
    imagenet = json.loads(data_record(load_study(ROOT / "studies" / "deit_s.yaml")))
    assert imagenet["mean"] == [0.485, 0.456, 0.406] and imagenet["interpolation"] == "bicubic"
    assert imagenet["crop_pct"] == 0.9 and imagenet["num_classes"] == 1000
    assert not {"path", "workers"} & imagenet.keys() and "/data" not in json.dumps(imagenet)


def test_a_table_that_was_written_before_reads_as_it_did():
    file = BEFORE / "architectures.parquet"
    before = pq.read_table(file)
    assert "data" not in before.column_names
    rows = read_table(BEFORE)
    assert rows["data"].isna().all()
    again = pq.read_table(file, columns=before.column_names).sort_by("trial")
    old = pd.DataFrame({column: rows[column] for column in before.column_names})
    typed = pq.read_table(file).schema
    assert type(again).from_pandas(old, schema=typed, preserve_index=False).equals(again)
    assert SCHEMA.field("data").nullable


def test_the_data_of_a_row_must_be_json(telling):
    assert validate(telling("[1]")).problems[0].what == "has data that is not a JSON object"


def test_a_pipe_is_not_a_study(telling):
    table = telling(DATA)
    os.mkfifo(table / "study.yaml")
    assert measured(table)["images"] == 540


def test_weights_that_are_not_those_recorded_are_not_measured(telling):
    table = telling(DATA)
    file = table / "subnets" / best(table)[0] / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\1")
    assert "the file is not the one recorded" in refused(table)


def test_loss_and_calibration_error_are_those_of_their_definitions():
    data, model = load_data(**DATA), make()
    measured = evaluate(model, data.test, batch_size=100)
    ((images, labels),) = data.test.batches(1000)
    with torch.no_grad():
        probabilities = model(images).softmax(1).double().numpy()
    right = probabilities[range(len(labels)), labels]
    assert measured.loss == pytest.approx(-np.log(right).mean())
    confidence = probabilities.max(1)
    hits = probabilities.argmax(1) == labels.numpy()
    error = 0.0
    for number in range(15):  # Guo et al., 2017, equations 3 and 5
        inside = (confidence > number / 15) & (confidence <= (number + 1) / 15)
        if inside.any():
            error += inside.mean() * abs(hits[inside].mean() - confidence[inside].mean())
    assert measured.ece == pytest.approx(100 * error, abs=1e-4) and error > 0.05
    assert measured.top1 == 100 * hits.mean()


def printed(*words):
    done = ofbnas("evaluate", *words, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_subnets_folder_needs_nothing_but_images(small_study):
    arch_id = best(small_study)[0]
    folder = small_study / "subnets" / arch_id
    measured = printed(folder, "--data=digits")
    expected = evaluate(load_subnet(small_study, arch_id), load_data("digits").test)
    assert measured.pop("params") > 0
    assert measured == {"arch_id": arch_id, "dataset": "digits", "images": 360, **vars(expected)}
    assert printed(folder, "--arch", arch_id[:4], "--data=digits")["top1"] == expected.top1


def test_a_model_of_timm_is_measured_with_the_weights_of_a_file(tmp_path):
    model = make()
    torch.save({"state_dict": model.state_dict()}, tmp_path / "model.pth")
    kwargs = [f"--set=model.kwargs.{name}={value}" for name, value in KWARGS.items()]
    words = [NAME, "--checkpoint", tmp_path / "model.pth", "--data=digits"]
    measured = printed(*words, *(word for word in kwargs if "num_classes" not in word))
    expected = evaluate(model, load_data("digits").test)
    assert measured.items() >= vars(expected).items() and measured["model"] == NAME
    other = ofbnas("evaluate", *words, *kwargs, "--set=model.kwargs.depth=3")
    assert other.returncode == 2 and "lacks blocks.2" in other.stderr, other.stderr


def test_a_model_that_cannot_be_searched_can_be_measured(tmp_path):
    name = "test_resnet"
    images = folder_of(tmp_path / "images")
    model = timm.create_model(name, num_classes=10)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    data = [f"--data={word}" for word in (images, "num_classes=10", "test_split=test", "workers=1")]
    measured = printed(name, "--checkpoint", tmp_path / "model.safetensors", *data)
    of_model = timm.data.resolve_model_data_config(model)
    split = load_test(
        name="folder", path=images, num_classes=10, test_split="test", workers=1,
        image_size=of_model["input_size"],
        **{key: of_model[key] for key in ("mean", "std", "interpolation", "crop_pct")},
    )  # fmt: skip
    assert measured.items() >= vars(evaluate(model, split)).items() and measured["images"] == 30


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["vit_tiny_patch16"], "nor a model of timm"),
        (["runs/nothing", "--arch", "ab"], "no such table"),
        ([NAME, "--data=digits", "--checkpoint", "no.pth", "--set", "x=1"], "model.kwargs.img_size"),
        ([NAME, "--data=digits", "--checkpoint", "no.pth"], "no.pth: no such file"),
        ([NAME, "--checkpoint", "no.pth"], "does not say which images"),
        (["{subnet}"], "does not say which images"),
        (["{subnet}", "--arch", "ffff"], "expected ffff"),
        (["{subnet}", "--checkpoint", "no.pth"], "has its own weights"),
        (["{study}"], "--arch says which of them is meant"),
    ],
)  # fmt: skip
def test_what_is_not_there_is_reported_in_one_line(small_study, words, message):
    subnet = small_study / "subnets" / best(small_study)[0]
    given = [word.format(subnet=subnet, study=small_study) for word in words]
    done = ofbnas("evaluate", *given)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert message in done.stderr, done.stderr
