"""How the parts that most Vision Transformers share lie along axes.

A family's file puts them together. A residual stream is an axis, to which all that reads it or
writes into it is bound; each attention and each MLP is another, of units between its reading and
its writing layer:

    tensor [rows, columns]       rows lie along         columns lie along
    patch_embed.proj.weight      the stream             nothing
    blocks.0.attn.qkv.weight     the attention, 3 x     the stream
    blocks.0.attn.proj.weight    the stream             the attention
    blocks.0.mlp.fc1.weight      the MLP                the stream
    blocks.0.mlp.fc2.weight      the stream             the MLP

The bi-mask acts where units are made (rows of qkv and fc1), before the activation.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from timm.layers import AttentionPoolLatent
from timm.models.vitamin import GeGluMlp
from torch import nn

from ofbnas.errors import InputError
from ofbnas.models.axes.attributes import WIDTHS
from ofbnas.models.axes.axis import Axis, Binding, Following, Value, full, listed, shapes_of
from ofbnas.models.axes.branches import PassedOver, Zeros, branch_of, gone_axis
from ofbnas.models.axes.layers import ATTENTION, MLPS, has_head_norm, layers_of


class Parts:
    """A model's parts, stated as bindings of its tensors; tensors that it lacks are left out.

    Attributes:
        model: A timm model.
        shapes: The shapes of its parameters and buffers by name.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        parameters = dict(model.named_parameters())
        buffers = dict(model.named_buffers())
        self.shapes = shapes_of(parameters) | shapes_of(buffers)

    def has(self, name: str) -> bool:
        """Whether the model has a parameter or buffer."""
        return name in self.shapes

    def module(self, name: str) -> Any:
        """A module by name."""
        return self.model.get_submodule(name)

    def expect(self, name: str, *kinds: type[nn.Module]) -> Any:
        """The module of that name, or what stands for it where it is gone.

        Raises:
            InputError: It is of none of the kinds.
        """
        module = self.module(name)
        if type(module) not in (*kinds, Zeros):
            tensors = [f"{name}.{tensor}" for tensor, _ in module.named_parameters()]
            expected = " or ".join(kind.__name__ for kind in kinds)
            raise InputError(
                f"{type(self.model).__name__} cannot be searched: "
                f"its {name} is a {type(module).__name__}, expected {expected}; "
                f"no axis is known for {listed(tensors, 4)}"
            )
        return module

    def along(
        self,
        names: Iterable[str],
        dim: int,
        **how: Any,
    ) -> list[Binding]:
        """One dimension of each tensor that the model has; `how` are fields of `Binding`."""
        return [Binding(name, dim, **how) for name in names if self.has(name)]

    def vectors(self, *names: str, **how: Any) -> list[Binding]:
        """The last dimension of tensors: tokens, positions, layer scales."""
        return self.along(names, -1, **how)

    def outputs(self, *layers: str, **how: Any) -> list[Binding]:
        """What layers give: rows of weights, and biases; a norm's weight and bias."""
        names: list[str] = []
        for layer in layers:
            names += [f"{layer}.weight", f"{layer}.bias"]
        return self.along(names, 0, **how)

    def inputs(self, *layers: str, **how: Any) -> list[Binding]:
        """What layers read: columns of weights."""
        names = [f"{layer}.weight" for layer in layers]
        return self.along(names, 1, **how)

    def start(self, *layers: str) -> list[Binding]:
        """Layers one after the other at the beginning of a stream.

        The bi-mask acts on what the last of them gives: a norm behind it would undo the scale.
        """
        present = [layer for layer in layers if self.has(f"{layer}.weight")]
        bindings: list[Binding] = []
        for layer in present:
            is_last = layer == present[-1]
            bindings += self.outputs(layer, masked=is_last)
        return bindings

    def ends(self) -> list[Binding]:
        """A ViT's stream at its two ends: where it begins and where the head reads it.

        It begins with patches and tokens, or with a norm behind them, which then has the mask.
        """
        has_norm = self.has("norm_pre.weight")
        bindings = self.start("patch_embed.proj", "patch_embed.norm")
        bindings += self.vectors(
            "cls_token",
            "dist_token",
            "reg_token",
            "pos_embed",
            masked=True,
        )
        if has_norm:
            bindings = [replace(binding, masked=False) for binding in bindings]
            bindings += self.outputs("norm_pre", masked=True)
        bindings += self.outputs("norm", "fc_norm")
        bindings += self.inputs("head", "head_dist")
        return bindings

    def block(self, name: str, post_norm: bool = False) -> list[Binding]:
        """What lies along the residual stream of a block of attention and MLP.

        Args:
            name: The block's name.
            post_norm: Whether norms come after attention and MLP; otherwise before them.
        """
        bindings = self.branch(f"{name}.attn", post_norm)
        bindings += self.branch(f"{name}.mlp", post_norm)
        bindings += self.outputs(
            f"{name}.norm1",
            f"{name}.norm2",
            writes=post_norm,
        )
        for scale in ("ls1.gamma", "ls2.gamma", "gamma_1", "gamma_2"):
            bindings += self.vectors(f"{name}.{scale}")
        return bindings

    def branch(self, name: str, post_norm: bool = False) -> list[Binding]:
        """What lies along the residual stream of one attention or MLP."""
        kind = type(self.module(name))
        layers = MLPS.get(kind, ATTENTION)
        bindings = self.inputs(*layers_of(name, layers.reads))
        bindings += self.outputs(f"{name}.{layers.write}", writes=not post_norm)
        if kind is GeGluMlp:  # its norm is of what it reads, in other MLPs of hidden units
            bindings += self.outputs(f"{name}.norm")
        return bindings

    def projections(self, name: str) -> list[Binding]:
        """What lies along an attention's units: q, k and v under one mask, and what reads them."""
        queries: dict[str, Any] = {"masked": True, "query": 0}
        # One layer for all three, or a layer for each.
        bindings = self.outputs(f"{name}.qkv", copies=3, **queries)
        bindings += self.outputs(f"{name}.q_proj", **queries)
        bindings += self.outputs(
            f"{name}.k_proj",
            f"{name}.v_proj",
            masked=True,
        )
        # Biases that timm keeps apart from their layers. That of keys is a constant 0.
        bindings += self.vectors(f"{name}.q_bias", **queries)
        bindings += self.vectors(f"{name}.v_bias", masked=True)
        bindings += self.vectors(f"{name}.k_bias")
        bindings += self.outputs(f"{name}.gate", f"{name}.norm")
        bindings += self.inputs(f"{name}.proj")
        return bindings

    def passed_over(self, block: str) -> list[Axis]:
        """The axes of a block that has lost all of its branches; none for any other block."""
        module = self.module(block)
        if not isinstance(module, PassedOver):
            return []
        return [gone_axis(f"{block}.{name}") for name, _ in module.named_children()]

    def attention(
        self,
        name: str,
        products: int,
        bindings: Sequence[Binding] | None = None,
        searchable: tuple[bool, bool] = (True, True),
        removable: bool = False,
    ) -> Axis:
        """An attention that may be narrower than the stream: heads and their channels.

        Args:
            name: The module.
            products: Multiply-accumulates per unit and image of its two products.
            bindings: What lies along its units; by default `projections`.
            searchable: Whether the number of heads and the head size may be searched. A norm over a
                head's queries has one weight per channel for all heads, so there the head size
                stays.
            removable: Whether its block runs without it, if the number of heads may be searched.
        """
        module = self.module(name)
        if isinstance(module, Zeros):
            return gone_axis(name)
        if bindings is None:
            bindings = self.projections(name)
        heads = module.num_heads if hasattr(module, "num_heads") else module.heads
        head_size = self._width(bindings[0]) // heads
        heads_searchable, head_size_searchable = searchable
        if has_head_norm(module):
            head_size_searchable = False
        return Axis(
            name=name,
            kind="attn",
            size=(heads, head_size),
            bindings=tuple(bindings),
            options=full(heads, head_size),
            searchable=(heads_searchable, head_size_searchable),
            attributes=self.following(name, **WIDTHS) if any(searchable) else (),
            products=products,
            branch=branch_of(self.model, name) if removable and heads_searchable else (),
        )

    def mlp(self, name: str, removable: bool = False) -> Axis:
        """An MLP's hidden units, masked before the activation; in a gated one the gate's too.

        Args:
            name: The module.
            removable: Whether its block runs without it.

        Raises:
            InputError: It is of an unknown kind.
        """
        module = self.expect(name, *MLPS)
        if isinstance(module, Zeros):
            return gone_axis(name)
        layers = MLPS[type(module)]
        reads = layers_of(name, layers.reads)
        write = f"{name}.{layers.write}"
        width = self.shapes[f"{write}.weight"][1]
        # A gated MLP may read value and gate by one layer, which then gives two copies.
        copies = self.shapes[f"{reads[0]}.weight"][0] // width
        bindings = self.outputs(*reads, copies=copies, masked=True)
        if type(module) is not GeGluMlp:  # its norm lies along the stream: see `branch`
            bindings += self.outputs(f"{name}.norm")
        bindings += self.inputs(write)
        return Axis(
            name=name,
            kind="mlp",
            size=(1, width),
            bindings=tuple(bindings),
            options=full(1, width),
            branch=branch_of(self.model, name) if removable else (),
        )

    def following(self, name: str, **values: Value) -> tuple[Following, ...]:
        """Those of the named attributes that a module has, with what computes their values."""
        module = self.module(name)
        prefix = f"{name}." if name else ""
        follows: list[Following] = []
        for key, value in values.items():
            if hasattr(module, key):
                follows.append((f"{prefix}{key}", value))
        return tuple(follows)

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

        Some attentions must be as wide as the stream. They go with it then: the stream is made of
        heads, keeps their size, and loses whole heads, in all attentions alike.

        Args:
            bindings: What lies along it; its width is read from the first.
            name: The axis' name.
            attributes: What follows its size.
            heads: Number of heads of the attentions that go with it; 1 if there are none.
            products: Multiply-accumulates per unit and image of their products.
            searchable: Whether its width may be searched.
        """
        bindings = tuple(bindings)
        channels = self._width(bindings[0]) // heads
        made_of_heads = heads > 1
        return Axis(
            name=name,
            kind="embed",
            size=(heads, channels),
            bindings=bindings,
            options=full(heads, channels),
            searchable=(searchable and made_of_heads, searchable and not made_of_heads),
            attributes=tuple(attributes),
            products=products,
        )

    def pool(self, name: str = "attn_pool") -> list[Binding]:
        """What lies along the stream of a pooling by attention, which is as wide as the stream.

        Raises:
            InputError: The pooling is of another kind.
        """
        self.expect(name, AttentionPoolLatent)
        mlp = f"{name}.mlp"
        bindings = self.vectors(f"{name}.latent", f"{name}.pos_embed")
        bindings += self.outputs(f"{name}.q", masked=True, query=0)
        bindings += self.inputs(f"{name}.q")
        bindings += self.outputs(f"{name}.kv", copies=2, masked=True)
        bindings += self.inputs(f"{name}.kv", f"{name}.proj", f"{mlp}.fc1")
        bindings += self.outputs(
            f"{name}.proj",
            f"{name}.norm",
            f"{mlp}.fc2",
        )
        return bindings

    def _width(self, binding: Binding) -> int:
        """The number of units that a binding lays along its dimension."""
        length = self.shapes[binding.tensor][binding.dim]
        return length // binding.copies
