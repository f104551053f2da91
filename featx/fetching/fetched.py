"""What a fetch leaves: a folder with a mark in it that says what belongs there, so that nothing is fetched twice."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

from featx.errors import FeatxError, printable

#: The mark lies in the fetched folder; hidden, it is nobody's image.
MARK = ".featx-fetched.json"
_FORMAT_VERSION = 1


@dataclass(frozen=True)
class Fetched:
    """Images from elsewhere, in a folder.

    Attributes:
        slug: what was asked for.
        folder: where it is.
        n_files: how many files belong to it.
        size_bytes: their size.
        was_there: whether it had all been there before, so that nothing was done.
        warnings: what was left out, one sentence each.
    """

    slug: str
    folder: Path
    n_files: int
    size_bytes: int
    was_there: bool = False
    warnings: tuple[str, ...] = ()


def file_sizes(folder: Path) -> dict[str, int]:
    """Return the size of every file in `folder`, at any depth, by its path from there; the mark is none of them."""
    prefix = os.path.join(folder, "")  # noqa: PTH118 - ends in exactly one slash
    paths = (os.path.join(above, name) for above, _, names in os.walk(folder) for name in names)  # noqa: PTH118
    sizes = {path.removeprefix(prefix): os.lstat(path).st_size for path in paths}
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
        raise FeatxError(f"{printable(folder)} is no folder; name another one with --to.")
    there = file_sizes(folder)
    expected, unpacked_as = _read_mark(folder, slug)
    if not there.keys() & expected.keys():
        if any(path.name != MARK for path in folder.iterdir()):
            raise FeatxError(
                f"The folder {printable(folder)} is not empty, and {printable(slug)} is not in it; name another one "
                f"with --to, or empty it."
            )
        return None
    if missing := [name for name, n_bytes in expected.items() if there.get(name) != n_bytes]:
        raise FeatxError(
            f"{len(missing):,} of the {len(expected):,} files that were fetched to {printable(folder)} are missing or "
            f"changed, such as {printable(missing[0])}; remove the folder and run the same command again to have them "
            f"back, or name another one with --to."
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
        content = json.loads((folder / MARK).read_text(encoding="ascii"))
        if content["format_version"] != _FORMAT_VERSION or content["slug"] != slug:
            return {}, None
        return {str(name): int(n_bytes) for name, n_bytes in content["files"].items()}, content.get("zip_encoding")
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return {}, None
