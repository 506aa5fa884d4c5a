"""What would have to change for Snakemake to run a job again? The text that it compares, a job's identity.

It holds values that reach the arithmetic and digests of what people put there: images, captions, prompts, votes,
weights. It holds no path, no time and no setting that only says how work is done. What the scale's own `data` stage
makes is an input file of the rules and is not looked at here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from add.config.load import load_run
from add.config.resolve import Table
from add.config.run import Run
from add.config.scale import ClipSpec, CocoPromptsSpec, NetworkSpec, PartiPromptsSpec, ReferenceSpec, Scale
from add.config.study import Hpsv2RaterSpec, PickScoreRaterSpec
from add.data.coco import read_captions
from add.data.contents import data_digest
from add.digests import digest_of, file_digest, file_digests, file_state, remembered
from add.identity import deciding_values, network_content, networks_of
from addbench.preflight import built_here
from eval.images import SUFFIXES, photograph_folder
from eval.metrics.alignment import LOCAL
from eval.preferences.raters.scores import PREPARATION
from eval.stage import MeasureValues, StageValues

if TYPE_CHECKING:
    from baselines.spec import RivalSpec

FIRST_METHOD = 1
"""Of trainings that do not record `add.identity.METHOD`."""
BUILT = "made by the data stage"


def run_identity(scale: Scale, run: Run, data: str | None = None) -> dict[str, Any]:
    """A run's deciding values, and the content of its networks and training data as far as they are here.

    data: the digest of the scale's training data, where it was taken before.
    """
    networks = {name: _network(scale, network) for name, network in networks_of(run).items()}
    return {"values": deciding_values(run), "networks": networks, "data": data or _training_data(scale)}


def rival_identity(scale: Scale, rival: RivalSpec) -> dict[str, Any]:
    """The same of a rival's training."""
    from baselines.spec import RIVALS

    networks = {name: _network(scale, network) for name, network in networks_of(rival).items()}
    return {
        "rivals": RIVALS,
        "values": deciding_values(rival),
        "networks": networks,
        "data": _training_data(scale),
    }


def train_identity(scale: Scale, table: Table, results: str) -> Callable[[Any], str]:
    """The identity of the `train` job of the wildcards `run` and `seed`. Data and records are looked at once a plan."""
    data = cache(lambda: _training_data(scale))
    now = cache(lambda name: run_identity(scale, table.runs[name], data()))
    job = cache(lambda run, seed: settled(Path(results, run, f"seed{seed}"), now(run)))
    return lambda wildcards: job(wildcards.run, str(wildcards.seed))


def upstream(*identities: Callable[[Any], str] | str) -> Callable[[Any], str]:
    """One digest of what decides the stages before a job, for `params`.

    A stage that fails leaves no output, and what was made from its last output stands: Snakemake does not miss a file
    that lies between, and by the stage's own identity alone it would take the older result for current.
    """
    return lambda wildcards: digest_of([i if isinstance(i, str) else i(wildcards) for i in identities])


def of_all(identity: Callable[[Any], str], jobs: Iterable[tuple[str, int]]) -> Callable[[Any], str]:
    """The identities of the jobs of several (run, training seed) as one; `identity` is that of a job's wildcards."""
    wildcards = [SimpleNamespace(run=run, seed=seed) for run, seed in jobs]
    return _once(lambda: [identity(each) for each in wildcards])


def settled(folder: Path, now: Mapping[str, Any]) -> str:
    """The identity of a run as one line of JSON: the one it was trained under, where that is the same as `now`.

    folder: results/<scale>/<run>/seed<k>. A network that had no hash when training began has one since; the text of
    then stays, so that knowing more trains nothing again. Results of 0.1 have their spec as that text.
    """
    then = _recorded(folder)
    if then is None or _changed(then, now):
        return _line(now)
    planned = folder / "train" / "identity.json"
    return (planned if planned.is_file() else folder / "spec.json").read_text("utf-8").removesuffix("\n")


def changed_contents(folder: Path, now: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """(name, old, new) of networks and data that are not those that the run in `folder` was trained with."""
    then = _recorded(folder)
    return [] if then is None else [entry for entry in _changed(then, now) if entry[0] != "values"]


def recorded_method(folder: Path) -> dict[str, int]:
    """{"method": the version of the method that trained the run in `folder`}; empty where no training has finished."""
    try:
        facts = json.loads((folder / "train" / "train.json").read_bytes())
        return {"method": facts.get("method", FIRST_METHOD)}
    except (OSError, ValueError, AttributeError):
        return {}


def _recorded(folder: Path) -> dict[str, Any] | None:
    """The identity of a finished training by its own record; None where there is none."""
    try:
        run = load_run(folder / "spec.json")
        facts = json.loads((folder / "train" / "train.json").read_bytes())
        networks = {
            name: {
                "sha256": facts["weights"].get(name),
                "configuration": facts.get("configurations", {}).get(name),
                **network.model_dump(mode="json", include={"path", "revision", "files"}),
            }
            for name, network in networks_of(run).items()
        }
        values = deciding_values(run) | {"method": facts.get("method", FIRST_METHOD)}
        return {"values": values, "networks": networks, "data": facts.get("data")}
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return None


def _changed(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """What is known at both times and differs."""
    found = []
    if then["values"] != now["values"]:
        found.append(("values", digest_of(then["values"])[:12], digest_of(now["values"])[:12]))
    for name, new in now["networks"].items():
        old = then["networks"].get(name, {})
        keys = ("sha256", "configuration") if new.get("sha256") else tuple(new)
        found += [
            (f"{name}: {key}", str(old.get(key)), str(new.get(key)))
            for key in keys
            if new.get(key) != old.get(key)
            and not (key == "configuration" and None in (old.get(key), new.get(key)))
        ]
    old, new = then["data"], now["data"]
    if old != new and old is not None and new not in (None, BUILT):
        found.append(("training data", old, new))
    return found


def stage_identity(stage: type[StageValues], scale: Scale) -> Callable[[Any], str]:
    """A stage's identity for `params`: a function of the wildcards, called for jobs that are planned."""
    return _once(lambda: _decided(scale, stage.of(scale)))


def data_identity(scale: Scale) -> Callable[[Any], str]:
    """The identity of what the `data` stage reads: photographs and captions, for an adopted scale."""
    from eval.adopted import BUILD

    if scale.data.build != BUILD:
        return lambda wildcards: str(scale.data.build)
    return _once(lambda: [_all_photographs(scale), _decided(scale, scale.evaluation.reference)])


def reference_identity(scale: Scale) -> Callable[[Any], str]:
    """The identity of what measures the real images: the photographs too that the prompts describe."""
    return _once(lambda: [_all_photographs(scale), _decided(scale, MeasureValues.of(scale))])


def network_identity(scale: Scale, network: NetworkSpec) -> dict[str, Any]:
    """A network's settings without its address, and its content."""
    return {**network.model_dump(mode="json", exclude=_ADDRESS), **_network(scale, network)}


def files_identity(files: Iterable[str]) -> str:
    """One digest over the bytes of files that a person handed in, in any order, whatever they are called."""
    return digest_of(sorted(file_digests(map(Path, files))))


_ADDRESS = {"path", "revision", "sha256", "files", "family"}


def _decided(scale: Scale, value: Any) -> Any:
    """Settings as JSON values, with each file or folder replaced by a digest of what decides a result in it."""

    def file(path: str) -> Any:
        return BUILT if _built(scale, path) else file_digest(Path(path))

    if isinstance(value, CocoPromptsSpec):
        return {**value.model_dump(mode="json", exclude={"annotations"}), "captions": file(value.annotations)}
    if isinstance(value, PartiPromptsSpec):
        return {**value.model_dump(mode="json", exclude={"file"}), "prompts": file(value.file)}
    if isinstance(value, ReferenceSpec):
        images = BUILT if _built(scale, value.images) else folder_identity(Path(value.images))
        return {"count": value.count, "images": images}
    if isinstance(value, PickScoreRaterSpec):
        own = value.model_dump(mode="json", exclude={*_ADDRESS, "processor", "processor_revision"})
        network = NetworkSpec(
            path=value.path, revision=value.revision, sha256=value.sha256, files=value.files
        )
        processor = NetworkSpec(
            path=value.processor, revision=value.processor_revision, files=dict(PREPARATION)
        )
        return {**own, "network": _network(scale, network), "processor": _network(scale, processor)}
    if isinstance(value, ClipSpec | Hpsv2RaterSpec):
        local = {"model", "pretrained"} if value.model.startswith(LOCAL) else set()
        return {
            **value.model_dump(mode="json", exclude={*_ADDRESS, *local, "file"}),
            "network": _clip(scale, value),
        }
    if isinstance(value, NetworkSpec):
        scenes = getattr(value, "scenes", None)
        own = network_identity(scale, value)
        return {**own, "scenes": file(scenes)} if scenes else own
    if isinstance(value, BaseModel):
        # The device is recorded with a result, as the processor is; it is no value.
        fields = (name for name in type(value).model_fields if name != "device")
        return {name: _decided(scale, getattr(value, name)) for name in fields}
    if isinstance(value, Mapping):
        return {key: _decided(scale, item) for key, item in value.items()}
    return [_decided(scale, item) for item in value] if isinstance(value, tuple | list) else value


def _network(scale: Scale, network: NetworkSpec) -> dict[str, Any]:
    return {"path": network.path} if _built(scale, network.path) else network_content(network)


def _clip(scale: Scale, spec: ClipSpec | Hpsv2RaterSpec) -> dict[str, Any]:
    """An open_clip network by its weights, which a directory, a file of a directory, or a tag names."""
    directory = spec.model.removeprefix(LOCAL) if spec.model.startswith(LOCAL) else spec.path
    if directory is not None:
        files = None if spec.file is None else {spec.file: spec.sha256}
        return _network(
            scale, NetworkSpec(path=directory, revision=spec.revision, sha256=spec.sha256, files=files)
        )
    tag = getattr(spec, "pretrained", None)
    if tag is not None and Path(tag).is_file():
        return {"sha256": spec.sha256 or file_digest(Path(tag))}
    return {"sha256": spec.sha256} if spec.sha256 else {"tag": tag}


def _training_data(scale: Scale) -> str:
    return BUILT if scale.data.build else data_digest(scale.data.train)


def _all_photographs(scale: Scale) -> dict[str, str]:
    """`_photographs` of every prompt set that describes some and is not made by the data stage."""
    return {
        name: _photographs(prompts)
        for name, prompts in scale.sampling.prompts.items()
        if isinstance(prompts, CocoPromptsSpec) and not _built(scale, prompts.annotations)
    }


def _photographs(prompts: CocoPromptsSpec) -> str:
    """One digest over a COCO captions file and those of its photographs that are on disk."""
    file = Path(prompts.annotations)
    folder = photograph_folder(file)
    there = (
        {p.name: state for p in sorted(folder.iterdir()) if (state := file_state(p))}
        if folder.is_dir()
        else {}
    )
    if state := file_state(file):
        there["captions"] = state

    def digest() -> str:
        listed = read_captions(file).names
        names = [name for _, name in sorted(listed.items()) if name in there]
        return digest_of([file_digest(file), names, file_digests(folder / name for name in names)])

    return remembered(f"photographs {file.absolute()}", there, digest)


def folder_identity(folder: Path) -> str:
    """One digest over the images of a flat folder, in the order of their names."""
    files = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
    states = {file.name: state for file in files if (state := file_state(file))}
    return remembered(f"images {folder.absolute()}", states, lambda: digest_of(file_digests(files)))


def _built(scale: Scale, path: str) -> bool:
    """Whether the scale's `data` stage makes this file; of an adopted scale it makes the training list alone."""
    from eval.adopted import BUILD, TRAINING_LIST

    if scale.data.build == BUILD:
        return Path(path) == Path(scale.data.root) / TRAINING_LIST
    return built_here(scale, path)


def _once(identity: Callable[[], Any]) -> Callable[[Any], str]:
    """A function for `params`, which Snakemake calls several times for each job: files are looked at once."""
    made = cache(lambda: _line(identity()))
    return lambda wildcards: made()


def _line(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
