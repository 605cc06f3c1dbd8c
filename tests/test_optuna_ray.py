"""docs/optuna_ray.md, snippet by snippet, on a study that is over in a second."""

from __future__ import annotations

import re
import warnings
from contextlib import chdir

import optuna
import pytest
import ray
from conftest import ROOT
from own_study import tiny

import ofbnas
from ofbnas.config.study_file import dump_study
from ofbnas.nas.perturbed import PERTURBABLE

PAGE = (ROOT / "docs" / "optuna_ray.md").read_text()
OPTUNA, TUNE = PAGE.split("\n## Ray Tune\n")


def run(part: str, folder) -> None:
    """The Python snippets of a part, one after the other, with one trial where there are more."""
    (folder / "study.yaml").write_text(dump_study(tiny()))
    snippets = re.findall(r"^```python\n(.*?)^```", part, re.MULTILINE | re.DOTALL)
    code = re.sub(r"(n_trials|num_samples)=8", r"\1=1", "\n".join(snippets))
    with chdir(folder), warnings.catch_warnings(action="ignore"):
        exec(compile(code, "docs/optuna_ray.md", "exec"), {})


def test_the_snippets_for_optuna_make_tables(tmp_path):
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    run(OPTUNA, tmp_path)
    assert ofbnas.read_table(tmp_path / "runs/mine")["status"].tolist() == ["complete"] * 2
    assert ofbnas.read_table(tmp_path / "runs/one")["status"].tolist() == ["complete"]


@pytest.mark.slow
def test_the_snippets_for_ray_make_tables(tmp_path, monkeypatch):
    # Not HOME, where Ray has the token that one process keeps for all its clusters.
    monkeypatch.setenv("OFBNAS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("ray.train.constants.DEFAULT_STORAGE_PATH", str(tmp_path / "results"))
    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
    try:
        run(TUNE, tmp_path)
    finally:
        ray.shutdown()
    for name in ("tuned", "population"):
        assert ofbnas.read_table(tmp_path / "runs" / name)["status"].tolist() == ["complete"]


def test_the_page_names_the_fields_that_may_be_perturbed():
    table = TUNE.split("| may be perturbed |")[1].split("\n\n")[0]
    named = re.findall(r"`([\w.]+)`", table)
    assert {name.removeprefix("search.") for name in named} == {
        name.removeprefix("search.") for name in PERTURBABLE
    }
