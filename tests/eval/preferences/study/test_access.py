"""The annotators' page for everyone: keyboard alone, screen readers, phones, contrast, no ties where none are asked."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from eval.preferences.study.design import DesignSettings
from eval.preferences.study.make import make_study
from eval.preferences.study.sources import prompts_of, read_sources
from tests.support.browser import answer, answered, chromium, small_study, watched, write_systems
from tests.support.evaluation import ROOT

ON_GROUND = ("ink", "soft", "quality", "alignment", "error", "accent")


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


def luminance(colour: str) -> float:
    """Relative luminance of #rrggbb (WCAG 2.2)."""
    parts = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, two: str) -> float:
    low, high = sorted((luminance(one), luminance(two)))
    return (high + 0.05) / (low + 0.05)


def test_text_has_contrast_in_light_and_dark() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    style = (ROOT / "eval/preferences/study/page.css").read_text(encoding="utf-8")
    themes = [dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", part)) for part in style.split(":root {")[1:3]]
    assert len(themes) == 2
    for theme in themes:
        for name in ON_GROUND:
            for ground in ("ground", "card"):
                assert contrast(theme[name], theme[ground]) >= 4.5, (name, ground, theme[name])
        assert contrast(theme["on-accent"], theme["accent"]) >= 4.5


def test_keyboard_and_screen_reader(tmp_path: Path, browser) -> None:
    study, directory = small_study(tmp_path, votes=3)
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    seen = watched(page)
    page.goto((directory / "pages" / "rater-01.html").as_uri())
    start = page.locator("body").aria_snapshot()
    assert "- main:" in start
    assert 'textbox "Your name, or the id you were given": rater-01' in start
    page.locator("#name").focus()
    page.keyboard.press("Enter")
    page.locator("#trial").wait_for()
    assert page.evaluate("() => document.activeElement.id") == "question", (
        "the reader is not told what is asked"
    )
    first = study.lists["rater-01"][0]
    tree = page.locator("body").aria_snapshot()
    for part in (
        "- banner:",
        "- main:",
        "- contentinfo:",
        f'heading "{study.questions[first.question].title}"',
    ):
        assert part in tree, part
    for name in ("Left image. Left", "Right image. Right", "No preference", "Undo"):
        assert f'button "{name}"' in tree, name
    assert 'progressbar "0 of ' in tree
    assert study.prompts[first.prompt_id] in (page.locator("#live").text_content() or "")
    for name in ("left", "right", "tie"):
        page.keyboard.press("Tab")
        assert page.evaluate("() => document.activeElement.id") == name
        assert page.evaluate("() => getComputedStyle(document.activeElement).outlineStyle") == "solid"
    answer(page, "Enter")
    assert answered(page) == 1
    page.locator("#keys").uncheck()
    page.wait_for_timeout(310)
    page.keyboard.press("1")
    assert answered(page) == 1, "a shortcut that was switched off answered"
    assert seen == []


def test_a_phone_shows_all_of_it_in_reach(tmp_path: Path, browser) -> None:
    _, directory = small_study(tmp_path, votes=3)
    phone = {"width": 390, "height": 844}
    page = browser.new_context(viewport=phone, is_mobile=True, has_touch=True).new_page()
    page.goto((directory / "pages" / "rater-01.html").as_uri())
    page.locator("#begin").tap()
    page.locator("#trial").wait_for()
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 390
    boxes = {name: page.locator(f"#{name}").bounding_box() for name in ("left", "right", "tie", "undo")}
    for name, box in boxes.items():
        assert box is not None
        assert min(box["width"], box["height"]) >= 44, f"{name} is a small target"
        assert box["y"] + box["height"] <= 844, f"{name} is out of sight"
    left, right = boxes["left"], boxes["right"]
    assert left is not None
    assert right is not None
    assert left["x"] + left["width"] <= right["x"], "left is not on the left"
    assert left["width"] == pytest.approx(right["width"])
    page.wait_for_timeout(310)
    page.locator("#right").tap()
    page.wait_for_function("() => document.getElementById('count').textContent.startsWith('1')")


def test_a_study_without_ties_offers_none(tmp_path: Path, browser) -> None:
    sources = read_sources(write_systems(tmp_path))
    make_study(sources, prompts_of(sources, None, 0), DesignSettings(1, 3, 1), tmp_path / "study", ties=False)
    page = browser.new_page()
    page.goto((tmp_path / "study" / "pages" / "rater-01.html").as_uri())
    page.locator("#begin").click()
    page.locator("#trial").wait_for()
    assert page.locator("#tie").is_hidden()
    page.wait_for_timeout(310)
    page.keyboard.press("0")
    page.wait_for_timeout(100)
    assert answered(page) == 0
    answer(page, "1")
    assert answered(page) == 1
