"""Heat maps: a gray image, with one colour for the evidence for a class, and another for the evidence against it."""

import numpy as np
import numpy.typing as npt
from PIL import Image

#: The colours of evidence for a class and against it, which people with any colour vision tell apart: blue and
#: vermilion of Okabe and Ito (Color universal design, 2008).
FOR, AGAINST = (0, 114, 178), (213, 94, 0)

#: How much of the colour the strongest evidence has; the rest is the image.
_OPACITY = 0.8

#: What red, green and blue add to the brightness of a pixel (ITU-R BT.601).
_BRIGHTNESS = (0.299, 0.587, 0.114)


def draw_heat_map(pixels: npt.NDArray[np.uint8], evidence: npt.ArrayLike) -> npt.NDArray[np.uint8]:
    """Return an image with the evidence over it, `(height, width, 3)` uint8 RGB.

    The opacity of the colours is proportional to the evidence, interpolated between positions. The strongest of the
    image, for or against, has the most.

    Args:
        pixels: `(height, width, 3)` uint8 RGB, the part of the image that the network sees.
        evidence: `(h, w)`, for each position of the features, see `featx.heads.Evidence`.
    """
    height, width, _ = pixels.shape
    values = np.asarray(evidence, np.float32)
    strongest = float(np.abs(values).max()) or 1.0
    strength = np.asarray(Image.fromarray(values / strongest).resize((width, height), Image.Resampling.BILINEAR))
    gray = (pixels @ np.array(_BRIGHTNESS))[..., np.newaxis]
    colour = np.where(strength[..., np.newaxis] > 0, FOR, AGAINST)
    opacity = _OPACITY * np.abs(strength)[..., np.newaxis]
    drawn: npt.NDArray[np.uint8] = np.rint(gray * (1 - opacity) + colour * opacity).astype(np.uint8)
    return drawn
