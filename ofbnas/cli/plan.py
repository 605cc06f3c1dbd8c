"""How the plan of a study is printed."""

from __future__ import annotations

from typing import Any

from ofbnas.cli.output import print_table, say
from ofbnas.cli.space import print_space
from ofbnas.table.units import short, with_unit

BOUND_BY_LAUNCHES = 0.8  # of the time at the largest sizes, at the least


def print_plan(result: dict[str, Any]) -> None:
    """Print what `ofbnas.study.plan.plan` returned."""
    print_space(result)
    images = f"{result['train_images']:,}"
    if not result["train_images_counted"]:
        images += ", as data.train_images says"

    gigabytes = result["memory_per_process_gb"]
    memory = f"{gigabytes:,.1f} GB"
    if gigabytes < 1:
        memory = f"{1000 * gigabytes:,.0f} MB"

    values = {
        "training images": images,
        "trials": str(result["trials"]),
        "steps of a search": f"{result['search_steps']:,}",
        "steps of fine-tuning": f"{result['finetune_steps']:,}",
        "steps of the study": f"{result['study_steps']:,}",
        "memory of a search": f"about {memory}, with the whole batch on one GPU",
    }
    if result["rungs"]:
        values["trials may be stopped after epoch"] = ", ".join(map(str, result["rungs"]))
    for budget in result["budgets"]:
        metric, lowest = budget["metric"], budget["reached_from"]
        limit = _amount(metric, budget["limit"])
        values[f"budget, {metric}"] = f"{limit}, kept within {_amount(metric, lowest)}"
        if metric == "latency":
            values["time of a block"] = _block_time(budget["narrow_block"])
    rows = [{"": name, "planned": value} for name, value in values.items()]
    print_table(["", "planned"], rows)
    if "measured" in result:
        say("Without training; the last row is the parent:")
        print_table(list(result["measured"][0]), result["measured"])


def _amount(metric: str, amount: float) -> str:
    """An amount of a budget's metric, as a budget counts it, with its unit.

    >>> _amount("macs", 230_000_000), _amount("params", 1_000_000), _amount("latency", 1_250_000)
    ('230 MMACs', '1 M', '1.25 ms')
    """
    if metric == "latency":
        return f"{short(amount / 1e6)} ms"
    if metric == "params":
        return with_unit("params", amount)
    return with_unit("gmacs", amount / 1e9)


def _block_time(share: float) -> str:
    """What narrower blocks save.

    Args:
        share: Time of a block of the least sizes, as a share of that of the largest.

    >>> _block_time(0.4)
    'at the least sizes 40 % of that at the largest'
    >>> _block_time(0.9)
    'at the least sizes 90 % of that at the largest: launches bound the time, and only depth helps'
    """
    text = f"at the least sizes {100 * share:.0f} % of that at the largest"
    if share > BOUND_BY_LAUNCHES:
        return f"{text}: launches bound the time, and only depth helps"
    return text
