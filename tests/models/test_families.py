"""The page about model families and `ofbnas space list` agree with the code."""

from __future__ import annotations

import importlib.util
import json
import re

import pytest
import timm
from commands import ofbnas
from conftest import ROOT

from ofbnas.models.axes import all_families
from ofbnas.models.registry import look_up


def generator(name: str = "generate"):
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_the_page_of_families_says_what_the_code_does():
    text = (ROOT / "docs" / "families.md").read_text()
    searchable = [
        name
        for names in re.findall(r"</summary>\n\n(.*)\n\n</details>", text)
        for name in names.split(", ")
    ]
    refused = dict(re.findall(r"^\| `(\S+)` \| (.*) \|$", text, re.M))
    assert len(searchable) >= 250
    for group in ("deit_", "deit3_", "vit_", "swin_", "swinv2_", "beit", "eva02_"):
        assert any(name.startswith(group) for name in searchable), group
    some = {
        *searchable[:: len(searchable) // 60],
        *refused,
    }  # tools/generate.py looks at all models, in two minutes
    found = list(look_up([name for name in timm.list_models() if name in some], costs=False))
    assert {model.model: model.reason for model in found if not model.searchable} == refused
    code = generator().EXAMPLE.read_text()
    assert f"```python\n{code}```" in text, "run python tools/generate.py"
    for family in all_families():
        assert f"| {family.name} | {family.members} |" in text and family.limits in text, (
            "run python tools/generate.py"
        )


def test_the_registry_is_listed_with_what_models_cost():
    done = ofbnas("space", "list", "deit_*", "--json")
    assert done.returncode == 0, done.stderr
    small = next(row for row in json.loads(done.stdout) if row["model"] == "deit_small_patch16_224")
    axes = {"embed": 1, "heads": 12, "head_size": 12, "mlp": 12}
    assert small == small | {"family": "vit", "searchable": True, "reason": None, "axes": axes}
    assert small["gmacs"] == pytest.approx(4.599, abs=1e-3) and 0.3 < small["least_gmacs"] < 0.5


@pytest.mark.slow
def test_what_cannot_be_searched_is_listed_with_the_reason():
    done = ofbnas("space", "list", "vit_small_*", "--all")
    assert "vit_small_resnet26d_224" in done.stdout and "running statistic" in " ".join(
        done.stdout.split()
    )
    assert re.search(r"\d+ of \d+ models of timm", done.stdout)
    done = ofbnas("space", "list", "resnet18", "--json")
    assert json.loads(done.stdout)[0]["reason"] == "no family is known for ResNet"
    done = ofbnas("space", "list", "nothing*")
    assert done.returncode == 2 and "no model of timm" in done.stderr and "deit*" in done.stderr
