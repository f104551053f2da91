"""Images from elsewhere: downloaded, unpacked beside their folder, and put in place when all is there."""

import fcntl
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from featx.arguments import shown
from featx.errors import FeatxError, printable
from featx.fetching.fetched import MARK, Fetched, file_sizes, find_fetched, write_mark
from featx.fetching.kaggle_slug import KaggleSource, parse_slug
from featx.fetching.kaggle_source import download
from featx.fetching.prefix_classes import sort_by_prefix
from featx.fetching.unpack import unpack
from featx.places import ArchiveError, NameEncodingError, as_path, text_encoding
from featx.sources import is_sample, write_sample

log = logging.getLogger("featx")


def fetch_data(slug: str, to: Path | str = "data", *, zip_encoding: str | None = None, show: bool = False) -> Fetched:
    """Bring images to the folder `to`; do nothing if they are there.

    Everything is downloaded and unpacked in a hidden folder beside `to`, which is there as a whole or not at all. A
    call that was cut off is gone on with by the next one.

    Args:
        slug: `"sample"`; a data set at Kaggle, `"OWNER/NAME"` or `"OWNER/NAME/versions/NUMBER"`; or
            `"competition:NAME"`.
        to: a folder that is empty or not there yet.
        zip_encoding: the encoding of names in the archive that do not say theirs, such as `"gbk"`. Without it, they are
            in UTF-8 if all of them fit, or else featx warns.
        show: whether to show progress.

    Raises:
        FeatxError: it cannot be had, is not what it should be, or does not fit; the message says what to do.
    """
    to = as_path(to)
    if not isinstance(slug, str):
        raise FeatxError(f"A data set is named like OWNER/NAME. Received: {shown(slug)}")
    if slug == "sample":
        was_there = is_sample(to)
        sizes = file_sizes(write_sample(to))
        return Fetched(slug, to, len(sizes), sum(sizes.values()), was_there)
    source = parse_slug(slug)
    zip_encoding = text_encoding(zip_encoding) if zip_encoding else None
    try:
        return find_fetched(to, slug, zip_encoding) or _fetch(source, to, zip_encoding, show=show)
    except OSError as error:
        raise FeatxError(
            f"{slug} cannot be written to {printable(to)}: {error.strerror or 'the disk fails'}. Mend this, or name "
            f"another folder with --to, and run the same command again; what was downloaded is kept."
        ) from error


def _fetch(source: KaggleSource, to: Path, zip_encoding: str | None, *, show: bool) -> Fetched:
    folder = to.resolve()  # the link to a folder on a larger disk stays
    with _workshop(folder) as workshop:
        if fetched := find_fetched(to, str(source), zip_encoding):  # by another process, just now
            return fetched
        archive = workshop / f"{source.file_name}.zip"
        if not archive.exists():
            download(source, archive, show=show)
        warnings = _unpack(source, archive, workshop / "unpacked", zip_encoding, show=show)
        _put_in_place(workshop / "unpacked", folder)
        archive.unlink()
    for warning in warnings:
        log.warning("%s", warning)
    sizes = file_sizes(folder)
    return Fetched(str(source), to, len(sizes), sum(sizes.values()), warnings=tuple(warnings))


@contextmanager
def _workshop(folder: Path) -> Iterator[Path]:
    """Yield a hidden folder beside `folder`, always the same one, for one process at a time.

    It is removed if there is nothing downloaded in it.

    Raises:
        FeatxError: another process uses it.
    """
    workshop = folder.with_name(f".{folder.name}-fetch")
    workshop.mkdir(parents=True, exist_ok=True)
    with (workshop / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FeatxError(f"Another featx fetch is writing to {printable(folder)}; wait until it is done.") from None
        except OSError:
            pass  # a file system without locks
        try:
            yield workshop
        finally:
            if not any(path.suffix in {".zip", ".part"} for path in workshop.iterdir()):
                shutil.rmtree(workshop, ignore_errors=True)


def _unpack(source: KaggleSource, archive: Path, folder: Path, zip_encoding: str | None, *, show: bool) -> list[str]:
    """Unpack the archive into `folder`, sort what needs sorting, and mark it; return what was left out."""
    shutil.rmtree(folder, ignore_errors=True)  # of a process that was killed
    try:
        warnings = unpack(archive, folder, zip_encoding=zip_encoding, show=show)
    except NameEncodingError as error:  # nothing is wrong with the archive, which is kept
        raise FeatxError(f"The archive of {source} was not unpacked, because {error}") from error
    except ArchiveError as error:
        archive.unlink()
        raise FeatxError(
            f"The archive of {source} was not unpacked, because {str(error).removesuffix('.')}; it is removed: run the "
            f"same command again to download it anew, or look at {source.url}."
        ) from error
    for sorted_dir, class_names in sort_by_prefix(folder).items():
        where = printable(sorted_dir.relative_to(folder))
        log.info("Sorted by their names, in %s: %s.", where, ", ".join(map(printable, class_names)))
    write_mark(folder, str(source), zip_encoding)
    return warnings


def _put_in_place(unpacked: Path, folder: Path) -> None:
    """Give what is unpacked its name; an empty folder of that name gives way, also one with nothing but a mark."""
    with suppress(FileNotFoundError):
        (folder / MARK).unlink()
    unpacked.rename(folder)
