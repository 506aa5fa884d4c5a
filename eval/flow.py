"""A scheduler for pipelines whose UNet was made a rectified flow (InstaFlow, arXiv 2309.06380)."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import ConfigMixin, SchedulerMixin
from diffusers.configuration_utils import register_to_config
from diffusers.schedulers.scheduling_utils import SchedulerOutput
from torch import Tensor


class RectifiedFlowScheduler(SchedulerMixin, ConfigMixin):
    """Euler steps of z_(r - 1/N) = z_r + v(z_r, r) / N from noise (r = 1) to the image (r = 0).

    The network is told r times `num_train_timesteps`, and puts out v = image - noise (2309.06380, equation 2, where
    time runs the other way). Diffusers' flow matching schedulers have the opposite sign, and no `init_noise_sigma`.
    """

    order = 1
    init_noise_sigma = 1.0

    @register_to_config
    def __init__(self, num_train_timesteps: int = 1000) -> None:
        self.timesteps = torch.empty(0)

    def set_timesteps(self, num_inference_steps: int, device: Any = None) -> None:
        """T, T (N - 1) / N, ..., T / N for N steps, float32 (N,)."""
        left = torch.arange(num_inference_steps, 0, -1, dtype=torch.float32, device=device)
        self.timesteps = left / num_inference_steps * self.config.num_train_timesteps

    def scale_model_input(self, sample: Tensor, timestep: Any = None) -> Tensor:
        """The sample itself."""
        return sample

    def step(
        self, model_output: Tensor, timestep: Any, sample: Tensor, return_dict: bool = True, **_: Any
    ) -> SchedulerOutput | tuple[Tensor]:
        """One Euler step of (B, ...); every step is as long as the others."""
        moved = sample + model_output / len(self.timesteps)
        return SchedulerOutput(prev_sample=moved) if return_dict else (moved,)
