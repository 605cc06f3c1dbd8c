"""One contract that judges every family: a tiny member of each line below, and a real one of each family at full size.

A new family is one line in MEMBERS and one in FULL_SIZE.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

import pytest
import timm
import torch
import torch_pruning
from hypothesis import given, settings
from hypothesis import strategies as st
from test_search import config
from test_shrink import shrink, zero
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ofbnas.models.axes import (
    Shares,
    all_bindings,
    all_families,
    axes,
    family_of,
    final_grid,
    input_size,
    patch_tokens,
)
from ofbnas.models.cost import cost_of, least_sizes, sizes_of
from ofbnas.models.subnet import load, save
from ofbnas.models.supernet import Supernet
from ofbnas.models.tokens import MaskedImageModelling
from ofbnas.nas.compensation import Cut, compensate_
from ofbnas.nas.plain import Network
from ofbnas.nas.saliency import best_units
from ofbnas.nas.search import search
from ofbnas.training.data.small import SmallData, SmallSplit


@dataclass(frozen=True)
class Member:
    """A tiny model of a family.

    Attributes:
        name: timm's name.
        kwargs: Arguments that make it tiny.
        unseen: Patterns of modules that Torch-Pruning misses: they hold parameters of their own, are
        called through a function, or give one value for each head.
        untraced: Patterns of axes that it cannot follow at all.
    """

    name: str
    kwargs: dict[str, Any] = field(default_factory=dict)
    unseen: tuple[str, ...] = ()
    untraced: tuple[str, ...] = ()


SMALL = {"img_size": 8, "in_chans": 1, "num_classes": 10}
VIT = SMALL | {"patch_size": 2, "embed_dim": 16, "depth": 2, "num_heads": 4}
SWIN = SMALL | {
    "patch_size": 1,
    "window_size": 2,
    "embed_dim": 16,
    "depths": [2, 2],
    "num_heads": [2, 4],
}
HIERA = {
    "img_size": 16,
    "in_chans": 1,
    "num_classes": 10,
    "embed_dim": 16,
    "num_heads": 2,
    "stages": [1, 2],
    "q_pool": 1,
}
HIERA |= {
    "patch_kernel": [3, 3],
    "patch_stride": [2, 2],
    "patch_padding": [1, 1],
    "mask_unit_size": [4, 4],
}
HIERA |= {"mask_unit_attn": [True, False]}
HYBRID = {"img_size": 64, "num_classes": 10, "depth": 2}
SCALES = (
    "*.ls",
    "*.ls1",
    "*.ls2",
    "blocks*.?",
)  # layer scales; the last are parameters of the block itself
BIASED = (
    "*.attn",
    "*.attn.qkv",
)  # biases beside the projection, which a function applies
TABLES = ("*.attn", "rel_pos_bias")
PER_HEAD = ("*rel_pos.mlp.fc2", "*.meta_mlp.fc2", "*.cpb_mlp.2", "*.attn")
POOL = ("attn_pool*", "head")  # Torch-Pruning gives up at the latent query

MEMBERS = {
    "vit": Member("vit_tiny_patch16_224", VIT),
    "vit without class token": Member(
        "vit_tiny_patch16_224", VIT | {"class_token": False, "global_pool": "avg"}
    ),
    "vit without biases": Member("vit_tiny_patch16_224", VIT | {"qkv_bias": False}),
    "vit with head norms": Member("vit_tiny_patch16_224", VIT | {"qk_norm": True}),
    "deit distilled": Member("deit_tiny_distilled_patch16_224", VIT),
    "deit 3": Member("deit3_small_patch16_224", VIT, unseen=SCALES),
    "dinov2": Member("vit_small_patch14_dinov2", VIT, unseen=SCALES),
    "dinov2 with registers": Member("vit_small_patch14_reg4_dinov2", VIT, unseen=SCALES),
    "dinov2 with swiglu": Member("vit_giant_patch14_dinov2", VIT | {"mlp_ratio": 4}, unseen=SCALES),
    "clip": Member("vit_base_patch16_clip_224", VIT),
    "siglip": Member("vit_base_patch16_siglip_224", VIT, unseen=POOL),
    "aimv2": Member("aimv2_large_patch14_224", VIT, untraced=("embed",)),
    "beit 3": Member("beit3_base_patch16_224", VIT),
    "vit with norms after": Member("vit_base_patch16_rpn_224", VIT),
    "vit side by side": Member("vit_small_patch16_18x2_224", VIT, unseen=SCALES),
    "hybrid": Member("vit_tiny_r_s16_p8_224", HYBRID, untraced=("*",)),
    "vitamin": Member("vitamin_small_224", HYBRID, untraced=("embed",)),
    "eva": Member("eva_large_patch14_196", VIT, unseen=BIASED),
    "eva 02": Member("eva02_tiny_patch14_224", VIT, unseen=BIASED),
    "eva 02 with norms inside": Member("eva02_base_patch14_224", VIT),
    "eva 02 with norms after": Member("eva02_enormous_patch14_clip_224", VIT, unseen=BIASED),
    "dinov3": Member("vit_small_patch16_dinov3", VIT, unseen=SCALES),
    "vit with rotations": Member("vit_small_patch16_rope_224", VIT, unseen=SCALES),
    "vit with learned rotations": Member("vit_small_patch16_rope_mixed_224", VIT, unseen=SCALES),
    "perception encoder": Member("vit_pe_core_tiny_patch16_384", VIT, unseen=POOL),
    "sapiens 2": Member(
        "vit_base_patch16_sapiens2", VIT | {"num_kv_heads": [2, 2]}, untraced=("embed",)
    ),
    "beit": Member("beit_base_patch16_224", VIT, unseen=(*BIASED, *SCALES)),
    "beit with one table": Member(
        "beit_base_patch16_224",
        VIT | {"use_rel_pos_bias": False, "use_shared_rel_pos_bias": True},
        unseen=(*BIASED, *SCALES, *TABLES),
    ),
    "relpos": Member("vit_relpos_small_patch16_224", VIT, unseen=(*PER_HEAD, *SCALES)),
    "relpos shared": Member(
        "vit_srelpos_small_patch16_224", VIT, unseen=("shared_rel_pos.mlp.fc2", *SCALES)
    ),
    "relpos in a table": Member(
        "vit_relpos_small_patch16_224",
        VIT | {"rel_pos_type": "bias"},
        unseen=("*.rel_pos", *SCALES),
    ),
    "relpos with norms after": Member("vit_relpos_small_patch16_rpn_224", VIT, unseen=PER_HEAD),
    "cait": Member("cait_xxs24_224", VIT),
    "swin": Member("swin_tiny_patch4_window7_224", SWIN, unseen=("*.attn",)),
    "swin v2": Member("swinv2_tiny_window8_256", SWIN, unseen=(*BIASED, *PER_HEAD)),
    "swin v2 cr": Member("swinv2_cr_tiny_ns_224", SWIN, unseen=PER_HEAD),
    "hiera": Member("hiera_tiny_224", HIERA, untraced=("blocks.?.attn",)),
    "hiera with positions in windows": Member(
        "hiera_tiny_224",
        HIERA | {"abs_win_pos_embed": True, "global_pos_size": [4, 4]},
        untraced=("blocks.?.attn",),
    ),
}
FULL_SIZE = {
    "vit": "vit_small_patch14_dinov2",
    "eva": "eva02_tiny_patch14_224",
    "beit": "beit_base_patch16_224",
    "relpos": "vit_relpos_small_patch16_224",
    "cait": "cait_xxs24_224",
    "swin": "swin_tiny_patch4_window7_224",
    "swin_v2": "swinv2_tiny_window8_256",
    "swin_v2_cr": "swinv2_cr_tiny_224",
    "hiera": "hiera_tiny_224",
}
SPACE = {"embed": Shares(0.25, 1, 0.25), "heads": Shares(0.25, 1, 0.25)}
SPACE |= {"head_size": Shares(0.25, 1, 0.25), "mlp": Shares(0.125, 1, 0.125)}


def make(member: Member) -> nn.Module:
    """A model in evaluation mode, with weights large enough to matter."""
    torch.manual_seed(0)
    model = timm.create_model(member.name, **member.kwargs).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def images_for(model: nn.Module, count: int = 2) -> torch.Tensor:
    return torch.randn(count, *input_size(model), generator=torch.Generator().manual_seed(1))


def counted(model: nn.Module) -> int:
    """Half of torch's FLOPs for one image; attention is unfused, which every release can count."""
    for module in model.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = False
    model.requires_grad_(False)
    with FlopCounterMode(display=False) as counter:
        model(images_for(model, 1))
    model.requires_grad_(True)
    return counter.get_total_flops() // 2


def closed(model: nn.Module) -> Supernet:
    """A supernet in the middle of a search."""
    supernet = Supernet(model, axes(model, SPACE), residual_mask=True)
    torch.manual_seed(3)
    for mask in supernet.masked().values():
        mask.start_(torch.randn_like(mask.importance), torch.randn_like(mask.logits))
        mask.blend.fill_(0.4)
    return supernet


@pytest.fixture(params=MEMBERS)
def member(request: pytest.FixtureRequest) -> Member:
    return MEMBERS[request.param]


@pytest.fixture
def model(member: Member) -> nn.Module:
    return make(member)


def test_each_family_has_its_lines():
    names = {family.name for family in all_families()}
    assert {family_of(make(member)).name for member in MEMBERS.values()} == names
    assert set(FULL_SIZE) == names


def test_open_masks_compute_the_model_bit_for_bit(model):
    images = images_for(model)
    supernet = Supernet(model, residual_mask=True)
    assert torch.equal(supernet(images), model(images))
    weights = supernet.weights()
    assert all(
        torch.equal(weights[name], parameter) for name, parameter in model.named_parameters()
    )


def test_masked_weights_loaded_into_plain_timm_give_the_same_outputs(model):
    images, supernet = images_for(model), closed(model)
    expected = supernet(images).detach()
    assert not torch.allclose(expected, model(images), atol=1e-3)
    model.load_state_dict(supernet.weights(), strict=False)
    assert torch.equal(model(images), expected)


def test_every_parameter_is_bound_or_free(model):
    """`axes` refuses unbound tensors; here, nothing that is bound is also declared free."""
    bound = {binding.tensor for _, binding in all_bindings(axes(model))}
    free = [name for name, _ in model.named_parameters() if name not in bound]
    assert all(
        any(fnmatchcase(name, pattern) for pattern in family_of(model).free) for name in free
    )
    extra = nn.Parameter(torch.zeros(3))
    model.register_parameter("extra", extra)
    with pytest.raises(Exception, match="no axis is known for extra"):
        axes(model)


def test_bindings_are_those_of_torch_prunings_dependency_graph(member, model):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graph = torch_pruning.DependencyGraph().build_dependency(
            model, example_inputs=images_for(model)
        )
    names = {module: name for name, module in model.named_modules()}
    prunes = {
        nn.Linear: torch_pruning.prune_linear_out_channels,
        nn.Conv2d: torch_pruning.prune_conv_out_channels,
    }
    patterns, compared = family_of(model).free, 0

    def free(parameter: str) -> bool:
        return any(fnmatchcase(parameter, pattern) for pattern in patterns)

    def own(name: str) -> list[str]:
        return [
            parameter for parameter, _ in model.get_submodule(name).named_parameters(recurse=False)
        ]

    for axis in axes(model, SPACE):
        if not axis.searched or any(fnmatchcase(axis.name, pattern) for pattern in member.untraced):
            continue
        layers = (
            model.get_submodule(b.tensor.rpartition(".")[0]) for b in axis.bindings if b.dim == 0
        )
        root = next(layer for layer in layers if type(layer) in prunes)
        group = graph.get_pruning_group(
            root, prunes[type(root)], idxs=list(range(root.weight.shape[0]))
        )
        theirs = {
            names[dependency.target.module]
            for dependency, _ in group
            if dependency.target.module in names
        }
        theirs = {
            name for name in theirs if name and any(not free(f"{name}.{p}") for p in own(name))
        }
        ours = {binding.tensor.rpartition(".")[0] for binding in axis.bindings} - {""}
        assert theirs <= ours, axis.name
        assert all(
            any(fnmatchcase(n, pattern) for pattern in member.unseen) for n in ours - theirs
        ), ours - theirs
        compared += 1
    assert compared or member.untraced


@pytest.mark.parametrize("fused", [True, False])
def test_shrinking_equals_zeroing_where_nothing_normalises_the_units(model, fused):
    for module in model.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = fused
    found, kept = axes(model, SPACE), {}
    for axis in found:
        normed = any(".norm." in binding.tensor for binding in axis.bindings)
        if axis.searched and axis.kind != "embed" and not normed:
            groups, channels = (
                axis.options[0][-1] if axis.kind == "mlp" else axis.options[0][0],
                axis.options[1][0],
            )
            torch.manual_seed(0)
            rows = torch.randperm(axis.size[0])[:groups].sort().values
            chosen = [torch.randperm(axis.size[1])[:channels].sort().values for _ in rows]
            kept[axis.name] = torch.stack(
                [row * axis.size[1] + units for row, units in zip(rows, chosen, strict=True)]
            )
    images = images_for(model)
    small = shrink(model, found, kept)
    zero(model, found, kept)
    torch.testing.assert_close(small(images), model(images), rtol=1e-4, atol=1e-4)
    assert bool(kept) == (
        sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in model.parameters())
    )


@pytest.mark.parametrize("name", MEMBERS)
@settings(max_examples=3)
@given(draws=st.data())
def test_any_architecture_costs_what_is_counted(name, draws):
    check_cost(make(MEMBERS[name]), lambda options: draws.draw(st.sampled_from(options)))


def check_cost(model: nn.Module, pick) -> None:
    found, kept = axes(model, SPACE), {}
    for axis in found:
        groups, channels = pick(axis.options[0]), pick(axis.options[1])
        kept[axis.name] = torch.arange(groups)[:, None] * axis.size[1] + torch.arange(channels)
    small = shrink(model, found, kept)
    sizes = [tuple(kept[axis.name].shape) for axis in found]
    assert cost_of(model, found, "macs").of(sizes_of(found)) == counted(model)
    assert cost_of(model, found, "macs").of(sizes) == counted(small)
    assert cost_of(model, found, "params").of(sizes) == sum(p.numel() for p in small.parameters())
    assert {axis.name: axis.size for axis in axes(small, {})} == {
        n: tuple(units.shape) for n, units in kept.items()
    }


@pytest.mark.parametrize("end", [0, -1])
def test_the_least_and_the_largest_architecture_cost_what_is_counted(model, end):
    check_cost(model, lambda options: options[end])


def test_final_features_lie_as_the_patches_do(model):
    """With all branches silenced, a change to a patch changes its own feature and at most its neighbours."""
    with torch.no_grad():
        for _, binding in all_bindings(axes(model)):
            if binding.writes:
                model.get_parameter(binding.tensor).zero_()
    rows, columns = final_grid(model)
    images = images_for(model, 1)
    side = images.shape[2] // rows

    def tokens(x):
        return patch_tokens(model.forward_features(x), family_of(model).channels_first)[
            0, -rows * columns :
        ]

    before = tokens(images)
    for place in {0, columns - 1, rows * columns // 2 + 1, rows * columns - 1}:
        row, column = divmod(place, columns)
        changed = images.clone()
        changed[..., row * side : (row + 1) * side, column * side : (column + 1) * side] += 1
        moved = (tokens(changed) - before).abs().sum(1).view(rows, columns)
        assert moved.argmax() == place or moved.flatten()[place] > 0.3 * moved.max()
        far = [
            (r, c)
            for r in range(rows)
            for c in range(columns)
            if max(abs(r - row), abs(c - column)) > 1
        ]
        assert "backbone" in str(model.patch_embed) or all(moved[r, c] == 0 for r, c in far)


def test_hidden_patches_are_hidden(model):
    supernet = Supernet(model, pmim=MaskedImageModelling(model))
    rows, columns = final_grid(model)
    images = images_for(model, 2)
    hidden = torch.arange(rows * columns).expand(2, -1)
    features, _ = supernet.passes(images, hidden)
    tokens = features[:, -rows * columns :]
    torch.testing.assert_close(tokens[0], tokens[1], msg="all are hidden: the images cannot differ")
    if any(name.startswith("pos_embed") for name, _ in model.named_parameters()):
        assert tokens[0].std(0).max() > 1e-3, "but places do, by their positions"
    assert supernet.pmim.loss(features, images, hidden[:, :2]).isfinite()
    some = supernet.passes(images, hidden[:, : rows * columns // 2])[0]
    assert not torch.equal(some[0], some[1])


def test_a_search_shrinks_trains_on_and_its_subnet_saves_and_loads(member, model, data, tmp_path):
    channels, *sides = input_size(model)

    def fitted(split: SmallSplit) -> SmallSplit:
        images = nn.functional.interpolate(split.images[:32], tuple(sides), mode="bilinear")
        return SmallSplit(images.expand(-1, channels, -1, -1).contiguous(), split.labels[:32])

    few = SmallData(fitted(data.train), fitted(data.val), fitted(data.test), data.num_classes)
    fine = {key: Shares(0.125, 1, 0.0625) for key in SPACE}
    cost = cost_of(model, model_axes := axes(model, fine))
    share = (cost.of(least_sizes(model_axes)) / cost.of(sizes_of(model_axes)) + 1) / 2
    settings = config(
        epochs=2, batch_size=16, decide_by=0.5, budget={"gmacs_share": share}, residual_mask=True
    )
    found = search(model, few, settings, name=member.name, kwargs=member.kwargs, axes=model_axes)
    limit = share * cost.of(sizes_of(model_axes))
    assert (0.98 if found.note is None else 0.7) * limit <= found.macs <= limit
    assert found.params == sum(p.numel() for p in found.subnet.model.parameters())
    assert found.macs == counted(found.subnet.model)
    save(found.subnet, tmp_path / "subnet")
    again = load(tmp_path / "subnet")
    assert again.architecture.id == found.subnet.architecture.id
    images = few.test.images[:2]
    with torch.no_grad():
        outputs = again.model(images)
        torch.testing.assert_close(found.subnet.model(images), outputs, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_subnet_exports(model):
    small = cut(model, 0).model
    images = images_for(model)
    with torch.no_grad():
        exported = torch.export.export(small, (images,)).module()
        torch.testing.assert_close(exported(images), small(images), rtol=1e-4, atol=1e-5)


def cut(model: nn.Module, channels: int) -> Network:
    """The model with the given option for the channels of each axis, and all groups."""
    model_axes = axes(model, SPACE)
    kept = {}
    for axis in model_axes:
        groups, options = axis.options[0][-1], axis.options[1]
        size = (groups, options[channels] if len(options) > 1 else options[0])
        kept[axis.name] = best_units(-torch.arange(float(axis.units)), axis.size, size)
    return Network.whole(model, model_axes).cut(kept)


def test_compensation_brings_a_cut_model_nearer_to_its_parent(model, data):
    channels, *sides = input_size(model)
    images = nn.functional.interpolate(data.train.images[:16], tuple(sides), mode="bilinear")
    images = images.expand(-1, channels, -1, -1).contiguous()
    model_axes = axes(model, SPACE)
    small = cut(model, -2)

    def divergence() -> float:
        with torch.no_grad():
            parent, outputs = (m(images).log_softmax(1) for m in (model, small.model))
        return float(nn.functional.kl_div(outputs, parent, reduction="batchmean", log_target=True))

    as_cut = divergence()
    solved = compensate_(
        Cut(model, model_axes, small.model, small.axes, small.units), lambda: [images]
    )
    assert len(solved) >= sum(axis.kind != "embed" for axis in model_axes)
    assert divergence() < 0.8 * as_cut


@pytest.mark.slow
@pytest.mark.parametrize("name", FULL_SIZE.values())
def test_a_real_member_keeps_the_contract_at_full_size(name):
    torch.manual_seed(0)
    model = timm.create_model(name).eval()
    images = images_for(model, 1)
    with torch.no_grad():
        assert torch.equal(Supernet(model)(images), model(images))
    check_cost(model, lambda options: options[len(options) // 2])
