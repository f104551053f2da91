"""What the cache commands say: for people, and as JSON."""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click

from featx.cli import options as opt
from featx.cli.options import say
from featx.compare import duration
from featx.errors import FeatxError, printable
from featx.extract import DEFAULT_CACHE_DIR, CacheCheck, CacheEntry, extract_command, size_bytes
from featx.recipe import Recipe
from featx.storage import StoragePath, local_dir
from featx.store import Compaction, Damage, StoreCheck
from featx.system import size, text_table

NAMES = click.argument("names", nargs=-1)


@click.group()
def cache() -> None:
    """List, check, tidy and remove what is cached.

    \b
    NAMES are names that `featx cache ls` shows, or how only one of them begins.

    \b
    Example:
      featx cache verify
    """


@cache.command()
@opt.CACHE_DIR
@opt.OUTPUT
def ls(cache_dir: StoragePath, quiet: bool, as_json: bool) -> None:
    """List what is in the cache: stores of features, converted networks, digests. With --quiet: names, one a line.

    \b
    Example:
      featx cache ls
    """
    from featx.extract import list_cache

    entries = list_cache(cache_dir)
    text = partial(names_text, entries) if quiet else partial(listing_text, entries, cache_dir)
    say(text, lambda: listing_json(entries), quiet=False, as_json=as_json)


@cache.command()
@NAMES
@opt.CACHE_DIR
@click.option("--mend", is_flag=True, help="Quarantine what is damaged, so that it is computed again.")
@opt.OUTPUT
def verify(names: tuple[str, ...], cache_dir: StoragePath, mend: bool, quiet: bool, as_json: bool) -> None:
    """Read everything, hold it against its checksums, and say what mending would cost; changes nothing by itself.

    Ends with 1 if something is damaged.

    \b
    Example:
      featx cache verify --mend
    """
    from featx.extract import check_cache

    check = check_cache(cache_dir, names, mend=mend, show=not quiet)
    say(lambda: check_text(check, cache_dir, mended=mend), lambda: check_json(check), quiet=quiet, as_json=as_json)
    if not check.is_sound:
        click.get_current_context().exit(1)


@cache.command()
@NAMES
@opt.CACHE_DIR
@opt.OUTPUT
def compact(names: tuple[str, ...], cache_dir: StoragePath, quiet: bool, as_json: bool) -> None:
    """Merge small segments into few; every row is on disk twice before its old segment is removed.

    \b
    Example:
      featx cache compact
    """
    from featx.extract import compact_cache

    done = compact_cache(cache_dir, names, show=not quiet)
    say(lambda: compaction_text(done), lambda: compaction_json(done), quiet=quiet, as_json=as_json)


#: What options were called before.
_FORMER_NAMES = {"set-aside": "quarantined"}


@cache.command(context_settings={"token_normalize_func": lambda name: _FORMER_NAMES.get(name, name)})
@NAMES
@opt.CACHE_DIR
@click.option("--quarantined", is_flag=True, help="Remove damaged files that were quarantined.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@opt.OUTPUT
def rm(
    names: tuple[str, ...], cache_dir: StoragePath, quarantined: bool, yes: bool, quiet: bool, as_json: bool
) -> None:
    """Remove something from the cache, after asking; ends with 1 if the answer is no.

    \b
    Example:
      featx cache rm vgg16-block5_pool-224x224
    """
    from featx.extract import removable, remove

    if not names and not quarantined:
        raise FeatxError("Name what is to be removed, as featx cache ls shows it, or give --quarantined.")
    paths = removable(cache_dir, names, quarantined=quarantined)
    if paths and not yes and not click.confirm(removal_question(paths), err=True):
        click.get_current_context().exit(1)
    remove(paths)
    say(lambda: removal_text(paths), lambda: removal_json(paths), quiet=quiet, as_json=as_json)


def listing_text(entries: Sequence[CacheEntry], cache_dir: StoragePath) -> str:
    """Return what is in a cache, a line for each entry."""
    if not entries:
        return f"{printable(cache_dir)} is empty."
    rows = [
        (
            f"  {printable(entry.name)}",
            f"{entry.store.n_images:,}" if entry.store else "",
            f"{len(entry.store.segments):,}" if entry.store else "",
            size(entry.size_bytes),
            _about(entry),
        )
        for entry in entries
    ]
    folders = dict.fromkeys((cache_dir, local_dir(cache_dir)))
    total = f"{size(sum(entry.size_bytes for entry in entries))} in {' and '.join(map(printable, folders))}."
    return f"{text_table(('', 'images', 'segments', 'size', 'what'), rows)}\n{total}"


def names_text(entries: Sequence[CacheEntry]) -> str:
    """Return the names of what is in a cache, one a line."""
    return "\n".join(printable(entry.name) for entry in entries)


def listing_json(entries: Sequence[CacheEntry]) -> list[dict[str, Any]]:
    """Return what is in a cache, as JSON knows it."""
    return [
        {
            "name": entry.name,
            "kind": entry.kind,
            "size_bytes": entry.size_bytes,
            "n_images": entry.store.n_images if entry.store else None,
            "n_segments": len(entry.store.segments) if entry.store else None,
            "n_set_aside": len(entry.store.quarantined) if entry.store else None,
            "recipe_key": entry.store.recipe.key if entry.store and entry.store.recipe else None,
        }
        for entry in entries
    ]


def check_text(check: CacheCheck, cache_dir: StoragePath, *, mended: bool) -> str:
    """Return what was found in the cache, and what mending costs or has left to do."""
    lines = [line for store in check.stores for line in _store_lines(store)]
    lines += [_damage_line(damage) for damage in check.damages]
    if check.is_sound:
        return "\n".join([*lines, "All of it is sound."])
    commands = [
        _extraction(store.recipe, store.dir.parent)
        for store in check.stores
        if store.recipe and _n_lost(store.damages) != 0
    ]
    return "\n".join([*lines, *_next(commands, cache_dir, mended=mended)])


def check_json(check: CacheCheck) -> dict[str, Any]:
    """Return what was found, as JSON knows it."""
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
    }


def compaction_text(done: Mapping[str, Compaction]) -> str:
    """Return what was merged, a line for each store."""
    lines = [
        f"{printable(name)}: {done.n_segments_before:,} segments, now {done.n_segments:,}; "
        f"{done.n_rows:,} images were written again."
        for name, done in done.items()
    ]
    return "\n".join(lines) or "There is no store."


def removal_question(paths: Sequence[StoragePath]) -> str:
    """Return the question whether `paths` are to be removed."""
    names = ", ".join(printable(path.name) for path in paths)
    return f"Remove {names} ({size(sum(map(size_bytes, paths)))})? What is removed has to be computed again"


def removal_text(paths: Sequence[StoragePath]) -> str:
    """Return what was removed."""
    return f"Removed: {', '.join(printable(path.name) for path in paths)}." if paths else "There is nothing to remove."


def removal_json(paths: Sequence[StoragePath]) -> dict[str, Any]:
    """Return what was removed, as JSON knows it."""
    return {"removed": [path.name for path in paths]}


def compaction_json(done: Mapping[str, Compaction]) -> dict[str, Any]:
    """Return what was merged, as JSON knows it."""
    return {
        name: {
            "n_segments_before": compaction.n_segments_before,
            "n_segments": compaction.n_segments,
            "n_rows": compaction.n_rows,
        }
        for name, compaction in done.items()
    }


def _about(entry: CacheEntry) -> str:
    if entry.store is None:
        return {"networks": "converted networks", "digests": "digests of image files"}.get(entry.kind, "")
    parts = [f"{entry.store.recipe.precision}, {entry.store.recipe.dtype}" if entry.store.recipe else "no known recipe"]
    if entry.store.quarantined:
        parts.append(f"{len(entry.store.quarantined)} damaged segments quarantined")
    return "; ".join(parts)


def _store_lines(store: StoreCheck) -> Iterable[str]:
    yield f"{printable(store.dir.name)}: {store.n_rows:,} images are sound."
    yield from map(_damage_line, store.damages)
    if _n_lost(store.damages) != 0:
        cost = "" if store.mending_s is None else f", about {duration(store.mending_s)} at the rate of the others"
        n_lost = _n_lost(store.damages)
        images = "An unknown number of images has" if n_lost is None else f"{n_lost:,} images have"
        yield f"  {images} to be computed again{cost}."


def _damage_line(damage: Damage) -> str:
    return f"  DAMAGED {printable(damage.path)}: {printable(damage.reason)}"


def _n_lost(damages: Iterable[Damage]) -> int | None:
    counts = [damage.n_images for damage in damages]
    return None if None in counts else sum(filter(None, counts))


def _next(commands: Sequence[str], cache_dir: StoragePath, *, mended: bool) -> Iterable[str]:
    if not mended:
        elsewhere = [] if cache_dir == Path(DEFAULT_CACHE_DIR) else ["--cache-dir", str(cache_dir)]
        command = shlex.join(["featx", "cache", "verify", "--mend", *elsewhere])
        yield f"Nothing was changed. To quarantine what is damaged: {printable(command)}"
    else:
        yield "What was damaged has been quarantined or removed."
    if commands:
        yield "Then compute what was lost:"
        yield from (f"  {command}" for command in commands)


def _extraction(recipe: Recipe, cache_dir: StoragePath) -> str:
    """Return the command that extracts such features; which weights those were, only a digest is known of."""
    names = ("backbone", "layer", "pooling", "image_size", "precision", "dtype")
    options = {name: getattr(recipe, name) for name in names}
    if recipe.has_random_weights:
        options["weights"] = recipe.weights.replace("-", ":")
    views = f" --views N {recipe.augmentation}" if recipe.augmentation else ""
    return extract_command("DATA", cache_dir, **options) + views


def _damage_json(damage: Damage) -> dict[str, Any]:
    return {"path": str(damage.path), "reason": damage.reason, "n_images": damage.n_images}
