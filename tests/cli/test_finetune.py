"""ofbnas finetune: a table's network is trained further, and its row says where it came from."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from commands import ofbnas
from conftest import KWARGS, NAME, make
from events import Killed, Recorder
from safetensors.torch import save_file
from test_images import picture

from ofbnas.config import FinetuneConfig
from ofbnas.config.study_file import load_study
from ofbnas.errors import InputError
from ofbnas.models.axes import axes
from ofbnas.models.classifier import with_classifier
from ofbnas.models.subnet import Architecture, Subnet, load
from ofbnas.study.finetuned import Finetuning, parent_of, run_finetuning
from ofbnas.study.images import data_of
from ofbnas.study.networks import find_network
from ofbnas.study.validate import validate
from ofbnas.table.store import read_table
from ofbnas.training.finetune import finetune
from ofbnas.training.quality import on_test

STUDY = {
    "name": "small",
    "model": {"name": NAME, "kwargs": {k: v for k, v in KWARGS.items() if k != "num_classes"}},
    "data": {"name": "digits", "train_share": 0.3},
    "search": {
        "epochs": 0,
        "budget": {"gmacs_share": 0.7},
        "compensation": {"images": 64},
        "training_free": {"scoring_images": 64},
    },
    "sweep": {"n_trials": 1},
}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A study's folder with a network that was found without training, and its parent's weights."""
    folder = tmp_path_factory.mktemp("studies") / "small"
    folder.mkdir()
    save_file(make().state_dict(), folder / "parent.safetensors")
    text = STUDY | {"model": STUDY["model"] | {"checkpoint": "parent.safetensors"}}
    (folder / "study.yaml").write_text(yaml.safe_dump(text))
    done = ofbnas("search", folder / "study.yaml", "--output", folder)
    assert done.returncode == 0, done.stderr
    assert done.stderr.endswith(f"written to {folder}\n")
    text["finetune"] = {"epochs": 1, "batch_size": 32, "distill": {"features": 1.0}}
    (folder / "study.yaml").write_text(yaml.safe_dump(text))
    return folder


@pytest.fixture
def command(study, tmp_path):
    """Fine-tunes the study's network into a folder, and returns the printed row."""

    def run(*words, table=study, folder="tuned"):
        (row,) = read_table(study).to_dict("records")
        out = tmp_path / folder
        done = ofbnas(
            "finetune", table, "--arch", row["arch_id"][:4], "--output", out, "--json", *words
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout), row, out

    return run


def refused(study, *words, table=None) -> str:
    (arch_id,) = read_table(study)["arch_id"]
    done = ofbnas("finetune", table or study, "--arch", arch_id, *words)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    return done.stderr


def tensors(folder, arch_id):
    return find_network(folder, arch_id).subnet.model.state_dict()


def equal(one, other) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_the_row_is_in_a_table_of_its_own_and_names_where_it_came_from(command, study):
    row, before, out = command()
    assert row["from_arch_id"] == row["arch_id"] == before["arch_id"]
    assert row["from_weights_sha256"] == before["weights_sha256"] != row["weights_sha256"]
    assert (row["study"], row["trial"], row["finetune_epochs"]) == ("small-finetune", 0, 1)
    assert row["top1_before_finetune"] == before["top1"]
    assert row["parent_top1"] == before["parent_top1"] and row["gmacs"] == before["gmacs"]
    assert json.loads(row["finetune"])["batch_size"] == 32

    # It learned from the study's parent, as the study does.
    settings = load_study(study / "study.yaml")
    subnet = find_network(study, row["arch_id"]).subnet
    expected = finetune(subnet, data_of(settings), settings.finetune, teacher=make())
    assert equal(tensors(out, row["arch_id"]), expected.model.state_dict())
    card = (out / "subnets" / row["arch_id"] / "README.md").read_text()
    assert f"Found by ofbnas as {row['arch_id']}, and fine-tuned." in card

    assert not validate(out).problems and not (out / "checkpoints").exists()
    for words in (["arch", "list"], ["arch", "show", "--arch", row["arch_id"]], ["front", "show"]):
        shown = ofbnas(*words[:2], out, *words[2:])
        assert shown.returncode == 0 and row["arch_id"] in shown.stdout, shown.stderr
    measured = json.loads(ofbnas("evaluate", out, "--arch", row["arch_id"], "--json").stdout)
    assert measured["top1"] == row["top1"]


def test_settings_of_the_command_line_take_precedence(command, study):
    words = ["--no-distill", "--lr", "0.003", "--set", "finetune.label_smoothing=0.0", "--seed", 3]
    row, _, out = command(*words)
    settings = FinetuneConfig(epochs=1, batch_size=32, lr=0.003, label_smoothing=0.0)
    subnet = find_network(study, row["arch_id"]).subnet
    expected = finetune(subnet, data_of(load_study(study / "study.yaml")), settings, seed=3)
    assert equal(tensors(out, row["arch_id"]), expected.model.state_dict())
    assert json.loads(row["finetune"]) == settings.model_dump(exclude_defaults=True)


def test_a_table_without_its_study_needs_epochs_and_a_parent_to_distil(command, study, tmp_path):
    table = shutil.copytree(study, tmp_path / "pulled")
    (table / "study.yaml").unlink()
    assert "finetune.epochs is missing: give --epochs" in refused(study, table=table)
    assert "give --parent FILE or --study" in refused(
        study, "--epochs", 1, "--distill", table=table
    )
    row, _, _ = command("--epochs", 1, table=table)
    assert "distill" not in json.loads(row["finetune"])
    taught, _, _ = command(
        "--epochs", 1, "--parent", study / "parent.safetensors", table=table, folder="taught"
    )
    assert json.loads(taught["finetune"])["distill"] == {}
    assert taught["weights_sha256"] != row["weights_sha256"]
    by_study, _, _ = command("--study", study / "study.yaml", table=table, folder="by_study")
    assert json.loads(by_study["finetune"])["distill"] == {"features": 1.0}


@pytest.fixture(scope="module")
def flowers(tmp_path_factory):
    """A folder of grey pictures of three classes."""
    root = tmp_path_factory.mktemp("flowers")
    for split, count in {"train": 8, "validation": 5}.items():
        for label in range(3):
            folder = root / split / f"class_{label}"
            folder.mkdir(parents=True)
            for number in range(count):
                picture(label, number).convert("L").save(folder / f"{number}.png")
    return root


def test_other_classes_get_a_new_classifier(command, study, flowers):
    data = [flowers, "num_classes=3", "mean=[0.5]", "std=[0.5]", "val_share=0.3", "workers=1"]
    words = [f"--data={word}" for word in data]
    row, before, out = command(*words, "--set", "finetune.batch_size=8")
    assert row["from_arch_id"] == before["arch_id"] != row["arch_id"]
    assert row["num_classes"] == 3 and row["dataset"] == flowers.name
    assert row["params"] == before["params"] - 7 * (row["architecture"]["embed"][0] + 1)
    assert row["parent_top1"] is None and row["top1_before_finetune"] is None
    assert tensors(out, row["arch_id"])["head.weight"].shape[0] == 3
    assert not validate(out).problems
    assert "which its parent does not know" in refused(study, *words, "--distill")
    asked = ["evaluate", out, "--arch", row["arch_id"], "--json", f"--data={flowers}"]
    measured = json.loads(ofbnas(*asked, "--data=workers=1").stdout)
    assert measured["top1"] == row["top1"] and measured["images"] == 15


def test_a_new_classifier_changes_nothing_else(study, images):
    subnet = find_network(study, read_table(study)["arch_id"][0]).subnet
    torch.manual_seed(0)
    other = with_classifier(subnet, 3)
    assert other.model(images).shape == (3, 3) and other.units == subnet.units
    features = subnet.model.forward_features(images)
    assert torch.equal(other.model.forward_features(images), features)
    assert other.architecture.sizes == subnet.architecture.sizes


def test_one_that_is_stopped_ends_as_one_that_is_not(study, tmp_path):
    settings = load_study(study / "study.yaml")
    config = settings.finetune.model_copy(update={"epochs": 2})
    network = find_network(study, read_table(study)["arch_id"][0])
    finetuning = Finetuning(network, settings.data, config)
    data = data_of(settings)
    parent = parent_of(finetuning, settings, data)

    def run(folder, told=None, of=finetuning):
        callbacks = [] if told is None else [told]
        return run_finetuning(of, data, tmp_path / folder, parent, callbacks)

    whole = run("whole")
    with pytest.raises(Killed):
        run("broken", Recorder(killed_after=1))
    # Another one in the same folder takes neither its number nor its checkpoint.
    other = run("broken", of=replace(finetuning, seed=1))
    assert other.trial == 1 and other.weights_sha256 != whole.weights_sha256
    told = Recorder()
    again = run("broken", told)
    assert [epoch for epoch, _ in told.epochs] == [2] and again.trial == 0
    assert again.weights_sha256 == whole.weights_sha256
    assert again.top1 == whole.top1 == on_test(network_of(again, tmp_path / "broken"), data)["top1"]
    assert not (tmp_path / "broken" / "checkpoints").exists()


def network_of(row, folder):
    return load((folder / row.weights).parent, row.weights_sha256).model


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--set", "search.epochs=3"], "expected a field of finetune"),
        (["--set", "finetune.optimiser=sgd"], "unknown key finetune.optimiser; did you mean"),
        (["--set", "finetune.optimizer=no_such"], "no_such"),
        (["--epochs", "0"], "finetune.epochs is 0"),
        (["--data", "fashion_mnist"], "takes images of (1, 8, 8)"),
        (["--parent", "missing.pth"], "missing.pth: no such file"),
        (["--study", "missing.yaml"], "missing.yaml: no such file"),
    ],
)
def test_what_cannot_be_done_is_reported_in_one_line(study, words, message):
    assert message in refused(study, *words)


def test_missing_networks_are_reported_in_one_line(study, tmp_path):
    unknown = ofbnas("finetune", study, "--arch", "ffff")
    assert unknown.returncode == 2 and "no architecture has it; expected one of" in unknown.stderr
    table = shutil.copytree(study, tmp_path / "table")
    shutil.rmtree(table / "subnets")
    assert "the weights of" in refused(study, table=table)
    assert "is a study's folder" in refused(study, "--output", study)


def test_a_study_with_another_parent_does_not_teach(study, tmp_path):
    text = yaml.safe_load((study / "study.yaml").read_text())
    text["model"] = {"name": NAME, "kwargs": text["model"]["kwargs"] | {"depth": 3}}
    text["pretrain"] = {"epochs": 1}
    other = Path(tmp_path / "other.yaml")
    other.write_text(yaml.safe_dump(text))
    assert "give the study that found it" in refused(study, "--study", other)


def test_a_subnet_that_does_not_say_its_channels_is_not_distilled(data):
    model = make()
    sizes = {axis.name: axis.size for axis in axes(model, {})}
    subnet = Subnet(Architecture(NAME, KWARGS, sizes), model)
    with pytest.raises(InputError, match="cannot be distilled"):
        finetune(subnet, data, FinetuneConfig(epochs=1, distill={}), teacher=model)
