"""The parents of a table: a table of several studies may have several."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


def parents(table: pd.DataFrame, *columns: str) -> dict[str, list[tuple[float, ...]]]:
    """What a table has about its parents: model to the values of columns, each combination once.

    A model may have several, such as accuracies of trainings with different seeds. Parents that lack
    a value are left out.

    Args:
        table: As `read_table` returns it.
        columns: Costs and qualities, such as "gmacs" and "top1".
    """
    names = [f"parent_{column}" for column in columns]
    if not {"model", *names} <= set(table.columns):
        return {}
    known = table.dropna(subset=["model", *names])[["model", *names]].drop_duplicates()
    result: dict[str, list[tuple[float, ...]]] = {}
    for model, *values in known.itertuples(index=False, name=None):
        result.setdefault(str(model), []).append(tuple(map(float, values)))
    return result


def parents_sentence(table: pd.DataFrame, column: str) -> str:
    """The parents with a value of each, in a sentence; empty where none is known."""
    known = parents(table, column)
    texts = {model: _range([value for (value,) in values]) for model, values in known.items()}
    if len(texts) < 2:
        return "".join(f"The parent has {column} {text}." for text in texts.values())
    named = ", ".join(f"{model} {text}" for model, text in texts.items())
    return f"The parents have {column}: {named}."


def _range(values: list[float]) -> str:
    """Values as text: one, or from the least to the largest."""
    texts = dict.fromkeys(f"{value:.2f}" for value in (min(values), max(values)))
    return " to ".join(texts)
