"""Pixels from image files: whatever a camera, a browser or a scanner wrote, as 8-bit RGB of one size.

`docs/images.md` says how files are decoded, which are refused and why, and how reduced-scale decoding was measured.
"""

import ctypes
import logging
import math
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from io import BytesIO
from typing import Any, cast

import numpy as np
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    WebPImagePlugin,
    _imaging,
)
from PIL.ExifTags import Base as Tag

from featx.errors import ImageError
from featx.images.formats import format_read, reason_not_read, without_metadata
from featx.images.framing import Frame, frame_in
from featx.images.heic import heic_image_file
from featx.images.jpeg import refuse_too_many_scans
from featx.images.tiff import TiffImageFile, refuse_missing_parts
from featx.storage import StoragePath, is_distant, read_whole
from featx.text import printable

#: Lower-case suffixes of the files that a data set's folders are searched for. What a file is, its content decides.
IMAGE_SUFFIXES = frozenset(
    {
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".dib", ".gif", ".tif", ".tiff"),
        *(".avif", ".heic", ".heif", ".hif"),
    }
)

#: Images with more pixels are refused as decompression bombs. Pillow's own default, at which it only warns.
MAX_PIXELS = 89_478_485

#: Larger files are not read. The largest image allowed needs 341 MiB uncompressed, in RGBA.
MAX_FILE_MIB = 512

#: A JPEG is decoded at 1/2, 1/4 or 1/8 where that leaves this many times the pixels asked for, in each direction.
#: `benchmarks/jpeg_scale.py` measures what the choice costs.
JPEG_SCALE_MARGIN = 4

#: Files of more comments, chunks, blocks or strips are refused, unless each is a KiB long. In a small file they take
#: less than a second.
MAX_PARTS = 100_000
_SMALL_BYTES = 1 << 18

#: Raised whenever featx reads what it refused before, or refuses for another reason, so that this is tried again.
READS_VERSION = 4

#: An image of 16 bits whose values all lie below this says nothing of the upper two: it may hold 14 bits or fewer.
DIM_BELOW = 1 << 14

#: What turns an image upright, by EXIF orientation (Exif 2.32, tag 0x0112); 1 is upright.
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def read_file(path: StoragePath) -> bytes:
    """Return the whole content of the regular file `path`. Waits only for the disk or the network.

    Raises:
        ImageError: it is not a regular file (a FIFO, socket, device or folder), cannot be read, is empty or is larger
            than 512 MiB. The message is the reason alone.
    """
    try:
        data = read_whole(path, MAX_FILE_MIB << 20)
    except OSError as error:
        raise ImageError(error.strerror or str(error), is_content=False) from error
    if data is None:
        raise ImageError(f"larger than {MAX_FILE_MIB} MiB", is_content=not is_distant(path))
    if not data:
        raise ImageError("empty file")
    return data


def decode_image(data: bytes, image_size: tuple[int, int], aspect_ratio: str | None = None) -> np.ndarray:
    """Return the pixels of an image file, upright, in RGB, resized to `image_size`.

    Safe to call from many threads at once; see `quiet_pillow`.

    Args:
        data: the content of a JPEG, PNG, WebP, AVIF, HEIC, BMP, GIF or TIFF file; of several frames or pages the first
            counts, of several pictures of a HEIC the main one.
        image_size: `(height, width)` in pixels, each at least 1.
        aspect_ratio: `"crop"` or `"pad"` keep that of the image, see `featx.images.framing.frame_in`; None does not.

    Returns:
        `(height, width, 3)` uint8, RGB, C-contiguous. Transparent pixels are composited on white.

    Raises:
        ImageError: `data` is not such a file, is damaged, claims more than `MAX_PIXELS` pixels, asks for too much
            work, or has pixels whose range is not known. The message is the reason alone; no bytes cause any other
            exception.
    """
    pixels = np.empty((*image_size, 3), np.uint8)
    with quiet_pillow():
        decode_into(pixels, data, aspect_ratio)
    return pixels


def image_shape(data: bytes) -> tuple[int, int]:
    """Return `(height, width)` of an image file in pixels, as stored in the file; no pixel is decoded.

    Raises:
        ImageError: `decode_image` does not read `data`, or its header is damaged.
    """
    try:
        with quiet_pillow():
            image = _open(data)
            return image.height, image.width
    except ImageError:
        raise
    except Exception as error:  # Pillow raises a dozen kinds of exception on damaged files
        raise ImageError(_reason_undecoded(error, data)) from error


def decode_into(pixels: np.ndarray, data: bytes, aspect_ratio: str | None = None) -> int:
    """Decode as `decode_image` does, into `pixels`, `(height, width, 3)` uint8; the caller enters `quiet_pillow`.

    Returns:
        The largest value if the image has 16 bits a sample and none reaches `DIM_BELOW`: it is nearly black, and may
        hold data of fewer bits. Else 0.

    Raises:
        ImageError: as for `decode_image`; `pixels` may then hold anything.
    """
    try:
        return _decode_into(pixels, data, aspect_ratio)
    except ImageError:
        raise
    except MemoryError as error:  # the machine's fault, not the file's
        raise ImageError("out of memory", is_content=False) from error
    except Exception as error:  # Pillow raises a dozen kinds of exception on damaged files
        for sparer in without_metadata(data):
            with suppress(Exception):
                return _decode_into(pixels, sparer, aspect_ratio)
        raise ImageError(_reason_undecoded(error, data)) from error


def _decode_into(pixels: np.ndarray, data: bytes, aspect_ratio: str | None) -> int:
    image_size = (pixels.shape[0], pixels.shape[1])
    image = _open(data)
    drafted = _choose_jpeg_scale(image, image_size, aspect_ratio)
    image.load()
    orientation = _orientation(image)
    largest = _largest_if_dim(image, data)
    stored_size = _as_stored(image_size, orientation)
    frame = drafted or frame_in(image.size, stored_size, aspect_ratio, orientation)
    resized = _resize(_rgb(image, data), stored_size, frame)
    if orientation in _TRANSPOSE:
        resized = resized.transpose(_TRANSPOSE[orientation])
    pixels[...] = np.asarray(resized)
    return largest


def _open(data: bytes) -> ImageFile.ImageFile:
    """Return the image with its header read and no pixel decoded yet."""
    if not data:
        raise ImageError("empty file")
    name = format_read(data)
    if name is None:
        raise ImageError(reason_not_read(data))
    is_long = len(data) > _SMALL_BYTES and name not in {"BMP", "DIB"}  # whose every pixel may be a part
    plugin = _PLUGINS.get(name) or heic_image_file()
    image = plugin(_OfFewParts(data) if is_long else BytesIO(data))
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ImageError(f"{width}×{height} pixels: more than {MAX_PIXELS:,} are refused as a decompression bomb")
    if isinstance(image, JpegImagePlugin.JpegImageFile):
        refuse_too_many_scans(image, data)
    if isinstance(image, TiffImageFile):
        refuse_missing_parts(image)
    return image


class _OfFewParts(BytesIO):
    """A file's bytes, of which not too many small parts are read: for each of them, Pillow takes microseconds."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._n_left = MAX_PARTS + len(data) // 1024

    def read(self, size: int | None = -1) -> bytes:
        self._n_left -= 1
        if self._n_left < 0:
            raise ImageError(f"more than {MAX_PARTS:,} parts, such as comments or strips: too much work")
        return super().read(size)


class _JpegImageFile(JpegImagePlugin.JpegImageFile):
    """A JPEG whose resolution may be nonsense."""

    def _read_dpi_from_exif(self) -> None:
        with suppress(Exception):  # Pillow expects half a dozen kinds
            super()._read_dpi_from_exif()


class _AvifImageFile(AvifImagePlugin.AvifImageFile):
    """An AVIF that is turned by its own transformations, which Pillow gives as EXIF: XMP may only repeat them."""

    def _open(self) -> None:
        super()._open()
        self.info.pop("xmp", None)


#: What reads each format, but HEIC, for which there is a package of its own.
_PLUGINS: dict[str, type[ImageFile.ImageFile]] = {
    "JPEG": _JpegImageFile,
    "PNG": PngImagePlugin.PngImageFile,
    "WebP": WebPImagePlugin.WebPImageFile,
    "AVIF": _AvifImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "TIFF": TiffImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "DIB": BmpImagePlugin.DibImageFile,
}


def _choose_jpeg_scale(
    image: ImageFile.ImageFile, image_size: tuple[int, int], aspect_ratio: str | None = None
) -> Frame | None:
    """Have a large JPEG decoded at 1/2, 1/4 or 1/8; return the frame of the network in the decoded image.

    The decoder rounds sides up: 641 pixels at 1/2 become 321, the last of which is half outside the picture. The frame
    ends at 320.5, so that nothing shifts. Returns None for other formats.
    """
    if not isinstance(image, JpegImagePlugin.JpegImageFile):
        return None
    width, height = image.size
    orientation = _orientation(image)
    target_height, target_width = stored_size = _as_stored(image_size, orientation)
    frame = left, top, right, bottom = frame_in(image.size, stored_size, aspect_ratio, orientation)
    most = min((right - left) // target_width, (bottom - top) // target_height) // JPEG_SCALE_MARGIN
    # A pixel of which a part lies outside the picture would be too bright beside a black bar.
    to_bar = (width if left < 0 else 0) | (height if top < 0 else 0)
    wanted = next((scale for scale in (8, 4, 2) if scale <= most and to_bar % scale == 0), 1)
    drafted = image.draft(None, (max(1, width // wanted), max(1, height // wanted)))
    if drafted is None:
        return frame
    scale = width / drafted[1][2]
    return (left / scale, top / scale, right / scale, bottom / scale)


def _as_stored(image_size: tuple[int, int], orientation: int) -> tuple[int, int]:
    """Return `(height, width)` before an image is turned upright, from that afterwards."""
    return image_size if orientation < 5 else image_size[::-1]


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 (upright) to 8. Damaged EXIF data counts as none: the pixels are sound."""
    if isinstance(image, JpegImagePlugin.JpegImageFile) and image.info.keys().isdisjoint({"exif", "xmp"}):
        return 1  # a JPEG has it nowhere else, and getexif would take its time to say so
    with suppress(Exception):
        orientation = image.getexif().get(Tag.Orientation)
        if orientation in _TRANSPOSE:
            return int(orientation)
    return 1


def _rgb(image: ImageFile.ImageFile, data: bytes) -> Image.Image:
    """Return `image` in mode RGB, its transparency composited on white."""
    _refuse_unknown_range(image)
    if image.mode.startswith("I;16"):
        return _from_16_bit(image).convert("RGB")
    if not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")  # which would copy
    if isinstance(image, PngImagePlugin.PngImageFile):
        _scale_transparent_color(image, bit_depth=data[24])
    # Pillow does not convert premultiplied modes to RGBA in one step without dropping alpha.
    straight = image.convert({"La": "LA", "RGBa": "RGBA"}.get(image.mode, image.mode))
    rgba = straight.convert("RGBA")
    paper = Image.new("RGB", rgba.size, "white")
    paper.paste(rgba, mask=rgba.getchannel("A"))
    return paper


def _refuse_unknown_range(image: ImageFile.ImageFile) -> None:
    """Raise `ImageError` for numbers that are measurements, not shades: nothing in the file says which is white."""
    if image.mode == "F":
        raise ImageError("floating-point pixels: which value is white is not known")
    if image.mode == "I":
        raise ImageError("32-bit or signed integer pixels: which value is white is not known")
    if isinstance(image, TiffImageFile) and 2 in image.tag_v2.get(Tag.SampleFormat, ()):
        raise ImageError("signed integer pixels: which value is white is not known")


def _from_16_bit(image: ImageFile.ImageFile) -> Image.Image:
    """Return a 16-bit grayscale image in 8 bits, 0 to 255 for black to white. Pillow's own conversion clips at 255."""
    white, inverted = 65535, False
    if isinstance(image, TiffImageFile):
        white = 2 ** image.tag_v2[Tag.BitsPerSample][0] - 1  # a 12-bit TIFF has this mode too
        inverted = image.tag_v2.get(Tag.PhotometricInterpretation) == 0
    shades = np.minimum(np.arange(65536) * 255.0 / white + 0.5, 255).astype(np.uint8)
    if inverted:
        shades = 255 - shades
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        shades[transparent] = 255
    return Image.fromarray(shades[np.asarray(image)])


def _largest_if_dim(image: ImageFile.ImageFile, data: bytes) -> int:
    """Return the largest shade or colour of an image of 16 bits that has none from `DIM_BELOW` on; else 0."""
    if isinstance(image, PngImagePlugin.PngImageFile):
        has_16_bits = data[24] == 16
    else:
        has_16_bits = isinstance(image, TiffImageFile) and 16 in image.tag_v2.get(Tag.BitsPerSample, ())
    if not has_16_bits:
        return 0
    if image.mode.startswith("I;16"):
        largest = int(np.asarray(image).max())
    elif image.mode in {"RGB", "RGBA"}:
        largest = int(np.max(image.getextrema()[:3])) << 8 | 255  # Pillow keeps no more than the high byte
    else:
        return 0
    return largest if largest < DIM_BELOW else 0


def _scale_transparent_color(image: PngImagePlugin.PngImageFile, bit_depth: int) -> None:
    """Bring a PNG's transparent colour to 8 bits, as Pillow does with its pixels but not with this colour."""
    color = image.info.get("transparency")
    if image.mode == "RGB" and bit_depth == 16 and isinstance(color, tuple):
        image.info["transparency"] = tuple(level >> 8 for level in color)
    elif image.mode == "L" and bit_depth < 8 and isinstance(color, int):
        image.info["transparency"] = color * 255 // (2**bit_depth - 1)


def _resize(image: Image.Image, image_size: tuple[int, int], frame: Frame) -> Image.Image:
    """Return the `frame` of `image` resized to `(height, width)`, bilinear with antialiasing.

    Along rows first, then along columns, each rounded: Pillow left to itself chooses an order by the sides since its
    version 13, and one order always gives the same pixels, whatever the version.
    """
    height, width = image_size
    left, top, right, bottom = frame
    n_columns, n_rows = right - left, bottom - top
    # A column of pixels would grow to many gigabytes on the way, and so would the bars beside it.
    if max(width, n_columns) * image.height <= MAX_PIXELS and width * n_rows <= MAX_PIXELS:
        image = _resized(image, (width, image.height), (left, 0, right, image.height))
        return _resized(image, (width, height), (0, top, width, bottom))
    if max(height, n_rows) * image.width > MAX_PIXELS or height * n_columns > MAX_PIXELS:
        raise ImageError(f"{image.width}×{image.height} pixels: too long and thin to add black bars")
    image = _resized(image, (image.width, height), (0, top, image.width, bottom))
    return _resized(image, (width, height), (left, 0, right, height))


def _resized(image: Image.Image, size: tuple[int, int], frame: Frame) -> Image.Image:
    """Return the `frame` of `image`, black where it goes beyond the image, resized to `size` in one pass."""
    left, top, right, bottom = frame
    start_x, start_y = min(0, math.floor(left)), min(0, math.floor(top))
    with_bars = (start_x, start_y, max(image.width, math.ceil(right)), max(image.height, math.ceil(bottom)))
    if with_bars != (0, 0, *image.size):
        image = image.crop(with_bars)
        frame = (left - start_x, top - start_y, right - start_x, bottom - start_y)
    return image.resize(size, Image.Resampling.BILINEAR, frame)


def _reason_undecoded(error: Exception, data: bytes) -> str:
    """Return in few words why Pillow could not decode `data`."""
    if isinstance(error, Image.DecompressionBombError):
        return f"more than {MAX_PIXELS:,} pixels are refused as a decompression bomb"
    text = printable(str(error))[:120].lower()
    if not isinstance(error, OSError | SyntaxError | ValueError):
        text = f"{type(error).__name__.lower()} {text}".strip()  # a KeyError says no more than the key
    if "unknown pixel mode" in text:
        return "unreadable: Pillow does not know this kind of sample: save it as 8-bit RGB or gray"
    if "requires a buffer" in text:  # struct's words for a header that is cut off
        return "truncated: the header is cut off"
    return f"{'truncated' if 'truncated' in text or _lacks_its_end(data) else 'unreadable'}: {text}"


def _lacks_its_end(data: bytes) -> bool:
    """Return whether a JPEG, PNG or WebP file is shorter than it should be, to tell a partial download from damage."""
    if data.startswith(b"RIFF"):
        return int.from_bytes(data[4:8], "little") + 8 > len(data)
    end = {b"\xff\xd8": b"\xff\xd9", b"\x89P": b"IEND"}.get(data[:2])
    return end is not None and end not in data


@contextmanager
def quiet_pillow() -> Iterator[None]:
    """Keep Pillow's warnings (corrupt EXIF data, odd TIFF tags) from the terminal, and from becoming errors.

    `decode_image` enters it by itself; a threaded pipeline enters it once around all its threads. Only the outermost of
    nested or overlapping uses touches `warnings` and `logging`, which belong to the whole process.
    """
    _silence.enter()
    try:
        yield
    finally:
        _silence.leave()


class _Silence:
    """Silences Pillow from the first `enter` to the last `leave`.

    `warnings.catch_warnings` would not do: threads that overlap restore each other's filters.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._depth = 0
        self._handler = logging.NullHandler()
        self._undo = ExitStack()

    def enter(self) -> None:
        with self._lock:
            self._depth += 1
            if self._depth > 1:
                return
            warnings.filterwarnings("ignore", module=r"PIL\.")
            self._undo.callback(_remove_warning_filter, warnings.filters[0])
            logger = logging.getLogger("PIL")
            self._undo.callback(setattr, logger, "propagate", logger.propagate)
            logger.propagate = False
            self._undo.callback(logger.removeHandler, self._handler)
            logger.addHandler(self._handler)  # without any, records go to stderr
            self._undo.callback(_set_tiff_error_handler, _set_tiff_error_handler(None))

    def leave(self) -> None:
        with self._lock:
            self._depth -= 1
            if self._depth == 0:
                self._undo.close()


def _remove_warning_filter(added: Any) -> None:
    with suppress(ValueError):  # somebody else has reset the filters meanwhile
        cast("list[Any]", warnings.filters).remove(added)


def _set_tiff_error_handler(handler: int | None) -> int | None:
    """Set libtiff's error handler, whose default writes to file descriptor 2; return the address of the one before.

    Nothing happens where Pillow's libtiff cannot be reached (a statically linked build): it then stays talkative.
    """
    try:
        # Looks the name up in Pillow's extension module and the libraries it was linked with.
        setter = ctypes.CDLL(_imaging.__file__).TIFFSetErrorHandler
    except (AttributeError, OSError):
        return None
    setter.argtypes, setter.restype = [ctypes.c_void_p], ctypes.c_void_p
    previous: int | None = setter(handler)
    return previous


_silence = _Silence()
