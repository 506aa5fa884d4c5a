"""How many floating-point operations do training steps and samples take? Counted on the real networks' shapes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from add.resolve import spec_hash
from add.spec import Run

PROCESSES = 8
"""At most so many count at a time; each holds torch and a network without weights, about 1 GB."""


class Arithmetic:
    """Floating-point operations of training steps and of samples, each counted once on the real shapes."""

    def __init__(self, configurations: Mapping[str, str]) -> None:
        self.configurations = configurations
        self._steps: dict[str, float] = {}
        self._samples: dict[tuple[str, int | None], tuple[float, float]] = {}

    def step(self, run: Run) -> float:
        """Of one optimiser step of a run."""
        self.count_steps([run])
        return self._steps[_key(run)]

    def count_steps(self, runs: Iterable[Run]) -> None:
        """Count the steps of several runs, a process a core: at the real sizes each takes many seconds."""
        waiting = {key: run for run in runs if (key := _key(run)) not in self._steps}
        count = partial(_step_flops, dict(self.configurations))
        specs = [run.model_dump_json() for run in waiting.values()]
        processes = min(len(specs), len(os.sched_getaffinity(0)), PROCESSES)
        if processes < 2:
            self._steps |= zip(waiting, map(count, specs), strict=True)
            return
        with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
            self._steps |= zip(waiting, pool.map(count, specs), strict=True)

    def sample(self, path: str, resolution: int | None, steps: int, guided: bool = False) -> float:
        """Of one image of a pipeline by so many steps; with guidance each step runs the network twice."""
        key = (path, resolution)
        if key not in self._samples:
            self._samples[key] = _sampling(self.configurations[path], resolution)
        once, step = self._samples[key]
        return once + step * steps * (2 if guided else 1)


def _key(run: Run) -> str:
    """The same for runs whose steps take the same operations: what is left out are other weights, not other work."""
    loss = run.variant.loss
    form = "exponential" if loss.distillation == "sds" else loss.distillation
    variant = run.variant.model_copy(
        update={"student_init": "pretrained", "loss": loss.model_copy(update={"distillation": form})}
    )
    return spec_hash(run.model_copy(update={"name": "", "variant": variant}))


def _step_flops(configurations: Mapping[str, str], spec: str) -> float:
    from add.cost import estimate_cost

    return float(estimate_cost(Run.model_validate_json(spec), configurations=configurations).step_flops)


def _sampling(directory: str, resolution: int | None) -> tuple[float, float]:
    """Operations of an image beside its steps (prompt and decode), and of one step."""
    import torch

    from add.meters import Flops
    from add.unweighted import build_diffusion

    network = build_diffusion(Path(directory), "meta", resolution)
    for encoder, tokenizer in zip(network.text.encoders, network.text.tokenizers, strict=True):
        tokenizer.model_max_length = encoder.config.max_position_embeddings
    latents = torch.empty(1, *network.latent_shape, device="meta")
    with torch.no_grad(), Flops() as once:
        text = network.embed([""])
        network.decode(latents)
    with torch.no_grad(), Flops() as step:
        network.predict(latents, torch.full((1,), 999, device="meta"), text)
    return float(once.total), float(step.total)
