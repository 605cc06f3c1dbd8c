"""ofbnas doctor: what this machine has."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from ofbnas.cli.output import Json, print_json, print_table


def doctor(as_json: Json = False) -> None:
    """Show versions, processors, accelerators, folders and free disk.

    Example: ofbnas doctor
    """
    import torch

    from ofbnas.parent import cache_folder
    from ofbnas.trial import versions

    cache = cache_folder()
    found: dict[str, Any] = {
        **versions(),
        "cpus": os.cpu_count(),
        "gpus": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
        "cuda": torch.version.cuda if torch.cuda.is_available() else None,
        "cache": str(cache),
        "cache_writable": _writable(cache),
        "disk_free_gb": round(shutil.disk_usage(Path.cwd()).free / 1e9, 1),
    }
    if as_json:
        print_json(found)
    else:
        shown = {
            name: ", ".join(value) or "none" if isinstance(value, list) else value for name, value in found.items()
        }
        print_table(["", "found"], [{"": name, "found": str(value)} for name, value in shown.items()])


def _writable(folder: Path) -> bool:
    """Whether files can be made in a folder, or in the nearest one above it that exists."""
    existing = next(place for place in (folder, *folder.parents) if place.exists())
    return os.access(existing, os.W_OK)
