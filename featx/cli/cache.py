"""`featx cache`: lists, checks, compacts, removes and exports what is in the cache."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from featx.cli import options as opt
from featx.cli.terminal import ask
from featx.dataset import RECORD_NAME, ImageFolders
from featx.errors import FeatxError
from featx.extract import (
    DEFAULT_CACHE_DIR,
    CacheCheck,
    CacheEntry,
    check_cache,
    compact_cache,
    extract_command,
    list_cache,
    removable,
    remove,
    size_bytes,
)
from featx.storage import StoragePath, is_held, local_dir
from featx.store import Compaction, Damage, StoreCheck
from featx.system import duration, shell_line, size, text_table
from featx.text import Shown, shown_text

if TYPE_CHECKING:
    from featx.export import FeatureExport

NAMES = click.argument("names", nargs=-1)


@click.group()
def cache() -> None:
    """List, check, compact, remove and export what is in the cache.

    \b
    NAMES are names that `featx cache ls` shows, or the beginning of one of them.

    \b
    Example:
      featx cache verify
    """


@cache.command()
@opt.CACHE_DIR
@opt.OUTPUT
def ls(cache_dir: StoragePath, output: opt.Output) -> None:
    """List what is in the cache: stores of features, networks, digests, test splits. With --quiet, print only names.

    \b
    Example:
      featx cache ls
    """
    to_text = partial(_listing_text, cache_dir=cache_dir) if output.show else _names_text
    replace(output, show=True).say(list_cache(cache_dir), to_text, _listing_json)


@cache.command()
@NAMES
@opt.CACHE_DIR
@click.option("--mend", is_flag=True, help="Quarantine damaged files, so that featx computes their content again.")
@opt.OUTPUT
def verify(names: tuple[str, ...], cache_dir: StoragePath, mend: bool, output: opt.Output) -> None:
    """Read everything, compare it with its checksums, and say what is damaged. Without --mend, change nothing.

    Exits with 1 if something is damaged, and with 2 if something cannot be checked. featx checks the rest all the same.

    \b
    Example:
      featx cache verify --mend
    """
    check = check_cache(cache_dir, names, mend=mend, show=output.show)
    output.say(check, partial(check_text, cache_dir=cache_dir, mended=mend), _check_json)
    if check.problems:
        raise FeatxError(" ".join(check.problems))
    if not check.is_sound:
        click.get_current_context().exit(1)


@cache.command()
@NAMES
@opt.CACHE_DIR
@opt.OUTPUT
def compact(names: tuple[str, ...], cache_dir: StoragePath, output: opt.Output) -> None:
    """Merge small segments into large ones. Every row is on disk twice before its old segment is removed.

    \b
    Example:
      featx cache compact
    """
    output.say(compact_cache(cache_dir, names, show=output.show), _compaction_text, _compaction_json)


@cache.command(context_settings=opt.TAKES_FORMER_NAMES)
@NAMES
@opt.CACHE_DIR
@click.option("--quarantined", is_flag=True, help="Remove damaged files that were quarantined.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@opt.OUTPUT
def rm(names: tuple[str, ...], cache_dir: StoragePath, quarantined: bool, yes: bool, output: opt.Output) -> None:
    """Ask, then remove something from the cache. Exits with 1 if you answer no.

    \b
    Example:
      featx cache rm vgg16-block5_pool-224x224
    """
    if not names and not quarantined:
        raise FeatxError("Name what to remove, as featx cache ls shows it, or give --quarantined.")
    paths = removable(cache_dir, names, quarantined=quarantined)
    if paths and not yes and not ask(_removal_question(paths)):
        click.get_current_context().exit(1)
    remove(paths)
    output.say([path.name for path in paths], _removal_text, lambda names: {"removed": names})


@cache.command("export")
@opt.DATA
@click.option(
    "--to",
    type=opt.LocalPath(path_type=Path),
    required=True,
    help="File to write; must not exist. Its suffix is the format: .parquet, .npz, .csv, or .npy and .csv.",
)
@click.option("--projection", is_flag=True, help="Add a map: columns projection_x and projection_y, from 0 to 1.")
@opt.BACKBONE
@opt.RECIPE
@opt.CACHE_DIR
@opt.OUTPUT
def export_features(data: ImageFolders, to: Path, output: opt.Output, *, projection: bool, **options: Any) -> None:
    """Write the features of DATA with paths, labels and splits into a file for other tools.

    \b
    Example:
      featx cache export data/ --image-size 150 --to features.parquet
      featx cache export data/ --image-size 150 --to features.parquet --projection
    """
    from featx.export import export_features as export

    output.say(export(data, to, projection=projection, show=output.show, **options), _export_text, _export_json)


def _export_text(done: "FeatureExport") -> Shown:
    shape = "×".join(map(str, done.feature_shape))
    files = " and ".join(map(str, done.paths))
    what = f"{done.recipe.backbone} features of {done.n_images:,} images, {shape} each"
    return shown_text([f"{files}: {what}, {size(done.size_bytes)}, in {duration(done.elapsed_s)}."])


def _export_json(done: "FeatureExport") -> dict[str, Any]:
    return {
        "paths": list(map(str, done.paths)),
        "recipe_key": done.recipe.key,
        "n_images": done.n_images,
        "feature_shape": done.feature_shape,
        "size_bytes": done.size_bytes,
        "elapsed_s": done.elapsed_s,
    }


def _listing_text(entries: Sequence[CacheEntry], cache_dir: StoragePath) -> Shown:
    if not entries:
        return shown_text([f"{cache_dir} is empty."])
    rows = [
        (
            f"  {entry.name}",
            f"{entry.store.n_images:,}" if entry.store else "",
            f"{len(entry.store.segments):,}" if entry.store else "",
            size(entry.size_bytes),
            _about(entry),
        )
        for entry in entries
    ]
    folders = dict.fromkeys((cache_dir, local_dir(cache_dir)))
    total = f"{size(sum(entry.size_bytes for entry in entries))} in {' and '.join(map(str, folders))}."
    return shown_text([text_table(("", "images", "segments", "size", "what"), rows), total])


def _about(entry: CacheEntry) -> str:
    if entry.problem:
        return entry.problem
    if entry.store is None:
        return {
            "networks": "converted networks",
            "digests": "digests of image files",
            "splits": "test images that featx has chosen",
            "data": "images of featx's own",
            "quarantined": "damaged, quarantined",
            "unfinished": "another featx command is using it"
            if is_held(entry.path)
            else "left by a featx command that was killed",
        }.get(entry.kind, "not featx's")
    recipe = entry.store.recipe
    if recipe is None:
        parts = ["no known recipe"]
    else:
        parts = ["decoded images" if recipe.is_of_pixels else f"{recipe.precision}, {recipe.dtype}"]
    if entry.store.quarantined:
        parts.append(f"{len(entry.store.quarantined)} damaged segments quarantined")
    if entry.unfinished_bytes:
        parts.append(f"{size(entry.unfinished_bytes)} unfinished")
    return "; ".join(parts)


def _names_text(entries: Sequence[CacheEntry]) -> Shown:
    return shown_text(entry.name for entry in entries)


def _listing_json(entries: Sequence[CacheEntry]) -> list[dict[str, Any]]:
    return [
        {
            "name": entry.name,
            "kind": entry.kind,
            "size_bytes": entry.size_bytes,
            "unfinished_bytes": entry.unfinished_bytes,
            "n_images": entry.store.n_images if entry.store else None,
            "n_segments": len(entry.store.segments) if entry.store else None,
            "n_set_aside": len(entry.store.quarantined) if entry.store else None,
            "recipe_key": entry.store.recipe.key if entry.store and entry.store.recipe else None,
            "problem": entry.problem or None,
        }
        for entry in entries
    ]


def check_text(check: CacheCheck, cache_dir: StoragePath, *, mended: bool) -> Shown:
    """Return what was found in the cache, and what mending costs or has left to do."""
    lines = [line for store in check.stores for line in _store_lines(store)]
    lines += [_damage_line(damage) for damage in check.damages]
    if check.is_sound:
        return shown_text([*lines, *([] if check.problems else ["No damage found."])])
    if mended:
        lines.append("The damaged files were quarantined or removed.")
    else:
        elsewhere = [] if cache_dir == Path(DEFAULT_CACHE_DIR) else ["--cache-dir", str(cache_dir)]
        command = shell_line(["featx", "cache", "verify", "--mend", *elsewhere])
        lines.append(f"Nothing was changed. To quarantine the damaged files: {command}")
    lost = [store for store in check.stores if store.recipe and not store.recipe.is_of_pixels and _n_lost(store) != 0]
    if lost:
        lines += ["Then compute the lost features again:", *(f"  {_extraction(store)}" for store in lost)]
    return shown_text(lines)


def _store_lines(store: StoreCheck) -> Iterator[str]:
    yield f"{store.dir.name}: {store.n_rows:,} images, no damage."
    yield from map(_damage_line, store.damages)
    n_lost = _n_lost(store)
    if n_lost != 0 and store.recipe and store.recipe.is_of_pixels:
        yield "  These images are decoded again when they are needed."
    elif n_lost != 0:
        cost = "" if store.mending_s is None else f", about {duration(store.mending_s)} at the rate of the others"
        images = "An unknown number of images" if n_lost is None else f"{n_lost:,} images"
        yield f"  {images} must be computed again{cost}."


def _damage_line(damage: Damage) -> str:
    return f"  DAMAGED {damage.path}: {damage.reason}"


def _n_lost(store: StoreCheck) -> int | None:
    """Return how many images of a store are lost; None if that is unknown."""
    counts = [damage.n_images for damage in store.damages]
    return None if None in counts else sum(filter(None, counts))


def _extraction(store: StoreCheck) -> str:
    """Return the command that computes a store's features; of their weights, only a digest is known."""
    recipe = store.recipe
    assert recipe
    names = ("backbone", "layer", "pooling", "image_size", "precision", "dtype")
    options = {name: getattr(recipe, name) for name in names}
    options["resize"] = recipe.aspect_ratio
    if recipe.has_random_weights:
        options["weights"] = recipe.weights.replace("-", ":")
    views = f" --views N {recipe.augmentation}" if recipe.augmentation else ""
    return extract_command("DATA", store.dir.parent, **options) + views


def _check_json(check: CacheCheck) -> dict[str, Any]:
    return {
        "sound": check.is_sound,
        "stores": [
            {
                "name": store.dir.name,
                "n_images": store.n_rows,
                "mending_s": store.mending_s,
                "damages": list(map(_damage_json, store.damages)),
            }
            for store in check.stores
        ],
        "damages": list(map(_damage_json, check.damages)),
        "problems": list(check.problems),
    }


def _damage_json(damage: Damage) -> dict[str, Any]:
    return {"path": str(damage.path), "reason": damage.reason, "n_images": damage.n_images}


def _compaction_text(done: Mapping[str, Compaction]) -> Shown:
    lines = [
        f"{name}: {compaction.n_segments_before:,} segments, now {compaction.n_segments:,}; "
        f"{compaction.n_rows:,} images were written again."
        for name, compaction in done.items()
    ]
    return shown_text(lines or ["There are no stores to compact."])


def _compaction_json(done: Mapping[str, Compaction]) -> dict[str, Any]:
    return {name: asdict(compaction) for name, compaction in done.items()}


def _removal_question(paths: Sequence[StoragePath]) -> str:
    names = ", ".join(path.name for path in paths)
    loss = "If you need it later, featx computes it again"
    if any(RECORD_NAME.fullmatch(path.name) for path in paths):
        loss = "featx may then choose other test images than in earlier runs. Go on"
    return f"Remove {names} ({size(sum(map(size_bytes, paths)))})? {loss}"


def _removal_text(names: Sequence[str]) -> Shown:
    return shown_text([f"Removed: {', '.join(names)}." if names else "Nothing to remove."])
