"""Augmented views of images: how they may differ, and their pixels, equal on every machine and in every run."""

import hashlib
import math
from dataclasses import dataclass, fields, replace
from numbers import Real
from typing import Any, Self

import numpy as np
from PIL import Image

from featx.errors import FeatxError
from featx.system import shown, whole_number

#: Raised by one whenever the same settings give other pixels, so that old views are not mixed with new ones.
VIEWS_VERSION = 1

#: Views are numbered with 16 bits, from 1; 0 is the image itself.
MAX_VIEWS = 65535

#: Coefficients are rounded to multiples of this. Coordinates and grey levels then need less than the 53 bits of a
#: float64 at every step of bilinear interpolation, so that nothing is rounded before the end, and every machine gets
#: the same pixels, whether or not its processor fuses multiplication and addition.
COEFFICIENT_STEP = 2.0**-20

_SALT = b"featx view"


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """How a view may differ from its image, with the meaning and units of Keras's `ImageDataGenerator`.

    Each view of an image draws uniformly from the whole range. All numbers are 0, no change, by default.

    Attributes:
        flip: every second view, on average, is mirrored left to right.
        rotation: degrees, from 0 to 180: the largest rotation, in either direction.
        zoom: from 0 to below 1; height and width are each scaled by `1 - zoom` to `1 + zoom`.
        shear: degrees, from 0 to below 90: the largest shear, in either direction.
        version: see `VIEWS_VERSION`.

    Raises:
        FeatxError: a number is out of its range.
    """

    flip: bool = False
    rotation: float = 0.0
    zoom: float = 0.0
    shear: float = 0.0
    version: int = VIEWS_VERSION

    def __post_init__(self) -> None:
        for name, limit, unit in (("rotation", 180.0, "degrees"), ("zoom", 0.99, ""), ("shear", 89.0, "degrees")):
            value = getattr(self, name)
            if not isinstance(value, Real) or not 0 <= float(value) <= limit:
                raise FeatxError(f"{name} must be from 0 to {limit:g} {unit}".strip() + f". Received: {value}")
            object.__setattr__(self, name, float(value))  # 20 and 20.0 are one setting, and one key

    @classmethod
    def from_dict(cls, members: dict[str, Any]) -> Self:
        """Return the settings that `dataclasses.asdict` made `members` of.

        Raises:
            TypeError: a member is missing, unknown, or of another type.
            FeatxError: a number is out of its range.
        """
        for field in fields(cls):
            if type(members[field.name]) is not field.type:
                raise TypeError(f"{field.name} has the wrong type")
        return cls(**members)

    @property
    def changes_nothing(self) -> bool:
        """Whether every view would be the image itself."""
        return not (self.flip or self.rotation or self.zoom or self.shear)

    def __str__(self) -> str:
        """Return the settings as one would type them.

        >>> str(REPORT)
        '--flip --rotation 20 --zoom 0.2 --shear 0.3'
        """
        numbers = {"rotation": self.rotation, "zoom": self.zoom, "shear": self.shear}
        typed = [f"--{name} {value!r}".removesuffix(".0") for name, value in numbers.items() if value]
        return " ".join([*(["--flip"] if self.flip else []), *typed])


#: What the report gave `ImageDataGenerator`. Its `shear_range` counts in degrees, so that 0.3 is next to nothing: the
#: radians that older versions took would have been 17°.
REPORT = Augmentation(flip=True, rotation=20, zoom=0.2, shear=0.3)

#: Sets of settings by name.
AUGMENTATIONS = {"report": REPORT}


@dataclass(frozen=True)
class Views:
    """Augmented views of images.

    Attributes:
        n: number of views of each training image, numbered from 1.
        augmentation: how they are made.
        of_test: whether test images have them as well, to be averaged over.

    Raises:
        FeatxError: no views, too many, or ones that would be copies of their image.
    """

    n: int
    augmentation: Augmentation = REPORT
    of_test: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "n", whole_number("The number of views", self.n, 1, MAX_VIEWS))
        if not isinstance(self.augmentation, Augmentation):
            raise FeatxError(f"The augmentation of views must be an Augmentation. Received: {shown(self.augmentation)}")
        if self.augmentation.changes_nothing:
            raise FeatxError(
                "These views would be copies of their image. Choose how they differ with --augment report, --flip, "
                "--rotation, --zoom or --shear."
            )


def as_views(given: Views | int | None) -> Views | None:
    """Return views as they are; for a number, as many views with the report's augmentation.

    >>> as_views(4) == Views(4, REPORT), as_views(None)
    (True, None)

    Raises:
        FeatxError: it is neither, or as `Views`.
    """
    return given if given is None or isinstance(given, Views) else Views(given)


def choose_views(n_views: int, augment: str | None, *, of_test: bool = False, **settings: float | None) -> Views | None:
    """Return the views that the command-line options describe; None for no views.

    Args:
        n_views: number of views of each image.
        augment: a name in `AUGMENTATIONS`; if None and no settings are given, the report's.
        of_test: whether test images have them as well.
        settings: members of `Augmentation`, which override those of `augment`; None if not given.

    Raises:
        FeatxError: settings of views, but no views.
    """
    given = {name: value for name, value in settings.items() if value is not None}
    if not n_views:
        if augment or given or of_test:
            raise FeatxError("These options need augmented views. Set their number per image, such as --views 8.")
        return None
    start = AUGMENTATIONS[augment] if augment else Augmentation() if given else REPORT
    return Views(n_views, replace(start, **given), of_test=of_test)  # type: ignore[arg-type]  # flip is a bool


def view_matrix(digest: bytes, view: int, augmentation: Augmentation, image_size: tuple[int, int]) -> np.ndarray:
    """Return the matrix that maps each point of a view to the point of the image that it shows.

    A pure function of its arguments. The geometry is that of `ImageDataGenerator.apply_transform` in Keras
    (`keras/src/legacy/preprocessing/image.py`): about the centre, rotation times shear times zoom from view to image,
    and the view flipped at last.

    Args:
        digest: SHA-256 of the image file, 32 bytes.
        view: from 1.
        augmentation: what may differ.
        image_size: `(height, width)` in pixels.

    Returns:
        `(2, 3)` float64, multiples of `COEFFICIENT_STEP`: times `(x, y, 1)` of a view, where pixel centres are at
        halves, it is `(x, y)` of the image.
    """
    is_flipped, turned, slanted, zoomed_y, zoomed_x = _draws(digest, view)
    angle = math.radians(augmentation.rotation) * (2 * turned - 1)
    slant = math.radians(augmentation.shear) * (2 * slanted - 1)
    zoom_y, zoom_x = (1 + augmentation.zoom * (2 * draw - 1) for draw in (zoomed_y, zoomed_x))
    # Rows and columns are (y, x) here, as in Keras.
    rotation = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    shear = np.array([[1, -math.sin(slant)], [0, math.cos(slant)]])
    (yy, yx), (xy, xx) = rotation @ shear @ np.diag([zoom_y, zoom_x])
    if augmentation.flip and is_flipped < 0.5:
        yx, xx = -yx, -xx
    linear = _rounded(np.array([[xx, xy], [yx, yy]]))
    centre = np.array(image_size[::-1]) / 2
    return np.hstack([linear, _rounded(centre - linear @ centre)[:, np.newaxis]])


def _draws(digest: bytes, view: int) -> list[float]:
    """Return five numbers from 0 to below 1 that depend on the image and the number of its view only."""
    hashed = hashlib.sha256(_SALT + digest + view.to_bytes(2, "big")).digest()
    return [int.from_bytes(hashed[6 * i : 6 * i + 6], "big") / 2**48 for i in range(5)]


def _rounded(coefficients: np.ndarray) -> np.ndarray:
    return np.round(coefficients / COEFFICIENT_STEP) * COEFFICIENT_STEP


def make_view(pixels: np.ndarray, digest: bytes, view: int, augmentation: Augmentation) -> np.ndarray:
    """Return an augmented view of an image: the same pixels on every machine and in every run.

    Points outside the image take the value of the nearest edge. Values between pixels are interpolated bilinearly. Both
    are the defaults of `ImageDataGenerator`.

    Args:
        pixels: `(height, width, 3)` uint8 RGB.
        digest: SHA-256 of the image file, 32 bytes.
        view: from 1.
        augmentation: how a view may differ.

    Returns:
        `(height, width, 3)` uint8 RGB.
    """
    height, width = pixels.shape[:2]
    matrix = view_matrix(digest, view, augmentation, (height, width))
    left, top, right, bottom = _margins(matrix, height, width)
    padded = np.pad(pixels, ((top, bottom), (left, right), (0, 0)), mode="edge").astype(np.float32)
    matrix[:, 2] += left, top  # whole pixels, so that coefficients stay multiples of their step
    out = np.empty_like(pixels)
    for channel in range(3):
        # As floating-point numbers: of bytes, Pillow would cut off the fraction instead of rounding.
        image = Image.fromarray(np.ascontiguousarray(padded[:, :, channel]))
        turned = image.transform(
            (width, height), Image.Transform.AFFINE, tuple(matrix.ravel()), Image.Resampling.BILINEAR
        )
        out[:, :, channel] = np.rint(np.asarray(turned))
    return out


def _margins(matrix: np.ndarray, height: int, width: int) -> tuple[int, int, int, int]:
    """Return how many pixels left, top, right and bottom of an image a view looks beyond it, and one for its edge."""
    corners = np.array([[x, y, 1] for x in (0.5, width - 0.5) for y in (0.5, height - 0.5)]) @ matrix.T
    (left, top), (right, bottom) = corners.min(axis=0), corners.max(axis=0)
    beyond = (-left, -top, right - width, bottom - height)
    sides = [max(0, math.ceil(distance)) + 1 for distance in beyond]
    return sides[0], sides[1], sides[2], sides[3]
