"""`featx clean`: finds what is wrong with the images of a data set, and moves files out of it and back."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from featx.clean import KINDS, Moved, Problems, check_removable, restore_files
from featx.cli import options as opt
from featx.cli.compare import open_in_browser
from featx.dataset import ImageFolders
from featx.errors import FeatxError
from featx.system import as_argument, shell_line
from featx.text import Shown, printable, shown_text


@click.command()
@opt.DATA
@click.option(
    "--kind",
    "kinds",
    type=opt.Choice(KINDS),
    multiple=True,
    default=tuple(KINDS),
    help="Kind of problem to look for; repeat the option for several kinds.  [default: all]",
)
@click.option(
    "--to", "report_dir", type=opt.LocalPath(path_type=Path), help="Report folder.  [default: a new one in reports/]"
)
@click.option("--apply", is_flag=True, help="Move the files with the suggestion remove out of DATA.")
@click.option("--undo", is_flag=True, help="Move removed files back. DATA may also be the folder that they are in now.")
@click.option(
    "--removed-dir",
    type=opt.LocalPath(path_type=Path, file_okay=False),
    help="Folder that --apply moves files to.  [default: beside DATA, such as data-removed]",
)
@click.option("--open", "open_page", is_flag=True, help="Open the report's page in the browser.")
@opt.BACKBONE
@opt.RECIPE
@opt.CACHE_DIR
@opt.STAGE_ONE
@opt.OUTPUT
def clean(
    data: ImageFolders,
    report_dir: Path | None,
    removed_dir: Path | None,
    open_page: bool,
    output: opt.Output,
    *,
    apply: bool,
    undo: bool,
    **options: Any,
) -> None:
    """Find copies, doubtful labels, unreadable files and odd images in DATA, and suggest what to do.

    It prints the number of problems of each kind, and writes a table of all problems and a page with pictures. Without
    --apply, it changes nothing in DATA. It never deletes a file: --undo moves all files back.

    \b
    Example:
      featx clean data/ --image-size 150
      featx clean data/ --kind copy --kind unreadable --apply
      featx clean data/ --undo
    """
    from featx.report import PAGE_NAME, report_problems

    _check(apply=apply, undo=undo, removed_dir=removed_dir)
    if undo:
        moved: Moved | None = restore_files(data, show=output.show)
        output.say(moved, _restored_text, _moved_json)
    else:
        how = {"apply": apply, "show": output.show, **options}
        problems, folder, moved = report_problems(data, report_dir, removed_dir, **how)
        output.say(problems, lambda found: _text(found, folder, moved), lambda found: _json(found, folder, moved))
        if open_page:
            open_in_browser(folder / PAGE_NAME)
    if moved and moved.left:
        click.get_current_context().exit(1)


def _check(*, apply: bool, undo: bool, removed_dir: Path | None) -> None:
    """Fail before anything long is done."""
    if apply and undo:
        raise click.UsageError("--apply moves files out of DATA, and --undo moves them back: choose one.")
    if removed_dir and not apply:
        raise click.UsageError("--removed-dir is for --apply. To move files back, give their folder as DATA.")


def _text(problems: Problems, report_dir: Path, moved: Moved | None) -> Shown:
    """Return the numbers of problems, what happened to the files, and where the report is, for a terminal."""
    from featx.report import PAGE_NAME, counts_table, data_text

    advice = _moved_lines(moved) if moved else list(_advice(problems, report_dir))
    page = (report_dir / PAGE_NAME).absolute().as_uri()
    lines = [data_text(problems), *problems.not_checked, "", *advice, f"Report: {report_dir}", page]
    return shown_text([*counts_table(problems).split("\n"), *lines])


def _advice(problems: Problems, report_dir: Path) -> Iterator[str]:
    """Yield how to do without the files with the suggestion remove, if there are any."""
    from featx.report import KEPT_NAME

    n = len(problems.to_remove)
    if not n:
        return
    files = "the file" if n == 1 else f"the {n:,} files"
    root = printable(problems.dataset.root)
    try:
        check_removable(problems.dataset)
    except FeatxError:
        table = shell_line(["--labels", str(report_dir / KEPT_NAME)])
        yield f"To train without {files} with the suggestion remove: {table}"
    else:
        yield f"Add --apply to move {files} with the suggestion remove out of {root}."


def _moved_lines(moved: Moved) -> list[str]:
    n = len(moved.paths)
    lines = (
        [f"Moved {n:,} file{'' if n == 1 else 's'} to {printable(moved.removed_dir)}."] if n else ["No file was moved."]
    )
    if n:
        undo = shell_line(["featx", "clean", as_argument(moved.removed_dir), "--undo"])
        lines.append(f"To move them back: {undo}")
    return [*lines, *_left_lines(moved)]


def _restored_text(moved: Moved) -> Shown:
    n = len(moved.paths)
    files = f"{n:,} file{'' if n == 1 else 's'}"
    return shown_text([f"Moved {files} back to {printable(moved.data_dir)}.", *_left_lines(moved)])


def _left_lines(moved: Moved) -> list[str]:
    return [f"Not moved: {printable(path)}, because {reason}." for path, reason in moved.left]


def _json(problems: Problems, report_dir: Path, moved: Moved | None) -> dict[str, Any]:
    return {
        "data": str(problems.dataset.root),
        "n_images": problems.dataset.n_images,
        "counts": problems.counts,
        "not_checked": list(problems.not_checked),
        "problems": [asdict(problem) for problem in problems],
        "report_dir": str(report_dir),
        "moved": moved and _moved_json(moved),
    }


def _moved_json(moved: Moved) -> dict[str, Any]:
    return {
        "data_dir": str(moved.data_dir),
        "removed_dir": str(moved.removed_dir),
        "paths": list(moved.paths),
        "left": [{"path": path, "reason": reason} for path, reason in moved.left],
    }
