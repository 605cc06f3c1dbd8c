"""The parent, and the images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, PositiveFloat, PositiveInt, Tag, model_validator

from ofbnas.config.section import Section, Share

PartOf = Annotated[float, Field(gt=0, lt=1)]


class ModelConfig(Section):
    """A model of timm's, the parent of a study or a teacher."""

    name: str
    """A name timm.create_model knows."""
    kwargs: dict[str, Any] = {}
    """More arguments for timm.create_model; the data's number of classes is filled in."""
    pretrained: bool = False
    """Load timm's pretrained weights from the hub."""
    checkpoint: Path | None = None
    """Load weights from this .safetensors or .pth file of plain tensors instead."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.pretrained and self.checkpoint:
            raise ValueError("pretrained and checkpoint both name weights; give one")
        return self


class SmallDataConfig(Section):
    """Small images that are kept in memory. Decisions use the validation split, results the test split."""

    name: Literal["digits", "fashion_mnist"]
    """digits: scikit-learn's 8x8 digits. fashion_mnist: the four IDX files in `path`."""
    path: Path | None = None
    """Folder of the files."""
    val_share: PartOf = 0.15
    """Share of the training images set aside for validation, stratified by class."""
    test_share: PartOf = 0.2
    """Share of all images set aside for testing, where the data set has no test split of its own."""
    train_share: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the other images that is trained on, stratified by class."""
    split_seed: int = 0
    """Seed of all splits."""
    shift: Annotated[int, Field(ge=0)] = 0
    """Training images are moved by up to this many pixels each way."""
    flip: bool = False
    """Training images are mirrored half of the time."""

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return 10


class ImageDataConfig(Section):
    """Images that timm reads and resizes to what the model takes."""

    name: str
    """folder: a folder with one folder for each split, and in it one folder of images (or a .tar) for each class.
    Otherwise a name that timm.data.create_dataset knows, such as hfds/ILSVRC/imagenet-1k or wds/imagenet."""
    path: Path | None = None
    """Folder of the images, or of the data set's cache."""
    num_classes: PositiveInt
    """Number of classes."""
    train_split: str = "train"
    test_split: str = "validation"
    val_split: str | None = None
    """A split for validation; by default a share of the training images."""
    val_share: PartOf = 0.02
    """Share of the training images set aside for validation, stratified by class."""
    split_seed: int = 0
    train_images: PositiveInt | None = None
    """Number of images in the training split, to plan a study by, and to check that all are there."""
    workers: PositiveInt = 4
    """Processes that read images, for each process that trains."""
    flip: bool = True
    """Training images are mirrored half of the time."""
    crop: Share = 0.08
    """Training images are crops of at least this share of the area."""
    crop_pct: PositiveFloat | None = None
    """Share of the resized image that is taken for testing; by default what the model was trained for."""
    interpolation: Literal["bilinear", "bicubic", "random"] | None = None
    """By default what the model was trained for."""
    mean: list[float] | None = None
    """Of each channel, in 0 to 1; by default what the model was trained for."""
    std: list[PositiveFloat] | None = None


def _kind_of_data(value: Any) -> str:
    name = value.get("name") if isinstance(value, dict) else getattr(value, "name", None)
    return "images" if isinstance(name, str) and (name == "folder" or "/" in name) else "small"


DataConfig = Annotated[
    Annotated[SmallDataConfig, Tag("small")] | Annotated[ImageDataConfig, Tag("images")],
    Discriminator(_kind_of_data),
]
