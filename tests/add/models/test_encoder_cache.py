"""The encoders' output from disk: the same bits with and without, and only where it was made by the same encoder."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import patch

import pytest
import torch

from add.batch import draw_batch
from add.config.training import CacheSpec, CocoSpec, ResizeSpec
from add.data.training_set import open_training_set
from add.errors import InputError
from add.models.diffusion import DiffusionNetwork
from add.models.encoder_cache import EncoderCache, content_keys, fingerprint, open_cache
from add.models.frozen import load_frozen_networks
from add.train import train
from tests.add.test_train import LATENT, student_bytes
from tests.support.smoke import smoke_run


@pytest.mark.parametrize("name", ["baseline", "teacher_type-sd2-1-sdxl"])
def test_a_run_with_a_cache_ends_in_the_bits_of_one_without(smoke: Path, tmp_path: Path, name: str):
    run = smoke_run(name, steps=3, log_every=1, teacher_guidance=2.0, pictures_every=2)
    kept = CacheSpec(directory=str(tmp_path / "cache"))
    train(run, 0, tmp_path / "without")
    train(run, 0, tmp_path / "first", cache=kept)
    stores = {file.parent for file in (tmp_path / "cache").glob("latents-*/*")}
    assert len(stores) == 1, "real images' latents are kept, and no generated ones of another VAE"
    with patch.object(DiffusionNetwork, "encode") as encode, patch.object(DiffusionNetwork, "embed") as embed:
        if name == "baseline":  # else the teacher encodes the student's images, which no cache can keep
            train(run, 0, tmp_path / "second", cache=kept)
            assert not encode.called
            assert not embed.called
    for out in ("first", *(["second"] if name == "baseline" else [])):
        assert student_bytes(tmp_path / out) == student_bytes(tmp_path / "without")
        logs = [(tmp_path / k / "train" / "log.jsonl").read_text() for k in (out, "without")]
        assert logs[0] == logs[1]


def test_a_cache_deleted_or_half_there_changes_nothing(smoke: Path, tmp_path: Path):
    run = smoke_run("loss_terms-l-adv", steps=3)
    kept = CacheSpec(directory=str(tmp_path / "cache"))
    train(
        run.model_copy(update={"training": run.training.model_copy(update={"steps": 2})}),
        0,
        tmp_path / "a",
        cache=kept,
    )
    for file in list((tmp_path / "cache").glob("text-*/*")):
        file.unlink()
    train(run, 0, tmp_path / "half", cache=kept)
    train(run, 0, tmp_path / "without")
    assert student_bytes(tmp_path / "half") == student_bytes(tmp_path / "without")


def test_everything_that_encoders_make_is_served_without_calling_them(smoke: Path, tmp_path: Path):
    run = smoke_run()
    data = open_training_set(run.data.train)

    def made(cache: EncoderCache | None) -> list[torch.Tensor]:
        networks = load_frozen_networks(run, "cpu", cache)
        batch = draw_batch(run, data, 32, LATENT, 0, 0, 0)
        given = networks.conditions(batch.real, batch.prompts)
        text = networks.student.embed(batch.prompts).embeddings
        if cache is not None:
            cache.flush()
        return [given["text"], given["image"], text]

    settings = CacheSpec(directory=str(tmp_path))
    plain, (first, second) = made(None), (EncoderCache(settings), EncoderCache(settings))
    for found in (made(first), made(second)):
        assert all(torch.equal(a, b) for a, b in zip(plain, found, strict=True))
    assert (first.calls, second.calls) == (3, 0)
    only = EncoderCache(CacheSpec(directory=str(tmp_path / "other"), keep=("text",)))
    made(only)
    assert [path.name.partition("-")[0] for path in (tmp_path / "other").iterdir()] == ["text"]


def rows(cache: EncoderCache, vae: torch.nn.Module, images: torch.Tensor) -> torch.Tensor:
    return cache.rows("latents", (vae,), images, lambda x: {"latents": vae(x)})["latents"]


def linear(seed: int) -> torch.nn.Module:
    torch.manual_seed(seed)
    return torch.nn.Linear(3, 2).requires_grad_(False)


def test_another_vae_another_image_and_another_precision_are_other_entries(tmp_path: Path):
    settings, images = CacheSpec(directory=str(tmp_path)), torch.arange(6.0).reshape(2, 3)
    first = EncoderCache(settings)
    made = rows(first, linear(0), images)
    first.flush()
    cache = EncoderCache(settings)
    assert torch.equal(rows(cache, linear(0), images), made)
    assert cache.calls == 0
    assert not torch.equal(rows(cache, linear(1), images), made)
    rows(cache, linear(0), torch.cat([images[:1], images[1:] + 1]))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert rows(cache, linear(0), images).dtype == torch.bfloat16
    rows(cache, linear(0), images[:1])  # another batch size, in which the last bits may differ
    assert cache.calls == 4


def test_latents_of_another_vae_under_this_ones_name_are_refused(tmp_path: Path):
    caches, images = (
        [EncoderCache(CacheSpec(directory=str(tmp_path / k))) for k in ("a", "b")],
        torch.rand(2, 3),
    )
    for seed, cache in enumerate(caches):
        rows(cache, linear(seed), images)
        cache.flush()
    (theirs,), (ours,) = ((tmp_path / k).iterdir() for k in ("a", "b"))
    for file in theirs.iterdir():
        file.rename(ours / ("segment-theirs.safetensors"))
    with pytest.raises(InputError, match=r"segment-theirs\.safetensors: does not belong here, .*encoder"):
        rows(EncoderCache(CacheSpec(directory=str(tmp_path / "b"))), linear(1), images)


def test_an_encoder_whose_rows_depend_on_their_neighbours_is_refused(tmp_path: Path):
    class Mixing(torch.nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x - x[:1]

    with pytest.raises(InputError, match="depend on an image's or a text's place"):
        rows(EncoderCache(CacheSpec(directory=str(tmp_path))), Mixing(3, 3), torch.rand(3, 3))


def test_a_fingerprint_is_of_weights_layout_and_tokenizer(smoke: Path):
    network = load_frozen_networks(smoke_run("loss_terms-l-adv"), "cpu").student
    assert fingerprint((linear(0),)) == fingerprint((linear(0),)) != fingerprint((linear(1),))
    assert fingerprint((linear(0).double(),)) != fingerprint((linear(0),))
    before = fingerprint((network.vae,))
    assert fingerprint((network.vae.to(memory_format=torch.channels_last),)) != before
    (encoder,), (tokenizer,) = network.text.encoders, network.text.tokenizers
    with_tokenizer = fingerprint((encoder, tokenizer))
    network.embed(["used once"])
    assert fingerprint((encoder, tokenizer)) == with_tokenizer
    tokenizer.model_max_length -= 1
    assert fingerprint((encoder, tokenizer)) != with_tokenizer


def test_keys_are_of_values_shapes_and_texts():
    images = torch.rand(2, 3, 4, 4)
    keys = content_keys(images, "")
    assert keys == content_keys(images.contiguous(memory_format=torch.channels_last), "")
    assert keys[0] != keys[1]
    assert content_keys(images.reshape(2, 3, 2, 8), "") != keys, "another shape is another image"
    assert content_keys(images.double(), "") != keys
    assert content_keys(images, "another batch size") != keys
    assert content_keys(["a", "b"], "")[0] != content_keys(["a ", "b"], "")[0]


def test_latents_of_random_crops_are_refused_with_the_reason():
    data = CocoSpec(images="i", annotations="a", resize=ResizeSpec(crop="random"))
    with pytest.raises(ValueError, match="every epoch sees other crops"):
        open_cache(CacheSpec(directory="c", keep=("text", "latents")), data)
    assert open_cache(CacheSpec(directory="c", keep=("text",)), data) is not None
    assert open_cache(None, data) is None


def test_images_of_half_precision_have_keys_of_their_own():
    images = torch.rand(2, 3, 4, 4)
    halves = content_keys(images.bfloat16(), "x")
    assert len({*halves, *content_keys(images, "x")}) == 4
