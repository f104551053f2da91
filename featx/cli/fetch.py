"""`featx fetch`: images from elsewhere."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from featx.cli import options as opt
from featx.cli.options import say
from featx.errors import FeatxError, printable

if TYPE_CHECKING:
    from featx.dataset.kaggle import Fetched


class Slug(click.ParamType[str]):
    """`sample`, or what is to be fetched from Kaggle."""

    name = "slug"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the slug, if it is one."""
        from featx.dataset.kaggle import parse_slug

        try:
            return "sample" if value == "sample" else str(parse_slug(value))
        except FeatxError as error:
            self.fail(str(error), param, ctx)


@click.command()
@click.argument("slug", type=Slug())
@click.option(
    "--to",
    type=click.Path(path_type=Path),
    default=Path("data"),
    show_default=True,
    help="Folder to write, empty or not there yet.",
)
@opt.ZIP_ENCODING
@opt.OUTPUT
def fetch(slug: str, to: Path, zip_encoding: str | None, quiet: bool, as_json: bool) -> None:
    """Download and unpack a data set or a competition from Kaggle, or write the built-in sample.

    \b
    SLUG is one of
      sample                          scikit-learn's handwritten digits as PNG files
      OWNER/DATASET                   a data set at Kaggle; or OWNER/DATASET/versions/NUMBER
      competition:NAME                a competition at Kaggle

    What was cut off is gone on with by the same command. What is there already is not downloaded again.

    \b
    Example:
      featx fetch tongpython/cat-and-dog --to data/
      featx fetch sample --to data/
    """
    from featx.dataset.kaggle import fetch_data

    fetched = fetch_data(slug, to, zip_encoding=zip_encoding, show=not quiet)
    say(lambda: _as_text(fetched), lambda: _as_json(fetched), quiet=quiet, as_json=as_json)


def _as_text(fetched: "Fetched") -> str:
    from featx.system import size

    folder = printable(fetched.folder)
    if fetched.slug == "sample":
        return f"The sample is in {folder}. Next: {printable(_next(fetched))}"
    already = " already; nothing was downloaded" if fetched.was_there else ""
    return (
        f"{fetched.slug} is in {folder}{already}: {fetched.n_files:,} files, {size(fetched.size_bytes)}. "
        f"Next: {printable(_next(fetched))}"
    )


def _as_json(fetched: "Fetched") -> dict[str, Any]:
    return {
        "slug": fetched.slug,
        "folder": str(fetched.folder),
        "n_files": fetched.n_files,
        "size_bytes": fetched.size_bytes,
        "was_there": fetched.was_there,
        "warnings": list(fetched.warnings),
        "next": _next(fetched),
    }


def _next(fetched: "Fetched") -> str:
    folder = shlex.quote(str(fetched.folder))
    if fetched.slug == "sample":
        return f"featx compare {folder} --image-size 64 --with-scratch-cnn"
    return f"featx extract {folder}"
