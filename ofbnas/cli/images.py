"""The images of a command that is given a network: what is known of them, and what --data adds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

if TYPE_CHECKING:
    from ofbnas.config import DataConfig, StudyConfig
    from ofbnas.table.columns import Row

DATA_FORMS = (
    "--data STUDY.yaml, --data NAME such as digits, "
    "or --data FIELD=VALUE such as path=/data/imagenet"
)
DataOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--data",
        metavar="DIR|NAME|FIELD=VALUE|STUDY.yaml",
        help="The images, or what is not known of them: a folder, the name of a data set, a field "
        "such as path=DIR, or a study that uses them; may be repeated.",
    ),
]


class Known(NamedTuple):
    """What is known of the images of a network.

    Attributes:
        fields: Fields of the section data of a study.
        network: The network, for messages.
        where: What they were read from, for messages.
        trusted: Whether the user chose them; otherwise they may come from a stranger, who must not
            choose what this machine downloads or runs.
    """

    fields: Mapping[str, Any]
    network: str
    where: object
    trusted: bool = True


def known_of_row(
    row: Row, table: Path, study: StudyConfig | None, *, chosen: bool = False
) -> Known:
    """What a study, if there is one, or a row says of the images of its network.

    Args:
        row: The row of a network.
        table: Its table.
        study: The study that it belongs to.
        chosen: Whether the user has named the study; otherwise it is the table's, and may come from
            a stranger, as the table may.

    Raises:
        InputError: What the row says is not a section of a study.
    """
    from ofbnas.config import OwnDataConfig
    from ofbnas.config.images import recorded_data

    if study is None:
        return Known(recorded_data(row.data, table), str(row.arch_id), table, trusted=False)
    fields = study.data.model_dump()
    trusted = chosen or not isinstance(study.data, OwnDataConfig)
    if not trusted:
        del fields["path"]  # of Python code
    return Known(fields, str(row.arch_id), table, trusted)


def chosen_images(known: Known, given: Sequence[str], classes: int) -> DataConfig:
    """The images that are known, changed by the command line.

    Args:
        known: What is known of them.
        given: The values of --data.
        classes: Number of the network's classes, used where nothing says how many the images have.

    Raises:
        InputError: Nothing says which images they are, or a field is not one of a data set's, or a
            data set that only a stranger's table names would be downloaded, or a function called.
    """
    from ofbnas.config.images import completed_data
    from ofbnas.config.model import kind_of_data
    from ofbnas.config.study_file import load_study
    from ofbnas.errors import InputError
    from ofbnas.training.data import may_download

    studies = []
    fields: dict[str, Any] = {}
    for argument in given:
        if argument.endswith((".yaml", ".yml")):
            studies.append(Path(argument))
        else:
            fields |= _fields(argument)
    if len(studies) > 1:
        raise InputError(f"--data: names {len(studies)} studies, expected one")
    if studies:
        known = known._replace(fields=load_study(studies[0]).data.model_dump(), trusted=True)

    name = fields.get("name", known.fields.get("name"))
    if name is None:
        raise InputError(
            f"{known.where}: does not say which images {known.network} is for; give {DATA_FORMS}"
        )
    if not known.trusted and "name" not in fields:
        if may_download(str(name)):
            raise InputError(
                f"{known.where}: says that the images are {name}, which may be downloaded; "
                f"--data {name} allows it"
            )
        if kind_of_data({"name": name}) == "own":
            raise InputError(
                f"{known.where}: says that {name} makes the images, which would be called; "
                f"--data {name} allows it, of the working folder or of --data path=DIR"
            )
    where = "--data" if given else known.where
    return completed_data(known.fields, fields, classes, where)


def check_classes(images: DataConfig, network: str, classes: int) -> None:
    """Check that images have a network's number of classes.

    Raises:
        InputError: They have another one.
    """
    from ofbnas.errors import InputError

    if images.num_classes != classes:
        raise InputError(
            f"{network} has {classes} classes, but {images.name} has {images.num_classes}; "
            f"give {DATA_FORMS}"
        )


def check_size(images: DataConfig, network: str, size: tuple[int, int, int]) -> None:
    """Check that images have the size that a network takes, or are resized to it.

    Args:
        images: The images.
        network: The network, for messages.
        size: Channels, height and width.

    Raises:
        InputError: They have another one.
    """
    from ofbnas.errors import InputError
    from ofbnas.training.data import SIZES

    if SIZES.get(images.name, size) != size:
        raise InputError(
            f"{network} takes images of {size} (channels, height, width), "
            f"but {images.name} has {SIZES[images.name]}; give {DATA_FORMS}"
        )


def _fields(argument: str) -> dict[str, Any]:
    """Fields of a study's data, from FIELD=VALUE, a folder, or a data set's name."""
    from ofbnas.files.documents import parse_yaml
    from ofbnas.training.data import SIZES

    if "=" not in argument:
        folder = Path(argument).expanduser()
        if argument not in SIZES and folder.is_dir():
            return {"name": "folder", "path": str(folder.resolve())}
        return {"name": argument}
    name, value = argument.split("=", 1)
    field = name.removeprefix("data.")
    # A path starts from the working folder, and may contain characters that YAML would interpret.
    if field == "path":
        return {field: str(Path(value).expanduser().resolve())}
    parsed, _ = parse_yaml(value, f"--data {name}")
    return {field: parsed}
