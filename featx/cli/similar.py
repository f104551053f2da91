"""`featx similar`: the images of a data set that are most similar to photographs."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from featx.cli import options as opt
from featx.cli.predict import find_files
from featx.cli.terminal import say, say_data
from featx.dataset import ImageFolders
from featx.errors import FeatxError
from featx.similar import MAX_K, SimilarImages, find_similar
from featx.storage import StoragePath, new_file
from featx.system import csv_lines, text_table
from featx.text import one_line, printable, shown_text


@click.command()
@opt.DATA
@click.argument("photos", nargs=-1, required=True)
@click.option("-k", type=click.IntRange(1, MAX_K), default=10, show_default=True, help="Images for each photo.")
@click.option(
    "--format",
    "form",
    type=opt.Choice(["table", "csv", "jsonl", "paths"]),
    help="How to print the images; paths prints one file a line.  [default: table on a terminal, else csv]",
)
@click.option("-0", "--null", "ends_null", is_flag=True, help="With --format paths: end names with NUL, for xargs -0.")
@click.option(
    "--html", type=opt.LocalPath(path_type=Path), help="Also write a page with pictures; the file must not exist."
)
@opt.BACKBONE
@opt.RECIPE
@opt.CACHE_DIR
@opt.STAGE_ONE
@opt.OUTPUT
def similar(
    data: ImageFolders,
    photos: tuple[str, ...],
    cache_dir: StoragePath,
    form: str | None,
    html: Path | None,
    output: opt.Output,
    *,
    ends_null: bool,
    **options: Any,
) -> None:
    """Find the images in DATA that are most similar to photos.

    PHOTOS are files, folders, archives, patterns, or - for a list of files on standard input. The similarity is the
    cosine of the features, at most 1. featx compares every image, so it misses none. The features of DATA must be in
    the cache; those of the photos are computed.

    \b
    Example:
      featx similar data/ photo.jpg -k 5 --image-size 150
      featx similar data/ photo.jpg --format paths -0 | xargs -0 cp -t alike/
      featx similar data/ holidays/ --html similar.html
    """
    form = "jsonl" if output.as_json else form or ("table" if sys.stdout.isatty() else "csv")
    _check(form, html, ends_null=ends_null)
    found = find_similar(data, find_files(photos, sys.stdin), cache_dir=cache_dir, show=output.show, **options)
    if html:
        _write_page(found, html)
    _print(found, form, ends_null=ends_null)
    if all(found.reasons):
        click.get_current_context().exit(1)


def _check(form: str, html: Path | None, *, ends_null: bool) -> None:
    """Fail before anything long is done."""
    if ends_null and form != "paths":
        raise click.UsageError("--null is for --format paths.")
    if html and (html.exists() or html.is_symlink()):
        raise FeatxError(f"{printable(html)} already exists: remove it, or choose another file with --html.")


def _write_page(found: SimilarImages, html: Path) -> None:
    from featx.report import contact_sheet

    with new_file(html) as making:
        making.built.write_text(contact_sheet(found, html.parent), encoding="utf-8")


def _print(found: SimilarImages, form: str, *, ends_null: bool) -> None:
    if form == "table":
        say(shown_text(_table(found).split("\n")))
    elif form == "paths":
        end = b"\0" if ends_null else b"\n"
        names = (os.fsencode(str(path)) + end for photo in range(len(found)) for path, *_ in found.of(photo))
        say_data(b"".join(names), ends_line=False)
    else:
        text = {"csv": _csv, "jsonl": _json_lines}[form](found, one_line if sys.stdout.isatty() else str)
        say_data(text.encode("utf-8", "surrogateescape"))


def _table(found: SimilarImages) -> str:
    rows = []
    for number, (photo, reason) in enumerate(zip(found.photos, found.reasons, strict=True)):
        name = f"  {photo}"
        if reason:
            rows.append([name, f"cannot be read: {reason}", "", ""])
        for path, label, similarity in found.of(number):
            rows.append([name, str(path), label, f"{similarity:.3f}"])
            name = ""
    return text_table(["photo", "similar image", "class", "similarity"], rows, n_left=3)


def _csv(found: SimilarImages, shown: Callable[[str], str]) -> str:
    rows = []
    for number, (photo, reason) in enumerate(zip(found.photos, found.reasons, strict=True)):
        if reason:
            rows.append([str(photo), "", "", "", "", reason])
        for rank, (path, label, similarity) in enumerate(found.of(number), start=1):
            rows.append([str(photo), str(rank), f"{similarity:.6f}", str(path), label, ""])
    header = ["photo", "rank", "similarity", "path", "label", "reason"]
    return "".join(csv_lines(header, [list(map(shown, row)) for row in rows])).removesuffix("\n")


def _json_lines(found: SimilarImages, _shown: Callable[[str], str]) -> str:
    return "\n".join(
        json.dumps(
            {
                "photo": str(photo),
                "similar": [
                    {"path": str(path), "label": label, "similarity": similarity}
                    for path, label, similarity in found.of(number)
                ],
                "reason": reason,
            }
        )
        for number, (photo, reason) in enumerate(zip(found.photos, found.reasons, strict=True))
    )
