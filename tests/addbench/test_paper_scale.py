"""config/paper.yaml: the paper's own size, complete, and saying of each value whose it is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from add.config.load import load_scale
from add.config.training import ShardsSpec
from add.config.types import WITH_NULLS
from add.config.yaml import SpecError
from addbench.preflight import wanted_networks
from addbench.preflight.networks import unpinned
from eval.metrics.features import INCEPTION_SHA256
from eval.prompts import read_prompts
from tests.support.evaluation import shared
from tests.support.specs import ROOT, copy_settings, edit, table_of

FILE = ROOT / "config/paper.yaml"
COMMIT = re.compile(r"[0-9a-f]{40}")


def test_all_22_cells_are_17_runs_at_the_papers_size() -> None:
    table = table_of(ROOT, "paper")
    assert (len(table.cells), len(table.runs)) == (22, 17)
    assert {run.training.resolution for run in table.runs.values()} == {512}
    assert {(run.training.steps, run.training.batch) for run in table.runs.values()} == {(4000, 128)}
    assert {run.variant.loss.space for run in table.runs.values()} == {"pixel"}, (
        "two VAEs: no latent distance"
    )


def test_it_names_all_that_the_miniature_names() -> None:
    def keys(value: Any, path: str = "") -> set[str]:
        if not isinstance(value, dict):
            return {path}
        return {path} | {key for k, v in value.items() for key in keys(v, f"{path}.{k}")}

    ours, theirs = (
        load_scale(ROOT / "config" / f"{name}.yaml").model_dump(mode="json", context=WITH_NULLS)
        for name in ("mini", "paper")
    )
    missing = keys(ours) - keys(theirs)
    own = (
        ".data.train.",
        ".data.cache",
        ".evaluation.oracle.",
        ".networks.features.untrained",
        ".networks.features.vit_s_dinov2_",
        ".networks.diffusion.sd21_epsilon",
        ".sampling.prompts.diversity",
    )
    assert missing == {key for key in missing if key.startswith(own)}, (
        "but the form of the data, what is kept of it, the miniature's own oracle, networks and diversity"
    )
    assert isinstance(load_scale(FILE).data.train, ShardsSpec)


def test_every_network_is_pinned_to_a_commit_and_its_files_are_named() -> None:
    scale = load_scale(FILE)
    networks = [*scale.networks.diffusion.values(), *scale.networks.features.values()]
    assert scale.networks.c_text is not None
    assert scale.networks.c_img is not None
    for network in (*networks, scale.networks.c_text, scale.networks.c_img):
        assert COMMIT.fullmatch(network.revision or ""), network.path
        assert network.files, network.path
    assert scale.evaluation.extractor.sha256 == INCEPTION_SHA256
    assert scale.networks.diffusion["sd21"].latents != scale.networks.diffusion["sdxl"].latents


def test_all_weights_are_pinned_by_a_hash_but_those_that_nobody_states() -> None:
    # DINOv1's only safetensors are a conversion on the hub; the file says why its hash is null.
    scale = load_scale(FILE)
    left = [loc for wanted in wanted_networks(scale) for loc, _ in unpinned(wanted)]
    assert left == [("networks", "features", "vit_s_dinov1", "files", "model.safetensors")]
    text = FILE.read_text(encoding="utf-8").splitlines()
    line = scale.origin.line(left[0])
    assert "could not be downloaded when this was written" in "".join(text[line - 3 : line])


def test_rows_of_two_vaes_work_in_pixels_alone(tmp_path: Path) -> None:
    """As the file's head says."""
    root = copy_settings(tmp_path)
    edit(root / "ablations/baseline.yaml", "space: pixel", "space: latent")
    with pytest.raises(SpecError) as caught:
        table_of(root, "paper")
    refused = [p.message for p in caught.value.problems]
    assert len(refused) == 2, refused
    assert all("a latent-space distance between two VAEs is not defined" in message for message in refused)


def test_withdrawn_ids_are_not_shipped() -> None:
    ids = [n.path for n in load_scale(FILE).networks.diffusion.values()]
    assert not any(path.startswith(("stabilityai/stable-diffusion-2", "runwayml/")) for path in ids)


def test_every_value_says_whose_it_is() -> None:
    # The report must never show a value of ours as the paper's. Hashes say where they were printed, once a network.
    words = ("ours", "paper", "said", "as the hub", "as k-diffusion", "as public", "not known")
    for number, line in enumerate(FILE.read_text(encoding="utf-8").splitlines(), start=1):
        code = line.split("#")[0].rstrip()
        opens = re.fullmatch(r"\s*(- )?[\w-]+:", code)
        if not code or opens or re.fullmatch(r"\s+[\w./]+\.safetensors: [0-9a-f]{64}", code):
            continue
        if re.fullmatch(
            r"\s{4}(channels_last|compile|gradient_checkpointing|frozen_precision|eight_bit\w+): .*", code
        ):
            continue  # the section says it for all of them
        assert "#" in line, f"{number}: {line}"
        assert any(word in line.partition("#")[2] for word in words), f"{number}: {line}"


@pytest.mark.parametrize("name", ["coco", "parti"])
def test_the_real_prompt_files_hold_enough(name: str) -> None:
    file = shared({"coco": "coco/annotations/captions_val2017.json", "parti": "PartiPrompts.tsv"}[name])
    config = load_scale(FILE).sampling.prompts[name]
    key = "annotations" if config.kind == "coco" else "file"
    prompts = read_prompts(config.model_copy(update={key: str(file)}))
    assert len(prompts) == {"coco": 5000, "parti": 100}[name]
    assert Path(getattr(config, key)).name == file.name
