"""A chain of budgets: one row each, resumed after an interruption, and nothing that was found is lost."""

from __future__ import annotations

from dataclasses import replace

import pytest
from running import STUDY

from ofbnas.config import StudyConfig
from ofbnas.errors import InputError
from ofbnas.study.chain import run_chain
from ofbnas.study.parent import untrained_parent
from ofbnas.table.store import read_row, read_table
from ofbnas.training.events import Callback

SHARES = (0.4, 0.8)


class StopAfter(Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_epoch(self, phase, epoch, epochs, losses):
        if epoch == self.step:
            raise KeyboardInterrupt


@pytest.fixture
def chain(data, tmp_path):
    """Runs a chain with an untrained parent."""
    without_training = {
        "epochs": 0,
        "compensation": {"images": 128},
        "training_free": {"scoring_images": 128},
    }
    study = STUDY | {
        "search": STUDY["search"] | without_training,
        "search_space": {"mlp": [32, 64, 128], "heads": [1, 2]},
        "finetune": None,
    }
    config = StudyConfig.model_validate(study)
    parent = untrained_parent(config)

    def run(folder="out", shares=SHARES, callbacks=()):
        configs = [config.with_values({"search.budget.gmacs_share": share}) for share in shares]
        return run_chain(
            configs, tmp_path / folder, data, parent.model.state_dict(), list(callbacks)
        )

    return run


def comparable(row):
    return replace(row, seconds=None, gpu_hours=None, finished_at=None)


def test_a_chain_that_is_stopped_ends_as_one_that_is_not(chain, tmp_path):
    whole = chain()
    assert [row.trial for row in whole] == [0, 1]
    for row, share in zip(whole, SHARES, strict=True):
        assert 0.8 * share < row.gmacs / row.parent_gmacs <= share

    # The higher budget takes one step, so its row is written before the second step.
    with pytest.raises(KeyboardInterrupt):
        chain("stopped", callbacks=[StopAfter(2)])
    found_before = read_row(tmp_path / "stopped", 1)
    assert found_before is not None and read_row(tmp_path / "stopped", 0) is None
    resumed = chain("stopped")
    assert resumed[1] == found_before
    assert list(map(comparable, resumed)) == list(map(comparable, whole))
    assert not (tmp_path / "stopped" / "checkpoints").exists()


def test_other_budgets_than_those_of_the_stopped_chain_leave_its_rows(chain, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        chain(callbacks=[StopAfter(2)])
    found_before = read_row(tmp_path / "out", 1)
    (other,) = chain(shares=[0.6])
    assert other.trial == 2
    assert read_row(tmp_path / "out", 1) == found_before


def test_the_same_chain_again_adds_rows(chain, tmp_path):
    assert [row.trial for row in chain(shares=[0.8]) + chain(shares=[0.8])] == [0, 1]
    assert read_table(tmp_path / "out")["seed"].tolist() == [0, 1]


def test_a_budget_out_of_reach_leaves_nothing(chain, tmp_path):
    with pytest.raises(InputError, match="out of reach"):
        chain(shares=[0.8, 0.01])
    assert not (tmp_path / "out").exists()
