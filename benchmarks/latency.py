"""How long does one image take, in 1, 25 and 50 steps? diffusers' own pipelines on networks without weights."""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch

from add.networks import DiffusionNetwork
from benchmarks.timing import synchronise

PROMPT = "a photograph of an astronaut riding a horse"
STEPS = {1: 1.0, 25: 7.5, 50: 7.5}  # the student is not guided, its teachers are: two passes a step


def pipeline_of(network: DiffusionNetwork, steps: int) -> Any:
    """A diffusers pipeline of the network's parts, with the student's scheduler or a solver's."""
    from diffusers import (
        DPMSolverMultistepScheduler,
        LCMScheduler,
        StableDiffusionPipeline,
        StableDiffusionXLPipeline,
    )

    kind = LCMScheduler if steps == 1 else DPMSolverMultistepScheduler
    (encoder, *second), (tokenizer, *other) = network.text.encoders, network.text.tokenizers
    parts = {"vae": network.vae, "unet": network.unet, "text_encoder": encoder, "tokenizer": tokenizer}
    parts |= {"scheduler": kind.from_config(network.scheduler_config), "feature_extractor": None}
    pipeline: Any
    if second:
        parts |= {"text_encoder_2": second[0], "tokenizer_2": other[0]}
        pipeline = StableDiffusionXLPipeline(**parts, add_watermarker=False)
    else:
        pipeline = StableDiffusionPipeline(**parts, safety_checker=None, requires_safety_checker=False)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def latencies(network: DiffusionNetwork, repeats: int) -> dict[str, float]:
    """Median seconds of one image at the network's resolution, in its weights' precision, by number of steps."""
    found = {}
    for steps, guidance in STEPS.items():
        pipeline = pipeline_of(network, steps)
        options: dict[str, Any] = {"num_inference_steps": steps, "guidance_scale": guidance}
        options |= {"height": network.resolution, "width": network.resolution, "output_type": "pt"}
        seconds = []
        for repeat in range(repeats + 1):
            started = time.perf_counter()
            with torch.inference_mode():
                pipeline(PROMPT, **options)
            synchronise(network.device.type)
            if repeat:  # the first one compiles kernels and fills caches
                seconds.append(time.perf_counter() - started)
        found[str(steps)] = statistics.median(seconds)
    return found
