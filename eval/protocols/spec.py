"""What may a protocol change? config/protocols/<file>.yaml: a base, and named protocols as changes from it.

Every axis has a value that means "as the scale has it", so the same file serves every scale.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PlainValidator, WithJsonSchema

from add.config.load import load_document
from add.config.scale import ExtractorSpec
from add.config.types import Document, Frozen, Name, Seed, Text
from add.config.yaml import SpecError, nearest, raise_all

ResizeName = Literal["clean", "pytorch", "tensorflow1", "pillow_bilinear", "pillow_bicubic"]
Filter = Literal["bicubic", "bilinear", "lanczos", "box", "nearest"]


def _size(*words: str) -> Any:
    """A validator: one of `words`, or a whole number from 1."""

    def check(value: Any) -> int | str:
        if value in words and isinstance(value, str):
            return value
        if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
            return value
        raise ValueError(f"should be {', '.join(words)} or a whole number from 1, not {value!r}")

    schema = {"anyOf": [{"type": "integer", "minimum": 1}, {"enum": list(words)}]}
    return PlainValidator(check, json_schema_input_type=Annotated[Any, WithJsonSchema(schema)])


def _encoding(value: Any) -> str:
    found = re.fullmatch(r"png|jpeg-(\d{1,3})", value) if isinstance(value, str) else None
    if found is None or (found[1] is not None and not 1 <= int(found[1]) <= 100):
        raise ValueError(f"should be png or jpeg-<quality>, quality 1 to 100, such as jpeg-75; not {value!r}")
    return found[0]


Side = Annotated[int | str, _size("scale", "half")]
ReferenceSide = Annotated[int | str, _size("scale", "half", "native")]
Number = Annotated[int | str, _size("all", "half", "quarter")]
_ENCODING = Annotated[str, Field(pattern=r"^(png|jpeg-\d{1,3})$")]
Encoding = Annotated[str, PlainValidator(_encoding, json_schema_input_type=_ENCODING)]


class FeaturesOf(Frozen):
    """The pooled output of one of the scale's feature networks (`networks.features`) as the extractor."""

    kind: Literal["features"]
    network: Name


class ProtocolSettings(Frozen):
    """Every axis. Resolutions in pixels or 'scale' (evaluation.resolution), 'half' of it, 'native' (as filed).

    `resize`, to the extractor's input, is the library's: see `eval.protocols.pixels`. `normalisation`
    'symmetric' maps 0..255 to -1..1, as pytorch-fid does before Inception, whose own is (x - 128) / 128.
    `caption_rule`, `rule_seed` and `sampling_seed` are properties of the samples: a protocol that changes
    one takes a sample set of its own. `estimator` 'infinity' is Chong and Forsyth's FID-infinity.
    """

    samples_resolution: Side = "scale"
    samples_format: Encoding = "png"
    reference_resolution: ReferenceSide = "scale"
    reference_crop: Literal["scale", "none", "center"] = "scale"
    reference_filter: Filter = "bicubic"
    reference_format: Encoding = "png"
    resize: ResizeName = "clean"
    normalisation: Literal["extractor", "symmetric"] = "extractor"
    extractor: Annotated[FeaturesOf | ExtractorSpec, Field(discriminator="kind")] | None = None
    images: Number = "all"
    estimator: Literal["plain", "infinity"] = "plain"
    caption_rule: Literal["scale", "first", "random"] = "scale"
    rule_seed: Seed | None = None
    sampling_seed: Seed | None = None


OF_SAMPLES = ("caption_rule", "rule_seed", "sampling_seed")
"""Axes that no re-scoring can change: images have to be drawn again."""


class NamedProtocol(Frozen):
    """`set` is what it changes in the base; `why` says in one line why that moves FID.

    `published` marks a protocol of a paper: the axes that the paper states, with its values. They are
    compared with what is there; every other axis is ours.
    """

    name: Name
    why: Text
    set: ProtocolSettings = ProtocolSettings()
    published: ProtocolSettings | None = None


class Protocols(Document):
    """`base` and, in the order in which they are printed, the protocols compared with it."""

    base: NamedProtocol
    protocols: Annotated[tuple[NamedProtocol, ...], Field(min_length=1)]

    def settings(self, protocol: NamedProtocol) -> ProtocolSettings:
        """All axes of one of the protocols: the base's, with its changes."""
        changes = {key: getattr(protocol.set, key) for key in sorted(protocol.set.model_fields_set)}
        return self.base.set.model_copy(update=changes)

    def everything(self) -> tuple[NamedProtocol, ...]:
        """The base, then the others."""
        return (self.base, *self.protocols)


def load_protocols(path: Path) -> Protocols:
    """Read a file of protocols. Raises SpecError with file, line and every problem."""
    document = load_document(Protocols, path)
    raise_all(_problems(document))
    return document


def only(document: Protocols, names: Sequence[str]) -> Protocols:
    """The base and the protocols called `names`, in the file's order. Raises SpecError at an unknown name."""
    known = [protocol.name for protocol in document.protocols]
    for name in names:
        if name not in known:
            message = f"no protocol is called '{name}'{nearest(name, known)}"
            raise SpecError(document.origin.file, document.origin.line(("protocols",)), message)
    kept = tuple(protocol for protocol in document.protocols if protocol.name in names)
    return document.model_copy(update={"protocols": kept})


def _problems(document: Protocols) -> Iterator[SpecError]:
    file = document.origin.file
    seen: dict[str, int] = {}
    places: list[tuple[tuple[str | int, ...], NamedProtocol]] = [(("base",), document.base)]
    places += [(("protocols", k), protocol) for k, protocol in enumerate(document.protocols)]
    for loc, protocol in places:
        line = document.origin.line((*loc, "name"))
        if protocol.name in seen:
            yield SpecError(file, line, f"name '{protocol.name}' is already in line {seen[protocol.name]}")
        seen.setdefault(protocol.name, line)
        if "\n" in protocol.why.strip():
            yield SpecError(file, document.origin.line((*loc, "why")), "why: one line")
        settings, line = document.settings(protocol), document.origin.line((*loc, "set"))
        if settings.rule_seed is not None and settings.caption_rule != "random":
            yield SpecError(file, line, "rule_seed: has a meaning only with caption_rule: random")
        if settings.caption_rule == "random" and settings.rule_seed is None:
            yield SpecError(file, line, "caption_rule: random needs a rule_seed")
    for axis in OF_SAMPLES:
        if axis in document.base.set.model_fields_set:
            line = document.origin.line(("base", "set", axis))
            message = f"base.set.{axis}: the base's samples are those given with --samples; remove it"
            yield SpecError(file, line, message)
