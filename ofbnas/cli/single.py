"""Searches one after the other in this process, without Ray, and how their rows are printed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ofbnas.cli.output import print_json, print_table
from ofbnas.cli.process import collect_as_usual

if TYPE_CHECKING:
    from ofbnas.config import StudyConfig
    from ofbnas.table.columns import Row

COLUMNS = ["arch_id", "gmacs", "params", "top1", "val_top1", "parent_top1", "seconds", "weights"]


def run_searches(configs: Sequence[StudyConfig], folder: Path) -> list[Row]:
    """Search with each of several settings; each adds a row to the folder's table.

    Args:
        configs: Settings of one study, with the same model and data.
        folder: Of the table.

    Returns:
        The rows, in the first of several processes; in others nothing.
    """
    from ofbnas.cli.progress import EpochLines
    from ofbnas.parallel import joined, shard
    from ofbnas.study.parent import check_weights, data_of, trained_parent
    from ofbnas.study.trial import run_trial
    from ofbnas.table.store import next_trial

    collect_as_usual()
    with joined() as device:
        is_first = shard().rank == 0
        callbacks = [EpochLines()] if is_first else []
        # Before the images are read, which may take long.
        check_weights(configs[0])
        data = data_of(configs[0]).to(device)
        parent = trained_parent(configs[0], data, callbacks)
        weights = parent.model.state_dict()
        rows = [
            run_trial(config, {}, next_trial(folder), folder, data, weights, callbacks)
            for config in configs
        ]
    # All processes have the same rows; one of them prints them.
    return rows if is_first else []


def print_rows(rows: Sequence[Row], *, as_json: bool) -> None:
    """Print rows as a table, or each as a line of JSON."""
    import pandas as pd

    from ofbnas.table.query import to_records

    # Through a data frame, like the rows of a table, which turns numpy's numbers into Python's and
    # NaN into None.
    records = to_records(pd.DataFrame([row.values() for row in rows]))
    if not as_json:
        print_table(COLUMNS, records)
        return
    for record in records:
        print_json(record)
