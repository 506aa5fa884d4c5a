"""What can be sampled: a trained student's directory, or any diffusers pipeline with its own scheduler."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from add.errors import InputError


@dataclass(frozen=True)
class System:
    """A pipeline that turns prompts and seeds into images.

    timesteps: for a student, its timesteps by number of steps; empty for other pipelines, whose scheduler
    chooses. guidance: classifier-free guidance scale, 1 for none (a student has none; paper, section 4).
    """

    name: str
    pipeline: Any
    timesteps: dict[int, list[int]]
    guidance: float

    def images(self, prompts: Sequence[str], seeds: Sequence[int], steps: int) -> NDArray[np.uint8]:
        """RGB images (N, H, W, 3) uint8, one generator an image, so that none depends on its neighbours.

        Raises ValueError where a student has no timesteps for that many steps.
        """
        import torch

        if self.timesteps and steps not in self.timesteps:
            raise InputError(
                f"{self.name}: no {steps}-step sampling; it has {', '.join(map(str, self.timesteps))}"
            )
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        options: dict[str, Any] = {}
        if self.timesteps and self._spaced(steps) != self.timesteps[steps]:
            options["timesteps"] = self.timesteps[steps]
        output = self.pipeline(
            prompt=list(prompts),
            num_inference_steps=steps,
            guidance_scale=self.guidance,
            generator=generators,
            output_type="pil",
            **options,
        )
        return np.stack([np.asarray(image) for image in output.images])

    def _spaced(self, steps: int) -> list[int]:
        scheduler = type(self.pipeline.scheduler).from_config(self.pipeline.scheduler.config)
        scheduler.set_timesteps(steps)
        return [int(t) for t in scheduler.timesteps]


def load_system(directory: str, guidance: float = 1.0, device: str = "cpu") -> System:
    """Load the pipeline at `directory` (or hub id) in float32; `guidance` is for pipelines that are no student.

    Raises OSError where the directory is no diffusers pipeline.
    """
    import torch
    from diffusers import DiffusionPipeline
    from diffusers.utils import logging

    from add.models.diffusion import STUDENT_FILE
    from add.models.weights import weight_variant

    logging.disable_progress_bar()
    unet = Path(directory) / "unet"
    options = {"variant": weight_variant(unet)} if unet.is_dir() else {}
    pipeline = DiffusionPipeline.from_pretrained(directory, torch_dtype=torch.float32, **options).to(device)
    if getattr(pipeline, "watermark", None) is not None:
        pipeline.watermark = None  # SDXL's pipeline marks images wherever a certain package is installed
    pipeline.set_progress_bar_config(disable=True)
    file = Path(directory) / STUDENT_FILE
    if not file.exists():
        return System(directory, pipeline, {}, guidance)
    note = json.loads(file.read_text(encoding="utf-8"))
    timesteps = {int(k): list(map(int, v)) for k, v in note["timesteps"].items()}
    return System(directory, pipeline, timesteps, float(note["guidance_scale"]))
