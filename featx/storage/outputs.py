"""Folders and files that featx makes: built unseen, put in place whole, and marked as its own.

Only one process makes something for one place. A killed one leaves nothing there, but a hidden workshop beside it.
"""

import datetime as dt
import errno
import hashlib
import itertools
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from featx.errors import FeatxError, system_errors
from featx.storage.files import check_writable
from featx.storage.marks import OUTPUT_MARK, mark_folder
from featx.storage.windows import patiently, rename_folder, sync_folder
from featx.storage.workshops import (
    KEPT_NAME,
    TEMPORARY_PREFIX,
    HeldError,
    make_folder,
    sweep,
    sync_file,
    sync_tree,
    temporary_path,
    workshop,
)
from featx.text import printable

log = logging.getLogger("featx")

_ADVICE = " Choose a folder that you can write to."


@dataclass
class Making:
    """Something that is being made.

    Attributes:
        built: the folder to fill, or the path of the file to write, where nobody sees it.
        path: where it will be, and in the end is: another name if somebody else has taken this one meanwhile.
        is_worth_keeping: put what there is in place also if the work fails from here on.
    """

    built: Path
    path: Path
    is_worth_keeping: bool = False


def check_empty(folder: Path) -> None:
    """Raise FeatxError if `folder` has something in it, or cannot be written to: before work that would be lost.

    It need not be there. What is hidden and unfinished there does not count.
    """
    with system_errors(f"The folder {printable(folder)}", "written", _ADVICE):
        is_empty = not _names_in(folder)
        check_writable(folder)
    if not is_empty:
        raise FeatxError(f"The folder {printable(folder)} is not empty; choose another one.")


def _names_in(folder: Path) -> list[str]:
    inside = folder.iterdir() if folder.exists() else ()
    return [path.name for path in inside if not path.name.startswith(TEMPORARY_PREFIX)]


@contextmanager
def new_folder(
    path: Path | None, parent: Path = Path(), *, last: str = "", precious: str | None = None
) -> Iterator[Making]:
    """Make the folder `path`, or one named after the time in `parent`: yield where to fill it, then put it in place.

    The place is taken, and tried, before the work: a second process that wants it is refused at once. If the work
    fails, nothing is left there, nor of the folders that were made above it.

    Args:
        path: an empty folder, or one that is not there yet.
        parent: the folder of one that the user has not named.
        last: the file that tells readers that the folder is whole. Where a folder cannot be renamed to `path`, which
            may be a mount point, the files are put into it one by one, this one last.
        precious: a folder in it; if there is something in that when an error ends the work, what there is stays.

    Raises:
        FeatxError: it exists and has something in it, cannot be made, or another process is making it.
    """
    with ExitStack() as stack:
        if path is not None:
            making = stack.enter_context(_making(path, last, precious))
        else:
            for candidate in _names_of_now(parent):
                with suppress(HeldError):  # begun in the same second
                    making = stack.enter_context(_making(candidate, last, precious))
                    break
        yield making


@contextmanager
def new_file(path: Path) -> Iterator[Making]:
    """Yield where to write the file `path`, which is not there yet, then put it in place: as `new_folder` does.

    Raises:
        FeatxError: it cannot be written, or another process is making it.
    """
    with _folder_above(path) as folder, ExitStack() as stack:
        with system_errors(printable(path), "written"):
            shop = stack.enter_context(_held(path, folder))
        making = Making(shop / f"whole{path.suffix}", path)
        yield making
        with system_errors(printable(path), "written"):
            _put_in_place(making, shop, folder / path.name)


@contextmanager
def _making(path: Path, last: str, precious: str | None) -> Iterator[Making]:
    with _folder_above(path), ExitStack() as stack:
        check_empty(path)
        target = path.resolve()  # a link to a folder on a larger disk stays
        with system_errors(f"The folder {printable(path)}", "made", _ADVICE):
            shop = stack.enter_context(_held(target, room_for(target)))
            check_empty(path)  # another process may have been quicker
            making = Making(shop / "whole", path)
            making.built.mkdir()
            mark_folder(making.built)

        def put_in_place() -> None:
            with system_errors(f"The folder {printable(making.path)}", "written"):
                _put_in_place(making, shop, target, last)

        try:
            yield making
        except BaseException as error:
            is_error = not isinstance(error, KeyboardInterrupt)
            if making.is_worth_keeping or (is_error and precious and any((making.built / precious).glob("[!.]*"))):
                put_in_place()
                log.warning("Finished results are in %s.", printable(making.path))
            raise
        put_in_place()


@contextmanager
def _folder_above(path: Path) -> Iterator[Path]:
    """Make the folder that `path` is to be in; it goes again if the work fails, with those that were made above it.

    Raises:
        FeatxError: it cannot be made.
    """
    made: list[Path] = []
    try:
        with system_errors(f"The folder {printable(path)}", "made", _ADVICE):
            target = path.resolve()
            made = _make_marked(target.parent)
        yield target.parent
    except BaseException:
        for folder in made:
            with suppress(OSError):  # there is something in it
                _remove_unused(folder)
        raise


def make_cache(folder: Path) -> None:
    """Make a cache folder that is not there yet, marked; sweep what killed processes have left in one that is.

    Raises:
        OSError: it cannot be made.
    """
    is_new = not folder.exists()
    make_folder(folder)
    if is_new:
        with suppress(OSError):  # on a full disk; it is known by what is in it, too
            mark_folder(folder)
    sweep(folder)


def _make_marked(folder: Path) -> list[Path]:
    """Make a folder, and those above it, that are missing; mark them, and return them, the lowest first."""
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    make_folder(folder)
    for one in missing:
        mark_folder(one)
    return missing


def _remove_unused(folder: Path) -> None:
    """Remove a folder with nothing in it but the mark; raise OSError if there is more."""
    mark = folder / OUTPUT_MARK
    if [path.name for path in folder.iterdir()] == [OUTPUT_MARK]:
        mark.unlink()
    try:
        folder.rmdir()
    except OSError:  # another process has made something in it, just now
        if not mark.exists():
            mark_folder(folder)
        raise


def _names_of_now(parent: Path) -> Iterator[Path]:
    """Yield paths in `parent` that are not there: two runs may begin in the same second."""
    name = dt.datetime.now().astimezone().strftime("%Y-%m-%d-%H%M%S")
    return _free(parent / (name if number == 1 else f"{name}-{number}") for number in itertools.count(1))


def _free(paths: Iterator[Path]) -> Iterator[Path]:
    return (path for path in paths if not os.path.lexists(path))


def room_for(target: Path) -> Path:
    """Return the folder to build `target` in: the one above, or `target` itself if no folder can be renamed to it.

    That is so for the working folder, a mount point, and an empty folder in one that we may not write to. It is tried
    with an empty folder.

    Raises:
        OSError: nothing can be written to either.
    """
    if not target.exists():
        return target.parent
    sweep(target)
    if _is_working_folder(target):
        return target
    probe = temporary_path(target)
    try:
        probe.mkdir()
        shutil.copymode(target, probe)
        rename_folder(probe, target)
    except OSError:
        return target
    finally:
        with suppress(OSError):
            probe.rmdir()
    return target.parent


def _is_working_folder(folder: Path) -> bool:
    try:
        return folder.samefile(Path.cwd())
    except OSError:  # it has been removed
        return False


@contextmanager
def _held(target: Path, room: Path) -> Iterator[Path]:
    """Yield the workshop for `target` in the folder `room`, empty, for this process alone.

    Raises:
        HeldError: another process is making it.
        FeatxError: what is in the workshop could not be put in place earlier, and is still there.
    """
    sweep(room)
    name = hashlib.sha256(os.fsencode(target.name)).hexdigest()[:32]
    shop = room / f"{TEMPORARY_PREFIX}{name}"
    with ExitStack() as stack:
        try:
            stack.enter_context(workshop(shop, lambda folder: (folder / KEPT_NAME).exists()))
        except HeldError:
            raise HeldError(
                f"Another featx command is writing {printable(target)}; wait until it is done, or choose another name."
            ) from None
        if (shop / KEPT_NAME).exists():
            raise FeatxError(
                f"What an earlier featx made for {printable(target)} is still in {printable(shop)}; move it elsewhere."
            )
        yield shop


def _put_in_place(making: Making, shop: Path, wanted: Path, last: str = "") -> None:
    """Give what is built the name `wanted`; if somebody has taken it, the next free one beside it, which is logged.

    Raises:
        OSError: it can be given none. It stays where it is.
    """
    try:
        try:
            place(making.built, wanted, last)
        except OSError as error:
            beside = wanted / wanted.name if shop.parent == wanted else wanted
            _put_beside(making, beside, error.strerror or str(error))
    except OSError:
        if making.built.exists():
            with suppress(OSError):
                (shop / KEPT_NAME).touch()
            log.warning("The result could not be moved into place. It is still in %s.", printable(making.built))
        raise


def _put_beside(making: Making, wanted: Path, reason: str) -> None:
    stem, suffix = (wanted.stem, wanted.suffix) if making.built.is_file() else (wanted.name, "")
    others = _free(wanted.with_name(f"{stem}-{number}{suffix}") for number in itertools.count(2))
    target = next(others)
    place(making.built, target)
    log.warning(
        "The result could not be moved to %s (%s). It is in %s.",
        printable(making.path),
        reason.lower(),
        printable(target),
    )
    making.path = target


def place(built: Path, target: Path, last: str = "") -> None:
    """Give what was built in the workshop for `target` its name, when all of it is on the disk.

    Args:
        built: a file or folder.
        target: where nothing is; or an empty folder, for a folder.
        last: see `new_folder`.

    Raises:
        OSError: there is something, or it cannot be renamed.
    """
    sync_tree(built) if built.is_dir() else sync_file(built)
    if target in built.parents:
        _move_inside(built, target, last)
        sync_folder(target)
    else:
        _rename(built, target)
        sync_folder(target.parent)


def _rename(built: Path, target: Path) -> None:
    """Rename a file or folder to `target`, where nothing is, or at most an empty folder for a folder.

    Raises:
        OSError: there is something, or it cannot be renamed.
    """
    if not built.is_dir():
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        patiently(lambda: built.rename(target), built)
        return
    if target.is_dir():
        with suppress(OSError):  # whoever made it may have closed it to others
            shutil.copymode(target, built)
    rename_folder(built, target)


def _move_inside(built: Path, target: Path, last: str) -> None:
    """Move what is in the folder `built` into the empty folder `target`: the mark first, the file `last` at the end."""
    found = (path.name for path in built.iterdir())
    names = sorted(found, key=lambda name: (name == last, name != OUTPUT_MARK, name))
    if taken := [name for name in names if os.path.lexists(target / name)]:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target / taken[0]))
    for name in names:
        patiently(partial((built / name).rename, target / name), built / name)
