"""A model whose name or arguments are given wrongly is refused before anything is computed."""

from __future__ import annotations

import pytest
from conftest import KWARGS, NAME, make

import ofbnas
from ofbnas.errors import InputError
from ofbnas.models.identity import check_identity


def test_a_model_is_what_its_name_and_arguments_make(model):
    check_identity(model, NAME, KWARGS)


@pytest.mark.parametrize(
    ("name", "kwargs", "message"),
    [
        (NAME, KWARGS | {"depth": 3}, "lacks blocks.2.attn.proj.bias, expected with shape"),
        (NAME, KWARGS | {"depth": 1}, "has blocks.1.attn.proj.bias with shape (16,), which is not"),
        (
            NAME,
            KWARGS | {"num_classes": 3},
            "head.bias has shape (10,), expected (3,); head.weight",
        ),
        (NAME, {}, "and 149 more differ: give the name and the arguments"),
        (NAME, KWARGS | {"num_heads": 2}, "blocks.0.attn has the size (4, 4), expected (2, 8)"),
        ("deit3_small_patch16_224", KWARGS, "lacks blocks.0.ls1.gamma"),
        ("vit_tinny_patch16_224", KWARGS, "unknown to timm"),
    ],
)
def test_another_one_is_refused_with_what_differs(model, name, kwargs, message):
    with pytest.raises(InputError) as error:
        check_identity(model, name, kwargs)
    assert message in str(error.value), error.value


@pytest.mark.parametrize("epochs", [0, 1])
def test_a_search_of_a_model_under_another_name_does_not_begin(data, epochs):
    settings = ofbnas.SearchConfig(epochs=epochs, budget={"gmacs_share": 0.5})
    with pytest.raises(InputError, match=r"the model is not .*: lacks blocks.2"):
        ofbnas.search(make(), data, settings, name=NAME, kwargs=KWARGS | {"depth": 3})
