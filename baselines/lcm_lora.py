"""LCM-LoRA (Luo et al., arXiv 2311.05556): latent consistency distillation that trains a low-rank adapter alone.

Each chosen layer of the frozen teacher gets W + (alpha / rank) B A, with A (rank, in) drawn at random and B (out, rank)
zero at the start, so that training begins at the teacher. Loss and targets are those of baselines/lcm.py. The student
is saved merged, so that it samples without peft; the adapter alone lies beside it in diffusers' format.

Departures: as baselines/lcm.py.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import nn

from add.models.encoder_cache import EncoderCache
from baselines.lcm import LatentConsistency
from baselines.method import RivalMethod, load_teacher, pretrained_student
from baselines.spec import LcmLoraSpec, RivalSpec

ADAPTER = "pytorch_lora_weights.safetensors"


def with_adapter(unet: Any, settings: LcmLoraSpec, seed: int) -> Any:
    """Put an adapter on the UNet, in place; it alone is trainable. Raises ValueError where no layer is a target."""
    from peft import LoraConfig

    torch.manual_seed(seed)
    unet.requires_grad_(False)
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,  # type: ignore[arg-type, unused-ignore]
        target_modules=list(settings.targets),
        init_lora_weights="gaussian",
    )
    unet.add_adapter(config)
    return unet


def merged(unet: nn.Module) -> Any:
    """A copy without adapter whose weights have it added; its outputs are those of `unet`."""
    plain: Any = copy.deepcopy(unet)
    plain.fuse_lora()
    plain.unload_lora()
    return plain


class LatentConsistencyAdapter(LatentConsistency):
    """LCM whose student's trainable parameters are the adapter's."""

    def save(self, out: Path) -> None:
        """The merged student, and its adapter."""
        from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
        from peft import get_peft_model_state_dict

        self.save_unet(merged(self.student), out)
        two = len(self.network.text.encoders) > 1
        pipeline: Any = StableDiffusionXLPipeline if two else StableDiffusionPipeline
        layers = get_peft_model_state_dict(self.student)
        pipeline.save_lora_weights(out, unet_lora_layers=layers, weight_name=ADAPTER)


def make(spec: RivalSpec, seed: int, device: str, cache: EncoderCache | None) -> RivalMethod:
    """The method of a spec."""
    network = load_teacher(spec, device, cache)
    assert isinstance(spec.rival, LcmLoraSpec)
    student = with_adapter(pretrained_student(network), spec.rival, seed)
    return LatentConsistencyAdapter(spec, spec.rival, network, student)
