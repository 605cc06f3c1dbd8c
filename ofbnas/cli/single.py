"""What commands that search in this process, without Ray, have in common."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from ofbnas.cli.output import print_json, print_table, say
from ofbnas.cli.process import collect_as_usual

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from ofbnas.config import StudyConfig
    from ofbnas.table.columns import Row
    from ofbnas.training.data import Data
    from ofbnas.training.events import Callback

COLUMNS = [
    "arch_id", "gmacs", "params", "top1", "val_top1", "parent_top1", "knn_top1", "parent_knn_top1",
    "cka", "from_arch_id", "seconds", "weights",
]  # fmt: skip


class Start(NamedTuple):
    """What a search starts from.

    Attributes:
        data: On the device of the search.
        parent_state: The trained parent's tensors.
        callbacks: Print what happens, in the first of several processes.
    """

    data: Data
    parent_state: dict[str, Tensor]
    callbacks: Sequence[Callback]


@contextmanager
def started(config: StudyConfig) -> Iterator[Start]:
    """The data and the trained parent of a study; processes that torchrun started are joined.

    Args:
        config: The study.
    """
    from ofbnas.cli.progress import EpochLines
    from ofbnas.parallel import joined, shard
    from ofbnas.study.images import data_of
    from ofbnas.study.parent import check_weights, trained_parent

    collect_as_usual()
    with joined() as device:
        callbacks = [EpochLines()] if shard().rank == 0 else []
        # Before the images are read, which may take long.
        check_weights(config)
        data = data_of(config).to(device)
        parent = trained_parent(config, data, callbacks)
        yield Start(data, parent.model.state_dict(), callbacks)


def print_rows(rows: Sequence[Row], folder: Path, *, as_json: bool) -> None:
    """Print rows as a table, or each as a line of JSON, and where they are: one of several processes does."""
    import pandas as pd

    from ofbnas.parallel import shard
    from ofbnas.table.query import to_records

    if shard().rank != 0:
        return
    # Through a data frame, like the rows of a table, which turns numpy's numbers into Python's and
    # NaN into None.
    records = to_records(pd.DataFrame([row.values() for row in rows]))
    if not as_json:
        # A network has accuracies or, without a classifier, the quality of its features.
        print_table([name for name in COLUMNS if records[0][name] is not None], records)
        say(f"written to {folder}", err=True)
        return
    for record in records:
        print_json(record)
