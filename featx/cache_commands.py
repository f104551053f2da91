"""`featx cache`: what lies in the cache, is it sound, tidy it."""

import json
from pathlib import Path

import click

from featx import options as opt
from featx.errors import FeatxError, printable

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
@opt.AS_JSON
def ls(cache_dir: Path, as_json: bool) -> None:
    """List what is in the cache: stores of features, converted networks, digests.

    \b
    Example:
      featx cache ls
    """
    from featx.cache import list_cache
    from featx.cache_summaries import listing_json, listing_text

    entries = list_cache(cache_dir)
    click.echo(json.dumps(listing_json(entries), indent=2) if as_json else listing_text(entries, cache_dir))


@cache.command()
@NAMES
@opt.CACHE_DIR
@click.option("--mend", is_flag=True, help="Set aside what is damaged, so that it is computed again.")
@opt.OUTPUT
def verify(names: tuple[str, ...], cache_dir: Path, mend: bool, quiet: bool, as_json: bool) -> None:
    """Read everything, hold it against its checksums, and say what mending would cost; changes nothing by itself.

    Ends with 1 if something is damaged.

    \b
    Example:
      featx cache verify --mend
    """
    from featx.cache import check_cache
    from featx.cache_summaries import check_json, check_text

    check = check_cache(cache_dir, names, mend=mend, show=not quiet)
    if as_json or not quiet:
        click.echo(json.dumps(check_json(check), indent=2) if as_json else check_text(check, mended=mend))
    if not check.is_sound:
        click.get_current_context().exit(1)


@cache.command()
@NAMES
@opt.CACHE_DIR
@opt.OUTPUT
def compact(names: tuple[str, ...], cache_dir: Path, quiet: bool, as_json: bool) -> None:
    """Merge small segments into few; every row is on disk twice before its old segment is removed.

    \b
    Example:
      featx cache compact
    """
    from featx.cache import compact_cache
    from featx.cache_summaries import compaction_json, compaction_text

    done = compact_cache(cache_dir, names, show=not quiet)
    if as_json or not quiet:
        click.echo(json.dumps(compaction_json(done), indent=2) if as_json else compaction_text(done))


@cache.command()
@NAMES
@opt.CACHE_DIR
@click.option("--set-aside", is_flag=True, help="Remove damaged files that were set aside.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def rm(names: tuple[str, ...], cache_dir: Path, set_aside: bool, yes: bool) -> None:
    """Remove something from the cache, after asking.

    \b
    Example:
      featx cache rm vgg16-block5_pool-224x224
    """
    from featx.cache import removable, remove
    from featx.cache_summaries import removal_text

    paths = removable(cache_dir, names, set_aside=set_aside)
    if not names and not set_aside:
        raise FeatxError("Name what is to be removed, as featx cache ls shows it, or give --set-aside.")
    if not paths:
        click.echo("There is nothing to remove.")
    elif yes or click.confirm(removal_text(paths)):
        remove(paths)
        click.echo(f"Removed: {', '.join(printable(path.name) for path in paths)}.")
