"""How wide the columns of a printed table are, and which are left out where not all fit.

Numbers and ids are never split. Sentences wrap at words; headings, and words that are longer than any
id, such as paths and names of fields, wrap at dots, underscores and slashes, too.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

GAP = 2  # characters between two columns
ID = 20  # characters that an id or a number has at most
LONG_ID = 40  # those of a commit; only a checksum is longer, and is split where nothing else helps


@dataclass(frozen=True)
class Printed:
    """A column of texts.

    Attributes:
        heading: Its name.
        cells: Its texts.
        whole: Whether they are numbers, perhaps with a unit, which are never broken.
    """

    heading: str
    cells: Sequence[str]
    whole: bool = False

    @property
    def natural(self) -> int:
        """The width at which nothing wraps."""
        return max(len(self.heading), *map(len, self.cells), 1)

    @property
    def least(self) -> int:
        """The width below which something would be split that has to stay whole."""
        words = list(self.cells)
        if not self.whole:
            words = [part for cell in words for word in cell.split() for part in _cell_parts(word)]
        longest = max(map(len, [*words, " "]))
        return max(min(longest, LONG_ID), *map(len, _parts(self.heading)), 1)


def wrapped_heading(heading: str, width: int) -> str:
    r"""A heading in lines of at most a width, as far as it can be broken.

    >>> wrapped_heading("top1_before_finetune", 9)
    'top1_\nbefore_\nfinetune'
    """
    return _in_lines(_parts(heading), width)


def wrapped_cell(text: str, width: int) -> str:
    r"""A text in lines of at most a width, as far as it can be broken.

    >>> wrapped_cell("the longest: hp.search.importance_weight.warmup", 20)
    'the longest: hp.\nsearch.importance_\nweight.warmup'
    """
    parts = [part for word in re.findall(r"\S+\s*", text) for part in _cell_parts(word)]
    return _in_lines(parts, width)


def fitting(columns: Sequence[Printed], width: int) -> list[int]:
    """The widths of the first columns, as many as fit; at least one.

    >>> fitting([Printed("id", ["0a0b"]), Printed("note", ["it is fine"]), Printed("n", ["7"])], 15)
    [4, 6, 1]
    """
    for count in range(len(columns), 0, -1):
        room = width - GAP * (count - 1)
        widths = _narrowed(columns[:count], room)
        if sum(widths) <= room:
            return widths
    return [width]


def _narrowed(columns: Sequence[Printed], room: int) -> list[int]:
    """Widths of which the largest are reduced until they fit, but none below its least."""
    widths = [column.natural for column in columns]
    least = [column.least for column in columns]
    while sum(widths) > room:
        wide = [index for index, width in enumerate(widths) if width > least[index]]
        if not wide:
            break
        widest = max(wide, key=widths.__getitem__)
        widths[widest] -= 1
    return widths


def _in_lines(parts: Sequence[str], width: int) -> str:
    """Parts in lines, as many in each as fit."""
    lines = [""]
    for part in parts:
        if lines[-1] and len(lines[-1]) + len(part.rstrip()) > width:
            lines.append("")
        lines[-1] += part
    return "\n".join(line.rstrip() for line in lines)


def _cell_parts(word: str) -> list[str]:
    """A word of a cell broken where it may be: an id or a number nowhere."""
    return _parts(word) if len(word.rstrip()) > ID else [word]


def _parts(text: str) -> list[str]:
    """A text broken after dots, underscores, slashes and spaces."""
    return re.findall(r"[^._/ ]*[._/ ]*", text)[:-1]
