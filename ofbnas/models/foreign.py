"""Models of torchvision and of transformers as timm's: the same tensors under other names."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import timm
import torch
from torch import Tensor, nn

from ofbnas.errors import InputError
from ofbnas.files.weights import check_tensors
from ofbnas.models.axes import input_size
from ofbnas.models.state_dict import described

TOLERANCE = 1e-5  # of outputs, as a share of the largest where that is above 1
VIT = "vit_base_patch16_224"
SWIN = "swin_tiny_patch4_window7_224"

# Patterns of names, and timm's name; None leaves a tensor out. Tensors that get one name, such as
# those of queries, keys and values, are joined in their order.
Rules = dict[str, str | None]

TORCHVISION_VIT: Rules = {
    r"class_token": r"cls_token",
    r"conv_proj\.(\w+)": r"patch_embed.proj.\1",
    r"encoder\.pos_embedding": r"pos_embed",
    r"encoder\.layers\.encoder_layer_(\d+)\.ln_(\d)\.(\w+)": r"blocks.\1.norm\2.\3",
    r"encoder\.layers\.encoder_layer_(\d+)\.self_attention\.in_proj_(\w+)": r"blocks.\1.attn.qkv.\2",
    r"encoder\.layers\.encoder_layer_(\d+)\.self_attention\.out_proj\.(\w+)": r"blocks.\1.attn.proj.\2",
    r"encoder\.layers\.encoder_layer_(\d+)\.mlp\.0\.(\w+)": r"blocks.\1.mlp.fc1.\2",
    r"encoder\.layers\.encoder_layer_(\d+)\.mlp\.3\.(\w+)": r"blocks.\1.mlp.fc2.\2",
    r"encoder\.ln\.(\w+)": r"norm.\1",
    r"heads\.head\.(\w+)": r"head.\1",
}

# Even numbers of `features` are the patch embedding and the mergers, odd ones the stages' blocks;
# the stages are numbered by `_stages`.
TORCHVISION_SWIN: Rules = {
    r"stem\.0\.(\w+)": r"patch_embed.proj.\1",
    r"stem\.2\.(\w+)": r"patch_embed.norm.\1",
    r"merger\.(\d+)\.(\w+\.\w+)": r"layers.\1.downsample.\2",
    r"stage\.(\d+)\.(\d+)\.attn\.relative_position_index": None,
    r"stage\.(\d+)\.(\d+)\.(norm\d|attn)\.(.+)": r"layers.\1.blocks.\2.\3.\4",
    r"stage\.(\d+)\.(\d+)\.mlp\.0\.(\w+)": r"layers.\1.blocks.\2.mlp.fc1.\3",
    r"stage\.(\d+)\.(\d+)\.mlp\.3\.(\w+)": r"layers.\1.blocks.\2.mlp.fc2.\3",
    r"norm\.(\w+)": r"norm.\1",
    r"head\.(\w+)": r"head.fc.\1",
}

_BACKBONE = r"(?:vit\.|dinov2\.|dinov2_with_registers\.)?"
_LAYER = _BACKBONE + r"(?:encoder\.layer|layers)\.(\d+)\."
TRANSFORMERS: Rules = {
    _BACKBONE + r"embeddings\.cls_token": r"cls_token",
    _BACKBONE + r"embeddings\.register_tokens": r"reg_token",
    _BACKBONE + r"embeddings\.mask_token": None,  # of a pre-training
    _BACKBONE + r"embeddings\.position_embeddings": r"pos_embed",
    _BACKBONE + r"embeddings\.patch_embeddings\.projection\.(\w+)": r"patch_embed.proj.\1",
    _LAYER + r"attention\.[qkv]_proj\.(\w+)": r"blocks.\1.attn.qkv.\2",
    _LAYER + r"attention\.o_proj\.(\w+)": r"blocks.\1.attn.proj.\2",
    _LAYER + r"(?:layernorm_before|norm1)\.(\w+)": r"blocks.\1.norm1.\2",
    _LAYER + r"(?:layernorm_after|norm2)\.(\w+)": r"blocks.\1.norm2.\2",
    _LAYER + r"mlp\.(fc\d)\.(\w+)": r"blocks.\1.mlp.\2.\3",
    _LAYER + r"layer_scale(\d)\.lambda1": r"blocks.\1.ls\2.gamma",
    _BACKBONE + r"layernorm\.(\w+)": r"norm.\1",
    _BACKBONE + r"pooler\.dense\.(\w+)": None,
    r"classifier\.(\w+)": r"head.\1",
}


class Twin(NamedTuple):
    """timm's model of a foreign one.

    Attributes:
        name: timm's name.
        kwargs: The arguments of timm.create_model.
        tensors: Its tensors, by timm's names.
        outputs: What of the foreign model's outputs is timm's outputs.
    """

    name: str
    kwargs: dict[str, Any]
    tensors: dict[str, Tensor]
    outputs: Callable[[Any], Tensor]


@torch.no_grad()
def to_timm(model: nn.Module, img_size: int | None = None) -> nn.Module:
    """A timm model with the weights of a model of torchvision or transformers.

    There is one for torchvision's Vision and Swin Transformers, and for transformers' ViT and
    DINOv2, with and without registers. It is compared with the model on random images before it is
    returned: outputs differ by 1e-5 at most. Without a classifier, they are the class token.

    Args:
        model: The model, in float32; it is not changed.
        img_size: Side of images, pixels, of a Swin Transformer, which does not say it; by default
            224.

    Returns:
        The timm model, in evaluation mode, on the model's device.

    Raises:
        InputError: timm has no such model; the message says why.

    >>> import torchvision
    >>> vit = torchvision.models.VisionTransformer(32, 16, 1, 2, 16, 32, num_classes=3)
    >>> to_timm(vit)(torch.zeros(1, 3, 32, 32)).shape
    torch.Size([1, 3])
    """
    twin = _twin_of(model, img_size or 224)
    made: nn.Module = timm.create_model(twin.name, **twin.kwargs).eval()
    what = f"timm has no model like this {type(model).__name__}"
    check_tensors(described(twin.tensors), described(made.state_dict()), what, "it is not mapped")
    made.load_state_dict(twin.tensors)
    made = made.to(next(model.parameters()).device)

    images = torch.randn(2, *input_size(made), generator=torch.Generator().manual_seed(0))
    images = images.to(next(model.parameters()).device)
    was_training = model.training
    expected = twin.outputs(model.eval()(images))
    model.train(was_training)
    difference = float((made(images) - expected).abs().max())
    if not difference <= TOLERANCE * max(1.0, float(expected.abs().max())):
        raise InputError(
            f"{what}: with its weights, {twin.name} gives outputs that differ by {difference:.2g}"
            f"{_other_eps(model, made)}"
        )
    return made


def _other_eps(model: nn.Module, made: nn.Module) -> str:
    """What to do about norms that differ, for a message; nothing if they do not."""
    has, wants = (
        {module.eps for module in one.modules() if isinstance(module, nn.LayerNorm)}
        for one in (model, made)
    )
    if has == wants:
        return ""
    return (
        f"; its norms have eps {', '.join(map(str, sorted(has)))} and timm's "
        f"{', '.join(map(str, sorted(wants)))}: to have timm's, set module.eps of its norms first"
    )


def _twin_of(model: nn.Module, img_size: int) -> Twin:
    """timm's model of a foreign one.

    Raises:
        InputError: There is none.
    """
    foreign: Any = model
    kind = f"{type(model).__module__.partition('.')[0]}.{type(model).__name__}"
    match kind:
        case "torchvision.VisionTransformer":
            return _of_torchvision_vit(foreign)
        case "torchvision.SwinTransformer":
            return _of_torchvision_swin(foreign, img_size)
        case (
            "transformers.ViTForImageClassification"
            | "transformers.ViTModel"
            | "transformers.Dinov2Model"
            | "transformers.Dinov2WithRegistersModel"
        ):
            return _of_transformers(foreign)
        case (
            "transformers.Dinov2ForImageClassification"
            | "transformers.Dinov2WithRegistersForImageClassification"
        ):
            raise InputError(
                f"a {kind} classifies by the class token beside the mean of all patches, which timm "
                f"does not: give its {model.base_model_prefix}, without the classifier"
            )
    raise InputError(
        f"a {kind} cannot be made timm's, expected torchvision's VisionTransformer or "
        "SwinTransformer (not V2), or transformers' ViTForImageClassification, ViTModel, "
        "Dinov2Model or Dinov2WithRegistersModel"
    )


def _of_torchvision_vit(model: Any) -> Twin:
    if isinstance(model.conv_proj, nn.Sequential):
        raise InputError(
            "a torchvision VisionTransformer with conv_stem_configs has no twin in timm"
        )
    if model.representation_size is not None:
        raise InputError(
            "a torchvision VisionTransformer with representation_size has no twin in timm"
        )
    attention = model.encoder.layers[0].self_attention
    kwargs = {
        "img_size": model.image_size,
        "patch_size": model.patch_size,
        "in_chans": model.conv_proj.in_channels,
        "num_classes": model.num_classes,
        "embed_dim": model.hidden_dim,
        "depth": len(model.encoder.layers),
        "num_heads": attention.num_heads,
        "mlp_ratio": model.mlp_dim / model.hidden_dim,
    }
    return Twin(VIT, kwargs, _renamed(model.state_dict(), TORCHVISION_VIT), lambda outputs: outputs)


def _of_torchvision_swin(model: Any, img_size: int) -> Twin:
    stages = list(model.features)[1::2]
    first = stages[0][0]
    stem = model.features[0][0]
    if hasattr(first.attn, "cpb_mlp"):
        raise InputError("torchvision's Swin V2 is not mapped, only its Swin V1")
    window, other = first.attn.window_size
    if window != other:
        raise InputError(f"a torchvision SwinTransformer with windows of {window} x {other} pixels")
    kwargs = {
        "img_size": img_size,
        "patch_size": stem.kernel_size[0],
        "in_chans": stem.in_channels,
        "num_classes": model.num_classes,
        "embed_dim": stem.out_channels,
        "depths": tuple(len(stage) for stage in stages),
        "num_heads": tuple(stage[0].attn.num_heads for stage in stages),
        "window_size": window,
        "mlp_ratio": first.mlp[0].out_features / stem.out_channels,
    }
    tensors = _renamed(_stages(model.state_dict()), TORCHVISION_SWIN)
    return Twin(SWIN, kwargs, tensors, lambda outputs: outputs)


def _stages(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of torchvision's Swin with its `features` told apart: stem, stages and mergers."""
    named: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        part = re.match(r"features\.(\d+)\.", name)
        if part is not None:
            number = int(part[1])
            place = "stem." if number == 0 else f"{('merger', 'stage')[number % 2]}.{number // 2}."
            name = place + name[part.end() :]
        named[name] = tensor
    return named


def _of_transformers(model: Any) -> Twin:
    config = model.config
    if getattr(config, "use_swiglu_ffn", False):
        raise InputError("a transformers DINOv2 with use_swiglu_ffn: its MLPs are not mapped")
    tensors = _renamed(model.state_dict(), TRANSFORMERS)
    classifies = "head.weight" in tensors
    kwargs = {
        "img_size": config.image_size,
        "patch_size": config.patch_size,
        "in_chans": config.num_channels,
        "num_classes": len(tensors["head.weight"]) if classifies else 0,
        "embed_dim": config.hidden_size,
        "depth": config.num_hidden_layers,
        "num_heads": config.num_attention_heads,
        "mlp_ratio": len(tensors["blocks.0.mlp.fc1.bias"]) / config.hidden_size,
        "qkv_bias": config.qkv_bias,
    }
    if "blocks.0.ls1.gamma" in tensors:
        kwargs["init_values"] = float(config.layerscale_value)
    if "reg_token" in tensors:
        kwargs |= {"reg_tokens": tensors["reg_token"].shape[1], "no_embed_class": True}
        # timm then has no position of the class token: it is part of that.
        positions = tensors["pos_embed"]
        tensors["cls_token"] = tensors["cls_token"] + positions[:, :1]
        tensors["pos_embed"] = positions[:, 1:]

    def outputs(given: Any) -> Tensor:
        of_model: Tensor = given.logits if classifies else given.last_hidden_state[:, 0]
        return of_model

    return Twin(VIT, kwargs, tensors, outputs)


def _renamed(tensors: Mapping[str, Tensor], rules: Rules) -> dict[str, Tensor]:
    r"""Tensors by timm's names.

    Raises:
        InputError: One has no name there.

    >>> rules: Rules = {r"fc(\d)": r"blocks.\1"}
    >>> list(_renamed({"fc1": torch.zeros(2)}, rules))
    ['blocks.1']
    """
    joined: dict[str, list[Tensor]] = {}
    for name, tensor in tensors.items():
        for pattern, template in rules.items():
            found = re.fullmatch(pattern, name)
            if found is not None:
                if template is not None:
                    joined.setdefault(found.expand(template), []).append(tensor)
                break
        else:
            raise InputError(f"the tensor {name} has no place in a model of timm: it is not mapped")
    return {
        name: torch.cat(parts) if len(parts) > 1 else parts[0] for name, parts in joined.items()
    }
