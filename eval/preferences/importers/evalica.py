"""Votes in the layout of evalica's command line (0.4): left, right, winner, where winner is left, right or tie."""

from __future__ import annotations

from eval.preferences.importers.build import Builder, Imported, choice
from eval.preferences.importers.entries import ForeignFile, Options
from eval.preferences.record import nearest

COLUMNS = ("left", "right", "winner")

_WINNERS = {"left": "a", "right": "b", "tie": "tie"}


def convert(source: ForeignFile, options: Options) -> Imported:
    """left becomes system_a. The file knows no prompts and no raters: options must give them.

    Two rows on one pair are one rater's vote given twice unless --row-is prompt (or rater) says otherwise.
    Raises PreferenceError; evalica itself drops rows with another winner.
    """
    builder = Builder(source, options, {})
    for entry in source.entries:
        value = entry.values.get("winner")
        if value is None or value == "":
            builder.decide(entry, "unanswered")
            continue
        winner = choice(_WINNERS, value)
        if winner is None:
            builder.refuse(entry, "winner", f"is no winner; {nearest(str(value), _WINNERS)}")
            continue
        systems = builder.text(entry, "left"), builder.text(entry, "right")
        builder.add(entry, systems, winner, time=builder.time(entry, None))
    return builder.finish()
