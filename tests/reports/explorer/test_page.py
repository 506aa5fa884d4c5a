"""The explorer in a real browser, at desktop and phone size, of 17 runs x 1 and 4 steps x 100 prompts."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from reports.explorer.__main__ import main
from reports.explorer.page import LIMIT, view_fragment
from tests.support.browser import HOSTILE, chromium, watched
from tests.support.explorer import METRICS, ExplorerReference, write_study

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

DESKTOP, PHONE = (1280, 800), (360, 740)
CHOSEN = [("none", 1), ("text and image", 4), ("L_adv + lambda L_distill, SDS", 1)]


@dataclass(frozen=True)
class Made:
    """The page, the CSVs that it is of, and a browser."""

    file: Path
    expected: ExplorerReference
    browser: Browser

    def open(
        self, fragment: str = "", size: tuple[int, int] = DESKTOP, scheme: Any = "light"
    ) -> tuple[Page, list[str]]:
        """A new page, and what it did that it must not."""
        width, height = size
        context = self.browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme, has_touch=size == PHONE
        )
        page = context.new_page()
        seen = watched(page)
        page.on(
            "request",
            lambda found: (
                seen.append(found.url[:60]) if not found.url.startswith(("file:", "data:")) else None
            ),
        )
        page.goto(self.file.as_uri() + fragment)
        return page, seen


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    root = tmp_path_factory.mktemp("explorer")
    files = write_study(root)
    out = root / "explorer.html"
    command = ["--entries", str(files["entries"]), "--scenes", str(files["scenes"]), "--out", str(out)]
    assert main([*command, "--parti", f"parti={files['parti']}", "--notice", "Made up."]) == 0
    with chromium() as browser:
        yield Made(out, ExplorerReference(files), browser)


def listed(page: Page) -> list[int]:
    """The places of all prompts found, through all pages, in order."""
    found: list[int] = []
    while True:
        found += page.eval_on_selector_all(
            "#list > li", "(items) => items.map((item) => Number(item.dataset.place))"
        )
        if page.locator("#pager").is_hidden() or page.locator("#next").is_disabled():
            return found
        before = page.locator("#page").inner_text()
        page.locator("#next").click()
        page.wait_for_function("(text) => document.getElementById('page').textContent !== text", arg=before)


def ranked(places: list[int], values: list[float], order: str) -> list[int]:
    keys = {"low": lambda v: v, "high": lambda v: -v, "either": lambda v: -abs(v)}
    return sorted(places, key=lambda k: (keys[order](values[k]), k))


def test_every_number_in_the_file_is_the_csvs(made: Made) -> None:
    assert made.file.stat().st_size < LIMIT
    config = json.loads(made.file.read_text("utf-8").split('id="config">', 1)[1].split("</script>", 1)[0])
    parti = next(s for s in config["sets"] if s["name"] == "parti")
    of_parti = [images for images in config["images"] if images["prompts"] == "parti"]
    assert len(of_parti) == 34
    compared = 0
    for images in of_parti:
        lines = made.expected.table(images["system"], images["steps"])
        for k, line in enumerate(lines):
            prompt = parti["prompts"][k]
            assert (prompt["id"], prompt["text"]) == (line["prompt_id"], line["prompt"])
            assert images["scores"]["clip_score"][k] == float(line["clip_score"])
            assert images["scores"]["fid_influence"][k] == float(line["fid_influence"])
            assert images["scores"]["alignment"][k] == (line["all_right"] == "true")
            assert {g: v[k] for g, v in images["answers"].items()} == {g: line[g] for g in images["answers"]}
            assert prompt["asked"] == made.expected.scenes[prompt["text"]]
            assert (prompt["category"], prompt["challenge"]) == made.expected.kinds[prompt["id"]]
            compared += 1
    assert compared == 3400
    for row, entry in zip(config["rows"], made.expected.entries, strict=True):
        assert row["cells"] == {cell["metric"]: cell["text"] for cell in entry["cells"]}
        assert row["finding"] == entry["finding"]
        assert [row[name] for name in ("system", "steps", "group")] == [
            entry[name] for name in ("system", "steps", "group")
        ]


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_what_a_list_shows_is_what_the_csvs_and_the_images_say(made: Made, size: tuple[int, int]) -> None:
    page, seen = made.open(view_fragment(CHOSEN, "parti") + "&page=2&sort=fid_influence", size)
    page.wait_for_function("() => document.querySelectorAll('#list canvas:not([data-drawn])').length === 0")
    assert page.locator("#status").inner_text() == "100 of 100 prompts, 3 systems"
    tiles = page.eval_on_selector_all(
        "#list figure",
        """(figures) => figures.map((f) => ({
          place: Number(f.closest('li').dataset.place), text: f.closest('li').querySelector('h3').textContent,
          clip: f.querySelector('[data-score=clip_score] b').textContent,
          fid: f.querySelector('[data-score=fid_influence] b').textContent,
          count: f.querySelector('.oracle .count').textContent, faults: f.querySelector('.faults')?.textContent ?? '',
          marks: [...f.querySelectorAll('.marks i')].map((i) => i.className),
          alt: f.querySelector('canvas').getAttribute('aria-label'),
          pixels: [...f.querySelector('canvas').getContext('2d').getImageData(0, 0, 16, 16).data],
        }))""",
    )
    assert len(tiles) == 60
    tables = [made.expected.table(*system) for system in CHOSEN]
    order = ranked(list(range(100)), made.expected.column(*CHOSEN[0], "fid_influence"), "low")
    for n, tile in enumerate(tiles):
        (system, steps), line = CHOSEN[n % 3], tables[n % 3][order[20 + n // 3]]
        assert tile["place"] == order[20 + n // 3]
        assert tile["text"] == line["prompt"]
        assert abs(float(tile["clip"]) - float(line["clip_score"])) <= 0.0005 + 1e-9
        assert abs(float(tile["fid"]) - float(line["fid_influence"])) <= 0.0005 + 1e-9
        asked = {g: v for g, v in made.expected.scenes[line["prompt"]].items() if v is not None}
        right = [line[group] == value for group, value in asked.items()]
        assert tile["count"] == f"{sum(right)}/{len(right)}"
        assert tile["marks"] == ["right" if each else "wrong" for each in right]
        assert tile["faults"] == ", ".join(g for g, each in zip(asked, right, strict=True) if not each)
        assert tile["alt"].startswith(
            f"{system}, {steps} step{'s' * (steps > 1)}: {line['prompt']}. CLIP score {tile['clip']}."
        )
        file = Path(made.expected.entry(system, steps)["samples"]) / f"{tile['place']:06d}.png"
        with Image.open(file) as image:
            np.testing.assert_array_equal(np.reshape(tile["pixels"], (16, 16, 4))[..., :3], np.asarray(image))
    assert seen == []


@pytest.mark.parametrize("score", METRICS)
def test_sorts_are_the_references(made: Made, score: str) -> None:
    a, b = CHOSEN[0], CHOSEN[2]
    first, second = made.expected.column(*a, score), made.expected.column(*b, score)
    everything = list(range(100))
    page, seen = made.open(view_fragment([a, b], "parti", score, "high"))
    assert listed(page) == ranked(everything, first, "high")
    name = view_fragment([b], "parti").split("systems=")[1]
    for order in ("either", "low", "high"):
        page.evaluate(
            "(hash) => { location.hash = hash; }",
            view_fragment([a, b], "parti", score, order) + f"&against={name}",
        )
        page.wait_for_function("(text) => document.getElementById('order').value === text", arg=order)
        page.wait_for_function("() => document.getElementById('page').textContent.startsWith('Page 1 ')")
        apart = [x - y for x, y in zip(first, second, strict=True)]
        assert listed(page) == ranked(everything, apart, order), order
    assert seen == []


def test_filters_are_the_references(made: Made) -> None:
    page, seen = made.open(view_fragment([CHOSEN[0]], "parti"))
    for words in ("RED", 'red "on stone"', '"small red', "ring cross", "zzz", '</script> "red"'):
        page.locator("#words").fill(words)
        count = len(made.expected.found(words))
        said = "No prompt matches" if count == 0 else f"{count} of 100 "
        page.wait_for_function(
            "(text) => document.getElementById('status').textContent.startsWith(text)", arg=said
        )
        assert listed(page) == made.expected.found(words), words
    page.locator("#reset").click()
    page.locator("#category").select_option("Night")
    page.locator("#challenge").select_option("Perspective")
    expected = made.expected.found("", "Night", "Perspective")
    assert 0 < len(expected) < 20
    page.wait_for_function("(n) => document.querySelectorAll('#list > li').length === n", arg=len(expected))
    assert listed(page) == expected
    assert seen == []


def test_the_address_restores_what_was_chosen_by_hand(made: Made) -> None:
    page, seen = made.open()
    first = page.locator("#legend b").all_inner_texts()
    assert first == ["text and image"] * 2, "the row of several groups, which is the default"
    page.get_by_role("button", name="Choose none").click()
    page.get_by_text("Choose a system").wait_for()
    for system, steps in CHOSEN[:2]:
        page.get_by_label(f"{system}, {steps} step{'s' * (steps > 1)}", exact=True).first.check(force=True)
    page.locator("#words").fill("small")
    page.locator("#sort").select_option("clip_score")
    page.locator("#of").select_option(label="text and image, 4 steps")
    page.locator("#against").select_option(label="none, 1 step")
    page.locator("#order").select_option("low")
    page.locator("#next").click()
    page.get_by_text("Page 2 of").wait_for()
    values = (
        made.expected.column("text and image", 4, "clip_score"),
        made.expected.column("none", 1, "clip_score"),
    )
    apart = [a - b for a, b in zip(*values, strict=True)]
    expected = ranked(made.expected.found("small"), apart, "low")[20:40]
    again, other = made.open("#" + page.url.split("#", 1)[1])
    for each in (page, again):
        places = each.eval_on_selector_all(
            "#list > li", "(items) => items.map((i) => Number(i.dataset.place))"
        )
        assert places == expected
        assert each.locator("#legend b").all_inner_texts() == ["none", "text and image"]
        assert each.locator("#words").input_value() == "small"
        assert each.locator("#order").input_value() == "low"
    page.go_back()
    page.get_by_text("Page 1 of").wait_for()
    assert seen == other == []


def test_an_address_with_names_of_another_page_says_so(made: Made) -> None:
    page, seen = made.open(
        "#prompts=parti&systems=absent@1,none@1,%E0%A4%A@2&sort=clip_score&of=absent@1&colour=red&page=99"
    )
    text = page.locator("#problem").inner_text()
    for name in ("absent@1", "%E0%A4%A@2", "colour=red"):
        assert name in text
    assert page.locator("#legend b").all_inner_texts() == ["none"]
    assert page.locator("#page").inner_text() == "Page 5 of 5"
    coco, _ = made.open("#prompts=coco&sort=clip_score&of=a%20folder%20of%20images@1")
    assert "CLIP score of a folder of images, 1 step" in coco.locator("#problem").inner_text()
    assert coco.locator("#list > li").count() == 8
    assert seen == []


def test_images_without_scores_and_of_another_seed_say_so(made: Made) -> None:
    both = [("text and image", 1), ("a folder of images", 1)]
    page, seen = made.open(view_fragment(both, "coco"))
    ours, theirs = (page.locator(f"#list figure:nth-child({n}) figcaption").all_inner_texts() for n in (1, 2))
    assert all("CLIP" in text and "other seed" not in text for text in ours)
    assert all("CLIP" not in text and "other seed" in text for text in theirs)
    assert len(ours) == len(theirs) == 8
    assert page.locator("#category").is_hidden()
    page.locator("#list figure").nth(1).locator("button").click()
    assert f"{2**61}" in page.locator("#large figure").nth(1).inner_text()
    assert seen == []


def test_a_cell_and_a_claim_lead_to_their_images(made: Made) -> None:
    page, seen = made.open("#view=table")
    assert page.locator("#tables section").count() == 6
    assert page.locator("#tables tbody tr").count() == 36
    cells = page.locator("#tables a.cell").all_inner_texts()
    assert cells == [c["text"] for e in made.expected.entries if e["prompts"] == "parti" for c in e["cells"]]
    page.get_by_label(re.compile("^FID .* images of text only, 1 step$")).click()
    page.locator("#list > li").first.wait_for()
    assert listed(page) == ranked(
        list(range(100)), made.expected.column("text only", 1, "fid_influence"), "high"
    )
    page, _ = made.open("#view=table")
    page.get_by_role("link", name="Both conditions together are better").first.click()
    page.locator("#list > li").first.wait_for()
    assert page.locator("#legend b").all_inner_texts() == [
        "none",
        "text only",
        "image only",
        "text and image",
    ]
    assert seen == []


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_the_keyboard_reaches_everything(made: Made, size: tuple[int, int]) -> None:
    page, seen = made.open(view_fragment([CHOSEN[0], CHOSEN[1]], "parti"), size)
    focused = "() => Number(document.activeElement.dataset.place)"
    for expected in (0, 1, 2):
        page.keyboard.press("ArrowRight")
        assert page.evaluate(focused) == expected
    page.keyboard.press("ArrowLeft")
    assert page.evaluate(focused) == 1
    page.keyboard.press("Enter")
    page.locator("#large[open]").wait_for()
    for n, system in enumerate((CHOSEN[0], CHOSEN[1])):
        figure = page.locator("#large figure").nth(n)
        line = made.expected.table(*system)[1]
        shown = dict(
            zip(figure.locator("dt").all_inner_texts(), figure.locator("dd").all_inner_texts(), strict=True)
        )
        assert float(shown["CLIP score"]) == float(line["clip_score"])
        assert float(shown["FID influence"]) == float(line["fid_influence"])
        assert shown["All right"] == {"true": "yes", "false": "no"}[line["all_right"]]
        assert shown["Image seed"] == f"{2**62 + 1}"
        rows = [row.split("\t") for row in figure.locator("tbody tr").all_inner_texts()]
        scene = made.expected.scenes[line["prompt"]]
        assert rows == [
            [g, v, f"{'✓' if line[g] == v else '✕'} {line[g]}"] for g, v in scene.items() if v is not None
        ]
        width = figure.locator("canvas").evaluate("(c) => c.getBoundingClientRect().width")
        assert width % 16 == 0, "pixels of different sizes"
    page.keyboard.press("ArrowRight")
    page.get_by_text("3 of 100").wait_for()
    assert page.locator("#large-title").inner_text() == made.expected.table(*CHOSEN[0])[2]["prompt"]
    page.keyboard.press("Escape")
    page.wait_for_function("() => document.activeElement.dataset.place === '2'")
    page.locator("#list > li").nth(19).focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("() => document.activeElement.dataset.place === '20'")
    page.keyboard.press("ArrowLeft")
    page.wait_for_function("() => document.activeElement.dataset.place === '19'")
    page.keyboard.press("/")
    assert page.evaluate("() => document.activeElement.id") == "words"
    page.keyboard.type("a/?")
    assert page.locator("#words").input_value() == "a/?"
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    page.locator("#help[open]").wait_for()
    page.locator("#keys").uncheck()
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    page.keyboard.press("/")
    assert page.locator("#help").is_hidden()
    assert page.evaluate("() => document.activeElement.id") != "words"
    assert seen == []


NAMELESS = """() => [...document.querySelectorAll('img, canvas, input, select, button, a, dialog, nav, table, main')]
  .filter((e) => e.checkVisibility())
  .filter((e) => {
    if (e.matches('table')) return !e.querySelector('th[scope]');
    if (e.matches('main')) return false;
    const said = e.labels?.length ? [...e.labels].map((l) => l.textContent).join('') : e.textContent;
    const by = document.getElementById(e.getAttribute('aria-labelledby'))?.textContent ?? '';
    const inside = e.querySelector('[aria-label]')?.getAttribute('aria-label') ?? '';
    return [e.getAttribute('alt'), e.getAttribute('aria-label'), by, said, inside].every((t) => !t?.trim());
  }).map((e) => e.outerHTML.slice(0, 80))"""
PALE = """() => {
  const luminance = (c) => c.map((v) => v / 255).map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const ground = (e) => {
    for (; e; e = e.parentElement) {
      const c = parse(getComputedStyle(e).backgroundColor);
      if (c.length === 3) return c;
    }
  };
  const found = {};
  for (const e of document.querySelectorAll('body *')) {
    const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!(own || e.matches('input, select')) || e.matches(':disabled, script, option')) continue;
    if (!e.checkVisibility()) continue;
    const [a, b] = [luminance(parse(getComputedStyle(e).color)), luminance(ground(e))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (!(ratio >= 4.5)) found[e.outerHTML.slice(0, 80)] = ratio;
  }
  return [found, document.querySelectorAll('body *').length];
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_names_contrast_and_width(made: Made, size: tuple[int, int], scheme: str) -> None:
    many = view_fragment([*CHOSEN, ("ViT-L, CLIP", 1), ("L_adv", 4), ("SDXL from SDXL", 4)], "parti")
    views = (
        view_fragment(CHOSEN[:2], "parti", "fid_influence"),
        many,
        "#view=table",
        many + "&open=parti-0002",
        "#words=zzz&nothing=1",
    )
    page, seen = made.open("", size, scheme)
    for view in views:
        page.goto("about:blank")
        page.goto(made.file.as_uri() + view)
        page.locator("#chooser").evaluate("(e) => { e.open = true; }")
        if "open=" in view:
            assert page.locator("#large-title").inner_text().split() == HOSTILE.split()
        pale, elements = page.evaluate(PALE)
        assert elements > 100
        assert pale == {}
        assert page.evaluate(NAMELESS) == []
        assert page.evaluate("document.documentElement.scrollWidth") == size[0], view
        inner = "() => { const d = document.getElementById('large'); return d.scrollWidth - d.clientWidth; }"
        assert page.evaluate(inner) == 0
        assert page.locator("main:visible h1, header h1").count() == 1
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == {"light": "rgb(246, 245, 242)", "dark": "rgb(23, 24, 26)"}[scheme]
    assert seen == []


def test_the_page_forbids_to_load_anything(made: Made) -> None:
    page, seen = made.open()
    script = """() => new Promise((done) => {
      document.addEventListener('securitypolicyviolation', (e) => done(e.effectiveDirective));
      fetch('http://127.0.0.1:9/').catch(() => {});
    })"""
    assert page.evaluate(script) == "connect-src"
    assert [each for each in seen if not each.startswith("console")] == []
