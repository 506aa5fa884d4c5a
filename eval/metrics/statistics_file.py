"""Mean and covariance of features in a .npz file, as clean-fid and pytorch-fid write and read them: `mu` and `sigma`.

Such a file does not say by which network and which resizing its features were made. What is compared with one states
the file's hash in its protocol, so that it shares a column only with what is compared with the very same file. A file
that is written here also holds `settings`, JSON that the other packages pass over: those of the reference that it was
made of, which must be those that it is read under.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from add.errors import InputError
from add.files import whole_file
from add.models.weights import file_hash
from eval.metrics.distances import Array, Statistics
from eval.metrics.measure import ReferenceStatistics
from eval.metrics.protocol import StatisticsIdentity, canonical_json

TOLERANCE = 1e-6
"""Of asymmetry and of negative eigenvalues, relative to the largest eigenvalue: float32 files stay within it."""


def read_statistics(
    file: Path, dimensions: int | None, settings: Mapping[str, Any] | None = None
) -> ReferenceStatistics:
    """The statistics in `file`, float64: `mu` (d,) and `sigma` (d, d), where d is the extractor's `dimensions`.

    dimensions: None, before the extractor is there, takes the file's own. settings: those that measure now; a file with
    settings must have the same under each of these keys. Raises InputError where the file is not such a file, has other
    shapes, is not finite, not symmetric or not positive semi-definite, or was made under other settings.
    """
    found = read_arrays(file)
    mean, covariance = (_numbers(file, name, found) for name in ("mu", "sigma"))
    dimensions = mean.size if dimensions is None else dimensions
    if mean.shape != (dimensions,) or covariance.shape != (dimensions, dimensions):
        raise InputError(
            file,
            f"mu has the shape {mean.shape} and sigma {covariance.shape}; the extractor has {dimensions} features: "
            f"({dimensions},) and ({dimensions}, {dimensions}); take the extractor that the file was made with",
        )
    scale = float(abs(covariance).max())
    if (gap := float(abs(covariance - covariance.T).max())) > TOLERANCE * scale:
        raise InputError(
            file, f"sigma is not symmetric: entries differ by up to {gap:g}, so it is no covariance"
        )
    covariance = (covariance + covariance.T) / 2
    values = np.linalg.eigvalsh(covariance)
    largest = max(float(values[-1]), 0.0)
    if values[0] < -TOLERANCE * largest or (largest == 0.0 and scale > 0):
        raise InputError(file, f"sigma has the eigenvalue {values[0]:g}, so it is no covariance")
    checked = settings is not None and "settings" in found
    if settings is not None and checked:
        _check_settings(file, str(found["settings"]), settings)
    rank = int((values > dimensions * np.finfo(np.float64).eps * largest).sum())
    source = StatisticsIdentity(file=file.as_posix(), sha256=file_hash(file))
    return ReferenceStatistics(source, Statistics(mean, covariance, None), rank, checked)


def write_statistics(file: Path, statistics: Statistics, settings: Mapping[str, Any] | None = None) -> None:
    """Write `mu` (d,) and `sigma` (d, d), float64, and the `settings` they were measured under; equal values give
    equal bytes. Raises InputError where the name does not end in .npz, by which readers know such a file."""
    if file.suffix != ".npz":
        raise InputError(file, "statistics are written as .npz; give the file that ending")
    arrays = {"mu": statistics.mean, "sigma": statistics.covariance}
    if settings is not None:
        arrays["settings"] = np.array(canonical_json(settings))
    with whole_file(file) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            content = io.BytesIO()
            npy.write_array(content, array, allow_pickle=False)
            # numpy's own writer states the time, and the hash of the file would change with it
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), content.getvalue(), zipfile.ZIP_DEFLATED)


def read_arrays(file: Path) -> dict[str, Any]:
    """The arrays `mu` and `sigma` of a .npz, with its `settings` where it has them. Raises InputError."""
    try:
        loaded = np.load(file, allow_pickle=False)
        if not isinstance(loaded, np.lib.npyio.NpzFile):
            raise ValueError("it is one array, not an archive of arrays")
        with loaded as content:
            found: dict[str, Any] = {
                name: content[name] for name in ("mu", "sigma", "settings") if name in content.files
            }
            names = ", ".join(content.files) or "nothing"
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(file, f"is not a .npz of mu and sigma: {error}") from error
    if missing := [name for name in ("mu", "sigma") if name not in found]:
        raise InputError(
            file, f"holds {names}, and not {' and '.join(missing)}: FID's statistics are mu and sigma"
        )
    return found


def _numbers(file: Path, name: str, found: Mapping[str, Any]) -> Array:
    array = found[name]
    if not np.issubdtype(array.dtype, np.floating) or array.size == 0:
        raise InputError(
            file, f"{name} holds {array.size} values of type {array.dtype}, not floating-point numbers"
        )
    if broken := int((~np.isfinite(array)).sum()):
        raise InputError(file, f"{name} has {broken} values that are not finite")
    return np.asarray(array, np.float64)


def _check_settings(file: Path, text: str, settings: Mapping[str, Any]) -> None:
    try:
        made = json.loads(text)
        others = [
            key for key, value in settings.items() if canonical_json(made.get(key)) != canonical_json(value)
        ]
    except (ValueError, AttributeError) as error:
        raise InputError(file, f"settings is not JSON of an object: {error}") from error
    if others:
        raise InputError(
            file,
            f"was made under another {' and '.join(others)}; write it again with `python -m eval.reference --npz`",
        )
