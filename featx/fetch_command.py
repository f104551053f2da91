"""`featx fetch`: images from elsewhere."""

from pathlib import Path

import click

from featx.errors import printable


@click.command()
@click.argument("slug", type=click.Choice(["sample"]))
@click.option(
    "--to",
    "sample_dir",
    type=click.Path(path_type=Path),
    default=Path("data"),
    show_default=True,
    help="Folder to write.",
)
def fetch(slug: str, sample_dir: Path) -> None:
    """Write the built-in sample: scikit-learn's handwritten digits as PNG files.

    \b
    Example:
      featx fetch sample --to data/
    """
    from featx.sources import write_sample

    folder = printable(write_sample(sample_dir))
    click.echo(f"The {slug} is in {folder}. Next: featx compare {folder} --image-size 64 --with-scratch-cnn")
