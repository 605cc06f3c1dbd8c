"""A report's content and its command; test_report_page.py tests the page in a browser."""

from __future__ import annotations

import html
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import optuna
import pandas as pd
import pytest
import yaml
from commands import ofbnas
from conftest import DIGITS, ROOT
from made_studies import (
    PARENTS,
    add,
    begin,
    decisions_of,
    epochs_of,
    failed_row,
    finished,
    journal_of,
    kinds_of,
    row_of,
    shrunk,
)
from rows import write_row

from ofbnas.config import StudyConfig
from ofbnas.config.study_file import dump_changed, dump_study, load_study
from ofbnas.errors import InputError
from ofbnas.models.architecture import encode_sizes
from ofbnas.study.report import contents, page, stamp, study_of, write_page
from ofbnas.study.report.history import MAX_EPOCHS
from ofbnas.study.report.hypervolumes import hypervolumes
from ofbnas.study.tuning.journal import MIN_TRIALS, importance, no_journal, read_journal
from ofbnas.table.front import front, hypervolume, reference_point
from ofbnas.table.history import write_history
from ofbnas.table.store import read_table, write_table


def told(folder: Path) -> dict:
    config = study_of(folder)
    return contents(folder, config, read_journal(config, folder))


def test_rows_and_fronts_are_those_of_the_table(tmp_path):
    found = told(finished(tmp_path))
    table = read_table(tmp_path)
    assert [trial["trial"] for trial in found["trials"]] == table["trial"].tolist()
    assert [trial.get("top1") for trial in found["trials"][:10]] == table["top1"].tolist()[:10]
    assert set(found["fronts"]) == {
        f"{x}/{y}" for x in ("gmacs", "params", "seconds") for y in ("top1", "top5", "val_top1")
    }
    for pair, trials in found["fronts"].items():
        x, y = pair.split("/")
        assert trials == front(table, x=x, y=y)["trial"].tolist()
    assert found["parent"] == {
        "gmacs": 7.994e-4,
        "params": 202058,
        "top1": 98.889,
        "val_top1": 97.9,
    }
    assert found["trials"][3]["hp"] == {
        "search.budget.gmacs_share": pytest.approx(0.39),
        "search.one_hot_weight": 0.06,
    }
    assert found["study"]["finished"] is True


@pytest.mark.parametrize("family", PARENTS)
def test_the_parents_sizes_are_those_before_the_first_decision(tmp_path, family):
    sizes = told(finished(tmp_path, family))["sizes"]
    parent = PARENTS[family]
    assert {name: sizes[name] for name in ("embed", "blocks")} == encode_sizes(
        parent, kinds_of(parent)
    )
    assert sizes["parent"] is True
    assert [*sizes["embed_names"], *sizes["block_names"]][0] == next(iter(parent))
    assert all(any(axis.startswith(name) for axis in parent) for name in sizes["block_names"])


@pytest.mark.parametrize(
    "budget",
    ["{", "[" * 90_000, "[]", '{"gmacs": NaN}', '{"gmacs_share": "half"}', '{"a": 1, "a": 2}'],
)
def test_an_invalid_budget_is_refused_in_one_line(tmp_path, budget):
    write_row(begin(tmp_path), row_of(0, budget=budget))
    with pytest.raises(InputError, match="trial 0: budget: ") as error:
        told(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("family", PARENTS)
def test_without_a_history_sizes_are_the_largest_found_and_said_to_be(tmp_path, family):
    begin(tmp_path)
    for trial, share in enumerate((0.3, 0.7, 0.5)):
        write_row(tmp_path, row_of(trial, family, share))
    sizes = told(tmp_path)["sizes"]
    for block in sizes["blocks"]:
        assert block.keys() == {"heads", "head_size", "mlp"}
        for name in [name for name, size in block.items() if size is None]:
            del block[name]
    assert sizes == {
        **encode_sizes(shrunk(PARENTS[family], 0.7), kinds_of(PARENTS[family])),
        "parent": False,
    }


def test_rows_of_another_model_are_not_drawn_together(tmp_path):
    begin(tmp_path)
    write_row(tmp_path, row_of(0, "vit", 0.5))
    alone = told(tmp_path)["sizes"]
    write_row(tmp_path, row_of(1, "swin", 0.5))
    assert told(tmp_path)["sizes"] == alone


def test_a_history_of_another_model_does_not_give_the_parents_sizes(tmp_path):
    begin(tmp_path)
    write_row(tmp_path, row_of(0))
    write_history(tmp_path, 0, decisions_of("swin"), study="digits")
    assert told(tmp_path)["sizes"]["parent"] is False


@pytest.mark.parametrize(
    ("budget", "share"),
    [
        ('{"gmacs_share": 0.4, "tolerance": 0.02}', 0.4),
        ('{"params_share": 0.3}', 0.3),
        ('{"gmacs": 0.0003997}', 0.5),
        ('{"params": 50514.5}', 0.25),
        ('{"gmacs": 0.0003997, "count": "reference"}', None),
        (None, None),
    ],
)
def test_the_budget_is_a_share_of_the_parents_cost(tmp_path, budget, share):
    write_row(begin(tmp_path), row_of(0, budget=budget))
    assert told(tmp_path)["trials"][0].get("budget_share") == (
        None if share is None else pytest.approx(share)
    )


def test_histories_come_as_columns_and_without_what_is_no_number(tmp_path):
    begin(tmp_path)
    decisions = decisions_of()
    decisions[2]["task"], decisions[3]["task"] = float("nan"), None
    write_history(tmp_path, 4, decisions, study="digits")
    found = told(tmp_path)["decisions"]["4"]
    assert found["step"] == [6, 12, 18, 24, 30, 36, 42, 48]
    assert found["task"][2:4] == [None, None] and found["task"][0] == 1.5
    assert found["options"][0] == [decision["axes"][0]["options"] for decision in decisions]
    assert found["axes"] == list(PARENTS["vit"])


def test_running_trials_are_reported_until_they_have_a_row(tmp_path):
    begin(tmp_path)
    journal_of(tmp_path, [row_of(0)], begun=2)
    write_row(tmp_path, row_of(0))
    write_row(tmp_path, row_of(2))  # the driver died before it reported the trial to Optuna
    found = told(tmp_path)
    assert [(trial["trial"], trial["status"]) for trial in found["trials"]] == [
        (0, "complete"),
        (2, "complete"),
        (1, "running"),
    ]
    assert set(found["trials"][2]["hp"]) == {"search.budget.gmacs_share", "search.one_hot_weight"}
    assert found["study"]["finished"] is False


def test_reading_a_study_writes_nothing(tmp_path):
    begin(tmp_path)
    told(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["study.yaml"]


def study_with(values, **sweep) -> tuple[optuna.Study, object]:
    """Optuna's study of a function of its first swept field; its second objective is the last field."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    config = load_study(DIGITS, [f"sweep.{name}={value}" for name, value in sweep.items()])
    study = optuna.create_study(
        directions=["maximize", "minimize"], sampler=optuna.samplers.RandomSampler(seed=0)
    )
    for value in values:
        trial = study.ask(
            {name: optuna.distributions.FloatDistribution(0, 1) for name in config.sweep.params}
        )
        params = [*trial.params.values()] or [0.0]
        study.tell(trial, [value(params[0]), params[-1]])
    return study, config


def test_importance_is_of_what_each_objective_depends_on():
    study, config = study_with([lambda x: 100 * x] * 40)
    found = importance(study, config)
    first, last = list(config.sweep.params)[:: len(config.sweep.params) - 1]
    for objective, metric, name in zip(
        found["objectives"], ("val_top1", "gmacs"), (first, last), strict=True
    ):
        shares = objective["shares"]
        assert max(shares, key=shares.get) == name and shares[name] > 0.8
        assert sum(shares.values()) == pytest.approx(1)
        assert (objective["metric"], objective["why_not"]) == (metric, None)
    assert found["why_not"] is None
    assert importance(study, config) == found, "the same journal says the same"


@pytest.mark.parametrize(
    ("values", "sweep", "why_not"),
    [
        ([], {}, "Too few complete trials for importances: 0;"),
        (
            [lambda x: x] * (MIN_TRIALS - 1),
            {},
            f"Too few complete trials for importances: {MIN_TRIALS - 1};",
        ),
        ([lambda x: x] * MIN_TRIALS, {"params": "{}"}, "sweeps nothing"),
    ],
)
def test_importance_that_cannot_be_computed_is_left_out(values, sweep, why_not):
    found = importance(*study_with(values, **sweep))
    assert found["objectives"] == [] and why_not in found["why_not"]


def test_an_objective_that_is_always_the_same_has_no_importances():
    study, config = study_with([lambda x: 97.5] * MIN_TRIALS)
    first, second = importance(study, config)["objectives"]
    assert first["shares"] == {}
    assert first["why_not"] == f"All {MIN_TRIALS} complete trials have the same val_top1."
    assert second["shares"] and second["why_not"] is None


def test_hypervolumes_are_those_of_the_fronts_so_far(tmp_path):
    table = read_table(finished(tmp_path))
    found = told(tmp_path)["hypervolumes"]
    assert [trial for trial, _ in found] == list(range(10))
    for trial, share in found:
        until = table[table["trial"] <= trial]
        ref = reference_point(table)
        assert share == pytest.approx(hypervolume(until, y="val_top1", ref=ref).share)
    assert hypervolumes(table, ["gmacs", "params"]) == hypervolumes(table, ["top1"]) == []


@pytest.mark.parametrize("name", ["digits", "fashion_mnist", "deit_s"])
def test_the_settings_shown_are_the_study(name):
    study = load_study(Path(name))
    text = dump_changed(study)
    assert StudyConfig.model_validate(yaml.safe_load(text)) == study
    assert len(text.splitlines()) < len(dump_study(study).splitlines()) / 3


def test_the_settings_shown_have_no_password():
    study = load_study(Path("digits"), ["sweep.storage=postgresql://u:secret@h/n"])
    assert "postgresql://u:" in dump_changed(study) and "secret" not in dump_changed(study)


class Scripts(HTMLParser):
    """The texts of a page's scripts."""

    def __init__(self) -> None:
        super().__init__()
        self.kinds: list[str | None] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag, attributes):
        if tag == "script":
            self.kinds.append(dict(attributes).get("type"))
            self.texts.append("")

    def handle_data(self, data):
        if self.lasttag == "script":
            self.texts[-1] += data


def test_data_ends_no_element_and_comes_back_as_it_was(tmp_path):
    hostile = "</script ><script >alert(1)</script ><!-- <img src=x onerror=alert(1)> & \u2028"
    write_row(begin(tmp_path), failed_row(0, hostile))
    found = told(tmp_path)
    scripts = Scripts()
    scripts.feed(page(found))
    assert scripts.kinds == ["application/json", None]
    assert json.loads(scripts.texts[0]) == json.loads(json.dumps(found))
    assert found["trials"][0]["reason"] == hostile


def test_the_page_names_nothing_to_load(tmp_path):
    text = page(told(finished(tmp_path)))
    assert set(re.findall(r"https?://[^\s\"']+", text)) == {"http://www.w3.org/2000/svg"}
    assert not re.findall(r"\ssrc=|@import|url\(", text)
    none, own = (f"connect-src {html.escape(quoted)};" for quoted in ("'none'", "'self'"))
    assert none in text and own in page(told(tmp_path), live=True), (
        "only a page that is served asks its server"
    )
    assert len(text) < 200_000


def test_what_changes_a_study_changes_its_stamp(tmp_path):
    begin(tmp_path)
    stamps = [stamp(tmp_path)]
    write_row(tmp_path, row_of(0))
    stamps.append(stamp(tmp_path))
    write_history(tmp_path, 0, decisions_of(), study="digits")
    stamps.append(stamp(tmp_path))
    journal_of(tmp_path, [])
    stamps.append(stamp(tmp_path))
    assert len({str(one) for one in stamps}) == 4 and stamp(tmp_path) == stamps[-1]


@pytest.mark.slow
def test_the_command_writes_the_page_into_the_study_or_to_out(tmp_path):
    study = finished(tmp_path / "study")
    for args, place in (
        ([], study / "report.html"),
        (["--out", tmp_path / "a" / "b.html"], tmp_path / "a" / "b.html"),
    ):
        done = ofbnas("study", "report", study, *args)
        assert (done.returncode, done.stdout, done.stderr) == (0, f"{place}\n", "")
        assert place.read_text() == page(told(study))


@pytest.mark.slow
def test_a_report_needs_neither_torch_nor_timm_nor_ray(tmp_path):
    finished(tmp_path)
    code = f"""
import sys
sys.argv = ["ofbnas", "study", "report", {str(tmp_path)!r}]
from ofbnas.cli import main
try:
    main()
finally:
    print([name for name in ("torch", "timm", "ray") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert (tmp_path / "report.html").is_file()


@pytest.mark.slow
def test_mistakes_are_reported_in_one_line(tmp_path):
    study = finished(tmp_path / "study", num=4)
    (tmp_path / "damaged").mkdir()
    damaged = begin(tmp_path / "damaged")
    (damaged / "history").mkdir()
    (damaged / "history" / "trial-00000.parquet").write_text("no parquet")
    for args, message in (
        ([tmp_path], "holds no architecture table"),
        ([study, "--port", "8000"], "--port 8000: a page that is written has no port"),
        (
            [study, "--serve", "--out", "x.html"],
            "--out x.html: a page that is served is not written",
        ),
        ([study, "--serve", "--port", "99999"], "port 99999: is not available"),
        ([damaged], "trial-00000.parquet: not a Parquet file"),
        ([damaged, "--serve"], "trial-00000.parquet: not a Parquet file"),
    ):
        done = ofbnas("study", "report", *args)
        assert done.returncode == 2 and done.stdout == ""
        assert message in done.stderr and done.stderr.count("\n") == 1


def test_a_history_without_its_columns_is_refused(tmp_path):
    from pyarrow import parquet

    begin(tmp_path)
    file = write_history(tmp_path, 0, decisions_of(), study="digits")
    parquet.write_table(parquet.read_table(file).drop_columns(["axes"]), file)
    with pytest.raises(InputError, match="lacks the columns axes"):
        told(tmp_path)


def test_files_are_written_as_text_of_one_encoding(tmp_path):
    add(begin(tmp_path / "study"), row_of(0, budget_note="\u00e4 \u2014 \u6f22"))
    write_page(told(tmp_path / "study"), tmp_path / "page.html")
    assert "\\u6f22" in (tmp_path / "page.html").read_bytes().decode("utf-8")


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("digits", "has no study.yaml"),
        ("published.parquet", "of several parents"),
        ("digits/architectures.parquet", "has no study.yaml"),
    ],
)
def test_any_table_has_a_page_which_says_what_is_missing(tmp_path, table, said):
    source = ROOT / "studies" / "tables" / table
    done = ofbnas("study", "report", source, "--out", tmp_path / "page.html")
    assert done.returncode == 0 and said in done.stderr
    scripts = Scripts()
    scripts.feed((tmp_path / "page.html").read_text())
    shown = json.loads(scripts.texts[0])
    assert len(shown["trials"]) == len(read_table(source)) and shown["study"]["finished"]
    assert said in shown["left_out"]
    assert bool(shown["decisions"]) == ("digits" in table)


def test_trials_of_several_tables_are_numbered_anew(tmp_path):
    tables = [read_table(finished(tmp_path / name, num=4)) for name in ("a", "b")]
    together = pd.concat(
        [table.assign(study=name) for table, name in zip(tables, "ab", strict=True)]
    )
    write_table(together, tmp_path / "m.parquet")
    shown = contents(tmp_path / "m.parquet", None, no_journal())
    assert [trial["trial"] for trial in shown["trials"]] == list(range(8))
    assert "numbered anew" in shown["left_out"] and not shown["decisions"]
    assert shown["parent"]["gmacs"] == 7.994e-4


def test_the_curves_of_a_page_are_those_of_the_history_and_never_too_long(tmp_path):
    write_row(begin(tmp_path), row_of(0))
    write_history(tmp_path, 0, epochs_of(8), study="digits")
    found = told(tmp_path)["epochs"]["0"]
    assert found["phase"] == ["search"] * 6 + ["finetune"] * 2
    assert found["epoch"] == [1, 2, 3, 4, 5, 6, 1, 2] and "one_hot" not in found
    assert found["val_top1"] == pytest.approx([one["val_top1"] for one in epochs_of(8)], abs=1e-3)
    write_history(tmp_path, 0, epochs_of(5000), study="digits")
    found = told(tmp_path)["epochs"]["0"]
    assert len(found["epoch"]) == MAX_EPOCHS and found["val_top1"][-1] == 98
