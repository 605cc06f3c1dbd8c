"""Measures the tables of `TimeCost` on networks of a parent's sizes, and times whole networks.

A part is not timed alone, where its weights would stay in the fastest cache, but in its network:
what a block's attention takes is the time of a network of which some attentions are left, less that
of one without blocks, over their number. The parent is timed in turns with all others, and times are
expressed in its own, so that it matters little how busy the machine is meanwhile.
"""

from __future__ import annotations

import copy
import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import torch
from torch import nn

from ofbnas import parallel
from ofbnas.config import TimedOnConfig
from ofbnas.errors import InputError
from ofbnas.files import durable
from ofbnas.models.axes import GONE, Axis
from ofbnas.models.axes.axis import Size
from ofbnas.models.time_cost import Floats, TimeCost, TimeTables, check_timeable
from ofbnas.nas.plain import Network
from ofbnas.table.latency import Conditions
from ofbnas.training.latency import cpu_threads, in_turns, prepared, processor, warm_up

LEVELS = 8  # of numbers of heads, of head sizes, and of hidden units in the tables
EMBED_LEVELS = 3  # widths of the embedding at which all of these are measured
WIDTHS = 24  # of the embedding in the tables
LEAST_SHARE = 1e-6  # of the parent's time, that a part takes
BLOCKS = 4  # that have the part that is measured
CALIBRATING = 8  # whole networks whose times correct the scale of predictions
MOST_BATCHES = 30  # of each network in tables, whose errors average out
DECIDING_BATCHES = 200  # of a network by whose time a choice is kept or made again
LEAST_BATCHES = 4
SECONDS = 6.0  # for a group of networks, as far as each is timed on the least number of batches
SCHEME = 1  # of the cached tables; a change here measures them anew
log = logging.getLogger("ofbnas")

Sizes = Mapping[str, Size]


def typical(times: Sequence[float]) -> float:
    """The fastest tenth: what else a machine does only adds to a time."""
    return float(np.percentile(times, 10))


class Timer:
    """Times networks of a parent's sizes on one device.

    Attributes:
        parent: The parent, on the device.
        conditions: What the times depend on besides.
    """

    def __init__(self, model: nn.Module, axes: Sequence[Axis], on: TimedOnConfig) -> None:
        """Prepare to time.

        Args:
            model: The parent, on any device but meta.
            axes: Its axes.
            on: Where and how.

        Raises:
            InputError: There is no such device, or the model has parts that tables lack.
        """
        check_timeable(model, axes)
        if on.device == "cuda" and not torch.cuda.is_available():
            raise InputError("search.budget.timed_on.device is cuda, but torch finds no GPU here")
        self.device = torch.device(on.device)
        copied = copy.deepcopy(model).to(self.device).eval()  # `to` would move the caller's own
        self.parent = Network.whole(copied, axes)
        self.conditions = Conditions(
            device=processor(self.device),
            threads=on.threads if on.device == "cpu" else None,
            batch_size=on.batch_size,
            dtype=on.precision,
        )

    def times(self, sizes: Sequence[Sizes], most: int = MOST_BATCHES) -> Floats:
        """Times of networks in units of the parent's, and last the parent's in nanoseconds.

        Args:
            sizes: Of each network, axis name to (groups, channels).
            most: Batches of each network, as far as there is time for them.
        """
        with cpu_threads(self.conditions.threads):
            networks = [prepared(self.parent.at(each).model, self.conditions) for each in sizes]
            networks.append(prepared(self.parent.model, self.conditions))
            for network in networks:
                warm_up(network, 1)
            of_a_round = sum(warm_up(network, 1)[0] for network in networks) / 1000
            num_batches = int(np.clip(SECONDS / of_a_round, LEAST_BATCHES, most))
            times = [typical(each) for each in in_turns(networks, num_batches)]
        *of_networks, of_parent = times
        return np.array([time / of_parent for time in of_networks] + [1e6 * of_parent])


def time_cost(model: nn.Module, axes: Sequence[Axis], on: TimedOnConfig, cache: Path) -> TimeCost:
    """The cost of a model in time, from tables that are measured once.

    All processes of a search get the same: the first of them measures.

    Args:
        model: The parent, on any device but meta.
        axes: Its axes, with the options of the search space.
        on: What times depend on besides.
        cache: Folder of the tables that were measured before.

    Raises:
        InputError: The model has parts that tables lack, or there is no such device.
    """
    timer = Timer(model, axes, on)
    content = None
    if parallel.shard().rank == 0:
        content = json.dumps(_cached(timer, cache)).encode()
    value = json.loads(parallel.from_first(content) or b"null")
    tables = TimeTables.from_json(value["tables"])

    def measure(sizes: Sizes) -> float:
        measured = None
        if parallel.shard().rank == 0:
            ratio, _ = timer.times([sizes], DECIDING_BATCHES)
            measured = json.dumps(tables.full * ratio).encode()
        return float(json.loads(parallel.from_first(measured) or b"null"))

    return TimeCost(axes, tables, value["scale"], measure)


def _cached(timer: Timer, cache: Path) -> dict[str, Any]:
    """The tables and their scale, from the cache or measured now."""
    file = cache / f"{_key(timer)}.json"
    durable.make_folder(cache)
    # Trials that begin together would disturb each other, so one measures and the others wait.
    with filelock.FileLock(f"{file}.lock"):
        if file.is_file():
            value: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
            return value
        log.info("measuring how long parts of the model take: %s", timer.conditions)
        tables = measured_tables(timer)
        value = {"tables": tables.to_json(), "scale": calibrated(timer, tables)}
        durable.write(file, json.dumps(value))
        return value


def _key(timer: Timer) -> str:
    """What names the file of tables: all that they depend on."""
    axes = [(axis.name, axis.size, axis.options) for axis in timer.parent.axes]
    parts = (SCHEME, repr(timer.parent.model), axes, timer.conditions, torch.__version__)
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def measured_tables(timer: Timer) -> TimeTables:
    """The times of the parts of a parent, measured.

    All sizes of a part are measured at a few widths of the embedding. Between these widths, the
    parent's own attention and MLP tell how a width departs from a straight line, as it does where
    it is no multiple of what the processor's instructions take at once.
    """
    parts = _Parts(timer)
    wide = parts.timed(
        _levels([parts.embed], 1, EMBED_LEVELS), parts.heads, parts.sizes, parts.hidden
    )
    if len(wide.embed) == len(parts.embed_widths):
        return wide
    groups, channels = parts.attentions[0].size
    units = parts.mlps[0].size[1]
    narrow = parts.timed(parts.embed_widths, [groups], [channels], [units])
    return filled(wide, narrow)


def filled(wide: TimeTables, narrow: TimeTables) -> TimeTables:
    """Tables of all sizes at all widths, from those of all sizes at some widths.

    Args:
        wide: Tables of all sizes, at some widths of the embedding.
        narrow: Tables of a single size of each part, at all widths.
    """
    widths = torch.as_tensor(narrow.embed, dtype=torch.float64)
    only = [torch.as_tensor(size, dtype=torch.float64) for size in (narrow.heads, narrow.head_size)]
    hidden = torch.as_tensor(narrow.hidden, dtype=torch.float64)
    straight = wide.of_attention(widths, *only).numpy()
    of_attention = (narrow.attention[:, 0, 0] / narrow.full) / (straight / wide.full)
    straight = wide.of_mlp(widths, hidden).numpy()
    of_mlp = (narrow.mlp[:, 0] / narrow.full) / (straight / wide.full)

    grid = np.meshgrid(narrow.embed, wide.heads, wide.head_size, indexing="ij")
    attention = wide.of_attention(*(torch.as_tensor(each) for each in grid)).numpy()
    grid_of_mlp = np.meshgrid(narrow.embed, wide.hidden, indexing="ij")
    mlp = wide.of_mlp(*(torch.as_tensor(each) for each in grid_of_mlp)).numpy()
    return replace(
        wide,
        embed=narrow.embed,
        rest=wide.full / narrow.full * narrow.rest,
        attention=of_attention[:, None, None] * attention,
        mlp=of_mlp[:, None] * mlp,
    )


class _Parts:
    """The parts of a parent, and their sizes in the tables.

    Attributes:
        embed: The axis of the embedding.
        attentions: Those of attentions.
        mlps: Those of MLPs.
        embed_widths: Widths of the embedding.
        heads: Numbers of heads.
        sizes: Head sizes.
        hidden: Numbers of hidden units.
    """

    def __init__(self, timer: Timer) -> None:
        axes = timer.parent.axes
        self.timer = timer
        self.embed = next(axis for axis in axes if axis.kind == "embed")
        self.attentions = [axis for axis in axes if axis.kind == "attn"]
        self.mlps = [axis for axis in axes if axis.kind == "mlp"]
        self.embed_widths = _levels([self.embed], 1, WIDTHS)
        self.heads = _levels(self.attentions, 0, LEVELS)
        self.sizes = _levels(self.attentions, 1, LEVELS)
        self.hidden = _levels(self.mlps, 1, LEVELS)

    def timed(
        self,
        embed: Sequence[int],
        heads: Sequence[int],
        head_size: Sequence[int],
        hidden: Sequence[int],
    ) -> TimeTables:
        """Tables of some sizes; those of one width of the embedding take turns."""
        none: Sizes = {axis.name: GONE for axis in (*self.attentions, *self.mlps)}
        some_attentions = [axis.name for axis in self.attentions[:BLOCKS]]
        some_mlps = [axis.name for axis in self.mlps[:BLOCKS]]
        rest, attention, mlp, full = [], [], [], []
        for width in embed:
            bare = {**none, self.embed.name: (1, width)}
            sizes = [bare]
            for size in product(heads, head_size):
                sizes.append(bare | dict.fromkeys(some_attentions, size))
            for units in hidden:
                sizes.append(bare | dict.fromkeys(some_mlps, (1, units)))
            *shares, parent_time = self.timer.times(sizes)
            ends = shares[0]
            split = 1 + len(heads) * len(head_size)
            full.append(parent_time)
            rest.append(ends)
            attention.append((np.array(shares[1:split]) - ends) / len(some_attentions))
            mlp.append((np.array(shares[split:]) - ends) / len(some_mlps))

        parent = float(np.median(full))
        grid = (len(embed), len(heads), len(head_size))
        return TimeTables(
            embed=np.array(embed, dtype=np.float64),
            heads=np.array(heads, dtype=np.float64),
            head_size=np.array(head_size, dtype=np.float64),
            hidden=np.array(hidden, dtype=np.float64),
            rest=parent * np.array(rest),
            # A difference of two times may be below 0 where a part takes next to nothing.
            attention=parent * np.array(attention).clip(min=LEAST_SHARE).reshape(grid),
            mlp=parent * np.array(mlp).clip(min=LEAST_SHARE),
            full=parent,
        )


def calibrated(timer: Timer, tables: TimeTables) -> float:
    """The scale at which predictions agree with whole networks of random sizes, and the parent."""
    axes = timer.parent.axes
    cost = TimeCost(axes, tables, 1.0, lambda _: 0.0)
    generator = np.random.default_rng(0)
    networks = [random_sizes(axes, generator) for _ in range(CALIBRATING)]
    *shares, _ = timer.times(networks)
    ratios = [
        tables.full * share / cost.of(list(sizes.values()))
        for share, sizes in zip(shares, networks, strict=True)
    ]
    ratios.append(tables.full / cost.of([axis.size for axis in axes]))
    return float(np.exp(np.mean(np.log(ratios))))


def random_sizes(axes: Sequence[Axis], generator: np.random.Generator) -> dict[str, Size]:
    """An option for each axis, at random."""
    sizes = {}
    for axis in axes:
        options = axis.sizes()
        sizes[axis.name] = options[int(generator.integers(len(options)))]
    return sizes


def _levels(axes: Sequence[Axis], which: int, most: int) -> list[int]:
    """The levels of a size in the tables: its least, its largest, and some of its options between.

    Args:
        axes: Those that have the size.
        which: 0 for numbers of groups, 1 for numbers of channels.
        most: Number of levels, if there are so many options.
    """
    options = {axis.size[which] for axis in axes}
    for axis in axes:
        options.update(axis.options[which])
    known = sorted(options - {0})
    picks = np.linspace(0, len(known) - 1, min(most, len(known))).round().astype(int)
    return [known[pick] for pick in picks]
