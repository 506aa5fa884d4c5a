"""What a log says of its losses: heads at chance, losses without a gradient, and what lambda weighs."""

from __future__ import annotations

import numpy as np
import pytest

from add.diagnosis import diagnose


def log(gap: float, ranked: float, steps: int = 80, noise: float = 0.02) -> list[dict[str, float]]:
    draw = np.random.default_rng(0)
    return [
        {
            "step": step,
            "loss_d": 4.0,
            "loss_g_adv": 0.1,
            "loss_distill": 1.0,
            "gap": gap + noise * draw.standard_normal(),
            "gap_0": 2 * gap + noise * draw.standard_normal(),
            "gap_1": -0.5,
            "ranked": ranked + noise * draw.standard_normal(),
            "head_grad_norm": 1.0,
            "gradient_distill": 2.0 if step % 2 else 8.0,
            "gradient_adversarial": 0.5,
        }
        for step in range(steps)
    ]


def test_heads_that_rank_right_separate_and_heads_at_chance_do_not():
    found = diagnose(log(gap=0.3, ranked=0.7))
    assert found["heads_separate"] is True
    assert found["ranked"] == pytest.approx(0.7, abs=0.01)
    assert found["heads_above_zero"] == 0.5
    assert diagnose(log(gap=0.05, ranked=0.505))["heads_separate"] is False
    # A gap that is large beside its noise, of heads that rank hardly better than chance.
    assert diagnose(log(gap=0.05, ranked=0.52, noise=1e-4))["heads_separate"] is False
    # A good mean that is noise: four logged steps.
    assert diagnose(log(gap=0.3, ranked=0.6, steps=4, noise=0.2))["heads_separate"] is False
    # One record has no noise to be held against: a run that logs once says nothing of its heads.
    once = diagnose(log(gap=0.3, ranked=0.9, steps=1))
    assert once["ranked"] == pytest.approx(0.9, abs=0.3)
    assert not {"heads_separate", "ranked_error"} & once.keys()


def test_the_first_half_of_training_is_not_judged():
    dead, alive = log(0.0, 0.5, steps=40), log(0.3, 0.7, steps=40)
    assert diagnose([*dead, *alive])["heads_separate"] is True
    assert diagnose([*alive, *dead])["heads_separate"] is False


def test_losses_without_a_gradient_are_counted_and_left_out_of_the_ratio():
    found = diagnose(log(0.3, 0.7))
    assert found["no_gradient"] == {"distillation": 0.0, "adversarial": 0.0, "heads": 0.0}
    assert found["gradient_ratio"] == pytest.approx((4 * 16) ** 0.5)
    records = log(0.3, 0.7)
    for record in records[:20]:
        record["gradient_distill"] = 0.0
    assert diagnose(records)["no_gradient"]["distillation"] == 0.25


def test_a_run_of_one_loss_is_judged_by_that_alone():
    alone = [
        {"step": k, "loss_distill": 1.0, "gradient_distill": 1.0, "gradient_adversarial": 0.0}
        for k in range(9)
    ]
    assert diagnose(alone) == {"steps": 9, "no_gradient": {"distillation": 0.0}}
    assert diagnose([]) == {"steps": 0, "no_gradient": {}}
