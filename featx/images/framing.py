"""Which part of an image the network sees, where the image has another shape than the pixels that are wanted."""

#: What `--resize` may do with an image's shape instead of stretching it: crop the image, or add black bars.
ASPECT_RATIOS = ("crop", "pad")

#: By EXIF orientation, whether turning an image upright swaps the ends of its rows, and of its columns.
_SWAPS_ENDS_OF_ROWS = {2, 3, 7, 8}
_SWAPS_ENDS_OF_COLUMNS = {3, 4, 6, 7}

#: Left, top, right and bottom in pixels from the top left corner of an image; what lies outside the image is black.
Frame = tuple[float, float, float, float]


def frame_in(
    size: tuple[int, int], image_size: tuple[int, int], aspect_ratio: str | None, orientation: int = 1
) -> Frame:
    """Return the part of an image that is resized to `image_size`, in whole pixels.

    >>> frame_in((640, 480), (150, 150), None)
    (0, 0, 640, 480)
    >>> frame_in((640, 480), (150, 150), "crop")
    (80, 0, 560, 480)
    >>> frame_in((640, 480), (150, 150), "pad")
    (0, -80, 640, 560)

    The numbers are those of Keras: `crop_to_aspect_ratio` and `pad_to_aspect_ratio` of `keras.ops.image.resize`. Both
    bars are equally wide, so that an odd pixel is missing. If the cropped margins cannot be equal, the right or lower
    one of the upright image is wider.

    Args:
        size: `(width, height)` of the image as it is stored, in pixels.
        image_size: `(height, width)` that the stored image is resized to, in pixels.
        aspect_ratio: `"crop"` for the largest box in the middle that has the aspect ratio of `image_size`, `"pad"` for
            the image with black bars that give it to it, None for the image itself, which is then stretched.
        orientation: what turns the stored image upright, by EXIF, from 1 to 8.
    """
    width, height = size
    if aspect_ratio is None:
        return (0, 0, width, height)
    target_height, target_width = image_size
    fitting_width, fitting_height = height * target_width // target_height, width * target_height // target_width
    if aspect_ratio == "pad":
        bar_x, bar_y = max(0, fitting_width - width) // 2, max(0, fitting_height - height) // 2
        return (-bar_x, -bar_y, width + bar_x, height + bar_y)
    cropped_width, cropped_height = max(1, min(width, fitting_width)), max(1, min(height, fitting_height))
    left, top = (width - cropped_width) // 2, (height - cropped_height) // 2
    if orientation in _SWAPS_ENDS_OF_ROWS:
        left = width - cropped_width - left
    if orientation in _SWAPS_ENDS_OF_COLUMNS:
        top = height - cropped_height - top
    return (left, top, left + cropped_width, top + cropped_height)
