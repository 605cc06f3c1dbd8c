"""One search in several processes: the same decisions everywhere, gradients averaged after every shrink.

The processes are real; gloo joins them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from commands import PATIENCE
from conftest import DIGITS, KWARGS, NAME, ROOT, SPACE, make
from test_search import config

from ofbnas import parallel
from ofbnas.axes import axes
from ofbnas.config import FinetuneConfig
from ofbnas.data import load_data
from ofbnas.finetune import finetune
from ofbnas.search import search
from ofbnas.searcher import Searcher
from ofbnas.training import batches, evaluate

pytestmark = pytest.mark.slow
PLAIN = {"pmim": {"weight": 0}, "clip_grad": None, "importance": {"start": "taylor"}, "epochs": 3, "decide_by": 0.7}


def torchrun(processes: int, out: Path, what: str) -> list[dict]:
    """What each of several processes, which run a function of this file, has to say."""
    out.mkdir()
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", __file__]
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{Path(__file__).parent}:{ROOT}"}
    done = subprocess.run(
        [*command, what, str(out)], env=env, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [torch.load(out / f"{rank}.pt", weights_only=True) for rank in range(processes)]


def steps(**changes) -> dict:
    """Gradients and decisions of a few steps with a shrink among them."""
    data, model = load_data("digits", shift=1), make()
    searcher = Searcher(model, data, config(**PLAIN | changes), axes(model, SPACE), seed=0)
    searcher.learner.supernet.train()
    seen = {}
    for place, parts in batches(data, searcher.config, seed=0):
        searcher.step(parts, place.step)
        trained = searcher.learner.supernet.trained()
        seen[f"gradients {place.step}"] = {n: p.grad.clone() for n, p in trained.items() if p.grad is not None}
        if place.step == 2:
            searcher._force()
            seen["after"] = len(list(searcher.learner.supernet.model.parameters()))
        if place.step == 5:
            break
    return seen


def whole(**changes) -> dict:
    """A search and fine-tuning from end to end."""
    data, model = load_data("digits", shift=1), make()
    losses = []
    found = search(
        model, data, config(**PLAIN | changes), name=NAME, kwargs=KWARGS, axes=axes(model, SPACE), seed=0,
        on_epoch=lambda epoch, means: losses.append(means["task"]),
    )  # fmt: skip
    settings = FinetuneConfig(epochs=1, batch_size=32, distill={"features": 1.0})
    tuned = finetune(found.subnet, data, settings, teacher=model)
    return {
        "sizes": {name: list(size) for name, size in found.subnet.architecture.sizes.items()},
        "units": dict(found.subnet.units),
        "losses": losses,
        "history": json.dumps(found.history),
        "weights": tuned.model.state_dict(),
        "top1": evaluate(tuned.model, data.test).top1,
        "odd": evaluate(tuned.model, data.val).top1,
    }


CASES = {
    "steps": steps,
    "whole": whole,
    "everything": lambda: whole(
        pmim={"weight": 1.0}, clip_grad=1.0, accumulate=2, ema=0.9, drop_path=0.1, decided_masks="folded",
        amp="bfloat16",
        augment={"mixup": 0.8, "erasing": 0.5, "repeats": 2}, distill={},
    ),
}  # fmt: skip


def test_gradients_are_averaged_before_and_after_a_shrink(tmp_path):
    alone = steps()
    first, second = torchrun(2, tmp_path / "two", "steps")
    for step in range(6):
        name = f"gradients {step}"
        assert set(first[name]) == set(second[name]) == set(alone[name])
        for tensor, gradient in first[name].items():
            assert torch.equal(gradient, second[name][tensor]), (step, tensor)
            scale = alone[name][tensor].abs().max().item()
            torch.testing.assert_close(gradient, alone[name][tensor], rtol=2e-3, atol=1e-3 * scale + 1e-6)
    assert first["after"] == alone["after"]


@pytest.mark.parametrize("case", ["whole", "everything"])
def test_all_processes_find_the_same(tmp_path, case):
    ranks = torchrun(2, tmp_path / "two", case)
    for key in ("sizes", "units", "losses", "history", "top1", "odd"):
        assert ranks[0][key] == ranks[1][key], key
    for name, tensor in ranks[0]["weights"].items():
        assert torch.equal(tensor, ranks[1]["weights"][name]), name


def test_two_processes_do_what_one_does(tmp_path):
    """Up to the order of summation: same images, same order, same augmentation."""
    alone, (first, _) = whole(), torchrun(2, tmp_path / "two", "whole")
    assert first["losses"][0] == pytest.approx(alone["losses"][0], rel=1e-4)
    assert first["losses"] == pytest.approx(alone["losses"], rel=0.05)
    assert first["sizes"] == alone["sizes"]


def test_evaluation_counts_every_image_once_for_any_number_of_processes(tmp_path):
    """360 test images and 216 for validation over 5 processes: 216 cannot be dealt out evenly."""
    torch.manual_seed(0)
    data, model = load_data("digits"), make()
    assert len(data.val) % 5
    expected = [evaluate(model, split).top1 for split in (data.val, data.test)]
    for rank in torchrun(5, tmp_path / "five", "evaluation"):
        assert rank["top1"] == expected


def evaluation() -> dict:
    torch.manual_seed(0)
    data, model = load_data("digits"), make()
    return {"top1": [evaluate(model, split).top1 for split in (data.val, data.test)]}


def test_the_command_line_runs_under_torchrun(tmp_path):
    settings = ["pretrain.epochs=2", "search.epochs=2", "finetune.epochs=1", "model.kwargs.depth=2"]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "ofbnas"]
    command += ["search", str(DIGITS), "--output", str(tmp_path / "out"), "--json"]
    command += [part for setting in settings for part in ("--set", setting)]
    env = os.environ | {"OMP_NUM_THREADS": "1", "OFBNAS_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    row = json.loads(done.stdout.strip())
    assert row["status"] == "complete" and (tmp_path / "out" / row["weights"]).is_file()
    assert done.stderr.count("search: epoch 2 of 2") == 1, "only the first process speaks"


CASES["evaluation"] = evaluation

if __name__ == "__main__":
    torch.set_num_threads(1)
    with parallel.joined():
        found = CASES[sys.argv[1]]()
        torch.save(found, Path(sys.argv[2]) / f"{parallel.shard().rank}.pt")
