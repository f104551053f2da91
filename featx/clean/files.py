"""What each file is: whether it can be read, its format, its size, and whether there is anything to see in it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np

from featx.clean.problems import LOOK, REMOVE, Problem
from featx.errors import ImageError
from featx.images import decode_image, format_read, image_shape, quiet_pillow, read_file
from featx.storage import StoragePath, is_distant
from featx.system import DaemonThreads, n_cores, progress_bar

#: An image is very small if its shorter side is below this many pixels, and below half of what is usual.
TINY_SIDE = 32

#: An image is very large with more pixels than this, and with ten times as many as usual.
HUGE_PIXELS, HUGE_TIMES = 20_000_000, 10

#: An image is very long if one side is more than so many times the other, and that is twice as much as usual.
LONG_RATIO, LONG_TIMES = 4.0, 2.0

#: An image is of one colour if the standard deviation of its values, of 255, is below this, and below a quarter of what
#: is usual. That of the paper of a scan is about 1, that of a faint photograph about 10.
BLANK_SPREAD, BLANK_SHARE = 3.0, 0.25

#: Suffixes of each format, the usual one first.
SUFFIXES = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png",),
    "WebP": (".webp",),
    "AVIF": (".avif", ".heif", ".hif"),
    "HEIC": (".heic", ".heif", ".hif"),
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"),
    "BMP": (".bmp", ".dib"),
    "DIB": (".dib", ".bmp"),
}

#: How the reasons begin that say that a file has no picture which anybody could still read. Others can be converted,
#: unpacked or read with another package.
_LOST = ("empty file", "truncated: ", "unreadable: ", "not an image: ", "text, not ", "web page ", "XML ", "JSON ")
_CAN_BE_SAVED = ": save it "

#: Images are decoded at this size to see whether they are of one colour.
_SIDE = 64

#: Threads for files elsewhere, most of them waiting; and files whose results are waited for at a time.
_REMOTE_THREADS, _PORTION = 32, 4096


@dataclass(frozen=True, slots=True)
class FileLook:
    """What one file is.

    Attributes:
        format: its format by its first bytes, a key of `SUFFIXES`; empty if it cannot be read.
        height: in pixels, as stored.
        width: the same.
        n_bytes: size of the file.
        spread: standard deviation of the values of the channel that varies most, from 0 to 127.5.
        reason: why it cannot be read; empty if it can.
        is_lost: whether there is no picture in it, or only a part of one.
    """

    format: str = ""
    height: int = 0
    width: int = 0
    n_bytes: int = 0
    spread: float = 0.0
    reason: str = ""
    is_lost: bool = False

    @property
    def n_pixels(self) -> int:
        """How many pixels it has."""
        return self.height * self.width


def look_at_files(sources: Sequence[StoragePath], workers: int | None, *, show: bool) -> list[FileLook]:
    """Return what each file is, in their order.

    Args:
        sources: the files.
        workers: threads; if None, as many as there are cores, and more for files elsewhere.
        show: whether to show progress on stderr.
    """
    n_threads = workers or (_REMOTE_THREADS if sources and is_distant(sources[0]) else n_cores())
    looks: list[FileLook] = []
    with (
        quiet_pillow(),
        progress_bar(len(sources), "files", "files", show=show) as bar,
        DaemonThreads(n_threads, "featx-look") as pool,
    ):
        for start in range(0, len(sources), _PORTION):
            for look in pool.map(look_at, sources[start : start + _PORTION]):
                looks.append(look)
                bar.update()
    return looks


def look_at(path: StoragePath) -> FileLook:
    """Return what one file is."""
    try:
        data = read_file(path)
        height, width = image_shape(data)
        pixels = decode_image(data, (_SIDE, _SIDE))
    except ImageError as error:
        reason = str(error)
        is_lost = error.is_content and reason.startswith(_LOST) and _CAN_BE_SAVED not in reason
        return FileLook(reason=reason, is_lost=is_lost)
    spread = float(pixels.reshape(-1, 3).std(axis=0, dtype=np.float64).max())
    return FileLook(format_read(data) or "", height, width, len(data), spread)


def unreadable_problem(path: str, split: str, label: str, look: FileLook) -> Problem:
    """Return the problem with a file that cannot be read."""
    suggestion = REMOVE if look.is_lost else LOOK
    return Problem("unreadable", path, "", split, label, None, suggestion, look.reason)


def odd_images(
    paths: Sequence[str], splits: Sequence[str], labels: Sequence[str], looks: Sequence[FileLook]
) -> Iterator[Problem]:
    """Yield images that are unlike the others of their data set: of one colour, very small, very large or very long.

    What is usual is the median. So no image of a data set of small ones is small.

    Args:
        paths: of n images that can be read, relative to the data set's folder.
        splits: the split of each.
        labels: the class of each.
        looks: what each is.
    """
    if not looks:
        return
    shorter = np.array([min(look.height, look.width) for look in looks])
    longer = np.array([max(look.height, look.width) for look in looks])
    n_pixels, spread = shorter * longer, np.array([look.spread for look in looks])
    ratio = longer / shorter
    is_blank = (spread < BLANK_SPREAD) & (spread < BLANK_SHARE * np.median(spread))
    is_tiny = (shorter < TINY_SIDE) & (shorter < np.median(shorter) / 2)
    is_huge = (n_pixels > HUGE_PIXELS) & (n_pixels > HUGE_TIMES * np.median(n_pixels))
    is_long = (ratio > LONG_RATIO) & (ratio > LONG_TIMES * np.median(ratio))
    for kind, mask, scores, text in (
        ("blank", is_blank, spread, "nearly one colour: its values vary by {score:.1f} of 255"),
        ("tiny", is_tiny, shorter, "{width}×{height} pixels"),
        ("huge", is_huge, -n_pixels / 1e6, "{width}×{height} pixels"),
        ("shape", is_long, -ratio, "{width}×{height} pixels: one side is {score:.1f} times the other"),
    ):
        rows = np.flatnonzero(mask)
        for row in rows[np.argsort(scores[rows], kind="stable")]:
            score, look = abs(float(scores[row])), looks[row]
            reason = text.format(score=score, width=look.width, height=look.height)
            yield Problem(kind, paths[row], "", splits[row], labels[row], score, LOOK, reason)


def wrong_suffixes(
    paths: Sequence[str], splits: Sequence[str], labels: Sequence[str], looks: Sequence[FileLook]
) -> Iterator[Problem]:
    """Yield images whose suffix is that of another format, with a name that no other file of the data set has.

    The arguments are as for `odd_images`.
    """
    taken = set(paths)
    for path, split, label, look in zip(paths, splits, labels, looks, strict=True):
        suffixes, old = SUFFIXES[look.format], PurePosixPath(path)
        if old.suffix.lower() in suffixes:
            continue
        new, number = old.with_suffix(suffixes[0]), 2
        while str(new) in taken:
            new, number = old.with_name(f"{old.stem}-{number}{suffixes[0]}"), number + 1
        taken.add(str(new))
        article = "an" if look.format == "AVIF" else "a"
        reason = f"{article} {look.format} file with the suffix {old.suffix}"
        yield Problem("suffix", path, "", split, label, None, f"rename to {new.name}", reason)
