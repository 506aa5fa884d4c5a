"""Did a run's losses do their work? Read from its log: a row whose discriminator is dead does not answer its question.

The heads are judged over the second half of the logged steps, when they have learnt what they learn.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

SEPARATING = 0.55
"""Share of samples that heads must rank right to count as separating; 0.5 is chance."""

_BLOCKS = 8
"""Neighbouring steps see nearly the same networks, so errors are from the means of this many blocks of steps."""


def diagnose(log: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """What a run's log says about its losses, as JSON values; `steps` says on how many logged steps it stands.

    log: the records of log.jsonl, in order. Keys that a loss does not have are left out:

    ranked, ranked_error: share of samples whose real image gets the larger logit (0.5 is chance), its standard error.
    gap, gap_error: mean logit of real less that of generated images, over heads. heads_above_zero: share of heads whose
    mean gap is above zero. heads_separate: whether `ranked` is above SEPARATING, and above 0.5 beyond its noise; of one
    record alone there is no noise, and so no error and no verdict (let `log_every` be smaller).
    no_gradient: by loss, the share of all logged steps in which it gave none. gradient_ratio: geometric mean of
    |d lambda L_distill / d x| / |d L_adv / d x| over the steps in which both gave one; x is the student's output.
    """
    late = log[len(log) // 2 :]
    found: dict[str, Any] = {"steps": len(log)}
    if late and "gap" in late[0]:
        for name in ("ranked", "gap"):
            found[name], error = _mean([record[name] for record in late])
            if error is not None:
                found[f"{name}_error"] = error
        heads = [key for key in late[0] if key.startswith("gap_")]
        above = [_mean([record[key] for record in late])[0] > 0 for key in heads]
        found["heads_above_zero"] = sum(above) / len(above)
        if "ranked_error" in found:
            beyond = found["ranked"] - 0.5 > 2 * found["ranked_error"]
            found["heads_separate"] = bool(beyond and found["ranked"] >= SEPARATING)
    norms = {
        loss: [record[key] for record in log if key in record]
        for loss, key in (
            ("distillation", "gradient_distill"),
            ("adversarial", "gradient_adversarial"),
            ("heads", "head_grad_norm"),
        )
        if log and _USED[loss] in log[0]
    }
    found["no_gradient"] = {
        loss: sum(n == 0 for n in each) / len(each) for loss, each in norms.items() if each
    }
    if "distillation" in norms and "adversarial" in norms:
        pairs = zip(norms["distillation"], norms["adversarial"], strict=True)
        if logs := [math.log(d / a) for d, a in pairs if d > 0 and a > 0]:
            found["gradient_ratio"] = math.exp(sum(logs) / len(logs))
    return found


_USED = {"distillation": "loss_distill", "adversarial": "loss_g_adv", "heads": "loss_d"}
"""What a record holds where a run has the loss."""


def _mean(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean, and its standard error from the means of consecutive blocks; None where there is one block."""
    blocks = min(_BLOCKS, len(values))
    edges = [round(k * len(values) / blocks) for k in range(blocks + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]
    mean = sum(values) / len(values)
    if blocks == 1:
        return mean, None
    centre = sum(means) / blocks
    variance = sum((m - centre) ** 2 for m in means) / (blocks - 1)
    return mean, math.sqrt(variance / blocks)
