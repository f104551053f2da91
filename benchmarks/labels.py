"""A table with several labels for each photograph: its class, and what its pixels say without any network.

    python benchmarks/labels.py DATA labels.csv
    featx train-top DATA --labels labels.csv --label-separator '|' --backbone vgg16 --image-size 150

A photograph is `dark` if its mean brightness is among the lowest third, `warm` if its mean red is above its mean blue
by more than in three photographs of four, and `detailed` if neighbouring pixels differ more than in two of three.
"""

import csv
from pathlib import Path

import click
import numpy as np
from PIL import Image

#: The label, and the share of the photographs that do not have it.
SHARES = {"dark": 2 / 3, "warm": 3 / 4, "detailed": 2 / 3}


def measures(path: Path) -> tuple[float, float, float]:
    """Return how dark, warm and detailed a photograph is."""
    pixels = np.asarray(Image.open(path).convert("RGB").resize((64, 64)), np.float32)
    gray = pixels.mean(axis=2)
    edges = np.abs(np.diff(gray, axis=0)).mean() + np.abs(np.diff(gray, axis=1)).mean()
    return -float(gray.mean()), float(pixels[..., 0].mean() - pixels[..., 2].mean()), float(edges)


@click.command()
@click.argument("data", type=click.Path(path_type=Path, exists=True))
@click.argument("table", type=click.Path(path_type=Path))
def main(data: Path, table: Path) -> None:
    """Write the TABLE of the photographs in DATA, which are in train/CLASS/ and test/CLASS/."""
    paths = sorted(path for split in ("train", "test") for path in (data / split).rglob("*.jp*g"))
    found = np.array([measures(path) for path in paths])
    is_train = np.array([path.relative_to(data).parts[0] == "train" for path in paths])
    limits = [np.quantile(found[is_train, i], share) for i, share in enumerate(SHARES.values())]
    with table.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("path", "label", "split"))
        for path, values in zip(paths, found, strict=True):
            more = [name for name, value, limit in zip(SHARES, values, limits, strict=True) if value > limit]
            relative = path.relative_to(data)
            rows.writerow((relative.as_posix(), "|".join([path.parent.name, *more]), relative.parts[0]))


if __name__ == "__main__":
    main()
