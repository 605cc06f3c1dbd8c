"""An architecture: a parent and the sizes of its axes, with its id and its forms on disk."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ofbnas.errors import InputError
from ofbnas.files.untrusted import visible
from ofbnas.models.shown import architecture_html, blocks_text, sizes_text

Sizes = dict[str, tuple[int, int]]
Kinds = Mapping[str, str]  # axis name to "embed", "attn" or "mlp"


@dataclass(frozen=True)
class Architecture:
    """A parent and the size of each of its axes; equal architectures have equal ids, everywhere.

    Attributes:
        model: timm's name of the parent.
        kwargs: Arguments of timm.create_model for the parent, number of classes included; plain
            JSON values.
        sizes: Axis name to (groups, channels).
    """

    model: str
    kwargs: Mapping[str, Any]
    sizes: Sizes

    @property
    def id(self) -> str:
        """The first 12 hexadecimal digits of the SHA-256 of the canonical JSON."""
        canonical = json.dumps(
            self.to_json(),
            sort_keys=True,
            separators=(",", ":"),
        )
        digest = hashlib.sha256(canonical.encode()).hexdigest()
        return digest[:12]

    def __repr__(self) -> str:
        encoded = self._encoded()
        embedding = sizes_text(encoded["embed"])
        return f"Architecture({self.id}: {self.model}, {embedding}; {blocks_text(encoded)})"

    def _repr_html_(self) -> str:
        """A table, in a notebook."""
        return architecture_html(f"{self.id}: {self.model}", self._encoded())

    def _encoded(self) -> dict[str, Any]:
        """The value of the table's `architecture` column, with kinds as the names tell them."""
        return encode_sizes(self.sizes, kinds_by_name(self.sizes))

    def to_json(self) -> dict[str, Any]:
        """Plain values, from which `from_json` makes an equal architecture."""
        sizes = {name: list(size) for name, size in self.sizes.items()}
        return {
            "model": self.model,
            "kwargs": dict(self.kwargs),
            "sizes": sizes,
        }

    @staticmethod
    def from_json(value: Any) -> Architecture:
        """The architecture that `to_json` gave as plain values.

        Raises:
            InputError: The values have another form.
        """
        match value:
            case {"model": str(model), "kwargs": dict(kwargs), "sizes": dict(sizes)}:
                checked = {name: _size(name, size) for name, size in sizes.items()}
                return Architecture(model, kwargs, checked)
        raise InputError(
            "does not describe an architecture: "
            "expected model (text), kwargs and sizes (both mappings)"
        )


def _size(name: str, size: Any) -> tuple[int, int]:
    """The size of an axis.

    Raises:
        InputError: It is not a pair of whole numbers.
    """
    match size:
        case [int(groups), int(channels)]:
            return groups, channels
    raise InputError(
        "does not describe an architecture: "
        f"the size of {visible(name)[:80]}: expected two whole numbers"
    )


def encode_sizes(
    sizes: Mapping[str, tuple[int, int]],
    kinds: Kinds,
) -> dict[str, Any]:
    """The value of the table's `architecture` column for sizes of axes.

    `decode_sizes` is the inverse.

    Args:
        sizes: Axis name to (groups, channels).
        kinds: Axis name to kind.

    Returns:
        embed: The width of each embedding: groups times channels.
        blocks: For each block "heads" and "head_size" of its attention and "mlp", its hidden units,
            as far as it has these axes.
    """
    embeddings: list[int] = []
    blocks: dict[str, dict[str, int]] = {}

    for name, (groups, channels) in sizes.items():
        if kinds[name] == "embed":
            embeddings.append(groups * channels)
            continue
        block = blocks.setdefault(block_of(name), {})
        if kinds[name] == "attn":
            block["heads"] = groups
            block["head_size"] = channels
        else:
            block["mlp"] = channels

    return {"embed": embeddings, "blocks": list(blocks.values())}


def decode_sizes(
    value: Any,
    kinds: Kinds,
    parent: Sizes,
) -> Sizes:
    """The sizes of axes from a value of the table's `architecture` column.

    The value may come from a stranger.

    Args:
        value: What `encode_sizes` gives; a size that a block does not have may be missing, None or
            NaN.
        kinds: Axis name to kind, in the order of the parent's axes.
        parent: Axis name to the parent's (groups, channels).

    Raises:
        InputError: It does not have the parent's parts.
    """
    if not isinstance(value, Mapping):
        raise InputError("has no architecture")

    embed_names = [name for name, kind in kinds.items() if kind == "embed"]
    block_names = block_names_of(kinds)
    widths = _listed(value, "embed")
    blocks = _listed(value, "blocks")
    if len(widths) != len(embed_names) or len(blocks) != len(block_names):
        raise InputError(
            f"has {len(widths)} embeddings and {len(blocks)} blocks, "
            f"the parent {len(embed_names)} and {len(block_names)}"
        )

    width_of = dict(zip(embed_names, widths, strict=True))
    sizes_of_block = dict(zip(block_names, blocks, strict=True))
    sizes: Sizes = {}
    for name, kind in kinds.items():
        if kind == "embed":
            width = _whole(width_of[name])
            sizes[name] = _embedding_size(name, width, parent[name])
            continue
        block = sizes_of_block[block_of(name)]
        if kind == "attn":
            heads = _whole(block.get("heads"))
            head_size = _whole(block.get("head_size"))
            sizes[name] = (heads, head_size)
        else:
            hidden_units = _whole(block.get("mlp"))
            sizes[name] = (1, hidden_units) if hidden_units else (0, 0)
    return sizes


def kinds_by_name(names: Iterable[str]) -> dict[str, str]:
    """The kinds of axes of which only the names are known, as in a search's history.

    Every family in `ofbnas.models.axes` calls the axis of an embedding "embed", or "STAGE.embed"
    where a model has several, and that of an attention after timm's module, "BLOCK.attn". The names
    of MLPs differ between timm's models, so an axis with any other name is an MLP. Where the axes
    themselves are at hand, use their `kind` instead.

    >>> kinds_by_name(["embed", "blocks.0.attn", "blocks.0.mlp"])
    {'embed': 'embed', 'blocks.0.attn': 'attn', 'blocks.0.mlp': 'mlp'}
    """
    kinds = {}
    for name in names:
        last_word = name.rpartition(".")[2]
        kinds[name] = last_word if last_word in ("embed", "attn") else "mlp"
    return kinds


def block_of(name: str) -> str:
    """The block of the axis of an attention or an MLP: "blocks.0" of "blocks.0.attn"."""
    return name.rpartition(".")[0]


def block_names_of(kinds: Kinds) -> list[str]:
    """The blocks that axes belong to, each once, in the axes' order."""
    blocks: list[str] = []
    for name, kind in kinds.items():
        if kind == "embed":
            continue
        block = block_of(name)
        if block not in blocks:
            blocks.append(block)
    return blocks


def _embedding_size(
    name: str,
    width: int,
    parent: tuple[int, int],
) -> tuple[int, int]:
    """An embedding's width as (groups, channels): the table has their product only.

    Raises:
        InputError: The parent's embedding consists of heads, and the width is not a multiple of
            their size.
    """
    parent_heads, head_size = parent
    if parent_heads == 1:
        return 1, width
    # Attentions take their width from such an embedding, so it loses heads but keeps their size.
    if width % head_size:
        raise InputError(f"has {name} at {width}, but it is made of heads of {head_size}")
    return width // head_size, head_size


def _listed(value: Mapping[str, Any], key: str) -> Any:
    """A list in a nested value; empty where it is missing or null."""
    listed = value.get(key)
    return [] if listed is None else listed


def _whole(value: Any) -> int:
    """A size that the parent has, too.

    Raises:
        InputError: It is missing.
    """
    if value is None or not math.isfinite(value):
        raise InputError("lacks a size that its parent has")
    return int(value)
