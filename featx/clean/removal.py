"""Moves files out of a data set into a folder of their own, and back. It deletes nothing, and overwrites nothing.

A log in that folder says where each file was. The log is on the disk before the first file is moved, so it is complete
even if the process is killed. If a file in the log is not in the folder, it was not moved, or it is back.
"""

import errno
import json
import logging
import os
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from featx.clean.problems import KINDS, Problem, Problems
from featx.dataset import Data, ImageFolders
from featx.errors import FeatxError, system_errors
from featx.storage import (
    OUTPUT_MARK,
    as_data,
    as_path,
    file_digest,
    make_folder,
    mark_folder,
    move,
    read_small,
    write_text,
)
from featx.system import brief, progress_bar, shown
from featx.text import printable

log = logging.getLogger("featx")

#: The log in a folder of removed files: one JSON object a line, see docs/format.md.
LOG_NAME = "removed.jsonl"
FORMAT, FORMAT_VERSION = "featx-removed", 1

#: A log of millions of files.
_MAX_LOG_BYTES = 1 << 30


@dataclass(frozen=True)
class Moved:
    """Files that were moved out of a data set, or back.

    Attributes:
        data_dir: the data set's folder.
        removed_dir: the folder that the removed files are in.
        paths: of the files that were moved, relative to `data_dir`.
        left: (path, reason) of each file that could not be moved, and is still where it was.
    """

    data_dir: Path
    removed_dir: Path
    paths: tuple[str, ...] = field(repr=False)
    left: tuple[tuple[str, str], ...] = field(default=(), repr=False)

    def __repr__(self) -> str:
        return f"<Moved {len(self.paths):,} files, {len(self.left):,} left: {brief(self.removed_dir)}>"


@dataclass(frozen=True)
class _Entry:
    """What the log says of one file: its path in the data set, and in the folder of removed files."""

    path: str
    to: str


def check_removable(data: Data) -> Path:
    """Return the folder of a data set whose files can be moved.

    Raises:
        FeatxError: it is an archive or elsewhere, or a table of labels names the files.
    """
    named = ImageFolders.of(data)
    root = as_data(named.root)
    advice = "Run featx clean without --apply, and train with --labels kept.csv, a table in its report folder."
    if not isinstance(root, Path):
        raise FeatxError(f"featx moves only files in a folder on this machine, not in {printable(root)}. {advice}")
    if named.labels is not None and named.labels.regex is None:
        raise FeatxError(
            f"featx moves no files that a table of labels names, because the table would then be wrong. {advice}"
        )
    return root.resolve()


def folder_for_removed(root: Path, removed_dir: Path | str | None = None) -> Path:
    """Return the folder that removed files of the data set in `root` go to; nothing is changed.

    Args:
        root: what `check_removable` returns.
        removed_dir: as for `remove_files`.

    Raises:
        FeatxError: it cannot be used, as far as can be told without making it.
    """
    folder = as_path(removed_dir).resolve() if removed_dir else _usual_folder(root)  # as restore_files will see it
    with system_errors(f"The folder {printable(folder)}", "used", " Choose another one with --removed-dir."):
        _check_folder(root, folder)
    return folder


def remove_files(problems: Problems, removed_dir: Path | str | None = None, *, show: bool = False) -> Moved:
    """Move the files that featx suggests to remove into a folder, where they keep their relative paths.

    A file stays where it is if it has changed since `find_problems`, or if the copy that should stay is gone.
    `restore_files` moves all files back.

    Args:
        problems: of the data set. Only files with the suggestion `remove` are moved.
        removed_dir: a folder on the same disk: new, empty, or with files that were removed from this data set earlier.
            If None, it is beside the data set's folder: `data-removed` for `data`. featx never reads images from this
            folder.
        show: whether to show progress on stderr.

    Raises:
        FeatxError: the files of this data set cannot be moved, or the folder cannot be used. Nothing was moved.
    """
    if not isinstance(problems, Problems):
        raise FeatxError(f"remove_files needs the result of find_problems. Received: {shown(problems)}")
    root = check_removable(problems.dataset)
    folder = folder_for_removed(root, removed_dir)
    chosen = problems.to_remove
    if not chosen:
        return Moved(root, folder, ())
    with system_errors(f"The folder {printable(folder)}", "used", " Choose another one with --removed-dir."):
        entries = _prepared(root, folder, chosen)
    kinds = Counter(KINDS[problem.kind] for problem in chosen)
    log.info("Moving to %s: %s.", printable(folder), ", ".join(f"{n:,} {kind}" for kind, n in kinds.items()))
    digests = dict(zip(problems.dataset.paths, problems.dataset.digests, strict=True))
    others = {problem.path: problem.other_path for problem in chosen}

    def doubt(path: str) -> str:
        if (other := others[path]) and not os.path.lexists(root / other):
            return f"its copy {printable(other)} is gone"
        if file_digest(root / path) != digests[path].tobytes():
            return "it has changed since featx looked at it"
        return ""

    moves = [(entry.path, root / entry.path, folder / entry.to) for entry in entries]
    paths, left = _move_all(moves, doubt, show=show)
    return Moved(root, folder, paths, left)


def restore_files(data: Data, *, show: bool = False) -> Moved:
    """Move removed files back to where they were, also if a process was killed while it moved them.

    If there is a file with the old name now, the removed file stays in the folder of removed files. featx removes that
    folder when all its files are back.

    Args:
        data: the folder of the data set, or the folder of removed files.
        show: whether to show progress on stderr.

    Raises:
        FeatxError: there is no such folder, or its log cannot be read. Nothing was moved.
    """
    named = as_path(ImageFolders.of(data).root).resolve()
    folder = named if (named / LOG_NAME).is_file() else _usual_folder(named)
    root, entries = _read_log(folder)
    latest = {entry.to: entry for entry in entries}  # a killed process may not have moved what another one moved later
    there = [entry for entry in reversed(latest.values()) if os.path.lexists(folder / entry.to)]
    moves = [(entry.path, folder / entry.to, root / entry.path) for entry in there]
    paths, left = _move_all(moves, lambda _: "", show=show)
    if not left:
        with system_errors(f"The folder {printable(folder)}", "removed"):
            _remove_emptied(folder, entries)
    return Moved(root, folder, paths, left)


def _usual_folder(root: Path) -> Path:
    return root.with_name(f"{root.name}-removed") if root.name else root / ".removed"


def _check_folder(root: Path, folder: Path) -> None:
    """Raise unless files of `root` can be moved to the folder, as far as can be told without making it.

    Raises:
        FeatxError: it is on another disk, or has something in it that featx has not moved there.
        OSError: it cannot be read.
    """
    is_used = folder.is_dir() and any(path.name != OUTPUT_MARK for path in folder.iterdir())
    if is_used and not (folder / LOG_NAME).is_file():
        raise FeatxError(f"The folder {printable(folder)} is not empty: choose another one with --removed-dir.")
    if is_used and (used_by := _read_log(folder)[0]) != root:
        raise FeatxError(
            f"The folder {printable(folder)} has files of {printable(used_by)}: choose another one with --removed-dir."
        )
    there = next((path for path in (folder, *folder.parents) if path.exists()), None)
    if there and not there.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    if there is None or (root.is_dir() and there.stat().st_dev != root.stat().st_dev):
        raise FeatxError(
            f"The folder {printable(folder)} is not on the same disk as {printable(root)}: choose another one with "
            f"--removed-dir."
        )


def _prepared(root: Path, folder: Path, chosen: Sequence[Problem]) -> list[_Entry]:
    """Make the folder, and write where each file will be into its log, and to the disk.

    Raises:
        OSError: it cannot be made or written.
    """
    make_folder(folder)
    mark_folder(folder)
    taken: set[str] = set()
    entries = [_Entry(problem.path, _free_name(folder, problem.path, taken)) for problem in chosen]
    _log(folder, root, entries, chosen)
    return entries


def _log(folder: Path, root: Path, entries: Sequence[_Entry], chosen: Sequence[Problem]) -> None:
    """Add a line for each file to the log, which is made if it is not there, and wait until they are on the disk.

    If a killed process left half a line, it stays one.
    """
    path = folder / LOG_NAME
    if not path.is_file():
        header = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "root": Path(os.path.relpath(root, folder)).as_posix(),
        }
        write_text(path, f"{json.dumps(header)}\n")
    is_torn = not read_small(path, _MAX_LOG_BYTES).endswith(b"\n")
    lines = [
        {"path": entry.path, "to": entry.to, "kind": one.kind, "other_path": one.other_path, "reason": one.reason}
        for entry, one in zip(entries, chosen, strict=True)
    ]
    with path.open("ab") as file:
        file.write(b"\n" * is_torn + "".join(f"{json.dumps(line)}\n" for line in lines).encode("ascii"))
        file.flush()
        os.fsync(file.fileno())


def _free_name(folder: Path, path: str, taken: set[str]) -> str:
    """Return where a file goes below `folder`: to its own path, unless an earlier file with this path is there."""
    old, number = PurePosixPath(path), 2
    name = path
    while name in taken or os.path.lexists(folder / name):
        name, number = str(old.with_name(f"{old.stem}-{number}{old.suffix}")), number + 1
    taken.add(name)
    return name


def _read_log(folder: Path) -> tuple[Path, list[_Entry]]:
    """Return the folder of the data set, and an entry for each file that was to be moved.

    Raises:
        FeatxError: there is no such log, or it is not featx's.
    """
    path = folder / LOG_NAME
    if not path.is_file():
        raise FeatxError(
            f"There are no removed files: {printable(path)} does not exist. Name the folder of the data set, or the "
            f"folder that the files were moved to."
        )
    with system_errors(f"The log {printable(path)}", "read"):
        first, *lines = read_small(path, _MAX_LOG_BYTES).split(b"\n")
    header = _object(first)
    if header.get("format") != FORMAT or not isinstance(header.get("root"), str):
        raise FeatxError(f"{printable(path)} is not a log of removed files: name another folder.")
    if header.get("format_version") != FORMAT_VERSION:
        version = brief(header.get("format_version"))
        raise FeatxError(f"{printable(path)} has format version {version}; this featx reads {FORMAT_VERSION}.")
    root = Path(os.path.normpath(folder / header["root"]))
    if not root.is_dir():
        raise FeatxError(
            f"{printable(path)} lists files of {printable(root)}, but this folder does not exist: move the folder back."
        )
    return root, [_Entry(one["path"], one["to"]) for one in map(_object, lines) if _is_inside(one)]


def _object(line: bytes) -> dict[str, Any]:
    """Return what is in a line; nothing if a killed process left only a part of it, and so moved no file of it."""
    try:
        value = json.loads(line)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _is_inside(entry: dict[str, Any]) -> bool:
    """Return whether both paths of an entry are relative and lead to no folder above."""
    paths = [entry.get(name) for name in ("path", "to")]
    return all(
        isinstance(path, str) and path and not Path(path).is_absolute() and ".." not in Path(path).parts
        for path in paths
    )


def _move_all(
    moves: Sequence[tuple[str, Path, Path]], doubt: Callable[[str], str], *, show: bool
) -> tuple[tuple[str, ...], tuple[tuple[str, str], ...]]:
    """Move files one by one, each from where it is to where it goes; return which were moved, and why others were not.

    `doubt` returns why a file should stay; an empty text if it need not.
    """
    paths: list[str] = []
    left: list[tuple[str, str]] = []
    with progress_bar(len(moves), "move", "files", show=show) as bar:
        for path, source, target in moves:
            try:
                reason = doubt(path) or _move(source, target)
            except OSError as error:
                reason = (error.strerror or str(error)).lower()
            if reason:
                left.append((path, reason))
            else:
                paths.append(path)
            bar.update()
    return tuple(paths), tuple(left)


def _move(source: Path, target: Path) -> str:
    """Move a file, and return why it was not moved; empty if it was.

    Raises:
        OSError: it cannot be moved.
    """
    if os.path.lexists(target):
        return f"there is a file {printable(target)} now"
    make_folder(target.parent)
    move(source, target)
    return ""


def _remove_emptied(folder: Path, entries: Sequence[_Entry]) -> None:
    """Remove a folder of which all files are back; if there is anything else in it, it stays."""
    above = {parent for entry in entries for parent in PurePosixPath(entry.to).parents if parent.name}
    for path in sorted(above, key=lambda one: -len(one.parts)):
        with suppress(OSError):  # there is something of somebody else's in it
            (folder / path).rmdir()
    if {path.name for path in folder.iterdir()} <= {LOG_NAME, OUTPUT_MARK}:
        (folder / LOG_NAME).unlink()
        (folder / OUTPUT_MARK).unlink(missing_ok=True)
        folder.rmdir()
