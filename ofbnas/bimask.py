"""The bi-mask: importance and sparsity of an axis' units, their blend, and which options are left."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class BiMask(nn.Module):
    """The mask m = lambda * sigma(s) + (1 - lambda) * V over the units of one axis (OFB, arXiv 2403.15835).

    s is one importance per unit. V is the sparsity: with p the softmax over the options still alive, V of a unit
    is the probability that an option keeps it, which follows from the unit's rank by importance. Units are ranked
    inside their group, groups (heads) by the sum of sigma(s) over their units. A new mask is open: it is exactly 1
    everywhere until `start_` is called.

    Attributes:
        size: Units, (groups, channels).
        options: Numbers of groups and numbers of channels; all pairs are options, dead ones included.
        importance: s, [groups x channels].
        logits: alpha, [numbers of groups, numbers of channels].
        alive: Which options are left, like `logits`.
        num_alive: How many, known without asking the device.
        room: (groups, channels) of the smallest rectangle that holds every option alive.
        blend: lambda, the importance's weight in the mask, [].
        widths: Units that each option keeps, like `logits`.
        groups: Groups that each option keeps, like `logits`.
    """

    importance: nn.Parameter
    logits: nn.Parameter
    alive: Tensor
    blend: Tensor
    widths: Tensor
    groups: Tensor
    keeps_group: Tensor
    keeps_channel: Tensor

    def __init__(self, size: tuple[int, int], options: tuple[Sequence[int], Sequence[int]]) -> None:
        """Make an open mask.

        Args:
            size: Units, (groups, channels).
            options: Numbers of groups and numbers of channels the axis may keep, ascending.
        """
        super().__init__()
        self.size, self.options = size, (tuple(options[0]), tuple(options[1]))
        groups, channels = torch.tensor(options[0]), torch.tensor(options[1])
        widest = torch.full((len(groups), len(channels)), -1e4)
        widest[-1, -1] = 0.0
        self.importance = nn.Parameter(torch.zeros(size[0] * size[1]))
        self.logits = nn.Parameter(widest)
        self.num_alive = widest.numel()
        self.room = (self.options[0][-1], self.options[1][-1])
        self.register_buffer("alive", torch.ones(widest.shape, dtype=torch.bool))
        self.register_buffer("blend", torch.zeros(()))
        constants = {
            "widths": (groups[:, None] * channels).to(widest),
            "groups": groups[:, None].expand_as(widest).to(widest),
            "keeps_group": (groups[:, None] > torch.arange(size[0])).to(widest),
            "keeps_channel": (channels[:, None] > torch.arange(size[1])).to(widest),
        }
        for name, constant in constants.items():
            self.register_buffer(name, constant, persistent=False)

    @property
    def decided(self) -> bool:
        """Whether one option is left."""
        return self.num_alive == 1

    @property
    def settled(self) -> bool:
        """Whether the axis is decided and has just the units of that option."""
        return self.decided and self.room == self.size

    def start_(self, importance: Tensor, logits: Tensor) -> None:
        """Go from an open mask to where a search begins: given importance and logits."""
        with torch.no_grad():
            self.importance.copy_(importance)
            self.logits.copy_(logits)

    def probabilities(self) -> Tensor:
        """Sparsity p: the softmax of alpha over the options alive, 0 for dead ones; like `logits`."""
        alive = self.logits.masked_fill(~self.alive, -torch.inf)
        return alive.flatten().softmax(0).view_as(alive)

    def gate(self) -> Tensor:
        """sigma(s), [groups, channels]."""
        return self.importance.sigmoid().view(self.size)

    def ranks(self) -> tuple[Tensor, Tensor]:
        """Rank by importance, 0 for the highest: of groups, [groups], and of units in their group."""
        with torch.no_grad():
            gate = self.gate()
            groups = gate.sum(1).argsort(descending=True, stable=True).argsort()
            return groups, gate.argsort(dim=1, descending=True, stable=True).argsort(dim=1)

    def sparsity(self) -> Tensor:
        """V, the probability that a unit is kept, [groups, channels]."""
        by_rank = self.keeps_group.T @ self.probabilities() @ self.keeps_channel
        groups, channels = self.ranks()
        return by_rank[groups[:, None], channels]

    def forward(self) -> Tensor:
        """The mask m, [groups, channels]."""
        return torch.lerp(self.sparsity(), self.gate(), self.blend)

    def expected_size(self) -> tuple[Tensor, Tensor]:
        """Units and groups kept in expectation over p, [] each."""
        p = self.probabilities()
        return (p * self.widths).sum(), (p * self.groups).sum()

    def keep_only_(self, alive: Tensor) -> None:
        """Let every option die that is not in `alive`, a boolean table like `logits`.

        Raises:
            ValueError: That would leave none.
        """
        left = self.alive & alive
        if not left.any():
            raise ValueError("no option would be left alive")
        self.alive.copy_(left)
        self.num_alive, self.room = int(left.sum()), self._find_room()

    def _find_room(self) -> tuple[int, int]:
        rows, columns = self.alive.any(1).tolist(), self.alive.any(0).tolist()
        groups = max(option for option, alive in zip(self.options[0], rows, strict=True) if alive)
        channels = max(option for option, alive in zip(self.options[1], columns, strict=True) if alive)
        return groups, channels

    def kept(self) -> Tensor:
        """The units that fit in `room` by rank, in their old order: flat indices, [groups, channels]."""
        groups, channels = self.room
        group_rank, channel_rank = self.ranks()
        rows = (group_rank < groups).nonzero()[:, 0]
        columns = (channel_rank[rows] < channels).nonzero()[:, 1].view(groups, channels)
        return rows[:, None] * self.size[1] + columns

    def resized(self, size: tuple[int, int]) -> BiMask:
        """A mask over another number of units: the same options, alive or dead; its parameters are to be loaded."""
        mask = BiMask(size, self.options).to(self.logits)
        mask.alive.copy_(self.alive)
        mask.blend.copy_(self.blend)
        mask.num_alive, mask.room = self.num_alive, self.room
        return mask
