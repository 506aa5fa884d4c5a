"""Does the image show what its prompt says? Known exactly where the scene behind each prompt is known.

A classifier (the oracle) with outputs named 'group:value' reads each image; within a group the highest
output is its answer. An image is right if every group that its scene states is answered correctly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from add.data.images import file_bytes, json_object
from add.errors import InputError
from add.models.weights import WeightsError, file_hash
from eval.metrics.features import Extractor, ImageBatch, load_image_network
from eval.metrics.protocol import SourceIdentity

if TYPE_CHECKING:
    from add.config.scale import OracleSpec as OracleSpec

Scene = Mapping[str, str | None]
"""Group -> value; None where the prompt leaves the group open, and any answer will do."""


@dataclass(frozen=True)
class Alignment:
    """Fraction of images with every group right, its Wilson 95% interval, and each group's accuracy.

    A group's accuracy is over the images whose scene states it; a group that no scene states is left out.
    """

    value: float
    interval: tuple[float, float]
    groups: dict[str, float]


@dataclass(frozen=True)
class Oracle:
    """The classifier: its groups in order, each with its values and their places among the outputs.

    scenes: prompt -> scene; source: the file that states them.
    """

    extractor: Extractor
    groups: dict[str, dict[str, int]]
    scenes: dict[str, Scene]
    source: SourceIdentity

    def answers(self, batch: ImageBatch) -> list[dict[str, str]]:
        """For each of the n images, the value that the oracle sees in each group."""
        logits = self.extractor(batch)
        columns = {group: self._best(logits, values) for group, values in self.groups.items()}
        return [{group: column[i] for group, column in columns.items()} for i in range(len(logits))]

    @staticmethod
    def _best(logits: NDArray[np.float32], values: Mapping[str, int]) -> list[str]:
        names, places = list(values), list(values.values())
        return [names[k] for k in logits[:, places].argmax(axis=1)]


def load_oracle(spec: OracleSpec, device: str = "cpu") -> Oracle:
    """The oracle that a scale names, with its scenes.

    Raises WeightsError where its weights or its output names are wrong, InputError where the scenes are.
    """
    from transformers import AutoModelForImageClassification

    kind = "transformers, classifier of 'group:value'"
    extractor, model = load_image_network(spec, AutoModelForImageClassification, "logits", kind, device)
    groups, file = _groups(model.name_or_path, model.config.id2label), Path(spec.scenes)
    scenes = read_scenes(file, groups)
    source = SourceIdentity(file=spec.scenes, sha256=file_hash(file), count=len(scenes))
    return Oracle(extractor, groups, scenes, source)


def _groups(directory: str, names: Mapping[int, str]) -> dict[str, dict[str, int]]:
    groups: dict[str, dict[str, int]] = {}
    for place, name in sorted((int(k), v) for k, v in names.items()):
        group, colon, value = name.partition(":")
        if not (group and colon and value):
            raise WeightsError(f"{directory}: output {place} is called {name!r}, not 'group:value'")
        if value in groups.setdefault(group, {}):
            raise WeightsError(f"{directory}: two outputs are called {name!r}")
        groups[group][value] = place
    for group, values in groups.items():
        if len(values) < 2:
            raise WeightsError(
                f"{directory}: group {group!r} has one value only; there is nothing to tell apart"
            )
    return groups


def read_scenes(file: Path, groups: Mapping[str, Mapping[str, int]]) -> dict[str, Scene]:
    """Prompt -> scene, from {"prompts": {prompt: {group: value or null, ...}}}.

    Every scene must mention every group of the oracle, and only values that the oracle knows. Raises InputError.
    """
    scenes = json_object(file_bytes(file), file).get("prompts")
    if not isinstance(scenes, dict):
        raise InputError(f"{file}: field 'prompts' is missing, or is not an object")
    for prompt, scene in scenes.items():
        _check_scene(file, prompt, scene, groups)
    return scenes


def _check_scene(file: Path, prompt: str, scene: object, groups: Mapping[str, Mapping[str, int]]) -> None:
    where = f"{file}, prompts[{prompt!r}]"
    if not isinstance(scene, dict) or set(scene) != set(groups):
        found = sorted(scene) if isinstance(scene, dict) else scene
        raise InputError(f"{where}: the groups are {found}, the oracle's are {sorted(groups)}")
    for group, value in scene.items():
        if value is not None and value not in groups[group]:
            raise InputError(
                f"{where}.{group}: the oracle knows no {value!r}, only {', '.join(groups[group])}"
            )
    if all(value is None for value in scene.values()):
        raise InputError(f"{where}: states nothing, so any image would be right")


def scenes_of(prompts: Sequence[str], scenes: Mapping[str, Scene], file: Path | str) -> list[Scene] | None:
    """The scene of each prompt; None if no prompt has one (the set is not of this world).

    Raises InputError where some have one and others do not: the score would silently be of a part.
    """
    absent = [prompt for prompt in prompts if prompt not in scenes]
    if not absent:
        return [scenes[prompt] for prompt in prompts]
    if len(absent) == len(prompts):
        return None
    raise InputError(
        f"{file}: {len(absent)} of {len(prompts)} prompts have no scene, the first is {absent[0]!r}"
    )


def alignment(answers: Sequence[Mapping[str, str]], scenes: Sequence[Scene]) -> Alignment:
    """Compare the oracle's answers with the scenes, image by image; at least one image."""
    if len(answers) != len(scenes) or not scenes:
        raise ValueError(f"{len(answers)} answers and {len(scenes)} scenes do not pair up")
    hits: dict[str, list[bool]] = {}
    right = 0
    for answer, scene in zip(answers, scenes, strict=True):
        stated = {group: value for group, value in scene.items() if value is not None}
        for group, value in stated.items():
            hits.setdefault(group, []).append(answer[group] == value)
        right += all(answer[group] == value for group, value in stated.items())
    groups = {group: sum(found) / len(found) for group, found in hits.items()}
    return Alignment(right / len(scenes), wilson(right, len(scenes)), groups)


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """Wilson's 95% score interval of a proportion (J. Am. Stat. Assoc. 22, 1927); also valid at 0 and at 1."""
    from scipy.stats import binomtest

    interval = binomtest(successes, trials).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)
