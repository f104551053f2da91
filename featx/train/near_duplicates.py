"""Finds images that show the same photograph in other bytes: re-encoded, resized, brighter, cropped, mirrored.

Features find the candidates, and pixels decide. The pooled features of copies are similar, even if one is mirrored or
cropped. But so are those of some different photographs, and of many if the backbone was trained on other data. The
details of two small gray pictures, laid over each other, agree for copies only.
"""

import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from featx.dataset import ImageDataset, read_batches
from featx.errors import ImageError
from featx.images import image_shape, read_file
from featx.storage import is_distant
from featx.store import Rows
from featx.system import progress_bar
from featx.text import printable

log = logging.getLogger("featx")

#: Candidates are the nearest images of an image, as many in each split, whose features have at least this cosine.
N_NEIGHBOURS, CANDIDATE = 5, 0.6

#: Details are compared only of pairs whose pictures of 8×8 pixels correlate at least this much; copies have 0.8.
ALIKE, _COARSE_SIDE = 0.6, 8

#: Two images show the same photograph if their details correlate at least this much. Of 100 copies of each kind among
#: 2,000 photographs of cats and dogs, 99 to 100 are above, and no other pair is above 0.8.
SAME = 0.9

#: Candidates are not looked for where that takes more multiplications and additions: about ten minutes.
MAX_OPERATIONS = 2e14

#: Before a training, they are looked for across the splits only, and of no more test images: a warning needs no count.
N_LOOKED = 2000

#: Bytes of float32 features that are held at a time, on each side.
_BLOCK_BYTES = 64 << 20

#: Random pairs of a class tell how alike its images are; of fewer images, they would tell little.
_N_RANDOM, _N_TO_JUDGE = 256, 20

#: Images are read at this size, and compared at this one.
_READ_SIDE, _SIDE = 64, 32

#: Widths of the windows that one image may be a crop of the other by, as parts of its whole width.
_WINDOWS = (1.0, 0.975, 0.95, 0.925, 0.9)

#: Details are what is left without the blur of this standard deviation, in pixels of the small picture.
_BLUR = 2.0

#: Pairs whose windows are held at a time: 40 MB of pixels each side.
_N_PAIRS = 256


@dataclass(frozen=True)
class Copies:
    """Pairs of images that show the same photograph, the most certain first.

    Attributes:
        rows: `(n, 2)` int64, rows of the data set, the lower one first.
        correlation: `(n,)` float32, of the details of the two, at most 1.
    """

    rows: npt.NDArray[np.int64]
    correlation: npt.NDArray[np.float32]


def crossing_copies(dataset: ImageDataset, X: Rows, *, show: bool = False) -> str:
    """Return a warning if test images show what training images show, see `crossing_warning`; empty if none does.

    It looks at `N_LOOKED` test images at most, which takes a second or two for 10,000 images on this machine, and not
    at all, with a message, if that could take long: features are on disk, or images elsewhere.

    Args:
        dataset: the images.
        X: `(n, …)`, the features of all of them.
        show: whether to show how far it is, on stderr.
    """
    if not isinstance(X, np.ndarray) or is_distant(dataset.root):
        where = "the images are not on this machine" if is_distant(dataset.root) else "the features are on disk"
        log.info("Not looking for near-duplicates of training images in the test split, because %s.", where)
        return ""
    test = np.flatnonzero(dataset.is_test)
    by_digest = np.argsort(dataset.digests[test].view("S32")[:, 0], kind="stable")
    tested = np.sort(test[by_digest[:N_LOOKED]])
    pairs = _candidates(pooled(X), [(tested, np.flatnonzero(~dataset.is_test))])
    copies = _confirmed(dataset, pairs, show=show)
    return "" if copies is None else crossing_warning(dataset, copies, len(tested))


def crossing_warning(dataset: ImageDataset, copies: Copies, n_looked: int) -> str:
    """Return how many test images, of so many, show the same photograph as a training image, and what to do.

    Copies byte for byte do not count: `scan` names them. Empty if there is none.
    """
    is_test = dataset.is_test[copies.rows]
    is_other = (dataset.digests[copies.rows[:, 0]] != dataset.digests[copies.rows[:, 1]]).any(axis=1)
    crossing = (is_test[:, 0] != is_test[:, 1]) & is_other
    if not crossing.any():
        return ""
    pairs = np.where(is_test[crossing, :1], copies.rows[crossing], copies.rows[crossing, ::-1])
    test, train = (printable(dataset.paths[row]) for row in pairs[0])
    n = len(np.unique(pairs[:, 0]))
    return (
        f"Test images that show the same photograph as a training image, so results look better than they are: {n:,} "
        f"of {n_looked:,}, such as {test}, like {train}. Keep such images together: name their groups in a table "
        f"(--group-column), or cross-validate (--folds 5)."
    )


def find_copies(dataset: ImageDataset, X: Rows, *, show: bool = False) -> Copies | None:
    """Return the pairs of images that show the same photograph; None, with a message, if the search is skipped.

    It is skipped if it would take more than about ten minutes, or if most images have fewer than 32 pixels on a side,
    and so too little detail.

    It finds copies that are cropped by up to a tenth of their width and height, mirrored, resized, re-encoded, brighter
    or darker. Images without details, such as of one colour, are not copies of each other.

    Args:
        dataset: the images.
        X: `(n, …)`, the features of all of them; positions are averaged if there are any.
        show: whether to show how far it is, on stderr.
    """
    if 2.0 * dataset.n_images**2 * X.shape[-1] > MAX_OPERATIONS:
        log.info("Skipping the search for near-duplicates: with so many images, it would take too long.")
        return None
    everything = np.arange(dataset.n_images)
    splits = [np.flatnonzero(~dataset.is_test), np.flatnonzero(dataset.is_test)]
    pairs = _candidates(pooled(X), [(everything, split) for split in splits])
    return _confirmed(dataset, pairs, show=show)


def _confirmed(dataset: ImageDataset, pairs: npt.NDArray[np.int64], *, show: bool) -> Copies | None:
    """Return those of `pairs`, `(n, 2)` rows, whose pixels say the same; None if the images have too few."""
    rows = np.unique(pairs)
    if len(rows) and _typical_side(dataset, rows) < _SIDE:
        log.info("Skipping the search for near-duplicates: images below %d pixels have too little detail.", _SIDE)
        return None
    images = np.zeros((len(rows), _READ_SIDE, _READ_SIDE), np.uint8)
    sources = [dataset.root / dataset.paths[row] for row in rows]
    batches = read_batches(sources, dataset.digests[rows], (_READ_SIDE, _READ_SIDE), _N_PAIRS)
    with progress_bar(len(rows), "near-duplicates", "images", show=show) as bar:
        for batch in batches:  # what can no longer be read stays black, and is nothing's copy
            images[batch.rows] = batch.images.mean(axis=3)
            bar.update(len(batch.rows))
    places = np.searchsorted(rows, pairs)
    alike = _look_alike(images, places)
    pairs, places = pairs[alike], places[alike]
    correlation = _correlations(images, places)
    same = correlation >= SAME
    pairs, correlation = pairs[same], correlation[same]
    strata = dataset.strata
    limits = {label: _limit(images, strata[rows] == label) for label in np.unique(strata[pairs])}
    least = [max(limits[label] for label in strata[pair]) for pair in pairs]
    order = np.argsort(-correlation, kind="stable")
    order = order[correlation[order] >= np.array(least)[order]]
    return Copies(pairs[order], correlation[order])


def pooled(X: Rows) -> npt.NDArray[np.float16]:
    """Return one row of length 1 for each of the features `X (n, …, c)`: `(n, c)` float16.

    Averaged over positions, so that a mirrored image has the features of the image. Square roots, so that the cosine is
    Hellinger's, in which a few strong channels do not outweigh all others (Arandjelović and Zisserman, Three things
    everyone should know to improve object retrieval, 2012). Centred, because features are never negative: uncentred,
    any two images have a cosine far above zero.
    """
    n_channels = X.shape[-1]
    roots = np.empty((len(X), n_channels), np.float32)
    step = max(1, _BLOCK_BYTES // (4 * int(np.prod(X.shape[1:]))))
    for start in range(0, len(X), step):
        rows = np.asarray(X[start : start + step], np.float32)
        mean = rows.reshape(len(rows), -1, n_channels).mean(axis=1)
        roots[start : start + step] = np.sign(mean) * np.sqrt(np.abs(mean))
    roots -= roots.mean(axis=0)
    lengths = np.linalg.norm(roots, axis=1, keepdims=True)
    unit: npt.NDArray[np.float16] = (roots / np.where(lengths > 1e-6, lengths, np.inf)).astype(np.float16)
    return unit


def _candidates(unit: npt.NDArray[np.float16], sides: Sequence[tuple[np.ndarray, np.ndarray]]) -> npt.NDArray[np.int64]:
    """Return pairs of rows `(n, 2)` that may be copies, the lower row first, each once.

    Args:
        unit: `(n, c)`, see `pooled`.
        sides: rows, and those among which their neighbours are looked for. An image's are looked for in each split, so
            that ten copies in its own do not hide one in the other.
    """
    step = max(1, _BLOCK_BYTES // (4 * unit.shape[1]))
    found = [np.empty((0, 2), np.int64)]
    for rows, others in sides:
        for start in range(0, len(rows), step):
            own = rows[start : start + step]
            nearest, cosine = _nearest(unit[own].astype(np.float32), own, unit, others, step)
            which, place = np.nonzero(cosine >= CANDIDATE)
            found.append(np.sort(np.column_stack([own[which], nearest[which, place]]), axis=1))
    return np.unique(np.concatenate(found), axis=0)


def _nearest(
    block: np.ndarray, own: np.ndarray, unit: npt.NDArray[np.float16], others: np.ndarray, step: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows among `others` nearest to each row of `block`, its `own` row left out, and their cosines.

    Both are `(n, N_NEIGHBOURS)`; where fewer are candidates, the cosine of others may be -1.
    """
    rows = np.zeros((len(block), N_NEIGHBOURS), np.int64)
    cosine = np.full((len(block), N_NEIGHBOURS), -1, np.float32)
    for start in range(0, len(others), step):
        these = others[start : start + step]
        similar = block @ unit[these].astype(np.float32).T
        similar[own[:, None] == these] = -1
        near = np.flatnonzero(similar.max(axis=1) >= CANDIDATE)  # few have any, and to choose among all takes longest
        of_near = np.column_stack([cosine[near], similar[near]])
        best = np.argpartition(-of_near, N_NEIGHBOURS - 1, axis=1)[:, :N_NEIGHBOURS]
        names = np.column_stack([rows[near], np.broadcast_to(these, (len(near), len(these)))])
        rows[near] = np.take_along_axis(names, best, axis=1)
        cosine[near] = np.take_along_axis(of_near, best, axis=1)
    return rows, cosine


def _typical_side(dataset: ImageDataset, rows: np.ndarray) -> float:
    """Return the median of the shorter sides, in pixels, of some of the images; 0 if none can be read."""
    sides = [0]
    for row in rows[:: max(1, len(rows) // _N_TO_JUDGE)]:
        with suppress(ImageError):
            sides.append(min(image_shape(read_file(dataset.root / dataset.paths[row]))))
    return float(np.median(sides[1:] or sides))


def _limit(images: npt.NDArray[np.uint8], is_in_class: np.ndarray) -> float:
    """Return the correlation from which on two images of a class are copies: SAME, or more.

    Different images of a class can be as alike as copies, as handwritten ones are. By Fisher's transformation, the
    inverse hyperbolic tangent of correlations is nearly normal (On the "probable error" of a coefficient of
    correlation, 1921). So random pairs of the class tell what fewer than one of all its pairs reaches.
    """
    of_class = np.flatnonzero(is_in_class)
    if len(of_class) < _N_TO_JUDGE:
        return SAME
    pairs = np.column_stack([of_class, np.random.default_rng(0).permutation(of_class)])[:_N_RANDOM]
    z = np.arctanh(np.clip(_correlations(images, pairs[pairs[:, 0] != pairs[:, 1]]), -0.999, 0.999))
    rarest = NormalDist(float(z.mean()), float(z.std())).inv_cdf(1 - 2 / len(of_class) ** 2)
    return max(SAME, float(np.tanh(rarest)))


def _correlations(images: npt.NDArray[np.uint8], pairs: np.ndarray) -> npt.NDArray[np.float32]:
    """Return `_correlation` of any number of pairs.

    On one thread: the matrices are so small that NumPy's other threads would only wait for each other.
    """
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # it has no stubs

    with threadpool_limits(1):
        parts = [_correlation(images, pairs[i : i + _N_PAIRS]) for i in range(0, len(pairs), _N_PAIRS)]
    return np.concatenate([np.empty(0, np.float32), *parts])


def _look_alike(images: npt.NDArray[np.uint8], pairs: np.ndarray) -> npt.NDArray[np.bool_]:
    """Return which of `pairs (n, 2)` look alike from far away, as they are or mirrored."""
    cell = _READ_SIDE // _COARSE_SIDE
    coarse = images.reshape(-1, _COARSE_SIDE, cell, _COARSE_SIDE, cell).mean(axis=(2, 4), dtype=np.float32)
    coarse -= coarse.mean(axis=(1, 2), keepdims=True)
    coarse /= np.maximum(np.linalg.norm(coarse, axis=(1, 2), keepdims=True), 1e-6)
    one, other = coarse[pairs[:, 0]], coarse[pairs[:, 1]]
    correlation = np.maximum((one * other).sum(axis=(1, 2)), (one * other[:, :, ::-1]).sum(axis=(1, 2)))
    alike: npt.NDArray[np.bool_] = correlation >= ALIKE
    return alike


def _correlation(images: npt.NDArray[np.uint8], pairs: np.ndarray) -> npt.NDArray[np.float32]:
    """Return how much the details of each of `pairs (n, 2)` correlate at best, `(n,)`.

    Each image's windows are laid over the whole of the other, and over that mirrored.
    """
    one, other = (_details(images[pairs[:, side]].astype(np.float32)) for side in (0, 1))
    return np.maximum(_best(one, other[:, :1]), _best(other, one[:, :1]))


def _best(windows: npt.NDArray[np.float32], whole: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return `(n,)`: how much the best of `windows` correlates with `whole (n, 1, 32, 32)` or its mirror image."""
    n = len(windows)
    both = np.concatenate([whole, whole[..., ::-1]], axis=1).reshape(n, 2, -1)
    best: npt.NDArray[np.float32] = (windows.reshape(n, -1, _SIDE**2) @ both.transpose(0, 2, 1)).max(axis=(1, 2))
    return best


def _details(images: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the details of all windows of `images (n, 64, 64)`: `(n, n_windows, 32, 32)`, each of length 1 or 0.

    The first window is the whole image. Details are what is left when a window's blurred copy is taken away.
    """
    n = len(images)
    parts = []
    for cuts, blurred in _cuts():
        details = cuts @ images @ cuts.T - blurred @ images @ blurred.T
        across = len(cuts) // _SIDE
        details = details.reshape(n, across, _SIDE, across, _SIDE).transpose(0, 1, 3, 2, 4)
        parts.append(details.reshape(n, across**2, _SIDE, _SIDE))
    windows: npt.NDArray[np.float32] = np.concatenate(parts, axis=1)
    windows -= windows.mean(axis=(2, 3), keepdims=True)
    lengths = np.linalg.norm(windows, axis=(2, 3), keepdims=True)
    windows /= np.where(lengths > _SIDE, lengths, np.inf)  # details of less than a grey level are noise
    return windows


@cache
def _cuts() -> list[tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]]:
    """Return, for each width of window, what cuts its windows out of a column of pixels, and what blurs them as well.

    Both are `(32 * n, 64)`: at the beginning, in the middle and at the end of the column if the width is less than all.
    """
    from scipy.ndimage import gaussian_filter1d

    blur: npt.NDArray[np.float32] = gaussian_filter1d(np.eye(_SIDE, dtype=np.float32), _BLUR, axis=0)
    pairs = []
    for width in _WINDOWS:
        starts = (0.0, (1 - width) / 2, 1 - width) if width < 1 else (0.0,)
        cuts = [_cut(start, width) for start in starts]
        pairs.append((np.concatenate(cuts), np.concatenate([blur @ cut for cut in cuts])))
    return pairs


def _cut(start: float, width: float) -> npt.NDArray[np.float32]:
    """Return the matrix `(32, 64)` that resizes the part from `start` of a row of pixels, bilinearly."""
    from PIL import Image

    box = (0, start * _READ_SIDE, _READ_SIDE, (start + width) * _READ_SIDE)
    unit = Image.fromarray(np.eye(_READ_SIDE, dtype=np.float32))
    return np.asarray(unit.resize((_READ_SIDE, _SIDE), Image.Resampling.BILINEAR, box))
