"""Models from strangers: checked on the meta device, within limits, and created without extra memory."""

from __future__ import annotations

import threading

import pytest
import timm
import torch
from conftest import DIGITS, KWARGS, NAME
from limits import limited_memory
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from ofbnas.config.study_file import load_study
from ofbnas.errors import InputError
from ofbnas.models import interception
from ofbnas.models.axes import axes
from ofbnas.models.create import create_parent, on_meta
from ofbnas.study.parent import meta_parent
from ofbnas.study.plan import check_budgets

TINY = {"img_size": 32, "num_classes": 10}
VIT = TINY | {"patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 4}
SWIN = TINY | {
    "window_size": 4,
    "embed_dim": 16,
    "depths": [2, 2],
    "num_heads": [2, 4],
    "patch_size": 4,
}
# A model for each way in which timm computes buffers that no weights file has, and one that runs a
# part of itself.
COMPUTED = {
    "tables of relative positions": ("beit_base_patch16_224", VIT),
    "a shared table": (
        "beit_base_patch16_224",
        VIT | {"use_rel_pos_bias": False, "use_shared_rel_pos_bias": True},
    ),
    "positions for an MLP": ("vit_relpos_small_patch16_224", VIT),
    "rotations": ("eva02_tiny_patch14_224", VIT),
    "rotations by learned frequencies": ("vit_small_patch16_rope_mixed_224", VIT),
    "rotations by periods": ("vit_small_patch16_dinov3", VIT),
    "masks of shifted windows": ("swin_tiny_patch4_window7_224", SWIN),
    "coordinates of windows": ("swinv2_tiny_window8_256", SWIN),
    "coordinates of pairs": ("swinv2_cr_tiny_ns_224", SWIN),
    "a backbone's output": (
        "vit_tiny_r_s16_p8_224",
        {"img_size": 64, "num_classes": 10, "depth": 2},
    ),
}


def plain_attributes(module: nn.Module) -> dict[str, object]:
    return {
        name: value
        for name, value in vars(module).items()
        if isinstance(value, int | float | str | tuple)
    }


@pytest.mark.parametrize("case", COMPUTED)
def test_a_model_without_weights_is_otherwise_the_real_one(case):
    name, kwargs = COMPUTED[case]
    hollow, real = on_meta(name, kwargs).hollow(), timm.create_model(name, **kwargs)
    buffers = dict(hollow.named_buffers())
    assert buffers.keys() == dict(real.named_buffers()).keys()
    for key, buffer in real.named_buffers():
        assert torch.equal(buffers[key], buffer) and buffers[key].dtype == buffer.dtype, key
    for (key, ours), (other, theirs) in zip(
        hollow.named_parameters(), real.named_parameters(), strict=True
    ):
        assert (key, ours.shape, ours.dtype, ours.device) == (
            other,
            theirs.shape,
            theirs.dtype,
            theirs.device,
        )
        assert ours.untyped_storage().nbytes() <= theirs.element_size()
        assert ours.requires_grad == theirs.requires_grad
    for ours, theirs in zip(hollow.modules(), real.modules(), strict=True):
        assert type(ours) is type(theirs) and plain_attributes(ours) == plain_attributes(theirs)


def test_fresh_weights_are_those_that_timm_draws():
    torch.manual_seed(7)
    ours = create_parent(NAME, KWARGS).state_dict()
    torch.manual_seed(7)
    theirs = timm.create_model(NAME, **KWARGS).state_dict()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


def test_models_of_other_threads_are_left_alone():
    made = []
    hook = interception.in_this_thread(interception.emptied)
    with register_module_parameter_registration_hook(hook), interception.SkipWritesToHollow():
        thread = threading.Thread(target=lambda: made.append(nn.Linear(8, 8)))
        thread.start()
        thread.join()
    assert not interception.is_hollow(made[0].weight) and made[0].weight.std() > 0


def test_nothing_stays_behind():
    on_meta(NAME, KWARGS).hollow()
    weight = nn.Linear(8, 8).weight
    assert not interception.is_hollow(weight) and not weight.is_meta and weight.std() > 0


ABSURD = {
    "blocks": (NAME, {"depth": 129}, "a model's depth asks for more than 128 blocks"),
    "blocks of a class token": (
        "cait_xxs24_224",
        {"depth_token_only": 1000},
        "depth_token_only asks for more",
    ),
    "blocks of both kinds": (
        "cait_xxs24_224",
        {"depth": 100, "depth_token_only": 100},
        r"depth \+ depth_token_only",
    ),
    "blocks of stages": (
        "swin_tiny_patch4_window7_224",
        {"depths": [2, 2, 1000, 2]},
        "depths asks for more than 128",
    ),
    "blocks of Hiera": (
        "hiera_tiny_224",
        {"stages": [1, 1, 1000, 1]},
        "stages asks for more than 128 blocks",
    ),
    "blocks by another name": (
        "densenet121",
        {"block_config": [60_000]},
        "it has more than 4,096 modules",
    ),
    "a device": (
        NAME,
        {"device": "meta"},
        "have device, but devices and weights are not theirs to name",
    ),
    "no number": (
        NAME,
        {"drop_rate": float("nan")},
        "argument drop_rate has a number beyond 65,536",
    ),
    "a file of timm's that is not there": (NAME, {"pruned": True}, "timm cannot make"),
    "parameters": (
        NAME,
        {"embed_dim": 65_536, "num_heads": 4},
        "parameters; expected at most 20,000,000,000",
    ),
    "text for a terminal": (NAME, {"\x1b[2J": 10**9}, r"argument \\x1b\[2J has a number"),
}


@pytest.mark.parametrize("case", ABSURD)
def test_absurd_models_are_refused_before_they_are_made(case):
    name, kwargs, message = ABSURD[case]
    with limited_memory(10**9), pytest.raises(InputError, match=message) as error:
        on_meta(name, kwargs)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        ("swinv2_cr_tiny_224", {"img_size": 2}),
        ("swinv2_tiny_window8_256", {"embed_dim": 0}),
        ("hiera_tiny_224", {"patch_stride": []}),
    ],
)
def test_models_that_are_made_of_nothing_are_refused_in_a_line(name, kwargs):
    with pytest.raises(
        InputError, match="cannot be searched: its arguments build it in another way"
    ):
        axes(on_meta(name, kwargs).model)


def test_a_model_that_is_larger_than_the_machine_is_refused():
    with pytest.raises(InputError, match=r"takes .* GB, this machine has .* GB"):
        create_parent("beit_base_patch16_224", {"img_size": 65_536})


def test_what_making_a_model_writes_is_known_before():
    """The buffers and the largest parameter, at least."""
    for name, kwargs in COMPUTED.values():
        real, meta = timm.create_model(name, **kwargs), on_meta(name, kwargs)
        written = sum(buffer.nbytes for buffer in real.buffers()) + max(
            weight.nbytes for weight in real.parameters()
        )
        assert meta.work >= written
        meta.check_work(meta.work)
        with pytest.raises(
            InputError, match=f"takes {meta.work:,} bytes beside its weights; expected at most 5"
        ):
            meta.check_work(5)


def test_looking_at_a_study_takes_no_memory():
    study = load_study(DIGITS, ["model.kwargs.embed_dim=16384"])
    with limited_memory(10**9):
        parent = meta_parent(study)
        assert check_budgets(study, parent.model, parent.axes)
