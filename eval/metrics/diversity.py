"""How unlike are the images that one prompt gives? The Vendi score of each prompt's images, and its mean over prompts.

The Vendi score of m images (Friedman and Dieng, arXiv 2210.02410, equation 2) is the exponential of the entropy of the
eigenvalues of K / m, where K holds the similarities of all pairs. It is the effective number of images: 1 where all are
alike, m where no two have anything in common. The similarity is the cosine of two images' features, the authors' choice
for images; so features are normalised, but not centred.

It is preferred to the mean pairwise LPIPS that other papers print: it has a unit that reads without a reference, it
tells m images of two kinds from m images that all differ a little, and it needs no network beside FID's. Features
without negative values have large cosines, which press all scores towards 1: compare them under one extractor alone.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from eval.metrics.distances import Array, Estimated, deviation_of_mean


def vendi_scores(features: NDArray[np.floating]) -> Array:
    """The Vendi score of each prompt, float64 (prompts,), 1 to m, of features (prompts, m, d), m >= 2.

    Raises ValueError on other shapes, and where features are not finite or all nought.
    """
    if features.ndim != 3 or features.shape[1] < 2:
        raise ValueError(
            f"a diversity needs at least 2 images a prompt as (prompts, m, d), not {features.shape}"
        )
    x = features.astype(np.float64)
    lengths = np.linalg.norm(x, axis=2, keepdims=True)
    if len(broken := np.argwhere(~(np.isfinite(lengths) & (lengths > 0)))):
        raise ValueError(f"the features of image {broken[0][1]} of prompt {broken[0][0]} have no direction")
    x /= lengths
    shares = np.linalg.eigvalsh(x @ x.transpose(0, 2, 1) / x.shape[1]).clip(min=0)
    entropy = -(shares * np.log(shares, out=np.zeros_like(shares), where=shares > 0)).sum(axis=1)
    return np.asarray(np.exp(entropy))


def vendi_score(features: NDArray[np.floating]) -> Estimated:
    """The mean over at least 2 prompts, and its standard error over them, of features (prompts, m, d).

    Raises ValueError on one prompt, and as `vendi_scores` does.
    """
    scores = vendi_scores(features)
    if len(scores) < 2:
        raise ValueError("a standard error over prompts needs at least 2 prompts")
    return Estimated(float(scores.mean()), deviation_of_mean(scores))
