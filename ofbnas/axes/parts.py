"""How the parts that most Vision Transformers share lie along axes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from timm.layers import AttentionPoolLatent, GluMlp, Mlp, SwiGLU
from timm.models.vitamin import GeGluMlp
from torch import nn

from ofbnas.axes.axis import Axis, Binding, Value, channels, full, groups, inverse_root, units
from ofbnas.errors import InputError

# Kinds of MLPs: the layers that read, the layer that writes.
MLPS: dict[type[nn.Module], tuple[tuple[str, ...], str]] = {
    Mlp: (("fc1",), "fc2"),
    GluMlp: (("fc1",), "fc2"),
    SwiGLU: (("fc1_g", "fc1_x"), "fc2"),
    GeGluMlp: (("w0", "w1"), "w2"),
}
PROJECTIONS = ("qkv", "q_proj", "k_proj", "v_proj", "gate")
# Attributes of attentions that tell their widths.
WIDTHS: dict[str, Value] = {
    "num_heads": groups,
    "num_kv_heads": groups,
    "heads": groups,
    "head_dim": channels,
    "attn_dim": units,
    "dim_out": units,
    "kv_dim": units,
    "scale": inverse_root,
}
# Attributes of a model that tell the width of its stream.
STREAM: dict[str, Value] = {"embed_dim": units, "num_features": units, "head_hidden_size": units}
# The same at its end alone, where stages have streams of their own.
LAST_STREAM: dict[str, Value] = {"num_features": units, "head_hidden_size": units}
# Attributes of a pooling by attention.
POOL: dict[str, Value] = {"num_heads": groups, "latent_dim": units, "out_features": units}
Following = tuple[str, Value]


class Parts:
    """A model's parts, stated as bindings of the tensors that are there; what a model lacks is left out.

    Attributes:
        model: A timm model.
        shapes: The shapes of its parameters and buffers by name.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        tensors = dict(model.named_parameters()) | dict(model.named_buffers())
        self.shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}

    def has(self, name: str) -> bool:
        """Whether the model has a parameter or buffer."""
        return name in self.shapes

    def module(self, name: str) -> Any:
        """A module by name."""
        return self.model.get_submodule(name)

    def expect(self, name: str, *kinds: type[nn.Module]) -> Any:
        """The module of that name.

        Raises:
            InputError: It is of none of the kinds.
        """
        module = self.module(name)
        if type(module) not in kinds:
            tensors = [f"{name}.{tensor}" for tensor, _ in module.named_parameters()]
            raise InputError(
                f"{type(self.model).__name__} cannot be searched: its {name} is a {type(module).__name__}, expected "
                f"{' or '.join(kind.__name__ for kind in kinds)}; no axis is known for {', '.join(tensors[:4])}"
                f"{f' and {len(tensors) - 4} more tensors' if len(tensors) > 4 else ''}"
            )
        return module

    def along(self, names: Iterable[str], dim: int, **how: Any) -> list[Binding]:
        """Bindings of one dimension of each tensor, where the model has it; `how` are fields of `Binding`."""
        return [Binding(name, dim, **how) for name in names if self.has(name)]

    def vectors(self, *names: str, **how: Any) -> list[Binding]:
        """The last dimension of tensors: tokens, positions, layer scales."""
        return self.along(names, -1, **how)

    def outputs(self, *layers: str, **how: Any) -> list[Binding]:
        """What layers give: rows of weights, and biases; a norm's weight and bias."""
        return self.along([f"{layer}.{part}" for layer in layers for part in ("weight", "bias")], 0, **how)

    def inputs(self, *layers: str, **how: Any) -> list[Binding]:
        """What layers read: columns of weights."""
        return self.along([f"{layer}.weight" for layer in layers], 1, **how)

    def start(self, *layers: str) -> list[Binding]:
        """Layers one after the other at the beginning of a stream; the bi-mask acts on what the last of them gives."""
        there = [layer for layer in layers if self.has(f"{layer}.weight")]
        return [binding for layer in there for binding in self.outputs(layer, masked=layer == there[-1])]

    def ends(self) -> list[Binding]:
        """A ViT's stream where it begins, with patches and tokens or with a norm behind them, and where it is read."""
        stem = [
            *self.start("patch_embed.proj", "patch_embed.norm"),
            *self.vectors("cls_token", "dist_token", "reg_token", "pos_embed", masked=True),
        ]
        if self.has("norm_pre.weight"):
            stem = [replace(binding, masked=False) for binding in stem] + self.outputs("norm_pre", masked=True)
        return [*stem, *self.outputs("norm", "fc_norm"), *self.inputs("head", "head_dist")]

    def stage(self, stages: str, index: int, *, norm_first: bool) -> tuple[list[Binding], list[Following]]:
        """A stage's stream where it begins, at patches or where four of them are merged, and where it is read.

        Args:
            stages: The module that holds all stages.
            index: Of the stage.
            norm_first: Whether a merging normalises what it reads; otherwise what it gives.

        Returns:
            Bindings, and attributes of the model that follow.
        """
        merge, after = f"{stages}.{index}.downsample", f"{stages}.{index + 1}.downsample"
        if index == 0:
            stream, follows = self.start("patch_embed.proj", "patch_embed.norm"), [*self.following("", embed_dim=units)]
        else:
            layers = [f"{merge}.reduction"] if norm_first else [f"{merge}.reduction", f"{merge}.norm"]
            stream, follows = self.start(*layers), []
        if self.has(f"{after}.reduction.weight"):
            stream += self.inputs(f"{after}.reduction", copies=4)
            stream += self.outputs(f"{after}.norm", copies=4) if norm_first else []
            return stream, follows
        stream += [*self.outputs("norm"), *self.inputs("head.fc")]
        return stream, [*follows, *self.following("", **LAST_STREAM)]

    def block(self, place: str, post_norm: bool = False) -> list[Binding]:
        """What lies along the residual stream of a block of attention and MLP, each with a norm before or after."""
        norms = [f"{place}.norm1", f"{place}.norm2"]
        scales = [f"{place}.{name}" for name in ("ls1.gamma", "ls2.gamma", "gamma_1", "gamma_2")]
        return [
            *self.branch(f"{place}.attn", post_norm),
            *self.branch(f"{place}.mlp", post_norm),
            *self.outputs(*norms, writes=post_norm),
            *self.vectors(*scales),
        ]

    def branch(self, name: str, post_norm: bool = False) -> list[Binding]:
        """What lies along the residual stream of one attention or MLP."""
        kind = type(self.module(name))
        reads, write = MLPS.get(kind, (PROJECTIONS, "proj"))
        inner = self.outputs(f"{name}.norm") if kind is GeGluMlp else []
        return [
            *self.inputs(*(f"{name}.{layer}" for layer in reads)),
            *self.outputs(f"{name}.{write}", writes=not post_norm),
            *inner,
        ]

    def projections(self, name: str) -> list[Binding]:
        """What lies along the units of an attention: q, k and v, which share one mask, and what reads them."""
        return [
            *self.outputs(f"{name}.qkv", copies=3, masked=True, query=0),
            *self.outputs(f"{name}.q_proj", masked=True, query=0),
            *self.outputs(f"{name}.k_proj", f"{name}.v_proj", masked=True),
            *self.vectors(f"{name}.q_bias", masked=True, query=0),
            *self.vectors(f"{name}.v_bias", masked=True),
            *self.vectors(f"{name}.k_bias"),
            *self.outputs(f"{name}.gate", f"{name}.norm"),
            *self.inputs(f"{name}.proj"),
        ]

    def attention(
        self,
        name: str,
        products: int,
        bindings: Sequence[Binding] | None = None,
        searchable: tuple[bool, bool] = (True, True),
    ) -> Axis:
        """An attention that may be narrower than the stream: heads and their channels.

        Args:
            name: The module.
            products: Multiply-accumulates per unit and image of its two products.
            bindings: What lies along its units; by default `projections`.
            searchable: Whether the number of heads and the head size may be searched. A norm over a head's queries
                has one weight per channel for all heads, so there the head size stays.
        """
        module = self.module(name)
        bindings = self.projections(name) if bindings is None else bindings
        width = self._width(bindings[0])
        heads = module.num_heads if hasattr(module, "num_heads") else module.heads
        return Axis(
            name=name,
            kind="attn",
            size=(heads, width // heads),
            bindings=tuple(bindings),
            options=full(heads, width // heads),
            searchable=(searchable[0], searchable[1] and not has_head_norm(module)),
            attributes=self.following(name, **WIDTHS) if any(searchable) else (),
            products=products,
        )

    def mlp(self, name: str) -> Axis:
        """An MLP's hidden units, masked before the activation; in a gated one the gate's too.

        Raises:
            InputError: It is of no kind that is known.
        """
        module = self.expect(name, *MLPS)
        reads, write = MLPS[type(module)]
        width = self.shapes[f"{name}.{write}.weight"][1]
        copies = self.shapes[f"{name}.{reads[0]}.weight"][0] // width
        bindings = (
            *self.outputs(*(f"{name}.{layer}" for layer in reads), copies=copies, masked=True),
            *(self.outputs(f"{name}.norm") if type(module) is not GeGluMlp else ()),
            *self.inputs(f"{name}.{write}"),
        )
        return Axis(name=name, kind="mlp", size=(1, width), bindings=bindings, options=full(1, width))

    def following(self, name: str, **values: Value) -> tuple[Following, ...]:
        """Those attributes of a module that it has, with what gives their values from (groups, channels)."""
        module = self.module(name)
        prefix = f"{name}." if name else ""
        return tuple((f"{prefix}{key}", value) for key, value in values.items() if hasattr(module, key))

    def stream(
        self,
        bindings: Iterable[Binding],
        name: str = "embed",
        attributes: Iterable[Following] = (),
        heads: int = 1,
        products: int = 0,
        searchable: bool = True,
    ) -> Axis:
        """A residual stream.

        Some attentions take their width for that of the stream. They go with it then: the stream is made of heads,
        keeps their size, and loses whole heads, in all of them alike.

        Args:
            bindings: What lies along it, of which the first tells how wide it is.
            name: The axis' name.
            attributes: What follows its size.
            heads: Of the attentions that go with it.
            products: Multiply-accumulates per unit and image of their products.
            searchable: Whether its width may be searched.
        """
        bindings = tuple(bindings)
        size = heads, self._width(bindings[0]) // heads
        return Axis(
            name=name,
            kind="embed",
            size=size,
            bindings=bindings,
            options=full(*size),
            searchable=(searchable and heads > 1, searchable and heads == 1),
            attributes=tuple(attributes),
            products=products,
        )

    def pool(self, name: str = "attn_pool") -> list[Binding]:
        """What lies along the stream of a pooling by attention, which is as wide as the stream.

        Raises:
            InputError: There is another kind of pooling.
        """
        self.expect(name, AttentionPoolLatent)
        return [
            *self.vectors(f"{name}.latent", f"{name}.pos_embed"),
            *self.outputs(f"{name}.q", masked=True, query=0),
            *self.inputs(f"{name}.q"),
            *self.outputs(f"{name}.kv", copies=2, masked=True),
            *self.inputs(f"{name}.kv", f"{name}.proj", f"{name}.mlp.fc1"),
            *self.outputs(f"{name}.proj", f"{name}.norm", f"{name}.mlp.fc2"),
        ]

    def _width(self, binding: Binding) -> int:
        return self.shapes[binding.tensor][binding.dim] // binding.copies


def has_head_norm(attention: Any) -> bool:
    """Whether an attention normalises the queries and keys of each head."""
    return not isinstance(getattr(attention, "q_norm", None), nn.Identity | None)


def window_products(window: tuple[int, int], resolution: tuple[int, int]) -> int:
    """Multiply-accumulates per unit and image of attention in windows, the last of which are padded."""
    windows = [-(-extent // side) for extent, side in zip(resolution, window, strict=True)]
    area = math.prod(window)
    return 2 * math.prod(windows) * area * area
