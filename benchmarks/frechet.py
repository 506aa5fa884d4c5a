"""How long does the Fréchet term take, beside clean-fid's? 2048 features of 5,000 images, as Inception's are.

    OMP_NUM_THREADS=1 python -m benchmarks.frechet

Both are given the same two means and covariances, and take turns; CPU seconds, the median of several runs. And the
standard error by influence function, whose reference implementation is a bootstrap (one resample costs one term).
Writes benchmarks/results/frechet.json.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
from cleanfid.fid import frechet_distance as clean_fid

from eval.metrics.distances import Statistics, deviation_of_mean, frechet_distance, influence
from eval.metrics.distances import statistics as moments
from eval.result import hardware

FILE = Path(__file__).parent / "results" / "frechet.json"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--features", type=int, default=2048)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    n, d = options.images, options.features
    rng = np.random.default_rng(0)
    x, y = (
        rng.normal(size=(n, d)) @ (rng.normal(size=(d, d)) / np.sqrt(d) * np.logspace(-1, 1, d)) for _ in "ab"
    )
    a, b = moments(x), moments(y)
    ours, theirs, errors = [], [], []
    for _ in range(options.repeats):
        ours.append(cpu_seconds(lambda: frechet_distance(a, b)))
        theirs.append(cpu_seconds(lambda: clean_fid(a.mean, a.covariance, b.mean, b.covariance)))
        errors.append(cpu_seconds(lambda: deviation_of_mean(influence(x, b))))
    values = frechet_distance(a, b), float(clean_fid(a.mean, a.covariance, b.mean, b.covariance))
    found = {
        "images": n,
        "features": d,
        "ours_cpu_seconds": round(statistics.median(ours), 3),
        "clean_fid_cpu_seconds": round(statistics.median(theirs), 3),
        "times_as_fast": round(statistics.median(theirs) / statistics.median(ours), 2),
        "relative_difference_to_clean_fid": abs(values[0] / values[1] - 1),
        "relative_difference_to_singular_values": abs(values[0] / by_singular_values(a, b) - 1),
        "standard_error_cpu_seconds": round(statistics.median(errors), 3),
        "repeats": options.repeats,
        "machine": hardware(),
        "versions": {
            "python": platform.python_version(),
            **{p: version(p) for p in ("numpy", "scipy", "clean-fid")},
        },
    }
    FILE.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=1))


def by_singular_values(a: Statistics, b: Statistics) -> float:
    """The same distance by the definition that loses no digits: the singular values of L1^T L2."""
    left, right = np.linalg.cholesky(a.covariance), np.linalg.cholesky(b.covariance)
    root = np.linalg.svd(left.T @ right, compute_uv=False).sum()
    return float(
        np.square(a.mean - b.mean).sum() + np.trace(a.covariance) + np.trace(b.covariance) - 2 * root
    )


def cpu_seconds(work: Callable[[], object]) -> float:
    """CPU seconds of one call."""
    started = time.process_time()
    work()
    return time.process_time() - started


if __name__ == "__main__":
    main()
