"""The scores of single images: what is written is read back, and what is broken is refused by line."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from add.errors import InputError
from eval.image_scores import read_scores, scores_file, write_features, write_scores
from eval.metrics.measure import ImageScores

WHOLE = ImageScores(
    fid=[1.5, -1.5],
    clip_score=[0.31, 0.29],
    alignment=[True, False],
    answers=[{"layout": "row", "shape_0": "star"}, {"layout": "single", "shape_0": "a,b"}],
)


@pytest.mark.parametrize("scores", [WHOLE, ImageScores(clip_score=[0.25, 0.5])])
def test_what_is_written_is_read_back(tmp_path: Path, scores: ImageScores):
    file = scores_file(tmp_path, "coco", 4)
    assert file == tmp_path / "scores/coco-4step.csv"
    write_scores(file, ["one", "two"], 7, scores)
    found = read_scores(file)
    assert (found.prompt_ids, found.seed) == (("one", "two"), 7)
    assert found.scores == scores


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("prompt_id,seed", "id,seed", "scores.csv:1: begins with the columns prompt_id, seed, not id, seed"),
        ("0.29", "nan", "scores.csv:3: clip_score: should be a number, not 'nan'"),
        ("0.29", "high", "scores.csv:3: clip_score: should be a number, not 'high'"),
        ("true", "yes", "scores.csv:2: all_right: should be true or false, not 'yes'"),
        (",row,star", ",row", "scores.csv: line 2: has 6 fields, the header has 7"),
        ("two,7", "two,8", "holds 2 training seeds"),
    ],
)
def test_what_is_broken_is_refused(tmp_path: Path, old: str, new: str, message: str):
    file = tmp_path / "scores.csv"
    write_scores(file, ["one", "two"], 7, WHOLE)
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    with pytest.raises(InputError, match=re.escape(message)):
        read_scores(file)


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(InputError, match=r"none.csv: cannot be read"):
        read_scores(tmp_path / "none.csv")


def test_features_are_kept_where_asked(tmp_path: Path):
    features = np.arange(6, dtype=np.float32).reshape(2, 3)
    write_features(tmp_path / "features.safetensors", features)
    np.testing.assert_array_equal(load_file(tmp_path / "features.safetensors")["features"], features)
