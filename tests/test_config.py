"""Reading studies: what is written is what is meant, and mistakes are named."""

from __future__ import annotations

import re

import pytest
import yaml
from conftest import DIGITS, ROOT

from ofbnas.config import BudgetConfig, RampConfig, SearchConfig, SpaceConfig
from ofbnas.errors import InputError
from ofbnas.study_file import dump_study, load_space, load_study


def edited(tmp_path, **changes):
    """The digits study with fields changed, as a file."""
    tree = yaml.safe_load(DIGITS.read_text())
    for path, value in changes.items():
        *parents, leaf = path.split("__")
        place = tree
        for key in parents:
            place = place[key]
        place[leaf] = value
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump(tree, sort_keys=False))
    return file


@pytest.mark.parametrize("file", sorted((ROOT / "studies").glob("*.yaml")), ids=lambda f: f.name)
def test_shipped_studies_are_valid_and_survive_writing(file, tmp_path):
    study = load_study(file)
    (tmp_path / "again.yaml").write_text(dump_study(study))
    assert load_study(tmp_path / "again.yaml") == study


@pytest.mark.parametrize("file", sorted((ROOT / "search_spaces").glob("*.yaml")), ids=lambda f: f.name)
def test_shipped_spaces_are_valid(file):
    assert load_space(file) != SpaceConfig()


def test_settings_override_fields():
    study = load_study(DIGITS, ["search.epochs=7", "sweep.sampler=random", "search.budget.gmacs=0.0004"])
    assert (study.search.epochs, study.sweep.sampler) == (7, "random")
    assert study.search.budget == BudgetConfig(gmacs=0.0004), "an absolute limit replaces the share"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"search__epocs": 5}, r"line \d+: unknown key search.epocs; did you mean epochs\?"),
        ({"serach": {}}, r"line \d+: unknown key serach; did you mean search\?"),
        ({"search__epochs": "many"}, r"line \d+: search.epochs is 'many': .*integer"),
        ({"search__epochs": 0}, r"search.epochs is 0: .*greater than 0"),
        ({"search__budget": {"gmacs": -1}}, r"line \d+: search.budget.gmacs is -1: .*greater than 0"),
        ({"search__budget": {"gmacs": float("nan")}}, r"search.budget.gmacs is nan: .*finite"),
        ({"search__budget": {}}, r"search.budget gives nothing; give one of gmacs, params"),
        ({"search__budget": {"gmacs": 1.0, "params": 5}}, r"gives gmacs and params; give one"),
        ({"data__name": "cifar"}, r"data.name is 'cifar': .*'digits' or 'fashion_mnist'"),
        ({"sweep__sampler": "magic"}, r"sweep.sampler is 'magic': .*'tpe'"),
        ({"sweep__params": {"search.epocs": {"low": 1, "high": 2}}}, r"unknown key search.epocs"),
        ({"sweep__params": {"model.name": {"choices": ["a"]}}}, r"has model.name; fields of search and finetune"),
        ({"sweep__params": {"search.lr": {"low": -1.0, "high": 2.0}}}, r"search.lr is -1.0: .*greater than 0"),
        ({"sweep__params": {"search.lr": {"low": 2.0, "high": 1.0}}}, r"low 2.0 is above high 1.0"),
        ({"sweep__params": {"search.lr": {"low": 0.0, "high": 1.0, "log": True}}}, r"log needs low above 0"),
        ({"sweep__params": {"search.lr": {"lo": 0.0, "high": 1.0}}}, r"sweep.params.search.lr"),
        ({"name": "a/b"}, r"name is 'a/b'"),
        ({"pretrain": None}, r"no weights for the parent"),
        ({"search_space": "vitt"}, r"search_space vitt is unknown, expected .*vit"),
        ({"search_space": "nowhere.yaml"}, r"nowhere.yaml: no such file"),
        ({"objectives": [{"metric": "speed", "direction": "maximize"}]}, r"objectives.0.metric is 'speed'"),
    ],
)
def test_mistakes_are_named_in_one_line(tmp_path, changes, message):
    with pytest.raises(InputError) as error:
        load_study(edited(tmp_path, **changes))
    assert re.search(message, str(error.value)), str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds nothing"),
        ("- a\n- b\n", "holds a list"),
        ("name: [1, 2\n", "line 2: no valid YAML"),
        ("name: x\n\tseed: 1\n", "no valid YAML"),
        ("\x00\x01", "no valid YAML"),
        ("name: x\n", "model is missing"),
    ],
)
def test_files_that_are_no_study_are_refused(tmp_path, text, message):
    file = tmp_path / "study.yaml"
    file.write_text(text)
    with pytest.raises(InputError, match=message):
        load_study(file)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        load_study(tmp_path / "none.yaml")
    with pytest.raises(InputError, match="cannot be read"):
        load_study(tmp_path)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("search.epochs", "expected FIELD=VALUE"),
        ("search.epocs=5", "did you mean epochs"),
        ("search.epochs=x", "search.epochs is 'x'"),
        ("search.epochs=[1", "no valid YAML"),
        ("name.deep=1", "name"),
    ],
)
def test_wrong_settings_are_named(setting, message):
    with pytest.raises(InputError, match=message):
        load_study(DIGITS, [setting])


def test_budgets_have_their_units():
    assert BudgetConfig(gmacs=1.5).limit(10**12) == 1_500_000_000
    assert BudgetConfig(params=1e6).limit(10**9) == 1_000_000
    assert BudgetConfig(gmacs_share=0.5).limit(11) == 5, "rounded down, so that the share is never exceeded"
    assert [BudgetConfig(params_share=0.5).metric(), BudgetConfig(gmacs=1).metric()] == ["params", "macs"]


def test_ramps_go_along_a_line_and_stay():
    ramp = RampConfig(start=1.0, end=0.0, warmup=0.5)
    assert [ramp.at(progress) for progress in (0, 0.25, 0.5, 1)] == [1.0, 0.5, 0.0, 0.0]
    assert RampConfig(start=1.0, end=0.2, warmup=0.0).at(0.0) == 0.2


def test_every_field_of_a_search_can_be_swept_or_set():
    values = {"epochs": 3, "lr": 0.5, "threshold": 0.3, "one_hot_weight": 1.5, "alpha_lr": 0.2, "beats_per_epoch": 2}
    study = load_study(DIGITS).with_values({f"search.{name}": value for name, value in values.items()})
    assert study.search == SearchConfig(**{**study.search.model_dump(), **values})
