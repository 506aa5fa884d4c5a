"""What is a rival's method to the driver, and what do several methods share?"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from add.batch import Batch
from add.config.training import OptimiserSpec
from add.losses import Conditioning, Predict
from add.models.diffusion import (
    DiffusionNetwork,
    load_diffusion,
    noise_settings,
    save_pipeline,
    trainable_unet,
    unet_output,
)
from add.models.encoder_cache import EncoderCache, RememberingNetwork, remembering
from add.models.hub import network_directory
from add.models.text import TextConditioning
from add.train import update
from baselines.spec import RivalSpec


class RivalMethod(ABC):
    """One training of a rival.

    network: the teacher's pipeline; its VAE and text encoders are the student's too. student: what is trained and, as
    its average, saved. modules: all whose parameters or buffers an update changes, the student among them. optimisers:
    by the name of the module that each of them trains. counted: networks whose calls are counted, by kind.
    """

    def __init__(self, spec: RivalSpec, network: DiffusionNetwork, student: nn.Module) -> None:
        self.spec, self.network, self.student = spec, network, student
        self.null = network.null()
        self.modules: dict[str, nn.Module] = {"student": student}
        self.optimisers: dict[str, torch.optim.Optimizer] = {
            "student": adamw(student, spec.training.student_optimiser)
        }
        self.counted: dict[str, nn.Module] = {"student": student, "teacher": network.unet}
        self.counted |= {"encoder": network.vae.encoder, "decoder": network.vae.decoder}
        self.counted |= {f"text_{i}": encoder for i, encoder in enumerate(network.text.encoders)}

    @abstractmethod
    def update(self, batch: Batch, step: int) -> dict[str, Tensor | float]:
        """Change the modules as step `step` does, from a whole batch on the device; returns values to log.

        A function of the modules, the optimisers, the batch and the step alone.
        """

    @abstractmethod
    def save(self, out: Path) -> None:
        """Save the student as a pipeline directory that samples without this project."""

    def train_student(self, loss: Tensor, step: int, steps: int | None = None) -> dict[str, Tensor | float]:
        """Differentiate and update the student; `step` of `steps` (all) sets the rate. Returns values to log."""
        loss.backward(inputs=[p for p in self.student.parameters() if p.requires_grad])
        rates = self.update_module("student", self.student, self.spec.training.student_optimiser, step, steps)
        return {"loss": loss.detach(), **rates}

    def update_module(
        self, name: str, module: nn.Module, settings: OptimiserSpec, step: int, steps: int | None = None
    ) -> dict[str, float]:
        """Update a module that has its gradients by the optimiser of that name; returns its rate and norm."""
        return update(self.optimisers[name], module, settings, step, steps or self.spec.training.steps)

    def text(self, batch: Batch) -> TextConditioning:
        """The conditioning of the batch's captions."""
        return self.network.embed(batch.prompts)

    def latents(self, batch: Batch) -> Tensor:
        """Latents (B, C, h, w) of the batch's images, without gradient."""
        with torch.no_grad():
            return self.network.encode(batch.real)

    def predict(self, unet: nn.Module, text: TextConditioning) -> Predict:
        """A network's raw output at x_t, t with the conditioning "text" or "null", for `add.losses`."""

        def output(x_t: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
            given = text if conditioning == "text" else self.null.expand(len(x_t))
            return unet_output(unet, x_t, t, given)

        return output


def load_teacher(spec: RivalSpec, device: str, cache: EncoderCache | None) -> DiffusionNetwork:
    """The teacher's pipeline, frozen; with a cache its encoders remember. Raises as `load_diffusion` does."""
    network = spec.network
    loaded = load_diffusion(
        str(network_directory(network)),
        device,
        spec.training.resolution,
        network.original_size,
        network.target_size,
    )
    remembered: DiffusionNetwork = remembering(loaded, RememberingNetwork, cache)
    return remembered


def pretrained_student(network: DiffusionNetwork) -> Any:
    """A trainable copy of the teacher's UNet."""
    return trainable_unet(network, "pretrained", 0)


def adamw(module: nn.Module, settings: OptimiserSpec) -> torch.optim.Optimizer:
    """AdamW over the parameters of `module` that are trained."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    return torch.optim.AdamW(
        parameters, lr=settings.lr, betas=settings.betas, weight_decay=settings.weight_decay, fused=True
    )


def save_sampled_by(
    network: DiffusionNetwork,
    unet: Any,
    scheduler: type[Any],
    steps: Sequence[int],
    out: Path,
    settings: Mapping[str, Any],
) -> None:
    """Save `unet` with a diffusers scheduler of the network's noise and these settings.

    steps: numbers of steps; `student.json` names for each the timesteps that the scheduler picks by itself.
    """
    made = scheduler(**noise_settings(network), **settings)
    chosen = {}
    for k in steps:
        made.set_timesteps(k)
        chosen[k] = [int(t) for t in made.timesteps]
    save_pipeline(network, unet, type(made).from_config(made.config), chosen, out)


DDIM: dict[str, Any] = {
    "clip_sample": False,
    "set_alpha_to_one": True,
    "timestep_spacing": "trailing",
    "steps_offset": 1,
}
"""Settings of a DDIMScheduler that begins at the last timestep and ends at the clean image."""


class Recorded(nn.Module):
    """Tensors that an update writes and a checkpoint holds, such as pairs of noise and image."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        for name, tensor in tensors.items():
            self.register_buffer(name, tensor)
