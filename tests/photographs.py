"""A folder of JPEGs: pieces of the photographs that scikit-learn and matplotlib carry."""

from __future__ import annotations

from pathlib import Path

import matplotlib
from PIL import Image
from sklearn.datasets import load_sample_images

SIDE = 48  # of a piece, in pixels


def photographs() -> dict[str, Image.Image]:
    """Photographs by what they show."""
    temple, flower = map(Image.fromarray, load_sample_images().images)
    folder = Path(matplotlib.get_data_path()) / "sample_data"
    person = Image.open(folder / "grace_hopper.jpg").convert("RGB")
    return {"flower": flower, "person": person, "temple": temple}


def write_pieces(folder: Path) -> Path:
    """A folder with train/ and val/, which share no piece of a photograph, and a class for each.

    Args:
        folder: Where to write.
    """
    for name, photograph in photographs().items():
        places = [
            (left, top)
            for top in range(0, photograph.height - SIDE, SIDE)
            for left in range(0, photograph.width - SIDE, SIDE)
        ]
        for number, (left, top) in enumerate(places):
            split = "val" if number % 4 == 0 else "train"
            place = folder / split / name
            place.mkdir(parents=True, exist_ok=True)
            piece = photograph.crop((left, top, left + SIDE, top + SIDE))
            piece.save(place / f"{number:03d}.jpg", quality=90)
    return folder
