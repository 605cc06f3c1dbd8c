"""ARCHITECTURE.md names files that exist, and leaves out no package."""

from __future__ import annotations

import re

from conftest import ROOT

TOUR = (ROOT / "ARCHITECTURE.md").read_text()
PACKAGE = ROOT / "ofbnas"


def named() -> set[str]:
    """Paths of files and folders that the tour names, most of them relative to the package."""
    found = re.findall(r"`([\w/]+(?:/|\.py|\.md|\.toml)|(?:\w+/)+\w+)(?:: \w+(?:\.\w+)*)?`", TOUR)
    return {path for path in found if path != "study.yaml"}


def test_every_file_that_the_tour_names_exists():
    assert len(named()) > 40
    missing = {
        path for path in named() if not ((PACKAGE / path).exists() or (ROOT / path).exists())
    }
    assert not missing


def test_every_name_that_the_tour_looks_up_in_a_file_is_there():
    pairs = re.findall(r"`([\w/]+\.py):\s+(\w+)`", TOUR)
    assert len(pairs) >= 6
    for path, name in pairs:
        assert re.search(rf"^(class|def) {name}\b", (PACKAGE / path).read_text(), re.MULTILINE), (
            name
        )


def test_every_package_is_in_the_drawing():
    drawing = TOUR.split("```")[1]
    packages = {place.name for place in PACKAGE.iterdir() if (place / "__init__.py").is_file()}
    packages |= {"cluster", "tuning", "report"}
    assert all(f" {name}/" in f" {drawing}".replace("\n", " ") for name in packages)
