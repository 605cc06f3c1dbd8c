"""Weights that others saved, as .safetensors or with torch.save.

They are read without running code from pickles, and given to a model.
"""

from __future__ import annotations

import argparse
import pickle
import re
import struct
import sys
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ofbnas.errors import InputError, one_line
from ofbnas.files.untrusted import check_regular, visible
from ofbnas.files.weights import Stored, check_tensors

_PREFIXES = re.compile(r"^(?:module\.|_orig_mod\.)+")

# Where a checkpoint of a whole training keeps the model's tensors: averaged ones first, as timm
# takes them.
KEYS = ("state_dict_ema", "model_ema", "state_dict", "model_state_dict", "model")
EXPECTED = (
    "expected plain tensors by name, "
    "as torch.save(model.state_dict(), FILE) or safetensors write them"
)

# Ends of the names of tensors that have an entry for each place of an image or a window.
POSITIONS = ("pos_embed", "relative_position_bias_table")

# What readers of damaged files raise, torch's with asserts and lookups of its own.
_ERRORS = (
    SafetensorError, zipfile.BadZipFile, struct.error, RuntimeError, OSError, EOFError, TypeError,
    AttributeError, ValueError, LookupError, AssertionError, ArithmeticError, MemoryError,
)  # fmt: skip


def load_weights_(model: nn.Module, path: Path) -> None:
    """Give a model the weights of a file.

    Positions are resized to the size of the model's images and windows, as timm does with its own
    weights.

    Raises:
        InputError: The file is missing, is not a file of weights, or holds those of another model.
    """
    state_dict = read_state_dict(path)
    expected = model.state_dict()
    if _differ_in_positions(state_dict, expected):
        with suppress(RuntimeError):  # as for places that make up no square; refused below
            state_dict = adapted(state_dict, model)
    check_tensors(described(state_dict), described(expected), path)
    model.load_state_dict(state_dict)


def adapted(tensors: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Tensors for a model as timm adapts pretrained ones: positions to another image size.

    Args:
        tensors: The tensors by name.
        model: One of timm's.
    """
    family = sys.modules[type(model).__module__]
    adapt = getattr(family, "checkpoint_filter_fn", None)  # some families have none
    for_model: dict[str, Tensor] = dict(tensors) if adapt is None else adapt(tensors, model)
    return for_model


def _differ_in_positions(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> bool:
    """Whether tensors have all the names of a model's, and differ only in the number of places."""
    if tensors.keys() != expected.keys():
        return False
    others = [name for name in tensors if tensors[name].shape != expected[name].shape]
    return bool(others) and all(
        name.endswith(POSITIONS)
        and tensors[name].ndim == expected[name].ndim
        and tensors[name].shape[-1] == expected[name].shape[-1]
        for name in others
    )


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """A model's tensors by name, of a .safetensors file or of what torch.save wrote.

    Checkpoints of whole trainings will do, timm's with their settings too; the prefixes that
    torch.compile and DistributedDataParallel put before names are removed. Memory is bounded by the
    size of the file.

    Raises:
        InputError: There is no such file, or it holds something else.
    """
    check_regular(path)
    try:
        saved: Any = load_file(path) if path.suffix == ".safetensors" else _unpickled(path)
    except FileNotFoundError:
        raise InputError(
            f"{path}: no such file; model.checkpoint must name the model's weights"
        ) from None
    except pickle.UnpicklingError as error:
        what = "was not written by torch.save"
        other = re.search(r"GLOBAL (\S+)", str(error))  # torch names the class that it refused
        if other:
            what = f"holds {visible(other[1])[:80]} beside tensors"
        raise InputError(
            f"{path}: {what}, and nothing of a file is run as code: {EXPECTED}"
        ) from None
    except _ERRORS as error:
        raise InputError(
            f"{path}: holds no weights ({visible(one_line(error, 200))}); {EXPECTED}"
        ) from None
    if isinstance(saved, Mapping):
        saved = _model_of(saved)
    if not _is_state_dict(saved):
        raise InputError(f"{path}: holds no weights; {EXPECTED}")
    # DistributedDataParallel and torch.compile put prefixes before names, in any order.
    return {_PREFIXES.sub("", name): tensor for name, tensor in saved.items()}


def _unpickled(path: Path) -> Any:
    """What torch.save wrote, if it is only tensors, plain values and settings of a training."""
    archive = zipfile.is_zipfile(path)
    if archive:
        with zipfile.ZipFile(path) as file:
            records = file.infolist()
        # torch.save compresses nothing. A compressed record may unpack to any size, and records may
        # share their bytes.
        compressed = any(record.compress_type != zipfile.ZIP_STORED for record in records)
        num_bytes = sum(record.file_size for record in records)
        if compressed or num_bytes > path.stat().st_size:
            raise ValueError("an archive that is packed, or whose records are larger than the file")
    # timm's trainings keep their settings in a Namespace.
    with torch.serialization.safe_globals([argparse.Namespace]):
        return torch.load(
            path,
            map_location="cpu",
            weights_only=True,
            mmap=archive,
        )


def _model_of(checkpoint: Mapping[str, Any]) -> Mapping[str, Any]:
    """The model's tensors in a checkpoint of a whole training; otherwise the checkpoint itself."""
    for key in KEYS:
        nested = checkpoint.get(key)
        if isinstance(nested, Mapping):
            return nested
    return checkpoint


def _is_state_dict(value: Any) -> bool:
    """Whether a value is a mapping of names to plain tensors."""
    if not isinstance(value, Mapping):
        return False
    names_are_text = all(isinstance(name, str) for name in value)
    return names_are_text and all(_is_plain(tensor) for tensor in value.values())


def _is_plain(value: Any) -> bool:
    """Whether a value is a tensor with values in this machine's memory."""
    plain = type(value) in (Tensor, nn.Parameter)
    return (
        plain
        and value.layout == torch.strided
        and value.device.type == "cpu"
        and not value.is_quantized
    )


def described(tensors: Mapping[str, Tensor]) -> dict[str, Stored]:
    """What `check_tensors` compares of tensors: shapes and kinds of numbers."""
    described: dict[str, Stored] = {}
    for name, tensor in tensors.items():
        described[name] = Stored(tuple(tensor.shape), tensor.is_floating_point())
    return described
