"""A simulated disk that may lose what was not synced: what a power cut at any time leaves of a folder.

The calls that sync, rename and remove are recorded as they happen to real files. After each, two things may be left:
only names and contents that were synced; or all names as they are now, with only those contents that were synced.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import patch

Image = dict[str, bytes]  # path to content


@dataclass
class Node:
    """A file's content or a folder's names, as they are on the disk; nothing before the first sync."""

    is_folder: bool
    content: bytes = b""
    names: dict[str, Node] = field(default_factory=dict)


class Disk:
    """What a power cut may leave of a folder.

    Attributes:
        images: What may be left, two after each recorded call: only what was synced, and all names.
    """

    def __init__(self, root: Path) -> None:
        self.root, self.nodes, self.images = root, dict[int, Node](), list[Image]()
        for folder, _, files in os.walk(
            root, topdown=False
        ):  # everything that exists at the start is on the disk
            for name in files:
                self._node(Path(folder, name)).content = Path(folder, name).read_bytes()
            self._node(Path(folder)).names = self._names(Path(folder))

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """Record what the block does."""
        with patch.multiple(
            os,
            fsync=self._fsync,
            replace=self._renaming(os.replace),
            rename=self._renaming(os.rename),
            unlink=self._removing(os.unlink),
            rmdir=self._removing(os.rmdir),
        ):
            yield

    def _fsync(self, handle: int, real=os.fsync) -> None:
        real(handle)
        place = Path(f"/proc/self/fd/{handle}").readlink()
        if not place.is_relative_to(self.root):
            return
        node = self._node(place)
        if node.is_folder:
            node.names = self._names(place)
        else:
            node.content = place.read_bytes()
        self._cut()

    def _renaming(self, real):
        def rename(source, target, **kwargs):
            if Path(target).is_relative_to(self.root):
                self._forget(target)
            real(source, target, **kwargs)
            self._cut()

        return rename

    def _removing(self, real):
        def remove(path, **kwargs):
            self._forget(path, **kwargs)
            real(path, **kwargs)
            self._cut()

        return remove

    def _forget(self, path, **kwargs) -> None:
        """Forget a file that is removed, since its inode number may be reused."""
        try:
            self.nodes.pop(os.stat(path, follow_symlinks=False, **kwargs).st_ino, None)  # noqa: PTH116 (a folder's handle)
        except FileNotFoundError:
            return

    def _node(self, place: Path) -> Node:
        state = place.stat()
        return self.nodes.setdefault(state.st_ino, Node(stat.S_ISDIR(state.st_mode)))

    def _names(self, folder: Path) -> dict[str, Node]:
        return {place.name: self._node(place) for place in folder.iterdir()}

    def _cut(self) -> None:
        self.images += [dict(self._synced(self._node(self.root), "")), dict(self._named())]

    def _synced(self, node: Node, path: str) -> Iterator[tuple[str, bytes]]:
        for name, below in node.names.items():
            if below.is_folder:
                yield from self._synced(below, f"{path}{name}/")
            else:
                yield f"{path}{name}", below.content

    def _named(self) -> Iterator[tuple[str, bytes]]:
        for place in sorted(self.root.rglob("*")):
            if place.is_file():
                yield place.relative_to(self.root).as_posix(), self._node(place).content


def restore(image: Image, root: Path) -> Path:
    """A folder as a power cut left it."""
    for path, content in image.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
    return root
