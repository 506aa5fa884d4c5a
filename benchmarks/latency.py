"""How long does one image take in 1, 25 and 50 steps? diffusers' own pipelines on networks with random weights.

    python -m benchmarks.latency --size sd21
    python -m benchmarks.latency --size sdxl

Images have 512x512 pixels; networks are in bf16 on a GPU and in float32 elsewhere. `benchmarks.gpu_step` times it
too. Writes benchmarks/results/latency-<size>.json.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from pathlib import Path
from typing import Any

import torch

from add.files import write_json
from add.models.diffusion import DiffusionNetwork
from benchmarks.timed import FOLDER, Size, device_name, free, networks_of, time_steps, timed_run

PROMPT = "a photograph of an astronaut riding a horse"
GUIDANCE = {1: 1.0, 25: 7.5, 50: 7.5}  # by steps; a teacher is guided, which takes two passes per step


def pipeline_of(network: DiffusionNetwork, steps: int) -> Any:
    """A diffusers pipeline of the network's parts, with the student's scheduler for one step, else a solver's."""
    import diffusers

    kind = diffusers.LCMScheduler if steps == 1 else diffusers.DPMSolverMultistepScheduler
    (encoder, *second), (tokenizer, *other) = network.text.encoders, network.text.tokenizers
    parts = {"vae": network.vae, "unet": network.unet, "text_encoder": encoder, "tokenizer": tokenizer}
    parts |= {"scheduler": kind.from_config(network.scheduler_config), "feature_extractor": None}
    pipeline: Any
    if second:
        parts |= {"text_encoder_2": second[0], "tokenizer_2": other[0]}
        pipeline = diffusers.StableDiffusionXLPipeline(**parts, add_watermarker=False)
    else:
        pipeline = diffusers.StableDiffusionPipeline(
            **parts, safety_checker=None, requires_safety_checker=False
        )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def latencies(size: Size, device: str, repeats: int) -> dict[str, float]:
    """Median seconds of one image by number of steps, for the networks of `size`."""
    network = networks_of(timed_run(size, 1, None), size, device).student
    if device.startswith("cuda"):
        for module in (network.unet, network.vae, *network.text.encoders):
            module.to(torch.bfloat16)
    found = {str(steps): seconds_of(network, steps, repeats) for steps in GUIDANCE}
    del network
    free(device)
    return found


def seconds_of(network: DiffusionNetwork, steps: int, repeats: int) -> float:
    """Median seconds of one image in `steps` steps, at the network's resolution, in its weights' precision."""
    pipeline = pipeline_of(network, steps)
    options: dict[str, Any] = {"num_inference_steps": steps, "guidance_scale": GUIDANCE[steps]}
    options |= {"height": network.resolution, "width": network.resolution, "output_type": "pt"}
    with torch.inference_mode():
        # the first one compiles kernels and fills caches
        return time_steps(lambda: pipeline(PROMPT, **options), network.device.type, 1, repeats)[0]


def main() -> None:
    """Parse the command line, time and write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.latency", description=__doc__.split("\n")[0])
    parser.add_argument("--size", choices=("sd21", "sdxl", "tiny"), default="sd21")
    parser.add_argument("--repeats", type=int, default=10, help="timed images; the median counts")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, default=FOLDER)
    options = parser.parse_args()
    content = {
        "command": "python -m benchmarks.latency " + shlex.join(sys.argv[1:]),
        "device": device_name(options.device),
        "seconds": latencies(options.size, options.device, options.repeats),
    }
    write_json(options.out / f"latency-{options.size}.json", content)
    print(json.dumps(content, indent=2))


if __name__ == "__main__":
    main()
