"""Networks are found, whole, of the right weights and fitting before training; each fault has its own message."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from add.config.load import load_scale
from add.config.resolve import Table
from add.config.scale import Scale
from addbench.preflight import Findings, Place, Wanted, locate, wanted_networks
from addbench.preflight.directories import read_pipeline
from addbench.preflight.networks import CheckedNetworks, HashStore, check_networks
from eval.metrics.features import INCEPTION_FILE, INCEPTION_SHA256
from tests.support.header_networks import UNET, change, read, save, write_features, write_pipeline
from tests.support.specs import ROOT, changed_scale, copy_settings, edit, table_of

SD = ("networks", "diffusion", "sd21")


@pytest.fixture(autouse=True)
def _apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither this machine's mirrors nor its hub cache."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ADDBENCH_MIRRORS", raising=False)
    monkeypatch.setattr("addbench.preflight.cached_directory", lambda *_: None)


def paper(**values: Any) -> tuple[Scale, Table]:
    """The paper's scale, with values changed (dotted keys), and the table at that scale."""
    return changed_scale("paper", **values)


def problems_of(directory: Path, **wanted: Any) -> list[str]:
    """What is wrong with a pipeline directory."""
    place = Place(Wanted(SD, "pipeline", str(directory), **wanted), directory, "local")
    found = Findings()
    read_pipeline(found, place)
    return found.problems


def mirror_all(scale: Scale, root: Path) -> None:
    """Header networks for every public id of the paper's scale, and the mirrors.yaml that leads to them."""
    kinds = {"sd21": "sd21-base", "sdxl": "sdxl-base"}
    lines = ["networks:"]
    for wanted in wanted_networks(scale):
        to = root / wanted.path.replace("/", "--")
        if wanted.kind == "pipeline" and not to.exists():
            write_pipeline(to, kinds[str(wanted.loc[-1])])
        elif wanted.kind in ("features", "pooled") and not to.exists():
            name = wanted.path.partition("/")[2]
            write_features(to, name if name != "PickScore_v1" else "clip-vit-large-patch14")
        elif wanted.kind in ("c_text", "file"):
            (to / "tokenizer.json").parent.mkdir(exist_ok=True)
            (to / "tokenizer.json").write_text("{}")
            (to / "config.json").write_text(json.dumps({"model_type": "clip"}))
            for name in wanted.files or ():
                save(to / name, {"text_projection.weight": (8, 8)})
        elif wanted.kind == "processor":
            to.mkdir(exist_ok=True)
            (to / "preprocessor_config.json").write_text("{}")
        elif wanted.kind == "inception":
            to = root / INCEPTION_FILE
            to.write_bytes(b"not Inception")
        line = f"  {wanted.path}: {{directory: {to}}}"
        lines += [] if line in lines else [line]
    Path("mirrors.yaml").write_text("\n".join(lines) + "\n")


def unpinned(scale: Scale) -> Scale:
    """The scale without hashes, which no stand-in has."""

    def without(values: Any) -> Any:
        if isinstance(values, dict):
            found = {k: without(v) for k, v in values.items() if k not in ("sha256", "files")}
            return found | ({"sha256": None} if "sha256" in values else {})
        return tuple(map(without, values)) if isinstance(values, tuple) else values

    changed = Scale.model_validate(without(scale.model_dump()))
    changed.read_from(scale.origin)
    return changed


def check(scale: Scale, table: Table) -> tuple[list[str], Findings, CheckedNetworks]:
    found = Findings()
    networks = check_networks(found, scale, table, HashStore(Path("hashes.json")), seconds=30)
    return found.problems, found, networks


def test_every_network_that_is_nowhere_is_named_with_its_line_and_what_to_do(tmp_path: Path) -> None:
    scale, table = paper()
    problems, _, _ = check(scale, table)
    for wanted in wanted_networks(scale):
        named = [p for p in problems if f" {wanted.name}: {wanted.path}" in p]
        assert len(named) == 1, f"{wanted.name} is not named once: {problems}"
        assert named[0].startswith(f"{scale.origin.file}:{scale.origin.line(wanted.loc)}: ")
    assert "`addbench check --download` fetches it" in problems[0]
    assert "mirrors.yaml" in problems[0]


def test_the_papers_networks_as_published_fit_the_table(tmp_path: Path) -> None:
    # Otherwise config/paper.yaml asks of a real network what it cannot do: layers, sizes, encoders, resolution.
    scale, table = paper()
    mirror_all(scale, tmp_path)
    problems, found, networks = check(unpinned(scale), table)
    assert problems == []
    assert networks.pipelines["sdxl"].native_resolution == 1024
    assert {networks.resolution(run) for run in table.runs.values()} == {512}
    assert any("recorded at first use" in line for line in found.facts)


def test_other_weights_under_the_papers_ids_are_refused_file_by_file(tmp_path: Path) -> None:
    scale, table = paper()
    mirror_all(scale, tmp_path)
    problems, _, _ = check(scale, table)
    for name in ("text_encoder_2/model.safetensors", "unet/diffusion_pytorch_model.safetensors"):
        assert any(name in p and "other weights than the scale names" in p for p in problems)


def test_a_wrong_inception_has_a_message_of_its_own(tmp_path: Path) -> None:
    scale, table = paper()
    mirror_all(scale, tmp_path)
    found = hashlib.sha256(b"not Inception").hexdigest()
    (line,) = [p for p in check(scale, table)[0] if "Inception that FID is defined by" in p]
    assert f"sha256 is {found}, it should be {INCEPTION_SHA256}" in line
    assert "download https://nvlabs" in line


def test_a_pipeline_as_published_has_no_problem(tmp_path: Path) -> None:
    for name in ("sd21-base", "sdxl-base"):
        assert problems_of(write_pipeline(tmp_path / name, name)) == []


def test_a_text_encoder_that_does_not_fit_the_unet(tmp_path: Path) -> None:
    # SD1.5's text encoder under SD2.1's UNet: training would stop at the first step, hours after it was submitted.
    directory = write_pipeline(tmp_path / "sd")
    change(directory / "text_encoder", hidden_size=768)
    save(
        directory / "text_encoder/model.safetensors",
        {"text_model.embeddings.token_embedding.weight": (4, 768)},
    )
    (line,) = problems_of(directory)
    assert "the text encoders' width is 768, the UNet's cross_attention_dim 1024" in line
    assert "these parts are of different networks" in line


def test_sdxls_second_encoder_and_added_conditioning_are_counted(tmp_path: Path) -> None:
    directory = write_pipeline(tmp_path / "xl", "sdxl-base")
    change(directory / "text_encoder_2", projection_dim=1024)
    assert any("projection_class_embeddings_input_dim is 2816" in p for p in problems_of(directory))


def test_a_vae_of_other_latents_than_the_unet_takes(tmp_path: Path) -> None:
    directory = write_pipeline(tmp_path / "sd")
    change(directory / "vae", latent_channels=16)
    found = problems_of(directory)
    assert any("the VAE's latent_channels 16" in p for p in found)
    assert any("weights in vae are not of the network that its config.json describes" in p for p in found)


def test_weights_of_another_network_than_the_configuration_says(tmp_path: Path) -> None:
    directory = write_pipeline(tmp_path / "sd")
    change(directory / "unet", block_out_channels=[128, 256, 512, 512])
    (line,) = problems_of(directory)
    assert "conv_in.weight is [320, 4, 3, 3], block_out_channels is 128" in line


def test_a_missing_shard_of_the_weights_is_named(tmp_path: Path) -> None:
    directory = write_pipeline(tmp_path / "sd")
    names = [UNET.replace(".safetensors", f"-0000{k}-of-00002.safetensors") for k in (1, 2)]
    (directory / UNET).rename(directory / names[0])
    index = {"weight_map": {"conv_in.weight": Path(names[0]).name, "x": Path(names[1]).name}}
    (directory / f"{UNET}.index.json").write_text(json.dumps(index))
    (line,) = problems_of(directory)
    assert line.startswith(f"{directory / names[1]}: this shard of the weights is missing")


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ("model_index.json", "model_index.json: cannot be read"),
        ("unet/config.json", "config.json: cannot be read"),
        (UNET, "holds no .safetensors file"),
        ("tokenizer/tokenizer.json", "holds no vocabulary"),
        ("scheduler/scheduler_config.json", "the noise schedule cannot be used"),
    ],
)
def test_each_part_that_is_missing_is_named(tmp_path: Path, broken: str, said: str) -> None:
    directory = write_pipeline(tmp_path / "sd")
    (directory / broken).unlink()
    assert any(said in p for p in problems_of(directory)), problems_of(directory)


def test_a_file_cut_short_is_found_by_its_header(tmp_path: Path) -> None:
    directory = write_pipeline(tmp_path / "sd")
    file = directory / UNET
    file.write_bytes(file.read_bytes()[:-4])
    assert any("not a whole safetensors file" in p and str(file) in p for p in problems_of(directory))


def test_one_name_of_latents_for_two_vaes_is_refused(tmp_path: Path) -> None:
    # A distance between the latents of two VAEs means nothing, and nothing else would show it.
    scale, table = paper(networks__diffusion__sdxl__latents="sd")
    mirror_all(scale, tmp_path)
    (line,) = [p for p in check(unpinned(scale), table)[0] if "latents" in p]
    assert "sd21 and sdxl both have latents 'sd', but their VAEs differ" in line
    assert "the latents of another VAE mean other pictures" in line
    directory = tmp_path / "stabilityai--stable-diffusion-xl-base-1.0/vae"
    shutil.copytree(tmp_path / "sd2-community--stable-diffusion-2-1-base/vae", directory, dirs_exist_ok=True)
    assert not any("latents" in p for p in check(unpinned(scale), table)[0])


def test_a_resolution_that_is_not_the_one_measured_is_refused(tmp_path: Path) -> None:
    scale, table = paper(evaluation__resolution=256)
    mirror_all(scale, tmp_path)
    found = [p for p in check(unpinned(scale), table)[0] if "evaluation.resolution is 256" in p]
    assert len(found) == 17
    assert "config/paper.yaml:" in found[0]
    assert "baseline trains and samples at 512 pixels" in found[0]


def test_a_rows_resolution_is_refused_at_the_row(tmp_path: Path) -> None:
    """Breaks when a fault of a row is said at the line of a scale that is right."""
    copy_settings(tmp_path / "settings")
    row = tmp_path / "settings/ablations/teacher_steps.yaml"
    line = edit(row, "set: {teacher_steps: 4}", "set: {training.resolution: 500}")
    scale, _ = paper()
    mirror_all(scale, tmp_path)
    found = check(unpinned(scale), table_of(tmp_path / "settings", "paper"))[0]
    mine = [problem for problem in found if "teacher_steps-4: 500 pixels" in problem]
    assert re.match(rf".*teacher_steps\.yaml:{line - 1}: ", mine[0]), mine
    assert [
        p for p in found if "teacher_steps-4 trains and samples at 500" in p and "teacher_steps.yaml:" in p
    ]


def test_what_the_data_stage_will_make_is_no_problem() -> None:
    scale, table = load_scale(ROOT / "config/smoke.yaml"), table_of(ROOT, "smoke")
    problems, found, _ = check(scale, table)
    assert problems == []
    assert "networks.diffusion.sd21: data/smoke/networks/sd21 will be made by the data stage" in found.facts


def test_a_mirror_that_leads_nowhere_is_one_problem_with_its_file(tmp_path: Path) -> None:
    scale, _ = paper()
    Path("mirrors.yaml").write_text("networks: {facebook/dinov2-small: {directory: gone}}\n")
    wanted = next(w for w in wanted_networks(scale) if w.path == "facebook/dinov2-small")
    found = Findings()
    assert locate(found, wanted, scale) is None
    assert found.problems[0].startswith("mirrors.yaml:1: facebook/dinov2-small: its directory gone is not")


def test_stand_ins_have_the_real_configurations() -> None:
    # Else the tests above would speak of networks that are not the published ones.
    assert read(ROOT / "config/networks/sdxl-base/unet")["cross_attention_dim"] == 2048
