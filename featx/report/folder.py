"""The report folder: a comparison as a page, as pictures, as Markdown, and as JSON."""

from pathlib import Path

from featx.compare import Comparison
from featx.errors import FeatxError, printable
from featx.report.html.page import page_html
from featx.report.plots.drawings import draw
from featx.report.text import results_page
from featx.storage import StoragePath, as_path, replacing
from featx.system import shown


def write_report(comparison: Comparison, report_dir: Path | str, data_dir: StoragePath | str | None = None) -> None:
    """Write `index.html`, `results.json`, `results.md` and the pictures to a folder, which is made if need be.

    Thumbnails in the page are made from the images in the data set's folder `data_dir`; without it there are none.

    Each file is written under a temporary name and renamed, so that a final name never holds half a file.

    Raises:
        FeatxError: the folder cannot be made or written.
    """
    if not isinstance(comparison, Comparison):
        raise FeatxError(f"write_report takes what compare_approaches returns. Received: {shown(comparison)}")
    report_dir = as_path(report_dir)
    pictures = draw(comparison)
    files = {
        **pictures,
        "index.html": page_html(comparison, data_dir).encode(),
        "results.json": comparison.to_json().encode(),
        "results.md": results_page(comparison, has_curves="training-curves.png" in pictures).encode(),
    }
    try:
        report_dir.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            with replacing(report_dir / name) as temporary:
                temporary.write_bytes(content)
    except OSError as error:
        raise FeatxError(
            f"The report cannot be written to {printable(report_dir)} ({error.strerror or error}); name a folder that "
            f"can be written to."
        ) from error
