"""ofbnas inside your own Ray Tune: a trainable for any scheduler and searcher.

trainable = ofbnas.tune.trainable("digits", "runs/mine")
tune.Tuner(
    trainable,
    param_space=ofbnas.tune.space("digits"),
    tune_config=tune.TuneConfig(metric="val_top1", mode="max", num_samples=8),
    run_config=tune.RunConfig(callbacks=[ofbnas.tune.rows("digits", "runs/mine")]),
).fit()
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ofbnas.config import StudyConfig
from ofbnas.config.study_file import as_study

if TYPE_CHECKING:
    from ofbnas.study.own_tune import Rows

__all__ = ["rows", "space", "trainable"]


def trainable(
    study: StudyConfig | Path | str, folder: Path | str, *, report_every: int = 1
) -> Callable[..., None]:
    """A study's trials as a trainable for `ray.tune.Tuner`.

    The parent is trained or loaded here, once. A trial's config has fields of `search` and
    `finetune` by dotted name, such as "search.lr"; others keep the study's values. Each trial writes
    its subnet, its history and its row into the folder, as `ofbnas study run` does; an exception
    becomes the reason of a row with the status "failed", and Tune learns of it too.

    A trial reports "epoch", "val_top1", "gmacs", "params" and "seconds" after epochs of its search,
    with its checkpoint: a scheduler may stop it, pause it, or, as population-based training does,
    let it go on from the checkpoint of another trial with other values of the fields in
    `ofbnas.nas.perturbed.PERTURBABLE`. Schedulers count by `time_attr="epoch"`. Fine-tuning follows
    without reports. The last report has the costs and qualities of the row.

    From the study, n_trials, sampler, start, storage and resources are not used: they are yours.

    Args:
        study: A study, or the path or name of its YAML file.
        folder: For the table and the networks; created if necessary. All nodes must see it.
        report_every: Epochs between two reports: each takes a pass over the validation images.

    Returns:
        A function of a trial's config, for `ray.tune.Tuner` and `ray.tune.with_resources`.

    Raises:
        InputError: There is no such study, it has early stopping of its own or trials of several
            processes, or the folder holds one whose settings may not change like this.
    """
    from ofbnas.study import own_tune  # imports torch and Ray

    return own_tune.trainable(as_study(study), Path(folder), report_every)


def rows(study: StudyConfig | Path | str, folder: Path | str) -> Rows:
    """A callback for `ray.tune.RunConfig`: it writes the rows of trials that were stopped or lost.

    Tune ends a trial's process when a scheduler stops it, so the row, with the status "pruned", is
    written by the process of the Tuner; so is that of a trial whose process was lost.

    Args:
        study: As for `trainable`.
        folder: As for `trainable`.

    Raises:
        InputError: There is no such study.
    """
    from ofbnas.study import own_tune

    return own_tune.Rows(as_study(study), Path(folder))


def space(study: StudyConfig | Path | str) -> dict[str, Any]:
    """What a study sweeps, as a `param_space` for `ray.tune.Tuner`.

    Where the condition `when` of a field is not met, the trainable leaves its value out.

    Args:
        study: As for `trainable`.

    Raises:
        InputError: There is no such study.
    """
    from ofbnas.study import own_tune

    return own_tune.space(as_study(study))
