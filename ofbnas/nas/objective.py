"""What a search trains its network on: the labels, a teacher, and patches that were hidden."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from ofbnas import parallel
from ofbnas.config import Length, SearchConfig
from ofbnas.models.passes import FeaturesAndOutputs
from ofbnas.nas.network import ShrinkingNetwork
from ofbnas.training.criterion import TaskLoss
from ofbnas.training.loop import Losses
from ofbnas.training.teacher import Teacher

PMIM_STREAM = 1  # of random numbers, so that hiding patches draws none that something else draws


class Objective:
    """The losses of a part of a batch, and the patches that are hidden from the network."""

    def __init__(
        self,
        network: ShrinkingNetwork,
        config: SearchConfig,
        seed: int,
        phase: Length,
        criterion: TaskLoss | None,
        teacher: Teacher | None,
    ) -> None:
        """Set up the losses.

        Args:
            network: The network that is trained.
            config: Configuration of the search.
            seed: Random seed of the patches.
            phase: Length of the part of the run in which options are open.
            criterion: The loss of outputs and labels; None for a model without a classifier.
            teacher: The teacher, if distillation is configured.
        """
        self.network = network
        self.config = config
        self.seed = seed
        self.phase = phase
        self.criterion = criterion
        self.teacher = teacher

    def hide(
        self, images_in_parts: Sequence[int], step: int, first: int = 0
    ) -> list[Tensor | None]:
        """Patches to hide in each part of a batch, [images, hidden]; None where none are.

        They are drawn for the whole batch, so an image has the same patches hidden whichever
        process it is in.

        Args:
            images_in_parts: Number of this process' images in each part.
            step: Number of the step, from 0.
            first: Number of the first of these parts, where a step draws several times.
        """
        pmim = self.network.supernet.pmim
        if pmim is None or not self.network.open_axes():
            return [None] * len(images_in_parts)
        shard = parallel.shard()
        images_in_batch = sum(images_in_parts) * shard.world
        share = self.config.pmim.hidden_share(step, self.phase)
        sequence = np.random.SeedSequence((self.seed, step, PMIM_STREAM, first))
        seed = int(sequence.generate_state(1)[0])
        hidden = pmim.hide(images_in_batch, share, seed)
        if hidden.shape[1] == 0:
            return [None] * len(images_in_parts)

        mine = hidden[shard.of(images_in_batch)]
        return list(mine.split(list(images_in_parts)))

    def task(self, outputs: Tensor, labels: Tensor) -> Tensor | None:
        """The loss of the labels, []; None for a model without a classifier.

        Args:
            outputs: [images, classes].
            labels: Classes, [images], or shares of classes, [images, classes].
        """
        if self.criterion is None:
            return None
        return self.criterion(outputs, labels)

    def losses(
        self,
        passed: FeaturesAndOutputs,
        images: Tensor,
        hidden: Tensor | None,
        task: Tensor | None,
    ) -> Losses:
        """The task's loss and, where patches are hidden, their reconstruction's.

        Args:
            passed: What the network gives.
            images: [images, channels, height, width].
            hidden: Patches that were hidden from it, [images, hidden].
            task: The loss of the labels, [].
        """
        values = {"task": self._with_teacher(task, passed, images)}
        pmim = self.network.supernet.pmim
        if pmim is not None and hidden is not None:
            values["reconstruction"] = pmim.loss(
                passed.features,
                images,
                hidden,
            )
        return values

    def total(self, losses: Losses) -> Tensor:
        """The task's loss plus the reconstruction's, which is scaled to be as large.

        OFB's total loss is L = L_task + weight * (L_task / L_reconstruction) * L_reconstruction,
        with no gradient through the quotient. `Stage.decide_losses` adds budget and one-hot loss.
        """
        task = losses["task"]
        if "reconstruction" not in losses:
            return task
        reconstruction = losses["reconstruction"]
        # Clamped, so that a reconstruction without error does not divide by 0.
        scale = task.detach() / reconstruction.detach().clamp(min=1e-6)
        return task + self.config.pmim.weight * scale * reconstruction

    def _with_teacher(
        self, task: Tensor | None, passed: FeaturesAndOutputs, images: Tensor
    ) -> Tensor:
        """The loss of the labels, if there is one, and what is learned from a teacher, []."""
        channels = self.network.channels
        if self.teacher is not None:
            taught = self.teacher(images)
            if task is None:
                return self.teacher.feature_loss(passed, taught, channels)
            return self.teacher.loss(task, passed, taught, channels)
        if task is None:
            raise ValueError("a model without a classifier learns from a teacher only")
        return task
