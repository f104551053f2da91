"""The pixels of augmented views. `featx.augmentation` says what a view is; here it is drawn."""

import math

import numpy as np
from PIL import Image

from featx.augmentation import Augmentation, view_matrix


def make_view(pixels: np.ndarray, digest: bytes, view: int, augmentation: Augmentation) -> np.ndarray:
    """Return an augmented view of an image: the same pixels on every machine and in every run.

    What lies beyond the image is as its nearest edge, and between pixels it is interpolated bilinearly: what
    `ImageDataGenerator` does unless told otherwise.

    Args:
        pixels: `(height, width, 3)` uint8 RGB.
        digest: SHA-256 of the image file, 32 bytes.
        view: from 1.
        augmentation: what a view may differ in.

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
        turned = image.transform((width, height), Image.Transform.AFFINE, tuple(matrix.ravel()), _BILINEAR)
        out[:, :, channel] = np.rint(np.asarray(turned))
    return out


_BILINEAR = Image.Resampling.BILINEAR


def _margins(matrix: np.ndarray, height: int, width: int) -> tuple[int, int, int, int]:
    """Return how many pixels left, top, right and bottom of an image a view looks beyond it, and one for its edge."""
    corners = np.array([[x, y, 1] for x in (0.5, width - 0.5) for y in (0.5, height - 0.5)]) @ matrix.T
    (left, top), (right, bottom) = corners.min(axis=0), corners.max(axis=0)
    beyond = (-left, -top, right - width, bottom - height)
    sides = [max(0, math.ceil(distance)) + 1 for distance in beyond]
    return sides[0], sides[1], sides[2], sides[3]
