"""The forest plot of the claims: published and measured difference, one line a claim."""

from __future__ import annotations

from textwrap import wrap

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from eval.findings.page import Answer
from eval.findings.verdicts import LOGARITHMIC
from reports.cells import Report
from reports.findings import reaches, records
from reports.layout import style_of
from reports.plots import style

COLOURS = {
    "reproduced": style.BLUE,
    "contradicted": style.VERMILLION,
    "equivalent": style.GREEN,
    "undecided": style.GREY,
}
"""Of verdicts: a colour says what the page's test supports."""


WIDEST = 66
"""Characters of a claim beside its bar; a longer one takes two lines, and ends there."""


def plot_findings(report: Report) -> Figure:
    """A panel for each metric; a bar is the measured difference's interval, a diamond the published difference."""
    tested = [
        (number, answer, record)
        for number, (answer, record) in enumerate(zip(report.answers, records(report), strict=True), start=1)
        if answer.judged is not None
    ]
    metrics = list(dict.fromkeys(answer.finding.metric for _, answer, _ in tested))
    if not metrics:
        figure = style.new_figure(0.6)
        figure.text(0.5, 0.5, "No claim can be judged by these results.", ha="center", va="center")
        return figure
    lines = [sum(answer.finding.metric == metric for _, answer, _ in tested) for metric in metrics]
    figure = style.new_figure(0.2 * sum(lines) + 0.62 * len(metrics))
    grid = figure.add_gridspec(
        len(metrics), 1, height_ratios=[n + 0.6 for n in lines], left=0.43, right=0.985, top=0.985, bottom=0.1,
        hspace=0.45,
    )  # fmt: skip
    for place, metric in enumerate(metrics):
        panel = figure.add_subplot(grid[place, 0])
        _panel(panel, metric, [each for each in tested if each[1].finding.metric == metric])
    return figure


def _panel(axes: Axes, metric: str, tested: list[tuple[int, Answer, dict[str, float]]]) -> None:
    relative = metric in LOGARITHMIC
    limit = reaches([record for _, _, record in tested])[metric]
    for line, (number, answer, record) in enumerate(tested):
        colour = COLOURS[answer.verdict]
        low, high, middle = (max(-limit, min(limit, record[key])) for key in ("low", "high", "measured"))
        axes.plot([low, high], [line, line], color=colour, linewidth=1.6, solid_capstyle="butt")
        axes.plot([middle], [line], marker="s", markersize=4, color=colour)
        for value, marker in ((record["high"], ">"), (record["low"], "<")):
            if abs(value) > limit and (value > 0) == (marker == ">"):
                axes.plot(
                    [limit if value > 0 else -limit], [line], marker=marker, markersize=4.5, color=colour
                )
        if (published := record["published"]) is not None:
            clipped = max(-limit, min(limit, published))
            marker = "D" if clipped == published else ">" if published > 0 else "<"
            axes.plot([clipped], [line], marker=marker, markersize=4.5, color=style.INK, fillstyle="none")
        label = wrap(
            f"{number}  {answer.finding.claim}", WIDEST, max_lines=2, placeholder=" \N{HORIZONTAL ELLIPSIS}"
        )
        axes.text(
            -0.015, line, "\n".join(label), transform=axes.get_yaxis_transform(), ha="right", va="center",
            size=7.5 if len(label) == 1 else 6.5, linespacing=0.95,
        )  # fmt: skip
    margin = tested[0][2]["margin"]
    axes.axvspan(-margin, margin, color=style.FAINT, zorder=0, linewidth=0)
    axes.axvline(0, color=style.GREY, linewidth=0.8, zorder=1)
    axes.set_xlim(-1.04 * limit, 1.04 * limit)
    axes.set_ylim(len(tested) - 0.4, -0.6)
    axes.set_yticks([])
    for side in ("left", "right", "top"):
        axes.spines[side].set_visible(False)
    axes.xaxis.set_major_formatter(
        (lambda value, _: f"{100 * value:+.0f}%".replace("-", "\N{MINUS SIGN}"))
        if relative
        else (lambda value, _: f"{value:+.3g}".replace("-", "\N{MINUS SIGN}"))
    )
    axes.set_xlabel(f"difference in {style_of(metric).title}", size=7.5)
    axes.tick_params(axis="x", labelsize=7)
