"""The bi-mask: importance and sparsity of an axis' units, and which options are left."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ofbnas.models.axes import size_of

# A logit of an option that a new mask excludes: its probability is 0 in any floating-point format.
EXCLUDED = -1e4


class ExpectedSize(NamedTuple):
    """What is expected of an axis [], or of several [axes].

    Attributes:
        units: Expected number of units.
        groups: Expected number of groups.
        gone: Probability that no unit is left.
    """

    units: Tensor
    groups: Tensor
    gone: Tensor


class BiMask(nn.Module):
    """The mask m = lambda * sigma(s) + (1 - lambda) * V over the units of one axis.

    It is the bi-mask of OFB (arXiv 2403.15835). s is the importance of each unit. V is the
    sparsity: with p the softmax over the options still alive, V of a unit is the probability that
    an option keeps it, which follows from the unit's rank by importance. Units are ranked inside
    their group, groups (heads) by the sum of sigma(s) over their units. A new mask is open: it is
    exactly 1 everywhere until `start_` is called.

    Attributes:
        size: Units, (groups, channels).
        options: Numbers of groups and numbers of channels; all pairs are options, dead ones
            included. All pairs without units are one option, the first of them; the others are dead.
        may_go: Whether one option has no units.
        importance: s, [groups x channels].
        logits: alpha, [numbers of groups, numbers of channels].
        alive: Which options are left, like `logits`.
        num_alive: Number of these options, known without waiting for the device.
        widest: The most groups and the most channels of the options alive, (groups, channels).
        blend: lambda, the importance's weight in the mask, [].
        widths: Units that each option keeps, like `logits`.
        groups: Groups that each option keeps, 0 if it has no units, like `logits`.
        keeps_group: 1 where a number of groups keeps a rank, [numbers of groups, groups].
        keeps_channel: 1 where a number of channels keeps a rank, [numbers of channels, channels].
    """

    importance: nn.Parameter
    logits: nn.Parameter
    alive: Tensor
    blend: Tensor
    widths: Tensor
    groups: Tensor
    keeps_group: Tensor
    keeps_channel: Tensor

    def __init__(
        self,
        size: tuple[int, int],
        options: tuple[Sequence[int], Sequence[int]],
    ) -> None:
        """Make an open mask.

        Args:
            size: Units, (groups, channels).
            options: Numbers of groups and numbers of channels the axis may keep, ascending.
        """
        super().__init__()
        group_options, channel_options = options
        self.size = size
        self.options = (tuple(group_options), tuple(channel_options))

        # With blend 0 and all probability on the widest option, the mask is 1: the mask is open.
        logits = torch.full((len(group_options), len(channel_options)), EXCLUDED)
        logits[-1, -1] = 0.0
        num_units = size[0] * size[1]
        self.importance = nn.Parameter(torch.zeros(num_units))
        self.logits = nn.Parameter(logits)
        self.register_buffer("blend", torch.zeros(()))
        self._register_constants()
        without_units = (self.widths == 0).flatten()
        alive = ~without_units
        self.may_go = bool(without_units.any())
        if self.may_go:
            alive[without_units.nonzero()[0]] = True
        self.register_buffer("alive", alive.view(logits.shape))
        self.num_alive = int(alive.sum())
        self.widest = size_of(group_options[-1], channel_options[-1])

    def _register_constants(self) -> None:
        """Make the tensors that follow from size and options, so that they move with the module."""
        num_groups, num_channels = self.size
        group_options, channel_options = self.options
        groups = torch.tensor(group_options)[:, None]
        channels = torch.tensor(channel_options)
        constants = {
            "widths": groups * channels,
            "groups": groups * (channels > 0),
            "keeps_group": groups > torch.arange(num_groups),
            "keeps_channel": channels[:, None] > torch.arange(num_channels),
        }
        for name, constant in constants.items():
            values = constant.to(self.logits.detach())
            self.register_buffer(name, values, persistent=False)

    @property
    def decided(self) -> bool:
        """Whether one option is left."""
        return self.num_alive == 1

    @property
    def settled(self) -> bool:
        """Whether the axis is decided and has just the units of that option."""
        return self.decided and self.widest == self.size

    def start_(self, importance: Tensor, logits: Tensor) -> None:
        """Go from an open mask to where a search begins: given importance and logits."""
        with torch.no_grad():
            self.importance.copy_(importance)
            self.logits.copy_(logits)

    def probabilities(self) -> Tensor:
        """Sparsity p: the softmax of alpha over the options alive, 0 elsewhere; like `logits`."""
        logits = self.logits.masked_fill(~self.alive, -torch.inf)
        p = logits.flatten().softmax(0)
        return p.view_as(logits)

    def gate(self) -> Tensor:
        """sigma(s), [groups, channels]."""
        return self.importance.sigmoid().view(self.size)

    def ranks(self) -> tuple[Tensor, Tensor]:
        """Rank by importance, 0 for the highest.

        Returns:
            Of groups, [groups], and of units in their group, [groups, channels].

        >>> mask = BiMask((1, 3), ((1,), (1, 2, 3)))
        >>> mask.start_(torch.tensor([0.5, 2.0, -1.0]), torch.zeros(1, 3))
        >>> mask.ranks()[1].tolist()
        [[1, 0, 2]]
        """
        with torch.no_grad():
            gate = self.gate()
            group_sums = gate.sum(1)
            # The argsort of an order is the rank of each element in it. Both are stable, so that
            # equal units rank alike on all devices and processes.
            group_order = group_sums.argsort(descending=True, stable=True)
            channel_order = gate.argsort(
                dim=1,
                descending=True,
                stable=True,
            )
            return group_order.argsort(), channel_order.argsort(dim=1)

    def sparsity(self) -> Tensor:
        """V, the probability that a unit is kept, [groups, channels].

        The unit with rank j in a group of rank i is kept by the options with more than i groups and
        more than j channels: V = sum of p over them.
        """
        p = self.probabilities()
        by_rank = self.keeps_group.T @ p @ self.keeps_channel  # V by rank, [groups, channels]
        group_rank, channel_rank = self.ranks()
        return by_rank[group_rank[:, None], channel_rank]

    def forward(self) -> Tensor:
        """The mask m = lambda * sigma(s) + (1 - lambda) * V, [groups, channels]."""
        return torch.lerp(self.sparsity(), self.gate(), self.blend)

    def stays(self) -> Tensor:
        """What the mask is to whatever any unit needs, [].

        It is the mask of a unit that all options keep but the one without units.
        """
        gone = self.expected_size().gone
        return torch.lerp(1 - gone, torch.ones_like(gone), self.blend)

    def expected_size(self) -> ExpectedSize:
        """The size in expectation over p."""
        p = self.probabilities()
        units = (p * self.widths).sum()
        groups = (p * self.groups).sum()
        gone = (p * (self.widths == 0)).sum()
        return ExpectedSize(units, groups, gone)

    def keep_only_(self, alive: Tensor) -> None:
        """Remove every option that is not in `alive`, a boolean table like `logits`.

        Raises:
            ValueError: That would leave none.
        """
        remaining = self.alive & alive
        if not remaining.any():
            raise ValueError("no option would be left alive")
        self.alive.copy_(remaining)
        self.num_alive = int(remaining.sum())
        self.widest = self._find_widest()

    def _find_widest(self) -> tuple[int, int]:
        """The most groups and the most channels of the options alive."""
        group_options, channel_options = self.options
        rows = self.alive.any(1).nonzero()
        columns = self.alive.any(0).nonzero()
        # Options are ascending, so the last one alive is the widest.
        last_row = int(rows.max())
        last_column = int(columns.max())
        return size_of(group_options[last_row], channel_options[last_column])

    def kept(self) -> Tensor:
        """The units that fit in `widest` by rank, in their old order.

        Returns:
            Flat indices, [groups, channels].
        """
        groups, channels = self.widest
        group_rank, channel_rank = self.ranks()
        rows = (group_rank < groups).nonzero()[:, 0]
        is_kept = channel_rank[rows] < channels  # as many in each row
        columns = is_kept.nonzero()[:, 1].view(groups, channels)
        starts = rows[:, None] * self.size[1]
        return starts + columns

    def resized(self, size: tuple[int, int]) -> BiMask:
        """A mask over another number of units, with the same options, alive or dead.

        Its parameters are those of a new mask, to be loaded by the caller.
        """
        mask = BiMask(size, self.options).to(self.logits)
        mask.alive.copy_(self.alive)
        mask.blend.copy_(self.blend)
        mask.num_alive = self.num_alive
        mask.widest = self.widest
        return mask
