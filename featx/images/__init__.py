"""From the bytes of an image file to pixels, and to augmented views of them.

Whatever a camera, a browser or a scanner wrote becomes 8-bit RGB of one size, or an `ImageError` that says why not.
"""

from featx.images.augmentation import (
    AUGMENTATIONS,
    MAX_VIEWS,
    REPORT,
    VIEWS_VERSION,
    Augmentation,
    Views,
    as_views,
    choose_views,
    make_view,
)
from featx.images.decode import (
    IMAGE_SUFFIXES,
    MAX_FILE_MIB,
    MAX_PIXELS,
    READS_VERSION,
    decode_image,
    decode_into,
    image_shape,
    quiet_pillow,
    read_file,
)
from featx.images.formats import format_read
from featx.images.framing import ASPECT_RATIOS
from featx.images.heic import heic_version
