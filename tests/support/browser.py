"""A real Chromium for tests of pages, a small study to show in it, and the study's server."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from eval.preferences.study.design import DesignSettings
from eval.preferences.study.make import make_study
from eval.preferences.study.plan import StudyPlan
from eval.preferences.study.sources import prompts_of, read_sources
from tests.support.evaluation import ROOT, write_samples

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
SYSTEMS = ("Kestrel one step", "Osprey four steps", "Harrier teacher")
HOSTILE = (
    '<script>alert(1)</script> a "red" square, </script><img src=x onerror=alert(2)> & @@script@@ \u2028 end'
)
SLOW = 120_000
"""Milliseconds: the machine may be busy."""


def write_systems(root: Path, prompts: int = 12, systems: tuple[str, ...] = SYSTEMS) -> Path:
    """A systems file with sample directories beside it; the first prompt is hostile."""
    texts = [(f"parti-{k:04d}", HOSTILE if k == 1 else f"scene, {k} \u00e9") for k in range(1, prompts + 1)]
    entries = []
    for k, name in enumerate(systems):
        directory = write_samples(root / f"samples-{k}", texts, 1, first=500 + 100 * k)
        entries.append({"name": name, "samples": str(directory)})
    file = root / "systems.json"
    file.write_text(json.dumps(entries), encoding="utf-8")
    return file


def small_study(root: Path, raters: int = 1, votes: int = 10, **settings: Any) -> tuple[StudyPlan, Path]:
    """A study in `root`/study; three systems and 10 votes a pair and question are 60 comparisons and 4 checks."""
    sources = read_sources(write_systems(root))
    chosen = DesignSettings(raters=raters, votes_per_pair=votes, seed=5, **settings)
    directory = root / "study"
    return make_study(sources, prompts_of(sources, None, 0), chosen, directory), directory


@contextmanager
def chromium() -> Iterator[Browser]:
    """A new browser; skips the test if there is none."""
    if not CHROMIUM.exists():
        pytest.skip(f"needs a Chromium at {CHROMIUM}")
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=str(CHROMIUM), args=list(FLAGS), timeout=SLOW)
        try:
            yield browser
        finally:
            browser.close()


def watched(page: Page) -> list[str]:
    """Collects what must not happen: dialogs, errors of the page, and requests beyond loopback."""
    seen: list[str] = []
    page.set_default_timeout(SLOW)

    def dialog(found: Any) -> None:
        seen.append(f"dialog {found.message}")
        found.dismiss()

    page.on("dialog", dialog)
    page.on("pageerror", lambda error: seen.append(f"error {error}"))
    page.on("console", lambda line: seen.append(f"console {line.text}") if line.type == "error" else None)

    def request(found: Any) -> None:
        if not found.url.startswith(("file:", "data:", "blob:", "http://127.0.0.1:")):
            seen.append(f"request {found.url}")

    page.on("request", request)
    return seen


def answered(page: Page) -> int:
    """The number of answers that the page shows."""
    return int(page.locator("#count").inner_text().split()[0])


def answer(page: Page, how: str) -> str:
    """Answer the shown trial with a key ('1', '0', 'ArrowRight') or a click ('#left'); returns its id."""
    trial = page.locator("#trial")
    shown = trial.get_attribute("data-trial") or ""
    page.wait_for_timeout(310)  # the page ignores answers in the first 300 ms
    if how.startswith("#"):
        page.locator(how).click()
    else:
        page.keyboard.press(how)
    script = "(id) => document.getElementById('trial').hidden || document.getElementById('trial').dataset.trial !== id"
    page.wait_for_function(script, arg=shown)
    return shown


class Server:
    """The study's server in a separate process, on a free port of loopback."""

    def __init__(self, directory: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.directory, self.url = directory, f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the server and return when it answers."""
        command = [sys.executable, "-m", "eval.preferences.study.server"]
        command += ["--study", str(self.directory), "--port", str(self.port)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        self._process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        for _ in range(1200):
            assert self._process.poll() is None, "the server stopped"
            try:
                urllib.request.urlopen(self.url, timeout=30).close()
                return
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                time.sleep(0.1)
        raise AssertionError("the server does not answer")

    def kill(self) -> None:
        """SIGKILL: no handler runs, nothing is flushed."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
