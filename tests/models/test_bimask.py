"""The bi-mask, compared with its definition written out in loops."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ofbnas.models.bimask import BiMask


@st.composite
def masks(draw):
    groups, channels = draw(st.integers(1, 4)), draw(st.integers(1, 6))
    options = tuple(
        tuple(sorted(draw(st.sets(st.integers(1, most), min_size=1))))
        for most in (groups, channels)
    )
    mask = BiMask((groups, channels), options)
    torch.manual_seed(draw(st.integers(0, 1000)))
    mask.start_(torch.randn_like(mask.importance), torch.randn_like(mask.logits))
    mask.blend.fill_(draw(st.sampled_from([0.0, 0.3, 1.0])))
    dead = torch.rand_like(mask.logits) < 0.4
    if not dead.all():
        mask.keep_only_(~dead)
    return mask


def by_definition(mask: BiMask) -> torch.Tensor:
    """lambda sigma(s) + (1 - lambda) V, with V the sum of p over the options whose ranks include the unit."""
    gate = mask.importance.detach().sigmoid().view(mask.size)
    alive = {(i, j) for i, j in mask.alive.nonzero().tolist()}
    weights = {(i, j): mask.logits[i, j].exp().item() for i, j in alive}
    p = {key: weight / sum(weights.values()) for key, weight in weights.items()}
    group_order = sorted(range(mask.size[0]), key=lambda h: -gate[h].sum().item())
    out = torch.zeros(mask.size)
    for h in range(mask.size[0]):
        channel_order = sorted(range(mask.size[1]), key=lambda c: -gate[h, c].item())
        for c in range(mask.size[1]):
            kept = sum(
                p[i, j]
                for i, j in alive
                if group_order.index(h) < mask.options[0][i]
                and channel_order.index(c) < mask.options[1][j]
            )
            out[h, c] = mask.blend * gate[h, c] + (1 - mask.blend) * kept
    return out


@settings(max_examples=60)
@given(masks())
def test_the_mask_is_its_definition(mask):
    torch.testing.assert_close(mask().detach(), by_definition(mask))


@settings(max_examples=60)
@given(masks())
def test_the_expected_width_is_the_sum_of_v(mask):
    expected = mask.expected_size()
    torch.testing.assert_close(expected.units, mask.sparsity().sum())
    torch.testing.assert_close(
        expected.groups, (mask.probabilities().sum(1) * torch.tensor(mask.options[0])).sum()
    )


@settings(max_examples=60)
@given(masks())
def test_kept_units_are_the_most_important_in_their_old_order(mask):
    kept = mask.kept()
    assert tuple(kept.shape) == tuple(
        min(widest, size) for widest, size in zip(mask.widest, mask.size, strict=True)
    )
    assert torch.equal(kept, kept.sort(1).values) and torch.equal(
        kept[:, 0], kept[:, 0].sort().values
    )
    gate = mask.gate().detach()
    for row in kept:
        group = int(row[0]) // mask.size[1]
        others = set(range(mask.size[1])) - {int(unit) % mask.size[1] for unit in row}
        least = min(gate.flatten()[unit] for unit in row)
        assert all(gate[group, other] <= least for other in others)


def test_v_is_a_staircase_on_the_first_units():
    mask = BiMask((1, 6), ((1,), (2, 4, 6)))
    mask.start_(torch.tensor([6.0, 5, 4, 3, 2, 1]), torch.tensor([[0.0, 0, 0]]))
    torch.testing.assert_close(mask.sparsity()[0], torch.tensor([1, 1, 2 / 3, 2 / 3, 1 / 3, 1 / 3]))


def test_a_new_mask_is_exactly_one():
    assert torch.equal(BiMask((3, 5), ((1, 2, 3), (1, 5)))(), torch.ones(3, 5))


def test_a_decided_mask_is_a_gain_of_the_importance():
    mask = BiMask((1, 4), ((1,), (2, 4)))
    mask.start_(torch.tensor([0.0, 1, 2, 3]), torch.zeros(1, 2))
    mask.blend.fill_(0.1)
    mask.keep_only_(torch.tensor([[False, True]]))
    torch.testing.assert_close(mask(), 0.1 * mask.gate() + 0.9)


def test_removed_options_have_no_gradient():
    mask = BiMask((1, 6), ((1,), (2, 4, 6)))
    mask.start_(torch.randn(6), torch.zeros(1, 3))
    mask.keep_only_(torch.tensor([[True, False, True]]))
    (mask() * torch.randn(1, 6)).sum().backward()
    assert mask.logits.grad[0, 1] == 0 and mask.logits.grad[0, 0] != 0


def test_the_last_option_cannot_be_removed():
    mask = BiMask((1, 4), ((1,), (2, 4)))
    with pytest.raises(ValueError, match="no option"):
        mask.keep_only_(torch.zeros(1, 2, dtype=torch.bool))
    assert mask.num_alive == 2
