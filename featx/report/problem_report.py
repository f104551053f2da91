"""The report on the problems of a data set: a page, a table of all problems, and a table of the images to keep."""

from pathlib import Path
from typing import Any

from featx.clean import Moved, Problems, check_removable, find_problems, folder_for_removed, remove_files
from featx.dataset import Data
from featx.errors import system_errors
from featx.report.folder import PAGE_NAME
from featx.report.html.problems import problems_html
from featx.storage import new_folder, write_text
from featx.system import waiting
from featx.text import printable
from featx.train import REPORTS_NAME

#: All problems; and the images without those to remove, as a table of labels.
PROBLEMS_NAME, KEPT_NAME = "problems.csv", "kept.csv"


def report_problems(
    data: Data,
    report_dir: Path | None = None,
    removed_dir: Path | None = None,
    *,
    apply: bool = False,
    show: bool = False,
    **options: Any,
) -> tuple[Problems, Path, Moved | None]:
    """Find the problems of a data set, and write a report folder with `index.html`, `problems.csv` and `kept.csv`.

    Args:
        data: the data set.
        report_dir: an empty or new folder; a new one in `reports` if None.
        removed_dir: as for `remove_files`.
        apply: then also move the files that are suggested for removal.
        show: show progress on stderr.
        options: of `find_problems`.

    Returns:
        The problems, the folder, and what was moved.

    Raises:
        FeatxError: as for `find_problems` and `remove_files`; or the folder cannot be written.
    """
    if apply:
        folder_for_removed(check_removable(data), removed_dir)  # before anything long is done
    with new_folder(report_dir, Path(REPORTS_NAME), last=PAGE_NAME) as making:
        problems = find_problems(data, show=show, **options)
        with waiting("report", show=show):
            page = problems_html(problems, making.path)
            with system_errors(f"The folder {printable(making.path)}", "written"):
                write_text(making.built / PROBLEMS_NAME, problems.to_csv())
                write_text(making.built / KEPT_NAME, problems.kept.label_table())
                write_text(making.built / PAGE_NAME, page)
    return problems, making.path, remove_files(problems, removed_dir, show=show) if apply else None
