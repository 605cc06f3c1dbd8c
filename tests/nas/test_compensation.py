"""Compensation solves what it claims to solve, and what is redundant is made up for entirely."""

from __future__ import annotations

import copy

import pytest
import torch
from conftest import make, make_swin
from torch import nn

from ofbnas.models.axes import axes
from ofbnas.nas.compensation import Cut, ParentActivations, _lacking, compensate_
from ofbnas.nas.plain import Network
from ofbnas.nas.readers import find_readers
from ofbnas.nas.saliency import best_units
from ofbnas.nas.stand_in import input_moments, stand_in


def whole(model: nn.Module) -> Network:
    return Network.whole(model, axes(model))


def smallest(network: Network, *names: str) -> dict[str, torch.Tensor]:
    """The first units of each axis at its smallest option."""
    kept = {}
    for axis in network.axes:
        if not names or axis.name in names:
            size = (axis.options[0][0], axis.options[1][0])
            kept[axis.name] = best_units(-torch.arange(float(axis.units)), axis.size, size)
    return kept


def cut_of(parent: Network, kept: dict[str, torch.Tensor]) -> Cut:
    small = parent.cut(kept)
    return Cut(parent.model, parent.axes, small.model, small.axes, small.units)


def outputs_differ(cut: Cut, images: torch.Tensor) -> float:
    with torch.no_grad():
        return float((cut.model(images) - cut.parent(images)).abs().max())


def lacking(reader, cut: Cut, images: torch.Tensor) -> float:
    """The sum of squares that compensation minimizes."""
    with torch.no_grad():
        target = ParentActivations(cut.parent).at(reader, images, 0)
        return float(_lacking(reader, cut, images, target)[1].square().sum())


@pytest.fixture(params=[make, make_swin], ids=["vit", "swin"])
def network(request) -> Network:
    return whole(request.param())


def test_nothing_changes_where_nothing_was_removed(network, images):
    cut = cut_of(network, {})
    before = copy.deepcopy(cut.model.state_dict())
    assert compensate_(cut, lambda: [images])
    for name, tensor in cut.model.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=1e-5)


def test_each_layer_lacks_no_more_than_before(network, images):
    """Layer by layer, the sum of squares that is minimized does not grow, and in all it falls."""
    cut = cut_of(network, smallest(network))
    readers = find_readers(cut.model, cut.axes, images)
    before = [lacking(reader, cut, images) for reader in readers]
    as_cut = outputs_differ(cut, images)
    after = []
    for index, reader in enumerate(readers):
        present = lacking(reader, cut, images)
        compensate_(cut, lambda: [images], only=[reader.name])
        after.append(lacking(reader, cut, images))
        assert after[-1] <= present * (1 + 1e-5), readers[index].name
    assert sum(after) < 0.8 * sum(before)
    assert outputs_differ(cut, images) < as_cut


@pytest.mark.parametrize("kept_bytes", [0, 3 * 4 * 8 * 5 * 16, 2**31], ids=["none", "some", "all"])
def test_kept_activations_of_the_parent_change_nothing(network, kept_bytes):
    """However many of them are kept, a second cut finds what it would compute anew."""
    batches = many_images().split(32)
    activations = ParentActivations(network.model, kept_bytes)
    for names in ([], [network.axes[-1].name]):
        anew = cut_of(network, smallest(network, *names))
        cut = cut_of(network, smallest(network, *names))
        solved = compensate_(anew, lambda: batches)
        assert compensate_(cut, lambda: batches, activations=activations) == solved
        for name, tensor in cut.model.state_dict().items():
            assert torch.equal(tensor, anew.model.state_dict()[name])
        kept = sum(tensor.nbytes for tensor in activations.kept.values())
        assert kept == kept_bytes - activations.bytes_left <= kept_bytes
    everything = len(activations.kept) == len(batches) * len(solved)
    assert everything == (kept_bytes == 2**31) and bool(activations.kept) == bool(kept_bytes)


@pytest.mark.parametrize("model", [make(depth=4), make_swin()], ids=["vit", "swin"])
def test_finished_blocks_are_not_run_again_and_change_nothing(model):
    """However many of their outputs are kept: none, those of one of two batches, or all."""
    parent, batches = whole(model), many_images().split(32)
    name = next(name for name, _ in model.named_modules() if name.endswith("blocks.0"))

    def compensated(kept_bytes: int) -> tuple[nn.Module, list[str], list[int]]:
        """The model, the layers that were solved, and the bytes of each input of the first block."""
        cut, seen = cut_of(parent, smallest(parent)), []
        norm = cut.model.get_submodule(f"{name}.norm1")
        norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].nbytes))
        layers = compensate_(cut, lambda: batches, kept_bytes=kept_bytes)
        return cut.model, layers, seen

    anew, layers, seen = compensated(0)
    of_a_batch = max(seen)  # layers are found with a few images
    passes = [seen.count(of_a_batch)]
    for kept_bytes in (of_a_batch, 2**31):
        found, _, seen = compensated(kept_bytes)
        passes.append(seen.count(of_a_batch))
        for key, tensor in found.state_dict().items():
            assert torch.equal(tensor, anew.state_dict()[key])
    # Once for each layer of the block, and once more for what it gives.
    once = len([layer for layer in layers if layer.startswith(f"{name}.")]) + 1
    assert passes == [2 * len(layers), len(layers) + once, 2 * once]


def test_the_layers_are_found_in_the_order_of_the_forward_pass(images):
    parent = whole(make())
    readers = [
        (reader.name, reader.norm) for reader in find_readers(parent.model, parent.axes, images)
    ]
    assert readers == [
        ("blocks.0.attn.qkv", None),
        ("blocks.0.attn.proj", "blocks.0.norm2"),
        ("blocks.0.mlp.fc1", None),
        ("blocks.0.mlp.fc2", "blocks.1.norm1"),
        ("blocks.1.attn.qkv", None),
        ("blocks.1.attn.proj", "blocks.1.norm2"),
        ("blocks.1.mlp.fc1", None),
        ("blocks.1.mlp.fc2", "norm"),
        ("head", None),
    ]  # fmt: skip


def duplicated() -> Network:
    """A network whose MLPs have each hidden unit twice."""
    model = make()
    with torch.no_grad():
        for block in model.blocks:
            block.mlp.fc1.weight[32:] = block.mlp.fc1.weight[:32]
            block.mlp.fc1.bias[32:] = block.mlp.fc1.bias[:32]
    return whole(model)


def many_images() -> torch.Tensor:
    return torch.randn(64, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def test_units_that_others_copy_are_made_up_for_entirely():
    images, parent = many_images(), duplicated()
    names = [axis.name for axis in parent.axes if axis.kind == "mlp"]
    kept = {name: torch.arange(32).view(1, -1) for name in names}
    cut = cut_of(parent, kept)
    assert outputs_differ(cut, images) > 0.1
    compensate_(cut, lambda: images.split(16), ridge=1e-9)
    assert outputs_differ(cut, images) < 1e-3


def test_units_that_others_copy_are_stood_in_for_without_a_pass():
    images, parent = many_images(), duplicated()
    moments = input_moments(parent.model, parent.axes, images.split(16))
    (axis,) = (axis for axis in parent.axes if axis.name == "blocks.0.mlp")
    kept = torch.arange(32).view(1, -1)
    tensors = stand_in(parent.model, axis, kept, moments, ridge=1e-9)
    assert set(tensors) == {"blocks.0.mlp.fc2.weight", "blocks.0.mlp.fc2.bias"}
    small = parent.cut({axis.name: kept}, tensors).model
    with torch.no_grad():
        assert (small(images) - parent.model(images)).abs().max() < 1e-3
        assert (
            parent.cut({axis.name: kept}).model(images) - parent.model(images)
        ).abs().max() > 0.1


def test_what_stands_in_is_what_compensation_solves(images):
    """For an axis cut alone the layer behind it sees the same inputs, so both solve the same regression."""
    images, parent = many_images(), whole(make())
    (axis,) = (axis for axis in parent.axes if axis.name == "blocks.1.mlp")
    kept = smallest(parent, axis.name)[axis.name]
    moments = input_moments(parent.model, parent.axes, images.split(16))
    tensors = stand_in(parent.model, axis, kept, moments)
    without_passes = parent.cut({axis.name: kept}, tensors).model

    cut = cut_of(parent, {axis.name: kept})
    compensate_(cut, lambda: images.split(16), only=["blocks.1.mlp.fc2"])
    expected = cut.model.get_parameter("blocks.1.mlp.fc2.weight")
    assert not torch.allclose(expected, take_columns(parent, kept), atol=1e-3)
    torch.testing.assert_close(
        without_passes.get_parameter("blocks.1.mlp.fc2.weight"), expected, rtol=1e-3, atol=1e-4
    )


def take_columns(parent: Network, kept: torch.Tensor) -> torch.Tensor:
    return parent.model.get_parameter("blocks.1.mlp.fc2.weight")[:, kept.flatten()]


def test_the_order_of_tokens_does_not_matter_to_a_writer(images):
    """In Swin's shifted windows a projection's outputs are reordered before they are added to the stream."""
    parent = whole(make_swin())
    kept = smallest(parent, "layers.0.blocks.1.attn")
    cut = cut_of(parent, kept)
    as_cut = outputs_differ(cut, images)
    compensate_(cut, lambda: [images], ridge=1e-6, only=["layers.0.blocks.1.attn.proj"])
    assert outputs_differ(cut, images) < 0.7 * as_cut


def test_a_layer_whose_inputs_are_all_0_is_left_as_it_is(images):
    model = make(qkv_bias=False)
    with torch.no_grad():
        model.blocks[0].norm1.weight.zero_()
        model.blocks[0].norm1.bias.zero_()
    parent = whole(model)
    cut = cut_of(parent, smallest(parent, "blocks.0.mlp"))
    compensate_(cut, lambda: [images], only=["blocks.0.attn.qkv"])
    assert torch.equal(cut.model.blocks[0].attn.qkv.weight, model.blocks[0].attn.qkv.weight)
