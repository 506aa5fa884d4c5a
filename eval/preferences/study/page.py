"""The annotators' page: one HTML file with everything in it. The server serves the same page without images."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from pathlib import Path
from typing import Any, Literal

from eval.preferences.record import COLUMNS
from eval.preferences.study.plan import NO_NAME, Study, image_file

_HERE = Path(__file__).parent
_PIXELATED_BELOW = 129
"""Images smaller than this (pixels) are enlarged by whole pixels, not blurred."""


def offline_page(study: Study, name: str, directory: Path) -> str:
    """The self-contained page of the list `name`, its images read from the study's directory. It loads nothing."""
    trials = [trial.model_dump() for trial in study.lists[name]]
    used = {trial["prompt_id"] for trial in trials}
    prompts = {key: text for key, text in study.prompts.items() if key in used}
    config = {**_config(study), "list": name, "columns": COLUMNS, "trials": trials, "prompts": prompts}
    images = (
        f'<script type="text/plain" id="{code}">'
        f"{base64.b64encode(image_file(directory, code).read_bytes()).decode()}</script>"
        for code in study.images(name)
    )
    return _render("local.js", config, "\n".join(images), "img-src data:")


def served_page(study: Study) -> tuple[str, str]:
    """The server's page, for any rater, and its Content-Security-Policy as a header says it."""
    page = _render("remote.js", _config(study), "", "img-src 'self' data:; connect-src 'self'")
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None
    return page, f"{policy[1]}; frame-ancestors 'none'"


def _config(study: Study) -> dict[str, Any]:
    return {
        "study": study.study,
        "ties": study.ties,
        "no_name": NO_NAME,
        "pixelated": study.resolution < _PIXELATED_BELOW,
        "questions": {name: wording.model_dump() for name, wording in study.questions.items()},
    }


def _render(
    transport: Literal["local.js", "remote.js"], config: dict[str, Any], images: str, sources: str
) -> str:
    style = (_HERE / "page.css").read_text(encoding="utf-8")
    parts = [(_HERE / name).read_text(encoding="utf-8") for name in (transport, "page.js")]
    script = '"use strict";\n(() => {\n' + "\n".join(parts) + "})();\n"
    policy = (
        f"default-src 'none'; {sources}; style-src {_hash(style)}; script-src {_hash(script)}; "
        "base-uri 'none'; form-action 'none'"
    )
    values = {
        "policy": policy,
        "style": style,
        "script": script,
        "config": _json_in_html(config),
        "images": images,
    }
    template = (_HERE / "page.html").read_text(encoding="utf-8")
    # One pass: what is put in is never itself searched for places.
    return re.sub(r"@@([a-z]+)@@", lambda place: values[place[1]], template)


def _json_in_html(value: object) -> str:
    """JSON that no HTML parser can take for markup: ASCII, with <, > and & escaped."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
