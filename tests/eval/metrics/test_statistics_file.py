"""Statistics without images: what clean-fid and pytorch-fid write is read, what is written they read, and refusals."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from add.errors import InputError
from eval.metrics.distances import frechet_distance, influence, statistics
from eval.metrics.measure import image_distance
from eval.metrics.statistics_file import read_statistics, write_statistics

D = 6


def features(n: int, seed: int, shift: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.normal(shift, 1, (n, D)) @ rng.normal(size=(D, D))).astype(np.float32)


def foreign(file: Path, **changes: Any) -> Path:
    """As clean-fid's make_custom_stats and pytorch-fid's save_fid_stats write them."""
    x = features(80, 1)
    arrays = {"mu": np.mean(x, axis=0), "sigma": np.cov(x, rowvar=False)} | changes
    np.savez_compressed(file, **{key: array for key, array in arrays.items() if array is not None})
    return file


def test_fid_against_a_foreign_file_is_clean_fids(tmp_path: Path) -> None:
    fid = pytest.importorskip("cleanfid.fid")
    x, file = features(60, 2, 0.3), foreign(tmp_path / "real.npz")
    with np.load(file) as content:
        theirs = fid.frechet_distance(x.mean(0), np.cov(x, rowvar=False), content["mu"], content["sigma"])
    found = image_distance(x, read_statistics(file, D))
    assert found.value == pytest.approx(theirs, rel=1e-6)  # clean-fid's mean of float32 features is a float32
    assert found.note is None
    of_images = influence(x, statistics(features(80, 1)))
    np.testing.assert_allclose(found.influence, of_images, rtol=1e-5, atol=1e-5)
    assert found.error == pytest.approx(of_images.std(ddof=1) / np.sqrt(60), rel=1e-5)
    assert found.reference_error is None, "nothing says how the statistics vary"


def test_what_is_written_is_read_by_clean_fid_to_the_last_digit(tmp_path: Path) -> None:
    fid = pytest.importorskip("cleanfid.fid")
    file, a, b = tmp_path / "ours.npz", statistics(features(60, 2, 0.3)), statistics(features(80, 1))
    write_statistics(file, b, {"extractor": {"kind": "any"}})
    with np.load(file) as content:  # pickles are refused by default, and there is none
        theirs = fid.frechet_distance(a.mean, a.covariance, content["mu"], content["sigma"])
    back = read_statistics(file, D, {"extractor": {"kind": "any"}})
    assert frechet_distance(a, back.statistics) == pytest.approx(theirs, rel=1e-8)
    np.testing.assert_array_equal(back.statistics.mean, b.mean)
    np.testing.assert_array_equal(back.statistics.covariance, b.covariance)
    assert (back.rank, back.statistics.count) == (D, None)


def test_equal_statistics_are_equal_bytes_and_one_identity(tmp_path: Path, monkeypatch) -> None:
    found = []
    for name, now in (("a", 1e9), ("b", 1.5e9)):
        monkeypatch.setattr("time.time", lambda now=now: now)
        write_statistics(tmp_path / f"{name}.npz", statistics(features(80, 1)))
        found.append(read_statistics(tmp_path / f"{name}.npz", D).source.sha256)
    write_statistics(tmp_path / "c.npz", statistics(features(80, 3)))
    assert found[0] == found[1] != read_statistics(tmp_path / "c.npz", D).source.sha256


def test_statistics_of_too_few_images_are_noted(tmp_path: Path) -> None:
    write_statistics(tmp_path / "few.npz", statistics(features(4, 1)))
    reference = read_statistics(tmp_path / "few.npz", D)
    assert reference.rank == 3
    found = image_distance(features(60, 2), reference)
    assert "rank of at most 3" in (found.note or "")
    assert found.interval is None


LOPSIDED = np.eye(D)
LOPSIDED[0, 1] = 0.1


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"sigma": None}, "holds mu, and not sigma"),
        ({"mu": None, "sigma": None, "feats": np.ones((3, D))}, "holds feats, and not mu and sigma"),
        ({"mu": np.zeros(D + 1)}, r"the extractor has 6 features"),
        ({"sigma": np.eye(D + 1)}, r"sigma \(7, 7\)"),
        ({"mu": np.full(D, np.nan)}, "mu has 6 values that are not finite"),
        ({"sigma": LOPSIDED}, "not symmetric"),
        ({"sigma": np.diag([1.0, 1, 1, 1, 1, -0.1])}, "eigenvalue -0.1"),
        ({"sigma": -np.eye(D)}, "eigenvalue -1"),
        ({"mu": np.array(["a"] * D)}, "not floating-point numbers"),
        ({"settings": np.array('{"extractor": 2}')}, "under another extractor"),
        ({"settings": np.array("{")}, "settings is not JSON"),
    ],
)
def test_what_is_no_such_file_is_refused(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    file = foreign(tmp_path / "real.npz", **changes)
    with pytest.raises(InputError, match=reason) as caught:
        read_statistics(file, D, {"extractor": 1})
    assert str(file) in str(caught.value)


def one_array() -> bytes:
    """A .npy, whatever its name."""
    content = io.BytesIO()
    np.save(content, np.zeros(D))
    return content.getvalue()


@pytest.mark.parametrize("content", [b"", b"no archive", b"\x93NUMPY", one_array()])
def test_a_broken_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "broken.npz").write_bytes(content)
    with pytest.raises(InputError, match=r"is not a \.npz of mu and sigma"):
        read_statistics(tmp_path / "broken.npz", D)
    with pytest.raises(InputError, match=r"is not a \.npz"):
        read_statistics(tmp_path / "absent.npz", D)
    with pytest.raises(InputError, match="give the file that ending"):
        write_statistics(tmp_path / "stats.dat", statistics(features(80, 1)))


def test_float32_files_stay_within_the_tolerance(tmp_path: Path) -> None:
    sigma = np.cov(features(4, 1), rowvar=False).astype(np.float32)
    assert np.linalg.eigvalsh(sigma.astype(np.float64))[0] < 0, "rounding made it indefinite"
    file = foreign(tmp_path / "real.npz", sigma=sigma)
    assert read_statistics(file, D).statistics.covariance.dtype == np.float64
