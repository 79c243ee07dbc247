"""A map of the features in two dimensions, for the eye only: distances between far groups mean nothing in it.

Paper: van der Maaten & Hinton, "Visualizing Data using t-SNE", JMLR 2008.
"""

from __future__ import annotations

import numpy as np
from threadpoolctl import threadpool_limits

from regraft.core.errors import DataError


def tsne(features: np.ndarray, seed: int = 0, limit: int = 1500) -> tuple[np.ndarray, np.ndarray]:
    """Positions of up to `limit` samples: (indices (M,) int64 rising, xy (M, 2) float32 in [−1, 1]).

    features (N, D), any real type. PCA to 50 dimensions first, perplexity 30 or (M − 1) / 3 where that is
    less, 500 iterations; 1500 samples take about 7 s on one core. Below 5 samples, or where all are equal,
    the positions are the first two principal components. Rows that are not finite are left out. Raises
    DataError for anything but two dimensions.
    """
    from sklearn.decomposition import PCA  # seconds to import, needed at the end of a run only
    from sklearn.manifold import TSNE

    features = np.asarray(features, dtype=np.float32)
    if features.ndim != 2:
        raise DataError(f"Features of shape {features.shape} cannot be mapped: (N, D) is needed.")
    indices = np.flatnonzero(np.isfinite(features).all(axis=1))
    if len(indices) > limit:
        indices = np.sort(np.random.default_rng(seed).choice(indices, limit, replace=False))
    x = features[indices] - (features[indices].mean(axis=0) if len(indices) else 0)
    spread = float(x.std()) if x.size else 0.0
    if len(indices) < 2 or spread == 0:
        return indices, np.zeros((len(indices), 2), dtype=np.float32)
    x = x / spread
    reduced = PCA(min(50, *x.shape), random_state=seed, svd_solver="full" if min(x.shape) < 60 else "randomized")
    x = reduced.fit_transform(x)
    if len(indices) < 5:
        xy = np.zeros((len(indices), 2))
        xy[:, : min(2, x.shape[1])] = x[:, :2]
    else:
        start = "pca" if x.shape[1] > 1 else "random"
        map_ = TSNE(perplexity=min(30.0, (len(x) - 1) / 3), init=start, max_iter=500, random_state=seed)
        # One thread: the many short parallel loops wait for each other, 2.5 times slower on two busy cores
        # (measured).
        with threadpool_limits(1):
            xy = map_.fit_transform(x)
    xy = xy - (xy.max(axis=0) + xy.min(axis=0)) / 2
    return indices, (xy / max(float(np.abs(xy).max()), 1e-12)).astype(np.float32)
