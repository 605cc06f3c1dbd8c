"""Weights from timm, torch and DistributedDataParallel load; other files are refused at no cost."""

from __future__ import annotations

import argparse
import io
import os
import pickle
import zipfile

import pytest
import timm
import torch
from commands import ofbnas
from conftest import DIGITS, KWARGS, NAME, SWIN, make
from limits import limited_memory
from safetensors.torch import save_file
from timm.utils import CheckpointSaver
from torch import nn

from ofbnas.errors import InputError
from ofbnas.models.state_dict import load_weights_


@pytest.fixture
def trained():
    """A model with other weights than those of `make`."""
    model = make()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    return model


def prefixed(state, prefix):
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


def zeros(state):
    return {name: torch.zeros_like(tensor) for name, tensor in state.items()}


def saved(value, **options):
    return lambda path, state: torch.save(value(state), path, **options)


SAVED = {
    "torch": saved(dict),
    "torch before 1.6": saved(dict, _use_new_zipfile_serialization=False),
    "safetensors": lambda path, state: save_file(dict(state), path),
    "parameters": saved(
        lambda state: {name: nn.Parameter(tensor) for name, tensor in state.items()}
    ),
    "views": saved(
        lambda state: {name: torch.stack([tensor, tensor])[1] for name, tensor in state.items()}
    ),
    "a training": saved(
        lambda state: {"state_dict": dict(state), "epoch": 3, "optimizer": {"state": {}}}
    ),
    "a tutorial": saved(lambda state: {"epoch": 3, "model_state_dict": dict(state)}),
    "DeiT": saved(lambda state: {"model": dict(state)}),
    "averaged": saved(lambda state: {"state_dict": zeros(state), "state_dict_ema": dict(state)}),
    "averaged, of MAE": saved(lambda state: {"model": zeros(state), "model_ema": dict(state)}),
    "DistributedDataParallel": saved(lambda state: {"state_dict": prefixed(state, "module.")}),
    "compiled": saved(lambda state: prefixed(state, "_orig_mod.")),
    "compiled DistributedDataParallel": saved(lambda state: prefixed(state, "_orig_mod.module.")),
    "settings": saved(
        lambda state: {"state_dict": dict(state), "args": argparse.Namespace(lr=0.1, model="vit")}
    ),
}


@pytest.mark.parametrize("case", SAVED)
def test_weights_saved_by_other_tools_load(trained, tmp_path, case):
    path = tmp_path / ("weights.safetensors" if case == "safetensors" else "weights.pth")
    SAVED[case](path, trained.state_dict())
    model = make()
    load_weights_(model, path)
    assert all(
        torch.equal(tensor, trained.state_dict()[name])
        for name, tensor in model.state_dict().items()
    )


def test_a_checkpoint_of_timms_training_loads(trained, tmp_path):
    optimizer = torch.optim.AdamW(trained.parameters())
    args = argparse.Namespace(model="vit_tiny_patch16_224", lr=0.1, betas=(0.9, 0.99), aa=None)
    saver = CheckpointSaver(
        trained, optimizer, args, checkpoint_dir=str(tmp_path), recovery_dir=str(tmp_path)
    )
    saver.save_checkpoint(epoch=0, metric=90.0)
    model = make()
    load_weights_(model, tmp_path / "last.pth.tar")
    assert all(
        torch.equal(tensor, trained.state_dict()[name])
        for name, tensor in model.state_dict().items()
    )


@pytest.mark.parametrize(
    ("name", "kwargs", "other"),
    [
        (NAME, KWARGS, {"img_size": 12}),
        (NAME, KWARGS, {"img_size": (8, 16)}),
        ("swin_tiny_patch4_window7_224", SWIN, {"img_size": 16, "window_size": 4}),
    ],
)
def test_positions_are_resized_as_timm_does(tmp_path, name, kwargs, other):
    file = tmp_path / "weights.safetensors"
    save_file(timm.create_model(name, **kwargs).state_dict(), file)
    model = timm.create_model(name, **kwargs | other)
    load_weights_(model, file)
    cfg = {"file": str(file), "num_classes": model.num_classes}
    by_timm = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=cfg, **kwargs | other)
    expected = by_timm.state_dict()
    assert all(torch.equal(t, expected[name]) for name, t in model.state_dict().items())


@pytest.mark.parametrize("shape", [(1, 16, 16), (1, 17, 8), (17, 16)])
def test_positions_of_another_architecture_are_refused(tmp_path, shape):
    """Of 4 x 4 places and a class token; without the token, places make up no square."""
    state = make().state_dict() | {"pos_embed": torch.zeros(shape)}
    save_file(state, tmp_path / "weights.safetensors")
    with pytest.raises(InputError, match=r"pos_embed has shape .*, expected \(1, 17, 16\)"):
        load_weights_(make(), tmp_path / "weights.safetensors")


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def other_records(change, method=zipfile.ZIP_STORED, comment=b""):
    """A file of torch.save's with other records."""

    def write(path, state):
        raw = io.BytesIO()
        torch.save(dict(state), raw)
        with zipfile.ZipFile(raw) as old, zipfile.ZipFile(path, "w", method) as new:
            new.comment = comment
            for name in old.namelist():
                new.writestr(name, change(name, old.read(name)))

    return write


def enormous(name, content):
    """Claim that a storage of 77 numbers, and its tensor, have 2**30."""
    return content.replace(b"K\x4d", b"J\x00\x00\x00\x40") if name.endswith("data.pkl") else content


def long(name, content):
    """Let one record end in 100 MB of zeros."""
    return content + b"\0" * 10**8 if name.endswith("data/0") else content


def one_record_many_times(path, state):
    """An archive of 100 names for one record of 10 MB."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data/0", b"\0" * 10**7)
        first = file.infolist()[0]
        for number in range(1, 100):
            again = zipfile.ZipInfo(f"archive/data/{number}")
            for field in ("header_offset", "file_size", "compress_size", "CRC", "compress_type"):
                setattr(again, field, getattr(first, field))
            file.filelist.append(again)
            file.NameToInfo[again.filename] = again


REFUSED = {
    "a pickled object": (
        lambda path, state: torch.save({"a": Evil(path.parent / "made")}, path),
        "holds posix.mkdir",
    ),
    "a pickle": (
        lambda path, state: path.write_bytes(pickle.dumps(Evil(path.parent / "made"))),
        "nothing of a file",
    ),
    "a pickled model": (
        lambda path, state: torch.save(make(), path),
        "holds timm.models.* beside tensors",
    ),
    "a text": (lambda path, state: path.write_text("weights"), "not written by torch.save"),
    "nothing": (lambda path, state: path.write_bytes(b""), "no weights"),
    "a number": (saved(lambda state: 5), "no weights; expected plain tensors by name"),
    "no tensors": (saved(lambda state: {"a": 5}), "no weights; expected plain tensors by name"),
    "no names": (
        saved(lambda state: {5: torch.zeros(5)}),
        "no weights; expected plain tensors by name",
    ),
    "tensors without values": (
        saved(lambda state: {"a": torch.empty(5, device="meta")}),
        "no weights; expected plain",
    ),
    "sparse tensors": (
        saved(lambda state: {"a": torch.eye(5).to_sparse()}),
        "no weights; expected plain tensors",
    ),
    "whole numbers": (
        saved(lambda state: {name: tensor.int() for name, tensor in state.items()}),
        "holds values of another type, expected floating-point numbers",
    ),
    "another model": (
        saved(lambda state: make(depth=3).state_dict()),
        "has blocks.2.attn.proj.bias with shape .*, which is not expected; has blocks.2.attn.proj.weight "
        ".*; and 9 more differ: the weights belong to another architecture",
    ),
    "a wider model": (
        saved(lambda state: make(embed_dim=32).state_dict()),
        r"has shape \(32,\), expected \(16,\)",
    ),
    "no such file": (lambda path, state: None, "no such file"),
    "a pipe": (lambda path, state: os.mkfifo(path), "is not a regular file"),
    "a device": (lambda path, state: path.symlink_to("/dev/zero"), "is not a regular file"),
    "a folder": (lambda path, state: path.mkdir(), "is not a regular file"),
    "a packed archive": (
        other_records(long, zipfile.ZIP_DEFLATED),
        "records are larger than the file",
    ),
    "an archive that is packed, and no smaller": (
        other_records(lambda name, content: content, zipfile.ZIP_DEFLATED, b"-" * 60_000),
        "an archive that is packed",
    ),
    "one record many times": (one_record_many_times, "records are larger than the file"),
    "an enormous storage": (
        lambda path, state: other_records(enormous)(path, {"a": torch.arange(77.0)}),
        "no weights",
    ),
    "a script": (
        lambda path, state: torch.jit.save(torch.jit.script(nn.Linear(2, 2)), str(path)),
        "no weights",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.filterwarnings("ignore")
def test_anything_else_is_refused_in_one_line_and_never_executed(tmp_path, case):
    write, message = REFUSED[case]
    model, path = make(), tmp_path / "weights.pth"
    write(path, model.state_dict())
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with limited_memory(5 * 10**8), pytest.raises(InputError, match=message) as error:
        load_weights_(model, path)
    assert "\n" not in str(error.value) and str(path) in str(error.value)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not (tmp_path / "made").exists()


def test_a_pickled_checkpoint_ends_a_command_with_one_line(tmp_path):
    torch.save({"a": Evil(tmp_path / "made")}, tmp_path / "weights.pth")
    checkpoint = f"model.checkpoint={tmp_path / 'weights.pth'}"
    done = ofbnas(
        "search",
        DIGITS,
        "--set",
        checkpoint,
        "--set",
        "pretrain=null",
        "--output",
        tmp_path / "out",
    )
    assert done.returncode == 2 and "holds posix.mkdir beside tensors" in done.stderr
    assert "Traceback" not in done.stderr and not (tmp_path / "made").exists()
