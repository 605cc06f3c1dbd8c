"""Two objectives of a model that is trained for 27 steps: its error, and what it costs."""

from __future__ import annotations

import optuna
import optunahub


module = optunahub.load_module("pruners/pareto_front_pruner")
pruner = module.ParetoFrontPruner(min_resource=3, reduction_factor=3, reference_point=[1.0, 1.0])


def objective(trial: optuna.Trial) -> tuple[float, float]:
    width = trial.suggest_float("width", 0.1, 1.0)
    rate = trial.suggest_float("rate", 0.01, 1.0, log=True)
    error = 1.0
    for step in range(1, 28):
        error = 0.1 / width + (1 - 0.1 / width) * (1 - 0.3 * rate) ** step
        if pruner.is_rung(step):
            pruner.report(trial, (error, width), step)
            if pruner.should_prune(trial):
                raise optuna.TrialPruned()
    return error, width


study = optuna.create_study(
    directions=["minimize", "minimize"],
    sampler=optuna.samplers.TPESampler(seed=0),
    pruner=pruner,
)
study.optimize(objective, n_trials=60)
pruned = sum(trial.state == optuna.trial.TrialState.PRUNED for trial in study.trials)
print(
    f"{pruned} of {len(study.trials)} trials were pruned; {len(study.best_trials)} are on the front"
)
