"""One call that compresses a model in memory, without training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError
from torch import Tensor, nn

from ofbnas.config import SearchConfig
from ofbnas.config.fields import first_error
from ofbnas.errors import InputError
from ofbnas.models.axes import Space
from ofbnas.models.axes import axes as axes_of
from ofbnas.models.cost import cost_of, sizes_of
from ofbnas.models.identity import checked_identity
from ofbnas.models.subnet import Subnet
from ofbnas.nas.search import search
from ofbnas.table.units import with_unit
from ofbnas.training.data import data_from
from ofbnas.training.data.own import Images, Unpack
from ofbnas.training.evaluation import Accuracy, evaluate, outputs_and_labels
from ofbnas.training.features import has_classifier

Metric = Callable[[Tensor, Tensor], Any]  # of outputs and labels of all images


@dataclass(frozen=True)
class Compressed:
    """A model that was compressed.

    Attributes:
        subnet: The architecture and its model; `ofbnas.finetune` takes it.
        macs: Multiply-accumulates per image.
        params: Parameters.
        parent_macs: Multiply-accumulates of the model that it came from.
        parent_params: Parameters of that.
        accuracy: On the test images or, without them, the validation images; None for a model
            without a classifier.
        parent_accuracy: The same of the model that it came from.
        metric: What a metric of the user's own gives for it, in place of accuracy.
        parent_metric: The same of the model that it came from.
    """

    subnet: Subnet = field(repr=False)
    macs: int
    params: int
    parent_macs: int
    parent_params: int
    accuracy: Accuracy | None
    parent_accuracy: Accuracy | None
    metric: float | None = None
    parent_metric: float | None = None

    @property
    def model(self) -> nn.Module:
        """The plain timm model, in evaluation mode."""
        return self.subnet.model

    def save(self, folder: Path | str) -> Path:
        """Write the model into a folder that does not exist yet; `ofbnas.load_subnet` reads it.

        Returns:
            The folder.

        Raises:
            InputError: The folder exists.
        """
        return self.subnet.save(folder, card=f"# {self}\n")

    def __str__(self) -> str:
        name = self.subnet.architecture.model
        text = (
            f"{name} compressed to {100 * self.macs / self.parent_macs:.1f} % of its multiply-accumulates "
            f"({with_unit('gmacs', self.parent_macs / 1e9)} to {with_unit('gmacs', self.macs / 1e9)}), "
            f"{with_unit('params', self.parent_params)} to {with_unit('params', self.params)} "
            "parameters"
        )
        if self.metric is not None:
            return f"{text}, metric {self.parent_metric:.4g} to {self.metric:.4g}"
        if self.accuracy is None or self.parent_accuracy is None:
            return text
        return f"{text}, top-1 {self.parent_accuracy.top1:.2f} to {self.accuracy.top1:.2f} %"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """The sentence and the architecture, in a notebook."""
        return f"<p>{escape(str(self))}</p>{self.subnet._repr_html_()}"


def compress(
    model: nn.Module,
    train: Images,
    val: Images,
    test: Images | None = None,
    *,
    macs: float = 0.5,
    name: str | None = None,
    kwargs: Mapping[str, Any] | None = None,
    space: Space | None = None,
    settings: Mapping[str, Any] | None = None,
    num_classes: int | None = None,
    unpack: Unpack | None = None,
    metric: Metric | None = None,
    seed: int = 0,
) -> Compressed:
    """Compress a trained timm model in memory in minutes, without training.

    Which model it is, is read from the model, and checked before anything else: timm has to make
    one with the same tensors and outputs. Labels of training images are not looked at.

    Args:
        model: The model; it is not changed. Its device is computed on.
        train: A torch Dataset or DataLoader of training images, as for `data_from`.
        val: Validation images.
        test: Images on which both models are measured; by default the validation images.
        macs: Share of the multiply-accumulates to keep, above 0 and at most 1.
        name: timm's name of the model, if it is not to be read from the model.
        kwargs: All arguments of timm.create_model, likewise.
        space: Options for "embed", "heads", "head_size" and "mlp", as for `axes`.
        settings: Further fields of `SearchConfig`, such as `{"compensation": {"images": 4096}}`.
        num_classes: Number of classes of the images; by default the model's.
        unpack: Makes images and labels of a batch, as for `data_from`.
        metric: Measures both models in place of accuracy: a number for the outputs of all images,
            [images, classes], and their labels, which may then be anything.
        seed: Random seed.

    Raises:
        InputError: The model is not one that timm makes of its name and arguments or that can be
            searched, the budget is out of reach, or a setting is not allowed.
    """
    config = _config(macs, settings or {})
    name, kwargs = checked_identity(model, name, kwargs)
    axes = axes_of(model, space)
    was_training = model.training
    model.eval()
    try:
        classes = num_classes or cast(int, model.num_classes) or 1
        data = data_from(train, val, test, num_classes=classes, unpack=unpack)
        data = data.to(next(model.parameters()).device)
        found = search(model, data, config, name=name, kwargs=kwargs, axes=axes, seed=seed)
        accuracies: list[Accuracy | None] = [None, None]
        measured: list[float | None] = [None, None]
        models = (found.subnet.model, model)
        if metric is not None:
            measured = [float(metric(*outputs_and_labels(one, data.test))) for one in models]
        elif has_classifier(model):
            accuracies = [evaluate(one, data.test) for one in models]
    finally:
        model.train(was_training)
    whole = sizes_of(axes)
    return Compressed(
        found.subnet,
        macs=found.macs,
        params=found.params,
        parent_macs=cost_of(model, axes, "macs").of(whole),
        parent_params=cost_of(model, axes, "params").of(whole),
        accuracy=accuracies[0],
        parent_accuracy=accuracies[1],
        metric=measured[0],
        parent_metric=measured[1],
    )


def _config(macs: float, settings: Mapping[str, Any]) -> SearchConfig:
    """The search without training.

    Raises:
        InputError: Something is not allowed.
    """
    tree = {**settings, "epochs": 0, "budget": {"gmacs_share": macs}}
    try:
        return SearchConfig.model_validate(tree)
    except ValidationError as error:
        mistake = first_error(error, tree, SearchConfig)
        message = mistake.message.replace("budget.gmacs_share", "macs")
        raise InputError(message) from None
