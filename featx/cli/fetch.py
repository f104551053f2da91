"""`featx fetch`: downloads images from Kaggle, or writes the sample."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from featx.cli import options as opt
from featx.system import as_argument, shell_line, size
from featx.text import Shown, shown_text

if TYPE_CHECKING:
    from featx.dataset.kaggle import Fetched


def _slug(text: str) -> str:
    """Return `text` if it names the sample or something at Kaggle; else raise FeatxError."""
    from featx.dataset.kaggle import parse_slug

    return "sample" if text == "sample" else str(parse_slug(text))


@click.command()
@click.argument("slug", type=opt.Parsed("slug", _slug))
@click.option(
    "--to",
    type=opt.LocalPath(path_type=Path),
    default=Path("data"),
    show_default=True,
    help="Folder to write; must be empty or new.",
)
@opt.ZIP_ENCODING
@opt.OUTPUT
def fetch(slug: str, to: Path, zip_encoding: str | None, output: opt.Output) -> None:
    """Download a data set or a competition from Kaggle.

    It unpacks what it downloads. For the slug sample, it writes the built-in sample instead.

    \b
    SLUG is one of
      sample                          scikit-learn's handwritten digits as PNG files
      OWNER/DATASET                   a data set at Kaggle; or OWNER/DATASET/versions/NUMBER
      competition:NAME                a competition at Kaggle

    If a download was interrupted, run the same command again to resume it. Nothing is downloaded twice.

    \b
    Example:
      featx fetch tongpython/cat-and-dog --to data/
      featx fetch sample --to data/
    """
    from featx.dataset.kaggle import fetch_data

    output.say(fetch_data(slug, to, zip_encoding=zip_encoding, show=output.show), _to_text, _to_json)


def _to_text(fetched: "Fetched") -> Shown:
    already = " already; nothing was downloaded" if fetched.was_there else ""
    there = f"{fetched.slug} is in {fetched.folder}{already}: {fetched.n_files:,} files, {size(fetched.size_bytes)}."
    if fetched.slug == "sample":
        there = f"The sample is in {fetched.folder}."
    return shown_text([f"{there} Next: {_next(fetched)}"])


def _to_json(fetched: "Fetched") -> dict[str, Any]:
    return {**asdict(fetched), "folder": str(fetched.folder), "next": _next(fetched)}


def _next(fetched: "Fetched") -> str:
    words = ["featx", "extract", as_argument(fetched.folder)]
    if fetched.slug == "sample":
        words = ["featx", "compare", as_argument(fetched.folder), "--image-size", "64", "--with-scratch-cnn"]
    return shell_line(words)
