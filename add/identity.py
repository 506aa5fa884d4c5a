"""What decides a run's bits? Values that reach the arithmetic, and the content of networks and data.

How often a checkpoint is written, where a network lies and under which hash it is expected decide nothing: changing
them trains nothing again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from add.config.run import Trained
from add.config.scale import NetworkSpec
from add.digests import State, digest_of, file_digest, file_state, remembered
from add.models.hub import SMALL, is_hub_id, mirrored
from add.models.weights import INDEX, weight_hashes, weight_names

METHOD = 2
"""Counts the versions of the method's arithmetic: another number trains every run again, where equal values have come
to mean another result. 2: the heads' map of c at an equalised learning rate."""
_HOUSEKEEPING = ("checkpoint_every", "log_every", "pictures_every", "device")
"""The device is recorded with a result, as the processor is: each is another draw, and neither is a value."""
_ADDRESSES = ("path", "revision", "sha256", "files", "family")
_PLACES = ("images", "annotations", "path", "shards")
_ABOUT = ("CARD.json", "LICENSE.txt", "README.txt", "NOTICE.txt")
"""Files beside a network that no loader reads."""
_NOTES = ("_name_or_path", "_diffusers_version", "_commit_hash", "transformers_version")
"""Keys of a network's configuration that say where it came from."""


def deciding_values(run: Trained) -> dict[str, Any]:
    """The run's values that reach the arithmetic, as JSON values; networks are there by name, without an address."""
    values = {"method": METHOD, **run.model_dump(mode="json", exclude={"name"})}
    _drop(values["training"], _HOUSEKEEPING)
    _drop(values["data"]["train"], _PLACES)
    networks = values["networks"]
    for network in (*networks["diffusion"].values(), *networks["features"].values()):
        _drop(network, _ADDRESSES)
    for name in ("c_text", "c_img"):
        _drop(networks.get(name) or {}, _ADDRESSES)
    return values


def spec_hash(run: Trained) -> str:
    """12 hexadecimal digits of SHA-256 over `deciding_values`. The content of networks and data is stated beside it."""
    return digest_of(deciding_values(run))[:12]


def networks_of(run: Trained) -> dict[str, NetworkSpec]:
    """Every network that the run loads, by its name in the scale."""
    networks = run.networks
    found: dict[str, NetworkSpec | None] = {**networks.diffusion, **networks.features}
    found |= {"c_text": networks.c_text, "c_img": networks.c_img}
    return {name: network for name, network in found.items() if network is not None}


def network_content(network: NetworkSpec) -> dict[str, Any]:
    """What is known of a network before it is loaded: hashes of its weights and its configuration, or an address.

    A `sha256` of the settings is believed, since loading compares it. A network that is not on this machine and has no
    hash is known by its path and revision. Nothing is downloaded. Raises WeightsError where a directory holds no
    weights.
    """
    place, revision = mirrored(network.path, network.revision)
    local = Path(place)
    if local.exists():
        sha256 = network.sha256 or local_weights(local, network.files)
        return {"sha256": sha256, "configuration": configuration_digest(local)}
    if network.sha256:
        return {"sha256": network.sha256}
    files = network.files or {}
    if files and None not in files.values():
        return {"files": dict(files)}
    return {"path": place, "revision": revision} if is_hub_id(place) else {"path": place}


def local_weights(path: Path, files: Mapping[str, str | None] | None = None) -> str:
    """`add.models.weights.weights_hash` of a directory or file that may be remembered. Raises as that does."""
    if path.is_file():
        return file_digest(path)
    names = weight_names(path, files)
    states = {name: _state(path / name) for name in names}
    return remembered(f"weights {path.absolute()}", states, lambda: weight_hashes(path, files)[0])


def configuration_digest(path: Path) -> str | None:
    """sha256 over a network's configurations and tokenizers, by relative name; None for a single file.

    Where a configuration says that it came from, and by which version it was saved, does not count, nor what is written
    about the network.
    """
    if not path.is_dir():
        return None
    files = dict(sorted(_small_files(path)))
    states = {name: _state(file) for name, file in files.items()}
    return remembered(
        f"configuration {path.absolute()}",
        states,
        lambda: digest_of({name: _configuration(file) for name, file in files.items()}),
    )


def _small_files(root: Path) -> Iterator[tuple[str, Path]]:
    for folder in (root, *(entry for entry in root.iterdir() if entry.is_dir())):
        for file in folder.iterdir():
            hidden = file.name.startswith(".") or folder.name.startswith(".")
            note = file.name in _ABOUT or file.name.endswith(INDEX)
            if file.suffix in SMALL and not hidden and not note:
                yield file.relative_to(root).as_posix(), file


def _configuration(file: Path) -> Any:
    if file.suffix == ".json":
        content = json.loads(file.read_bytes())
        if isinstance(content, dict):
            return {key: value for key, value in content.items() if key not in _NOTES}
        return content
    return file_digest(file)


def _state(file: Path) -> State:
    return file_state(file) or (0, 0, 0, 0)


def _drop(values: dict[str, Any], keys: tuple[str, ...]) -> None:
    for key in keys:
        values.pop(key, None)
