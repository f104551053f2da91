"""A picture of some training images and their augmented views, to look at before the views are computed."""

import logging
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from featx.backbones import describe_network, find_backbone, is_network_file
from featx.dataset import Data, ImageDataset, label_texts, scan
from featx.errors import FeatxError, ImageError
from featx.extract import DEFAULT_CACHE_DIR, RECIPE_DEFAULTS, kept_aspect_ratio, with_defaults
from featx.images import Views, decode_image, make_view, read_file
from featx.report.plots.page import are_numbered, class_labels, new_figure, page_style, png
from featx.storage import StoragePath, as_cache_dir, replacing
from featx.text import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

log = logging.getLogger("featx")

#: Views in the picture if their number is not chosen, and the most there is room for.
N_VIEWS = 8

#: Images in the picture, spread over the classes.
N_IMAGES = 6

_CELL_IN = 1.15
_LABEL_WIDTH = 14


def draw_preview(
    data_dir: Data,
    picture_dir: Path,
    *,
    cache_dir: StoragePath | str = DEFAULT_CACHE_DIR,
    views: Views | None = None,
    backbone: str | None = None,
    image_size: tuple[int, int] | None = None,
    resize: str | None = None,
) -> Path:
    """Draw some training images with their views, and return the path of the picture, `views.png`.

    Args:
        data_dir: as for `featx.extract.extract.extract_features`.
        picture_dir: the folder to write it to.
        cache_dir: remembers digests of files.
        views: what to draw, at most the first `N_VIEWS`; the report's if None.
        backbone: name in `featx.backbones.table.BACKBONES`, or the path of a network file; its image size counts if
            there is no `image_size`.
        image_size: `(height, width)` in pixels.
        resize: see `featx.extract.RecipeOptions`.

    Raises:
        FeatxError: the data set is not fit, none of its images can be read, or the picture cannot be written.
    """
    dataset = scan(data_dir, cache_dir, to_train=False)
    views = views or Views(N_VIEWS)
    size = image_size or _own_size(backbone or RECIPE_DEFAULTS["backbone"], cache_dir)
    rows = list(_readable(dataset, size, kept_aspect_ratio(with_defaults({"resize": resize})["resize"])))
    if not rows:
        raise FeatxError(f"No training image of {printable(dataset.root)} can be read.")
    with page_style(dataset.class_names):
        picture = png(_figure(dataset, rows, views))
    path = picture_dir / "views.png"
    with replacing(path) as temporary:
        temporary.write_bytes(picture)
    if are_numbered(dataset.class_names, _LABEL_WIDTH):
        numbers = (f"{n} is {printable(name)}" for n, name in enumerate(dataset.class_names, start=1))
        log.warning("The picture shows numbers for the classes: %s.", ", ".join(numbers))
    return path


def _own_size(backbone: str, cache_dir: StoragePath | str) -> tuple[int, int]:
    """Return the `(height, width)` of the images that a backbone gets unless told otherwise."""
    if is_network_file(backbone):
        return describe_network(backbone, as_cache_dir(cache_dir)).choose_image_size(None, None)
    return find_backbone(backbone).image_size


def _readable(
    dataset: ImageDataset, image_size: tuple[int, int], aspect_ratio: str | None
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield rows of `N_IMAGES` training images, as many of each class, with their pixels."""
    labels = np.unique(dataset.strata)[:N_IMAGES]
    for label in labels:
        rows = np.flatnonzero(~dataset.is_test & (dataset.strata == label))
        yield from islice(_decoded(dataset, rows, image_size, aspect_ratio), N_IMAGES // len(labels))


def _decoded(
    dataset: ImageDataset, rows: np.ndarray, size: tuple[int, int], aspect_ratio: str | None
) -> Iterator[tuple[int, np.ndarray]]:
    for row in rows:
        with suppress(ImageError):  # the extraction will say so
            yield int(row), decode_image(read_file(dataset.root / dataset.paths[row]), size, aspect_ratio)


def _figure(dataset: ImageDataset, rows: list[tuple[int, np.ndarray]], views: Views) -> "Figure":
    n_views = min(views.n, N_VIEWS)
    size_in = (_CELL_IN * (n_views + 1) + 0.3, _CELL_IN * len(rows) + 0.75)
    figure = new_figure(size_in)
    figure.suptitle(f"Images (left) and their views: {views.augmentation}", x=0.01, ha="left", fontsize=11)
    labels = class_labels(dataset.class_names, _LABEL_WIDTH)
    grid = figure.subplots(len(rows), n_views + 1, squeeze=False)
    for axes_row, (row, pixels) in zip(grid, rows, strict=True):
        digest = dataset.digests[row].tobytes()
        pictures = [make_view(pixels, digest, view, views.augmentation) for view in range(1, n_views + 1)]
        for axes, picture in zip(axes_row, [pixels, *pictures], strict=True):
            axes.imshow(picture)
            axes.set_axis_off()
        axes_row[0].set_title(label_texts(dataset.labels[[row]], labels)[0], fontsize=9, loc="left")
    for number, axes in enumerate(grid[0][1:], 1):
        axes.set_title(f"view {number}", fontsize=9, loc="left")
    return figure
