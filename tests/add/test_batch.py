"""A training batch does not depend on the form in which its data lie, and random crops are drawn from the seed."""

from __future__ import annotations

import threading
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from add.batch import Batch, draw_batch, prefetched
from add.config.run import Run
from add.config.training import ResizeSpec, RunDataSpec
from add.data.images import Sample, pixels
from add.data.training_set import open_training_set
from tests.support.smoke import smoke_run
from tests.support.training_data import FORMS, encoded, write

IMAGES = [
    encoded(Image.fromarray(np.random.default_rng(i).integers(0, 255, (30, 24, 3), np.uint8)))
    for i in range(6)
]


def run_on(root: Path, form: str, resize: ResizeSpec | None = None) -> Run:
    train = write(form, root / form, IMAGES, list("abcdef")).model_copy(update={"resize": resize})
    return smoke_run().model_copy(update={"data": RunDataSpec(train=train)})


def batch(run: Run, seed: int = 3, step: int = 5) -> Batch:
    return draw_batch(run, open_training_set(run.data.train), 16, (4, 2, 2), seed, step, 0)


@pytest.mark.parametrize("form", [form for form in FORMS if form != "coco"])
def test_a_batch_is_the_same_from_every_form(tmp_path: Path, form: str):
    # COCO's folder is what results were made with.
    expected, found = (batch(run_on(tmp_path, f)) for f in ("coco", form))
    assert torch.equal(expected.real, found.real)
    assert expected.prompts == found.prompts


def test_random_crops_are_a_function_of_seed_and_step(tmp_path: Path):
    run = run_on(tmp_path, "text", ResizeSpec(crop="random"))
    first, again = batch(run), batch(run)
    centred = batch(run_on(tmp_path, "csv"))
    assert torch.equal(first.real, again.real), "a restart would see other crops"
    assert first.prompts == centred.prompts
    assert not torch.equal(first.real, centred.real)
    assert torch.equal(first.noise, centred.noise), "rows with and without crops are no longer paired"
    # Six images, batches of four: the image of sample 0 of epoch 0 comes again in a later epoch, cropped elsewhere.
    crops = {image.numpy().tobytes() for step in range(6) for image in batch(run, step=step).real}
    assert len(crops) > len(IMAGES)


def test_while_a_batch_is_in_use_the_next_is_read_and_no_more():
    made: list[int] = []
    second = threading.Event()

    def make(number: int) -> int:
        made.append(number)
        if number == 1:
            second.set()
        return number

    batches = prefetched(partial(make, number) for number in range(5))
    assert next(batches) == 0
    assert second.wait(10), "the next one is read only when it is asked for"
    assert made == [0, 1], "memory for more than one batch ahead"
    assert list(batches) == [1, 2, 3, 4]


def test_a_batch_that_cannot_be_read_ends_the_step_that_needs_it_and_none_before():
    batches = prefetched(partial(int, text) for text in ("0", "1", "one", "3"))
    assert [next(batches), next(batches)] == [0, 1]
    with pytest.raises(ValueError, match="one"):
        next(batches)


def test_a_sample_without_a_place_is_no_sample_less():
    sample = Sample("x", IMAGES[0], ("a",))
    with pytest.raises(ValueError, match="shorter"):
        pixels([sample, sample], 16, ResizeSpec(crop="random"), [(0.5, 0.5)])
