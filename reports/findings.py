"""The claims and what the results say of them: findings.csv, findings.json, and the lines of the first page.

Of a claim about systems, `steps` is empty: its rows say theirs.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Sequence
from typing import Any

from eval.findings.page import Answer
from eval.findings.verdicts import LEVEL, LOGARITHMIC
from reports import layout
from reports.cells import Report
from reports.layout import fixed, style_of

COLUMNS = (
    "part", "claim", "section", "metric", "steps", "rows", "relation", "than", "margin", "published", "measured", "low",
    "high", "unit", "covers", "deciding_pair", "runs", "p", "holm_p", "verdict", "detectable", "more_runs", "reason",
    "study_verdict", "study_runs",
)  # fmt: skip
"""Of findings.csv. Differences are row - other of the pair that decides; of FID, they are ratios less one."""
SHOWN = ("claim", "metric", "steps", "measured", "low", "high", "unit", "deciding_pair", "runs", "reason")
"""What findings.json has of a claim by other numbers of steps, at which it is not tested."""
LARGEST_SHOWN = 0.6
"""Relative differences beyond this are drawn at the edge."""
COVERS = "seed, processor (95%); images and reference are common to both rows"
COVERS_IMAGES = (
    "seed, processor, and images of what has no training seed (95%); the reference is common to both"
)


def records(report: Report) -> list[dict[str, Any]]:
    """Every finding as plain values, None where there is none."""
    larger = iter(report.replicated)
    found = []
    for answer in report.answers:
        study = next(larger, None) if answer.finding.steps is not None else None
        judged = None if study is None else study.judged
        said = (
            {}
            if study is None or judged is None
            else {"study_verdict": study.verdict, "study_runs": judged.runs}
        )
        found.append(_record(answer) | said)
    return found


def _record(answer: Answer) -> dict[str, Any]:
    finding, judged = answer.finding, answer.judged
    shown = ratio if finding.metric in LOGARITHMIC else float
    record: dict[str, Any] = dict.fromkeys(COLUMNS)
    record |= {
        "part": finding.part,
        "claim": finding.claim,
        "section": finding.section,
        "metric": finding.metric,
        "steps": finding.steps,
        "rows": list(finding.rows),
        "relation": finding.relation,
        "than": list(finding.others),
        "unit": "relative" if finding.metric in LOGARITHMIC else "difference",
        "verdict": answer.verdict,
        "reason": answer.reason,
    }
    if judged is not None:
        low, high = judged.interval
        record |= {
            "margin": shown(judged.claim.margin),
            "published": None if answer.published is None else shown(answer.published),
            "measured": shown(judged.contrast.estimate),
            "low": shown(low),
            "high": shown(high),
            "covers": COVERS_IMAGES if judged.contrast.lasting > 0 else COVERS,
            "deciding_pair": list(judged.pair),
            "runs": judged.runs,
            "p": judged.p,
            "holm_p": judged.holm_p,
            "detectable": shown(judged.detectable),
            "more_runs": judged.more,
        }
    return record


def ratio(difference: float) -> float:
    """A difference of logarithms as a relative difference: 0.05 is 5% more."""
    return math.expm1(difference)


def render_findings_csv(report: Report) -> str:
    """One line a claim; lists are joined by a semicolon."""
    out = io.StringIO()
    writer = csv.DictWriter(out, fieldnames=COLUMNS, lineterminator="\n")
    writer.writeheader()
    for record in records(report):
        writer.writerow({key: _text(value) for key, value in record.items()})
    return out.getvalue()


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return "; ".join(value)
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def render_findings_json(report: Report) -> str:
    """The same values as JSON, with what a verdict means; `by_steps`: the rows' differences by each number of steps."""
    meaning = {
        "reproduced": "the claimed relation is there",
        "contradicted": "its opposite is there",
        "equivalent": "a difference is claimed, and there is none beyond the margin",
        "undecided": "these results tell neither",
        "not tested": "the results cannot be asked; `reason` says why",
    }
    by_steps = {
        str(steps): [
            {key: value for key, value in _record(answer).items() if key in SHOWN} for answer in found
        ]
        for steps, found in report.by_steps.items()
    }
    content = {"verdicts": meaning, "findings": records(report), "by_steps": by_steps}
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def steps_table(report: Report) -> dict[str, Any] | None:
    """The differences of the rows' claims by every number of steps, as text; None where there is one number alone.

    lines: number and claim as on the first page, and a text for each number of steps; `tested`: which of these the
    claim is of. A claim without a difference has none.
    """
    steps = [k for k, found in report.by_steps.items() if any(answer.judged for answer in found)]
    if len(steps) < 2:
        return None
    numbers = [k for k, answer in enumerate(report.answers, start=1) if answer.finding.steps is not None]
    lines = []
    for place, number in enumerate(numbers):
        answer = report.answers[number - 1]
        if all(found[place].judged is None for found in report.by_steps.values()):
            continue
        lines.append(
            {
                "number": str(number),
                "part": answer.finding.part,
                "claim": answer.finding.claim,
                "metric": style_of(answer.finding.metric).title,
                "cells": [
                    _measured(found, _record(found)) for found in (report.by_steps[k][place] for k in steps)
                ],
                "tested": [k == answer.finding.steps for k in steps],
            }
        )
    return {"heads": [layout.steps_text(k) for k in steps], "lines": lines}


def _measured(answer: Answer, record: dict[str, Any]) -> str:
    """A difference with its interval; nothing where there is none."""
    if answer.judged is None:
        return ""
    show = shown_difference(answer)
    return f"{show(record['measured'])} [{show(record['low'])}, {show(record['high'])}]"


def page_lines(report: Report) -> list[dict[str, Any]]:
    """The findings' table on the first page, line by line, as text; `bar`: what is drawn, None where nothing is."""
    reasons, every = list(_reasons(report)), records(report)
    reach = reaches(every)
    return [
        _line(number, answer, record, f"({reasons.index(answer.reason) + 1})" if answer.reason else "")
        | {"bar": _bar(record, reach[record["metric"]]) if answer.judged else None}
        for number, (answer, record) in enumerate(zip(report.answers, every, strict=True), start=1)
    ]


def reaches(every: Sequence[dict[str, Any]]) -> dict[str, float]:
    """By metric the largest difference that is drawn, of records; what is beyond is drawn at the edge, as an arrow."""
    found: dict[str, float] = {}
    for record in every:
        values = [abs(record[key]) for key in ("low", "high", "published") if record[key] is not None]
        metric = record["metric"]
        found[metric] = max(found.get(metric, 0.0), 1.15 * max(values, default=0.0))
    return {
        metric: min(reach or 1.0, LARGEST_SHOWN if metric in LOGARITHMIC else math.inf)
        for metric, reach in found.items()
    }


def _bar(record: dict[str, Any], reach: float) -> dict[str, Any]:
    """Places from -1 to 1 on a line's bar, those of what lies beyond at its ends."""
    drawn = ("low", "high", "measured", "published", "margin")
    at = {key: None if record[key] is None else max(-1.0, min(1.0, record[key] / reach)) for key in drawn}
    return at | {"beyond": [record["low"] < -reach, record["high"] > reach]}


def system_lines(report: Report) -> list[dict[str, Any]]:
    """Those of the lines that are about systems."""
    return [
        line
        for line, answer in zip(page_lines(report), report.answers, strict=True)
        if answer.finding.steps is None
    ]


def _reasons(report: Report) -> dict[str, None]:
    """Why claims were not tested, each reason once."""
    return dict.fromkeys(answer.reason for answer in report.answers if answer.reason)


def _line(number: int, answer: Answer, record: dict[str, Any], why: str) -> dict[str, str]:
    show = shown_difference(answer)
    more = record["more_runs"]
    after = ""
    if answer.verdict == "undecided":
        after = f"{more} more run{'s' * (more != 1)}" if more is not None else "too close to decide"
    metric = style_of(answer.finding.metric).title
    steps = answer.finding.steps
    return {
        "number": str(number),
        "part": answer.finding.part,
        "claim": answer.finding.claim,
        "metric": metric if steps in (1, None) else f"{metric}, {steps} steps",
        "published": "" if record["published"] is None else show(record["published"]),
        "measured": _measured(answer, record),
        "p": "" if record["holm_p"] is None else _p(record["holm_p"]),
        "runs": "" if record["runs"] is None else str(record["runs"]),
        "verdict": answer.verdict,
        "after": why or after,
        "study": record["study_verdict"] or "",
    }


def shown_difference(answer: Answer) -> Callable[[float], str]:
    """How a difference of the finding's metric is printed, with its sign: in percent of FID, otherwise as it is."""
    if answer.finding.metric in LOGARITHMIC:
        return lambda value: _signed(f"{100 * value:+.1f}") + "%"
    decimals = style_of(answer.finding.metric).decimals
    return lambda value: _signed(("+" if value >= 0 else "") + fixed(value, decimals))


def _signed(text: str) -> str:
    return text.replace("-", "\N{MINUS SIGN}")


def _p(value: float) -> str:
    return "< .001" if value < 0.001 else f"{value:.3f}".removeprefix("0")


def findings_note(report: Report) -> str:
    """What the page's columns and verdicts mean."""
    tested = [answer.judged for answer in report.answers if answer.judged is not None]
    margins = "; ".join(
        f"{style_of(metric).title} {text}"
        for metric, text in {
            answer.finding.metric: shown_difference(answer)(record["margin"]).lstrip("+")
            for answer, record in zip(report.answers, records(report), strict=True)
            if record["margin"] is not None
        }.items()
    )
    level = min((judged.level for judged in tested if judged.level > 0), default=LEVEL)
    growing = any(judged.level != LEVEL for judged in tested)
    looks = (
        "A study that grows is looked at when its runs a row reach 8, 16, 32 and so on, and each look has its share of "
        f"the level (here {level:.3g}). "
        if growing
        else ""
    )
    then = "truth, by the look that has these runs" if growing else "truth"
    systems = (
        "Claims about systems compare them by their own numbers of steps, on as many images; a system without a "
        "training seed has one value, and its error over images in place of a variance between runs. "
        if any(answer.finding.steps is None and answer.judged for answer in report.answers)
        else ""
    )
    runs = [answer.judged.runs for answer in report.replicated if answer.judged is not None]
    study = (
        f"Study: the verdict of the shipped study of {min(runs)} runs a row and more, judged as a page of its own. "
        if runs
        else ""
    )
    untested = " ".join(f"({number}) {reason}." for number, reason in enumerate(_reasons(report), start=1))
    if not tested:
        return f"No claim is judged. {untested}"
    note = (
        "Differences are those of the first rows less the others', of the pair that decides; of FID in percent. A bar "
        "is the 95% interval for one contrast, on an axis of its metric; a diamond the published difference; shaded "
        "what does not count. The interval holds training seed and processor, by the variance between runs: a row's "
        "own where it has 7 runs, else the mean over rows. It does not hold the draw of the pretrained networks: "
        "another pretraining seed of a feature network may change what part (a) finds. Verdicts are at 5% for the "
        f"whole page (Holm); a difference below the margin does not count ({margins}). {looks}{systems}{study}"
        "Undecided claims: how many more runs of each row would decide them in at least 80 of 100 studies, if what "
        f"was measured is the {then}."
    )
    return f"{note} {untested}".rstrip()
