"""Several budgets without training, each from the network of the next higher one: a row for each."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from ofbnas import parallel
from ofbnas.config import StudyConfig
from ofbnas.nas.search import compress
from ofbnas.study.clock import Clock
from ofbnas.study.parent import parent_with
from ofbnas.study.trial import CHECKPOINTS, Stages, base_row, remove_checkpoints
from ofbnas.table.columns import Row
from ofbnas.table.history import write_history
from ofbnas.table.store import next_trial, read_row
from ofbnas.training.checkpoint import StaleCheckpointError, load_checkpoint, save_checkpoint
from ofbnas.training.data import Data
from ofbnas.training.events import Callback

FIRST_TRIAL = "first_trial.pt"
log = logging.getLogger("ofbnas")


def run_chain(
    configs: Sequence[StudyConfig],
    folder: Path,
    data: Data,
    parent_state: Mapping[str, Tensor],
    callbacks: Sequence[Callback] = (),
) -> list[Row]:
    """Compress a study's parent to several budgets; each adds a row to the folder's table.

    A chain that was interrupted is resumed if its settings are the same. In a row, `seconds` is the
    time since the chain began.

    Args:
        configs: The study without training, with each of the budgets.
        folder: Of the table.
        data: On the device of the search.
        parent_state: The trained parent's tensors.
        callbacks: Receive what happens.

    Returns:
        The rows in the order of `configs`; only in the first of several processes all of them.

    Raises:
        InputError: A budget is out of reach.
    """
    checkpoints = folder / CHECKPOINTS / "chain"
    settings = repr(configs)
    first_trial = _first_trial(folder, checkpoints, settings)
    clock = Clock(checkpoints / "seconds.pt")
    seed = configs[0].seed + first_trial
    parent = parent_with(configs[0], parent_state, data.device)

    found = compress(
        parent.model,
        data,
        configs[0].search,
        [config.search.budget for config in configs[1:]],
        name=configs[0].model.name,
        kwargs=parent.kwargs,
        axes=parent.axes,
        seed=seed,
        callbacks=[clock, *callbacks],
        checkpoint=checkpoints / "search.pt",
    )
    # Kept until the chain ends, so that one that is resumed finds the rows that it has written.
    save_checkpoint(checkpoints / FIRST_TRIAL, {"first_trial": first_trial}, settings)
    rows: dict[int, Row] = {}
    for number, result in found:
        config = configs[number]
        trial = first_trial + number
        row = replace(base_row(config, {}, trial, "complete"), seed=seed)
        stages = Stages(config, parent, data, seed, checkpoints, callbacks)
        if parallel.shard().rank == 0:
            write_history(folder, trial, result.history, study=config.name)
        rows[trial] = stages.finish(result, row, folder, clock)

    for trial in range(first_trial, first_trial + len(configs)):
        row_before = read_row(folder, trial)
        if trial not in rows and row_before is not None:  # written before the chain was resumed
            rows[trial] = row_before
    if parallel.shard().rank == 0:
        remove_checkpoints(checkpoints)
    return [rows[trial] for trial in sorted(rows)]


def _first_trial(folder: Path, checkpoints: Path, settings: str) -> int:
    """The number of the first trial: of the chain to resume, otherwise the next free one."""
    try:
        state = load_checkpoint(checkpoints / FIRST_TRIAL, settings)
    except StaleCheckpointError as error:
        log.warning("%s; this run starts anew", error)
        state = None
        if parallel.shard().rank == 0:
            remove_checkpoints(checkpoints)
    if state is not None:
        return int(state["first_trial"])
    # The first process says it, as others may not see the table.
    chosen = str(next_trial(folder)).encode()
    return int(parallel.from_first(chosen) or chosen)
