"""What the miniature's trainers share: the training loop, cards, data in memory, augmented views."""

from __future__ import annotations

import hashlib
import math
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F
from tqdm import tqdm

from add.batch import generator
from add.checkpoint import TrainingState
from add.digests import digest_of
from add.distributed import ALONE
from add.files import whole_file, write_json
from add.models.weights import weights_hash
from eval.result import hardware
from mini import world
from mini.world import Photographs, Scenes, Split, draw_photographs, draw_scenes, render

CACHE = Path("data/pretrain")
WORLD = hashlib.sha256(Path(world.__file__).read_bytes()).hexdigest()[:12]
"""Which world the pictures are of, by its source."""
_CHECKPOINT = 500


@dataclass(frozen=True)
class Recipe:
    """What every trainer is told.

    out: directory of the weights. seed: of all draws. steps: updates, each on `batch` images. lr: AdamW's largest
    learning rate. n: number of scenes to train on.
    """

    out: Path
    seed: int
    steps: int
    batch: int
    lr: float
    n: int = 30000

    def __str__(self) -> str:
        return f"AdamW {self.lr} cosine, batch {self.batch}"


Loss = Callable[[NDArray[np.int64], torch.Generator], torch.Tensor]
"""The loss of the images numbered `index` (batch,); all that it draws comes from the generator, or from torch's own."""


def fit(
    recipe: Recipe,
    modules: list[nn.Module],
    loss: Loss,
    *,
    images: int | None = None,
    decay: float = 0.0,
    every_thousand: Callable[[], None] | None = None,
    networks: Mapping[str, Path] | None = None,
) -> float:
    """Minimise `loss` with AdamW and clipped gradients; returns the CPU seconds used.

    images: indices are below it (by default recipe.n), in the order of `batches`. decay: of the moving average of the
    weights, which the modules end with; 0 keeps the last weights. every_thousand: called after each 1000 steps, with
    the average in place. networks: those that the loss or the first weights come from, by name, each a directory.

    What a step draws is a function of the recipe's seed and the step, and there is a checkpoint every _CHECKPOINT
    steps and at the end, until `write_card`: killed and started again, a stage ends in the same bits. Raises InputError
    where it would go on with another world or another of `networks`.
    """
    parameters = [p for module in modules for p in module.parameters()]
    decayed, plain = [p for p in parameters if p.ndim > 1], [p for p in parameters if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": 0.01}, {"params": plain, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=recipe.lr, betas=(0.9, 0.99), fused=True)
    ema = EMA(*modules, decay=decay)
    state = TrainingState({"student": nn.ModuleList(modules)}, {"student_optimiser": optimiser}, ema.mean)
    checkpoints = recipe.out / "checkpoints"
    identity = {
        "spec": digest_of({**asdict(recipe), "out": recipe.out.name})[:12],
        "world": WORLD,
        "weights": {name: weights_hash(folder) for name, folder in (networks or {}).items()},
    }
    begun, note = state.resume(checkpoints, ALONE, identity)
    seconds = float(note.get("seconds", 0))
    order = batches(images or recipe.n, recipe.batch, recipe.steps, recipe.seed)
    smooth: float | None = None
    with tqdm(total=recipe.steps, initial=begun, desc=str(recipe.out), mininterval=10, miniters=20) as bar:
        for step in range(begun, recipe.steps):
            started = time.process_time()
            for group in optimiser.param_groups:
                group["lr"] = recipe.lr * warm_cosine(step, recipe.steps)
            torch.manual_seed(generator(recipe.seed, step, 0, "global").initial_seed())
            value = loss(order[step], generator(recipe.seed, step, 0, "loss"))
            optimiser.zero_grad(set_to_none=True)
            value.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimiser.step()
            ema.update(step)
            seconds += time.process_time() - started
            done = step + 1
            if every_thousand is not None and done % 1000 == 0:
                ema.swap()
                every_thousand()
                ema.swap()
            if done % _CHECKPOINT == 0 or done == recipe.steps:
                state.save(checkpoints, done, ALONE, {**identity, "seconds": seconds})
            smooth = value.item() if smooth is None else smooth + 0.02 * (value.item() - smooth)
            bar.set_postfix_str(f"loss {smooth:.4f}", refresh=False)
            bar.update()
    ema.swap()
    return seconds


def warm_cosine(step: int, steps: int, warmup: int = 100) -> float:
    """Learning-rate factor: linear warm-up, then cosine decay to zero."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def batches(n: int, batch: int, steps: int, seed: int) -> NDArray[np.int64]:
    """(steps, batch) indices below n: epochs of seeded permutations laid end to end."""
    rng = np.random.default_rng(seed)
    epochs = -(-steps * batch // n)
    order = np.concatenate([rng.permutation(n) for _ in range(epochs)])
    return order[: steps * batch].reshape(steps, batch)


class EMA:
    """Exponential moving average of modules' parameters."""

    def __init__(self, *modules: nn.Module, decay: float = 0.999) -> None:
        self.decay = decay
        self.live = [p for m in modules for p in m.parameters()]
        self.mean = [p.detach().clone() for p in self.live]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Fold the live parameters in; the decay ramps up over the first steps."""
        decay = min(self.decay, (step + 1) / (step + 10))
        torch._foreach_lerp_(self.mean, list[torch.Tensor](self.live), 1 - decay)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the averaged and the live values (call again to undo)."""
        for live, mean in zip(self.live, self.mean, strict=True):
            kept = live.clone()
            live.copy_(mean)
            mean.copy_(kept)


def write_card(
    out: Path,
    recipe: Recipe,
    seconds: float,
    *,
    network: str,
    how: str,
    data: str,
    quality: dict[str, Any],
    **more: Any,
) -> None:
    """Write CARD.json beside the weights in `out`, with their hash; `more` adds or replaces entries.

    The stage is done then: its checkpoints go.
    """
    shutil.rmtree(out / "checkpoints", ignore_errors=True)
    card = {
        "network": network,
        "recipe": how,
        "data": data,
        "steps": recipe.steps,
        "cpu_seconds": round(seconds),
        "quality": quality,
        **more,
        "sha256": weights_hash(out),
        "torch": torch.__version__.split("+")[0],
        "hardware": hardware(),
    }
    write_json(out / "CARD.json", card)
    print(f"{out}: {quality}", flush=True)


def photographs(split: Split, n: int, shot: int = 0) -> tuple[Scenes, Photographs, NDArray[np.uint8]]:
    """Scenes, photographs and (n, 32, 32, 3) uint8 pictures of a split; pictures are cached on disk."""
    scenes, photos = draw_scenes(split, n), draw_photographs(split, n, shot=shot)
    file = CACHE / f"{split}-{n}-{shot}-{WORLD}.npy"
    if not file.exists():
        with whole_file(file) as partial, partial.open("wb") as stream:
            np.save(stream, render(scenes, photos))
    return scenes, photos, np.load(file)


def gaussian_blur(images: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """Blur each image with its own standard deviation sigma (N,) in pixels; 0 leaves an image unchanged."""
    radius = 3
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (offsets / sigma.clamp_min(1e-3)[:, None]).square())
    kernel = kernel / kernel.sum(1, keepdim=True)
    n, c, h, w = images.shape
    weights = kernel.repeat_interleave(c, 0)
    flat = F.pad(images.reshape(1, n * c, h, w), (radius,) * 4, mode="reflect")
    flat = F.conv2d(flat, weights[:, None, None, :], groups=n * c)
    return F.conv2d(flat, weights[:, None, :, None], groups=n * c).reshape(n, c, h, w)


def rotate_colours(images: torch.Tensor, share: float, generator: torch.Generator) -> torch.Tensor:
    """Rotate the colour axes about grey by a random angle, in a fraction `share` of the images."""
    n = len(images)
    angle = torch.rand(n, generator=generator) * 2 * math.pi
    angle = angle * (torch.rand(n, generator=generator) < share)
    # Rodrigues' formula about (1, 1, 1) / sqrt 3
    k = 1 / math.sqrt(3)
    cross = torch.tensor([[0.0, -k, k], [k, 0.0, -k], [-k, k, 0.0]])
    grey = torch.full((3, 3), 1 / 3)
    c, s = angle.cos()[:, None, None], angle.sin()[:, None, None]
    rotation = c * torch.eye(3) + s * cross + (1 - c) * grey
    return torch.einsum("nij,njhw->nihw", rotation, images)


def jitter(images: torch.Tensor, generator: torch.Generator, shift: int = 3) -> torch.Tensor:
    """Random brightness and contrast for each image, and one translation by up to `shift` pixels for the batch."""
    n = len(images)
    gain = 1 + 0.3 * (torch.rand(n, 1, 1, 1, generator=generator) - 0.5)
    offset = 0.3 * (torch.rand(n, 1, 1, 1, generator=generator) - 0.5)
    dx, dy = torch.randint(-shift, shift + 1, (2,), generator=generator).tolist()
    padded = F.pad(images, (shift,) * 4, mode="reflect")
    h, w = images.shape[-2:]
    moved = padded[..., shift + dy : shift + dy + h, shift + dx : shift + dx + w]
    return moved * gain + offset
