"""HEIC images, read by the package pillow-heif if it is installed."""

from functools import cache
from importlib import metadata
from importlib.util import find_spec

from PIL import ImageFile

from featx.errors import ImageError
from featx.system import import_failure


def heic_version() -> str:
    """Return the version of pillow-heif; empty if it is not installed."""
    try:
        return metadata.version("pillow-heif") if find_spec("pillow_heif") else ""
    except metadata.PackageNotFoundError:
        return ""


@cache
def heic_image_file() -> type[ImageFile.ImageFile]:
    """Return Pillow's class for a HEIC image.

    Raises:
        ImageError: pillow-heif is not installed, or does not load.
    """
    try:
        from pillow_heif import HeifImageFile
    except ImportError as error:
        advice = import_failure("pillow_heif", error, "featx[heic]")
        raise ImageError(f"HEIC image: {advice}, or save it as JPEG or PNG") from error

    class HeicImageFile(HeifImageFile):  # type: ignore[misc]
        """A HEIC that is turned by its own transformations, which libheif applies: EXIF and XMP repeat them."""

        def _open(self) -> None:
            super()._open()
            for name in ("exif", "xmp"):
                self.info.pop(name, None)

    return HeicImageFile
