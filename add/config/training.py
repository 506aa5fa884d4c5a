"""How is a student trained? A scale's settings; a row may override each one as `training.<key>`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from add.config.types import Count, Decay, Fraction, Frozen, Increasing, NonNegative, Positive, Seed, distinct


class OptimiserSpec(Frozen):
    """AdamW. `warmup` in steps, linear; `clip` the gradient's norm (null: not clipped)."""

    lr: Positive
    betas: tuple[Decay, Decay]
    weight_decay: NonNegative
    warmup: Annotated[int, Field(ge=0)]
    clip: Positive | None
    decay: Literal["none", "cosine"]


class NfsdSpec(Frozen):
    """NFSD (arXiv 2310.17590): s, the t below which delta_D is the unconditional prediction, the negative prompt."""

    guidance: NonNegative
    threshold: Annotated[int, Field(ge=0, le=1000)]
    negative_prompt: str


class PerformanceSpec(Frozen):
    """Speed and memory on a GPU. Each option changes results a little, so these are values like any other."""

    channels_last: bool = False
    """Images and latents in channels-last memory format, which suits convolutions on tensor cores."""
    compile: bool = False
    """torch.compile with static shapes: the UNets, the VAEs and the feature network."""
    gradient_checkpointing: Annotated[
        tuple[Literal["unet", "decoder", "features"], ...], distinct("a network")
    ] = ()
    """Networks whose activations are recomputed in the backward pass."""
    frozen_precision: Literal["float32", "bf16"] = "float32"
    """Dtype of the frozen networks' weights; bf16 halves their memory and needs precision bf16."""
    eight_bit_optimiser: bool = False
    """The moments of both optimisers in 8 bits (bitsandbytes, which is installed separately)."""

    @field_validator("gradient_checkpointing")
    @classmethod
    def _canonical(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(sorted(value))


class TrainingSpec(Frozen):
    """How a student is trained. Timesteps count 0..999; t = 999 is fed as pure noise."""

    steps: Count
    batch: Count
    """Images per optimiser step, over all `accumulate` parts."""
    accumulate: Count
    student_timesteps: Annotated[tuple[int, ...], Field(min_length=1), Increasing]
    student_timestep_weights: Annotated[tuple[Positive, ...], Field(min_length=1)]
    """Relative probability of each student timestep."""
    distillation_timesteps: tuple[int, int]
    """The range, both ends included, from which the teacher's t is drawn uniformly."""
    teacher_guidance: NonNegative
    nfsd: NfsdSpec
    augmentation: Fraction
    crop_probability: Fraction
    head_width: Count
    virtual_batch: Count
    student_optimiser: OptimiserSpec
    head_optimiser: OptimiserSpec
    ema: Decay
    precision: Literal["float32", "bf16"]
    threads: Count
    """Threads of the process. The result's bits depend on them, so `--cores` does not change them."""
    checkpoint_every: Count
    log_every: Count
    pictures_every: Count
    resolution: Count | None = None
    """Side of the square training images in pixels; unset: the student's own, from its `sample_size` (SDXL: 1024)."""
    performance: PerformanceSpec | None = None
    device: Literal["cpu", "cuda"] | None = None
    """Where every stage computes; unset: on a GPU where there is one. The result's bits depend on it."""

    @field_validator("performance")
    @classmethod
    def _precisions_fit(cls, value: PerformanceSpec | None, info: ValidationInfo) -> PerformanceSpec | None:
        if value and value.frozen_precision == "bf16" and info.data.get("precision") == "float32":
            raise ValueError("frozen_precision bf16 needs training.precision bf16: one step, one autocast")
        return value

    @field_validator("student_timesteps")
    @classmethod
    def _student_timesteps(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if value[0] <= 0:
            raise ValueError(f"holds {value[0]}: no t = 0, where the student would be given the clean image")
        if value[-1] > 999:
            raise ValueError(f"holds {value[-1]}: the schedule's last timestep is 999")
        return value

    @field_validator("distillation_timesteps")
    @classmethod
    def _distillation_timesteps(cls, value: tuple[int, int]) -> tuple[int, int]:
        if not 0 < value[0] < value[1] <= 999:
            raise ValueError(f"should be two timesteps with 0 < first < last <= 999, not {list(value)}")
        return value

    @field_validator("student_timestep_weights")
    @classmethod
    def _one_weight_each(cls, value: tuple[float, ...], info: ValidationInfo) -> tuple[float, ...]:
        timesteps = info.data.get("student_timesteps", value)  # absent where they are wrong themselves
        if len(timesteps) != len(value):
            raise ValueError(f"holds {len(value)} weights for {len(timesteps)} student_timesteps")
        return value

    @field_validator("accumulate")
    @classmethod
    def _equal_parts(cls, value: int, info: ValidationInfo) -> int:
        batch = info.data.get("batch", value)
        if batch % value:
            raise ValueError(f"a batch of {batch} does not split into {value} equal parts")
        return value


class ScaleTrainingSpec(TrainingSpec):
    """A scale's training settings: those of a run, and the training seeds."""

    seeds: Annotated[tuple[Seed, ...], Field(min_length=1), distinct("a seed")]
