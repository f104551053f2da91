"""Downloads images from Kaggle, unpacks them beside their folder, and moves them into place when they are complete."""

import json
import logging
import os
import re
import shutil
import zipfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from featx.dataset.kaggle.download import KaggleSource, download, has_downloads, parse_slug
from featx.dataset.kaggle.ranges import distant_archive
from featx.dataset.kaggle.unpack import open_zip, unpack, unpack_members
from featx.dataset.sample import is_sample, write_sample
from featx.errors import FeatxError
from featx.images import IMAGE_SUFFIXES
from featx.storage import (
    ArchiveError,
    HeldError,
    NameEncodingError,
    OddFileError,
    as_path,
    make_folder,
    name_zip_members,
    place,
    read_small,
    room_for,
    text_encoding,
    workshop,
)
from featx.system import shown, size
from featx.text import printable

#: The mark lies in the fetched folder; hidden, it is nobody's image.
MARK = ".featx-fetched.json"
_FORMAT_VERSION = 1
#: What a file's name without its suffix looks like: a word, a dot, a number.
_PREFIX = re.compile(r"([^\W\d_][\w -]*)\.\d+")
log = logging.getLogger("featx")


@dataclass(frozen=True)
class Fetched:
    """Images that were fetched to a folder.

    Attributes:
        slug: what was asked for.
        folder: where it is.
        n_files: how many files belong to it.
        size_bytes: their size.
        was_there: whether everything was there already, so nothing was done.
        warnings: what was left out, one sentence each.
    """

    slug: str
    folder: Path
    n_files: int
    size_bytes: int
    was_there: bool = False
    warnings: tuple[str, ...] = field(default=(), repr=False)


def file_sizes(folder: Path) -> dict[str, int]:
    """Return the size of every file in `folder`, at any depth, by its path from there; the mark is none of them."""
    prefix = os.path.join(folder, "")  # noqa: PTH118 - ends in exactly one slash
    paths = (os.path.join(above, name) for above, _, names in os.walk(folder) for name in names)  # noqa: PTH118
    sizes = {path.removeprefix(prefix).replace(os.sep, "/"): os.lstat(path).st_size for path in paths}
    sizes.pop(MARK, None)
    return sizes


def write_mark(folder: Path, slug: str, zip_encoding: str | None = None) -> None:
    """Note in `folder` that all files there belong to `slug`, and in which encoding the user said that names are."""
    content = {
        "format_version": _FORMAT_VERSION,
        "slug": slug,
        "zip_encoding": zip_encoding,
        "files": file_sizes(folder),
    }
    (folder / MARK).write_text(json.dumps(content, sort_keys=True), encoding="ascii")


def find_fetched(folder: Path, slug: str, zip_encoding: str | None = None) -> Fetched | None:
    """Return what was fetched to `folder` earlier; None if there is nothing yet, or nothing any more.

    Raises:
        FeatxError: there is something else, something is missing, or names were read in another encoding than the user
            names now.
        OSError: the folder cannot be read.
    """
    if not os.path.lexists(folder):
        return None
    if not folder.is_dir():
        raise FeatxError(f"{printable(folder)} is not a folder; name another one with --to.")
    there = file_sizes(folder)
    expected, unpacked_as = _read_mark(folder, slug)
    if not there.keys() & expected.keys():
        if any(path.name not in {MARK, _workshop_name(folder)} for path in folder.iterdir()):
            raise FeatxError(
                f"The folder {printable(folder)} is not empty, and {printable(slug)} is not in it: name another one "
                f"with --to, or empty it."
            )
        return None
    if missing := [name for name, n_bytes in expected.items() if there.get(name) != n_bytes]:
        raise FeatxError(
            f"{len(missing):,} of the {len(expected):,} files that were fetched to {printable(folder)} are missing or "
            f"changed, such as {printable(missing[0])}: remove the folder and run the same command again to fetch them "
            f"again, or name another folder with --to."
        )
    if zip_encoding not in {None, unpacked_as} and not all(map(str.isascii, expected)):
        raise FeatxError(
            f"{printable(slug)} was unpacked to {printable(folder)} without --zip-encoding {zip_encoding}; remove the "
            f"folder and run the same command again, or leave the option out."
        )
    return Fetched(slug, folder, len(expected), sum(expected.values()), was_there=True)


def _read_mark(folder: Path, slug: str) -> tuple[dict[str, int], str | None]:
    """Return the sizes of the files that belong to `slug`, by path, and the encoding that the user gave for names.

    Without a mark that says so, there are no files.
    """
    try:
        content = json.loads(read_small(folder / MARK).decode("ascii"))
        if content["format_version"] != _FORMAT_VERSION or content["slug"] != slug:
            return {}, None
        return {str(name): int(n_bytes) for name, n_bytes in content["files"].items()}, content.get("zip_encoding")
    except (FileNotFoundError, OddFileError, ValueError, KeyError, TypeError, AttributeError):
        return {}, None


def sort_by_prefix(root: Path) -> dict[Path, list[str]]:
    """Move images into class folders wherever their names tell the class; return the class names by folder.

    That is in a folder in which every image is named `PREFIX.NUMBER.SUFFIX`, with two prefixes or more, and in which
    nothing has the name of a class yet. All other folders stay as they are: `test1/1.jpg` has no class.
    """
    found = {}
    for folder, subfolders, names in os.walk(root, topdown=False):
        class_of = _classes(names)
        class_names = sorted(set(class_of.values()))
        if len(class_names) < 2 or set(class_names) & {*subfolders, *names}:
            continue
        for class_name in class_names:
            Path(folder, class_name).mkdir()
        for name, class_name in class_of.items():
            Path(folder, name).rename(Path(folder, class_name, name))
        found[Path(folder)] = class_names
    return found


def _classes(names: list[str]) -> dict[str, str]:
    """Return the class of each image, or nothing if one of them does not tell it.

    >>> _classes(["cat.0.jpg", "dog.0.jpg", "notes.txt"])
    {'cat.0.jpg': 'cat', 'dog.0.jpg': 'dog'}
    >>> _classes(["cat.0.jpg", "1.jpg"])
    {}
    """
    images = [name for name in names if Path(name).suffix.lower() in IMAGE_SUFFIXES and not name.startswith(".")]
    matches = {name: _PREFIX.fullmatch(Path(name).stem) for name in images}
    classes = {name: match[1] for name, match in matches.items() if match}
    return classes if len(classes) == len(images) else {}


def fetch_data(slug: str, to: Path | str = "data", *, zip_encoding: str | None = None, show: bool = False) -> Fetched:
    """Download images to the folder `to`; do nothing if they are there.

    featx downloads and unpacks everything in a hidden folder beside `to`, and moves it into place when it is complete.
    If a download was interrupted, the next call resumes it.

    Args:
        slug: `"sample"`; a data set at Kaggle, `"OWNER/NAME"` or `"OWNER/NAME/versions/NUMBER"`; or
            `"competition:NAME"`.
        to: a folder that is empty or not there yet.
        zip_encoding: the encoding of names in the archive that do not state theirs, such as `"gbk"`. Without it, featx
            reads them as UTF-8 if all of them are valid in it, and warns if not.
        show: whether to show progress.

    Raises:
        FeatxError: it cannot be downloaded, is damaged, or does not fit on the disk; the message says what to do.
    """
    to = as_path(to)
    if not isinstance(slug, str):
        raise FeatxError(f"Name a data set like OWNER/NAME. Received: {shown(slug)}")
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
            f"{slug} cannot be written to {printable(to)}: {error.strerror or 'the disk fails'}. Fix this, or name "
            f"another folder with --to, and run the same command again; what was downloaded is kept."
        ) from error


def _fetch(source: KaggleSource, to: Path, zip_encoding: str | None, *, show: bool) -> Fetched:
    folder = to.resolve()  # the link to a folder on a larger disk stays
    with _workshop(folder) as shop:
        if fetched := find_fetched(to, str(source), zip_encoding):  # by another process, just now
            return fetched
        archive = download(source, shop, show=show)
        warnings = _unpack(source, archive, shop / "unpacked", zip_encoding, show=show)
        place(shop / "unpacked", folder, last=MARK)
        archive.unlink()
    for warning in warnings:
        log.warning("%s", warning)
    sizes = file_sizes(folder)
    return Fetched(str(source), to, len(sizes), sum(sizes.values()), warnings=tuple(warnings))


def fetch_part(slug: str, to: Path, n_per_folder: int, *, show: bool = False) -> Fetched:
    """Download the first images of each folder in a data set's archive to the folder `to`, if they are not there yet.

    Besides these, it downloads only the archive's table of contents. It logs the size first.

    Args:
        slug: a data set at Kaggle that anybody may have, as for `fetch_data`.
        to: a folder that is empty or not there yet.
        n_per_folder: images of each folder, at most.
        show: whether to show progress.

    Raises:
        KaggleError: it cannot be downloaded, or only as a whole.
        FeatxError: it is damaged, or does not fit on the disk; the message says what to do.
        OSError: it cannot be written.
    """
    source, folder = parse_slug(slug), to.resolve()
    name = f"{source}, {n_per_folder} images of each folder"
    if fetched := find_fetched(to, name):
        return fetched
    with _workshop(folder) as shop, distant_archive(source) as archive, open_zip(archive) as zip_file:
        whole_size, n_files = archive.seek(0, os.SEEK_END), len(zip_file.infolist())
        name_zip_members(zip_file)
        entries = _first_images(zip_file, n_per_folder)
        part_size = sum(entry.compress_size for entry in entries)
        log.info(
            "Fetching %s of the %s files of %s from Kaggle: %s of %s.",
            f"{len(entries):,}",
            f"{n_files:,}",
            source,
            size(part_size),
            size(whole_size),
        )
        unpacked = shop / "unpacked"
        shutil.rmtree(unpacked, ignore_errors=True)  # of a process that was killed
        unpack_members(zip_file, entries, unpacked, "downloading", show=show)
        write_mark(unpacked, name)
        place(unpacked, folder, last=MARK)
    sizes = file_sizes(folder)
    return Fetched(name, to, len(sizes), sum(sizes.values()))


def _first_images(zip_file: zipfile.ZipFile, n_per_folder: int) -> list[zipfile.ZipInfo]:
    """Return the first images of each folder, in the order of the archive."""
    n_found: Counter[PurePosixPath] = Counter()
    chosen = []
    for entry in sorted(zip_file.infolist(), key=lambda entry: entry.header_offset):
        path = PurePosixPath(entry.filename)
        is_image = path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
        if is_image and n_found[path.parent] < n_per_folder:
            n_found[path.parent] += 1
            chosen.append(entry)
    return chosen


@contextmanager
def _workshop(folder: Path) -> Iterator[Path]:
    """Yield a hidden folder for what is to be in `folder`, always the same one, for one process at a time.

    It is beside `folder`; in it, if no folder can be renamed to that, say a mount point. It stays if something
    downloaded is in it.

    Raises:
        FeatxError: another process uses it, or what is in it may be anybody's.
    """
    make_folder(folder.parent)
    with suppress(FileNotFoundError):
        (folder / MARK).unlink()  # of files that have gone
    room = room_for(folder)
    try:
        with workshop(room / _workshop_name(folder), has_downloads) as shop:
            yield shop
    except HeldError:
        raise FeatxError(f"Another featx fetch is writing to {printable(folder)}; wait until it is done.") from None


def _workshop_name(folder: Path) -> str:
    return f".{folder.resolve().name}-fetch"


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
            f"The archive of {source} was not unpacked, because {str(error).removesuffix('.')}. featx removed it: run "
            f"the same command to download it again, or see {source.url}."
        ) from error
    for sorted_dir, class_names in sort_by_prefix(folder).items():
        where = printable(sorted_dir.relative_to(folder))
        log.info("Sorted by their names, in %s: %s.", where, ", ".join(map(printable, class_names)))
    write_mark(folder, str(source), zip_encoding)
    return warnings
