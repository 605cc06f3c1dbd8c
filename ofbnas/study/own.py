"""A study's trials in a program of one's own: what they need, made once, and what is refused."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ofbnas.config import StudyConfig
from ofbnas.errors import InputError
from ofbnas.files import durable
from ofbnas.study.images import data_of
from ofbnas.study.parent import trained_parent
from ofbnas.study.plan import check_study
from ofbnas.study.provenance import write_settings
from ofbnas.study.tuning.extend import changes
from ofbnas.training.data import Data
from ofbnas.training.events import Callback


@dataclass(frozen=True)
class Prepared:
    """What all trials of a study share.

    Attributes:
        config: The study.
        folder: Its folder.
        data: Its images, on the device of the trials.
        parent: The trained parent's tensors, on the CPU.
        costs: "gmacs" and "params" of the parent.
    """

    config: StudyConfig
    folder: Path
    data: Data
    parent: Mapping[str, Tensor]
    costs: Mapping[str, float]


def prepared(
    config: StudyConfig,
    folder: Path,
    device: str | None = None,
    callbacks: Sequence[Callback] = (),
) -> Prepared:
    """Check a study, read its images, train or load its parent, and write its settings.

    Args:
        config: The study.
        folder: Its folder; created if necessary.
        device: By default CUDA if there is any.
        callbacks: Receive what happens while the parent is trained.

    Raises:
        InputError: The study cannot run in one process, or the folder holds one whose settings may
            not change like this.
    """
    workers = config.resources.workers_per_trial
    if workers != 1:
        raise InputError(
            f"resources.workers_per_trial is {workers}, but here a trial is one process; leave it "
            "out, or use ofbnas study run"
        )
    changes(config, folder)
    parent = check_study(config)
    costs = parent.costs()
    data = data_of(config).to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    trained = trained_parent(config, data, callbacks)
    durable.make_folder(folder)
    write_settings(config, folder)
    return Prepared(config, folder, data, trained.model.cpu().state_dict(), costs)


def check_fields(names: Iterable[str]) -> None:
    """Check that values are of fields that trials may differ in.

    Raises:
        InputError: One is not.
    """
    for name in names:
        if not name.startswith(("search.", "finetune.")):
            raise InputError(
                f"{name[:80]} is given a value; fields of search and finetune can be, by dotted "
                "name such as search.lr"
            )
