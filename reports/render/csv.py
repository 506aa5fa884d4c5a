"""reports/table.csv: one line a cell, number of steps and prompt set; every number with its protocol."""

from __future__ import annotations

import csv
import io

from reports.cells import Estimate, Report, Slice, in_order
from reports.study import ReportRow

LEADING = ("part", "question", "row", "default", "run", "steps", "prompts")
TRAILING = ("published_fid", "published_clip_score", "seeds", "images")


def render_csv(report: Report) -> str:
    """The table as CSV text. Published values stand only on the lines whose slice they were published for."""
    metrics = in_order({name for where in report.slices for name in report.metrics(where)})
    groups = _groups(report)
    out = io.StringIO()
    writer = csv.DictWriter(out, fieldnames=header(metrics, groups), lineterminator="\n")
    writer.writeheader()
    for row in report.study.rows:
        for where in report.slices:
            writer.writerow(_line(report, row, where, metrics, groups))
    return out.getvalue()


def header(metrics: tuple[str, ...], groups: tuple[str, ...]) -> tuple[str, ...]:
    """The column names. Per metric: value, interval, what it covers, sd over seeds (and standard error)."""
    columns: list[str] = [*LEADING]
    for metric in metrics:
        columns += [metric, f"{metric}_low", f"{metric}_high", f"{metric}_covers", f"{metric}_seed_sd"]
        if metric == "clip_score":
            columns.append("clip_stderr")
        if metric == "alignment":
            columns += [f"alignment_{group}" for group in groups]
    return (*columns, *TRAILING, *(f"{metric}_protocol" for metric in metrics))


def _line(
    report: Report, row: ReportRow, where: Slice, metrics: tuple[str, ...], groups: tuple[str, ...]
) -> dict[str, str]:
    line = {
        "part": row.part,
        "question": row.question,
        "row": row.label,
        "default": "true" if row.default else "false",
        "run": row.run,
        "steps": str(where.steps),
        "prompts": where.prompts,
        "seeds": str(len(report.study.seeds)),
        "images": str(report.measurements[row.run, where].images),
    }
    if where.steps == 1 and where.prompts == report.first.prompts:
        line["published_fid"] = _number(row.published_fid)
        line["published_clip_score"] = _number(row.published_clip_score)
    for metric in metrics:
        estimate = report.estimate(row.run, where, metric)
        if estimate is not None:
            line |= _metric(metric, estimate, groups)
    return line


def _metric(metric: str, estimate: Estimate, groups: tuple[str, ...]) -> dict[str, str]:
    fields = {
        metric: _number(estimate.value),
        f"{metric}_low": _number(estimate.low),
        f"{metric}_high": _number(estimate.high),
        f"{metric}_covers": estimate.covers,
        f"{metric}_seed_sd": _number(estimate.seed_sd),
        f"{metric}_protocol": estimate.protocol,
    }
    if metric == "clip_score":
        fields["clip_stderr"] = _number(estimate.stderr)
    if metric == "alignment":
        fields |= {f"alignment_{group}": _number(estimate.groups.get(group)) for group in groups}
    return fields


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _groups(report: Report) -> tuple[str, ...]:
    """The attribute groups that the oracle names, over all slices, sorted."""
    return tuple(
        sorted(
            {
                group
                for measurement in report.measurements.values()
                for estimate in measurement.metrics.values()
                for group in estimate.groups
            }
        )
    )
