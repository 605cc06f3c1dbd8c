"""What a notebook or a prompt shows of public objects: short, complete, and safe as HTML."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

import pytest

import ofbnas
from ofbnas.config import StudyConfig
from ofbnas.models.architecture import Architecture
from ofbnas.models.axes import axes
from ofbnas.models.subnet import Subnet
from ofbnas.nas.search import SearchResult

HOSTILE = "<script>alert(1)</script>"


class Texts(HTMLParser):
    """The tags and the texts of HTML."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.words: list[str] = []
        self.feed(source)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)

    def handle_data(self, data):
        self.words += data.split()


@pytest.fixture
def found(model) -> SearchResult:
    sizes = {axis.name: axis.size for axis in axes(model)}
    subnet = Subnet(Architecture(HOSTILE, {}, sizes), model)
    return SearchResult(
        subnet, macs=123_456, params=789, note=HOSTILE, forced=0, history=[{}] * 99, epochs=[]
    )


def test_a_network_is_shown_by_its_sizes(found):
    architecture = found.subnet.architecture
    embedding, *blocks = architecture._encoded()["embed"], *architecture._encoded()["blocks"]
    for shown in (architecture, found.subnet, found):
        assert architecture.id in repr(shown) and len(repr(shown)) < 500
        seen = Texts(shown._repr_html_())
        assert architecture.id in " ".join(seen.words) and set(seen.tags) <= {
            "table", "caption", "thead", "tbody", "tr", "th", "td", "p",
        }  # fmt: skip
        assert seen.tags.count("tr") == 1 + len(blocks)
        for block in blocks:
            assert str(block["mlp"]) in seen.words and str(block["head_size"]) in seen.words
        assert str(*embedding) in seen.words
    assert "123,456" in found._repr_html_()


def test_axes_are_shown_by_their_sizes(model):
    shown = repr(axes(model))
    assert all(f"Axis({axis.name}: " in shown for axis in axes(model))
    assert len(shown) < 80 * len(axes(model))


def test_settings_are_shown_where_they_are_not_the_defaults():
    study = ofbnas.load_study(Path("digits"))
    shown = repr(study)
    assert "name='digits'" in shown and "epochs=80" in shown and len(shown) < 1500
    assert repr(ofbnas.SearchConfig.model_validate({"epochs": 3, "budget": {"params": 5}})) == (
        "SearchConfig(epochs=3, budget=BudgetConfig(params=5.0))"
    )
    assert "one_hot_weight" in study._repr_html_()
    hostile = study.model_dump() | {"model": {"name": HOSTILE, "pretrained": True}}
    assert Texts(StudyConfig.model_validate(hostile)._repr_html_()).tags == ["pre"]


def test_data_are_shown_by_their_numbers():
    data = ofbnas.load_data("digits")
    assert f"{data.train_images:,} + {len(data.val)} + {len(data.test)} images" in repr(data)
    assert len(repr(data)) < 120
