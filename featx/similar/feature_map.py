"""A map of features: images that are alike lie close together."""

import warnings

import numpy as np
import numpy.typing as npt

#: t-SNE sees so many principal components, as van der Maaten and Hinton advise (Visualizing Data using t-SNE, 2008).
N_COMPONENTS = 50

#: The neighbours that a point keeps near, unless there are few points.
PERPLEXITY = 30.0


def feature_map(X: npt.NDArray[np.generic], seed: int) -> npt.NDArray[np.float32]:
    """Return a place `(n, 2)` float32 for each of the features `X (n, …)`: PCA to 50 dimensions, then t-SNE to 2.

    Coordinates are from 0 to 1. Only which points are close together has a meaning, not coordinates or large distances.
    With fewer than five different images, PCA alone.
    """
    rows = X.reshape(len(X), -1).astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of images that are all the same
        places = _places(rows, seed)
    low, high = places.min(axis=0), places.max(axis=0)
    unit: npt.NDArray[np.float32] = ((places - low) / np.where(high > low, high - low, 1)).astype(np.float32)
    return unit


def _places(rows: npt.NDArray[np.float32], seed: int) -> npt.NDArray[np.float32]:
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    n_components = min(N_COMPONENTS, *rows.shape)
    reduced = PCA(n_components, svd_solver="randomized", random_state=seed).fit_transform(rows)
    # scikit-learn's t-SNE ends the whole process where all points are one: it divides by their spread, and gets lost.
    if len(rows) < 5 or n_components < 2 or len(np.unique(reduced.round(5), axis=0)) < 5:
        return np.pad(reduced[:, :2], ((0, 0), (0, max(0, 2 - n_components))))
    perplexity = min(PERPLEXITY, (len(rows) - 1) / 3)
    places: npt.NDArray[np.float32] = TSNE(
        perplexity=perplexity, init="pca", random_state=seed, n_jobs=1
    ).fit_transform(reduced)
    return places
