"""Drawings of fronts: what each shows, and that nothing hides anything."""

from __future__ import annotations

from pathlib import Path

import matplotlib.figure
import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from matplotlib.backends.backend_agg import FigureCanvasAgg

from ofbnas.table.parents import parents_sentence
from ofbnas.table.plot_picture import picture_of
from ofbnas.table.series import drawing_of
from ofbnas.table.store import read_table

PUBLISHED = ROOT / "studies" / "tables" / "published.parquet"


def runs(seeds: int, study: str = "one") -> pd.DataFrame:
    """Rows of a study that was run with several seeds, four trials each."""
    rows = []
    for seed in range(seeds):
        for trial in range(4):
            rows.append(
                {
                    "study": study, "trial": trial, "seed": 100 * seed + trial, "status": "complete",
                    "model": "vit", "arch_id": f"{seed}{trial}", "gmacs": 1.0 + trial + 0.1 * seed,
                    "top1": 80.0 + trial - (trial * seed) % 3,
                    "parent_gmacs": 9.0, "parent_top1": 85.0 + seed,
                }
            )  # fmt: skip
    return pd.DataFrame(rows)


def published() -> dict[str, pd.DataFrame]:
    return {str(label): rows for label, rows in read_table(PUBLISHED).groupby("study")}


def test_no_two_tables_have_the_same_color_and_mark():
    tables = {f"table {number}": runs(1) for number in range(50)}
    series = drawing_of(tables, "gmacs", "top1").series
    assert len({(drawn.color, drawn.mark) for drawn in series}) == 50
    assert len({drawn.color for drawn in series[:8]}) == 8
    assert len({drawn.mark for drawn in series[:9]}) == 9


def test_each_parent_has_its_star_and_its_name():
    drawing = drawing_of(published(), "gmacs", "top1")
    assert len(drawing.parents) == 5
    figure = picture_of(drawing, matplotlib.figure)
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    for number, (name, points) in enumerate(drawing.parents.items(), start=1):
        label = f"parent {number}: {name}"
        star = next(line for line in figure.axes[0].lines if line.get_label() == label)
        assert label in labels and list(zip(*star.get_data(), strict=True)) == points
    alone = picture_of(drawing_of({"a": runs(1)}, "gmacs", "top1"), matplotlib.figure)
    assert [text.get_text() for text in alone.legends[0].get_texts()] == ["front", "parent: vit"]


@pytest.mark.parametrize("tables", [published(), {"a": runs(1)}], ids=["published", "one"])
def test_the_legend_and_labels_hide_nothing(tables):
    figure = picture_of(drawing_of(tables, "gmacs", "top1"), matplotlib.figure)
    FigureCanvasAgg(figure).draw()
    plot = figure.axes[0]
    legend = figure.legends[0].get_window_extent()
    assert legend.y1 <= plot.get_tightbbox().y0, "below the axis and its label"
    assert figure.bbox.x0 <= legend.x0 and legend.x1 <= figure.bbox.x1 and legend.y0 >= 0
    boxes = [text.get_window_extent() for text in plot.texts]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[i + 1 :])


def test_a_band_covers_the_fronts_of_all_seeds(tmp_path: Path):
    drawing = drawing_of({"seeds": runs(3), "alone": runs(1)}, "gmacs", "top1")
    seeds, alone = drawing.series
    costs, low, high = seeds.band
    assert alone.band is None and (low <= high).all() and (low < high).any()
    for seed in range(3):
        rows = runs(3)
        run = rows[rows["seed"] // 100 == seed]
        for cost, worst, best in zip(costs, low, high, strict=True):
            attained = run.loc[run["gmacs"] <= cost, "top1"].max()
            assert worst <= attained <= best
    assert np.isfinite(low).all()
    several_studies = pd.concat([runs(2, "one"), runs(2, "other")])
    assert drawing_of({"both": several_studies}, "gmacs", "top1").series[0].band is None


def test_costs_are_drawn_in_a_unit_that_keeps_them_short():
    rows = runs(1).assign(gmacs=[1e-5, 2e-5, 3e-5, 4e-5], parent_gmacs=8e-5)
    drawing = drawing_of({"a": rows}, "gmacs", "top1")
    assert drawing.labels == ("multiply-accumulates per image, kMACs", "top-1 accuracy, %")
    assert drawing.series[0].rows["gmacs"].tolist() == pytest.approx([10, 20, 30, 40])
    assert drawing.series[0].front["gmacs"].max() <= 40
    assert drawing.parents["vit"] == [pytest.approx((80, 85))]


def test_the_sentence_names_several_parents():
    assert parents_sentence(runs(1), "top1") == "The parent has top1 85.00."
    assert parents_sentence(runs(3), "top1") == "The parent has top1 85.00 to 87.00."
    said = parents_sentence(read_table(PUBLISHED), "top1")
    assert "deit_tiny_patch16_224 72.20" in said and "deit_base_patch16_224 81.80" in said
    assert parents_sentence(runs(1), "val_top1") == ""
