"""What does a run's training step need? Bytes and floating-point operations, counted and not measured.

The real networks are built from their configurations without weights, and one step of both players runs on tensors
that have shapes but no values (`add.counting`): every tensor that would be alive is counted, and every matrix
product and convolution. Not counted: the libraries' workspaces, the allocator's fragmentation and the device's own
context (leave a tenth), the augmentation's copies of the images, and what the optimiser allocates for a moment.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from add.spec import Run

MARGIN = 1.1
"""Device memory for a byte that is counted: workspaces, fragmentation and context are not."""


@dataclass(frozen=True)
class Cost:
    """Of one process. parameters: by network; the bytes are of what lives through the whole training.

    step_bytes: the most that a step adds to them, gradients among it. step_flops: of all parts of an optimiser
    step; a multiplication and an addition are two. step_images: images an optimiser step.
    """

    parameters: Mapping[str, int]
    frozen_bytes: int
    trained_bytes: int
    average_bytes: int
    moment_bytes: int
    step_bytes: int
    step_flops: int
    step_images: int

    @property
    def peak_bytes(self) -> int:
        """The most that is alive at a time."""
        kept = self.frozen_bytes + self.trained_bytes + self.average_bytes + self.moment_bytes
        return kept + self.step_bytes

    def fits(self, device_bytes: int) -> bool:
        """Whether a device of so many bytes will do, with the margin for what is not counted."""
        return self.peak_bytes * MARGIN <= device_bytes

    def seconds_per_step(self, rate: float, share: float) -> float:
        """Modelled seconds of an optimiser step at `share` (0 to 1) of a device's matrix rate (FLOP/s).

        Raises ValueError for a rate or share that is not positive.
        """
        if rate <= 0 or not 0 < share <= 1:
            raise ValueError(f"rate {rate} must be positive, and share {share} in (0, 1]")
        return self.step_flops / (rate * share)


def estimate_cost(
    run: Run,
    processes: int = 1,
    sharded: bool = False,
    configurations: Mapping[str, str] | None = None,
) -> Cost:
    """The cost of a run to each of `processes`; `sharded`: the student's UNet is cut over them.

    configurations: as in `add.unweighted_players.build_players`. Sharded figures leave out the one block at a time
    that is gathered. Raises ValueError where the processes cannot share the batch, and as the builders do.
    """
    from add.counting import count_step, module_bytes, moment_bytes, parameter_counts
    from add.parallel import Share, check_share

    settings = run.training
    part = settings.batch // settings.accumulate
    judged = run.variant.loss.adversarial > 0
    check_share(Share(0, processes), part, settings.virtual_batch if judged else None)
    counted = count_step(run, part // processes, configurations)
    cut = processes if sharded else 1
    eight_bit = settings.performance is not None and settings.performance.eight_bit_optimiser
    heads = [counted.heads] if counted.heads is not None else []
    student = module_bytes([counted.unet])
    return Cost(
        parameters=parameter_counts(counted),
        frozen_bytes=module_bytes(counted.frozen),
        trained_bytes=student // cut + module_bytes(heads),
        average_bytes=student // cut,
        moment_bytes=moment_bytes(counted.unet, eight_bit) // cut
        + sum(moment_bytes(m, eight_bit) for m in heads),
        step_bytes=counted.peak_bytes - (student - student // cut),
        step_flops=counted.flops * settings.accumulate,
        step_images=part // processes * settings.accumulate,
    )
