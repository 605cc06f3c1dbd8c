"""Studies are read as they are written, and mistakes are named."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from conftest import DIGITS, ROOT

from ofbnas.config import (
    BudgetConfig,
    Length,
    RampConfig,
    SearchConfig,
    SpaceConfig,
    Span,
    StudyConfig,
    renamed,
)
from ofbnas.config.images import completed_data
from ofbnas.config.presets import REFERENCE
from ofbnas.config.study_file import dump_study, load_space, load_study, parse_study
from ofbnas.errors import InputError


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


@pytest.mark.parametrize("field", ["search.clip_grad", "resources.stall_factor"])
def test_what_is_switched_off_stays_off_when_it_is_written(field):
    study = load_study(DIGITS, [f"{field}=null"])
    assert study != load_study(DIGITS)
    assert parse_study(dump_study(study)) == study


@pytest.mark.parametrize(
    "file", sorted((ROOT / "search_spaces").glob("*.yaml")), ids=lambda f: f.name
)
def test_shipped_spaces_are_valid(file):
    assert load_space(file) != SpaceConfig()


def test_settings_override_fields():
    study = load_study(
        DIGITS, ["search.epochs=7", "sweep.sampler=random", "search.budget.gmacs=0.0004"]
    )
    assert (study.search.epochs, study.sweep.sampler) == (7, "random")
    assert study.search.budget == BudgetConfig(gmacs=0.0004), "an absolute limit replaces the share"
    counted = load_study(DIGITS, ["search.budget.count=reference"]).search.budget
    assert counted == BudgetConfig(gmacs_share=0.5, count="reference"), (
        "what is no limit replaces none"
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"search__epocs": 5}, r"line \d+: unknown key search.epocs; did you mean epochs\?"),
        ({"serach": {}}, r"line \d+: unknown key serach; did you mean search\?"),
        ({"search__epochs": "many"}, r"line \d+: search.epochs is 'many': .*integer"),
        ({"search__epochs": -1}, r"search.epochs is -1: .*greater than or equal to 0"),
        ({"finetune": {"epochs": 0}}, r"finetune.epochs is 0: .*greater than 0"),
        (
            {"search__budget": {"gmacs": -1}},
            r"line \d+: search.budget.gmacs is -1: .*greater than 0",
        ),
        ({"search__budget": {"gmacs": float("nan")}}, r"search.budget.gmacs is nan: .*finite"),
        ({"search__budget": {}}, r"search.budget gives nothing; give one of gmacs, params"),
        ({"search__budget": {"gmacs": 1.0, "params": 5}}, r"gives gmacs and params; give one"),
        ({"data__name": "cifar"}, r"data.name is 'cifar': .*'digits' or 'fashion_mnist'"),
        ({"sweep__sampler": "magic"}, r"sweep.sampler is 'magic': .*'tpe'"),
        ({"sweep__params": {"search.epocs": {"low": 1, "high": 2}}}, r"unknown key search.epocs"),
        (
            {"sweep__params": {"model.name": {"choices": ["a"]}}},
            r"has model.name; fields of search and finetune",
        ),
        (
            {"sweep__params": {"search.lr": {"low": -1.0, "high": 2.0}}},
            r"search.lr is -1.0: .*greater than 0",
        ),
        ({"sweep__params": {"search.lr": {"low": 2.0, "high": 1.0}}}, r"low 2.0 is above high 1.0"),
        (
            {"sweep__params": {"search.lr": {"low": 0.0, "high": 1.0, "log": True}}},
            r"log needs low above 0",
        ),
        ({"sweep__params": {"search.lr": {"lo": 0.0, "high": 1.0}}}, r"sweep.params.search.lr"),
        ({"name": "a/b"}, r"name is 'a/b'"),
        ({"pretrain": None}, r"no weights for the parent"),
        ({"search_space": "vitt"}, r"search_space vitt is unknown, expected .*vit"),
        ({"search_space": "nowhere.yaml"}, r"nowhere.yaml: no such file"),
        (
            {"objectives": [{"metric": "latency_ms", "direction": "minimize"}]},
            r"asks for latency_ms, .* give latency",
        ),
        (
            {"sweep__constraints": {"latency_ms": {"max": 2}}},
            r"asks for latency_ms, .* give latency",
        ),
        ({"latency": {"batch_size": 0}}, r"latency.batch_size is 0: .*greater than 0"),
        (
            {"objectives": [{"metric": "speed", "direction": "maximize"}]},
            r"objectives.0.metric is 'speed', expected .*val_top1",
        ),
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
        ("name: [1, 2\n", "line 2: not valid YAML"),
        ("name: x\n\tseed: 1\n", "not valid YAML"),
        ("\x00\x01", "not valid YAML"),
        ("name: x\n", "model is missing"),
    ],
)
def test_files_that_are_not_a_study_are_refused(tmp_path, text, message):
    file = tmp_path / "study.yaml"
    file.write_text(text)
    with pytest.raises(InputError, match=message):
        load_study(file)


def test_studies_that_come_with_ofbnas_are_found_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # so that nothing is found in the working folder
    names = sorted(file.stem for file in (ROOT / "studies").glob("*.yaml"))
    assert "digits" in names
    for name in names:
        assert load_study(Path(name)) == load_study(ROOT / "studies" / f"{name}.yaml")
    with pytest.raises(InputError, match=r"none: no such file.*for a study, one of .*digits, fash"):
        load_study(Path("none"))


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
        ("search.epochs=[1", "not valid YAML"),
        ("name.deep=1", "name"),
    ],
)
def test_wrong_settings_are_named(setting, message):
    with pytest.raises(InputError, match=message):
        load_study(DIGITS, [setting])


@pytest.mark.parametrize(
    ("stopping", "rungs"),
    [
        ("{method: front}", (7, 28)),
        ("{method: front, eta: 2, first_rung: 5}", (5, 10, 20)),
        ("{method: asha, metric: val_top1, eta: 3, first_rung: 10}", (10, 30)),
        ("{method: median, metric: gmacs, first_rung: 10}", (10, 20, 30)),
    ],
)
def test_rungs_reach_the_last_epoch_if_fine_tuning_follows(stopping, rungs):
    setting = f"sweep.early_stopping={stopping}"
    assert load_study(DIGITS, [setting]).rungs(30) == rungs
    alone = load_study(DIGITS, [setting, "finetune=null"]).rungs(30)
    assert alone == tuple(rung for rung in rungs if rung < 30), (
        "a trial that is over is not stopped"
    )
    assert load_study(DIGITS).rungs(30) == ()


@pytest.mark.parametrize(
    ("stopping", "message", "also"),
    [
        ("{method: halving}", "expected tags: 'front', 'asha', 'median'", []),
        ("{method: asha}", "early_stopping.metric is missing", []),
        ("{method: asha, metric: top1}", "is top1, expected an objective: val_top1, gmacs", []),
        ("{method: median, metric: val_top1, eta: 2}", "unknown key sweep.early_stopping.eta", []),
        ("{method: front, eta: 1}", "early_stopping.eta is 1", []),
        ("{method: front, first_rung: 31}", "first_rung is 31, but a search has 30 epochs", []),
        (
            "{method: front}",
            "is 7, but a search has 5 epochs",
            ["sweep.params={search.epochs: {low: 5, high: 40}}"],
        ),
        ("{method: front}", "needs first_rung in epochs", ["search.decide_by={steps: 100}"]),
        (
            "{method: front}",
            "needs at least two objectives",
            ["objectives=[{metric: top1, direction: maximize}]"],
        ),
        (
            "{method: front}",
            "looks at seconds, which is not known before a trial ends",
            [
                "objectives=[{metric: val_top1, direction: maximize}, {metric: seconds, direction: minimize}]"
            ],
        ),
    ],
)
def test_invalid_early_stopping_is_refused(stopping, message, also):
    with pytest.raises(InputError, match=message):
        load_study(DIGITS, [*also, f"sweep.early_stopping={stopping}"])


@pytest.mark.parametrize(
    ("given", "found"), [("shared", "{here}/shared"), ("~/x", "{home}/x"), ("s3://a/b", "s3://a/b")]
)
def test_the_shared_storage_is_the_same_place_from_every_folder(
    given, found, tmp_path, monkeypatch
):
    """Ray runs each trial in a folder of its own."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    expected = found.format(here=tmp_path, home=tmp_path / "home")
    assert (
        load_study(edited(tmp_path, resources={"storage_path": given})).resources.storage_path
        == expected
    )
    monkeypatch.chdir(tmp_path)
    assert (
        load_study(DIGITS, [f"resources.storage_path={given}"]).resources.storage_path == expected
    )


@pytest.mark.parametrize(
    ("workers", "gpus", "message"),
    [(1, 2, "a worker uses one"), (2, 1, "0 or one for each"), (2, 4, "a worker uses one")],
)
def test_a_worker_has_one_gpu(workers, gpus, message):
    with pytest.raises(InputError, match=message):
        load_study(
            DIGITS, [f"resources.workers_per_trial={workers}", f"resources.gpus_per_trial={gpus}"]
        )
    for fits in (0, workers):
        load_study(
            DIGITS, [f"resources.workers_per_trial={workers}", f"resources.gpus_per_trial={fits}"]
        )


def test_budgets_have_their_units():
    assert BudgetConfig(gmacs=1.5).limit(10**12) == 1_500_000_000
    assert BudgetConfig(params=1e6).limit(10**9) == 1_000_000
    assert BudgetConfig(gmacs_share=0.5).limit(11) == 5, (
        "rounded down, so that the share is never exceeded"
    )
    assert [BudgetConfig(params_share=0.5).metric(), BudgetConfig(gmacs=1).metric()] == [
        "params",
        "macs",
    ]


def test_ramps_go_along_a_line_and_stay():
    length = Length(steps=100, epochs=10)
    ramp = RampConfig(start=1.0, end=0.0, warmup=0.5)
    assert [ramp.at(step, length) for step in (0, 25, 50, 99)] == [1.0, 0.5, 0.0, 0.0]
    assert RampConfig(start=1.0, end=0.2, warmup=0.0).at(0, length) == 0.2
    round_one = RampConfig(start=1.0, end=0.0, warmup=0.5, shape="cosine")
    assert [round_one.at(step, length) for step in (0, 25, 50)] == pytest.approx([1.0, 0.5, 0.0])
    assert round_one.at(5, length) > ramp.at(5, length)  # slow at the beginning


@pytest.mark.parametrize(
    ("written", "steps"), [(0.25, 25), ({"epochs": 3}, 30), ({"steps": 7}, 7), ({"epochs": 0.5}, 5)]
)
def test_a_span_is_a_share_epochs_or_steps(written, steps):
    span = Span.model_validate(written)
    assert span.of(Length(steps=100, epochs=10)) == steps
    assert span.model_dump() == written


@pytest.mark.parametrize("written", [{}, {"epochs": 1, "steps": 2}, 1.5, -0.1, "20 epochs"])
def test_other_spans_are_refused(tmp_path, written):
    with pytest.raises(InputError, match=r"search\.warmup"):
        load_study(edited(tmp_path, search__warmup=written))


def leaves(tree, path=""):
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value


@pytest.mark.parametrize("section", ["search", "finetune"])
def test_every_number_of_the_published_recipe_is_a_field_that_a_sweep_can_reach(section):
    study = load_study(DIGITS, [f"{section}.preset=reference"])
    for name, value in leaves(REFERENCE[section]):
        path = f"{section}.{name}"
        if name not in (
            "epochs",
            "batch_size",
            "lr",
        ):  # the digits study sets these fields itself
            found = study.model_dump(mode="json")
            for key in path.split("."):
                found = found[key]
            assert found == value, path
        assert study.with_values({path: value}).model_dump(mode="json") is not None
    if section == "search":
        swept = load_study(DIGITS, ["search.preset=reference"]).with_values(
            {"search.decision_interval.epochs": 0.5}
        )
        assert swept.search.decision_interval == Span(epochs=0.5)


def test_paths_are_looked_up_from_the_study_or_for_the_command_line_from_where_one_stands(
    tmp_path, monkeypatch
):
    teacher = {"teacher": {"name": "resnet18", "checkpoint": "teacher.safetensors"}}
    file = edited(tmp_path, search__distill=teacher)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    study = load_study(file, ["model.checkpoint=parent.safetensors"])
    assert study.search.distill.teacher.checkpoint == tmp_path / "teacher.safetensors"
    assert study.model.checkpoint == tmp_path / "elsewhere" / "parent.safetensors"


def test_given_values_take_precedence_over_a_preset(tmp_path):
    study = load_study(
        edited(tmp_path, search__preset="reference", search__importance={"std": 0.3})
    )
    assert (
        study.search.epochs,
        study.search.importance.std,
        study.search.importance.norm_attn,
    ) == (30, 0.3, 4e-4)
    assert (study.search.alpha.betas, study.search.weight_decay) == ((0.5, 0.999), 1e-3)


def test_an_unknown_preset_is_refused(tmp_path):
    with pytest.raises(InputError, match="search preset paper is unknown, expected reference"):
        load_study(edited(tmp_path, search__preset="paper"))


def test_every_field_of_a_search_can_be_swept_or_set():
    values = {
        "epochs": 3,
        "lr": 0.5,
        "threshold": 0.3,
        "one_hot_weight": 1.5,
        "alpha": {"lr": 0.2},
        "decision_interval": {"epochs": 0.5},
    }
    study = load_study(DIGITS).with_values(
        {f"search.{name}": value for name, value in values.items()}
    )
    assert study.search == SearchConfig(**{**study.search.model_dump(), **values})


def test_a_field_may_still_be_given_by_its_old_name(tmp_path, caplog):
    renamed._warn.cache_clear()
    study = yaml.safe_load(DIGITS.read_text())
    study["search"]["beat"] = 0.25
    (tmp_path / "old.yaml").write_text(yaml.safe_dump(study))
    read = load_study(tmp_path / "old.yaml")
    assert read.search.decision_interval.share == 0.25
    assert "search.beat is called search.decision_interval now" in caplog.text
    assert load_study(DIGITS, ["search.beat=0.5"]).search.decision_interval.share == 0.5
    assert read.with_values({"search.beat": 0.1}).search.decision_interval.share == 0.1
    assert read.with_values({"search.beat.epochs": 2}).search.decision_interval.epochs == 2


def test_a_field_that_is_given_by_both_names_is_refused():
    with pytest.raises(ValueError, match="gives decision_interval twice, once by its old name"):
        SearchConfig(epochs=1, budget={"gmacs": 1.0}, beat=0.5, decision_interval=0.5)


def test_wrong_data_settings_of_a_table_are_named_in_one_line():
    with pytest.raises(
        InputError, match=r"^--data: data\.flip is 'maybe': input should be a valid"
    ):
        completed_data({}, {"name": "folder", "flip": "maybe"}, 10, "--data")
    with pytest.raises(
        InputError, match="no classifier, .* how many classes folder has; give num_"
    ):
        completed_data({}, {"name": "folder", "path": "images"}, 0, "--data")


def test_every_field_is_described():
    schema = StudyConfig.model_json_schema()
    sections = {"StudyConfig": schema} | schema["$defs"]
    undescribed = [
        f"{section}.{name}"
        for section, content in sections.items()
        for name, field in content.get("properties", {}).items()
        if "description" not in field
    ]
    assert undescribed == []
