"""Splits of an image data set: where they are, and checks that they are disjoint and fit together.

If the folder of a split is missing, timm reads the whole data set instead, and it accepts unknown
names of splits: without these checks, a network could be tested on the images it was trained on.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Mapping
from itertools import combinations, product
from pathlib import Path
from typing import Any, NamedTuple

from torch.utils.data import IterableDataset

from ofbnas.errors import InputError

# Names that timm treats as equal, in the order in which it looks for their folders.
SYNONYMS = (("train", "training"), ("val", "valid", "validation", "eval", "evaluation"))
# Data sets of torchvision for which timm reads the training images for "train" and its synonyms,
# and the test images for any other name.
OF_TWO_SPLITS = ("cifar10", "cifar100", "mnist", "kmnist", "fashion_mnist", "qmnist")
_SLICE = re.compile(r"\[(-?\d{1,15}%?)?:(-?\d{1,15}%?)?\]")
_END = 10.0**15  # in place of a split's number of images, which is not known here


_Identity = tuple[int, int]  # of a file: device and inode


class _File(NamedTuple):
    """A file of a split.

    Attributes:
        split: Name of the split.
        path: Path of the file.
    """

    split: str
    path: str


class _Part(NamedTuple):
    """A slice of a split, as tfds and Hugging Face's datasets write it: train[80%:].

    Attributes:
        name: Name of the split.
        unit: "%" if the bounds are percentages, else "".
        low: Where the slice starts.
        high: Where it ends.
    """

    name: str
    unit: str = ""
    low: float = 0.0
    high: float = _END

    def overlaps(self, other: _Part) -> bool:
        """Whether the two may have images in common."""
        if self.name != other.name:
            return False
        if self.unit != other.unit:  # percentages and numbers cannot be compared
            return True
        return self.low < other.high and other.low < self.high


def split_path(path: Path, split: str) -> Path:
    """The folder, or the .tar file, of a split.

    Args:
        path: The data set's folder.
        split: The split's name; its synonyms are looked for, too.

    Raises:
        InputError: There is no such folder, or the name leads out of the data set's folder.
    """
    folders = split.split("/")
    leads_out = any(folder in ("", ".", "..") for folder in folders)
    if "\0" in split or "\\" in split or leads_out:
        raise InputError(f"split {split!r}: is not the name of a folder in data.path {path}")
    others = [name for name in _synonyms(split) if name != split]
    names = [split, *others]
    for name in names:
        folder = path / name
        archive = path / f"{name}.tar"
        if folder.is_dir() or (folder.suffix == ".tar" and folder.is_file()):
            return folder
        if archive.is_dir() or archive.is_file():
            return archive
    raise InputError(
        f"data.path {path}: has no folder for the split {split}, expected {'/ or '.join(names)}/, "
        "or a .tar of such a name; data.train_split, test_split and val_split name them"
    )


def check_names(name: str, splits: Mapping[str, str]) -> None:
    """Check that no two fields name the same split, or overlapping slices of one.

    Args:
        name: Name of the data set.
        splits: Field, such as "test_split", to the name of its split.

    Raises:
        InputError: Two fields name the same images.
    """
    for field, other_field in combinations(splits, 2):
        split = splits[field]
        other = splits[other_field]
        pairs = product(_parts(name, split), _parts(name, other))
        overlap = any(part.overlaps(other_part) for part, other_part in pairs)
        if overlap:
            raise InputError(
                f"data.{field} {split} and data.{other_field} {other} are the same images of "
                f"{name}, at least in part; give each its own split"
            )


def check_apart(splits: Mapping[str, Any]) -> None:
    """Check that opened splits share no file, and number their classes alike.

    Args:
        splits: Name of each split to timm's data set of it.

    Raises:
        InputError: They do not, or a file is not a regular file.
    """
    for split, other in combinations(splits, 2):
        classes = classes_of(splits[split])
        other_classes = classes_of(splits[other])
        if classes and other_classes and classes != other_classes:
            only_in_one = classes.items() ^ other_classes.items()
            differing = min(name for name, _ in only_in_one)
            raise InputError(
                f"the splits {split} and {other} do not have the same classes ({differing!r} is "
                "missing in one, or has another number), so labels would not mean the same; give "
                "both the same folders of classes"
            )

    # The largest split comes last, so that its files are compared with the others' but not kept.
    ordered = sorted(splits, key=lambda split: images_in(splits[split]))
    largest = ordered[-1]
    seen: dict[_Identity, _File] = {}
    for split in ordered:
        own: dict[_Identity, _File] = {}
        for path in _files(splits[split]):
            identity = _identity(path)
            known = seen.get(identity)
            # A network file system may reuse an identity for another file, so the paths decide.
            if known is not None and Path(path).samefile(known.path):
                raise InputError(
                    f"the splits {known.split} and {split} share {path}: a network would be tested "
                    "on what it was trained on; give each split its own files"
                )
            if split != largest:
                own[identity] = _File(split, path)
        seen |= own


def classes_of(dataset: Any) -> dict[str, int]:
    """Class to its number, if timm's data set knows them by name; empty otherwise."""
    for owner in (getattr(dataset, "reader", None), dataset):
        for attribute in ("class_to_idx", "class_name_to_idx"):
            classes = getattr(owner, attribute, None)
            if classes:
                return dict(classes)
    return {}


def images_in(dataset: Any) -> int:
    """Number of images of a split."""
    if isinstance(dataset, IterableDataset):
        stream: Any = dataset  # timm's, whose reader knows the number
        return int(stream.reader.num_samples)
    return len(dataset)


def _files(dataset: Any) -> Iterator[str]:
    """The files that a split is read from, as far as the split has files of its own."""
    reader = getattr(dataset, "reader", dataset)  # torchvision's data sets read themselves
    if hasattr(reader, "tar_state"):
        yield str(reader.root)
        return
    if type(reader).__name__ == "ReaderWds":  # importing the class would need webdataset
        for shard in reader.split_info.filenames:
            yield str(Path(reader.root) / shard)
        return
    samples = getattr(reader, "samples", None)
    if isinstance(samples, list):
        for file, _ in samples:
            yield str(file)


def _identity(file: str) -> _Identity:
    """Device and inode of a file, which are the same for all links to it.

    Raises:
        InputError: There is no such file, or it is not a regular file.
    """
    try:
        state = os.stat(file)  # noqa: PTH116 (faster than pathlib; there may be a million files)
    except OSError as error:
        raise InputError(
            f"{file}: cannot be read ({error.strerror}), but is among the images of data.path"
        ) from None
    if not stat.S_ISREG(state.st_mode):
        raise InputError(f"{file}: is not a regular file, but is among the images of data.path")
    return state.st_dev, state.st_ino


def _parts(name: str, split: str) -> list[_Part]:
    """The slices that a split of a data set is made of, such as train[:80%]+extra.

    >>> [(part.name, part.low, part.high) for part in _parts("tfds/mnist", "train[:80%]")]
    [('train', 0.0, 80.0)]
    """
    words = name.lower().split("/")
    if words[0] != "torch":
        return [_part(part.strip()) for part in split.split("+")]

    # timm's names of torchvision's splits, which have no slices: synonyms are the same split.
    synonyms = _synonyms(split)
    known = synonyms[0] if synonyms else split
    if words[-1] in OF_TWO_SPLITS and known != "train":
        known = "test"
    return [_Part(known)]


def _synonyms(split: str) -> tuple[str, ...]:
    """The names that timm treats as equal to a split's, itself included; empty if it has none."""
    for group in SYNONYMS:
        if split in group:
            return group
    return ()


def _part(text: str) -> _Part:
    """A split, or a slice of one; a slice in another notation counts as the whole split."""
    name = text.partition("[")[0]
    bounds = _SLICE.fullmatch(text.removeprefix(name))
    if bounds is None:
        return _Part(name)
    unit = "%" if "%" in bounds[0] else ""
    end = 100.0 if unit else _END
    first = bounds[1] or "0"
    last = bounds[2] or str(end)
    low = _from_start(first, end)
    high = _from_start(last, end)
    return _Part(name, unit, low, high)


def _from_start(bound: str, end: float) -> float:
    """A bound of a slice, counted from the start; negative ones count from the end."""
    value = float(bound.rstrip("%"))
    return value + end if value < 0 else value
