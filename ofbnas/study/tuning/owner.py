"""Which folder a study in Optuna's storage belongs to, since several may share a database."""

from __future__ import annotations

import uuid
from pathlib import Path

import optuna

from ofbnas.config import StudyConfig
from ofbnas.config.storage import file_of, shown
from ofbnas.errors import InputError
from ofbnas.files import durable

OWNER = "ofbnas_folder"  # attribute of Optuna's study
ID_FILE = ".study-id"  # in folders whose study lies elsewhere


def set_owner(config: StudyConfig, folder: Path, study: optuna.Study) -> None:
    """Record in Optuna's study which folder it belongs to."""
    identity = None
    if _is_shared(config, folder):
        identity = identity_of(folder)
    owner = {
        "id": identity,
        "folder": str(folder.resolve()),
    }
    study.set_user_attr(OWNER, owner)


def check_owner(config: StudyConfig, folder: Path, study: optuna.Study) -> None:
    """Check that a study in a storage that several folders may use is not another folder's.

    Raises:
        InputError: It is.
    """
    if not _is_shared(config, folder):
        return
    owner = study.user_attrs.get(OWNER)
    if owner is None:
        whose = "made by other means"
    else:
        whose = f"of the folder {owner['folder']}"
        # The path may have changed, so the folder is recognized by the name it keeps.
        file = folder / ID_FILE
        if file.is_file() and file.read_text() == owner["id"]:
            return

    storage = shown(config.sweep.storage or "")
    raise InputError(
        f"sweep.storage {storage}: has a study {config.name} already, "
        f"{whose}; give this one another name, or another database"
    )


def identity_of(folder: Path) -> str:
    """A random name that a study's folder keeps wherever it is moved; created at the first call."""
    file = folder / ID_FILE
    if not file.is_file():
        durable.write(file, uuid.uuid4().hex)
    return file.read_text()


def _is_shared(config: StudyConfig, folder: Path) -> bool:
    """Whether other folders may have their studies in the same storage."""
    file = file_of(config.sweep.storage, folder)
    return file is None or file.resolve().parent != folder.resolve()
