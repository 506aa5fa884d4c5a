"""The trainers' own pieces: normalisation folded into the VAE, averages, tokens, views."""

from __future__ import annotations

import ast
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from add.errors import InputError
from add.models.weights import weights_hash
from add.noise import NoiseSchedule, coefficients, x0_from
from mini.pretrain.__main__ import STAGES, WEIGHTS, main, pin, stages
from mini.pretrain.classify import Judges, reconstruct_in_turn
from mini.pretrain.compare import compare, table
from mini.pretrain.diffusion import (
    DEGRADED,
    MAX_LENGTH,
    build_scheduler,
    build_tokenizer,
    degrade,
    learn_merges,
    noised_batch,
    train,
    train_on,
)
from mini.pretrain.loop import (
    EMA,
    Recipe,
    batches,
    fit,
    gaussian_blur,
    rotate_colours,
    warm_cosine,
    write_card,
)
from mini.pretrain.vae import build, fold_normalisation, object_weights
from mini.world import captions, draw_scenes


def test_folded_normalisation_gives_unit_latents_and_the_same_reconstructions():
    torch.manual_seed(0)
    vae = build().eval()
    images = torch.rand(16, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        before = vae.encode(images).latent_dist
        picture = vae.decode(before.mean).sample
        fold_normalisation(vae, before.mean)
        after = vae.encode(images).latent_dist
        torch.testing.assert_close(after.mean.mean((0, 2, 3)), torch.zeros(4), atol=1e-4, rtol=0)
        torch.testing.assert_close(after.mean.std((0, 2, 3)), torch.ones(4), atol=1e-4, rtol=0)
        torch.testing.assert_close(vae.decode(after.mean).sample, picture, atol=1e-4, rtol=1e-3)
        scale = before.mean.std((0, 2, 3))[:, None, None]
        torch.testing.assert_close(after.std * scale, before.std, atol=1e-5, rtol=1e-3)


def test_a_pale_object_weighs_as_much_as_a_bright_one():
    # Otherwise the VAE goes on spending its latents on what is bright, and small pale crosses become diamonds.
    images = torch.zeros(2, 3, 32, 32)
    images[0, :, 14:18, 14:18] = 0.1
    images[1, :, 14:18, 14:18] = 1.0
    weights = object_weights(images, emphasis=12.0)
    assert weights.shape == (2, 1, 32, 32)
    torch.testing.assert_close(weights.mean((1, 2, 3)), torch.ones(2))
    torch.testing.assert_close(weights[0], weights[1])
    assert float(weights[0, 0, 16, 16]) > 5 * float(weights[0, 0, 2, 2])


def test_pictures_go_through_the_vaes_in_turn(tmp_path: Path):
    torch.manual_seed(0)
    paths = [tmp_path / name for name in ("one", "two")]
    for path in paths:
        build().save_pretrained(path)
    images = torch.rand(5, 3, 32, 32) * 2 - 1
    both = reconstruct_in_turn(paths, images)
    torch.testing.assert_close(both[0::2], reconstruct_in_turn(paths[:1], images[0::2]))
    torch.testing.assert_close(both[1::2], reconstruct_in_turn(paths[1:], images[1::2]))
    assert not torch.allclose(both, reconstruct_in_turn(paths[:1], images))


def test_every_word_of_the_world_is_one_token_and_captions_fit():
    tokenizer = build_tokenizer()
    scenes = draw_scenes("reference", 300)
    for i in range(300):
        for text in captions(scenes, i):
            for whole in (text, f"{DEGRADED} {text}"):
                ids = tokenizer(whole).input_ids
                assert len(ids) == len(whole.split()) + 2 <= MAX_LENGTH
    assert (
        tokenizer.decode(tokenizer("Zebra!").input_ids, skip_special_tokens=True).replace(" ", "") == "zebra!"
    )


def test_merges_do_not_depend_on_the_order_of_words_and_ties_go_by_the_alphabet():
    words = ["at", "an", "and", "aaa", "small"]
    merges = learn_merges(words)
    assert merges == learn_merges(words[::-1]) == learn_merges(words * 2)
    # Every pair of letters is there once, so the alphabet decides.
    assert merges[:3] == [("a", "a"), ("a", "l"), ("a", "n")]
    assert {"".join(pair) for pair in merges} >= {f"{word}</w>" for word in words}


def test_blur_agrees_with_scipy_and_zero_leaves_the_image():
    rng = np.random.default_rng(0)
    images = rng.random((3, 3, 20, 20)).astype(np.float32)
    sigma = torch.tensor([0.0, 0.5, 0.9])
    found = gaussian_blur(torch.from_numpy(images), sigma).numpy()
    np.testing.assert_allclose(found[0], images[0], atol=1e-6)
    for i in (1, 2):
        expected = gaussian_filter(images[i], (0, float(sigma[i]), float(sigma[i])), mode="mirror", radius=3)
        np.testing.assert_allclose(found[i], expected, atol=1e-5)


def test_colour_rotation_keeps_grey_and_length():
    images = torch.rand(4, 3, 5, 5)
    generator = torch.Generator().manual_seed(0)
    turned = rotate_colours(images, 1.0, generator)
    torch.testing.assert_close(turned.mean(1), images.mean(1))
    torch.testing.assert_close(turned.norm(dim=1), images.norm(dim=1))
    assert not torch.allclose(turned, images)
    assert torch.equal(rotate_colours(images, 0.0, generator), images) or torch.allclose(
        rotate_colours(images, 0.0, generator), images, atol=1e-6
    )


def test_average_swaps_back_and_forth():
    layer = torch.nn.Linear(2, 2)
    start = layer.weight.detach().clone()
    ema = EMA(layer, decay=0.5)
    with torch.no_grad():
        layer.weight += 1
    ema.update(1000)
    ema.swap()
    torch.testing.assert_close(layer.weight, start + 0.5)
    ema.swap()
    torch.testing.assert_close(layer.weight, start + 1)


def test_batches_are_whole_epochs():
    order = batches(10, 4, 5, seed=1)
    assert order.shape == (5, 4)
    assert sorted(order.ravel()[:10]) == list(range(10))


@pytest.mark.parametrize(("step", "expected"), [(0, 0.01), (99, 1.0), (100, 1.0), (1000, 0.0)])
def test_the_schedule_warms_up_and_ends_at_zero(step: int, expected: float):
    assert warm_cosine(step, 1000) == pytest.approx(expected, abs=1e-9)


def test_hashes_are_pinned_beside_their_paths_and_comments_stay(tmp_path: Path):
    for name in ("one", "two"):
        (tmp_path / "mini/weights" / name).mkdir(parents=True)
        (tmp_path / "mini/weights" / name / "model.safetensors").write_bytes(name.encode())
    text = (
        "a:\n  path: mini/weights/one   # ours\n  revision: null\n  sha256: null   # ours\n"
        'b:\n  model: "local-dir:mini/weights/two"\n  sha256: 00\n'
        "c:\n  path: elsewhere\n  sha256: null\n"
    )
    lines = pin(text, tmp_path).splitlines()
    assert lines[3] == f"  sha256: {weights_hash(tmp_path / 'mini/weights/one')}  # ours"
    assert lines[6] == f"  sha256: {weights_hash(tmp_path / 'mini/weights/two')}"
    assert lines[9] == "  sha256: null"
    assert pin("\n".join(lines) + "\n", tmp_path).splitlines() == lines


def fitted(out: Path, killed_at: int | None = None) -> tuple[list[torch.Tensor], float]:
    """The weights and batch statistics of a small network after `fit`, and the CPU seconds that it counts."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 1))
    steps = 0

    def loss(index: np.ndarray, generator: torch.Generator) -> torch.Tensor:
        nonlocal steps
        if steps == killed_at:
            raise KeyboardInterrupt
        steps += 1
        x = torch.randn(len(index), 3, generator=generator) + torch.rand(len(index), 1)
        return (network(x) - x.sum(1, keepdim=True)).square().mean()

    seconds = fit(Recipe(out, seed=5, steps=1200, batch=4, lr=1e-2, n=40), [network], loss, decay=0.9)
    return [*network.parameters(), *network.buffers()], seconds


def test_a_training_that_was_killed_ends_in_the_same_bits(tmp_path: Path):
    expected, _ = fitted(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        fitted(tmp_path / "broken", killed_at=820)
    assert [file.name for file in (tmp_path / "broken/checkpoints").iterdir()] == ["step-0000500.safetensors"]
    found, seconds = fitted(tmp_path / "broken")
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))
    # Stopped between its training and its card, a stage trains nothing again.
    again, same = fitted(tmp_path / "broken", killed_at=0)
    assert all(torch.equal(a, b) for a, b in zip(expected, again, strict=True))
    assert same == pytest.approx(seconds)
    recipe = Recipe(tmp_path / "broken", seed=5, steps=1200, batch=4, lr=1e-2, n=40)
    (tmp_path / "broken/model.safetensors").write_bytes(b"weights")
    write_card(tmp_path / "broken", recipe, same, network="small", how="so", data="none", quality={})
    assert not (tmp_path / "broken/checkpoints").exists()


@pytest.mark.parametrize("changed", ["the network it begins from", "the world"])
def test_a_training_does_not_go_on_with_something_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: str
):
    """Breaks when a killed stage goes on after what it is made from was remade, and its card names the new one."""
    start, out = tmp_path / "start", tmp_path / "out"
    start.mkdir()
    (start / "model.safetensors").write_bytes(b"one")
    recipe = Recipe(out, seed=5, steps=2, batch=4, lr=1e-2, n=40)
    network = torch.nn.Linear(3, 1)

    def loss(index: np.ndarray, _: torch.Generator) -> torch.Tensor:
        return network(torch.ones(len(index), 3)).square().mean()

    fit(recipe, [network], loss, networks={"start": start})
    fit(recipe, [network], loss, networks={"start": start})
    if changed == "the world":
        monkeypatch.setattr("mini.pretrain.loop.WORLD", "another")
    else:
        (start / "model.safetensors").write_bytes(b"two")
    message = "made with world" if changed == "the world" else "made with weights of start"
    with pytest.raises(InputError, match=message):
        fit(recipe, [network], loss, networks={"start": start})


@pytest.mark.parametrize(("prediction", "last"), [("epsilon", 0.0683), ("v_prediction", 0.0)])
def test_targets_are_what_the_schedules_prediction_means(prediction: str, last: float):
    """Breaks when a network learns another quantity than the scheduler that is saved with it says."""
    schedule = NoiseSchedule.from_scheduler(dict(build_scheduler(prediction).config))
    assert float(schedule.alphas[-1]) == pytest.approx(last, abs=1e-4)
    latents = torch.randn(64, 4, 8, 8)
    t, noised, target, weight = noised_batch(schedule, latents, torch.Generator().manual_seed(0))
    assert len(t.unique()) > 60, "stratified"
    # One error of v, as either prediction makes it: its weighted square is the same.
    alpha = coefficients(schedule, t, 4)[0]
    error = alpha if prediction == "epsilon" else torch.ones_like(alpha)
    torch.testing.assert_close(weight * error.square(), torch.ones_like(alpha))
    early = t < 900  # later, epsilon's x_0 is a difference of large numbers
    found = x0_from(schedule, target, noised, t)
    torch.testing.assert_close(found[early], latents[early], atol=1e-3, rtol=1e-3)


def test_degraded_pictures_are_smoother_and_paler():
    images = torch.rand(8, 3, 32, 32) * 2 - 1
    worse = degrade(images, torch.Generator().manual_seed(0))
    edges = [float((x[..., 1:] - x[..., :-1]).abs().mean()) for x in (images, worse)]
    assert edges[1] < 0.4 * edges[0]
    assert float(worse.mean()) == pytest.approx(float(images.mean()) * 2 / 3, abs=0.02)


def test_a_vae_goes_on_with_the_phase_that_it_was_stopped_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    done: list[str] = []

    def phase(recipe: Recipe, *rest: object) -> None:
        done.append(f"{recipe.out.name} from {rest[0].name}" if rest else recipe.out.name)  # type: ignore[attr-defined]
        if len(done) == 2:
            raise KeyboardInterrupt
        recipe.out.mkdir(parents=True, exist_ok=True)
        (recipe.out / "CARD.json").write_text("{}")

    monkeypatch.setattr("mini.pretrain.vae.train", phase)
    monkeypatch.setattr("mini.pretrain.vae.refine", phase)
    with pytest.raises(KeyboardInterrupt):
        STAGES["sdxl/vae"](out=tmp_path)
    assert not (tmp_path / "sdxl/vae/CARD.json").exists(), "the stage would count as done"
    STAGES["sdxl/vae"](out=tmp_path)
    assert done == ["vae-0", "vae-1 from vae-0", "vae-1 from vae-0", "vae from vae-1"]
    assert [place.name for place in (tmp_path / "sdxl").iterdir()] == ["vae"]


def test_a_pipeline_goes_on_with_the_phase_that_it_was_stopped_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    done = []

    def phase(
        recipe: Recipe, start: Path | None = None, *_: object, reader: Path | None = None, **__: object
    ) -> None:
        assert (recipe.out / "vae").is_dir() or start is not None, "the first phase has the pipeline's VAE"
        done.append(
            recipe.out.name
            + (f" from {start.name}" if start else "")
            + (f" by {reader.name}" if reader else "")
        )
        if len(done) == 2:
            raise KeyboardInterrupt
        recipe.out.mkdir(parents=True, exist_ok=True)
        (recipe.out / "CARD.json").write_text("{}")

    monkeypatch.setattr("mini.pretrain.diffusion.train", phase)
    monkeypatch.setattr("mini.pretrain.diffusion.train_on", phase)
    (tmp_path / "sdxl" / "vae").mkdir(parents=True)
    STAGES["sdxl-0"](out=tmp_path)
    with pytest.raises(KeyboardInterrupt):
        STAGES["sdxl"](out=tmp_path)
    STAGES["sdxl"](out=tmp_path)
    second = "sdxl-1 from sdxl-0 by sd21"
    assert done == ["sdxl-0", second, second, "sdxl from sdxl-1"]
    assert [path.name for path in tmp_path.iterdir()] == ["sdxl"]


def test_a_pipeline_reads_by_another_one_s_text_encoder_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from diffusers import StableDiffusionPipeline

    monkeypatch.chdir(tmp_path)  # where the photographs are kept
    monkeypatch.setattr("mini.pretrain.diffusion.pipeline_quality", lambda *_: {})
    judges = Judges(tmp_path, tmp_path)
    for name, width in (("start", 32), ("reader", 16)):
        build(channels=(8, 8, 8)).save_pretrained(tmp_path / name / "vae")
        recipe = Recipe(tmp_path / name, seed=width, steps=1, batch=4, lr=1e-3, n=10)
        train(recipe, channels=(8, 16), layers=1, text=(width, 1), judges=judges)
    recipe = Recipe(tmp_path / "out", seed=3, steps=1, batch=4, lr=1e-6, n=10)
    train_on(recipe, tmp_path / "start", "v_prediction", judges=judges, reader=tmp_path / "reader")
    start, reader, out = (
        StableDiffusionPipeline.from_pretrained(tmp_path / name) for name in ("start", "reader", "out")
    )
    theirs = reader.text_encoder.state_dict()
    assert all(torch.equal(w, theirs[name]) for name, w in out.text_encoder.state_dict().items())
    before = start.unet.state_dict()
    for name, weight in out.unet.state_dict().items():
        if "attn2.to_k" in name or "attn2.to_v" in name:
            assert weight.shape[1] == 16
        else:
            torch.testing.assert_close(weight, before[name], atol=1e-3, rtol=0)
    card = json.loads((tmp_path / "out" / "CARD.json").read_text())
    assert "with the text encoder of reader" in card["recipe"]
    assert "UNet alone" in card["recipe"]


def test_every_stage_has_its_place_in_the_workflow():
    """Breaks when a stage is known to the program and not to `make pretrain`, or before what it needs."""
    text = Path("mini/pretrain/Snakefile").read_text(encoding="utf-8")
    needs: dict[str, list[str]] = ast.literal_eval(text.partition("STAGES = ")[2].partition('"""')[0])
    assert set(needs) == set(STAGES)
    assert all(set(needed) <= set(list(needs)[: list(needs).index(stage)]) for stage, needed in needs.items())


def test_a_stage_runs_where_its_environment_is_not_activated(tmp_path: Path):
    """As `make pretrain` calls it in a fresh clone: the only Python on the path has none of the libraries."""
    for stage in (
        *STAGES,
        "clip_text",
    ):  # all are made, so that only the last job is left, which takes no time
        (tmp_path / stage).mkdir(parents=True, exist_ok=True)
        (tmp_path / stage / "CARD.json").touch()
    command = (
        f"{sys.executable} -m snakemake --snakefile mini/pretrain/Snakefile --directory {tmp_path} --cores 1"
    )
    done = subprocess.run(
        [*command.split(), "--config", f"out={tmp_path}"],
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "PYTHONPATH": str(Path().resolve())},
        capture_output=True,
        text=True,
        check=False,
    )
    log = tmp_path / "logs/pretrain/pin.log"
    assert done.returncode == 0, done.stderr + (log.read_text() if log.is_file() else "")
    assert log.is_file()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("share=0", "share: should be a number above 0 and at most 1"),
        ("share=1.5", "share: should be a number above 0 and at most 1"),
        ("share=few", "share: should be a number above 0 and at most 1"),
        ("stage=sd21 sd22", "stage: there is no 'sd22'; did you mean 'sd21'?"),
    ],
)
def test_a_share_or_stage_that_is_none_is_refused_before_anything_runs(
    tmp_path: Path, config: str, message: str
):
    command = [
        sys.executable,
        "-m",
        "snakemake",
        "--snakefile",
        "mini/pretrain/Snakefile",
        "--directory",
        str(tmp_path),
    ]
    done = subprocess.run(
        [*command, "--cores", "1", "--config", f"out={tmp_path}", config],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert message in done.stderr
    assert not (tmp_path / "logs").exists()


def test_a_rehearsal_does_not_go_where_the_networks_are(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    """Breaks where a network of twelve steps takes the place of a shipped one."""
    monkeypatch.setattr(sys, "argv", ["pretrain", "untrained", "--share", "0.01"])
    with pytest.raises(SystemExit):
        main()
    assert "say with --out where they go" in capsys.readouterr().err


def test_a_rehearsal_has_its_share_of_each_training():
    few, all_of_them = stages(0.002), stages()
    assert set(few) == set(all_of_them)

    def recipes(stage: partial[None]) -> list[Recipe]:
        given = [part for each in stage.args for part in (each if isinstance(each, tuple) else (each,))]
        return [part for part in given if isinstance(part, Recipe)]

    for name, stage in all_of_them.items():
        pairs = list(zip(recipes(stage), recipes(few[name]), strict=True))
        assert pairs, name
        assert all(short == replace(full, steps=max(1, round(full.steps / 500))) for full, short in pairs)


def remade(tmp_path: Path, **quality: float) -> Path:
    """A copy of two shipped networks whose cards state other qualities of sd21's VAE."""
    for name in ("sd21/vae", "vit_s_dinov1"):
        shutil.copytree(WEIGHTS / name, tmp_path / name)
    card = tmp_path / "sd21/vae/CARD.json"
    value = json.loads(card.read_text())
    value["quality"] |= quality
    card.write_text(json.dumps(value))
    return tmp_path


def test_every_quality_of_the_shipped_cards_has_a_bound_and_equals_itself():
    done, missing = compare(WEIGHTS, WEIGHTS)
    assert not missing
    assert {c.network for c in done} >= {"sd21", "sd21/vae", "sdxl", "oracle", "clip_text", "eval_clip"}
    assert all(c.same and c.holds and c.deviations[0].used == 0 for c in done if c.deviations)
    # The name "images" is a count's, never a quality's.
    assert sum(len(c.deviations) for c in done) > 100


@pytest.mark.parametrize(
    ("quality", "holds", "used"),
    [
        ({"psnr_db": 34.5}, True, 0.86),
        ({"psnr_db": 34.4}, False, 1.06),
        ({"images": 999}, False, float("inf")),
    ],
)
def test_a_remade_network_is_held_to_the_shipped_ones_quality(
    tmp_path: Path, quality: dict[str, float], holds: bool, used: float
):
    done, missing = compare(remade(tmp_path, **quality), WEIGHTS)
    assert [c.network for c in done] == ["sd21/vae", "vit_s_dinov1"]
    assert {"oracle", "sd21"} <= set(missing)
    assert done[0].holds is holds
    assert done[0].deviations[0].name == next(iter(quality))
    assert done[0].deviations[0].used == pytest.approx(used)
    assert "| vit_s_dinov1 | equal |" in table(done)


def test_a_networks_fid_is_held_relative_to_the_shipped_one(tmp_path: Path):
    shutil.copytree(WEIGHTS / "sd21", tmp_path / "sd21")
    card = tmp_path / "sd21/CARD.json"
    value = json.loads(card.read_text())
    fid = value["quality"]["samples"][1]["fid"]
    value["quality"]["samples"][1]["fid"] = fid * 1.12
    card.write_text(json.dumps(value))
    found = compare(tmp_path, WEIGHTS)[0][0]
    assert found.network == "sd21"
    assert found.deviations[0].name == "samples.2.fid"
    assert found.deviations[0].used == pytest.approx(0.8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda card: card | {"sha256": "0" * 64}, "the weights beside it have"),
        (lambda card: [], "make the network again"),
        (lambda card: card | {"cpu_seconds": "fast"}, "cpu_seconds: should be"),
        (lambda card: {k: v for k, v in card.items() if k != "quality"}, "missing key 'quality'"),
        (
            lambda card: card | {"quality": {"all_right": 1.0}},
            "other qualities than the shipped card's: all_right",
        ),
        (lambda card: {"quality": {}}, "missing key .sha256.; make the network again"),
    ],
)
def test_a_card_that_does_not_fit_is_refused(tmp_path: Path, change: Callable[[Any], Any], message: str):
    folder = remade(tmp_path)
    card = folder / "sd21/vae/CARD.json"
    card.write_text(json.dumps(change(json.loads(card.read_text()))))
    with pytest.raises(InputError, match=message) as refused:
        compare(folder, WEIGHTS)
    assert str(card) in str(refused.value)


def test_a_folder_without_remade_networks_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match="holds none of the networks"):
        compare(tmp_path / "none", WEIGHTS)


def test_compare_says_what_is_beyond_its_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    for psnr, status in ((34.9, 0), (30.0, 3)):
        folder = remade(tmp_path / str(psnr), psnr_db=psnr)
        monkeypatch.setattr("sys.argv", ["pretrain", "compare", "--out", str(folder)])
        assert main() == status
        said = capsys.readouterr()
        assert "Not made in" in said.out
        assert ("beyond a bound" in said.err) is bool(status)
        assert ("sd21/vae" in said.err) is bool(status)
