"""What decides a rival's training? Its method's own settings, each stated, and what every training states.

A value that ADD's training has too has its name and its meaning there: `training.teacher_guidance` is the guidance
that a rival's teacher is asked with, `training.student_optimiser`, `training.ema` and `training.steps` are the
student's, `training.head_optimiser` and `training.head_width` those of discriminator heads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from add.config.resolve import OF_THE_SCALE
from add.config.run import DiscriminatorSpec
from add.config.scale import DiffusionNetworkSpec, NetworksSpec, Scale
from add.config.training import OptimiserSpec, RunDataSpec, TrainingSpec
from add.config.types import Count, Decay, Frozen, Name, NonNegative, Positive, StepCount, Text
from add.config.yaml import Loc, SpecError, nearest, raise_all, read_json, validated
from add.digests import digest_of
from add.identity import deciding_values

RIVALS = 1
"""Counts the versions of the rivals' arithmetic, as `add.identity.METHOD` does for ADD's."""
TIMESTEPS = 1000
"""Timesteps of every schedule here, as `TrainingSpec` counts them."""


def _divides(value: int) -> int:
    if TIMESTEPS % value:
        raise ValueError(f"{value} does not divide the schedule's {TIMESTEPS} timesteps")
    return value


Divisor = Annotated[int, Field(ge=1, lt=TIMESTEPS), AfterValidator(_divides)]


def split(steps: int, shares: Sequence[float]) -> list[int]:
    """Training steps of consecutive stages with these shares, which sum to 1.

    Raises ValueError where a stage would get no step.
    """
    ends = [round(steps * sum(shares[: i + 1])) for i in range(len(shares))]
    lengths = [end - start for start, end in zip([0, *ends], ends, strict=False)]
    if min(lengths) < 1:
        raise ValueError(f"{steps} steps in shares {list(shares)} leave a stage none: train longer")
    return lengths


class ConsistencySpec(Frozen):
    """Latent consistency distillation (baselines/lcm.py).

    skip: timesteps that one DDIM step of the teacher goes down, the paper's k. timestep_scaling: of c_skip and c_out.
    huber: c of the pseudo-Huber distance; null for the squared one. target_decay: of the moving average that gives the
    target, the paper's mu; 0 takes the student itself.
    """

    skip: Divisor
    timestep_scaling: Positive
    huber: Positive | None
    target_decay: Decay


class LcmSpec(ConsistencySpec):
    """A whole UNet is trained."""

    kind: Literal["lcm"]


class LcmLoraSpec(ConsistencySpec):
    """An adapter alone is trained (baselines/lcm_lora.py). rank, alpha: its scale is alpha / rank.

    targets: ends of the names of the UNet's layers that get one.
    """

    kind: Literal["lcm_lora"]
    rank: Count
    alpha: Positive
    targets: Annotated[tuple[Text, ...], Field(min_length=1)]


class GuidanceDistillationSpec(Frozen):
    """The guided teacher in one pass (baselines/guidance_distillation.py); sampled by DDIM with any of `sampled`."""

    kind: Literal["guidance_distillation"]
    sampled: Annotated[tuple[Divisor, ...], Field(min_length=1)]


class ProgressiveSpec(Frozen):
    """Progressive distillation (baselines/progressive.py).

    guidance_share: share of the steps in which guidance is distilled first; 0 where `training.teacher_guidance` is 1.
    first, last: the student's DDIM steps in the first stage and in the last, each stage halving them.
    last_share: share of the remaining steps that the last stage takes; the others share the rest equally.
    """

    kind: Literal["progressive"]
    guidance_share: Annotated[float, Field(ge=0, lt=1)]
    first: Annotated[int, Field(ge=1, le=TIMESTEPS // 2)]
    last: StepCount
    last_share: Annotated[float, Field(gt=0, le=1)]

    @model_validator(mode="after")
    def _halves(self) -> ProgressiveSpec:
        if self.halvings[0] != self.first:
            raise ValueError(f"first {self.first} is not last {self.last} times a power of two")
        if (len(self.halvings) == 1) != (self.last_share == 1):
            raise ValueError("last_share is 1 where there is one stage, and below 1 where there are more")
        return self

    @property
    def halvings(self) -> tuple[int, ...]:
        """The student's steps in each stage, such as 8, 4, 2, 1."""
        found = [int(self.last)]
        while found[0] * 2 <= self.first:
            found.insert(0, found[0] * 2)
        return tuple(found)

    def stages(self, steps: int) -> list[tuple[int | None, int]]:
        """The student's steps (None while guidance is distilled) and the training steps of each stage, in order.

        steps: of the training. Raises ValueError where a stage gets none.
        """
        halvings = self.halvings
        rest = 1 - self.guidance_share
        shares = [rest * (1 - self.last_share) / max(1, len(halvings) - 1)] * (len(halvings) - 1)
        shares.append(rest * self.last_share)
        names: list[int | None] = list(halvings)
        if self.guidance_share > 0:
            names, shares = [None, *names], [self.guidance_share, *shares]
        return list(zip(names, split(steps, shares), strict=True))


class RectifiedFlowSpec(Frozen):
    """Reflow and one-step distillation (baselines/rectified_flow.py), in four phases by shares of the steps.

    teacher_pairs: one step draws a batch of the teacher's pairs by `teacher_steps` DDIM steps. reflow: trains on them.
    own_pairs: draws pairs of the reflowed student by `own_steps` Euler steps. distil: trains the one step on them.
    """

    kind: Literal["rectified_flow"]
    teacher_pairs: Annotated[float, Field(gt=0, lt=1)]
    teacher_steps: Divisor
    reflow: Annotated[float, Field(gt=0, lt=1)]
    own_pairs: Annotated[float, Field(ge=0, lt=1)]
    own_steps: Divisor
    distil: Annotated[float, Field(ge=0, lt=1)]

    @model_validator(mode="after")
    def _whole(self) -> RectifiedFlowSpec:
        total = self.teacher_pairs + self.reflow + self.own_pairs + self.distil
        if abs(total - 1) > 1e-6:
            raise ValueError(f"teacher_pairs, reflow, own_pairs and distil sum to {total:g}, not to 1")
        if (self.own_pairs == 0) != (self.distil == 0):
            raise ValueError("own_pairs are what distil trains on: both are 0, or neither")
        return self

    def phases(self, steps: int) -> list[int]:
        """Training steps of the four phases. Raises ValueError where one with a share gets none."""
        shares = [self.teacher_pairs, self.reflow, self.own_pairs, self.distil]
        found = split(steps, [share for share in shares if share > 0])
        return found + [0] * (len(shares) - len(found))


class DiffInstructSpec(Frozen):
    """Diff-Instruct (baselines/diff_instruct.py).

    fake_optimiser, fake_updates: of the network that learns the student's own score; updates for each of the student.
    """

    kind: Literal["diff_instruct"]
    fake_optimiser: OptimiserSpec
    fake_updates: Count


class Dmd2Spec(Frozen):
    """DMD2 (baselines/dmd2.py). adversarial, discriminator: weights of the GAN in the student's and the fake's loss.

    fake_optimiser, fake_updates: as Diff-Instruct's; the fake network's optimiser trains the discriminator head too.
    """

    kind: Literal["dmd2"]
    fake_optimiser: OptimiserSpec
    fake_updates: Count
    adversarial: NonNegative
    discriminator: NonNegative


class LaddSpec(Frozen):
    """LADD (baselines/ladd.py). noise_mean, noise_std: of the logit of the noise level that heads see; r1_gamma."""

    kind: Literal["ladd"]
    noise_mean: float
    noise_std: Positive
    r1_gamma: NonNegative


class DenoisingDiffusionGanSpec(Frozen):
    """Denoising Diffusion GAN (baselines/denoising_diffusion_gan.py). r1_gamma: weight of R1 on the real x_s.

    discriminator_optimiser: of the discriminator, a UNet's half. The denoising steps are `training.student_timesteps`.
    """

    kind: Literal["denoising_diffusion_gan"]
    discriminator_optimiser: OptimiserSpec
    r1_gamma: NonNegative


class GanSpec(Frozen):
    """A one-step GAN from a random start (baselines/gan.py) with ADD's discriminator."""

    kind: Literal["gan"]
    discriminator: DiscriminatorSpec


MethodSpec = Annotated[
    LcmSpec
    | LcmLoraSpec
    | GuidanceDistillationSpec
    | ProgressiveSpec
    | RectifiedFlowSpec
    | DiffInstructSpec
    | Dmd2Spec
    | LaddSpec
    | DenoisingDiffusionGanSpec
    | GanSpec,
    Field(discriminator="kind"),
]


class RivalSpec(Frozen):
    """One training of a rival, fully resolved: everything that decides its weights except the training seed.

    teacher: the pipeline that is distilled, whose VAE and text encoder the student has too.
    """

    name: Text
    rival: MethodSpec
    teacher: Name
    training: TrainingSpec
    networks: NetworksSpec
    data: RunDataSpec

    @field_validator("training")
    @classmethod
    def _plain(cls, value: TrainingSpec) -> TrainingSpec:
        other = {"accumulate": 1, "precision": "float32", "performance": None}
        wrong = [name for name, plain in other.items() if getattr(value, name) != plain]
        if wrong:
            raise ValueError(
                f"a rival trains plainly: leave {', '.join(wrong)} at {[other[n] for n in wrong]}"
            )
        return value

    @model_validator(mode="after")
    def _every_stage_is_trained(self) -> RivalSpec:
        if isinstance(self.rival, ProgressiveSpec):
            self.rival.stages(self.training.steps)
        elif isinstance(self.rival, RectifiedFlowSpec):
            self.rival.phases(self.training.steps)
        return self

    @property
    def sampled_steps(self) -> tuple[int, ...]:
        """The numbers of steps that its student can be sampled by."""
        rival, few = self.rival, (1, 2, 4)
        trained = len(self.training.student_timesteps)
        if isinstance(rival, ConsistencySpec):
            return tuple(k for k in few if k <= TIMESTEPS // rival.skip)
        if isinstance(rival, GuidanceDistillationSpec):
            return rival.sampled
        if isinstance(rival, ProgressiveSpec):
            return (int(rival.last),)
        if isinstance(rival, RectifiedFlowSpec):
            return (1,) if rival.distil else few
        if isinstance(rival, LaddSpec):
            return tuple(k for k in few if k <= trained)
        return (trained,) if isinstance(rival, DenoisingDiffusionGanSpec) else (1,)

    @property
    def network(self) -> DiffusionNetworkSpec:
        """The teacher's pipeline."""
        return self.networks.diffusion[self.teacher]


def rival_of(
    scale: Scale, name: str, settings: Mapping[str, Any], refused: Callable[[Loc, str], SpecError]
) -> RivalSpec:
    """A rival at a scale. settings: `teacher`, `rival` (`kind` and own values), `training` (changes to the scale's).

    refused: makes the error of a place in the settings. Raises SpecError with every problem: an unknown key, a value
    that does not fit, a network that the scale lacks.
    """
    given = _Settings.model_fields.keys()
    unknown = [key for key in settings if key not in given]
    raise_all(refused((key,), f"unknown key '{key}'{nearest(key, given)}") for key in unknown)
    made = validated(_Settings, dict(settings), refused)
    raise_all(
        refused(("training", key), f"training.{key} is the scale's alone: {OF_THE_SCALE[f'training.{key}']}")
        for key in made.training
        if f"training.{key}" in OF_THE_SCALE
    )
    # The scale's options of ADD's networks are not a rival's; it trains plainly.
    training = scale.training.model_dump(exclude={"seeds", "performance"}) | made.training
    networks = scale.networks
    if made.teacher not in networks.diffusion:
        known = nearest(made.teacher, networks.diffusion)
        raise refused(
            ("teacher",), f"the scale '{scale.name}' has no diffusion network '{made.teacher}'{known}"
        )
    heads = made.rival.discriminator if isinstance(made.rival, GanSpec) else None
    if heads is not None and heads.features not in networks.features:
        known = nearest(heads.features, networks.features)
        raise refused(
            ("rival", "discriminator", "features"),
            f"the scale '{scale.name}' has no feature network '{heads.features}'{known}",
        )
    conditioning = heads.conditioning if heads is not None else ()
    used = NetworksSpec(
        diffusion={made.teacher: networks.diffusion[made.teacher]},
        features={heads.features: networks.features[heads.features]} if heads is not None else {},
        c_text=networks.c_text if "text" in conditioning else None,
        c_img=networks.c_img if "image" in conditioning else None,
    )
    values = {
        "name": name,
        "rival": made.rival.model_dump(),
        "teacher": made.teacher,
        "training": training,
        "networks": used.model_dump(),
        "data": {"train": scale.data.train.model_dump()},
    }
    return validated(RivalSpec, values, refused)


class _Settings(Frozen):
    teacher: Name
    rival: MethodSpec
    training: dict[str, Any]


def load_rival(path: str | Path) -> RivalSpec:
    """A rival written as JSON (`RivalSpec.model_dump_json`). Raises SpecError."""
    return read_json(RivalSpec, path)


def rival_hash(spec: RivalSpec) -> str:
    """12 hexadecimal digits of SHA-256 over the values that reach the arithmetic; compare `add.identity.spec_hash`."""
    return digest_of({"rivals": RIVALS, **deciding_values(spec)})[:12]
