"""Search spaces: which sizes of an axis they give."""

from __future__ import annotations

import pytest
from conftest import ROOT

from ofbnas.config.study_file import load_space
from ofbnas.models.axes import Shares, axes
from ofbnas.models.create import on_meta
from ofbnas.study.parent import space_of


@pytest.mark.parametrize(
    ("shares", "size", "sizes"),
    [
        (Shares(0.25, 1, 0.25, multiple_of=16), 64, (16, 32, 48, 64)),
        (Shares(0.5, 1, 0.25, multiple_of=16), 100, (48, 80, 100)),
        (Shares(0.125, 1, 0.125, multiple_of=16), 32, (16, 32)),
        (Shares(0.25, 1, 0.25, multiple_of=16), 12, (12,)),
        (Shares(0.5, 0.97, 0.47, multiple_of=16), 95, (48, 80)),
    ],
)
def test_shares_are_rounded_to_multiples_and_the_own_size_stays(shares, size, sizes):
    assert shares.of(size) == sizes


def test_heads_of_an_embedding_are_multiples_in_channels():
    assert Shares(0.25, 1, 0.25, multiple_of=16).of(12, unit=8) == (4, 6, 8, 12)
    assert Shares(0.25, 1, 0.25, multiple_of=16).of(12, unit=64) == (3, 6, 9, 12)


def test_the_space_for_hardware_gives_widths_by_16():
    space = space_of(load_space(ROOT / "search_spaces" / "hardware.yaml"))
    for axis in axes(on_meta("deit_small_patch16_224", {}).model, space):
        _, channels = axis.options
        assert len(channels) > 1 and all(number % 16 == 0 for number in channels)
        if axis.kind == "attn":
            assert channels == (16, 32, 48, 64)
