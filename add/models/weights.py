"""Which weights are in a directory, and are its files whole? An address is no identity, so a hash identifies them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from add.errors import InputError

PARTS = ("text_encoder", "text_encoder_2", "text_encoder_3", "transformer", "unet", "vae", "vqvae")
"""The folders of a pipeline whose weights are loaded."""

Files = Mapping[str, str | None]
"""Names of a network's weight files, each with its sha256 or None where that is not known."""

_BLOCK = 1 << 22


class WeightsError(InputError):
    """Weights that are missing or differ from those that the settings name."""


def file_hash(path: Path) -> str:
    """sha256 (64 hex) of a file's bytes. Raises OSError where the file cannot be read."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def loaded_weights(names: Iterable[str]) -> list[str]:
    """Names of the weight files that are loaded, sorted by path, out of all relative file names of a network.

    Published directories hold more files: the same weights in half precision, in one file for other programs, other
    decoders. In a pipeline (model_index.json) only the folders of `PARTS` count. In a folder the plain safetensors
    count, one file or shards; those of the variant `fp16` count where there are no others.
    """
    paths = [PurePosixPath(name) for name in names]
    weights = sorted(path for path in paths if path.suffix == ".safetensors")
    if PurePosixPath("model_index.json") in paths:
        weights = [path for path in weights if len(path.parts) == 2 and path.parts[0] in PARTS]
    folders: dict[PurePosixPath, list[str]] = {}
    for path in weights:
        folders.setdefault(path.parent, []).append(path.name)
    chosen: set[PurePosixPath] = set()
    for folder, files in folders.items():
        variant = variant_of(files)
        kept = [name for name in files if (f".{variant}" in name if variant else _is_plain(name))]
        chosen |= {folder / name for name in kept or files}
    return [path.as_posix() for path in weights if path in chosen]


def _is_plain(name: str) -> bool:
    return name.count(".") == 1


def variant_of(files: Collection[str]) -> str | None:
    """The variant of a folder's weight files that is loaded: None for plain files, `fp16` where there are no others.

    A variant's name stands between dots (model.fp16.safetensors, model.fp16-00001-of-00002.safetensors).
    """
    plain = any(_is_plain(name) for name in files)
    return "fp16" if not plain and any(".fp16" in name for name in files) else None


def weights_hash(path: Path) -> str:
    """sha256 (64 hex) that identifies the weights at `path`.

    For a directory it is over the relative POSIX name and the bytes of each file of `loaded_weights`, in that order;
    configurations, tokenizers and other files do not count. For a file it is the file's own sha256, as hubs print it.
    Raises WeightsError where there is nothing to hash.
    """
    return weight_hashes(path)[0]


def weight_names(path: Path, files: Files | None = None) -> list[str]:
    """The weight files of a directory, sorted by path: `files` if given, else `loaded_weights`.

    Raises WeightsError where there are none, or one of `files` is missing.
    """
    if not path.is_dir():
        raise WeightsError(f"{path}: no such file or directory; check the path, or make the weights first")
    if files:
        if absent := sorted(name for name in files if not (path / name).is_file()):
            raise WeightsError(
                f"{path}: lacks {', '.join(absent)}, which the configuration's `files` names; "
                "download the network again, or name the files that it has"
            )
        return [name.as_posix() for name in sorted(map(PurePosixPath, files))]
    names = loaded_weights(file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file())
    if not names:
        raise WeightsError(f"{path}: holds no .safetensors file; save the network with save_pretrained")
    return names


def check_weights(path: Path, expected: str | None, files: Files | None = None) -> str:
    """The hash of the weights at `path`. With `expected` (or hashes in `files`) it is also compared.

    files: the files of a directory that count, each with its own sha256 or None. Raises WeightsError with both hashes
    where they differ.
    """
    found, each = weight_hashes(path, files)
    for other, now, known in other_weights(path, found, each, expected, files):
        raise WeightsError(
            f"{other}: these are other weights than the configuration names: sha256 is {now}, "
            f"configured is {known}; restore the weights, or change `sha256` if the change is meant"
        )
    return found


def other_weights(
    path: Path, found: str, each: Mapping[str, str], expected: str | None, files: Files | None
) -> list[tuple[Path, str, str]]:
    """Weights at `path` that differ from the settings: file or directory, its hash, the hash in the settings.

    found: the hash of everything, compared with `expected`. each: hashes of single files, compared with `files`.
    """
    wrong = [
        (path / name, each[name], known)
        for name, known in (files or {}).items()
        if known is not None and each.get(name, known) != known.lower()
    ]
    if expected is not None and found != expected.lower():
        wrong.append((path, found, expected))
    return wrong


def weight_variant(folder: Path) -> str | None:
    """`variant_of` the weight files in one folder. Raises WeightsError where it holds no safetensors."""
    names = [file.name for file in folder.glob("*.safetensors")]
    if not names:
        raise WeightsError(f"{folder}: holds no .safetensors file; save the network with save_pretrained")
    return variant_of(names)


def check_complete(missing: Collection[str], where: str) -> None:
    """Raise WeightsError where a network's files lack some of its weights, which would then be random."""
    if missing:
        raise WeightsError(
            f"{where}: the files lack {len(missing)} of the network's weights, e.g. {min(missing)};"
            " do config.json and weights belong together?"
        )


def weight_hashes(path: Path, files: Files | None = None) -> tuple[str, dict[str, str]]:
    """`weights_hash`, and the sha256 of each of a directory's `weight_names`; each file is read once."""
    if path.is_file():
        return file_hash(path), {}
    whole = hashlib.sha256()
    each: dict[str, str] = {}
    for name in weight_names(path, files):
        alone = hashlib.sha256()
        whole.update(name.encode())
        with (path / name).open("rb") as stream:
            while block := stream.read(_BLOCK):
                whole.update(block)
                alone.update(block)
        each[name] = alone.hexdigest()
    return whole.hexdigest(), each


INDEX = ".safetensors.index.json"


@dataclass(frozen=True)
class TensorInfo:
    """One tensor in a header: its dtype, as safetensors names it, and its shape."""

    dtype: str
    shape: tuple[int, ...]


def missing_shards(directory: Path, names: Collection[str]) -> list[str]:
    """Names of weight files that are missing although an index beside the files `names` lists them."""
    absent: list[str] = []
    for folder in sorted({PurePosixPath(name).parent for name in names}):
        for index in sorted((directory / folder).glob(f"*{INDEX}")):
            stem = index.name.removesuffix(INDEX)
            if (index.parent / f"{stem}.safetensors").is_file():
                continue  # one whole file stands beside the shards
            if not any(PurePosixPath(name).name.startswith(f"{stem}-") for name in names):
                continue  # the index of a variant that is not loaded
            content = json.loads(index.read_text(encoding="utf-8"))
            shards = sorted(set(content.get("weight_map", {}).values()))
            absent += [(folder / s).as_posix() for s in shards if not (index.parent / s).is_file()]
    return absent


def read_header(file: Path) -> dict[str, TensorInfo]:
    """Every tensor of a safetensors file by name; only the header is read.

    Raises InputError where the file is no safetensors file or is shorter than its header says.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="np") as opened:
            slices = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118 (no mapping)
            return {name: TensorInfo(s.get_dtype(), tuple(s.get_shape())) for name, s in slices.items()}
    except (SafetensorError, OSError) as error:
        raise InputError(f"{file}: is not a whole safetensors file: {error}") from None


def lost_files(student: Path) -> Iterator[str]:
    """What a trained student's directory lacks: parts that its model_index.json lists, whole weights, its timesteps."""
    contents = {}
    for name in ("model_index.json", "student.json"):
        try:
            contents[name] = json.loads((student / name).read_bytes())
        except (OSError, ValueError):
            yield f"{student / name}: is missing or no JSON"
            return
    for part, value in contents["model_index.json"].items():
        if isinstance(value, list) and None not in value:
            files = [file for file in (student / part).glob("*") if file.stat().st_size]
            weights = [file for file in files if file.suffix == ".safetensors"]
            if not files:
                yield f"{student / part}: is missing or empty"
            elif part in PARTS and not weights:
                yield f"{student / part}: holds no weights"
            names = [f"{part}/{file.name}" for file in weights]
            yield from (f"{student / shard}: is missing" for shard in missing_shards(student, names))
            for file in weights:
                try:
                    read_header(file)
                except InputError as error:
                    yield str(error)
