"""Are remade networks the shipped ones, or as good? `python -m mini.pretrain compare --out FOLDER`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from add.config.yaml import read_json
from add.errors import InputError
from add.models.weights import weights_hash

CARD = "CARD.json"
REHEARSAL = "rehearsal"
"""The folder beside the networks in which mini/pretrain/Snakefile rehearses; its networks are none."""

BOUNDS: Mapping[str, float] = {
    "images": 0.0,
    "guidance": 0.0,
    "psnr_db": 0.5,
    "all_right": 0.02,
    "all_right_through_sd21_vae": 0.02,
    "all_right_through_sdxl_vae": 0.02,
    "caption_among_100": 0.01,
    "linear_probe": 0.08,
    "untrained_linear_probe": 0.08,
    "r_squared": 0.1,
    "noise": 0.3,
    "fid": 0.15,
}
"""By how much a quality of a card, or each of a group of them, may differ on another processor; ours. It is a share of
the shipped value for fid, and in the quality's own unit for the others. Three seeds of one recipe (vit_s_dinov2, _b,
_c) differ by up to .034 in a probe: another processor may do twice that and a little more. The photographs' grain
(`noise`), which the extractor hardly sees, is by measurement: R^2 .19 as shipped, .43 from the same recipe on another
processor, whose other qualities all lay within half of their bounds."""


@dataclass(frozen=True)
class Deviation:
    """A quality of a remade network beside the shipped one's; `used` is the share of its bound that it takes."""

    name: str
    remade: float
    shipped: float
    used: float


@dataclass(frozen=True)
class Compared:
    """One network. same: equal weights, bit by bit. deviations: all qualities, the largest first."""

    network: str
    same: bool
    deviations: tuple[Deviation, ...]
    cpu_seconds: tuple[int, int]

    @property
    def holds(self) -> bool:
        """True where every quality is within its bound."""
        return all(d.used <= 1 for d in self.deviations)


def compare(remade: Path, shipped: Path) -> tuple[list[Compared], list[str]]:
    """Every network of `shipped` that is in `remade` too, and the names of those that are not.

    Raises InputError where there is none, and for a card that cannot be read, whose qualities are not those of the
    shipped one, or whose hash is not that of the weights beside it.
    """
    done, missing = [], []
    for card in sorted(shipped.rglob(CARD)):
        name = card.parent.relative_to(shipped).as_posix()
        if name.startswith(f"{REHEARSAL}/"):
            continue
        if not (remade / name / CARD).is_file():
            missing.append(name)
            continue
        there, here = _card(remade / name), _card(shipped / name)
        seconds = (int(there.cpu_seconds), int(here.cpu_seconds))
        deviations = _deviations(remade / name, there.quality, here.quality)
        done.append(Compared(name, there.sha256 == here.sha256, deviations, seconds))
    if not done:
        raise InputError(remade, f"holds none of the networks of {shipped}, each in a folder with a {CARD}")
    return done, missing


class _Card(BaseModel):
    """What is compared of a card; the rest is for people."""

    model_config = ConfigDict(strict=True)
    sha256: str
    cpu_seconds: float
    quality: dict[str, Any]


def _card(folder: Path) -> _Card:
    file = folder / CARD
    card = read_json(_Card, file, "; make the network again")
    if card.sha256 != (found := weights_hash(folder)):
        raise InputError(file, "sha256", f"the weights beside it have {found}; make the network again")
    return card


def _deviations(folder: Path, remade: dict[str, Any], shipped: dict[str, Any]) -> tuple[Deviation, ...]:
    there, here = dict(_qualities(remade)), dict(_qualities(shipped))
    if there.keys() != here.keys():
        odd = ", ".join(".".join(name) for name in sorted(there.keys() ^ here.keys()))
        raise InputError(folder / CARD, "quality", f"other qualities than the shipped card's: {odd}")
    found = [
        Deviation(".".join(name), there[name], here[name], _used(name, there[name], here[name]))
        for name in here
    ]
    return tuple(sorted(found, key=lambda d: -d.used))


def _qualities(value: Any, *names: str) -> Iterator[tuple[tuple[str, ...], float]]:
    """All numbers of a card's quality, each with the names that lead to it; texts say how, and are left out."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _qualities(inner, *names, name)
    elif isinstance(value, list):
        for k, inner in enumerate(value):
            yield from _qualities(inner, *names, str(k + 1))
    elif isinstance(value, int | float):
        yield names, float(value)


def _used(names: tuple[str, ...], remade: float, shipped: float) -> float:
    key = next(name for name in reversed(names) if name in BOUNDS)  # a test holds the shipped cards to it
    off = abs(remade - shipped) / (abs(shipped) if key == "fid" else 1.0)
    if off == 0:
        return 0.0
    return off / BOUNDS[key] if BOUNDS[key] else float("inf")


def table(done: list[Compared]) -> str:
    """The comparison as Markdown: one line a network, with the quality that comes nearest to its bound."""
    lines = [
        "| network | weights | nearest to its bound | remade (shipped) | of the bound | CPU s (shipped) |",
        "|---|---|---|---|---|---|",
    ]
    for c in done:
        if c.deviations:
            d = c.deviations[0]
            quality = f"{d.name} | {d.remade:g} ({d.shipped:g}) | {d.used:.0%}"
        else:
            quality = "none stated | |"
        equal = "equal" if c.same else "other"
        lines.append(f"| {c.network} | {equal} | {quality} | {c.cpu_seconds[0]} ({c.cpu_seconds[1]}) |")
    return "\n".join(lines)
