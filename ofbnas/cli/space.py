"""ofbnas space: what can be searched in a model."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ofbnas.cli.output import Json, print_json, print_table

if TYPE_CHECKING:
    from torch import nn

    from ofbnas.axes import Axis

KEYS = ("kind", "size", "options")
app = typer.Typer(name="space", no_args_is_help=True, help="Show what can be searched in a model.")


@app.command()
def show(
    model: Annotated[str, typer.Argument(help="timm's name of a model, or a study.", metavar="MODEL|STUDY.yaml")],
    space: Annotated[Path | None, typer.Option(help="A search space, a YAML file.", metavar="SPACE.yaml")] = None,
    as_json: Json = False,
) -> None:
    """Show a model's axes, their options, and the costs they reach.

    Example: ofbnas space show deit_small_patch16_224 --space search_spaces/vit.yaml
    """
    from ofbnas.plan import describe_space

    found = describe_space(*_axes(model, space), model)
    if as_json:
        print_json(found)
    else:
        print_space(found)


@app.command("list")
def list_models(
    pattern: Annotated[str, typer.Argument(help="Only these, such as 'deit*'.")] = "*",
    all_models: Annotated[
        bool, typer.Option("--all", help="Those that cannot be searched too, with the reason.")
    ] = False,
    as_json: Json = False,
) -> None:
    """List the models of timm that can be searched, with what they cost at most and at least.

    Nothing is downloaded or computed. All of timm takes some minutes.

    Example: ofbnas space list 'deit*'
    """
    from rich.console import Console
    from rich.progress import track
    from timm import __version__ as version

    from ofbnas.registry import look_up, names

    wanted = names(pattern)
    looked_up = track(look_up(wanted), "looking at models", len(wanted), console=Console(stderr=True), transient=True)
    found = [model for model in looked_up if all_models or as_json or model.searchable]
    if as_json:
        print_json([model.to_json() for model in found])
        return
    print_table(
        ["model", "family", "axes", "gmacs", "least_gmacs", *(["reason"] if all_models else [])],
        [model.to_json() | {"axes": ", ".join(f"{n} {key}" for key, n in model.axes.items())} for model in found],
    )
    searchable = sum(model.searchable for model in found)
    typer.echo(f"{searchable} of {len(wanted)} models of timm {version} can be searched")


def print_space(found: dict[str, Any]) -> None:
    """Print what `describe_space` found; axes with the same options share a row."""
    alike: dict[tuple[str, str, str], list[str]] = {}
    for axis in found["axes"]:
        alike.setdefault((axis["kind"], _size(axis["size"]), _options(axis["options"])), []).append(axis["axis"])
    rows = []
    for key, names in alike.items():
        first = f"{names[0]} and {len(names) - 1} more" if names[1:] else names[0]
        rows.append({"axes": first, **dict(zip(KEYS, key, strict=True))})
    print_table(["axes", *KEYS], rows)
    typer.echo(
        f"{found['model']}: about 10^{found['log10_architectures']:.0f} architectures; GMACs "
        f"{found['gmacs']['min']:.4g} to {found['gmacs']['full']:.4g}, parameters {found['params']['min']:,} to "
        f"{found['params']['full']:,}"
    )


def _axes(model: str, space: Path | None) -> tuple[nn.Module, list[Axis]]:
    from ofbnas.axes import axes
    from ofbnas.create import create_parent
    from ofbnas.parent import space_of, untrained_parent
    from ofbnas.study_file import load_space, load_study

    if model.endswith((".yaml", ".yml")):
        config = load_study(Path(model))
        if space is not None:
            config = config.model_copy(update={"search_space": load_space(space)})
        parent = untrained_parent(config)
        return parent.model, parent.axes
    made = create_parent(model, {})
    return made, axes(made, space_of(load_space(space)) if space is not None else None)


def _size(size: list[int]) -> str:
    return f"{size[0]} x {size[1]}" if size[0] > 1 else str(size[1])


def _options(options: dict[str, list[int]]) -> str:
    channels = _listed(options["channels"])
    return channels if options["groups"] == [1] else f"{_listed(options['groups'])} x {channels}"


def _listed(sizes: list[int]) -> str:
    """Sizes one by one, or as a range where they are many and evenly spaced."""
    steps = {after - before for before, after in pairwise(sizes)}
    if len(sizes) > 8 and len(steps) == 1:
        return f"{sizes[0]} to {sizes[-1]} by {steps.pop()}"
    return ", ".join(map(str, sizes))
