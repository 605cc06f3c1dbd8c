"""ofbnas space: what can be searched in a model."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ofbnas.cli.output import Json, print_json, print_table

if TYPE_CHECKING:
    from torch import nn

    from ofbnas.axes import Axis

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
    found = _describe(*_axes(model, space), model)
    if as_json:
        print_json(found)
        return
    rows = [{**axis, "size": _size(axis["size"]), "options": _options(axis["options"])} for axis in found["axes"]]
    print_table(["axis", "kind", "size", "options"], rows)
    typer.echo(
        f"{found['model']}: about 10^{found['log10_architectures']:.0f} architectures; GMACs "
        f"{found['gmacs']['min']:.4g} to {found['gmacs']['full']:.4g}, parameters {found['params']['min']:,} to "
        f"{found['params']['full']:,}"
    )


def _axes(model: str, space: Path | None) -> tuple[nn.Module, list[Axis]]:
    from ofbnas.axes import axes
    from ofbnas.parent import space_of, untrained_parent
    from ofbnas.study_file import load_space, load_study
    from ofbnas.subnet import create_parent

    if model.endswith((".yaml", ".yml")):
        config = load_study(Path(model))
        if space is not None:
            config = config.model_copy(update={"search_space": load_space(space)})
        parent = untrained_parent(config)
        return parent.model, parent.axes
    made = create_parent(model, {})
    return made, axes(made, space_of(load_space(space)) if space is not None else None)


def _describe(model: nn.Module, axes: list[Axis], name: str) -> dict[str, Any]:
    from ofbnas.cost import cost_of, least_sizes, sizes_of

    macs, params = cost_of(model, axes, "macs"), cost_of(model, axes, "params")
    full, least = sizes_of(axes), least_sizes(axes)
    return {
        "model": name,
        "gmacs": {"full": macs.of(full) / 1e9, "min": macs.of(least) / 1e9},
        "params": {"full": params.of(full), "min": params.of(least)},
        "log10_architectures": sum(math.log10(len(a.options[0]) * len(a.options[1])) for a in axes),
        "axes": [
            {
                "axis": axis.name,
                "kind": axis.kind,
                "size": list(axis.size),
                "options": {"groups": list(axis.options[0]), "channels": list(axis.options[1])},
            }
            for axis in axes
        ],
    }


def _size(size: list[int]) -> str:
    return f"{size[0]} x {size[1]}" if size[0] > 1 else str(size[1])


def _options(options: dict[str, list[int]]) -> str:
    channels = ", ".join(map(str, options["channels"]))
    return channels if options["groups"] == [1] else f"{', '.join(map(str, options['groups']))} x {channels}"
