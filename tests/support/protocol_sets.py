"""Small sample sets, references and protocol files to compare protocols with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from add.config.scale import Scale
from eval.prompts import read_prompts
from eval.protocols.spec import Protocols, load_protocols
from tests.support.evaluation import coco_file, make_world, picture, write_index

IMAGES = 24
HEAD = "base: {name: base, why: as the scale has it}\nprotocols:\n"


def world(root: Path) -> Scale:
    """Networks, 24 prompts, and 40 photographs of several sizes as the reference, 16 px scale."""
    scale = make_world(root, images=8, references=9)
    captions = {f"{k:06d}.png": [f"first of {k}", f"second of {k}", f"third of {k}"] for k in range(IMAGES)}
    coco_file(root / "annotations/captions_val.json", captions)
    folder = root / "photographs"
    folder.mkdir()
    for k in range(40):
        whole = Image.fromarray(picture(200 + k, 48))
        whole.crop((0, 0, 48, 30 + k % 5)).save(folder / f"{k:04d}.png")
    evaluation = scale.evaluation
    reference = evaluation.reference.model_copy(update={"images": str(folder), "count": 40})
    sampling = scale.sampling
    coco = sampling.prompts["coco"].model_copy(update={"count": IMAGES})
    return scale.model_copy(
        update={
            "evaluation": evaluation.model_copy(update={"reference": reference, "crop": "center"}),
            "sampling": sampling.model_copy(update={"prompts": {**sampling.prompts, "coco": coco}}),
        }
    )


def samples(scale: Scale, directory: Path, seed: int = 7, first: int = 500, prompts: str = "coco") -> Path:
    """A finished sample directory for one of the scale's prompt sets, of textured pictures."""
    directory.mkdir(parents=True)
    rows = []
    for k, prompt in enumerate(read_prompts(scale.sampling.prompts[prompts])):
        Image.fromarray(picture(first + k, scale.evaluation.resolution)).save(directory / f"{k:06d}.png")
        rows.append((f"{k:06d}.png", prompt.prompt_id, prompt.prompt, seed, k))
    return write_index(directory, rows, steps=1)


def protocols(root: Path, rows: str, name: str = "protocols.yaml") -> Protocols:
    """A file of protocols: `rows` are lines below `protocols:`, each a flow mapping."""
    file = root / name
    file.write_text(HEAD + rows, encoding="utf-8")
    return load_protocols(file)


def stripes(side: int) -> np.ndarray:
    """uint8 (side, side, 3): one bright column in four, which a filter without antialiasing gets wrong."""
    image = np.zeros((side, side, 3), np.uint8)
    image[:, ::4] = 255
    return image
