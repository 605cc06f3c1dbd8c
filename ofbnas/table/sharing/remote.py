"""Where a shared table is: folders, web servers, S3 and the Hugging Face Hub by address."""

from __future__ import annotations

import urllib.parse
import urllib.request
from pathlib import Path

from ofbnas.errors import InputError
from ofbnas.table.sharing.bucket import Bucket
from ofbnas.table.sharing.folder import Folder
from ofbnas.table.sharing.hub import Hub
from ofbnas.table.sharing.place import Source, Target
from ofbnas.table.sharing.web import Web


def source_at(address: str) -> Source:
    """The place to read from that an address names.

    Raises:
        InputError: It does not name one, or the package that reads it is not installed.
    """
    if address.startswith(("https://", "http://")):
        return Web(address)
    return _place(address)


def target_at(address: str) -> Target:
    """The place to write to that an address names.

    Raises:
        InputError: It does not name one, or the package that writes to it is not installed.
    """
    if address.startswith(("https://", "http://")):
        raise InputError(
            f"{address}: can only be read; expected a folder, file:///, s3:// or hf:// to push to"
        )
    return _place(address)


def local_path(address: str) -> Path:
    """The path that a file:// address or a plain path names.

    Raises:
        InputError: It names a place that is not on this machine.
    """
    if not address.startswith("file://"):
        if "://" in address:
            raise InputError(
                f"{address}: expected a folder, file:///..., s3://..., hf://datasets/... "
                "or https://..."
            )
        return Path(address)

    parts = urllib.parse.urlsplit(address)
    if parts.netloc not in ("", "localhost") or len(parts.path) < 2:
        raise InputError(
            f"{address}: expected file:/// and the whole path of a folder on this machine"
        )
    return Path(urllib.request.url2pathname(parts.path))


def _place(address: str) -> Folder | Bucket | Hub:
    """A place that can be read and written."""
    if address.startswith("s3://"):
        return Bucket(address)
    if address.startswith("hf://"):
        return Hub(address)
    return Folder(local_path(address))
