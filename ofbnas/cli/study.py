"""ofbnas study: plan, run, list, show and report studies."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ofbnas.cli import new_study, report
from ofbnas.cli.output import (
    Address,
    Json,
    Settings,
    Study,
    counted,
    on_cluster,
    print_json,
    print_table,
    say,
    say_at_once,
)
from ofbnas.cli.process import collect_as_usual
from ofbnas.table.columns import COSTS, QUALITIES, SWEPT

if TYPE_CHECKING:
    from ofbnas.study.run import Outcome

app = typer.Typer(
    name="study", no_args_is_help=True, help="Write, plan, run, list, show and report studies."
)
app.command("new")(new_study.new)
app.command("report")(report.report)
# The first are shown even where a terminal is narrow.
COLUMNS = ["trial", "status", "arch_id", "gmacs", "params", "val_top1", "top1", "reason"]
OVERVIEW = ["study", "folder", "trials", "wanted", "failed", "pruned", "best_top1", "model"]


@app.command()
def run(
    study: Study,
    settings: Settings = None,
    output: Annotated[
        Path | None, typer.Option(help="The study's folder; by default runs/NAME.")
    ] = None,
    address: Address = None,
    as_json: Json = False,
) -> None:
    """Run a study, or resume it.

    The same command resumes a study that was stopped.

    Example: ofbnas study run studies/digits.yaml --set sweep.n_trials=16
    """
    say_at_once(f"study {study}: starting")
    from ofbnas.config.study_file import load_study

    config = load_study(study, settings or ())
    folder = output or Path("runs") / config.name
    on_cluster(address)
    try:
        # Ray reads its settings at import, so this comes after on_cluster.
        from ofbnas.study.cluster.early_start import early_start

        with early_start(config, folder, address):
            from ofbnas.cli.progress import view_of
            from ofbnas.study.run import run_study

            collect_as_usual()
            with view_of(config, folder, plain=as_json) as view:
                outcome = run_study(config, folder, view, address)
    except KeyboardInterrupt:
        # Before Tune has started. Afterwards, Tune handles Ctrl-C itself, and run_study returns.
        say("stopped; the same command resumes the study or the training of its parent", err=True)
        raise typer.Exit(130) from None
    _print_outcome(config.name, folder, outcome, as_json)


def _print_outcome(name: str, folder: Path, outcome: Outcome, as_json: bool) -> None:
    """Print the front and how a run ended.

    Exits with 130 if trials are missing, and with 1 if no trial was completed.
    """
    from ofbnas.cli.front import print_front, summary
    from ofbnas.table.store import read_table

    # What happened goes to standard error: standard output is for the front.
    if outcome.before == outcome.wanted:
        say(f"study {name} is finished: {counted(outcome.done, 'trial')} in {folder}", err=True)
    if as_json:
        header = {"study": name, "folder": str(folder), "trials": outcome.done}
        print_json(header | summary(read_table(folder)))
    elif outcome.done:
        print_front(summary(read_table(folder)), str(folder))

    if outcome.pruned:
        say(f"{outcome.pruned} of {counted(outcome.done, 'trial')} stopped early.", err=True)
    if outcome.done < outcome.wanted:
        say(
            f"stopped after {outcome.done} of {counted(outcome.wanted, 'trial')}; the same command resumes",
            err=True,
        )
        raise typer.Exit(130)
    if outcome.failed + outcome.pruned == outcome.done:
        problem = "no trial was completed" if outcome.pruned else "every trial failed"
        say(f"{problem}; `ofbnas study show {folder}` has the reasons", err=True)
        raise typer.Exit(1)


@app.command()
def plan(
    study: Study,
    settings: Settings = None,
    connect: Annotated[
        bool,
        typer.Option(
            "--connect",
            help="Also count images that may have to be downloaded, or that a function makes.",
        ),
    ] = False,
    measure: Annotated[
        bool,
        typer.Option(
            "--measure",
            help="Also compress the parent to budgets of the study, without training, and measure "
            "that: takes minutes, and loads weights and images as a run does.",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Show what a study would search and cost, without running it.

    With --measure, also the front that it would begin from.

    Example: ofbnas study plan studies/deit_s.yaml
    """
    say_at_once(f"planning {study}")
    from ofbnas.cli.plan import print_plan
    from ofbnas.config.study_file import load_study
    from ofbnas.study.plan import measure as measured_front
    from ofbnas.study.plan import plan as plan_of
    from ofbnas.study.tuning.samplers import sampler_of

    config = load_study(study, settings or ())
    sampler_of(config.sweep, config.seed)  # refuses options that the sampler does not have
    result = plan_of(config, connect=connect or measure)
    if measure:
        from ofbnas.cli.single import started

        with started(config) as start:
            result["measured"] = measured_front(config, *start)
    if as_json:
        print_json(result)
    else:
        print_plan(result)


@app.command()
def schema() -> None:
    """Print the JSON Schema of study files, by which an editor completes and checks them.

    Example: ofbnas study schema > study.schema.json
    """
    from ofbnas.config.json_schema import study_schema

    print_json(study_schema())


@app.command("list")
def list_studies(
    folder: Annotated[
        Path, typer.Argument(help="A folder of studies, or one study's folder.", metavar="DIR")
    ] = Path("runs"),
    as_json: Json = False,
) -> None:
    """List the studies in a folder.

    A study that cannot be read is listed with the reason.

    Example: ofbnas study list runs
    """
    from ofbnas.errors import InputError, one_line

    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; expected one that holds studies, such as runs")

    studies: list[dict[str, Any]] = []
    for path in _study_folders(folder):
        try:
            studies.append(_overview(path) | {"problem": None})
        except (InputError, OSError) as error:
            # One damaged study must not hide the others.
            problem = one_line(error)
            unknown = dict.fromkeys(OVERVIEW)
            studies.append(unknown | {"folder": str(path), "problem": problem})
            say(f"cannot be read: {problem}", err=True)
    if as_json:
        print_json(studies)
    else:
        print_table(OVERVIEW, studies)


@app.command()
def show(
    folder: Annotated[Path, typer.Argument(help="The study's folder.", metavar="DIR")],
    as_json: Json = False,
) -> None:
    """Show a study's trials, and its settings that are not the defaults.

    Example: ofbnas study show runs/digits
    """
    from ofbnas.config.study_file import dump_changed
    from ofbnas.study.report import study_of
    from ofbnas.table.query import to_records
    from ofbnas.table.store import read_table

    config = study_of(folder)
    trials = to_records(read_table(folder))
    if as_json:
        settings = config.model_dump(mode="json")
        print_json({**_overview(folder), "config": settings, "rows": trials})
        return
    say(dump_changed(config))

    # Columns without any value are left out: a cost that was not measured is 0 or missing.
    has_value = {"trial"}
    swept: set[str] = set()
    for row in trials:
        for name, value in row.items():
            if value not in (None, 0.0):
                has_value.add(name)
            if name.startswith(SWEPT):
                swept.add(name)
    further = [*sorted(swept), *COSTS, *QUALITIES, "parent_top1"]
    columns = dict.fromkeys([*COLUMNS, *further])
    print_table([name for name in columns if name in has_value | swept], trials)

    counts = Counter(row["status"] for row in trials)
    endings = [f"{count} {status}" for status, count in counts.most_common()]
    say(", ".join(endings) or "no trial has ended")


def _study_folders(folder: Path) -> list[Path]:
    """The folder itself if it is a study's, otherwise the folders of the studies in it."""
    if _may_be_study(folder):
        return [folder]
    return sorted(filter(_may_be_study, folder.iterdir()))


def _may_be_study(folder: Path) -> bool:
    """Whether a folder has a study.yaml, even a damaged one, a pipe or a broken link.

    Such a folder is listed with its problem rather than ignored.
    """
    return os.path.lexists(folder / "study.yaml")


def _overview(folder: Path) -> dict[str, Any]:
    """A study's row in the list.

    Raises:
        InputError: The study or its table cannot be read.
    """
    from ofbnas.study.report import study_of
    from ofbnas.table.store import read_arrow

    config = study_of(folder)
    table = read_arrow(folder)  # without pandas, whose import would take half of the time
    statuses = Counter(table["status"].to_pylist())
    accuracies = table["top1"].drop_null().to_pylist()
    return {
        "study": config.name,
        "folder": str(folder),
        "model": config.model.name,
        "trials": len(table),
        "wanted": config.sweep.n_trials,
        "failed": statuses["failed"],
        "pruned": statuses["pruned"],
        "best_top1": max(accuracies, default=None),
    }
