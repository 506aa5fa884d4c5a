"""What turns prompts and seeds into images: a trained student, or any diffusers pipeline, and those that follow it."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from add.config.scale import NetworkSpec
from add.config.system import Dtype, StageSpec, SystemSource
from add.config.yaml import nearest
from add.errors import InputError
from eval.drawing import Timesteps, eight_bit, sampler_facts, watched

SIZES = ("original_size", "target_size")
JUDGES = ("safety_checker", "watermarker")
"""Parts of pipelines that black out images, or mark them: they are left out, and their weights are not fetched."""


FLOW_SCHEDULER = "RectifiedFlowScheduler"
"""The one scheduler of this project (`eval.flow`); the others are diffusers'."""

CLASSES = {"RectifiedFlowPipeline": "StableDiffusionPipeline"}
"""Classes of published pipelines that diffusers lacks: InstaFlow's differs by its scheduler (`eval.flow`)."""


@dataclass(frozen=True)
class Stage:
    """A pipeline that draws over the images of the one before it; settings: further arguments of its call."""

    pipeline: Any
    steps: int
    guidance: float
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class System:
    """A pipeline that turns prompts and seeds into images.

    timesteps: by number of steps, a student's own or those that were given for a pipeline; empty for other pipelines,
    whose scheduler chooses. guidance: classifier-free guidance scale, 1 for none (a student has none; paper,
    section 4). called: the timesteps of the last call, by pipeline. sizes: `original_size` and `target_size`, sides in
    pixels, that an SDXL pipeline is told; without them it takes its resolution. resolution: side in pixels of the
    images that are drawn; None for the pipeline's own. then: the pipelines after it.
    """

    name: str
    pipeline: Any
    timesteps: dict[int, list[int]]
    guidance: float
    called: list[Timesteps] = field(default_factory=list)
    sizes: Mapping[str, int] = field(default_factory=dict)
    resolution: int | None = None
    then: tuple[Stage, ...] = ()

    @property
    def pipelines(self) -> tuple[Any, ...]:
        """All pipelines, in the order of their calls."""
        return (self.pipeline, *(stage.pipeline for stage in self.then))

    def images(self, prompts: Sequence[str], seeds: Sequence[int], steps: int) -> NDArray[np.uint8]:
        """RGB images (N, H, W, 3) uint8, one generator an image, so that none depends on its neighbours.

        A pipeline that takes one generator for a batch draws one image a call. Pipelines that follow get 8-bit images,
        and go on with their generators. Raises InputError where there are no timesteps for that many steps, or the
        scheduler takes none, and as `eight_bit` does.
        """
        at_once = 1 if any(map(_one_generator, self.pipelines)) else len(prompts)
        parts = [slice(k, k + at_once) for k in range(0, len(prompts), at_once)]
        return np.concatenate([self._drawn(prompts[part], seeds[part], steps) for part in parts])

    def _drawn(self, prompts: Sequence[str], seeds: Sequence[int], steps: int) -> NDArray[np.uint8]:
        import torch

        options: dict[str, Any] = {name: (side, side) for name, side in self.sizes.items()}
        if self.resolution is not None:
            options |= {"height": self.resolution, "width": self.resolution}
        options |= self._chosen_timesteps(steps)
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        first = Stage(self.pipeline, steps, self.guidance, options)
        names = [f"{self.name}: {p!r}, image seed {s}" for p, s in zip(prompts, seeds, strict=True)]
        self.called.clear()
        images = self._called(first, prompts, generators, names)
        for stage in self.then:
            images = self._called(stage, prompts, generators, names, images)
        return images

    def _chosen_timesteps(self, steps: int) -> dict[str, Any]:
        """The argument that says them; nothing where the scheduler would choose the same."""
        if not self.timesteps:
            return {}
        if steps not in self.timesteps:
            known = ", ".join(map(str, self.timesteps))
            raise InputError(f"{self.name}: no {steps}-step sampling; it has {known}")
        scheduler = type(self.pipeline.scheduler).from_config(self.pipeline.scheduler.config)
        scheduler.set_timesteps(steps)
        same = [int(t) for t in scheduler.timesteps] == self.timesteps[steps]
        return {} if same else {"timesteps": self.timesteps[steps]}

    def _called(
        self,
        stage: Stage,
        prompts: Sequence[str],
        generators: Sequence[Any],
        names: Sequence[str],
        over: NDArray[np.uint8] | None = None,
    ) -> NDArray[np.uint8]:
        """The images (N, H, W, 3) of one pipeline, drawn over those of another where there are some."""
        from PIL import Image

        settings = dict(stage.settings)
        if over is not None:
            settings["image"] = [Image.fromarray(image) for image in over]
        with watched(stage.pipeline) as seen:
            try:
                output = stage.pipeline(
                    prompt=list(prompts),
                    num_inference_steps=stage.steps,
                    guidance_scale=stage.guidance,
                    generator=generators[0] if _one_generator(stage.pipeline) else list(generators),
                    output_type="np",
                    **settings,
                )
            except ValueError as error:
                if "timestep" in str(error):  # this is how diffusers says that a scheduler takes none
                    raise InputError(self.name, str(error).strip()) from error
                raise
        self.called.append(tuple(seen.timesteps))
        flagged = getattr(output, "nsfw_content_detected", None)
        return eight_bit(output.images, seen.finite, flagged, names)

    @property
    def sampler_facts(self) -> dict[str, Any]:
        """How the last images were drawn (`eval.drawing.sampler_facts`), with the calls of all pipelines."""
        own, *others = self.called
        facts = sampler_facts(self.pipeline, own, self.guidance)
        if self.then:
            following = zip(self.then, others, strict=True)
            facts["then"] = [sampler_facts(s.pipeline, called, s.guidance) for s, called in following]
            facts["network_calls"] += sum(each["network_calls"] for each in facts["then"])
            for each in facts["then"]:
                each.pop("note", None)  # it need not begin at pure noise
        return facts


def _one_generator(pipeline: Any) -> bool:
    """Whether a pipeline takes one generator for a whole batch, as aMUSEd's does; others take a list."""
    taken = inspect.signature(type(pipeline).__call__).parameters.get("generator")
    declared = "" if taken is None else str(taken.annotation)
    return "Generator" in declared and "list" not in declared.lower()


def load_system(
    directory: str,
    guidance: float = 1.0,
    device: str = "cpu",
    timesteps: Sequence[int] = (),
    sizes: Mapping[str, int] | None = None,
    *,
    scheduler: str | None = None,
    spacing: str | None = None,
    dtype: Dtype | None = None,
    resolution: int | None = None,
    unet: Path | None = None,
    adapter: Path | None = None,
    then: tuple[Stage, ...] = (),
) -> System:
    """Load the pipeline at `directory` (or hub id), in float32 unless `dtype` says otherwise.

    guidance, timesteps, sizes, resolution: for pipelines that are no student; without timesteps the scheduler chooses.
    scheduler: a class of diffusers in place of the pipeline's own, with its configuration; spacing: of its timesteps.
    unet, adapter: directories of a UNet in the place of the pipeline's, and of a LoRA that is merged into it.
    Raises OSError where the directory is no diffusers pipeline, InputError where these are given for a student, or it
    lost files, for a scheduler that diffusers does not have, and for a part that does not fit.
    """
    from add.models.diffusion import STUDENT_FILE
    from add.models.weights import lost_files

    file = Path(directory) / STUDENT_FILE
    # A student that lost its own file must not be sampled as a pipeline with a scheduler's timesteps.
    trained = file.exists() or Path(directory).with_name("train").joinpath("train.json").is_file()
    if trained and (lost := next(lost_files(Path(directory)), None)):
        raise InputError(lost, "`addbench repair` lets the next `snakemake` train the student again")
    if file.exists():
        if timesteps or sizes or scheduler or spacing or resolution or unet or adapter or then:
            raise InputError(directory, "is a student, which has its own sampler and sizes; leave them out")
        note = json.loads(file.read_text(encoding="utf-8"))
        own = {int(k): list(map(int, v)) for k, v in note["timesteps"].items()}
        told = {name: int(note[name]) for name in SIZES if name in note}
        pipeline = _pipeline(directory, device, dtype)
        return System(directory, pipeline, own, float(note["guidance_scale"]), sizes=told)
    pipeline = _pipeline(directory, device, dtype, unet)
    if adapter is not None:
        _merge(pipeline, adapter)
    if scheduler or spacing:
        pipeline.scheduler = _scheduler(pipeline.scheduler, scheduler, spacing, directory)
    given = {len(timesteps): list(timesteps)} if timesteps else {}
    return System(directory, pipeline, given, guidance, sizes=sizes or {}, resolution=resolution, then=then)


def _pipeline(directory: str, device: str, dtype: Dtype | None, unet: Path | None = None) -> Any:
    """The pipeline, without what judges its images."""
    import torch
    from diffusers.utils import logging

    logging.disable_progress_bar()
    options: dict[str, Any] = {"torch_dtype": getattr(torch, dtype or "float32")}
    index = Path(directory) / "model_index.json"
    stated = json.loads(index.read_text(encoding="utf-8")) if index.is_file() else {}
    kind = _class(stated, index)
    options |= {name: None for name in JUDGES if name in stated}
    if unet is not None:
        options["unet"] = _unet(stated, unet, directory, options["torch_dtype"])
    folders = (Path(directory) / part for part in ("unet", "transformer"))
    if folder := next((each for each in folders if each.is_dir()), None):
        options |= _variant(folder)
    pipeline = kind.from_pretrained(directory, **options).to(device)
    if getattr(pipeline, "watermark", None) is not None:
        pipeline.watermark = None  # SDXL's pipeline marks images wherever a certain package is installed
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _class(stated: Mapping[str, Any], index: Path) -> Any:
    """The class that loads a pipeline. Raises InputError for one that neither diffusers nor `CLASSES` knows."""
    import diffusers

    name = stated.get("_class_name", "DiffusionPipeline")
    if not isinstance(name, str) or not hasattr(diffusers, CLASSES.get(name, name)):
        known = f"diffusers {diffusers.__version__}"
        raise InputError(index, f"_class_name: {known} has no {name}; hand in its images (docs/systems.md)")
    return getattr(diffusers, CLASSES[name]) if name in CLASSES else diffusers.DiffusionPipeline


def _unet(stated: Mapping[str, Any], unet: Path, directory: str, dtype: Any) -> Any:
    """The network at `unet`, of the class that a pipeline's model_index.json states for its own."""
    import diffusers

    if "unet" not in stated:
        raise InputError(directory, "has no UNet; leave `unet` out")
    kind = getattr(diffusers, stated["unet"][1])
    return kind.from_pretrained(unet, torch_dtype=dtype, **_variant(unet))


def _variant(folder: Path) -> dict[str, str]:
    """The option of `from_pretrained` for a folder whose weights are a variant alone; none for plain weights."""
    from add.models.weights import weight_variant

    variant = weight_variant(folder)
    return {} if variant is None else {"variant": variant}


def _merge(pipeline: Any, adapter: Path) -> None:
    """Merge a LoRA into a pipeline. Raises InputError where it has none of the pipeline's layers."""
    if not hasattr(pipeline, "load_lora_weights"):
        raise InputError(adapter, f"a {type(pipeline).__name__} takes no adapter; leave `adapter` out")
    try:
        pipeline.load_lora_weights(adapter)
        if not pipeline.get_active_adapters():
            raise ValueError("none of its layers is the pipeline's")
        pipeline.fuse_lora()
    except (ValueError, RuntimeError, OSError) as error:
        name = type(pipeline).__name__
        raise InputError(adapter, f"is no LoRA of this {name}: {str(error).splitlines()[0]}") from error
    pipeline.unload_lora_weights()


def no_scheduler(name: str) -> str | None:
    """Why there is no scheduler of this name; None where diffusers or this project has it."""
    import diffusers

    known = [FLOW_SCHEDULER, *(known for known in dir(diffusers) if known.endswith("Scheduler"))]
    return None if name in known else f"diffusers {diffusers.__version__} has no {name}{nearest(name, known)}"


def _scheduler(own: Any, name: str | None, spacing: str | None, directory: str) -> Any:
    """A scheduler of diffusers, or of this project, with the configuration of a pipeline's `own`."""
    if name is not None and (reason := no_scheduler(name)):
        raise InputError(directory, reason)
    import diffusers

    from eval import flow

    kind = type(own) if name is None else getattr(flow if name == FLOW_SCHEDULER else diffusers, name)
    chosen = {} if spacing is None else {"timestep_spacing": spacing}
    made = kind.from_config(own.config, **chosen)
    if spacing is not None and made.config.get("timestep_spacing") != spacing:
        raise InputError(directory, f"a {kind.__name__} has no timestep spacing; leave `spacing` out")
    return made


def open_system(source: SystemSource, device: str = "cpu") -> System:
    """Find the pipeline and its parts, check their weights, load them. Raises as `load_system`, and WeightsError."""
    return load_system(
        str(_found(source)),
        source.guidance,
        device,
        source.timesteps,
        {str(name): side for name, side in source.sizes.items()},
        scheduler=source.scheduler,
        spacing=source.spacing,
        dtype=source.dtype,
        resolution=source.resolution,
        unet=None if source.unet is None else _found(source.unet),
        adapter=None if source.adapter is None else _found(source.adapter),
        then=tuple(_stage(stage, device, source.dtype) for stage in source.then),
    )


def _stage(spec: StageSpec, device: str, dtype: Dtype | None) -> Stage:
    """A pipeline that follows. Raises InputError where it draws over no images."""
    pipeline = _pipeline(str(_found(spec)), device, dtype)
    settings = spec.model_dump(include={"noise_level", "strength"}, exclude_none=True)
    taken = inspect.signature(type(pipeline).__call__).parameters
    if lacking := [name for name in ("image", *settings) if name not in taken]:
        raise InputError(spec.path, f"a {type(pipeline).__name__} takes no `{lacking[0]}`")
    return Stage(pipeline, spec.steps, spec.guidance, settings)


def _found(network: NetworkSpec) -> Path:
    """Where a network is, its weights checked where the settings state hashes."""
    from add.models.hub import network_directory
    from add.models.weights import check_weights

    directory = network_directory(network)
    if network.sha256 is not None or network.files is not None:
        check_weights(directory, network.sha256, network.files)
    return directory
