"""Under which protocol was a number measured? A figure never travels without it, nor into another's column.

A protocol states everything that changes a figure without being a property of the system measured: prompts
and caption rule, resolution, crop, filter, file format, the measuring network (weights, architecture or
configuration, preprocessing, tokenizer), reference, number of images, sampling seed. What a prompt set, a file or
a network is called, and where it lies, changes nothing. The number of student steps and the training seed are the
system's, and are not here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

from add.config.run import MetricName
from add.digests import digest_of
from add.errors import InputError
from add.identity import configuration_digest

if TYPE_CHECKING:
    from add.config.scale import ClipSpec, ImageNetworkSpec

Sha256 = str

LABELS = frozenset({"id", "revision", "file", "name"})
"""Fields that say how something is called or where it was found: shown to the reader, no part of the identity."""


class ProtocolMismatchError(InputError):
    """Numbers that were measured differently were about to be compared."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    later: ClassVar[frozenset[str]] = frozenset()
    """Fields that are left out where they are None: a protocol keeps the id that it had before there were such."""

    @model_serializer(mode="wrap")
    def _without_later_nones(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {k: v for k, v in handler(self).items() if v is not None or k not in self.later}


class Subset(_Part):
    """Those of the `listed` photographs that are on disk; `sha256` is that of their sorted names."""

    present: int
    listed: int
    sha256: Sha256


class PromptRule(_Part):
    """Which prompts: `file` holds them, `sha256` is its hash, the rest is the rule that chose among them.

    `subset` is stated where the choice was among a part of the listed photographs.
    """

    name: str
    kind: Literal["coco", "partiprompts"]
    file: str
    sha256: Sha256
    count: int
    caption_rule: Literal["first", "random"] | None = None
    exclude_challenges: tuple[str, ...] = ()
    rule_seed: int | None = None
    subset: Subset | None = None

    later = frozenset({"subset"})


class ImageRule(_Part):
    """How images reach the measurement: side in pixels, crop of photographs, filters, file format.

    The last four say where samples and reference part ways with these (eval.protocols); unset, they do not.
    """

    resolution: int
    crop: Literal["none", "center"]
    crop_filter: str = "Pillow bicubic, antialiased, 8 bit"
    resize_filter: str
    file_format: str = "PNG, RGB, 8 bit"
    samples_resolution: int | None = None
    reference_resolution: int | Literal["native"] | None = None
    reference_format: str | None = None
    normalisation: str | None = None

    later = frozenset({"samples_resolution", "reference_resolution", "reference_format", "normalisation"})


class NetworkIdentity(_Part):
    """A measuring network: id and revision as configured, and what makes it this network.

    sha256: of the weights, which many an architecture can load. configuration: `add.identity.configuration_digest` of a
    transformers directory. For open_clip `architecture` is a digest of the configuration that the model was built by,
    `preprocessing` what it does with an image, and `tokenizer` a digest of vocabulary, rules and length.
    """

    kind: str
    id: str
    revision: str | None = None
    sha256: Sha256
    image_size: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    configuration: Sha256 | None = None
    architecture: Sha256 | None = None
    preprocessing: dict[str, Any] | None = None
    tokenizer: Sha256 | None = None

    later = frozenset({"configuration", "architecture", "preprocessing", "tokenizer"})

    @classmethod
    def of_transformers(
        cls, spec: ImageNetworkSpec, directory: Path, sha256: str, kind: str
    ) -> NetworkIdentity:
        """A transformers model for images out of `directory`, whose weights have the hash `sha256`."""
        return cls(
            kind=kind,
            id=spec.path,
            revision=spec.revision,
            sha256=sha256,
            image_size=spec.image_size,
            mean=spec.mean,
            std=spec.std,
            configuration=configuration_digest(directory),
        )

    @classmethod
    def of_open_clip(
        cls,
        spec: ClipSpec,
        sha256: str,
        architecture: Mapping[str, Any],
        preprocessing: Mapping[str, Any],
        vocabulary: str,
    ) -> NetworkIdentity:
        """An open_clip model as it was built: its model_cfg and preprocess_cfg, and a text that is its tokenizer."""
        text = {k: v for k, v in architecture["text_cfg"].items() if k != "hf_tokenizer_name"}
        built = {**architecture, "quick_gelu": bool(architecture.get("quick_gelu")), "text_cfg": text}
        return cls(
            kind="open_clip",
            id=spec.model,
            revision=spec.pretrained,
            sha256=sha256,
            architecture=digest_of(built),
            preprocessing=dict(preprocessing),
            tokenizer=digest_of(vocabulary),
        )


class SourceIdentity(_Part):
    """Data compared with: a file or an image folder, its hash (of names and bytes), its number of entries."""

    file: str
    sha256: Sha256
    count: int


class StatisticsIdentity(_Part):
    """Mean and covariance compared with, in place of images: a .npz file, and the hash of its bytes."""

    file: str
    sha256: Sha256


class Protocol(_Part):
    """The whole protocol of one metric on one prompt set; `definition` is the estimator in words.

    `prompts` and `sampling_seed` are None for images that come without a record of either. What is compared with is
    `reference`, or `statistics` without the images behind them.
    """

    schema_: Literal[1] = Field(default=1, alias="schema")
    metric: MetricName
    definition: str
    images: int
    sampling_seed: int | None
    prompts: PromptRule | None
    image_rule: ImageRule
    network: NetworkIdentity
    reference: SourceIdentity | None = None
    scenes: SourceIdentity | None = None
    statistics: StatisticsIdentity | None = None

    later = frozenset({"statistics"})

    def values(self) -> dict[str, Any]:
        """The protocol as JSON values, labels included."""
        return self.model_dump(mode="json", by_alias=True)

    def id(self) -> str:
        """12 hex digits of the sha256 of the canonical JSON; LABELS do not count."""
        return protocol_id(self.values())


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no white space: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def protocol_id(values: Mapping[str, Any]) -> str:
    """The 12-hex id of a protocol given as JSON values, e.g. out of a result.json."""
    return hashlib.sha256(canonical_json(_identity(values)).encode()).hexdigest()[:12]


def one_protocol(ids: Iterable[str], protocols: Mapping[str, Mapping[str, Any]]) -> str:
    """The id that all `ids` share; to be called on every column of a table.

    Raises ProtocolMismatchError that names the fields that differ (or the id that nothing explains), and on
    no id.
    """
    distinct = sorted(set(ids))
    for identity in distinct:
        if identity not in protocols:
            raise ProtocolMismatchError(
                f"protocol {identity} is not among the protocols that came with the numbers"
            )
    if not distinct:
        raise ProtocolMismatchError("a column without numbers has no protocol")
    if len(distinct) > 1:
        first, other, *_ = distinct
        fields = ", ".join(_differences(protocols[first], protocols[other]))
        raise ProtocolMismatchError(
            f"protocols {first} and {other} differ in {fields}; they cannot share a column"
        )
    return distinct[0]


def _identity(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _identity(item) for key, item in value.items() if key not in LABELS}
    if isinstance(value, list | tuple):
        return [_identity(item) for item in value]
    return value


def _differences(a: Any, b: Any, path: str = "") -> list[str]:
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        found = []
        for key in sorted({*a, *b} - LABELS):
            found += _differences(a.get(key), b.get(key), f"{path}.{key}" if path else str(key))
        return found
    return [] if a == b else [f"{path} ({a!r} against {b!r})"]
