"""The budgets that a plan measures."""

from __future__ import annotations

import pytest
from conftest import DIGITS

from ofbnas.config.study_file import load_study
from ofbnas.study.plan import requested_budgets


def shares(params: str, between: int) -> list[float]:
    study = load_study(DIGITS, [f"sweep.params={params}"])
    return [budget.gmacs_share for budget in requested_budgets(study, between)]


def test_budgets_between_the_ends_of_a_range_are_spaced_by_a_factor():
    swept = "{search.budget.gmacs_share: {low: 0.1, high: 0.4}}"
    assert shares(swept, 0) == [0.1, 0.4]
    assert shares(swept, 1) == pytest.approx([0.1, 0.2, 0.4])


def test_choices_have_none_between_them_and_a_fixed_budget_is_the_only_one():
    assert shares("{search.budget.gmacs_share: {choices: [0.5, 0.3]}}", 3) == [0.5, 0.3]
    assert shares("{search.budget.gmacs_share: {low: 0.3, high: 0.3}}", 3) == [0.3]
    assert len(shares("{}", 3)) == 1
