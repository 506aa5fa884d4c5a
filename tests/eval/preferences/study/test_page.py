"""The annotators' page in a real browser: alone, and served."""

from __future__ import annotations

import itertools
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from eval.preferences.key import ATTENTION_CHECK, read_keys
from eval.preferences.reader import read_votes
from eval.preferences.record import Vote
from eval.preferences.study.plan import StudyPlan, rater_name
from tests.support.browser import (
    HOSTILE,
    SLOW,
    SYSTEMS,
    Server,
    answer,
    answered,
    chromium,
    small_study,
    watched,
)

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

WAYS = ("1", "#right", "ArrowLeft", "#left", "2", "#tie", "ArrowRight", "0")
SIDES = {
    "1": "left",
    "ArrowLeft": "left",
    "#left": "left",
    "2": "right",
    "ArrowRight": "right",
    "#right": "right",
}


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


def open_page(browser: Browser, address: str) -> tuple[Page, list[str]]:
    page = browser.new_context(viewport={"width": 1280, "height": 800}, accept_downloads=True).new_page()
    seen = watched(page)
    page.goto(address)
    return page, seen


def rate_all(page: Page, total: int) -> dict[str, str]:
    """Answers everything, with an undo and a reload on the way; trial -> the way in which it was answered last."""
    given: dict[str, str] = {}
    ways = itertools.cycle(WAYS)
    hostile = False
    while page.locator("#trial").is_visible():
        text = page.locator("#prompt").text_content()
        hostile = hostile or text == HOSTILE
        way = next(ways)
        given[answer(page, way)] = way
        if len(given) == 20:
            before, last = answered(page), list(given)[-1]
            page.keyboard.press("u")
            page.wait_for_function("(id) => document.getElementById('trial').dataset.trial === id", arg=last)
            assert answered(page) == before - 1
            given[answer(page, "2")] = "2"
        if len(given) == 30:
            page.reload()
            page.locator("#trial").wait_for()
            assert answered(page) == 30, "the reload lost answers"
    assert hostile, "the hostile prompt was never shown as it stands"
    assert len(given) == total
    assert answered(page) == total
    return given


def check_votes(file: Path, study: StudyPlan, key: Path, given: dict[str, str], rater: str) -> None:
    """The reader takes the file, and every vote says what was pressed."""
    votes = read_votes(file, SYSTEMS, read_keys(key))
    assert {v.rater for v in votes} == {rater}
    assert {v.study for v in votes} == {study.study}
    assert {v.system_a for v in votes} | {v.system_b for v in votes} == {*SYSTEMS, ATTENTION_CHECK}
    (trials,) = study.lists.values()
    assert len(votes) == len(trials)
    for vote, trial in zip(votes, trials, strict=True):
        assert winning_side(vote) == SIDES.get(given[trial.id], "tie")
        assert (vote.prompt_id, vote.question) == (trial.prompt_id, trial.question)
        assert vote.prompt == study.prompts[trial.prompt_id]
        assert vote.attention_check == trial.check
    assert any(vote.prompt == HOSTILE for vote in votes)


def winning_side(vote: Vote) -> str:
    return "tie" if vote.winner == "tie" else "left" if vote.winner == vote.shown_left else "right"


def test_the_offline_page_from_start_to_csv(tmp_path: Path, browser: Browser) -> None:
    study, directory = small_study(tmp_path)
    (trials,) = study.lists.values()
    assert len(trials) >= 60
    page, seen = open_page(browser, (directory / "pages" / "rater-01.html").as_uri())
    page.locator("#name").fill("=cmd()")
    page.locator("#begin").click()
    assert "letters" in page.locator("#name-error").inner_text()
    page.locator("#name").fill("Zoë-1")
    page.keyboard.press("Enter")
    page.locator("#trial").wait_for()
    given = rate_all(page, len(trials))
    with page.expect_download() as download:
        page.locator("#end .download").click()
    file = tmp_path / download.value.suggested_filename
    assert file.name == f"{study.study}.rater-01.csv"
    download.value.save_as(file)
    assert seen == []
    check_votes(file, study, directory, given, "Zoë-1")


def test_a_closed_tab_a_second_tab_and_a_double_click(tmp_path: Path, browser: Browser) -> None:
    _, directory = small_study(tmp_path, votes=2)
    page, seen = open_page(browser, (directory / "pages" / "rater-01.html").as_uri())
    page.locator("#begin").click()
    page.locator("#trial").wait_for()
    page.wait_for_timeout(310)
    page.locator("#left").dblclick()
    page.wait_for_function("() => document.getElementById('count').textContent.startsWith('1')")
    assert answered(page) == 1, "a double click answered twice"
    second = page.context.new_page()
    second.goto(page.url)
    second.locator("#trial").wait_for()
    assert answered(second) == 1
    answer(second, "2")
    page.wait_for_function("() => document.getElementById('count').textContent.startsWith('2')")
    page.close()
    second.close()
    third = page.context.new_page()
    third.goto((directory / "pages" / "rater-01.html").as_uri())
    third.locator("#trial").wait_for()
    assert answered(third) == 2
    assert seen == []


def test_no_answer_counts_just_after_the_images_appear(tmp_path: Path, browser: Browser) -> None:
    _, directory = small_study(tmp_path, votes=2)
    page = browser.new_page()
    page.set_default_timeout(SLOW)
    page.clock.install(time=0)
    page.goto((directory / "pages" / "rater-01.html").as_uri())
    page.clock.pause_at(1_000_000)  # the page's own clock, so that a slow machine tests the same
    page.locator("#begin").click()
    page.locator("#trial").wait_for()
    page.clock.run_for(290)
    page.keyboard.press("1")
    page.locator("#left").click()
    assert answered(page) == 0, "an answer in the first 300 ms counted"
    page.clock.run_for(20)
    page.keyboard.press("1")
    while answered(page) == 0:
        page.clock.run_for(1)


NAMES = [
    "Ann",
    "rater-01",
    "1e5",
    "1.5E3",
    "May-5",
    "Mary 2",
    "3.4.2026",
    "nan",
    "Unknown",
    "NA",
    "Nate",
    "a" * 41,
]
NAMES += [
    "ع مر",
    "李",
    "x\u200b",
    "Jean-Luc O'Neil",
    "-a",
    "@a",
    "5 jan 2026",
    "12",
    "a,b",
    "e\u0301",
    " pad ",
    "",
]


def test_the_page_and_the_server_take_the_same_names(tmp_path: Path, browser: Browser) -> None:
    _, directory = small_study(tmp_path, votes=1)
    page, _ = open_page(browser, (directory / "pages" / "rater-01.html").as_uri())
    taken = []
    for name in NAMES:
        page.evaluate(
            "() => { at = (id) => document.getElementById(id); at('name').maxLength = 99;"
            " at('name-error').textContent = ''; }"
        )
        page.locator("#name").fill(name)
        page.locator("#begin").click()
        page.wait_for_function("() => at('start').hidden || at('name-error').textContent !== ''")
        if page.locator("#start").is_hidden():
            page.locator("#trial").wait_for()
            taken.append(name)
            page.evaluate("() => localStorage.clear()")
            page.reload()
    assert taken == [name for name in NAMES if rater_name(name) is not None]
    assert 5 < len(taken) < len(NAMES) - 5


def test_the_served_page_from_start_to_csv(tmp_path: Path, browser: Browser) -> None:
    study, directory = small_study(tmp_path)
    (trials,) = study.lists.values()
    with Server(directory) as server:
        page, seen = open_page(browser, server.url)
        page.locator("#name").fill("Ann")
        page.locator("#begin").click()
        page.locator("#trial").wait_for()
        given = rate_all(page, len(trials))
        assert seen == []
        again, _ = open_page(browser, server.url)
        again.locator("#name").fill("Ann")
        again.locator("#begin").click()
        again.get_by_role("button", name="Continue as this rater").click()
        again.locator("#end").wait_for()
        file = tmp_path / "votes.csv"
        file.write_bytes(urllib.request.urlopen(f"{server.url}/export.csv", timeout=120).read())
    check_votes(file, study, directory, given, "Ann")


def test_an_answer_given_while_the_server_is_down_arrives(tmp_path: Path, browser: Browser) -> None:
    study, directory = small_study(tmp_path, votes=2)
    (trials,) = study.lists.values()
    with Server(directory) as server:
        page, _ = open_page(browser, server.url)
        page.locator("#name").fill("Ann")
        page.locator("#begin").click()
        page.locator("#trial").wait_for()
        answer(page, "1")
        server.kill()
        page.wait_for_timeout(310)
        page.keyboard.press("2")
        page.get_by_text("does not answer").wait_for()
        assert page.locator("#trial").get_attribute("data-trial") == trials[1].id, (
            "shown the next before it is saved"
        )
        server.start()
        page.wait_for_function("() => document.getElementById('count').textContent.startsWith('2')")
        page.locator("#notice").wait_for(state="hidden")
        text = urllib.request.urlopen(f"{server.url}/export.csv", timeout=120).read().decode()
    assert text.count(study.study) == 2
