"""Everything that a scale assumes, looked at before anything is trained.

Here: what the checks find, which networks a scale names, and where on this machine each is. Nothing is downloaded by
looking.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from add.config.scale import NetworkSpec, Scale
from add.config.system import SystemSpec
from add.config.yaml import Loc, Origin, SpecError, dotted
from add.errors import InputError
from add.models.hub import cached_directory, is_hub_id, mirrored, mirrors_file
from add.models.weights import Files

_RETURNED = TypeVar("_RETURNED")


@dataclass
class Findings:
    """What the checks have found, as lines; each check adds to it.

    problems: why a run would fail or mean something else. facts: what was found. left: what was not looked at, and why.
    warnings: what lets a run pass but should not stay, such as weights that no hash pins. Problems and warnings say the
    place (file and line, or a path), what is wrong, and what to do.
    """

    problems: list[str] = field(default_factory=list)
    facts: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def problem(self, where: object, what: str, remedy: str) -> None:
        """Add a problem."""
        self.problems.append(f"{where}: {what}; {remedy}")

    def attempt(
        self, where: object, remedy: str, action: Callable[..., _RETURNED], *arguments: Any, said: str = ""
    ) -> _RETURNED | None:
        """What `action` returns; None, and a problem (`said` and its reason), where it raises InputError."""
        try:
            return action(*arguments)
        except InputError as error:
            reason = str(error).removeprefix(str(where)).removeprefix(": ")  # it may begin with the place
            self.problem(where, said + reason, remedy)
            return None


def size(n: float) -> str:
    """Bytes for people: 3.4 GB, in powers of ten as disks are sold."""
    for unit in ("B", "kB", "MB", "GB"):
        if n < 1000:
            return f"{n:.3g} {unit}"
        n /= 1000
    return f"{n:.3g} TB"


Kind = Literal[
    "pipeline",
    "system",
    "part",
    "features",
    "pooled",
    "c_text",
    "inception",
    "open_clip",
    "file",
    "processor",
]


@dataclass(frozen=True)
class Wanted:
    """A network as the scale names it, or, of kinds "system" and "part", a pipeline or a part as a system's file does.

    loc: its place in the file that `origin` is. files: the files of its weights, where that file names them. network:
    its settings, where the scale has a section for them.
    """

    loc: Loc
    kind: Kind
    path: str
    revision: str | None = None
    sha256: str | None = None
    files: Files | None = None
    network: NetworkSpec | None = None
    origin: Origin = field(default_factory=Origin)

    @property
    def name(self) -> str:
        """Its place as people write it: networks.diffusion.sd21."""
        return (
            f"{self.origin.file}: {dotted(self.loc)}" if self.kind in ("system", "part") else dotted(self.loc)
        )

    def line(self, loc: Loc | None = None) -> str:
        """The file, and the line of its place or of another."""
        return f"{self.origin.file}:{self.origin.line(loc or self.loc)}"


@dataclass(frozen=True)
class Place:
    """Where a network is. `source` says how it was found."""

    wanted: Wanted
    path: Path
    source: str


def wanted_networks(scale: Scale, systems: Sequence[SystemSpec] = ()) -> Iterator[Wanted]:
    """All networks that training, sampling, scoring and rating at this scale load; and the pipelines of `systems`."""
    from eval.preferences.raters.scores import PREPARATION

    networks, evaluation = scale.networks, scale.evaluation
    kind: Kind = "inception" if evaluation.extractor.kind == "inception" else "pooled"
    sections: list[tuple[Loc, Kind, NetworkSpec | None]] = [
        *((("networks", "diffusion", name), "pipeline", each) for name, each in networks.diffusion.items()),
        *((("networks", "features", name), "features", each) for name, each in networks.features.items()),
        (("networks", "c_text"), "c_text", networks.c_text),
        (("networks", "c_img"), "pooled", networks.c_img),
        (("evaluation", "extractor"), kind, evaluation.extractor),
        (("evaluation", "oracle"), "pooled", evaluation.oracle),
    ]
    for loc, kind, network in sections:
        if network is not None:
            path, revision, sha256 = network.path, network.revision, network.sha256
            yield Wanted(loc, kind, path, revision, sha256, network.files, network, scale.origin)
    yield from _clip(scale)
    for index, rater in enumerate(scale.study.automatic if scale.study else ()):
        loc = ("study", "automatic", index)
        if rater.kind == "pickscore":
            weights = (rater.path, rater.revision, rater.sha256, rater.files)
            yield Wanted(loc, "pooled", *weights, origin=scale.origin)
            path, revision, kind = rater.processor, rater.processor_revision, "processor"
            yield Wanted((*loc, "processor"), kind, path, revision, files=PREPARATION, origin=scale.origin)
        elif rater.kind == "hpsv2":
            files: Files = {rater.file: rater.sha256}
            yield Wanted(loc, "file", rater.path, rater.revision, None, files, origin=scale.origin)
    for spec in systems:
        if spec.pipeline is not None:
            weights = (spec.pipeline, spec.revision, spec.sha256, spec.files)
            yield Wanted(("pipeline",), "system", *weights, origin=spec.origin)
            parts: list[tuple[Loc, Kind, NetworkSpec]] = [
                *(((key,), "part", part) for key, part in spec.parts.items()),
                *((("then", k), "system", stage) for k, stage in enumerate(spec.then or ())),
            ]
            for loc, kind, part in parts:
                weights = (part.path, part.revision, part.sha256, part.files)
                yield Wanted(loc, kind, *weights, origin=spec.origin)


def locate(found: Findings, wanted: Wanted, scale: Scale) -> Place | None:
    """Where the network is: a local path, what mirrors.yaml says, or the hub's local cache. None is a problem."""
    where = wanted.line()
    try:
        path, revision = mirrored(wanted.path, wanted.revision)
    except SpecError as error:
        remedy = "correct the file, or put the network there"
        found.problem(f"{error.file}:{error.line}", error.message, remedy)
        return None
    if Path(path).is_file() and wanted.kind not in ("file", "inception"):
        found.problem(where, f"{wanted.name}: {path} is a file", "name the directory that holds the network")
        return None
    if Path(path).exists():
        source = "local" if path == wanted.path else f"mirrored by {mirrors_file()}"
        return Place(wanted, Path(path), source)
    named = f"{wanted.name}: {path}" + (f" (revision {revision})" if revision else "")
    cached = cached_directory(path, revision) if is_hub_id(path) else None
    if not is_hub_id(path):
        found.problem(where, f"{named}: no such file or directory", "put it there, or correct the path")
    elif cached is None:
        remedy = "`addbench check --download` fetches it; or let mirrors.yaml name a directory that holds it"
        found.problem(where, f"{named} is not on this machine", remedy)
    elif absent := sorted(name for name in wanted.files or () if not (cached / name).is_file()):
        remedy = "`addbench check --download` fetches the rest"
        found.problem(where, f"{named}: the hub's local cache lacks {', '.join(absent)}", remedy)
    else:
        return Place(wanted, cached, "the hub's local cache")
    return None


def line_of(scale: Scale, loc: Loc) -> str:
    """File and line of a place in the scale."""
    return f"{scale.origin.file}:{scale.origin.line(loc)}"


def built_later(scale: Scale, path: str) -> bool:
    """Whether `path` is below the data that the scale's `data` stage has still to make."""
    return built_here(scale, path) and not (Path(scale.data.root) / "dataset.json").is_file()


def built_here(scale: Scale, path: str) -> bool:
    """Whether the scale's `data` stage makes `path`, so that nothing is known about it beforehand."""
    return scale.data.build is not None and Path(path).is_relative_to(scale.data.root)


def _clip(scale: Scale) -> Iterator[Wanted]:
    clip, loc = scale.evaluation.clip, ("evaluation", "clip")
    if clip.path is not None and clip.file is not None:
        yield Wanted(
            loc, "file", clip.path, clip.revision, None, {clip.file: clip.sha256}, origin=scale.origin
        )
    elif clip.model.startswith("local-dir:"):
        yield Wanted(
            loc, "open_clip", clip.model.removeprefix("local-dir:"), None, clip.sha256, origin=scale.origin
        )
    elif clip.pretrained is not None and Path(clip.pretrained).suffix:
        yield Wanted(loc, "file", clip.pretrained, None, clip.sha256, origin=scale.origin)
