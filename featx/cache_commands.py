"""`featx cache`: what lies in the cache, is it sound, tidy it."""

from functools import partial

import click

from featx import options as opt
from featx.errors import FeatxError
from featx.output import say
from featx.places import Place

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
def ls(cache_dir: Place, quiet: bool, as_json: bool) -> None:
    """List what is in the cache: stores of features, converted networks, digests. With --quiet: names, one a line.

    \b
    Example:
      featx cache ls
    """
    from featx.cache import list_cache
    from featx.cache_summaries import listing_json, listing_text, names_text

    entries = list_cache(cache_dir)
    text = partial(names_text, entries) if quiet else partial(listing_text, entries, cache_dir)
    say(text, lambda: listing_json(entries), quiet=False, as_json=as_json)


@cache.command()
@NAMES
@opt.CACHE_DIR
@click.option("--mend", is_flag=True, help="Set aside what is damaged, so that it is computed again.")
@opt.OUTPUT
def verify(names: tuple[str, ...], cache_dir: Place, mend: bool, quiet: bool, as_json: bool) -> None:
    """Read everything, hold it against its checksums, and say what mending would cost; changes nothing by itself.

    Ends with 1 if something is damaged.

    \b
    Example:
      featx cache verify --mend
    """
    from featx.cache import check_cache
    from featx.cache_summaries import check_json, check_text

    check = check_cache(cache_dir, names, mend=mend, show=not quiet)
    say(lambda: check_text(check, cache_dir, mended=mend), lambda: check_json(check), quiet=quiet, as_json=as_json)
    if not check.is_sound:
        click.get_current_context().exit(1)


@cache.command()
@NAMES
@opt.CACHE_DIR
@opt.OUTPUT
def compact(names: tuple[str, ...], cache_dir: Place, quiet: bool, as_json: bool) -> None:
    """Merge small segments into few; every row is on disk twice before its old segment is removed.

    \b
    Example:
      featx cache compact
    """
    from featx.cache import compact_cache
    from featx.cache_summaries import compaction_json, compaction_text

    done = compact_cache(cache_dir, names, show=not quiet)
    say(lambda: compaction_text(done), lambda: compaction_json(done), quiet=quiet, as_json=as_json)


@cache.command()
@NAMES
@opt.CACHE_DIR
@click.option("--set-aside", is_flag=True, help="Remove damaged files that were set aside.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@opt.OUTPUT
def rm(names: tuple[str, ...], cache_dir: Place, set_aside: bool, yes: bool, quiet: bool, as_json: bool) -> None:
    """Remove something from the cache, after asking; ends with 1 if the answer is no.

    \b
    Example:
      featx cache rm vgg16-block5_pool-224x224
    """
    from featx.cache import removable, remove
    from featx.cache_summaries import removal_json, removal_question, removal_text

    if not names and not set_aside:
        raise FeatxError("Name what is to be removed, as featx cache ls shows it, or give --set-aside.")
    paths = removable(cache_dir, names, set_aside=set_aside)
    if paths and not yes and not click.confirm(removal_question(paths), err=True):
        click.get_current_context().exit(1)
    remove(paths)
    say(lambda: removal_text(paths), lambda: removal_json(paths), quiet=quiet, as_json=as_json)
