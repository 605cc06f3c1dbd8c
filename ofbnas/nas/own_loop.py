"""A search in a user's own training loop, step by step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ofbnas import parallel
from ofbnas.config import SearchConfig
from ofbnas.errors import InputError
from ofbnas.models.axes import Axis
from ofbnas.models.axes import axes as axes_of
from ofbnas.models.following import check_follows, follow_, raw
from ofbnas.models.identity import checked_identity
from ofbnas.models.moments import Shrink, load_moments, moments
from ofbnas.models.subnet import Subnet
from ofbnas.nas.own_step import OwnStep
from ofbnas.nas.run import StageRun
from ofbnas.nas.searched_model import SearchedModel
from ofbnas.nas.stage import Stage
from ofbnas.training.batches import Position
from ofbnas.training.criterion import TaskLoss
from ofbnas.training.data import Data, data_from
from ofbnas.training.data.own import Images, Unpack
from ofbnas.training.features import check_task
from ofbnas.training.loop import Losses
from ofbnas.training.teacher import Teacher

# Settings of the weights' optimizer and of the loop around it.
OF_THE_WEIGHTS = (
    "optimizer",
    "betas",
    "layer_decay",
    "clip_grad",
    "clip_mode",
    "accumulate",
    "amp",
)
OF_THE_IMAGES = ("rand_augment", "erasing", "repeats")


class SearchRun:
    """A search that is trained by a loop of your own, in one of two ways.

    With ofbnas' optimizers the loop only gives batches: each is a call of `step`. With optimizers
    of your own, the loop calls `model`, computes the gradients of `loss`, lets the optimizers make
    their step, and calls `after_step`; optimizers that were given to `attach` follow every shrink.

    Options are decided when it is time. `subnet` is what was found.

    Attributes:
        model: The network under its masks, in one process: a module that takes images, [images,
            channels, height, width], and gives outputs. It stays the same object, and `timm` in it
            is the network as it is now.
        num_steps: Number of steps of the run, on which schedules depend. Steps beyond it train on
            at the end of the schedules.
        steps_done: Number of steps that were made.
        history: One record per decision interval, as of `ofbnas.search`.
    """

    def __init__(
        self,
        model: nn.Module,
        train: Data | Images,
        config: SearchConfig,
        *,
        num_steps: int | None = None,
        name: str | None = None,
        kwargs: Mapping[str, Any] | None = None,
        axes: Sequence[Axis] | None = None,
        seed: int = 0,
        teacher: Teacher | None = None,
        loss: TaskLoss | None = None,
        unpack: Unpack | None = None,
    ) -> None:
        """Begin a search. The program's random states stay as they are.

        Args:
            model: The trained parent, on the device that is trained on; it is not changed.
            train: A data set, or a torch Dataset or DataLoader of training images: importance
                starts with how much units matter to them, and what was decided is compensated on
                them. The loop may read others.
            config: Configuration of the search; its epochs are those of the loop.
            num_steps: Number of optimizer steps of these epochs; by default as many as `train` has
                batches of `config.batch_size`.
            name: timm's name of the parent; by default it is read from the model.
            kwargs: All arguments of timm.create_model, likewise.
            axes: What is searched; by default all axes of the model, with OFB's space.
            seed: Random seed of the start, of hidden patches and of the images of compensation.
            teacher: The teacher, if distillation is configured; by default the model itself.
            loss: The loss of outputs, [images, classes], and labels, [] and differentiable; by
                default `config.loss`.
            unpack: Makes images and labels of a batch of `train`, as for `data_from`.

        Raises:
            InputError: The model is not one that timm makes of its name and arguments or that can
                be searched, the budget is out of reach, or a setting is not allowed.
        """
        if config.epochs == 0:
            raise InputError("epochs is 0, a search without training: ofbnas.compress makes it")
        _refuse(config.augment.model_fields_set, OF_THE_IMAGES, "augment images in your loop")
        searched = list(axes_of(model) if axes is None else axes)
        check_task(model, config.distill, "search")
        device = next(model.parameters()).device
        if not isinstance(train, Data):
            num_classes = int(getattr(model, "num_classes", 0)) or 1
            train = data_from(train, train, num_classes=num_classes, unpack=unpack)
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            self._identity = checked_identity(model, name, kwargs)
            self._stage = Stage(
                model, train.to(device), config, searched, seed, teacher, loss, num_steps
            )
        self._run = StageRun(self._stage)
        self._run.begin()
        self._stage.network.followers.append(self._replace)
        self.model = SearchedModel(self._stage.network, self._forward)
        self.num_steps = int(self._stage.length.steps)
        self.steps_done = 0
        self.history: list[dict[str, Any]] = []

        self._own = False  # whether the user's optimizers train the weights
        self._attached: list[torch.optim.Optimizer] = []
        self._own_step = OwnStep(self._stage, 0)

    def __repr__(self) -> str:
        masks = self._stage.supernet.masked().values()
        num_open = sum(not mask.decided for mask in masks)
        state = f"{num_open} of {len(masks)} axes open" if num_open else "decided"
        name, _ = self._identity
        return f"SearchRun({name}: step {self.steps_done} of {self.num_steps}, {state})"

    @property
    def is_decided(self) -> bool:
        """Whether all axes are decided: from then on the network keeps its sizes."""
        return not self._stage.is_open

    def step(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Make one step with ofbnas' optimizers: forward, backward, update and, when due, decide.

        With the same batches, it computes what `ofbnas.search` computes, bit for bit, as far as
        nothing draws from torch's random state. Under torchrun, each process gives its own share of
        the batch, and gradients are averaged.

        Args:
            images: [images, channels, height, width]; this process' part of the batch.
            labels: Classes, [images], or shares of classes, [images, classes].

        Returns:
            The losses by name, [] each, on the device.

        Raises:
            InputError: The batch cannot be split, or optimizers of your own train the weights.
            NotFiniteError: A loss became NaN or infinite.
        """
        if self._own:
            raise InputError("your own optimizer trains the weights: call loss and after_step")
        num_parts = self._run.config.accumulate
        if len(labels) % num_parts:
            raise InputError(
                f"a batch of {len(labels)} images cannot be split into accumulate={num_parts} parts"
            )
        device = self._run.device
        images_in_parts = images.to(device, non_blocking=True).chunk(num_parts)
        labels_in_parts = labels.to(device, non_blocking=True).chunk(num_parts)
        parts = list(zip(images_in_parts, labels_in_parts, strict=True))
        self.model.train()
        losses = self._run.step(parts, self.steps_done)
        self._end_step(losses)
        return losses

    def attach(self, optimizer: torch.optim.Optimizer) -> None:
        """Let an optimizer of your own train the weights, and follow every shrink.

        It stays the same object with the same groups and learning rates, so schedulers and
        wrappers keep working. After a shrink it holds the new parameters and, of its state, that of
        the units that were kept. Where training restarts from the parent's weights, once all is
        decided, its state starts anew, too.

        Args:
            optimizer: Made of `model.parameters()`, or of some of them.

        Raises:
            InputError: Its state cannot follow, as Adafactor's and Shampoo's, or a setting is of
                ofbnas' own optimizer.
        """
        optimizer = raw(optimizer)
        check_follows(optimizer, list(self.model.parameters()))
        self.on_shrink(partial(follow_, optimizer))
        self._attached.append(optimizer)

    def on_shrink(self, follow: Callable[[Shrink], None]) -> None:
        """Have a function called after every shrink, with what it did to the parameters.

        It is what `attach` does for an optimizer. A function of your own may replace parameters
        in what holds them, such as an average of the weights: `shrink.before` and `shrink.after`
        have them by name, and `shrink.carried` cuts tensors that belong to them.

        Args:
            follow: The function.

        Raises:
            InputError: A setting is of ofbnas' own optimizer, there are several processes, or
                `step` has been called.
        """
        if not self._own:
            self._leave_weights()
        self._stage.network.followers.append(follow)

    def loss(
        self, outputs: Tensor, labels: Tensor | None = None, *, task: Tensor | None = None
    ) -> Tensor:
        """The loss to minimize, []: that of the task, of a teacher, and of hidden patches.

        What drives options to a decision is added by `after_step`, once per step, however many
        parts a batch has. Losses may be multiplied, as for float16, or divided by the number of
        parts.

        Args:
            outputs: What `model` gave for the last images, in training mode.
            labels: Classes, [images], or shares of classes, [images, classes].
            task: A loss of your own, [], in place of that of the labels.

        Raises:
            InputError: Nothing trains the weights, or `model` was not called before.
        """
        if not self._own:
            raise InputError("nothing follows a shrink: give your optimizer to attach first")
        return self._own_step.loss(outputs, labels, task)

    def after_step(self) -> None:
        """End a step of your own optimizer: train the masks, and decide and shrink when due.

        Raises:
            InputError: No loss was computed since the last step, or not its gradients.
            NotFiniteError: A loss became NaN or infinite.
        """
        self._end_step(self._own_step.end())

    def decide(self) -> None:
        """Decide all axes that are still open now, whenever they would have been decided."""
        self._stage.decide_the_rest()
        self._stage.restart_if_decided(self.steps_done)

    def subnet(self) -> Subnet:
        """The plain timm model as it is now, in evaluation mode, with its architecture.

        Raises:
            InputError: Some axes are still open.
        """
        if self._stage.is_open:
            due = int(self._stage.phase_length.steps)
            raise InputError(
                f"options are open until step {due}, and {self.steps_done} are done: call decide"
            )
        return self._stage.network.plain().subnet(*self._identity)

    def state_dict(self) -> dict[str, Any]:
        """Plain tensors and values, from which `load_state_dict` restores the search.

        State of attached optimizers is among them.
        """
        trained = self._stage.supernet.trained()
        return {
            "settings": self._stage.settings,
            "steps_done": self.steps_done,
            "history": self.history,
            "stage": self._stage.state(),
            "attached": [moments([optimizer], trained) for optimizer in self._attached],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a search that has just begun, with the same arguments and attached optimizers.

        Learning rates of these are left to their schedulers.

        Raises:
            InputError: The state is of another search.
        """
        if state["settings"] != self._stage.settings:
            raise InputError("the state is of a search with other settings")
        if len(state["attached"]) != len(self._attached):
            raise InputError(
                f"the state has {len(state['attached'])} attached optimizers, and there are "
                f"{len(self._attached)}: attach them first"
            )
        self._stage.load_state(state["stage"])
        self.steps_done = state["steps_done"]
        self.history = list(state["history"])
        self._own_step = OwnStep(self._stage, self.steps_done)
        trained = self._stage.supernet.trained()
        for optimizer, held in zip(self._attached, state["attached"], strict=True):
            load_moments([optimizer], trained, held)

    def _leave_weights(self) -> None:
        """Have the user's optimizers train the weights.

        Raises:
            InputError: They cannot.
        """
        if parallel.shard().world > 1:
            raise InputError(
                "an optimizer of your own trains in one process, since DistributedDataParallel "
                "cannot follow a shrink: with several, call step"
            )
        config = self._stage.config
        _refuse(config.model_fields_set, OF_THE_WEIGHTS, "set them where you make your optimizer")
        if config.augment.model_fields_set:
            raise InputError("augment has no effect: augment and mix images in your loop")
        if self.steps_done:
            raise InputError("steps were made with ofbnas' optimizers: attach yours before them")
        self._own = True
        self._stage.network.leave_weights(config.model_copy(update={"clip_grad": None}))

    def _forward(self, images: Tensor) -> Tensor:
        """The outputs for images; while training, some of their patches are hidden."""
        if self.model.training:
            return self._own_step.forward(images)
        outputs: Tensor = self._stage.network.passes(images).outputs
        return outputs

    def _end_step(self, losses: Losses) -> None:
        """Let the stage do what follows a step."""
        length = self._stage.length
        epoch = int(self.steps_done * length.epochs / length.steps)
        position = Position(epoch, self.steps_done, last_of_epoch=False)
        self.history.extend(self._stage.end_step(position, losses))
        self.steps_done += 1
        self._own_step = OwnStep(self._stage, self.steps_done)

    def _replace(self, shrink: Shrink) -> None:
        """Show the new network in `model`."""
        self.model.timm = self._stage.supernet.model


def _refuse(given: set[str], fields: Sequence[str], remedy: str) -> None:
    """Check that no field is given that has no effect.

    Raises:
        InputError: Some are.
    """
    found = [field for field in fields if field in given]
    if found:
        raise InputError(f"{', '.join(found)} would have no effect: {remedy}")
