"""ofbnas space: what can be searched in a model."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ofbnas.cli.output import Json, counted, print_json, print_table, say
from ofbnas.table.units import with_unit

if TYPE_CHECKING:
    from torch import nn

    from ofbnas.models.axes import Axis

KEYS = ("kind", "size", "options")
MOST_LISTED = 8  # sizes of an axis that are printed one by one
app = typer.Typer(name="space", no_args_is_help=True, help="Show what can be searched in a model.")


@app.command()
def show(
    model: Annotated[
        str,
        typer.Argument(help="timm's name of a model, or a study.", metavar="MODEL|STUDY.yaml|NAME"),
    ],
    space: Annotated[
        Path | None, typer.Option(help="The search space, a YAML file.", metavar="SPACE.yaml")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show a model's axes, their options, and the costs that they reach.

    Example: ofbnas space show deit_small_patch16_224
    """
    from ofbnas.study.plan import describe_space

    module, axes = _model_and_axes(model, space)
    description = describe_space(module, axes, model)
    if as_json:
        print_json(description)
    else:
        print_space(description)


@app.command("list")
def list_models(
    pattern: Annotated[
        str, typer.Argument(help="Only models that match, such as 'deit*'.", metavar="PATTERN")
    ] = "*",
    all_models: Annotated[
        bool,
        typer.Option("--all", help="Also list those that cannot be searched, with the reason."),
    ] = False,
    as_json: Json = False,
) -> None:
    """List timm's models that can be searched.

    Each is listed with its own cost and the lowest that a search can reach. Nothing is downloaded
    or trained. All of timm takes some minutes.

    Example: ofbnas space list 'deit*'
    """
    from rich.console import Console
    from rich.progress import track
    from timm import __version__ as version

    from ofbnas.models.registry import look_up, names

    matching = names(pattern)
    # The bar goes to standard error, since standard output is for the result.
    models = track(
        look_up(matching),
        "looking at models",
        len(matching),
        console=Console(stderr=True),
        transient=True,
    )
    if as_json:
        print_json([model.to_json() for model in models])
        return

    columns = ["model", "family", "axes", "gmacs", "least_gmacs"]
    if all_models:
        columns.append("reason")
    rows = []
    searchable = 0
    for model in models:
        searchable += model.searchable
        if model.searchable or all_models:
            counts = [f"{count} {kind}" for kind, count in model.axes.items()]
            row = model.to_json()
            row["axes"] = ", ".join(counts)
            rows.append(row)
    print_table(columns, rows)
    say(f"{searchable} of {counted(len(matching), 'model')} of timm {version} can be searched")


def print_space(description: dict[str, Any]) -> None:
    """Print what `describe_space` returned."""
    # Most blocks are alike, so axes with the same options share a row.
    alike: dict[tuple[str, str, str], list[str]] = {}
    for axis in description["axes"]:
        size = _size(axis["size"])
        options = _options(axis["options"])
        key = (axis["kind"], size, options)
        alike.setdefault(key, []).append(axis["axis"])

    rows = []
    for key, names in alike.items():
        label = names[0]
        if len(names) > 1:
            label += f" and {len(names) - 1} more"
        row = dict(zip(KEYS, key, strict=True))
        rows.append({"axes": label, **row})
    print_table(["axes", *KEYS], rows)

    gmacs = description["gmacs"]
    params = description["params"]
    exponent = description["log10_architectures"]
    costs = [
        f"{with_unit('gmacs', gmacs['min'])} to {with_unit('gmacs', gmacs['full'])}",
        f"{with_unit('params', params['min'])} to {with_unit('params', params['full'])} parameters",
    ]
    count = f"about 10^{exponent:.0f} architectures"
    say(f"{description['model']}: {count}; {', '.join(costs)}")


def _model_and_axes(model: str, space: Path | None) -> tuple[nn.Module, list[Axis]]:
    """A model on the meta device and its axes, by timm's name or from a study."""
    from ofbnas.config.study_file import load_space, load_study, names_study
    from ofbnas.models.axes import axes
    from ofbnas.models.create import on_meta
    from ofbnas.study.parent import meta_parent, space_of

    if names_study(model):
        config = load_study(Path(model))
        if space is not None:
            config = config.model_copy(update={"search_space": load_space(space)})
        parent = meta_parent(config)
        return parent.model, parent.axes

    module = on_meta(model, {}).model
    if space is None:
        return module, axes(module)
    return module, axes(module, space_of(load_space(space)))


def _size(size: list[int]) -> str:
    """The size of an axis: groups x channels, or only channels where there is one group."""
    groups, channels = size
    if groups == 1:
        return str(channels)
    return f"{groups} x {channels}"


def _options(options: dict[str, list[int]]) -> str:
    """The options of an axis, written like its size."""
    channels = _listed(options["channels"])
    groups = options["groups"]
    if groups == [1]:
        return channels
    return f"{_listed(groups)} x {channels}"


def _listed(sizes: list[int]) -> str:
    """Sizes one by one, or as a range if they are many and evenly spaced."""
    steps = {after - before for before, after in pairwise(sizes)}
    if len(sizes) > MOST_LISTED and len(steps) == 1:
        return f"{sizes[0]} to {sizes[-1]} by {steps.pop()}"
    return ", ".join(map(str, sizes))
