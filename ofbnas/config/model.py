"""The parent model, and the data set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from ofbnas.config.section import (
    Images,
    OpenShare,
    Pixels,
    Plain,
    Positive,
    Processes,
    Section,
    Seed,
    Share,
    ShareAbove0,
    Size,
)


class ModelConfig(Section):
    """A timm model: the parent of a study, or a teacher."""

    name: str
    """Name of the model, as timm.create_model takes it."""
    kwargs: dict[str, Plain] = {}
    """Further arguments of timm.create_model. The number of classes is taken from the data set."""
    pretrained: bool = False
    """Load timm's pretrained weights from the Hugging Face Hub."""
    checkpoint: Path | None = None
    """Load weights from this file instead: a .safetensors file, or one written by torch.save that
    holds plain tensors or a training checkpoint of timm's. Positions are resized to the images."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.pretrained and self.checkpoint:
            raise ValueError("pretrained and checkpoint both name weights; give one")
        return self


class SmallDataConfig(Section):
    """A data set of small images, kept in memory.

    Decisions use the validation split; results are reported on the test split.
    """

    name: Literal["digits", "fashion_mnist"]
    """Name of the data set. digits: scikit-learn's digits of 8x8 pixels. fashion_mnist: the four
    IDX files of Fashion-MNIST in `path`."""
    path: Path | None = None
    """Folder of the files; digits needs none."""
    val_share: OpenShare = 0.15
    """Share of the training images set aside for validation, stratified by class."""
    test_share: OpenShare = 0.2
    """Share of all images set aside for testing, stratified by class, where the data set has no
    test split of its own."""
    train_share: ShareAbove0 = 1.0
    """Share of the remaining training images to train on, stratified by class."""
    split_seed: Seed = 0
    """Random seed of all splits."""
    shift: Pixels = 0
    """Training images are shifted by up to this many pixels in each direction."""
    flip: bool = False
    """Mirror training images with probability one half."""

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return 10


class ImageDataConfig(Section):
    """A data set of images that timm reads and resizes to the model's input size."""

    name: Annotated[str, Field(pattern="^folder$|/")]
    """Name of the data set. folder: a folder with one folder (or .tar) per split, which holds one
    folder of images per class. Otherwise a name that timm.data.create_dataset knows, such as
    hfds/ILSVRC/imagenet-1k or wds/imagenet."""
    path: Path | None = None
    """Folder of the images, or of the data set's cache."""
    num_classes: Size
    """Number of classes."""
    train_split: str = "train"
    """Name of the split to train on."""
    test_split: str = "validation"
    """Name of the split that results are reported on."""
    val_split: str | None = None
    """Name of the split that decisions use; by default a share of the training images."""
    val_share: OpenShare = 0.02
    """Share of the training images set aside for validation, stratified by class. Not used if
    `val_split` is given."""
    split_seed: Seed = 0
    """Random seed of that split."""
    train_images: Images | None = None
    """Number of images in the training split: used to plan a study, and to check that none are
    missing."""
    workers: Processes = 4
    """Number of processes that read images, for each process that trains, but at most one for each
    CPU."""
    flip: bool = True
    """Mirror training images with probability one half."""
    crop: Share = 0.08
    """Training images are random crops that cover at least this share of the area."""
    crop_pct: Annotated[float, Field(ge=0.1, le=2)] | None = None
    """Share of the resized image, per side, that is cropped from its centre for testing; by default
    the value that the model was trained for."""
    interpolation: Literal["bilinear", "bicubic", "random"] | None = None
    """Interpolation used to resize images; by default the one that the model was trained for."""
    mean: list[Share] | None = None
    """Mean of each channel, for pixels in 0 to 1, that is subtracted from images; by default the
    one that the model was trained for."""
    std: list[Positive] | None = None
    """Standard deviation of each channel, for pixels in 0 to 1, that images are divided by; by
    default the one that the model was trained for."""


class OwnDataConfig(Section):
    """A data set that a Python function of yours makes."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")]
    """The function as module:function. It returns an ofbnas.Data, such as ofbnas.data_from makes of
    torch's Datasets or DataLoaders."""
    path: Path = Path()
    """Folder of the module, if it is not installed; by default that of the study's file."""
    kwargs: dict[str, Plain] = {}
    """Arguments of the function."""
    num_classes: Size
    """Number of classes."""
    train_images: Images | None = None
    """Number of training images: used to plan a study, which calls no function, and to check that
    none are missing."""


def label_of(data: SmallDataConfig | ImageDataConfig | OwnDataConfig) -> str:
    """What people call a data set: its name or, of a folder of images, the folder's.

    >>> label_of(ImageDataConfig(name="folder", path=Path("/data/flowers"), num_classes=5))
    'flowers'
    """
    if data.name == "folder" and data.path is not None:
        return data.path.name or data.name
    return data.name


def kind_of_data(value: Any) -> str:
    """The kind of section that a data set's name belongs to.

    Args:
        value: The section, as a mapping or a model.

    Returns:
        "images" for images that timm reads, "own" for those that a function makes, "small" for
        those kept in memory.

    >>> kind_of_data({"name": "hfds/ILSVRC/imagenet-1k"}), kind_of_data({"name": "my.data:make"})
    ('images', 'own')
    """
    name = value.get("name") if isinstance(value, dict) else getattr(value, "name", None)
    # timm's names of data sets begin with where they come from, such as hfds/ or torch/.
    if isinstance(name, str) and (name == "folder" or "/" in name):
        return "images"
    if isinstance(name, str) and ":" in name:
        return "own"
    return "small"


DataConfig = Annotated[
    Annotated[SmallDataConfig, Tag("small")]
    | Annotated[ImageDataConfig, Tag("images")]
    | Annotated[OwnDataConfig, Tag("own")],
    Discriminator(kind_of_data),
]
