"""One search in several processes: the same decisions everywhere, gradients averaged after every shrink.

The processes are real; gloo joins them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import filelock
import psutil
import pytest
import torch
from commands import PATIENCE, processes, wait
from conftest import DIGITS, KWARGS, NAME, ROOT, SPACE, make
from events import Recorder
from running import kill_everything
from test_search import config

from ofbnas import parallel
from ofbnas.config import FinetuneConfig, SmallDataConfig
from ofbnas.errors import InputError
from ofbnas.models.axes import axes
from ofbnas.nas.own_loop import SearchRun
from ofbnas.nas.run import StageRun
from ofbnas.nas.search import search
from ofbnas.nas.stage import Stage
from ofbnas.study.finetuned import Finetuning, run_finetuning
from ofbnas.study.networks import find_network
from ofbnas.table.store import read_table
from ofbnas.training import pretrain
from ofbnas.training.batches import batches
from ofbnas.training.data import load_data
from ofbnas.training.evaluation import evaluate
from ofbnas.training.finetune import finetune

pytestmark = pytest.mark.slow
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
PLAIN = {
    "pmim": {"weight": 0},
    "clip_grad": None,
    "importance": {"start": "taylor"},
    "epochs": 3,
    "decide_by": 0.7,
    "refine": {"candidates": 0},  # it draws labels, other ones in each process
}


def torchrun(processes: int, out: Path, *cases: str, **settings: str) -> list[dict]:
    """For each of several processes, the results of CASES by name."""
    out.mkdir()
    command = [*TORCHRUN, f"--nproc-per-node={processes}", __file__]
    env = (
        os.environ
        | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([*sys.path, str(ROOT)])}
        | settings
    )
    done = subprocess.run(
        [*command, str(out), *cases],
        env=env,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [torch.load(out / f"{rank}.pt", weights_only=True) for rank in range(processes)]


def steps(**changes) -> dict:
    """Gradients and decisions of a few steps with a shrink among them."""
    data, model = load_data("digits", shift=1), make()
    searcher = StageRun(Stage(model, data, config(**PLAIN | changes), axes(model, SPACE), seed=0))
    searcher.supernet.train()
    seen = {}
    for place, parts in batches(data, searcher.config, seed=0):
        searcher.step(parts, place.step)
        trained = searcher.supernet.trained()
        seen[f"gradients {place.step}"] = {
            n: p.grad.clone() for n, p in trained.items() if p.grad is not None
        }
        if place.step == 2:
            searcher.stage.decide_the_rest()
            seen["after"] = len(list(searcher.supernet.model.parameters()))
        if place.step == 5:
            break
    return seen


def whole(**changes) -> dict:
    """A search and fine-tuning from end to end."""
    data, model = load_data("digits", shift=1), make()
    told = Recorder()
    found = search(
        model, data, config(**PLAIN | changes), name=NAME, kwargs=KWARGS, axes=axes(model, SPACE), seed=0,
        callbacks=[told],
    )  # fmt: skip
    settings = FinetuneConfig(epochs=1, batch_size=32, distill={"features": 1.0})
    tuned = finetune(found.subnet, data, settings, teacher=model)
    return {
        "sizes": {name: list(size) for name, size in found.subnet.architecture.sizes.items()},
        "units": dict(found.subnet.units),
        "losses": [losses for _, losses in told.epochs],
        "history": json.dumps(found.history),
        "weights": tuned.model.state_dict(),
        "top1": evaluate(tuned.model, data.test).top1,
        "odd": evaluate(tuned.model, data.val).top1,
    }


def by_hand() -> dict:
    """A search in a loop of the user's own, beside the built-in one."""
    data, model = load_data("digits", shift=1), make()
    settings, space = config(**PLAIN | {"epochs": 1}), axes(model, SPACE)
    run = SearchRun(model, data, settings, axes=space)
    refused = ""
    try:
        run.attach(torch.optim.SGD(run.model.parameters(), lr=0.1))
    except InputError as error:
        refused = str(error)
    for _, parts in batches(data, settings, seed=0):
        run.step(*parts[0])
    found = search(model, data, settings, name=NAME, kwargs=KWARGS, axes=space)
    weights = {
        "by hand": run.subnet().model.state_dict(),
        "search": found.subnet.model.state_dict(),
    }
    return {"refused": refused, **weights}


CASES = {
    "steps": lambda _: steps(),
    "by hand": lambda _: by_hand(),
    "whole": lambda _: whole(),
    "everything": lambda _: whole(
        pmim={"weight": 1.0}, clip_grad=1.0, accumulate=2, ema=0.9, drop_path=0.1, decided_masks="folded",
        amp="bfloat16",
        augment={"mixup": 0.8, "erasing": 0.5, "repeats": 2}, distill={},
    ),
    "training free": lambda _: whole(epochs=0, compensation={"images": 512}),
}  # fmt: skip


@pytest.fixture(scope="module")
def two(tmp_path_factory, small_study) -> list[dict]:
    """What each of two processes found."""
    out = tmp_path_factory.mktemp("parallel") / "two"
    cases = ("steps", "by hand", "whole", "everything", "training free", "table's network")
    return torchrun(2, out, *cases, TABLE=str(small_study))


def test_gradients_are_averaged_before_and_after_a_shrink(two):
    alone = steps()
    first, second = (rank["steps"] for rank in two)
    for step in range(6):
        name = f"gradients {step}"
        assert set(first[name]) == set(second[name]) == set(alone[name])
        for tensor, gradient in first[name].items():
            assert torch.equal(gradient, second[name][tensor]), (step, tensor)
            scale = alone[name][tensor].abs().max().item()
            torch.testing.assert_close(
                gradient, alone[name][tensor], rtol=2e-3, atol=1e-3 * scale + 1e-6
            )
    assert first["after"] == alone["after"]


@pytest.mark.parametrize("case", ["whole", "everything", "training free"])
def test_all_processes_find_the_same(two, case):
    ranks = [rank[case] for rank in two]
    for key in ("sizes", "units", "losses", "history", "top1", "odd"):
        assert ranks[0][key] == ranks[1][key], key
    for name, tensor in ranks[0]["weights"].items():
        assert torch.equal(tensor, ranks[1]["weights"][name]), name


def test_two_processes_do_what_one_does(two):
    """Same images, order and augmentation; results differ only by the order of summation."""
    alone = whole()
    first = two[0]["whole"]
    task, expected = ([losses["task"] for losses in run["losses"]] for run in (first, alone))
    assert task[0] == pytest.approx(expected[0], rel=1e-4)
    assert task == pytest.approx(expected, rel=0.05)
    assert first["sizes"] == alone["sizes"]


def test_steps_by_hand_are_those_of_the_built_in_loop_in_each_process(two):
    ranks = [rank["by hand"] for rank in two]
    for name, tensor in ranks[0]["search"].items():
        assert all(torch.equal(rank["by hand"][name], tensor) for rank in ranks), name
    assert all(
        "an optimizer of your own trains in one process" in rank["refused"] for rank in ranks
    )


def test_two_processes_that_finetune_a_tables_network_write_one_row(two):
    first, second = (rank["table's network"] for rank in two)
    assert first["top1"] == second["top1"] and second["sha256"] is None
    rows = read_table(first["folder"])
    assert rows["weights_sha256"].tolist() == [first["sha256"]]
    network = find_network(Path(first["folder"]), rows["arch_id"][0])
    assert evaluate(network.subnet.model, load_data("digits").test).top1 == first["top1"]
    assert not (Path(first["folder"]) / "checkpoints").exists()


def finetuned(out: Path) -> dict:
    """A fine-tuning of a table's network."""
    table = Path(os.environ["TABLE"])
    network = find_network(table, read_table(table)["arch_id"][0])
    images = SmallDataConfig(name="digits")
    finetuning = Finetuning(network, images, FinetuneConfig(epochs=1))
    folder = out / "tuned"
    row = run_finetuning(finetuning, load_data("digits"), folder)
    return {"folder": str(folder), "top1": row.top1, "sha256": row.weights_sha256}


def forked(processes: int, out: Path, case: Callable[[Path], dict]) -> list[dict]:
    """For each of several processes, the result of a case that needs no gradients.

    They need not import anything, unlike those of torchrun, but what is a copy of this process cannot
    backpropagate.
    """
    out.mkdir()
    fork = torch.multiprocessing.get_context("fork")
    started = [
        fork.Process(target=join, args=(rank, processes, out, case)) for rank in range(processes)
    ]
    for process in started:
        process.start()
    for process in started:
        process.join(PATIENCE)
    assert [process.exitcode for process in started] == [0] * processes
    return [torch.load(out / f"{rank}.pt", weights_only=True) for rank in range(processes)]


def join(rank: int, world: int, out: Path, case: Callable[[Path], dict]) -> None:
    """One of the processes."""
    store = torch.distributed.FileStore(str(out / "store"), world)
    with parallel.process_group(store, rank, world, torch.device("cpu")):
        torch.save(case(out), out / f"{rank}.pt")


def test_evaluation_counts_every_image_once_for_any_number_of_processes(tmp_path):
    """5 processes share 360 test and 216 validation images; 216 cannot be divided evenly."""
    alone = evaluation(tmp_path)
    assert len(load_data("digits").val) % 5
    for rank in forked(5, tmp_path / "five", evaluation):
        assert rank["top1"] == alone["top1"]
        assert rank["val"] == pytest.approx(alone["val"])


def evaluation(out: Path) -> dict:
    torch.manual_seed(0)
    data, model = load_data("digits"), make()
    val, test = (evaluate(model, split) for split in (data.val, data.test))
    return {"top1": [val.top1, test.top1], "val": [val.loss, val.ece]}


def test_the_command_line_runs_under_torchrun(tmp_path):
    settings = ["pretrain.epochs=2", "search.epochs=2", "finetune.epochs=1", "model.kwargs.depth=2"]
    command = [*TORCHRUN, "--nproc-per-node=2", "-m", "ofbnas"]
    command += ["search", str(DIGITS), "--output", str(tmp_path / "out"), "--json"]
    command += [part for setting in settings for part in ("--set", setting)]
    env = os.environ | {"OMP_NUM_THREADS": "1", "OFBNAS_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(
        command, env=env, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    row = json.loads(done.stdout.strip())
    assert row["status"] == "complete" and (tmp_path / "out" / row["weights"]).is_file()
    assert done.stderr.count("search: epoch 2 of 2") == 1, "only the first process speaks"


def waits(out: Path) -> dict:
    """Two processes wait longer for a parent, whose lock is held, than they wait for each other."""
    file = out / "a.parent"
    if parallel.shard().rank == 0:
        held = filelock.FileLock(file.with_suffix(".lock"), thread_local=False)
        held.acquire()
        threading.Timer(1.5 * parallel.timeout().total_seconds(), held.release).start()
    with pretrain._locked(file):
        return {"waited": True}


def test_the_first_process_waits_for_a_parent_and_is_not_called_lost(tmp_path, monkeypatch):
    monkeypatch.setenv("OFBNAS_RANK_TIMEOUT", "10")
    assert all(rank["waited"] for rank in forked(2, tmp_path / "two", waits))


def test_a_suspended_process_ends_the_others_with_one_line(tmp_path):
    settings = [
        "pretrain.epochs=1",
        "search.epochs=1000",
        "model.kwargs.depth=1",
        "model.kwargs.embed_dim=16",
    ]
    command = [*TORCHRUN, "--nproc-per-node=2", "-m", "ofbnas"]
    command += ["search", str(DIGITS), "--output", str(tmp_path / "out")]
    command += [part for setting in settings for part in ("--set", setting)]
    env = os.environ | {
        "OMP_NUM_THREADS": "1",
        "OFBNAS_CACHE": str(tmp_path / "cache"),
        "OFBNAS_RANK_TIMEOUT": "15",
    }
    said, checkpoint = (
        tmp_path / "said",
        tmp_path / "out" / "checkpoints" / "trial-00000" / "search.pt",
    )
    with said.open("w") as file:
        run = subprocess.Popen(command, env=env, stdout=file, stderr=file)
    try:
        wait(checkpoint.is_file)
        started = [
            psutil.Process(pid) for pid in processes("-m ofbnas search", run.pid) if pid != run.pid
        ]
        (second,) = [process for process in started if process.environ()["RANK"] == "1"]
        second.suspend()
        wait(lambda: "ofbnas: " in said.read_text())
        second.resume()  # torchrun, which asked it to end, would have waited for 30 s
        assert run.wait(PATIENCE) == 1
    finally:
        kill_everything(run)
    *own, _ = (
        said.read_text().partition("torch/distributed/elastic")[0].splitlines()
    )  # then torchrun prints its own report
    own = [line for line in own if not line.startswith(("parent: epoch", "search: epoch"))]
    assert 1 <= len(own) <= 2, "one line for each process"
    for line in own:
        assert line.startswith(
            "ofbnas: another process of this training died, or did not answer within 15 s ("
        )
        assert line.endswith("; start again with the same command to resume")
    assert "exitcode  : 1" in said.read_text()


@pytest.mark.parametrize("given", ["a minute", "nan", "0", "-5", "inf"])
def test_an_invalid_timeout_of_processes_is_refused(monkeypatch, given):
    monkeypatch.setenv("OFBNAS_RANK_TIMEOUT", given)
    with pytest.raises(InputError, match=f"OFBNAS_RANK_TIMEOUT is '{given}', expected the seconds"):
        parallel.timeout()


CASES["table's network"] = finetuned

if __name__ == "__main__":
    torch.set_num_threads(1)
    with parallel.joined():
        out = Path(sys.argv[1])
        results = {case: CASES[case](out) for case in sys.argv[2:]}
        torch.save(results, out / f"{parallel.shard().rank}.pt")
