"""Reading what the page shows, and checking that it belongs together: samples, scores, prompts, scenes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from add.data.images import decoded
from add.data.reading import file_bytes
from add.errors import InputError
from eval.image_scores import ScoredImages, read_scores
from eval.images import SampleSet, decode_sample, read_samples
from eval.metrics.alignment import Scene
from eval.prompts import Prompt, read_parti
from eval.result import read_json
from reports.explorer.entries import ExplorerEntry, ImagesKey


@dataclass(frozen=True)
class ShownPrompt:
    """A prompt of a set, the seed of most systems' images of it, and its scene, None where none is known."""

    prompt: Prompt
    image_seed: int
    scene: Scene | None


@dataclass(frozen=True)
class ShownImages:
    """The images of one system, steps and prompt set, in the set's order, with their scores where there are some."""

    entry: ExplorerEntry
    samples: SampleSet
    resolution: int
    scores: ScoredImages | None


@dataclass(frozen=True)
class ShownContents:
    """All that was read. images: by `ExplorerEntry.key`. prompts: of each set, those that every system has."""

    entries: tuple[ExplorerEntry, ...]
    images: dict[ImagesKey, ShownImages]
    prompts: dict[str, tuple[ShownPrompt, ...]]


def read_contents(
    entries: tuple[ExplorerEntry, ...], scenes: Path | None, parti: Mapping[str, Path]
) -> ShownContents:
    """Everything but the pixels.

    scenes: the file with the true content of each prompt (`eval.metrics.alignment.read_scenes`). parti: by the name of
    a set, its PartiPrompts file, which has the categories and challenges.

    Raises:
        InputError: a file is missing or broken; scores are of other prompts than the samples; systems differ in the
            prompts of a set; the scenes are not those by which the scores were made.
    """
    images: dict[ImagesKey, ShownImages] = {}
    for entry in entries:
        if entry.key not in images:
            images[entry.key] = _read_images(entry)
    known = _read_scenes(scenes) if scenes is not None else {}
    prompts = {}
    for name in dict.fromkeys(entry.prompts for entry in entries):
        of_set = [shown for shown in images.values() if shown.entry.prompts == name]
        prompts[name] = _prompts(name, of_set, known, parti.get(name))
        for shown in of_set:
            _check_scenes(shown, prompts[name], scenes)
    if unknown := sorted(set(parti) - set(prompts)):
        raise InputError(
            f"--parti {unknown[0]}: no entry has this prompt set; they have {', '.join(prompts)}"
        )
    return ShownContents(entries, images, prompts)


def _read_images(entry: ExplorerEntry) -> ShownImages:
    samples = read_samples(Path(entry.samples), 0)
    if samples.steps != entry.steps:
        reason = f"says {samples.steps} steps, the entry of {entry.system!r} says {entry.steps}"
        raise InputError(samples.directory / "samples.json", reason)
    # The first image says how large all have to be: systems may differ in it.
    resolution = decoded(file_bytes(samples.files[0]), samples.files[0]).width
    samples = replace(samples, decode=partial(decode_sample, resolution=resolution))
    if entry.scores is None:
        return ShownImages(entry, samples, resolution, None)
    scores, file = read_scores(Path(entry.scores)), Path(entry.scores)
    wanted = tuple(sample.prompt_id for sample in samples.samples)
    if len(scores.prompt_ids) != len(wanted):
        reason = (
            f"holds the scores of {len(scores.prompt_ids)} images, {samples.directory} holds {len(wanted)}"
        )
        raise InputError(file, f"{reason}; score this set again")
    for line, (found, prompt_id) in enumerate(zip(scores.prompt_ids, wanted, strict=True), start=2):
        if found != prompt_id:
            reason = (
                f"prompt_id: is {found}, but {samples.directory} has {prompt_id} there; score this set again"
            )
            raise InputError(f"{file}:{line}", reason)
    return ShownImages(entry, samples, resolution, scores)


def _read_scenes(file: Path) -> dict[str, dict[str, str | None]]:
    if not file.is_file():
        raise InputError(file, "no such file; it says what each prompt asks for")
    try:
        kind = TypeAdapter(dict[str, dict[str, dict[str, str | None]]])
        return kind.validate_python(read_json(file), strict=True)["prompts"]
    except (ValidationError, KeyError) as error:
        reason = 'is not {"prompts": {prompt: {group: value or null, ...}}}'
        raise InputError(file, reason) from error


def _prompts(
    name: str,
    of_set: Sequence[ShownImages],
    scenes: Mapping[str, Scene],
    parti: Path | None,
) -> tuple[ShownPrompt, ...]:
    reference = of_set[0].samples
    count = min(len(shown.samples) for shown in of_set)
    for shown in of_set[1:]:
        for line, (mine, theirs) in enumerate(
            zip(shown.samples.samples, reference.samples, strict=False), start=2
        ):
            if (mine.prompt_id, mine.prompt) != (theirs.prompt_id, theirs.prompt):
                index = shown.samples.directory / "index.csv"
                reason = (
                    f"entry {line - 1} is for {mine.prompt_id}, {mine.prompt!r}; {reference.directory} has "
                )
                raise InputError(
                    index, f"{reason}{theirs.prompt_id}, {theirs.prompt!r}, of the set {name!r} too"
                )
    published = {} if parti is None else {prompt.prompt_id: prompt for prompt in read_parti(parti)}
    found = []
    for sample in reference.samples[:count]:
        prompt = Prompt(sample.prompt_id, sample.prompt)
        if parti is not None:
            prompt = published.get(sample.prompt_id, prompt)
            if sample.prompt_id not in published or prompt.prompt != sample.prompt:
                reason = (
                    f"has no prompt {sample.prompt_id}, {sample.prompt!r}, which {reference.directory} has"
                )
                raise InputError(parti, reason)
        found.append(ShownPrompt(prompt, sample.image_seed, scenes.get(sample.prompt)))
    return tuple(found)


def _check_scenes(shown: ShownImages, prompts: Sequence[ShownPrompt], file: Path | None) -> None:
    """Raises InputError unless the answers are right where the scores say so: these are the scenes that scoring had."""
    if shown.scores is None or not shown.scores.scores.answers or file is None:
        return
    scores = shown.scores.scores
    for k, each in enumerate(prompts):
        answer = scores.answers[k]
        if each.scene is None or set(each.scene) != set(answer):
            groups = "no scene" if each.scene is None else f"the groups {sorted(each.scene)}"
            reason = (
                f"prompts[{each.prompt.prompt!r}]: {groups}, {shown.entry.scores} answers {sorted(answer)}"
            )
            raise InputError(file, reason)
        right = all(answer[group] == value for group, value in each.scene.items() if value is not None)
        if scores.alignment and scores.alignment[k] != right:
            reason = f"all_right: is {str(not right).lower()}, but not by the scene of {each.prompt.prompt!r} in {file}"
            raise InputError(f"{shown.entry.scores}:{k + 2}", reason)
