"""The paper's networks at their real sizes, without weights: parameter counts, shapes, and one real step."""

from __future__ import annotations

import json
import os
import resource
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from add.batch import Batch
from add.config.run import Run
from add.discriminator import Discriminator
from add.models.diffusion import student_x0
from add.models.frozen import FrozenNetworks, make_heads
from add.step import losses
from add.train import autocast, make_optimiser, update
from addbench.cost.random_init import (
    build_c_text,
    build_diffusion,
    build_features,
    clip_tokenizer,
)
from addbench.cost.shapes import read_config
from tests.support.smoke import REPOSITORY, smoke_run

CONFIGS = REPOSITORY / "config" / "networks"
IMAGENET: dict[str, Any] = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
# Parameters in millions, as published or counted by others in the published weights.
DIFFUSION = {
    "sd21-base": {"unet": 865.91, "vae": 83.65, "text_encoder": 340.39},
    "sd21": {"unet": 865.91, "vae": 83.65, "text_encoder": 340.39},
    "sdxl-base": {"unet": 2567.46, "vae": 83.65, "text_encoder": 123.06, "text_encoder_2": 694.66},
}
# Parameters, patches a side at 224 pixels, and width; DINOv1 without the pooler that its weights lack.
FEATURES = {
    "dino-vits16": (21.67, 14, 384),
    "dinov2-small": (22.06, 16, 384),
    "dinov2-large": (304.37, 16, 1024),
    "clip-vit-large-patch14": (303.18, 16, 1024),
}


def millions(module: nn.Module) -> float:
    return round(sum(p.numel() for p in module.parameters()) / 1e6, 2)


@pytest.mark.parametrize("name", DIFFUSION)
def test_diffusion_networks_have_their_published_sizes_and_run_at_512(name: str):
    """Breaks when a configuration is not the published one, or the step's calls do not fit the real network."""
    network = build_diffusion(CONFIGS / name, "meta", resolution=512)
    parts = {"unet": network.unet, "vae": network.vae, "text_encoder": network.text.encoders[0]}
    if len(network.text.encoders) == 2:
        parts["text_encoder_2"] = network.text.encoders[1]
    assert {part: millions(module) for part, module in parts.items()} == DIFFUSION[name]
    assert network.schedule.prediction == ("v_prediction" if name == "sd21" else "epsilon")
    assert network.latent_shape == (4, 64, 64)
    images = torch.empty(2, 3, 512, 512, device="meta")
    latents = network.encode(images)
    assert latents.shape == (2, 4, 64, 64)
    text = network.embed(["a photograph of a cat", ""])
    assert text.embeddings.shape == (2, 77, 2048 if name == "sdxl-base" else 1024)
    assert (None if text.pooled is None else text.pooled.shape) == ((2, 1280) if text.added else None)
    s = torch.full((2,), 999, device="meta")
    x0 = student_x0(network, network.unet, latents, torch.empty_like(latents), s, text)
    assert network.decode(x0).shape == images.shape
    assert network.predict(latents, s, network.null().expand(2)).shape == latents.shape
    assert network.text.zero_null == (name == "sdxl-base")


def test_the_vaes_say_what_their_pipelines_need():
    """Breaks when latents are scaled by the other model's factor, or SDXL's warning about float16 is lost."""
    sd, xl = (build_diffusion(CONFIGS / name, "meta").vae.config for name in ("sd21-base", "sdxl-base"))
    assert (sd.scaling_factor, xl.scaling_factor) == (0.18215, 0.13025)
    assert xl.force_upcast
    assert build_diffusion(CONFIGS / "sdxl-base", "meta").resolution == 1024
    assert build_diffusion(CONFIGS / "sd21", "meta").resolution == 768


@pytest.mark.parametrize("name", FEATURES)
def test_feature_networks_and_heads_have_their_real_shapes(name: str):
    """Breaks when a feature network of the table, or a head on it with real conditioning, cannot be built."""
    size, patches, width = FEATURES[name]
    depth = 24 if width == 1024 else 12
    layers = [0, depth // 4, depth // 2, 3 * depth // 4, depth]
    network = build_features(CONFIGS / name, layers=layers, image_size=224, device="meta", **IMAGENET)
    pooler = getattr(network.model, "pooler", None)
    assert round(
        millions(network.model) - (millions(pooler) if pooler is not None else 0), 2
    ) == pytest.approx(size, abs=0.011)
    shapes = network.shapes(512)
    assert [(s.channels, s.size) for s in shapes] == [(width, (patches**2,))] * 5
    c_img = build_features(CONFIGS / "dinov2-large", image_size=224, device="meta", **IMAGENET)
    given = {
        "text": build_c_text(device="meta")(["a cat", "a dog"]),
        "image": c_img.pooled(torch.empty(2, 3, 512, 512, device="meta")),
    }
    assert {key: tuple(c.shape) for key, c in given.items()} == {"text": (2, 1024), "image": (2, 1024)}
    # Spectral norm iterates when it is made, so the heads are real; only what passes through them is not.
    heads = Discriminator(shapes, {key: c.shape[1] for key, c in given.items()}).to("meta").eval()
    logits = heads(network(torch.empty(2, 3, 512, 512, device="meta")), given)
    assert [tuple(k.shape) for k in logits] == [(2, patches**2)] * 5


def test_dinov2_takes_the_size_that_a_scale_states():
    """Breaks when DINOv2 is only taken at 518, the size of its position embeddings."""
    for size in (224, 448, 518):
        network = build_features(
            CONFIGS / "dinov2-small", layers=[3], image_size=size, device="meta", **IMAGENET
        )
        assert network.shapes()[0].size == ((size // 14) ** 2,)


def test_the_tokenizer_of_networks_without_weights_is_clips_own():
    """Breaks when real networks are tried with token ids that real prompts do not have."""
    import open_clip

    texts = [
        "a photograph of an astronaut riding a horse",
        "An Italian-style café, 3 o'clock; it's raining",
        "a very " + "very " * 100 + "long caption",
        "rain!",  # to a tokenizer that pads with "!" this is a word and padding, in the published one too
    ]
    theirs = open_clip.get_tokenizer("ViT-g-14")(texts)

    def ours(tokenizer: Any) -> torch.Tensor:
        ids = tokenizer(texts, padding="max_length", truncation=True, max_length=77).input_ids
        return torch.tensor(ids)

    # open_clip pads with 0, which is "!", CLIP's tokenizer with the end of the text, SDXL's second with "!".
    assert torch.equal(ours(clip_tokenizer("!"))[:3], theirs[:3])
    first = ours(clip_tokenizer())
    assert torch.equal(first.where(first != 49407, 0), theirs.where(theirs != 49407, 0))
    assert len(clip_tokenizer()) == 49408


def test_configurations_that_cannot_be_read_are_named(tmp_path: Path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json: is not JSON"):
        read_config(tmp_path / "config.json")
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(ValueError, match=r"config\.json: is not a JSON object"):
        read_config(tmp_path / "config.json")
    with pytest.raises(ValueError, match="open_clip has no configuration 'ViT-x'"):
        build_c_text("ViT-x")


def real_players(name: str, device: str, resolution: int) -> tuple[FrozenNetworks, Any]:
    """The pipeline as student and teacher, DINOv2 ViT-S as features, and a UNet to train.

    The trained UNet starts in the teacher's own memory: for one step it is the same network, at half the cost.
    """
    network = build_diffusion(CONFIGS / name, device, resolution)
    with torch.device("meta"):
        unet = type(network.unet).from_config(network.unet.config)
    unet.load_state_dict(network.unet.state_dict(), assign=True)
    unet.eval().requires_grad_(True)
    assert unet.conv_in.weight.data_ptr() == network.unet.conv_in.weight.data_ptr()
    features = build_features(
        CONFIGS / "dinov2-small", layers=[0, 3, 6, 9, 12], image_size=224, device=device, **IMAGENET
    )
    return FrozenNetworks(network, network, features, None, None, True), unet


def real_step(name: str, device: str, resolution: int, run: Run) -> dict[str, Any]:
    """One step of `add.train`'s own code: both losses, both gradients, both updates. Returns what to print."""
    networks, unet = real_players(name, device, resolution)
    heads = make_heads(run, networks, resolution, 0)
    assert heads is not None
    optimisers = (
        make_optimiser(unet, run.training.student_optimiser),
        make_optimiser(heads, run.training.head_optimiser),
    )
    draw = torch.Generator().manual_seed(0)
    shape = networks.student.latent_shape
    batch = Batch(
        real=(torch.rand(1, 3, resolution, resolution, generator=draw) * 2 - 1).to(device),
        prompts=("a photograph of a cat",),
        s=torch.tensor([749], device=device),
        t=torch.tensor([400], device=device),
        noise=torch.randn(1, *shape, generator=draw).to(device),
        noise_t=torch.randn(1, *shape, generator=draw).to(device),
        draws=draw,
    )
    before = unet.conv_in.weight.detach().clone()
    started = time.perf_counter()
    with autocast(run.training.precision, device):
        student_loss, head_loss, values = losses(run, networks, unet, heads, batch)
    student_loss.backward()
    assert head_loss is not None
    head_loss.backward()
    del networks  # the frozen networks have done their part; the optimisers' state is about to be allocated
    norm = update(optimisers[0], unet, run.training.student_optimiser, 0, 100)["grad_norm"]
    update(optimisers[1], heads, run.training.head_optimiser, 0, 100)
    numbers = {key: float(value) for key, value in values.items()} | {"grad_norm": norm}
    assert all(torch.isfinite(torch.tensor(v)) for v in numbers.values()), numbers
    assert norm > 0
    assert not torch.equal(before, unet.conv_in.weight)
    peak = (
        torch.cuda.max_memory_allocated()
        if device == "cuda"
        else 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    )
    return {"seconds": round(time.perf_counter() - started, 1), "peak_gib": round(peak / 2**30, 2)}


def a_run(**training: Any) -> Run:
    """The baseline without conditioning, whose networks would take as much memory again."""
    run = smoke_run("discriminator_conditioning-none", batch=1, virtual_batch=1, **training)
    return run.model_copy(update={"name": "real"})


@pytest.mark.slow
def test_one_real_step_of_sd21(capsys: pytest.CaptureFixture[str]):
    """Breaks when the training step does not run on SD2.1's 866 million parameters: both losses, both updates."""
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    for line in Path("/proc/meminfo").read_text().splitlines() if Path("/proc/meminfo").exists() else ():
        if line.startswith("MemAvailable"):
            free = int(line.split()[1]) / 2**20
    if free < 16.5:
        pytest.skip(f"takes about 15 GiB of memory, {free:.1f} are available")
    measured = real_step("sd21-base", "cpu", 64, a_run())
    with capsys.disabled():
        print(json.dumps({"network": "sd21-base", "resolution": 64, **measured}))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device with 60 GiB")
def test_one_real_step_of_sdxl_on_a_gpu(capsys: pytest.CaptureFixture[str]):
    """Breaks when the same step function does not run with SDXL at 512 pixels."""
    torch.set_float32_matmul_precision("high")
    measured = real_step("sdxl-base", "cuda", 512, a_run(precision="bf16"))
    with capsys.disabled():
        print(json.dumps({"network": "sdxl-base", "resolution": 512, **measured}))
