"""Figures that should be taken with care are said to be."""

import pandas as pd
import pytest
from rows import write_row
from test_table import row

from ofbnas.table.columns import Row
from ofbnas.table.front import default_quality, front
from ofbnas.table.store import read_table
from ofbnas.table.trust import row_warnings, table_warnings


def of(**values) -> Row:
    return Row(study="s", trial=0, status="complete", model="vit", model_kwargs="{}", **values)


def test_a_row_with_enough_images_and_time_has_no_warning():
    assert row_warnings(of(forced=6, axes=13, val_images=500, val_top1=90.0)) is None
    assert row_warnings(of()) is None, "nothing is known"


def test_a_row_says_that_most_axes_were_forced():
    warning = row_warnings(of(forced=7, axes=13, val_images=500, val_top1=90.0))
    assert warning.startswith("7 of 13 axes were still open") and ";" not in warning


@pytest.mark.parametrize(("top1", "margin"), [(50.0, 9.6), (90.0, 6.1), (100.0, 2.6)])
def test_a_row_says_how_exactly_few_images_measure(top1, margin):
    assert row_warnings(of(val_images=100, val_top1=top1)) == (
        f"there are only 100 validation images, so val_top1 is known to about ± {margin} points"
    )


def test_few_images_are_said_of_a_model_without_a_classifier_too():
    assert row_warnings(of(val_images=100)) == "there are only 100 validation images"


def test_a_front_is_selected_on_validation_images_where_all_tables_have_them():
    both = pd.DataFrame({"gmacs": [1.0, 2.0], "val_top1": [50.0, 60.0], "top1": [70.0, 65.0]})
    published = both.drop(columns="val_top1")
    assert default_quality([both]) == "val_top1"
    assert default_quality([both, published]) == default_quality([published]) == "top1"
    assert default_quality([both.assign(val_top1=None)]) == "top1"
    assert default_quality([both.assign(val_top1=[50.0, None])]) == "top1", "one lacks it"
    features = pd.DataFrame({"gmacs": [1.0], "val_top1": [None], "knn_top1": [50.0]})
    assert default_quality([features]) == "knn_top1"
    assert front(both)["gmacs"].tolist() == [1.0, 2.0]
    assert front(both, y="top1")["gmacs"].tolist() == front(published)["gmacs"].tolist() == [1.0]


def test_a_table_says_what_its_rows_say_and_by_what_its_front_was_selected(tmp_path):
    for trial, (forced, images) in enumerate([(13, 216), (12, 216), (0, 216)]):
        write_row(tmp_path, row(trial, forced=forced, axes=13, val_images=images))
    table = read_table(tmp_path)
    most, few = table_warnings(table, "val_top1")
    assert most.startswith("In 2 of 3 rows most axes") and "on 216 validation images" in few
    most, on_test = table_warnings(table, "top1")
    assert most.startswith("In 2 of 3") and "selected on test images" in on_test


def test_a_table_of_others_that_lacks_the_columns_has_no_warning():
    assert table_warnings(pd.DataFrame({"gmacs": [1.0], "val_top1": [50.0]}), "val_top1") == []
