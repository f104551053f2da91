"""What a plan says: the cost of an extraction, for each engine and precision that may run it."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from featx.images import Views
from featx.system import brief, duration, size

#: On a quiet machine, an extraction takes as long as was estimated, give or take this share. The range is wider where
#: the measurements differed by more.
MARGIN = 0.15


@dataclass(frozen=True)
class DiskUsage:
    """What features take on the disk.

    Attributes:
        size_bytes: of all files.
        n_segments: the segments they are in.
    """

    size_bytes: int = 0
    n_segments: int = 0

    @property
    def memory_bytes(self) -> int:
        """What collecting and writing them takes at most, above a run that has none.

        That is the segment that is being filled, the one that is being written, and that one again as a file in memory.
        """
        return min(2 * self.size_bytes, 3 * self.size_bytes // max(1, self.n_segments))


@dataclass(frozen=True, kw_only=True)
class Pace:
    """What one image, or one view, takes once the engine is running.

    Attributes:
        row_s: seconds.
        low_s: the least that was measured.
        high_s: the most that was measured.
    """

    row_s: float
    low_s: float
    high_s: float


@dataclass(frozen=True, kw_only=True)
class Work:
    """Images, or augmented views, whose features are wanted.

    Attributes:
        n_cached: those whose features are in the store.
        n_missing: those to be computed: each content once, without what is known to be unreadable.
        room: what their features will take on the disk; so called in the JSON.
        pace: seconds for each; None if there is nothing to compute.
    """

    n_cached: int
    n_missing: int
    room: DiskUsage = DiskUsage()
    pace: Pace | None = None

    @property
    def range_s(self) -> np.ndarray:
        """Seconds that computing what is missing takes: at the least, as measured, and at the most; `(3,)`."""
        if self.pace is None:
            return np.zeros(3)
        row_s = self.pace.row_s
        low_s, high_s = min(self.pace.low_s, row_s * (1 - MARGIN)), max(self.pace.high_s, row_s * (1 + MARGIN))
        return self.n_missing * np.array([low_s, row_s, high_s])


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What an extraction costs with one engine and precision.

    Attributes:
        engine: one of `featx.engines.ENGINES`.
        precision: `"float32"`, `"bfloat16"` or `"int8"`.
        is_chosen: whether `featx extract` with the same options would take it.
        reason: why it cannot run here, or was not tried, one sentence; None if it was tried, and all else is known.
        on_gpu: whether it runs on a GPU.
        images: the images.
        views: their augmented views; None if there are none.
        listing_s: seconds for finding the files, and for reading those whose digests are not known.
        start_s: until the first image is through the network: libraries, weights, compiling; for views once more.
        convert_s: making the network, which is done once: in this plan if `is_converted`, else still to come.
        is_converted: whether the network is in the cache, so that no extraction here has to make it.
        feature_shape: of one image.
        peak_memory_bytes: largest resident memory of the process.
        others_share: the part of the processors, 0 to 1, that other processes used while this was measured.
        n_machines: machines like this one that meet the deadline, each beginning with nothing but the images and the
            weights; 0 if there is nothing to compute, None if there is no deadline, or no number of machines meets it.
    """

    engine: str
    precision: str
    is_chosen: bool = False
    reason: str | None = None
    on_gpu: bool = False
    images: Work
    views: Work | None = None
    listing_s: float = 0.0
    start_s: float = 0.0
    convert_s: float = 0.0
    is_converted: bool = True
    feature_shape: tuple[int, ...] | None = None
    peak_memory_bytes: int = 0
    others_share: float = 0.0
    n_machines: int | None = None

    def __repr__(self) -> str:
        cost = self.reason or f"{duration(self.time_s)}, {size(self.disk.size_bytes)}"
        return f"<Estimate {self.name}: {brief(cost)}>"

    @property
    def name(self) -> str:
        """What it is called."""
        return f"{self.engine} {self.precision}"

    @property
    def works(self) -> list[Work]:
        """The images, and the views if there are any."""
        return [work for work in (self.images, self.views) if work]

    @property
    def n_missing(self) -> int:
        """Images and views to compute."""
        return sum(work.n_missing for work in self.works)

    @property
    def disk(self) -> DiskUsage:
        """What the features of all that is missing take on the disk."""
        usages = [work.room for work in self.works]
        return DiskUsage(sum(one.size_bytes for one in usages), sum(one.n_segments for one in usages))

    @property
    def time_s(self) -> float:
        """Seconds for the whole extraction on this machine as busy as now, from the start of the process to its end."""
        return float(self._range_s[1])

    @property
    def time_low_s(self) -> float:
        """The least that this may come to: the best that was measured, without what other programs took."""
        return float(self._range_s[0]) * (1 - self.others_share)

    @property
    def time_high_s(self) -> float:
        """The most that this may come to, unless the machine gets busier."""
        return float(self._range_s[2])

    @property
    def _range_s(self) -> np.ndarray:
        fixed_s = self.listing_s + self.start_s + (0.0 if self.is_converted else self.convert_s)
        return fixed_s + sum((work.range_s for work in self.works), np.zeros(3))

    def machines_for(self, deadline_s: float | None) -> int | None:
        """Return how many machines like this one are done within `deadline_s` seconds, at the slow end of the range.

        Each of them finds the files, makes the network and starts for itself; only the images are shared out. None if
        that alone takes too long, if it cannot run here, or without a deadline.
        """
        if deadline_s is None or self.reason:
            return None
        if not self.n_missing:
            return 0
        left_s = deadline_s - self.listing_s - self.start_s - self.convert_s
        return math.ceil(sum(work.range_s[2] for work in self.works) / left_s) if left_s > 0 else None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What an extraction will cost on this machine.

    Attributes:
        data_dir: the folder of images.
        backbone: name in `featx.backbones.table.BACKBONES`.
        layer: name of the layer whose output is stored.
        image_size: `(height, width)` in pixels.
        n_images: images in both splits.
        n_train: images in the train split.
        size_bytes: size of all image files.
        n_unread: images that were only counted, because reading them all would take too long. The plan assumes that
            they are readable, different from each other, and not in the store.
        n_sample: images in the sample that were timed.
        warnings: what the user should know about the data, one sentence each.
        unreadable: (path relative to `data_dir`, reason) of files that cannot be opened, and of images in the sample
            that cannot be decoded; they were left out.
        views: augmented views in the plan; None if there are none.
        deadline_s: seconds in which the extraction must be done; None if there is no deadline.
        dtype: the number format of stored features.
        fast: what `--precision fast` means on this machine.
        estimates: one for each engine and precision.
        elapsed_s: seconds that planning took.
    """

    data_dir: Path
    backbone: str
    layer: str
    image_size: tuple[int, int]
    n_images: int
    n_train: int
    size_bytes: int
    n_unread: int
    n_sample: int
    warnings: tuple[str, ...]
    unreadable: tuple[tuple[str, str], ...]
    views: Views | None
    deadline_s: float | None
    dtype: str
    fast: str
    estimates: tuple[Estimate, ...]
    elapsed_s: float

    def __repr__(self) -> str:
        return (
            f"<Plan for {self.n_images:,} images with {self.backbone} at {'x'.join(map(str, self.image_size))}: "
            f"{self.chosen!r}>"
        )

    @property
    def chosen(self) -> Estimate:
        """The engine and precision that `featx extract` with the same options would use."""
        return next(estimate for estimate in self.estimates if estimate.is_chosen)

    @property
    def feature_shape(self) -> tuple[int, ...] | None:
        """The shape of one image's features; None if nothing had to be measured."""
        return next((one.feature_shape for one in self.estimates if one.feature_shape), None)

    @property
    def image_bytes(self) -> int | None:
        """Bytes of one image's features; None if not known."""
        if self.feature_shape is None:
            return None
        return math.prod(self.feature_shape) * np.dtype(self.dtype).itemsize

    @property
    def training_bytes(self) -> int | None:
        """Bytes of all features, those of views included, which stage two holds in memory; None if not known."""
        if self.image_bytes is None:
            return None
        n_viewed = (self.n_images if self.views.of_test else self.n_train) if self.views else 0
        n_rows = self.n_images + n_viewed * (self.views.n if self.views else 0)
        return n_rows * self.image_bytes
