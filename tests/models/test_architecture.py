"""An architecture's sizes, encoded for a table and decoded."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ofbnas.errors import InputError
from ofbnas.models.architecture import Sizes, decode_sizes, encode_sizes, kinds_by_name
from ofbnas.models.axes import axes
from ofbnas.models.create import on_meta

PARENT: Sizes = {
    "embed": (1, 64),
    "blocks.0.attn": (4, 16),
    "blocks.0.mlp": (1, 256),
    "blocks.1.mlp": (1, 128),
}
KINDS = {
    "embed": "embed",
    "blocks.0.attn": "attn",
    "blocks.0.mlp": "mlp",
    "blocks.1.mlp": "mlp",
}


def test_sizes_are_nested_by_block():
    assert encode_sizes(PARENT, KINDS) == {
        "embed": [64],
        "blocks": [{"heads": 4, "head_size": 16, "mlp": 256}, {"mlp": 128}],
    }


@st.composite
def parents(draw) -> tuple[dict[str, str], Sizes]:
    """Kinds and sizes of a parent's axes: stages with an embedding, blocks with one part or both."""
    kinds: dict[str, str] = {}
    sizes: Sizes = {}
    count = st.integers(2, 9)
    for stage in range(draw(st.integers(1, 3))):
        kinds[f"layers.{stage}.embed"] = "embed"
        sizes[f"layers.{stage}.embed"] = (draw(st.integers(1, 4)), draw(count))
        for block in range(draw(st.integers(1, 3))):
            parts = draw(st.sampled_from([("attn",), ("ffn",), ("attn", "ffn"), ("ffn", "attn")]))
            for part in parts:
                name = f"layers.{stage}.blocks.{block}.{part}"
                kinds[name] = "attn" if part == "attn" else "mlp"
                sizes[name] = (draw(count) if part == "attn" else 1, draw(count))
    return kinds, sizes


@settings(max_examples=100)
@given(parents(), st.data())
def test_decoding_is_the_inverse_of_encoding(parent, data):
    kinds, full = parent
    found: Sizes = {}
    for name, (groups, channels) in full.items():
        # An embedding made of heads keeps the head size, which cannot be derived from its width.
        keeps_channels = kinds[name] == "embed" and groups > 1
        kept = channels if keeps_channels else data.draw(st.integers(1, channels))
        found[name] = (data.draw(st.integers(1, groups)), kept)
    assert decode_sizes(encode_sizes(found, kinds), kinds, full) == found


@pytest.mark.parametrize(
    "model",
    [
        "vit_tiny_patch16_224",
        "beit_base_patch16_224",
        "cait_xxs24_224",
        "eva02_tiny_patch14_224",
        "hiera_tiny_224",
        "swin_tiny_patch4_window7_224",
        "swinv2_tiny_window8_256",
    ],
)
def test_the_kinds_of_real_axes_follow_from_their_names(model):
    found = axes(on_meta(model, {}).model, space={})
    kinds = {axis.name: axis.kind for axis in found}
    sizes = {axis.name: axis.size for axis in found}
    assert kinds_by_name(sizes) == kinds
    assert decode_sizes(encode_sizes(sizes, kinds), kinds, sizes) == sizes


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "has no architecture"),
        ({"embed": [64], "blocks": None}, "has 1 embeddings and 0 blocks, the parent 1 and 2"),
        ({"embed": [64], "blocks": [{"mlp": 9}] * 2}, "lacks a size that its parent has"),
        (
            {"embed": [float("nan")], "blocks": [{"mlp": 9}] * 2},
            "lacks a size that its parent has",
        ),
    ],
)
def test_a_value_without_the_parents_parts_is_refused(value, message):
    with pytest.raises(InputError, match=message):
        decode_sizes(value, KINDS, PARENT)


def test_a_width_that_splits_a_head_is_refused():
    with pytest.raises(InputError, match="has embed at 100, but it is made of heads of 64"):
        decode_sizes({"embed": [100], "blocks": []}, {"embed": "embed"}, {"embed": (12, 64)})
