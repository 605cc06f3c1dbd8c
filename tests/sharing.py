"""A small study, and commands that share it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import torch
from commands import OFBNAS, PATIENCE
from conftest import KWARGS, NAME, make
from rows import write_row

from ofbnas.models.axes import axes
from ofbnas.models.subnet import Architecture, Subnet, save
from ofbnas.study.networks import load_subnet
from ofbnas.table.front import front
from ofbnas.table.history import write_history
from ofbnas.table.sharing.folder import LOCK
from ofbnas.table.sharing.share import pull
from ofbnas.table.store import read_table

TOP1 = {8: 50.0, 16: 70.0, 24: 60.0, 32: 90.0}  # by width; the one of 24 is not on the front


def write_study(folder: Path) -> Path:
    """A study's folder with four networks and a failed trial."""
    for trial, (width, top1) in enumerate(TOP1.items()):
        model = make(embed_dim=width)
        sizes = {axis.name: axis.size for axis in axes(model, {})}
        subnet = Subnet(Architecture(NAME, KWARGS | {"embed_dim": width}, sizes), model)
        arch_id = subnet.architecture.id
        row = {
            "arch_id": arch_id,
            "study": "small",
            "trial": trial,
            "status": "complete",
            "model": NAME,
        }
        row |= {
            "model_kwargs": "{}",
            "gmacs": width / 10,
            "params": width * 100,
            "top1": top1,
            "val_top1": top1,
        }
        row |= {
            "architecture": {
                "embed": [width],
                "blocks": [{"heads": 4, "head_size": width // 4, "mlp": 64}],
            }
        }
        row |= {
            "finished_at": datetime(2026, 11, 21, tzinfo=UTC),
            "hp.search.lr": 0.1 * trial,
            "dataset": "digits",
        }
        row |= {"weights": f"subnets/{arch_id}/model.safetensors"}
        row |= {"weights_sha256": save(subnet, folder / "subnets" / arch_id, card="# card\n")}
        write_row(folder, row)
        write_history(
            folder,
            trial,
            [{"epoch": 0, "step": step, "task": 2.0} for step in (1, 2)],
            study=row["study"],
        )
    failed = {
        "study": "small",
        "trial": 9,
        "status": "failed",
        "reason": "x",
        "model": NAME,
        "model_kwargs": "{}",
    }
    write_row(folder, failed)
    return folder


def get(source, folder, max_size=10**9):
    return pull(str(source), folder, max_size=max_size, notify=print)


def contents(folder: Path) -> dict[str, bytes]:
    places = (place for place in folder.rglob("*") if place.is_file() and place.name != LOCK)
    return {place.relative_to(folder).as_posix(): place.read_bytes() for place in places}


def best(folder: Path) -> list[str]:
    return front(read_table(folder))["arch_id"].tolist()


def same_outputs(one: Path, other: Path, arch_id: str) -> bool:
    images = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    return torch.equal(load_subnet(one, arch_id)(images), load_subnet(other, arch_id)(images))


def start(*args, env=None, **kwargs) -> subprocess.Popen[str]:
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "HF_"))}
    return subprocess.Popen(
        [OFBNAS, "table", *map(str, args)], env=clean | (env or {}), **pipes, **kwargs
    )


def table(*args, env=None, code=0, **kwargs) -> tuple[dict, str]:
    """What a command printed as JSON, and its other messages."""
    process = start(*args, "--json", env=env, **kwargs)
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == code, err
    return (json.loads(out) if out else {}), err


def refused(*args, message: str, code: int, env=None, **kwargs) -> None:
    """The command ends with a line that says why."""
    out, err = table(*args, env=env, code=code, **kwargs)
    last = err.strip().splitlines()[-1]
    assert not out and last.startswith("ofbnas: ") and message in last, err
    assert "Traceback" not in err


def kill_when_stalled(server, *args, env=None, seen=lambda: True) -> None:
    """Run a command until the server stalls and a condition holds, and kill it there."""
    process = start(*args, env=env)
    assert server.stalled.wait(PATIENCE), process.communicate()
    while not seen():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    server.go_on.set()


def is_the_study(pulled: Path, study: Path) -> bool:
    pd.testing.assert_frame_equal(read_table(pulled), read_table(study))
    return all(
        same_outputs(pulled, study, arch_id) for arch_id in front(read_table(study))["arch_id"]
    )
