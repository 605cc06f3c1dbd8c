"""A report that is served: it follows the study, keeps its place, and answers only its own address."""

from __future__ import annotations

import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import OFBNAS, PATIENCE
from made_studies import add, of_kind, row_of
from selenium.webdriver.support.wait import WebDriverWait

pytestmark = pytest.mark.slow


@pytest.fixture
def served(tmp_path) -> Iterator[tuple[Path, str, subprocess.Popen[str]]]:
    """An unfinished study that is served."""
    folder = of_kind("unfinished", tmp_path)
    command = [OFBNAS, "study", "report", folder, "--serve"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        yield folder, process.stdout.readline().strip(), process
        process.kill()


def test_a_served_page_takes_in_new_rows_and_keeps_its_place(browser, served):
    folder, url, _ = served
    browser.open(url, 360)
    browser.choose("selected", "1")
    browser.one("#filter").send_keys("complete")
    browser.js("document.querySelector(\"[data-key='sort-top1']\").click()")
    browser.js("window.scrollTo(0, 1500)")
    browser.js("document.querySelector(\"[data-key='row-1']\").focus({ preventScroll: true })")
    before = browser.js("window.scrollY")
    add(folder, row_of(4, top1=99.9))
    WebDriverWait(browser.driver, PATIENCE).until(
        lambda _: "3 of 12 trials finished" in browser.one("#state").text
    )
    assert browser.texts("#trials-body th") == ["0", "1", "4"] and browser.selected() == ("1",) * 4
    add(folder, row_of(5))
    WebDriverWait(browser.driver, PATIENCE).until(
        lambda _: "4 of 12 trials finished" in browser.one("#state").text
    )
    assert browser.js("window.scrollY") == before > 0
    assert browser.js("document.activeElement.dataset.key") == "row-1"
    assert browser.complaints() == []
    assert {address.partition("#")[0] for address in browser.requests()} - {"data:,"} == {
        url,
        f"{url}data.json",
    }


def test_a_page_says_when_its_server_has_gone(browser, served):
    _, url, process = served
    browser.open(url)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=PATIENCE) == 130
    WebDriverWait(browser.driver, PATIENCE).until(
        lambda _: "What is shown may be out of date" in browser.one("#state").text
    )
    assert "press Ctrl-C" in process.stderr.read()


def test_the_server_answers_its_own_addresses_only(served):
    folder, url, _ = served
    assert urllib.request.urlopen(f"{url}data.json").headers["Cache-Control"] == "no-store"
    for request, status in (
        (urllib.request.Request(f"{url}study.yaml"), 404),
        (urllib.request.Request(url, headers={"Host": "example.org"}), 403),
    ):
        with pytest.raises(urllib.error.HTTPError) as error:
            urllib.request.urlopen(request)
        assert error.value.code == status
    (folder / "study.yaml").write_text("name: [")
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(url)
    assert error.value.code == 500 and b"not valid YAML" in error.value.read()
