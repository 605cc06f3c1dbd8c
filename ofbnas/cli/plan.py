"""How the plan of a study is printed."""

from __future__ import annotations

from typing import Any

from ofbnas.cli.output import print_table, say
from ofbnas.cli.space import print_space


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
        limit = budget["limit"]
        lowest = budget["reached_from"]
        values[f"budget, {budget['metric']}"] = f"{limit:,}, kept within {lowest:,}"
    rows = [{"": name, "planned": value} for name, value in values.items()]
    print_table(["", "planned"], rows)
    if "measured" in result:
        say("Without training; the last row is the parent:")
        print_table(["gmacs", "params", "val_top1", "seconds"], result["measured"])
