"""ofbnas study: run, list and show studies."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

from ofbnas.cli.output import Address, Json, Settings, on_cluster, print_json, print_table

app = typer.Typer(name="study", no_args_is_help=True, help="Run studies, list and show them.")
COLUMNS = [
    "trial",
    "status",
    "arch_id",
    "gmacs",
    "params",
    "latency_ms",
    "top1",
    "val_top1",
    "parent_top1",
    "seconds",
    "reason",
]


@app.command()
def run(
    study: Annotated[Path, typer.Argument(help="The study, a YAML file.", metavar="STUDY.yaml")],
    settings: Settings = None,
    output: Annotated[Path | None, typer.Option(help="The study's folder; by default runs/NAME.")] = None,
    address: Address = None,
    as_json: Json = False,
) -> None:
    """Run a study, or go on with it where it stopped.

    Example: ofbnas study run studies/digits.yaml --set sweep.n_trials=16
    """
    from ofbnas.cli.progress import view_of
    from ofbnas.study_file import load_study

    config = load_study(study, settings or ())
    folder = output or Path("runs") / config.name
    view = view_of(config, folder, plain=as_json)
    on_cluster(address)
    from ofbnas.sweep.study import run_study

    with view:
        outcome = run_study(config, folder, view, address)
    if outcome.before == outcome.wanted:
        typer.echo(f"study {config.name} is finished: {outcome.done} trials are in {folder}", err=True)
    if as_json:
        from ofbnas.cli.front import summary
        from ofbnas.table import read_table

        print_json({"study": config.name, "folder": str(folder), "trials": outcome.done, **summary(read_table(folder))})
    elif outcome.done:
        from ofbnas.cli.front import print_front, summary
        from ofbnas.table import read_table

        print_front(summary(read_table(folder)), str(folder))
    if outcome.pruned:
        typer.echo(f"{outcome.pruned} of {outcome.done} trials were stopped early.", err=True)
    if outcome.done < outcome.wanted:
        typer.echo(
            f"stopped after {outcome.done} of {outcome.wanted} trials; the same command goes on from there",
            err=True,
        )
        raise typer.Exit(130)
    if outcome.failed + outcome.pruned == outcome.done:
        told = "no trial was completed" if outcome.pruned else "every trial failed"
        typer.echo(f"{told}; `ofbnas study show {folder}` has the reasons", err=True)
        raise typer.Exit(1)


@app.command()
def plan(
    study: Annotated[Path, typer.Argument(help="The study, a YAML file.", metavar="STUDY.yaml")],
    settings: Settings = None,
    as_json: Json = False,
) -> None:
    """Say what a study would search and spend, before anything is spent.

    Example: ofbnas study plan studies/deit_s.yaml
    """
    from ofbnas.cli.space import print_space
    from ofbnas.plan import plan as plan_of
    from ofbnas.study_file import load_study

    found = plan_of(load_study(study, settings or ()))
    if as_json:
        print_json(found)
        return
    print_space(found)
    images = f"{found['train_images']:,}{'' if found['train_images_counted'] else ', as data.train_images promises'}"
    gb = found["memory_per_process_gb"]
    memory = f"{gb:,.1f} GB" if gb >= 1 else f"{1000 * gb:,.0f} MB"
    rows = [
        ("training images", images),
        ("trials", str(found["trials"])),
        ("steps of a search", f"{found['search_steps']:,}"),
        ("steps of fine-tuning", f"{found['finetune_steps']:,}"),
        ("steps of the study", f"{found['study_steps']:,}"),
        ("memory of a search", f"about {memory}, with all of a batch on one GPU"),
    ]
    if found["rungs"]:
        rows.append(("trials may be stopped after epoch", ", ".join(map(str, found["rungs"]))))
    for budget in found["budgets"]:
        rows.append((f"budget, {budget['metric']}", f"{budget['limit']:,}, kept within {budget['reached_from']:,}"))
    print_table(["", "planned"], [{"": name, "planned": value} for name, value in rows])


@app.command("list")
def list_studies(
    folder: Annotated[Path, typer.Argument(help="Where studies lie.")] = Path("runs"), as_json: Json = False
) -> None:
    """List the studies in a folder.

    Example: ofbnas study list runs
    """
    from ofbnas.errors import InputError
    from ofbnas.table import is_study

    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; expected one that holds studies, such as runs")
    places = [folder] if is_study(folder) else sorted(place for place in folder.iterdir() if is_study(place))
    found = [_overview(place) for place in places]
    if as_json:
        print_json(found)
    else:
        print_table(["study", "folder", "model", "trials", "wanted", "failed", "pruned", "best_top1"], found)


@app.command()
def show(
    folder: Annotated[Path, typer.Argument(help="The study's folder.", metavar="DIR")], as_json: Json = False
) -> None:
    """Show a study's settings and trials.

    Example: ofbnas study show runs/digits
    """
    from ofbnas.errors import InputError
    from ofbnas.study_file import dump_study, load_study
    from ofbnas.table import is_study, read_table, to_records

    if not is_study(folder):
        raise InputError(f"{folder}: is no study's folder; expected one with study.yaml, such as runs/digits")
    config, trials = load_study(folder / "study.yaml"), to_records(read_table(folder))
    if as_json:
        print_json({**_overview(folder), "config": config.model_dump(mode="json"), "rows": trials})
        return
    typer.echo(dump_study(config))
    swept = sorted({name for row in trials for name in row if name.startswith("hp.")})
    columns = [c for c in COLUMNS if any(row.get(c) is not None for row in trials)]
    print_table(columns + swept, trials)
    counts = Counter(row["status"] for row in trials)
    typer.echo(", ".join(f"{count} {ending}" for ending, count in counts.most_common()) or "no trial is over")


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="The study's folder.", metavar="DIR")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Page to write; by default DIR/report.html.")] = None,
    serve: Annotated[
        bool, typer.Option("--serve", help="Serve the page and keep it up to date, until Ctrl-C.")
    ] = False,
    port: Annotated[int | None, typer.Option(help="Port to serve on; by default a free one.")] = None,
) -> None:
    """Make one HTML page of a study, or serve it on this machine while the study runs.

    Example: ofbnas study report runs/digits --serve
    """
    from ofbnas.errors import InputError
    from ofbnas.ledger.journal import read_journal
    from ofbnas.report import Server, contents, stamp, study_of, write_page

    def found() -> dict[str, Any]:
        config = study_of(folder)
        return contents(folder, config, read_journal(config, folder))

    if serve and out is not None:
        raise InputError(f"--out {out}: a page that is served is not written; leave out --serve or --out")
    if not serve and port is not None:
        raise InputError(f"--port {port}: a page that is written has no port; add --serve or leave out --port")
    if not serve:
        out = out or folder / "report.html"
        write_page(found(), out)
        typer.echo(str(out))
        return
    with Server(found, lambda: stamp(folder), port or 0) as server:
        server.current()  # tells mistakes now
        typer.echo(server.url)
        typer.echo("press Ctrl-C to end", err=True)
        server.serve_forever()


def _overview(folder: Path) -> dict[str, Any]:
    from ofbnas.study_file import load_study
    from ofbnas.table import read_table

    config, table = load_study(folder / "study.yaml"), read_table(folder)
    best = table["top1"].max() if len(table) else None
    return {
        "study": config.name,
        "folder": str(folder),
        "model": config.model.name,
        "trials": len(table),
        "wanted": config.sweep.n_trials,
        **{ending: int((table["status"] == ending).sum()) for ending in ("failed", "pruned")},
        "best_top1": None if best is None or best != best else float(best),
    }
