"""All that ofbnas takes from Optuna, and from Ray's wrapper of it, beyond public interfaces.

`tests/study/test_optuna_private.py` pins each of these: if a new version changes one, that
test fails and only this file has to follow.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import optuna
from optuna.trial import FrozenTrial

# Optuna's journal has one JSON object a line. These are the key of what a record does, two values
# of it, and the key of the trial that it is about.
OPERATION = "op_code"
CREATE_STUDY = 0
CREATE_TRIAL = 4
TRIAL_ID = "trial_id"

# Prefix of the system attributes in which `set_constraint` keeps a trial's constraints.
_CONSTRAINTS = "constraints"


def study_of_search(search: Any) -> optuna.Study:
    """The study that Ray Tune's `OptunaSearch` draws from; Ray gives no other access to it."""
    study: optuna.Study = search._ot_study
    return study


def resumed_trial(study: optuna.Study, trial: FrozenTrial) -> optuna.Trial:
    """A running trial of an earlier process, to suggest values and set constraints again.

    `Study.ask` only makes new trials. Values that the trial already has are suggested unchanged.
    """
    return optuna.Trial(study, trial._trial_id)


def set_user_attribute(
    study: optuna.Study,
    trial: FrozenTrial,
    key: str,
    value: Any,
) -> None:
    """Set a user attribute of a running trial in the storage.

    `optuna.Trial.set_user_attr` does the same, but making a `Trial` calls the sampler's
    `before_trial` a second time.
    """
    study._storage.set_trial_user_attr(trial._trial_id, key, value)


def without_constraints(system_attributes: Mapping[str, Any]) -> dict[str, Any]:
    """A trial's system attributes without its constraints, which cannot be set twice."""
    kept = {}
    for key, value in system_attributes.items():
        if not key.startswith(_CONSTRAINTS):
            kept[key] = value
    return kept
