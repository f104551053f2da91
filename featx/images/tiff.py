"""Special cases of TIFF: files that Pillow misreads or cannot read are refused, or read in another way."""

import math
from collections.abc import Mapping
from typing import Any

from PIL import TiffImagePlugin
from PIL.ExifTags import Base as Tag

from featx.errors import ImageError


class TiffImageFile(TiffImagePlugin.TiffImageFile):
    """A TIFF that gives its own picture or an error, never a wrong picture."""

    def _setup(self) -> None:
        """Make ready to decode what the tags, which have been read, describe."""
        tags = self.tag_v2
        _refuse_camera_raw(tags)
        is_planar = tags.get(Tag.PlanarConfiguration) == 2
        if is_planar:
            _refuse_misread_planes(tags)
        if tags.get(Tag.Compression, 1) == 1 and (is_planar or _has_subsampled_color(tags)):
            # Pillow's own reader takes a letter of the mode for a plane, and drops what it says of bits and inversion.
            # What is compressed it leaves to libtiff, which sees for itself that this is not.
            tags[Tag.Compression] = 8
        super()._setup()


def _refuse_camera_raw(tags: Mapping[int, Any]) -> None:
    """Raise `ImageError` for a camera's raw file, whose first page is a thumbnail or no picture yet."""
    has_thumbnail_first = tags.get(Tag.NewSubfileType) == 1 and Tag.SubIFDs in tags
    if Tag.DNGVersion in tags or tags.get(Tag.PhotometricInterpretation) in {32803, 34892}:
        raise ImageError("camera RAW file (such as DNG): develop it to JPEG or PNG")
    if has_thumbnail_first:
        raise ImageError("camera RAW file (such as NEF), which begins with a thumbnail: develop it to JPEG or PNG")


def _refuse_misread_planes(tags: Mapping[int, Any]) -> None:
    """Raise `ImageError` for planes that Pillow takes for others, and where some are missing."""
    photometric, n_samples = tags.get(Tag.PhotometricInterpretation), tags.get(Tag.SamplesPerPixel, 1)
    has_alpha = n_samples > 1 and any(tags.get(Tag.ExtraSamples, ()))
    if photometric == 8 or (photometric in {0, 1, 3} and (has_alpha or n_samples > 2)):
        raise ImageError("CIELAB or gray with alpha or more in separate planes: save it with interleaved samples")
    is_raw = tags.get(Tag.Compression, 1) == 1 and photometric != 6  # of YCbCr, planes may differ in size
    n_bytes = tags.get(Tag.StripByteCounts) or tags.get(Tag.TileByteCounts) or (0,)
    bits = max(tags.get(Tag.BitsPerSample, (1,)))
    if is_raw and all(n_bytes) and 8 * sum(n_bytes) < tags[Tag.ImageWidth] * tags[Tag.ImageLength] * n_samples * bits:
        raise ImageError("truncated: strips, tiles or planes are missing")


def _has_subsampled_color(tags: Mapping[int, Any]) -> bool:
    """Return whether an uncompressed YCbCr TIFF has fewer samples of colour than pixels, by the length of a block."""
    if tags.get(Tag.PhotometricInterpretation) != 6 or tags.get(Tag.SamplesPerPixel, 1) != 3:
        return False
    height = tags.get(Tag.TileLength) or min(tags.get(Tag.RowsPerStrip, tags[Tag.ImageLength]), tags[Tag.ImageLength])
    n_bytes = tags.get(Tag.StripByteCounts) or tags.get(Tag.TileByteCounts) or (math.inf,)
    return bool(n_bytes[0] < tags.get(Tag.TileWidth, tags[Tag.ImageWidth]) * height * 3)


def refuse_missing_parts(image: TiffImagePlugin.TiffImageFile) -> None:
    """Raise `ImageError` if an uncompressed TIFF lacks strips or tiles: Pillow would leave the rest black."""
    parts = [tile.extents for tile in image.tile if tile.codec_name == "raw" and tile.extents]
    covered = sum((right - left) * (bottom - top) for left, top, right, bottom in parts)
    if parts and covered < image.width * image.height:
        raise ImageError("truncated: strips or tiles are missing")
