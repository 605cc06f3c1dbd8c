"""The JSON Schema of study files accepts what is valid, and refuses what an editor can see."""

from __future__ import annotations

import json

import jsonschema
import pytest
import yaml
from commands import ofbnas
from conftest import DIGITS, ROOT

from ofbnas.config import StudyConfig
from ofbnas.config.json_schema import study_schema

STUDIES = [*ROOT.glob("studies/*.yaml"), *ROOT.glob("benchmarks/parents/*.yaml")]
SCHEMA = study_schema()


def errors(**changes) -> list[str]:
    study = yaml.safe_load(DIGITS.read_text())
    study["search"] |= changes
    return [error.message for error in jsonschema.Draft202012Validator(SCHEMA).iter_errors(study)]


def test_it_is_a_schema():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("file", STUDIES, ids=lambda file: file.stem)
def test_every_study_here_is_valid(file):
    jsonschema.validate(yaml.safe_load(file.read_text()), SCHEMA)


@pytest.mark.parametrize("span", [0.2, {"epochs": 3}, {"steps": 100}])
def test_a_span_is_a_share_epochs_or_steps(span):
    assert not errors(decide_by=span)


@pytest.mark.parametrize(
    "change", [{"epocs": 3}, {"epochs": "x"}, {"decide_by": 3}, {"preset": "other"}], ids=str
)
def test_mistakes_are_found(change):
    assert errors(**change)


def test_a_search_needs_epochs_or_a_preset():
    study = yaml.safe_load(DIGITS.read_text())
    del study["search"]["epochs"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(study, SCHEMA)
    study["search"]["preset"] = "reference"
    jsonschema.validate(study, SCHEMA)


def test_a_study_needs_no_sweep():
    study = yaml.safe_load(DIGITS.read_text())
    del study["sweep"]
    jsonschema.validate(study, SCHEMA)
    read = StudyConfig.model_validate(study)
    assert read.sweep.n_trials == 1 and not read.sweep.params


def test_the_command_prints_it():
    assert json.loads(ofbnas("study", "schema").stdout) == SCHEMA
