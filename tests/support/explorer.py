"""Made-up image sets of the size of the default table, for the explorer; and what its filters and sorts should find."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from eval.image_scores import write_scores
from eval.metrics.measure import ImageScores
from mini.dataset import challenge
from mini.pretrain.classify import attribute_names
from mini.world import COLOURS, SHAPES, Scenes, caption, draw_photographs, draw_scenes, render, take
from tests.support.browser import HOSTILE
from tests.support.evaluation import parti_file, write_index

QUESTIONS = {
    "Discriminator feature networks": ("ViT-S, DINOv1", "ViT-S, DINOv2", "ViT-L, DINOv2", "ViT-L, CLIP"),
    "Discriminator conditioning": ("none", "text only", "image only", "text and image"),
    "Student pretraining": ("random init",),
    "Loss terms": ("L_adv", "L_distill", "L_adv + lambda L_distill, SDS", "L_adv + lambda L_distill, NFSD"),
    "Student and teacher": ("SD2.1 from SDXL", "SDXL from SDXL"),
    "Teacher steps": ("2 teacher steps", "4 teacher steps"),
}
METRICS = ("clip_score", "alignment", "attributes", "fid_influence")


def write_study(root: Path, steps: tuple[int, ...] = (1, 4), prompts: int = 100) -> dict[str, Path]:
    """Entries of 17 runs on `parti`, the default in two sub-tables, and of two systems on `coco`, one without scores.

    Returns the files: entries, scenes, parti.
    """
    unique = {
        caption(scenes, i): i for scenes in (draw_scenes("val", 4 * prompts),) for i in range(len(scenes))
    }
    scenes = take(draw_scenes("val", 4 * prompts), np.array(list(unique.values())[:prompts]))
    texts = [HOSTILE, *list(unique)[1:prompts]]
    rows = [
        (text, attribute_names(scenes, i)["background"].capitalize(), challenge(scenes, i))
        for i, text in enumerate(texts)
    ]
    rows[0] = ("scene left out", "Night", "Basic")
    parti = parti_file(root / "parti.tsv", [*rows[:1], (HOSTILE, *rows[1][1:]), *rows[1:]])
    pixels = render(scenes, draw_photographs("val", prompts))[:, ::2, ::2]
    ids = [f"parti-{k + 2:04d}" for k in range(prompts)]
    graphs = {text: {**attribute_names(scenes, i), "size_1": None} for i, text in enumerate(texts)}
    (root / "scenes.json").write_text(json.dumps({"prompts": graphs}), encoding="utf-8")
    entries, number = [], 0
    systems = [(group, name) for group, names in QUESTIONS.items() for name in names]
    for group, name in systems:
        for k in steps:
            number += 1
            folder = root / f"{number}-{k}step"
            seen = _mistaken(scenes, number, 0.04 + 0.16 * (number % 7) / 7)
            # Another picture for every system and prompt: a tile of another place is noticed.
            _write_images(
                folder, np.roll(pixels, (number, number), axis=(1, 2)) ^ np.uint8(number), ids, texts, k
            )
            scores = _scores(number, seen, graphs, texts)
            write_scores(folder.with_suffix(".csv"), ids, 0, scores)
            cells = {
                "fid": f"{12 + number / 3:.1f} [{10 + number / 3:.1f}, {14 + number / 3:.1f}]",
                "clip_score": f"{np.mean(scores.clip_score):.3f}",
                "alignment": f"{np.mean(scores.alignment):.3f}",
            }
            entry: dict[str, Any] = {"system": name, "steps": k, "prompts": "parti", "samples": str(folder)}
            entry |= {"scores": str(folder.with_suffix(".csv")), "group": group, "finding": None}
            entry["cells"] = [{"metric": metric, "text": text} for metric, text in cells.items()]
            if name == "text and image":
                entry["finding"] = {
                    "claim": "Both conditions together are better than either",
                    "verdict": "holds",
                }
            entries.append(entry)
    # The default is a row of another sub-table too.
    entries += [{**e, "group": "Teacher steps"} for e in entries if e["system"] == "text and image"]
    for name, scored in (("text and image", True), ("a folder of images", False)):
        folder = root / f"coco-{scored}"
        _write_images(folder, pixels[:8], [f"{k}" for k in range(8)], texts[:8], 1, 2 ** (61 + scored))
        clip = np.random.default_rng(5).normal(0.3, 0.05, 8)
        if scored:
            write_scores(
                folder.with_suffix(".csv"), [f"{k}" for k in range(8)], 0, ImageScores(clip_score=list(clip))
            )
        entries.append(
            {
                "system": name,
                "steps": 1,
                "prompts": "coco",
                "samples": str(folder),
                "scores": str(folder.with_suffix(".csv")) if scored else None,
                "group": "systems",
                "cells": [],
                "finding": None,
            }
        )
    (root / "entries.json").write_text(json.dumps(entries), encoding="utf-8")
    return {"entries": root / "entries.json", "scenes": root / "scenes.json", "parti": parti}


def _mistaken(scenes: Scenes, seed: int, share: float) -> Scenes:
    """The scenes with this share of shapes and colours changed."""
    generator = np.random.default_rng(seed)
    shape, colour = scenes.shape.copy(), scenes.colour.copy()
    for values, names in ((shape, SHAPES), (colour, COLOURS)):
        wrong = generator.random(values.shape) < share
        values[wrong] = generator.integers(len(names), size=int(wrong.sum()))
    return replace(scenes, shape=shape, colour=colour)


def _write_images(
    folder: Path, pictures: np.ndarray, ids: list[str], texts: list[str], steps: int, first_seed: int = 2**62
) -> None:
    folder.mkdir()
    rows = []
    for k, (pixels, prompt_id, text) in enumerate(zip(pictures, ids, texts, strict=True)):
        Image.fromarray(pixels).save(folder / f"{k:06d}.png", compress_level=1)
        rows.append((f"{k:06d}.png", prompt_id, text, 7, first_seed + k))
    write_index(folder, rows, steps)


def _scores(seed: int, seen: Scenes, graphs: dict[str, dict[str, Any]], texts: list[str]) -> ImageScores:
    generator = np.random.default_rng(1000 + seed)
    answers = [attribute_names(seen, i) for i in range(len(seen))]
    right = [
        all(answer[g] == v for g, v in graphs[text].items() if v is not None)
        for answer, text in zip(answers, texts, strict=True)
    ]
    fid, clip = generator.normal(0, 4, len(seen)), generator.normal(0.3, 0.04, len(seen))
    return ImageScores(fid=list(fid), clip_score=list(clip), alignment=right, answers=answers)


class ExplorerReference:
    """What the page should show, from the CSV files alone: `column` is a score of every prompt, None without one."""

    def __init__(self, files: dict[str, Path]) -> None:
        self.entries = json.loads(files["entries"].read_text("utf-8"))
        self.scenes = json.loads(files["scenes"].read_text("utf-8"))["prompts"]
        with files["parti"].open(encoding="utf-8", newline="") as stream:
            lines = list(csv.reader(stream, delimiter="\t", quoting=csv.QUOTE_NONE))[1:]
        self.kinds = {f"parti-{k:04d}": (line[1], line[2]) for k, line in enumerate(lines, start=1)}

    def entry(self, system: str, steps: int, prompts: str = "parti") -> dict[str, Any]:
        """The first entry of these names."""
        wanted = (system, steps, prompts)
        return next(e for e in self.entries if (e["system"], e["steps"], e["prompts"]) == wanted)

    def table(self, system: str, steps: int, prompts: str = "parti") -> list[dict[str, str]]:
        """The lines of the scores' CSV, with the prompt's text."""
        entry = self.entry(system, steps, prompts)
        with (Path(entry["samples"]) / "index.csv").open(encoding="utf-8", newline="") as stream:
            texts = [line["prompt"] for line in csv.DictReader(stream)]
        with Path(entry["scores"]).open(encoding="utf-8", newline="") as stream:
            return [
                {**line, "prompt": text} for line, text in zip(csv.DictReader(stream), texts, strict=True)
            ]

    def column(self, system: str, steps: int, score: str) -> list[float]:
        """One score of all prompts."""
        if score == "attributes":
            return [self._share(line) for line in self.table(system, steps)]
        name = {"alignment": "all_right"}.get(score, score)
        values = [line[name] for line in self.table(system, steps)]
        return [float({"true": "1", "false": "0"}.get(value, value)) for value in values]

    def _share(self, line: dict[str, str]) -> float:
        asked = {g: v for g, v in self.scenes[line["prompt"]].items() if v is not None}
        return sum(line[g] == v for g, v in asked.items()) / len(asked)

    def found(self, words: str = "", category: str = "", challenge: str = "") -> list[int]:
        """The places of the prompts that the filters leave."""
        pieces = [a or b for a, b in re.findall(r'"([^"]*)"|(\S+)', words.lower())]
        return [
            k
            for k, line in enumerate(self.table("none", 1))
            if all(piece in line["prompt"].lower() for piece in pieces)
            and category in ("", self.kinds[line["prompt_id"]][0])
            and challenge in ("", self.kinds[line["prompt_id"]][1])
        ]
