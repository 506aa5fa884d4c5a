"""One HTML file with everything in it, which loads nothing: its policy allows just the style and script that it has."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from typing import Any

_HEAD = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
"""


def self_contained(
    template: str, style: str, scripts: list[str], config: Any, extra: str, sources: str
) -> tuple[str, str]:
    """The page, and its Content-Security-Policy, which allows `sources` beside the style and the script.

    The template has places @@head@@ (what every page begins with, up to its title), @@style@@, @@script@@, @@config@@
    (JSON) and @@extra@@ (HTML, as it is given).
    """
    script = '"use strict";\n(() => {\n' + "\n".join(scripts) + "})();\n"
    policy = (
        f"default-src 'none'; {sources}; style-src {_hash(style)}; script-src {_hash(script)}; "
        "base-uri 'none'; form-action 'none'"
    )
    text = json.dumps(config, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    values = {
        "head": _HEAD.format(policy=policy),
        "style": style,
        "script": script,
        # JSON that no HTML parser can take for markup: ASCII, with <, > and & escaped.
        "config": text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"),
        "extra": extra,
    }
    # One pass: what is put in is never itself searched for places.
    return re.sub(r"@@([a-z]+)@@", lambda place: values[place[1]], template), policy


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
