"""How many planted problems `featx clean` finds, and how much of what it finds was planted.

    python benchmarks/clean.py data/ --weights weights/vgg16_notop.h5 --image-size 150

Takes photographs of DATA under names that do not tell their class, and looks for problems. Then moves 2 % of them to
another class, adds copies of 50, half of them saved again with a quality of 60 and half cropped by a twentieth of
width and height, and looks again. What it finds both times was there before: the data set has real wrong labels and
real near-copies, which count as mistakes of the list here. The last column says how many of the mistakes these are.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from featx.clean import Problems, find_problems
from featx.dataset import scan
from featx.recipe import as_image_size


def link_photos(data: Path, to: Path, n_images: int | None, cache_dir: Path, rng: np.random.Generator) -> list[Path]:
    """Make links to photographs, `SPLIT/CLASS/NUMBER.jpg`, and return them in random order."""
    dataset = scan(data, cache_dir, test_fraction=0.0, to_train=False)
    links = []
    for number, row in enumerate(rng.permutation(dataset.n_images)[:n_images].tolist()):
        split = "test" if dataset.is_test[row] else "train"
        link = to / split / dataset.label_texts[row] / f"{number:05d}{Path(dataset.paths[row]).suffix}"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to((data / dataset.paths[row]).resolve())
        links.append(link)
    return links


def plant_flips(links: list[Path]) -> set[str]:
    """Move photographs to the next class, and return their new names."""
    classes = sorted({link.parent.name for link in links} | {path.name for path in links[0].parents[1].iterdir()})
    for link in links:
        other = classes[(classes.index(link.parent.name) + 1) % len(classes)]
        link.rename(link.parents[1] / other / link.name)
    return {link.name for link in links}


def plant_copies(links: list[Path]) -> set[str]:
    """Save changed copies beside photographs, and return the pairs, as `found` names them."""
    for number, link in enumerate(links):
        image = Image.open(link).convert("RGB")
        box = (image.width // 20, 0, image.width, image.height - image.height // 20)
        changed, quality = (image, 60) if number % 2 else (image.crop(box), 90)
        changed.save(link.with_name(f"{link.stem}-copy.jpg"), quality=quality)
    return {f"{link.stem} {link.stem}-copy" for link in links}


def found(problems: Problems, kind: str) -> list[str]:
    """Return what has a problem of a kind, the most certain first: the name of a file, or the stems of a pair."""
    pairs = [sorted(Path(path).stem for path in (one.path, one.other_path)) for one in problems if one.kind == kind]
    names = [Path(one.path).name for one in problems if one.kind == kind]
    return [" ".join(pair) for pair in pairs] if kind == "near-copy" else names


def row(name: str, listed: list[str], planted: set[str], before: set[str]) -> str:
    """Return a line of the table."""
    n_right = len(planted & set(listed))
    others = [one for one in listed if one not in planted]
    cells = (name, len(listed), f"{n_right / max(1, len(listed)):.3f}", f"{n_right / len(planted):.3f}", len(others))
    return " | ".join(map(str, (*cells, sum(one in before for one in others))))


def main() -> None:
    """Parse, plant, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--backbone", default="vgg16")
    parser.add_argument("--weights", default="imagenet")
    parser.add_argument("--image-size", type=as_image_size, default=(150, 150))
    parser.add_argument("--images", type=int, help="photographs; all if left out")
    parser.add_argument("--flips", type=float, default=0.02, help="share of photographs that get another class")
    parser.add_argument("--copies", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache-dir", type=Path, default=Path("cache"))
    args = parser.parse_args()
    options: dict[str, Any] = {name: getattr(args, name) for name in ("backbone", "weights", "image_size", "cache_dir")}
    rng = np.random.default_rng(args.seed)
    with tempfile.TemporaryDirectory() as folder:
        links = link_photos(args.data, Path(folder), args.images, args.cache_dir, rng)
        before = find_problems(folder, show=True, **options)
        n_flips = round(args.flips * len(links))
        flipped, copied = plant_flips(links[:n_flips]), plant_copies(links[n_flips : n_flips + args.copies])
        after = find_problems(folder, show=True, **options)
    print(f"{len(links):,} photographs; before anything was planted: {before.counts}")
    print("list | length | precision | recall | others | of these found before")
    labels, old = found(after, "label"), set(found(before, "label"))
    print(row("doubtful labels", labels, flipped, old))
    print(row(f"the first {n_flips}", labels[:n_flips], flipped, old))
    changed = [Path(one.path).name for one in after if one.kind == "label" and one.suggestion != "look at"]
    print(row("suggested to be moved", changed, flipped, old))
    print(row("near-copies", found(after, "near-copy"), copied, set(found(before, "near-copy"))))
    print("first of the others:", ", ".join(one for one in labels if one not in flipped)[:200])


if __name__ == "__main__":
    main()
