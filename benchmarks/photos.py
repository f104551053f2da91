"""Photographs to measure with."""

import os
import shutil
from pathlib import Path

import numpy as np

#: Sides and quality of the photographs that are made: those of a photo-sharing site.
HEIGHT, WIDTH, QUALITY = 375, 500, 90


def choose_photos(data_dir: Path, to: Path, n: int) -> Path:
    """Return a folder `CLASS/*` with `n` JPEGs of a data set, hard links or copies, as many of each class as can be.

    Raises:
        ValueError: there are fewer, or in fewer than two classes.
    """
    classes: dict[str, list[Path]] = {}
    for path in sorted(data_dir.rglob("*.jp*g")):
        classes.setdefault(path.parent.name, []).append(path)
    n_each = -(-n // max(1, len(classes)))
    chosen = [(name, path) for name, paths in classes.items() for path in paths[:n_each]][:n]
    if len(chosen) < n or len(classes) < 2:
        raise ValueError(f"{data_dir} has not {n} JPEGs in two or more classes.")
    for number, (name, path) in enumerate(chosen):
        target = to / name / f"{number:05d}-{path.name}"
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(path, target)
        except OSError:
            shutil.copy2(path, target)
    return to


def make_photos(to: Path, n: int) -> Path:
    """Return a folder `CLASS/*` with `n` JPEGs: crops of scikit-learn's two photographs, no two alike."""
    from PIL import Image
    from sklearn.datasets import load_sample_images

    photos = load_sample_images().images
    n_down, n_across = photos[0].shape[0] - HEIGHT + 1, photos[0].shape[1] - WIDTH + 1
    # Without replacement: featx computes the same image only once.
    places = np.random.default_rng(0).permutation(n_down * n_across)[: -(-n // 2)]
    for number in range(n):
        label = number % 2
        top, left = (int(start) for start in np.unravel_index(places[number // 2], (n_down, n_across)))
        path = to / ("china", "flower")[label] / f"{number:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photos[label][top : top + HEIGHT, left : left + WIDTH]).save(path, quality=QUALITY)
    return to
