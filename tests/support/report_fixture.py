"""Made-up results for the report's tests: the paper's 22 rows, invented numbers, logs, tiny pictures."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from eval.findings.present import PresentStudy
from eval.metrics.protocol import protocol_id
from reports.study import ReportRow, ReportStudy
from tests.support.ratings_fixture import write_fixture_ratings

DEAD = "features-clip"
"""The run whose discriminator does not work."""

# part, question, ((label, run or None for the default, published FID, published CLIP score), ...)
PAPER = (
    (
        "a",
        "Discriminator feature network",
        (
            ("ViT-S DINOv1", "features-dinov1", 21.5, 0.312),
            ("ViT-S DINOv2", None, 20.6, 0.319),
            ("ViT-L DINOv2", "features-l-dinov2", 24.0, 0.302),
            ("ViT-L CLIP", "features-clip", 23.3, 0.308),
        ),
    ),
    (
        "b",
        "Discriminator conditioning",
        (
            ("none", "conditioning-none", 21.2, 0.302),
            ("text", "conditioning-text", 21.2, 0.307),
            ("image", "conditioning-image", 21.1, 0.316),
            ("text + image", None, 20.6, 0.319),
        ),
    ),
    (
        "c",
        "Student pretraining",
        (("random", "pretraining-random", 293.6, 0.065), ("pretrained", None, 20.6, 0.319)),
    ),
    (
        "d",
        "Loss terms",
        (
            ("L_adv", "loss-adv", 20.8, 0.315),
            ("L_distill", "loss-distill", 315.6, 0.076),
            ("L_adv + lambda L_distill,exp", None, 20.6, 0.319),
            ("L_adv + lambda L_distill,sds", "loss-sds", 22.3, 0.325),
            ("L_adv + lambda L_distill,nfsd", "loss-nfsd", 21.8, 0.327),
        ),
    ),
    (
        "e",
        "Teacher type (student / teacher)",
        (
            ("SD2.1 / SD2.1", None, 20.6, 0.319),
            ("SD2.1 / SDXL", "teacher-21-xl", 21.3, 0.321),
            ("SDXL / SD2.1", "teacher-xl-21", 29.3, 0.314),
            ("SDXL / SDXL", "teacher-xl-xl", 28.41, 0.325),
        ),
    ),
    (
        "f",
        "Teacher steps",
        (("1", None, 20.6, 0.319), ("2", "steps-2", 20.8, 0.321), ("4", "steps-4", 20.3, 0.317)),
    ),
)
PROMPTS = (
    "a large red circle left of a small blue square on sand",
    "a small green triangle on slate",
    "a yellow ring above a large purple cross on snow",
    "a large orange diamond on night",
    "a pink circle right of a cyan ring on sand",
    "a small blue triangle below a red square on snow",
    "a large green cross on slate",
    "a purple diamond left of a yellow circle on night",
)
GROUPS = ("background", "layout", "shape_0", "colour_0", "size_0", "shape_1", "colour_1", "size_1")


def paper_study(
    seeds: tuple[int, ...] = (0,), notice: str | None = None, scale: str = "fixture"
) -> ReportStudy:
    """The paper's 22 rows and 17 runs."""
    rows = tuple(
        ReportRow(part, question, label, run or "baseline", run is None, fid, clip)
        for part, question, entries in PAPER
        for label, run, fid, clip in entries
    )
    return study_of(rows, seeds=seeds, notice=notice, scale=scale)


def study_of(
    rows: tuple[ReportRow, ...],
    seeds: tuple[int, ...] = (0,),
    notice: str | None = None,
    scale: str = "fixture",
    description: str = "Invented numbers: small networks on a built-in world of captioned 32 x 32 scenes.",
) -> ReportStudy:
    return ReportStudy(
        scale=scale,
        description=description,
        notice=notice,
        seeds=seeds,
        rows=rows,
        present=PresentStudy(scale, {row.run: digest(row.run) for row in rows}, {}, {}, {}),
        published=(("student", "sd21"), ("loss.distillation_weight", "2.5")),
        chosen=tuple((f"training.setting_{i}", f"{i * 1e-3:g}") for i in range(40)),
    )


def digest(text: str, length: int = 12) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def chance(*key: object) -> float:
    """A number in [0, 1) that the key alone decides."""
    return int(digest("/".join(map(str, key)), 8), 16) / 16**8


def write_results(study: ReportStudy, results: Path, images: int = 8, ratings: bool = True) -> None:
    """results/<run>/seed<k>/{result.json, train/log.jsonl, samples/} for every run of the study.

    ratings: an oracle's ratings of two systems besides, where the study has systems of interest.
    """
    for run in study.runs:
        for seed in study.seeds:
            folder = results / run / f"seed{seed}"
            folder.mkdir(parents=True)
            write_json(folder / "result.json", result_of(study, run, seed, images))
            _write_log(folder / "train", run, seed)
            for steps in (1, 4):
                _write_samples(folder / "samples" / f"coco-{steps}step", run, steps, images)
    (results / "reference").mkdir(parents=True)
    write_json(results / "reference" / "reference.json", reference_of(images))
    if study.focus and ratings:
        write_fixture_ratings(results, people=False, systems=(*study.focus, "another"), size=10)


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1), encoding="utf-8")


def reference_of(images: int = 8) -> dict[str, Any]:
    """What real images score, under the protocols of the results' coco columns."""
    real = {
        "prompts": "coco",
        "images": images,
        "metrics": {
            "fid": _metric("fid", "coco", 31.7, 1.1, images),
            "clip_score": _metric("clip_score", "coco", 0.82, 0.004, images),
        },
        "blur": {"sigma_pixels": 0.5, "fid": 58.3, "factor": 1.84},
    }
    source = {"file": "data/mini/reference", "sha256": "0" * 64, "count": 4000}
    return {"schema": 1, "reference": source, "real": [real]}


def _metric(name: str, prompts: str, value: float, width: float, images: int, **more: Any) -> dict[str, Any]:
    return {
        "value": value,
        "interval": [value - width, value + width],
        "interval_covers": "images (influence function, 95%)",
        "protocol": protocol_id(_protocol(name, prompts, images)),
        **more,
    }


def result_of(study: ReportStudy, run: str, seed: int, images: int = 8) -> dict[str, Any]:
    systems = []
    protocols: dict[str, dict[str, Any]] = {}
    for prompts in ("coco", "parti"):
        for steps in (1, 4):
            metrics = _metrics(run, seed, steps, prompts, images)
            systems.append({"steps": steps, "prompts": prompts, "images": images, "metrics": metrics})
            for name, metric in metrics.items():
                protocols[metric["protocol"]] = _protocol(name, prompts, images)
    return {
        "schema": 1,
        "scale": study.scale,
        "run": run,
        "seed": seed,
        "spec_hash": study.spec_hashes[run],
        "systems": systems,
        "protocols": protocols,
        "provenance": {
            "versions": {"python": "3.11.2", "torch": "2.13.0", "diffusers": "0.42.0", "numpy": "2.4.6"},
            "commit": "0123456789abcdef",
            "hardware": {"processor": "an invented CPU", "cores": 2},
            "weights": {"sd21/unet": digest("unet", 64), "vit_s_dinov2": digest("vit", 64)},
            "train": {
                "wall_seconds": 60 + 30 * chance(run, seed),
                "steps": 200,
                "device": "cpu",
                "diagnosis": {
                    "steps": 20,
                    "ranked": 0.5 if run == DEAD else 0.7,
                    "gap": 0.2,
                    "heads_above_zero": 1.0,
                    "heads_separate": run != DEAD,
                    "gradient_ratio": 3.0,
                    "no_gradient": {"distillation": 0.0, "adversarial": 0.0},
                },
            },
            "sample_seconds": {"coco-1step": 2.4, "coco-4step": 5.0},
            "sampling": {
                f"{prompts}-{steps}step": {
                    "sampler": {"scheduler": "LCMScheduler", "timesteps": timesteps, "network_calls": steps},
                    "truncated_prompts": seed,
                }
                for prompts in ("coco", "parti")
                for steps, timesteps in ((1, [999.0]), (4, [999.0, 749.0, 499.0, 249.0]))
            },
            "score_seconds": 1.5,
        },
    }


def _metrics(run: str, seed: int, steps: int, prompts: str, images: int) -> dict[str, Any]:
    broken, smooth = run == "pretraining-random", run == "loss-distill"
    jitter = 1 + 0.12 * (chance(run, seed, steps) - 0.5)
    fid = jitter * (2900.0 if broken else 450.0 if smooth else 350.0 if steps == 1 else 130.0)
    right = 0.002 if broken else min(0.99, (0.9 if not smooth else 0.97) + 0.08 * (chance(run, seed) - 0.5))
    clip = 0.31 if broken else 0.8 + 0.03 * chance(run, seed, "clip")

    groups = {group: min(1.0, right + 0.01 * i) for i, group in enumerate(GROUPS)}
    found = {
        "clip_score": _metric("clip_score", prompts, clip, 0.004, images, stderr=0.002),
        "alignment": _metric("alignment", prompts, right, 0.018, images, groups=groups),
    }
    if prompts == "coco":
        found["fid"] = _metric("fid", prompts, fid, 0.03 * fid, images)
        found["kid"] = _metric("kid", prompts, fid / 1e4, fid / 4e5, images)
    return found


def _protocol(metric: str, prompts: str, images: int) -> dict[str, Any]:
    return {
        "metric": metric,
        "prompts": {"set": prompts, "caption_rule": "first", "file_sha256": digest(prompts, 64)},
        "images": images,
        "resolution": 32,
        "crop": "none",
        "resize": "clean",
        "format": "png",
        "extractor": {"id": "mini/weights/extractor", "sha256": digest("extractor", 64)},
        "reference": {"count": 4000},
        "sampling_seed": 0,
    }


def _write_log(folder: Path, run: str, seed: int) -> None:
    folder.mkdir()
    lines = []
    for step in range(5, 205, 5):
        wave = chance(run, seed, step) - 0.5
        line: dict[str, float] = {"step": step, "r1": 0.1, "grad_norm": 1.0, "lr": 2e-4}
        if run != "loss-adv":
            line["loss_distill"] = 30 * math.exp(-step / 40) + wave
        if run != "loss-distill":
            line |= {"loss_g_adv": 0.4 + wave, "loss_d": 5.5 - step / 200 + wave}
            line |= {f"gap_{k}": 0.3 * (k + 1) * step / 200 + 0.6 * wave for k in range(3)}
            line["gap"] = 0.6 * step / 200 + 0.6 * wave
        lines.append(json.dumps(line))
    (folder / "log.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _write_samples(folder: Path, run: str, steps: int, images: int) -> None:
    folder.mkdir(parents=True)
    lines = ["file,prompt_id,prompt,seed,image_seed"]
    for i in range(images):
        prompt = PROMPTS[i % len(PROMPTS)]
        lines.append(f'{i:06d}.png,{i},"{prompt}",0,{1000 + i}')
        _picture(prompt, run, steps).save(folder / f"{i:06d}.png")
    (folder / "index.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    write_json(folder / "samples.json", {"system": run, "steps": steps, "count": images, "seconds": 1.0})


def _picture(prompt: str, run: str, steps: int) -> Image.Image:
    """A 32 x 32 picture that resembles its prompt: enough to judge a sample page by."""
    grounds = {"sand": (214, 190, 140), "slate": (140, 142, 155), "snow": (235, 235, 240)}
    ground = next((c for name, c in grounds.items() if name in prompt), (34, 36, 50))
    image = Image.new("RGB", (32, 32), ground)
    draw = ImageDraw.Draw(image)
    for k in range(-32, 32, 5) if steps > 1 else ():
        draw.line((k, 0, k + 32, 32), fill=tuple(max(0, c - 16) for c in ground))
    names = ("red", "blue", "green", "yellow", "purple", "orange", "pink", "cyan")
    colours = sorted((name for name in names if name in prompt), key=prompt.index)
    for i, name in enumerate(colours):
        x = (6 if i == 0 else 20) + int(3 * chance(run, prompt)) if len(colours) > 1 else 12
        draw.ellipse((x, 10, x + 9, 19), fill=name)
    return image
