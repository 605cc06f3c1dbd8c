"""The folder of what is computed once for all studies."""

from __future__ import annotations

import os
from pathlib import Path

from ofbnas.errors import InputError


def cache_folder() -> Path:
    """The folder OFBNAS_CACHE, by default ~/.cache/ofbnas.

    Raises:
        InputError: It is not set, and there is no home folder.
    """
    folder = os.environ.get("OFBNAS_CACHE")
    if folder:
        return Path(folder)
    try:
        return Path.home() / ".cache" / "ofbnas"
    except RuntimeError:
        raise InputError(
            "there is no home folder for the cache: set OFBNAS_CACHE to a folder"
        ) from None
