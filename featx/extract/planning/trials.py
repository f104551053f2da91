"""Trials of a sample, one way after the other, and what follows from them for all images."""

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from featx.dataset import ImageDataset
from featx.engines import ENGINES, calibration_rows, choose_calibration, default_batch_size, is_converted, network_path
from featx.errors import FeatxError
from featx.extract.planning.planned import Estimate, Work
from featx.extract.planning.segments import Ruler
from featx.extract.planning.survey import Survey
from featx.extract.planning.trial_job import Measured, Pace, TrialJob, small_dataset
from featx.extract.planning.trial_process import run_trial
from featx.extract.planning.ways import Way
from featx.images import Views

#: Bytes that the list of a data set takes for each image: 600 to 900 when 60,000 were scanned.
LISTING_BYTES = 900

#: Stage one runs on the sample until so many seconds have been timed: the first batch and the last segment, which all
#: images together have only once, are some hundredths of that.
TIMED_S = 4.0


@dataclass(eq=False)
class Trials:
    """Runs trials.

    Attributes:
        found: all images.
        sample: rows of those to be timed, `(k,)` int64, each of which can be read.
        cache_dir: has, or gets, the converted networks.
        work_dir: a folder for what is written meanwhile.
        workers: decoding threads.
        views: augmented views to be timed as well.
        tick: called while a trial runs.
        auto_engine: what `--engine auto` is here, once a trial knows.
    """

    found: Survey
    sample: np.ndarray
    cache_dir: Path
    work_dir: Path
    workers: int | None
    views: Views | None
    tick: Callable[[], object]
    auto_engine: str | None = None

    def estimate(self, way: Way, missing: Estimate) -> Estimate:
        """Return what the images that are `missing` cost in this way, or why they cannot be computed so."""
        try:
            networks_dir, convert_s = self._with_network(way)
            measured = Measured.from_dict(self._run(way, networks_dir, convert=False)["measured"])
        except FeatxError as error:
            return replace(missing, reason=str(error))
        self.auto_engine = measured.auto_engine or self.auto_engine
        ruler = Ruler(way.recipe, measured.feature_shape, default_batch_size(way.options), self.work_dir)
        images = _paced(missing.images, measured.images, ruler)
        views = _paced(missing.views, measured.views, ruler) if missing.views else None
        restart_s = measured.restart_s if views and views.n_missing and images.n_missing else 0.0
        return replace(
            missing,
            on_gpu=measured.on_gpu,
            images=images,
            views=views,
            listing_s=self.found.listing_s + self.found.reading_s,
            start_s=measured.start_s + restart_s,
            convert_s=convert_s,
            is_converted=networks_dir == self.cache_dir,
            feature_shape=measured.feature_shape,
            peak_memory_bytes=measured.peak_memory_bytes + self._more_memory(measured, images, views, ruler),
            others_share=measured.others_share,
        )

    def _more_memory(self, measured: Measured, images: Work, views: Work | None, ruler: Ruler) -> int:
        """Return the bytes that all images take beyond the trial's: segments as large as they get, and their list."""
        works = [work for work in (images, views) if work and work.pace]
        writing = [ruler.memory_bytes(work.n_missing, work.pace.row_s) for work in works if work.pace]
        in_trial = ruler.memory_bytes(measured.n_in_pass, measured.images.row_s)
        return max(0, *writing) - in_trial + LISTING_BYTES * self.found.n_images

    def _with_network(self, way: Way) -> tuple[Path, float]:
        """Have the network made, if it is not in the cache; return the cache folder that has it, and the seconds.

        Which images an int8 network is calibrated on depends on all of them. If not all were read, it is one for this
        plan only: an extraction that found it in the cache would go on using it.
        """
        if not ENGINES[way.options.engine].converts or is_converted(way.recipe, self.cache_dir):
            return self.cache_dir, 0.0
        if way.recipe.precision != "int8":
            return self.cache_dir, self._run(way, self.cache_dir, convert=True)["converted"]
        floats = replace(way, recipe=replace(way.recipe, precision="float32", calibration=None))
        _, floats_s = self._with_network(floats)
        networks_dir = self.cache_dir
        if self.found.n_unread:
            networks_dir = self.work_dir / "networks-of-sample"
            copy_path = network_path(floats.recipe, networks_dir)
            copy_path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(network_path(floats.recipe, self.cache_dir), copy_path)
        return networks_dir, floats_s + self._run(way, networks_dir, convert=True)["converted"]

    def _run(self, way: Way, networks_dir: Path, *, convert: bool) -> dict[str, Any]:
        job = TrialJob(
            convert=convert,
            recipe=way.recipe,
            weights=way.weights,
            dataset=self._dataset(way),
            networks_dir=networks_dir,
            work_dir=self.work_dir,
            engine_options=way.options,
            workers=self.workers,
            views=self.views,
            timed_s=TIMED_S,
            started_at=time.time(),
        )
        return run_trial(job, self.tick)

    def _dataset(self, way: Way) -> ImageDataset:
        """Return the sample, and the images that an int8 network is calibrated on, as a trial wants them."""
        dataset = self.found.dataset
        rows = [(row, True) for row in self.sample]
        if way.recipe.precision == "int8":
            rows += [(row, False) for row in calibration_rows(choose_calibration(dataset), dataset)]
        return small_dataset(
            Path(str(dataset.root)),
            [(dataset.paths[row], dataset.digests[row].tobytes().hex(), timed) for row, timed in rows],
        )


def _paced(work: Work, pace: Pace | None, ruler: Ruler) -> Work:
    """Return `work` with the time and the room that it takes."""
    return replace(work, pace=pace, room=ruler.room(work.n_missing, pace.row_s)) if pace else work
