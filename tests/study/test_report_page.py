"""A report in a real browser: selecting, sorting, filtering, colour schemes, a phone, hostile texts."""

from __future__ import annotations

import ast
import shlex

import pandas as pd
import pytest
import yaml
from commands import wait
from made_studies import (
    HOSTILE,
    NAN,
    PARENTS,
    add,
    begin,
    failed_row,
    finished,
    kinds_of,
    of_kind,
    row_of,
    written,
)
from selenium.webdriver import ActionChains
from selenium.webdriver.common.keys import Keys

from ofbnas.models.architecture import encode_sizes

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def vit(tmp_path_factory) -> str:
    return written(finished(tmp_path_factory.mktemp("vit")))


# Pairs of texts of one chart that lie on each other, as their words.
COLLISIONS = """[...document.querySelectorAll('svg')].flatMap((chart) => {
  const texts = [...chart.querySelectorAll('text')].filter((text) => text.textContent);
  const boxes = texts.map((text) => text.getBoundingClientRect());
  const apart = (a, b) => a.right <= b.left || b.right <= a.left || a.bottom <= b.top + 2 || b.bottom <= a.top + 2;
  return texts.flatMap((text, i) => texts.slice(i + 1)
    .filter((_, j) => !apart(boxes[i], boxes[i + 1 + j]))
    .map((other) => [text.textContent, other.textContent]));
})"""

KINDS = ["vit", "beit", "swin", "empty", "failed", "unfinished", "elsewhere", "one", "table"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("width", [1280, 360])
def test_any_study_is_shown_without_errors_requests_or_scrolling_sideways(
    browser, tmp_path, kind, width
):
    url = written(of_kind(kind, tmp_path))
    browser.open(url, width)
    for trial in browser.js("[...document.getElementById('selected').options].map(o => o.value)"):
        browser.choose("selected", trial)
        assert browser.js("document.documentElement.scrollWidth") <= width
    assert browser.js(COLLISIONS) == []
    assert browser.js(
        "[...document.querySelectorAll('section:not([hidden])')].every(s => s.getBoundingClientRect().height > 60)"
    )
    assert browser.complaints() == []
    assert {address.partition("#")[0] for address in browser.requests()} - {"data:,"} == {url}


def test_what_only_a_database_knows_is_said_to_be_left_out(browser, tmp_path, vit):
    browser.open(written(of_kind("elsewhere", tmp_path)))
    assert "ofbnas study report --connect" in browser.one("#left-out").text
    assert "ofbnas study report --connect" in browser.one("#importance").text
    browser.open(vit)
    assert not browser.one("#left-out").is_displayed()


def test_what_to_type_for_the_selected_network_follows_the_selection(browser, tmp_path):
    folder = tmp_path / "it's mine"
    folder.mkdir()
    browser.open(written(finished(folder)), 390)
    data = browser.js("JSON.parse(document.getElementById('data').textContent)")
    study = data["study"]["folder"]
    for trial in [each for each in data["trials"] if each.get("architecture")][:2]:
        browser.choose("selected", str(trial["trial"]))
        arch_id = trial["arch_id"]
        shell, python = browser.texts("#architecture .copied")
        for line in shell.splitlines():
            words = shlex.split(line)
            assert words[0] == "ofbnas" and study in words and arch_id in words
        call = ast.parse(python).body[-1].value
        assert [word.value for word in call.args] == [study, arch_id]
    assert browser.complaints() == []


def test_a_click_on_a_point_selects_its_trial_everywhere(browser, vit):
    browser.open(vit)
    for trial in (3, 7):
        browser.click_point(trial)
        assert browser.selected() == (str(trial),) * 4
        assert browser.js("location.hash") == f"#trial-{trial}"
    assert f"trial 7: {7 + 0xA0:012x}" in browser.one("#front .tip").text
    tip, chart = (browser.one(f"#front {part}").rect for part in (".tip", "svg"))
    assert tip["y"] >= chart["y"] + chart["height"], "facts hide nothing of the chart"
    assert "search.one_hot_weight 0" in browser.one("#front .tip").text
    browser.open(f"{vit}#trial-3")
    assert browser.selected() == ("3",) * 4


def test_arrows_go_from_point_to_point_and_enter_selects(browser, vit):
    browser.open(vit)
    assert browser.js("document.querySelectorAll('#front [tabindex=\"0\"]').length") == 1
    browser.js("document.querySelector('#front [tabindex=\"0\"]').focus()")
    browser.press(Keys.HOME)
    browser.press(Keys.ARROW_RIGHT)
    browser.press(Keys.ARROW_RIGHT)
    assert "trial 2:" in browser.one("#front .tip").text, "trials cost more the higher their number"
    browser.press(Keys.ENTER)
    assert browser.selected() == ("2",) * 4
    assert browser.js("document.activeElement.dataset.key") == "point-2", "focus stays where it was"
    assert browser.driver.switch_to.active_element.get_attribute("aria-pressed") == "true"


def test_a_row_of_the_table_selects_by_click_and_by_key(browser, vit):
    browser.open(vit)
    browser.one("#trials-body tr[data-trial='4'] td").click()
    assert browser.selected() == ("4",) * 4
    browser.js("document.querySelector(\"[data-key='row-5']\").focus()")
    browser.press(Keys.ENTER)
    assert browser.selected() == ("5",) * 4
    browser.one("#trials-body tr[data-trial='11'] td").click()
    assert browser.one("#architecture").text == f"Trial 11 failed: {NAN}"
    assert "Trial 11 has no history" in browser.one("#history-none").text
    assert not browser.one("#history").is_displayed()


def test_the_table_is_sorted_by_any_column_with_what_is_missing_last(browser, vit):
    browser.open(vit)
    trials = (
        "[...document.querySelectorAll('#trials-body tr')].map(row => Number(row.dataset.trial))"
    )
    assert browser.js(trials) == list(range(12))
    rows = {trial: row_of(trial) for trial in range(10)}
    browser.js("document.querySelector(\"[data-key='sort-top1']\").focus()")
    browser.press(Keys.ENTER)
    assert browser.js(trials) == [*sorted(rows, key=lambda trial: rows[trial]["top1"]), 10, 11]
    browser.press(Keys.ENTER)
    assert browser.js(trials) == [*sorted(rows, key=lambda trial: -rows[trial]["top1"]), 10, 11]
    assert browser.js("document.querySelector('[aria-sort]').textContent").startswith("top-1, %")
    assert browser.js("document.querySelector('[aria-sort]').ariaSort") == "descending"


def test_the_table_is_filtered_by_all_words_of_any_cell(browser, vit):
    browser.open(vit)
    field = browser.one("#filter")
    field.send_keys("failed nan")
    assert (
        browser.texts("#trials-body th") == ["10", "11"]
        and browser.one("#filter-count").text == "2 of 12 trials"
    )
    field.send_keys(" nowhere")
    assert (
        browser.texts("#trials-body th") == []
        and browser.one("#filter-count").text == "0 of 12 trials"
    )
    for text, trials in {
        f"{3 + 0xA0:012x}": ["3"],
        "top1 > 98 and gmacs < 0.0003": ["2"],
        "not failed (trial <= 1 or top1>99.5)": ["0", "1", "8"],
        "status = FAILED or one_hot_weight": ["10", "11"],
        "search.one_hot_weight == 0.04 'complete'": ["2", "9"],
        "status != complete": ["10", "11"],
    }.items():
        field.clear()
        field.send_keys(text)
        assert browser.texts("#trials-body th") == trials, text
    for text, mistake in {
        "tap1 > 9": "there is no column tap1; expected one of trial, status",
        "top1 > high": "top1 is a number, but high is not",
        "top1 >": "top1 > needs a value",
        "(failed": "a parenthesis is not closed",
        "failed)": "a parenthesis is closed that was not opened",
        "failed or": "a word or a comparison such as top1 > 98 is missing",
    }.items():
        field.clear()
        field.send_keys(text)
        assert browser.one("#filter-count").text.startswith(f"12 of 12 trials: {mistake}")
    assert browser.complaints() == []


def test_rows_are_downloaded_and_an_id_is_copied(browser, tmp_path):
    folder = finished(tmp_path / "study")
    add(folder, row_of(12, device='=1+"1"'))
    browser.open(f"{written(folder)}#trial-3")
    allow = {"behavior": "allow", "downloadPath": str(tmp_path)}
    browser.driver.execute_cdp_cmd("Page.setDownloadBehavior", allow)
    browser.one("#filter").send_keys("trial >= 9")
    browser.one("#download").click()
    wait((tmp_path / "digits.csv").is_file)
    rows = pd.read_csv(tmp_path / "digits.csv")
    assert rows["trial"].tolist() == [9, 10, 11, 12]
    assert rows["gmacs"][0] == row_of(9)["gmacs"], "in the table's unit"
    assert rows["hp.search.one_hot_weight"].tolist() == [0.04, 0.06, 0.08, 0.1]
    assert rows["device"][3] == '\'=1+"1"', "a spreadsheet takes it for a text"
    browser.driver.execute_cdp_cmd(
        "Browser.grantPermissions",
        {"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]},
    )
    browser.one("#copy-id").click()
    read = "navigator.clipboard.readText().then(arguments[0])"
    wait(lambda: browser.driver.execute_async_script(read) == f"{3 + 0xA0:012x}")


def test_the_fronts_axes_are_those_that_have_values(browser, vit, tmp_path):
    browser.open(vit)
    assert browser.texts("#front-x option") == ["MACs", "parameters", "time"]
    assert browser.texts("#front-y option") == ["top-1", "top-5", "validation top-1"]
    on_front = "[...document.querySelectorAll('#front .on-front')].map(p => p.dataset.key.slice(6)).sort().join(' ')"
    assert browser.js(on_front) == "0 1 3 5 7 9"
    assert "validation images, %" in browser.one("#front").text
    assert "parent" in browser.one("#front-legend").text
    assert not browser.texts("#front-warnings li")
    browser.choose("front-y", "top1")
    assert browser.js(on_front) == "0 1 2 5 8"
    assert "selected on test images" in browser.one("#front-warnings").text
    browser.choose("front-y", "top5")
    assert "the parent's top-5 is not recorded" in browser.one("#front-legend").text
    browser.choose("front-x", "params")
    assert "parameters, k" in browser.one("#front").text
    browser.open(written(of_kind("one", tmp_path)))
    assert browser.texts("#front-x option") == ["MACs", "parameters", "latency", "time"]


def test_bars_are_the_shares_of_the_parent_that_were_kept(browser, vit, tmp_path):
    widths = "[...document.querySelectorAll('#architecture .filling')].map(f => parseFloat(f.style.width))"
    browser.open(f"{vit}#trial-5")  # half of everything
    assert browser.texts("#architecture .block-name") == [
        "embed",
        *(f"blocks.{index}" for index in range(4)),
    ]
    assert browser.texts("#architecture .amount") == [
        "32 of 64",
        *(["2 \u00d7 8 of 4 \u00d7 16", "128 of 256"] * 4),
    ]
    assert browser.js(widths) == [50, *[50, 50, 0, 0, 50] * 4]
    browser.open(f"{written(finished(tmp_path, 'beit'))}#trial-5")
    assert browser.texts("#architecture .amount") == ["192 of 768", *["1536 of 3072"] * 4], (
        "blocks without heads"
    )


def test_what_a_block_has_lost_is_drawn_as_removed(browser, tmp_path):
    left = PARENTS["vit"] | {
        "blocks.0.attn": (0, 0),
        "blocks.2.attn": (0, 0),
        "blocks.2.mlp": (0, 0),
    }
    folder = finished(tmp_path)
    seen_before = {name: row_of(5)[name] for name in row_of(5) if name.startswith("hp.")}
    add(folder, row_of(12, architecture=encode_sizes(left, kinds_of(left)), **seen_before))
    browser.open(f"{written(folder)}#trial-12")
    whole = ["4 \u00d7 16 of 4 \u00d7 16", "256 of 256"]
    assert browser.texts("#architecture .amount") == [
        "64 of 64", "removed", whole[1], *whole, "removed", "removed", *whole,
    ]  # fmt: skip
    assert len(browser.js("[...document.querySelectorAll('#front .band')]")) == 1
    assert "same settings, different seeds" in browser.one("#front-legend").text
    assert browser.complaints() == []


def test_curves_tell_search_and_fine_tuning_apart(browser, vit):
    browser.open(vit)
    browser.choose("selected", "3")
    assert browser.texts("#epochs figcaption span") == [
        "Validation accuracy, %", "Validation loss", "Training loss", "Reconstruction loss", "Learning rate",
    ]  # fmt: skip
    accuracy = browser.one("#epochs svg")
    label = accuracy.get_attribute("aria-label")
    assert label == "Validation accuracy, %: 60 at epoch 1 of search, 98 at epoch 2 of fine-tuning"
    assert "then, shaded, of the fine-tuning" in browser.one("#epochs-hint").text
    assert "parent" in browser.texts("#epochs figure:first-child text")
    # The fine-tuning has a band of its own, and neither curve goes on into the other's.
    assert browser.js("document.querySelectorAll('#epochs figure:first-child .band').length") == 1
    curves = "[...document.querySelectorAll('#epochs figure:first-child .curve')]"
    assert browser.js(f"{curves}.map((path) => path.getAttribute('d').split('L').length)") == [6, 2]
    assert browser.one("#epochs b").text == "98"
    left = -accuracy.size["width"] / 2 + 50
    ActionChains(browser.driver).move_to_element_with_offset(accuracy, left, 0).perform()
    assert browser.one("#epochs b").text == "search 1: 60"


def test_what_a_table_without_a_study_lacks_is_said(browser, tmp_path):
    browser.open(written(of_kind("table", tmp_path)))
    assert "has no study.yaml" in browser.one("#left-out").text
    assert "has no study.yaml" in browser.one("#importance").text
    assert browser.one("#about").text.startswith("vit_tiny_patch16_224 on digits; the parent has")
    browser.choose("selected", "4")
    assert browser.texts("#epochs b")[0] == "70.86", "a trial that runs has its curves"
    assert browser.one("#history-none").text == ""
    browser.choose("selected", "3")
    assert browser.one("#history-none").text == "Trial 3 has no history."


def test_the_history_follows_the_slider(browser, vit):
    browser.open(f"{vit}#trial-5")
    assert browser.one("#decision-facts").text == "step 48, epoch 4; 0 of 9 axes open"
    assert browser.texts("#curves figcaption span") == [
        "Task loss", "Reconstruction loss", "One-hot loss", "Importance norm", "Expected cost, share",
        "\u03bb, weight of importance", "Mask ratio", "Multiplier of the budget",
    ]  # fmt: skip
    browser.one("#decision").send_keys(Keys.HOME)
    assert browser.one("#decision-facts").text == "step 6, epoch 1; 9 of 9 axes open"
    assert browser.texts("#curves b")[0] == "1.5"
    assert browser.js("document.activeElement.id") == "decision"
    assert browser.texts("#options .count")[:3] == ["9", "8", "6"]
    assert "embed from 9 to 1" in browser.one("#options svg").get_attribute("aria-label")
    browser.choose("selected", "2")
    assert browser.one("#decision-facts").text.startswith("step 48"), (
        "another trial is shown at its end"
    )


def test_hyper_parameters_are_compared(browser, vit, tmp_path):
    browser.open(f"{vit}#trial-5")
    assert browser.texts("#importance h3") == ["For validation top-1", "For MACs"]
    assert browser.texts("#importance .share-name")[::2] == ["search.budget.gmacs_share"] * 2
    assert "fANOVA" in browser.one("#importance .hint").text
    assert len(browser.js("[...document.querySelectorAll('#parallel .trial-line')]")) == 10
    assert browser.texts("#parallel .tick") == [
        "search.budget.gmacs_share", "0.21 to 0.75, log",
        "search.one_hot_weight", "0 to 0.12",
        "kMACs", "159.9 to 591.6",
        "validation top-1, %", "94.8 to 97.96",
    ]  # fmt: skip
    end = "Math.max(...[...document.querySelectorAll('#parallel text')].map(t => t.getBBox().x + t.getBBox().width))"
    begin = "Math.min(...[...document.querySelectorAll('#parallel .trial-line')].map(l => l.getBBox().x))"
    assert browser.js(end) < browser.js(begin), "no line runs through a label"
    browser.open(written(of_kind("unfinished", tmp_path)))
    assert "Too few complete trials" in browser.one("#importance").text


def test_objectives_are_drawn_over_trials_and_hyper_parameters(browser, vit):
    browser.open(vit)
    points = "document.querySelectorAll('#objectives .point').length"
    heights = "[...document.querySelectorAll('#objectives .dot')].map(dot => Number(dot.getAttribute('cy')))"
    assert browser.texts("#objective option")[0] == "hypervolume of the front"
    volumes = browser.js(heights)
    assert len(volumes) == 10 and volumes == sorted(volumes, reverse=True), "it only ever grows"
    browser.choose("objective", "val_top1")
    accuracies = [row_of(trial)["val_top1"] for trial in range(10)]
    order = sorted(range(10), key=lambda trial: -accuracies[trial])
    assert sorted(range(10), key=browser.js(heights).__getitem__) == order
    assert browser.js("document.querySelector('#objectives .front-line') !== null")
    browser.choose("over", "search.one_hot_weight")
    assert browser.js(points) == 10
    assert browser.js("document.querySelector('#objectives .front-line')") is None
    shown = yaml.safe_load(browser.one("#settings").get_attribute("textContent"))
    assert shown["search"]["budget"] == {"gmacs_share": 0.5}
    assert "decision_interval" not in shown["search"], "which is the default"
    assert browser.complaints() == []


def test_time_and_trials_are_counted(browser, vit, tmp_path):
    browser.open(vit)
    assert browser.texts("#costs-facts dd") == [
        "10 complete, 2 failed",
        "5.667 min",
        "34 s",
        "38 s",
    ]
    assert "Failed trials record no time." in browser.one("#costs-facts").text
    browser.open(written(of_kind("unfinished", tmp_path)))
    assert (
        browser.texts("#costs-facts dd")[0] == "2 complete, 2 running (no row yet), 8 not started"
    )


def test_hostile_texts_stay_texts(browser, tmp_path):
    begin(tmp_path)
    add(tmp_path, row_of(0, budget_note=HOSTILE, device=HOSTILE, **{"hp.search.lr": HOSTILE}))
    add(tmp_path, failed_row(1, HOSTILE))
    browser.open(written(tmp_path))
    for trial in ("0", "1"):
        browser.choose("selected", trial)
    assert browser.one("#architecture").text == f"Trial 1 failed: {HOSTILE}"
    assert (
        HOSTILE in browser.texts("#trials-body .reason")
        and HOSTILE in browser.one("#costs-facts").text
    )
    assert browser.driver.title == "digits: architectures found by ofbnas"
    assert browser.js("document.querySelectorAll('img, script').length") == 2
    assert browser.complaints() == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_both_colour_schemes_can_be_read(browser, vit, scheme):
    browser.open(vit, scheme=scheme)
    paints = {
        "section": "backgroundColor",
        "h2": "color",
        ".hint": "color",
        ".failed td:nth-child(2)": "color",
    }
    paints |= {
        "#front .tick": "fill",
        "#front .on-front .dot": "fill",
        ".parent": "fill",
        ".curve": "stroke",
    }
    colours = [
        browser.js(f"getComputedStyle(document.querySelector('{one}')).{what}")
        for one, what in paints.items()
    ]
    paper, *inks = [luminance(colour) for colour in colours]
    assert (paper > 0.5) == (scheme == "light")
    for ink, least in zip(inks, (7, 4.5, 4.5, 4.5, 3, 3, 3), strict=True):
        assert (max(paper, ink) + 0.05) / (min(paper, ink) + 0.05) >= least


def luminance(colour: str) -> float:
    """Relative luminance, by WCAG 2, of "rgb(r, g, b)"."""
    parts = [int(part) / 255 for part in colour.removeprefix("rgb(").removesuffix(")").split(",")]
    linear = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_pruned_trials_are_distinguished_and_on_no_front(browser, tmp_path):
    begin(tmp_path)
    add(tmp_path, row_of(0))
    known = {
        "status": "pruned",
        "val_top1": 99.9,
        "seconds": 1.0,
        "search_epochs": 7,
        "device": "x86_64",
    }
    add(tmp_path, failed_row(1, "stopped after epoch 7") | known)
    browser.open(f"{written(tmp_path)}#trial-1")
    assert browser.one("#state").text == "2 of 12 trials finished, 1 pruned."
    assert browser.one("#architecture").text == "Trial 1 was stopped after epoch 7."
    assert (
        browser.texts("#costs-facts dd")[0]
        == "1 complete, 1 pruned (stopped early), 10 not started"
    )
    browser.choose("front-y", "val_top1")
    assert browser.js("document.querySelectorAll('#front .dot').length") == 1
    assert browser.complaints() == []
