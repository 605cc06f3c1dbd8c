"""The columns of the architecture table and of the history: name, type, unit, meaning."""

from __future__ import annotations

import pyarrow as pa

VERSION = 1
SWEPT = "hp."  # prefix of the columns that hold swept hyper-parameters


def _column(name: str, kind: pa.DataType, meaning: str, unit: str = "", *, required: bool = False) -> pa.Field:
    """A column that carries its meaning and unit, in the file too."""
    return pa.field(name, kind, nullable=not required, metadata={"meaning": meaning, "unit": unit})


_TEXT, _WHOLE, _LONG, _REAL = pa.string(), pa.int32(), pa.int64(), pa.float64()
_BLOCK = pa.struct([("heads", _WHOLE), ("head_size", _WHOLE), ("mlp", _WHOLE)])
_AXIS = pa.struct([("axis", _TEXT), ("groups", _WHOLE), ("channels", _WHOLE), ("options", _WHOLE), ("expected", _REAL)])

SCHEMA = pa.schema(
    [
        _column(
            "arch_id", _TEXT, "Hash of the parent and all sizes: the same architecture has the same id everywhere."
        ),
        _column("study", _TEXT, "Name of the study.", required=True),
        _column("trial", _LONG, "Number of the trial in its study.", required=True),
        _column("status", _TEXT, "complete, failed, or pruned: stopped early.", required=True),
        _column("reason", _TEXT, "Why the trial failed or was stopped."),
        _column("model", _TEXT, "timm's name of the parent.", required=True),
        _column("model_kwargs", _TEXT, "JSON: arguments of timm.create_model for the parent.", required=True),
        _column("num_classes", _WHOLE, "Classes of the data set."),
        _column("image_size", _WHOLE, "Height of the images.", "pixels"),
        _column(
            "architecture",
            pa.struct([("embed", pa.list_(_WHOLE)), ("blocks", pa.list_(_BLOCK))]),
            "Sizes: the embedding, of each stage where there are several, and heads, head size and hidden units of "
            "each block; null where a block has none of its own.",
        ),
        _column("gmacs", _REAL, "Multiply-accumulates for one image.", "10^9"),
        _column("params", _LONG, "Parameters."),
        _column("parent_gmacs", _REAL, "The same of the parent.", "10^9"),
        _column("parent_params", _LONG, "The same of the parent."),
        _column("budget", _TEXT, "JSON: the budget that was asked for."),
        _column("budget_note", _TEXT, "Why the cost is further below the budget than its tolerance."),
        _column("forced", _WHOLE, "Axes that were still open when all had to be decided."),
        _column("top1", _REAL, "Accuracy on the test images, of the finished network.", "%"),
        _column("top5", _REAL, "Share of test images whose class is among the five most probable.", "%"),
        _column(
            "val_top1",
            _REAL,
            "Accuracy on the validation images, by which studies decide; of a pruned trial, its supernet's when it was "
            "stopped.",
            "%",
        ),
        _column("top1_before_finetune", _REAL, "Accuracy on the test images before fine-tuning.", "%"),
        _column("parent_top1", _REAL, "The parent's accuracy on the test images.", "%"),
        _column("latency_ms", _REAL, "Median time of one batch, of the finished network.", "ms"),
        _column("latency_p90_ms", _REAL, "Nine of ten batches took at most this.", "ms"),
        _column("parent_latency_ms", _REAL, "The parent's median, measured in turns with it.", "ms"),
        _column("latency_device", _TEXT, "Device, batch size and precision of the latency; threads on a CPU."),
        _column("search_epochs", _WHOLE, "Epochs of the search that were done."),
        _column("finetune_epochs", _WHOLE, "Epochs of fine-tuning."),
        _column("seconds", _REAL, "Time of the trial; of processes that were lost, up to their last epoch.", "s"),
        _column("gpu_hours", _REAL, "GPUs the trial held times its hours; 0 on a CPU.", "h"),
        _column("device", _TEXT, "Device the trial ran on."),
        _column("seed", _LONG, "Seed of the trial."),
        _column("dataset", _TEXT, "Name of the data set."),
        _column("versions", _TEXT, "JSON: versions of ofbnas, Python, torch, timm and others."),
        _column("git_commit", _TEXT, "Commit of the checkout that ran the trial."),
        _column("weights", _TEXT, "Path of the weights, relative to the study's folder."),
        _column("weights_sha256", _TEXT, "SHA-256 of the weights' file, in hexadecimal."),
        _column("finished_at", pa.timestamp("us", tz="UTC"), "When the trial ended."),
    ]
)

HISTORY_SCHEMA = pa.schema(
    [
        _column("study", _TEXT, "Name of the study.", required=True),
        _column("trial", _LONG, "Number of the trial.", required=True),
        _column("epoch", _WHOLE, "Epoch of the search, from 1.", required=True),
        _column("step", _LONG, "Optimizer steps done.", required=True),
        _column("task", _REAL, "Loss of the task with the teacher's share, mean since the last row."),
        _column("reconstruction", _REAL, "Loss of masked image modelling, mean since the last row."),
        _column("one_hot", _REAL, "Adaptive one-hot loss, mean since the last row."),
        _column("importance_norm", _REAL, "Weighted importance norm, mean since the last row."),
        _column("expected_cost", _REAL, "Expected cost as a share of the parent's, mean since the last row."),
        _column("importance_weight", _REAL, "Lambda: the weight of importance in the bi-mask."),
        _column("mask_ratio", _REAL, "Share of patches that are hidden."),
        _column("multiplier", _REAL, "The budget's Lagrange multiplier."),
        _column("axes", pa.list_(_AXIS), "Each axis' present size, options left, and expected width."),
    ]
)


def meaning(name: str) -> tuple[str, str]:
    """What a column of the architecture table means, and its unit."""
    metadata = SCHEMA.field(name).metadata
    return metadata[b"meaning"].decode(), metadata[b"unit"].decode()
