"""Absurd settings are refused in one line before a run starts, whoever wrote them, and wherever."""

from __future__ import annotations

import os
import pwd
import re
import struct
import tracemalloc
import zlib
from pathlib import Path

import optuna
import pytest
import yaml
from commands import ofbnas
from conftest import DIGITS, ROOT, make
from test_images import opened, picture

from ofbnas.config import StudyConfig
from ofbnas.config.fields import set_value
from ofbnas.config.study_file import load_study
from ofbnas.errors import InputError
from ofbnas.models.axes import Shares, axes
from ofbnas.study.parent import check_weights
from ofbnas.study.tuning.samplers import sampler_of
from ofbnas.training.data import Epoch

TEXT = DIGITS.read_text()
LAUGHS = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{before}'] * 9)}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)  # fmt: skip


def refused(file: Path, *settings: str) -> str:
    """The one line with which a study is refused."""
    with pytest.raises(InputError) as error:
        load_study(file, settings)
    line = str(error.value)
    assert len(line.splitlines()) == 1 and len(line) < 1200
    return line


def written(folder: Path, text: str) -> Path:
    file = folder / "odd.yaml"
    file.write_text(text)
    return file


TEXTS = {
    "a key twice": (TEXT + "seed: 1\n", "line 8: has the key seed twice"),
    "a key of a section twice": (
        TEXT + "latency: {warmup: 1, warmup: 2}\n",
        "line 35: has the key warmup twice",
    ),
    "a mapping in itself": (TEXT + "latency: &a {batch_size: *a}\n", "nested too deep"),
    "a list in itself": (TEXT + "latency: &a [*a]\n", "nested too deep"),
    "deep": (TEXT + "latency: " + "[" * 5000 + "]" * 5000, "nested too deep"),
    "billion laughs": (LAUGHS + TEXT, "has more than 200,000 values"),
    "no date": (TEXT.replace("seed: 0", "seed: 2001-99-99"), "month must be in 1..12"),
    "a date": (TEXT.replace("seed: 0", "seed: 2001-09-09"), "line 9: seed is datetime.date"),
    "no integer": (TEXT.replace("seed: 0", "seed: !!int abc"), "invalid literal for int"),
    "5,000 digits": (
        TEXT.replace("seed: 0", f"seed: {'9' * 5000}"),
        "line 9: has a number of 5,000 characters",
    ),
    "a key that is a number": (TEXT + "1: 2\n", "line 35: unknown key 1"),
    "nan for timm": (
        TEXT.replace("kwargs: {", "kwargs: {qk_scale: .nan, "),
        "model.kwargs.qk_scale has nan",
    ),
    "a date for timm": (
        TEXT.replace("kwargs: {", "kwargs: {depths: [2001-01-01], "),
        "kwargs.depths has a date",
    ),
    "a number's key for timm": (
        TEXT.replace("kwargs: {", "kwargs: {x: {1: 2}, "),
        "model.kwargs.x has the key 1",
    ),
    "half a character": (
        TEXT.replace("kwargs: {", 'kwargs: {x: "\\ud800", '),
        "model.kwargs.x .*surrogates",
    ),
    "a path with NUL": (
        TEXT.replace("shift: 1", 'shift: 1, path: "a\\0b"'),
        r"data.path: a\\x00b is not a path",
    ),
    "nobody's home": (
        TEXT.replace("shift: 1", "shift: 1, path: ~no-one/x"),
        "data.path: ~no-one/x is not a path",
    ),
    "a long name": (
        TEXT.replace("name: digits\nseed", f"name: {'a' * 300}\nseed"),
        r"name is 'a+\.\.\.: .*at most 128",
    ),
    "a list of presets": (
        TEXT.replace("search:\n", "search:\n  preset: [1]\n"),
        r"preset \[1\] is unknown",
    ),
}


@pytest.mark.parametrize("case", TEXTS)
def test_absurd_files_are_refused(tmp_path, case):
    text, message = TEXTS[case]
    file = written(tmp_path, text)
    line = refused(file)
    assert line.startswith(str(file)) and re.search(message, line), line


FIELDS = [
    ("seed", "-1", "seed is -1: .*greater than or equal to 0"),
    ("seed", str(2**70), "seed is .*less than 2147483648"),
    ("seed", "true", "seed is True: .*integer"),
    ("data.split_seed", "-1", "split_seed is -1"),
    ("data.shift", "1" + 30 * "0", "shift is .*less than or equal to 1000"),
    ("search.batch_size", "1000000000000", "batch_size is .*less than or equal to 1000000"),
    ("search.accumulate", "1000000000000", "accumulate is"),
    ("search.epochs", "1000000000", "epochs is .*less than or equal to 1000000"),
    ("search.epochs", "30.0", "epochs is 30.0: .*integer"),
    ("pretrain.epochs", "1000000000", "pretrain.epochs is"),
    ("search.augment.repeats", "1000000", "repeats is .*less than or equal to 1000"),
    ("search.augment.rand_augment", "rand-foo", "rand_augment is 'rand-foo'"),
    ("search.importance.start_batches", "1000000000", "start_batches is"),
    ("search.alpha.betas", "[0.5, 1.0]", "betas.1 is 1.0: .*less than 1"),
    ("search.budget.gmacs", "1.0e+308", "gmacs is .*less than or equal to"),
    ("search.budget.gmacs", ".inf", "gmacs is inf: .*finite"),
    ("search.importance.mean", "1.0e+300", "mean is"),
    ("search.lr", ".nan", "lr is nan: .*finite"),
    ("search.lr", "true", "lr is true, expected a number"),
    ("search.warmup", "{steps: 1.0e+300}", "warmup.steps is"),
    (
        "data",
        "{name: folder, num_classes: 10, workers: 1000000}",
        "workers is .*less than or equal to 10000",
    ),
    (
        "data",
        "{name: folder, num_classes: 1000000}",
        "num_classes is .*less than or equal to 65536",
    ),
    (
        "data",
        "{name: folder, num_classes: 10, crop_pct: 1.0e-9}",
        "crop_pct is .*greater than or equal to 0.1",
    ),
    ("data", "{name: folder, num_classes: 10, mean: [1.0e+300]}", "mean.0 is"),
    ("latency", "{batches: 1000000000000}", "batches is"),
    ("latency", "{warmup: 1000000000000}", "warmup is"),
    (
        "resources.workers_per_trial",
        "1000000",
        "workers_per_trial is .*less than or equal to 10000",
    ),
    ("resources.max_failures", "1000000", "max_failures is"),
    ("resources.disk_gb", "1.0e+300", "disk_gb is"),
    ("search_space", "{heads: [100000]}", "search_space.heads.0 is .*less than or equal to 65536"),
    ("search_space", f"{{mlp: [{'1, ' * 2000}]}}", "search_space.mlp is .*at most 1024 items"),
    (
        "search_space",
        "{embed: {low: 0.5, step: 0}}",
        "search_space.embed.step is 0: .*greater than 0",
    ),
    (
        "search_space",
        "{embed: {low: 0.5, step: 1.0e-12}}",
        "embed gives 500,000,000,001 sizes, expected at most 1,024",
    ),
    ("search_space", "{embed: {low: 0.5, step: 1.0e-320}}", "embed gives .* sizes"),
    (
        "search_space",
        "{head_size: {low: 0, step: 0.5}}",
        "search_space.head_size.low is 0: .*greater than 0",
    ),
    (
        "search_space",
        "{mlp: {low: 0.5, step: 0.25, multiple_of: 0}}",
        "search_space.mlp.multiple_of is 0: .*greater than 0",
    ),
    (
        "objectives",
        "[{metric: top1, direction: maximize}, {metric: top1, direction: minimize}]",
        "objectives has top1 twice; give each column once",
    ),
    ("sweep.n_trials", "1000000000", "n_trials is .*less than or equal to 1000000"),
    ("sweep.constraints", "{gmacs: {min: 2, max: 1}}", "constraints.gmacs min 2 is above max 1"),
    ("sweep.constraints", "{gmacs: {min: .inf}}", "constraints.gmacs.min is inf"),
    (
        "sweep.constraints",
        "{speed: {min: 1}}",
        "sweep.constraints.speed is 'speed', expected .*val_top1",
    ),
    ("sweep.early_stopping", "{method: front, eta: 1000000}", "eta is"),
    ("sweep.sampler_options", "{x: .inf}", "sampler_options.x has inf"),
    ("sweep.start", "[{search.lr: .nan}]", "start.0.search.lr has nan"),
]
SWEPT = [
    ("search.lr: {low: 2.0, high: 1.0}", "low 2.0 is above high 1.0"),
    ("search.lr: {low: .inf, high: 1.0}", "low is inf"),
    (
        "search.lr: {low: 0.1, high: 0.2, step: 1.0e-12}",
        r"params.search.lr has 100,000,000,001 values, .* larger step",
    ),
    ("search.lr: {low: 0.1, high: 0.2, when: {search.x: .nan}}", "when.search.x has nan"),
    ("search.lr: {choices: [0.1, 0.2, 0.1]}", "choices has 0.1 twice"),
    ("search.lr: {choices: [.inf]}", "choices.0 has inf"),
    ("search.lr: {choices: [{a: 1}]}", "choices.0 has a dict"),
    (
        "search.epochs: {low: 1, high: 1000000000000}",
        "params.search.epochs has 1,000,000,000,000 values",
    ),
    ("search.epochs: {low: 1.0, high: 9.0}", "search.epochs is 1.0: .*integer"),
    (
        "search.budget.gmacs: {low: 1.0, high: 2.0}, search.budget.gmacs_share: {low: 0.1, high: 0.2}",
        "has search.budget.gmacs and search.budget.gmacs_share, which set the same; sweep one",
    ),
    (
        "search.warmup: {low: 0.1, high: 0.2}, search.warmup.epochs: {low: 1, high: 2}",
        "has search.warmup and search.warmup.epochs, which set the same",
    ),
    (
        "search.warmup.steps: {low: 1, high: 2}, search.warmup.epochs: {low: 1, high: 2}",
        "search.warmup expected a share of the run",
    ),
]
ALL = FIELDS + [("sweep.params", f"{{{params}}}", message) for params, message in SWEPT]


@pytest.mark.parametrize(("field", "value", "message"), ALL)
def test_absurd_values_are_refused(tmp_path, field, value, message):
    """The message names the file, or the setting if the value is from --set."""
    tree = yaml.safe_load(TEXT)
    set_value(tree, field, yaml.safe_load(value))
    file = written(tmp_path, yaml.safe_dump(tree, sort_keys=False))
    line = refused(file)
    assert line.startswith(str(file)) and re.search(message, line), line
    line = refused(DIGITS, f"{field}={value}")
    assert line.startswith(f"--set {field}: ") and re.search(message, line), line


def test_a_grid_is_counted_before_it_is_listed():
    each = "{low: 1, high: 1000000}"
    grid = f"sweep={{n_trials: 1, sampler: grid, params: {{search.lr: {each}, search.pmim.weight: {each}}}}}"
    refused(DIGITS, grid)  # imports the modules, which take memory too
    tracemalloc.start()
    assert "the grid has 1,000,000,000,000 points, expected at most 10,000" in refused(DIGITS, grid)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 5_000_000


@pytest.mark.parametrize(
    "setting",
    ["=5", "...=1", "search..epochs=1", ".search=1", "search.=1", " =1", "search", "", "a" * 5000],
)
def test_a_setting_of_no_field(setting):
    assert refused(DIGITS, setting) == (
        f"--set {setting[:80]}: expected FIELD=VALUE, for example --set search.epochs=5"
    )


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        (["name.x=1"], "--set name.x: name is {'x': 1}: input should be a valid string"),
        (
            ["objectives.0.metric=top1"],
            "--set objectives.0.metric: objectives is {.*}: input should be a valid list",
        ),
        (["foo.bar=1"], "--set foo.bar: unknown key foo; expected some of data, .*"),
        (["search.epocs=5"], "--set search.epocs: unknown key search.epocs; did you mean epochs?"),
        (["search={epochs: 5}", "seed=1"], "--set search: search.budget is missing"),
        (
            ["seed=1", "pretrain=null"],
            "--set seed and --set pretrain: has no weights for the parent; .*",
        ),
        (
            ["seed=1", "sweep.sampler=grid"],
            "--set sweep.sampler: sweep a grid needs choices or a step .*",
        ),
        (["search.epochs=[1"], "--set search.epochs: not valid YAML .*"),
        (["search.epochs={a: 1, a: 2}"], "--set search.epochs: has the key a twice"),
        (["sweep.storage=[postgresql://u:hidden@h"], "--set sweep.storage: not valid YAML [^h]*"),
        (["sweep.storage=~no-one/x"], "--set sweep.storage: ~no-one/x is not a path .*"),
        (["data.path=~no-one/x"], "--set data.path: ~no-one/x is not a path .*"),
    ],
)
def test_a_mistake_caused_by_a_setting_names_the_setting(settings, line):
    assert re.fullmatch(line.replace("?", r"\?"), found := refused(DIGITS, *settings)), found


def test_a_mistake_in_the_file_does_not_name_a_setting(tmp_path):
    file = written(tmp_path, TEXT.replace("  epochs: 30", "  epocs: 30"))
    assert (
        refused(file, "search.lr=1", "seed=1")
        == f"{file} line 17: unknown key search.epocs; did you mean epochs?"
    )
    file = written(tmp_path, TEXT.replace("pretrain:", "latency: {}\n#"))
    assert refused(file, "search.lr=1", "seed=1").startswith(
        f"{file}: has no weights for the parent"
    )


def test_a_setting_changes_one_of_two_sections_that_are_one_by_an_alias(tmp_path):
    text = TEXT.replace("pretrain: {", "pretrain: &training {")
    text = re.sub("finetune: .*", "finetune: *training", text)
    study = load_study(written(tmp_path, text), ["finetune.epochs=7"])
    assert (study.pretrain.epochs, study.finetune.epochs) == (80, 7)


@pytest.fixture(params=["a pipe", "a device", "a link to a device", "a folder"])
def no_file(request, tmp_path):
    place = tmp_path / "place.yaml"
    if request.param == "a pipe":
        os.mkfifo(place)
    elif request.param == "a link to a device":
        place.symlink_to("/dev/zero")
    elif request.param == "a folder":
        place.mkdir()
    return Path("/dev/zero") if request.param == "a device" else place


def test_only_files_are_studies_and_search_spaces(no_file, tmp_path):
    expected = f"{no_file}: cannot be read, it is not a regular file"
    assert refused(no_file) == expected
    if no_file.suffix == ".yaml":
        assert refused(DIGITS, f"search_space={no_file}") == expected
        assert (
            refused(written(tmp_path, TEXT.replace("space: vit_wide", f"space: {no_file}")))
            == expected
        )


def test_a_path_with_a_cycle_of_links_is_reported(tmp_path):
    (tmp_path / "round").symlink_to("round")
    file = written(tmp_path, TEXT.replace("shift: 1", "shift: 1, path: round"))
    assert refused(file).startswith(f"{file}: data.path: round is not a path")


@pytest.mark.parametrize(
    "shares",
    [
        (0.5, 1, 0),
        (0.5, 1, 1e-12),
        (0.5, 1, float("nan")),
        (-0.5, 1, 0.5),
        (1, 0.5, 0.1),
        (0.5, 2, 0.1),
    ],
)
def test_shares_of_a_search_space_are_counted_before_they_are_listed(shares):
    with pytest.raises(InputError, match=r"Shares\(low="):
        Shares(*shares)


def test_sizes_of_a_search_space_are_counted_before_they_are_shown():
    with pytest.raises(InputError, match="gives mlp 1,000,000 sizes, expected at most 1,024"):
        axes(make(), {"mlp": range(1, 1_000_001)})
    with pytest.raises(InputError, match="gives mlp the sizes 1 to 1000, but") as error:
        axes(make(), {"mlp": range(1, 1001)})
    assert len(str(error.value)) < 300


@pytest.mark.parametrize(
    ("sampler", "options", "message"),
    [
        (
            "tpe",
            {"n_startup": 3},
            "n_startup is unknown or no plain value; it takes .*n_startup_trials",
        ),
        ("tpe", {"n_startup_trials": "many"}, "n_startup_trials is many, expected int"),
        ("tpe", {"n_startup_trials": 2.5}, "n_startup_trials is 2.5, expected int"),
        (
            "tpe",
            {"n_ei_candidates": 10**12},
            "n_ei_candidates is 1000000000000, expected 0 to 1,000,000",
        ),
        ("tpe", {"n_ei_candidates": -1}, "n_ei_candidates is -1, expected 0 to"),
        ("tpe", {"constant_liar": 1}, "constant_liar is 1, expected bool"),
        ("tpe", {"gamma": 3}, "gamma is unknown or no plain value"),
        ("nsga2", {"population_size": True}, "population_size is True, expected int"),
        ("nsga2", {"crossover_prob": 3.0}, "crossover_prob"),
        ("gp", {"constraints_func": "print"}, "constraints_func is unknown or no plain value"),
        ("qmc", {"qmc_type": "foo"}, "qmc_type"),
        (
            "grid",
            {"n_startup_trials": 3},
            "n_startup_trials is unknown or no plain value; it takes seed",
        ),
    ],
)
def test_options_of_samplers_are_checked_before_a_run_starts(sampler, options, message):
    swept = {"search.lr": {"choices": [0.1]}}
    tree = load_study(DIGITS).model_dump(mode="json")
    tree["sweep"] = {"n_trials": 1, "sampler": sampler, "sampler_options": options, "params": swept}
    study = StudyConfig.model_validate(tree)
    with pytest.raises(InputError, match=f"^sweep.sampler_options of {sampler}: .*{message}"):
        sampler_of(study.sweep, study.seed)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("sampler", "options"),
    [
        (
            "tpe",
            {
                "n_startup_trials": 3,
                "n_ei_candidates": 10,
                "prior_weight": 1,
                "constant_liar": False,
                "seed": 1,
            },
        ),
        ("nsga2", {"population_size": 10, "mutation_prob": 0.1}),
        ("nsga3", {"dividing_parameter": 4}),
        ("gp", {"deterministic_objective": True}),
        ("qmc", {"qmc_type": "halton"}),
    ],
)
def test_options_that_optuna_documents_are_taken(sampler, options):
    study = load_study(DIGITS, [f"sweep.sampler={sampler}", f"sweep.sampler_options={options}"])
    assert isinstance(sampler_of(study.sweep, 0), optuna.samplers.BaseSampler)


def test_a_plan_reports_options_that_a_sampler_does_not_take():
    done = ofbnas("study", "plan", DIGITS, "--set", "sweep.sampler_options={n_startup: 3}")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("ofbnas: sweep.sampler_options of tpe: n_startup is unknown")


def test_without_a_home_folder_the_cache_has_to_be_named(monkeypatch, tmp_path):
    def nobody(uid):
        raise KeyError(uid)

    monkeypatch.delenv("HOME")
    monkeypatch.delenv("OFBNAS_CACHE", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", nobody)  # as for a user that exists only in a container
    done = ofbnas("doctor")
    assert (done.returncode, done.stderr) == (
        2, "ofbnas: there is no home folder for the cache: set OFBNAS_CACHE to a folder\n",
    )  # fmt: skip
    monkeypatch.setenv("OFBNAS_CACHE", str(tmp_path))
    assert ofbnas("doctor").returncode == 0


TABLES = [ROOT / "studies" / "tables" / name for name in ("digits", "fashion_mnist")]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["front", "compare", *TABLES, "--ref", "inf", "0"], "bounds no area"),
        (["front", "compare", *TABLES, "--ref", "nan", "0"], "bounds no area"),
        (["front", "compare", *TABLES, "--ref", "1e308", "-1e308"], "bounds no area"),
        (["front", "compare", *TABLES, "--ref", "1e-300", "0"], "gmacs 1e-300 lies below all rows"),
        (["doctor", "--address", f"localhost:{'9' * 5000}"], "expected auto or HOST:PORT"),
        (["study", "plan", "[/x].yaml"], r"\[/x\].yaml: no such file"),
        (
            ["study", "plan", DIGITS, "--set", "search_space='[/x].yaml'"],
            r"\[/x\].yaml: no such file",
        ),
        (["study", "plan", DIGITS, "--set", "model.name='[/x]'"], r"model \[/x\] is unknown"),
        (["study", "plan", DIGITS, "--set", "'[/x]'=1"], r"unknown key '\[/x\]'"),
        (
            ["study", "plan", DIGITS, "--set", "data={name: folder, num_classes: 9, path: '[/x]'}"],
            r"\[/x\]: no such",
        ),
    ],
)
def test_absurd_commands_are_refused(words, message):
    done = ofbnas(*words)
    assert done.returncode == 2 and re.search(message, done.stderr), done.stderr


def png(width: int, height: int) -> bytes:
    """A picture whose header claims a size, without any pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content))
            + kind
            + content
            + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b""))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    "side", [60_000, 10_000]
)  # Pillow refuses the one and warns about the other
@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_would_take_all_memory_is_named(tmp_path, side, workers):
    for split in ("train", "validation", "test"):
        for label in range(3):
            (tmp_path / split / str(label)).mkdir(parents=True)
            picture(label, 0).save(tmp_path / split / str(label) / "0.png")
    bomb = tmp_path / "train" / "1" / "0.png"
    bomb.write_bytes(png(side, side))
    data = opened("folder", tmp_path)
    data.settings["workers"] = workers
    with pytest.raises(
        InputError, match=rf"^{re.escape(str(bomb))}: Image size \({side**2} pixels\) exceeds"
    ) as error:
        list(data.shuffled(3, Epoch()))
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("section", ["pretrain", "finetune"])
def test_an_optimizer_that_timm_lacks_is_refused_before_a_run_starts(section):
    with pytest.raises(InputError, match="optimizer adamx: "):
        check_weights(load_study(DIGITS, [f"{section}.optimizer=adamx"]))
