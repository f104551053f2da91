"""What a trial is asked, and what it answers: both travel between processes as JSON."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from featx.backbones import Weights
from featx.dataset import ImageDataset
from featx.engines import EngineOptions
from featx.images import Augmentation, Views
from featx.recipe import Recipe


@dataclass(frozen=True, eq=False, kw_only=True)
class TrialJob:
    """What a trial is to do.

    Attributes:
        convert: only make the network that the recipe needs, and keep it.
        recipe: of the images' features.
        weights: that it names.
        dataset: its test split is the sample to be timed, its train split what an int8 network is calibrated on.
        networks_dir: the cache folder that has, or gets, the converted networks.
        work_dir: a folder for the features and for the answer.
        engine_options: how the backbone is run.
        workers: decoding threads.
        views: augmented views to be timed as well.
        timed_s: passes over the sample are repeated until so many seconds have been timed.
        started_at: when the process was started, in seconds since 1970.
    """

    convert: bool
    recipe: Recipe
    weights: Weights
    dataset: ImageDataset
    networks_dir: Path
    work_dir: Path
    engine_options: EngineOptions
    workers: int | None
    views: Views | None
    timed_s: float
    started_at: float

    @property
    def answer_path(self) -> Path:
        """Where the answer is written to."""
        return self.work_dir / "answer.json"

    def to_json(self) -> str:
        """Return all of it on one line."""
        dataset = self.dataset
        files = zip(dataset.paths, dataset.digests, dataset.is_test.tolist(), strict=True)
        return json.dumps(
            {
                "convert": self.convert,
                "recipe": self.recipe.to_json(),
                "weights": [self.weights.digest, str(self.weights.path) if self.weights.path else None],
                "root": str(dataset.root.resolve()),
                "files": [(path, digest.tobytes().hex(), is_test) for path, digest, is_test in files],
                "networks_dir": str(self.networks_dir.resolve()),
                "work_dir": str(self.work_dir.resolve()),
                "engine_options": asdict(self.engine_options),
                "workers": self.workers,
                "views": asdict(self.views) if self.views else None,
                "timed_s": self.timed_s,
                "started_at": self.started_at,
            }
        )

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return the job that `to_json` wrote."""
        members: dict[str, Any] = json.loads(text)
        digest, path = members.pop("weights")
        views = members.pop("views")
        return cls(
            recipe=Recipe.from_json(members.pop("recipe")),
            weights=Weights(digest, Path(path) if path else None),
            dataset=small_dataset(Path(members.pop("root")), members.pop("files")),
            networks_dir=Path(members.pop("networks_dir")),
            work_dir=Path(members.pop("work_dir")),
            engine_options=EngineOptions(**members.pop("engine_options")),
            views=Views(views["n"], Augmentation.from_dict(views["augmentation"]), views["of_test"]) if views else None,
            **members,
        )


def small_dataset(root: Path, files: list[tuple[str, str, bool]]) -> ImageDataset:
    """Return a data set of `files`: path relative to `root`, digest in hexadecimal, and whether it is in the sample."""
    digests = b"".join(bytes.fromhex(digest) for _, digest, _ in files)
    return ImageDataset(
        root=root,
        class_names=("",),
        paths=tuple(path for path, _, _ in files),
        labels=np.zeros(len(files), np.int64),
        is_test=np.array([is_test for _, _, is_test in files], dtype=bool),
        digests=np.frombuffer(digests, np.uint8).reshape(-1, 32),
    )


@dataclass(frozen=True, kw_only=True)
class Pace:
    """What one image, or one view, takes once the engine is running.

    Attributes:
        row_s: seconds.
        low_s: the same at the least that was measured.
        high_s: and at the most.
    """

    row_s: float
    low_s: float
    high_s: float


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a trial has found.

    Attributes:
        start_s: from the start of the process until the engine had done its first images: seconds.
        restart_s: starting the engine again in the same process, for augmented views.
        images: pace of images.
        views: pace of augmented views; None if there are to be none.
        feature_shape: of one image.
        peak_memory_bytes: largest resident memory of the process while it ran the engine.
        others_share: the part of the processors, 0 to 1, that other processes used meanwhile.
        on_gpu: whether the engine ran on a GPU.
        auto_engine: what `--engine auto` is here, if the trial knows; else None.
        n_in_pass: images of the longest pass, those that came again included.
    """

    start_s: float
    restart_s: float
    images: Pace
    views: Pace | None
    feature_shape: tuple[int, ...]
    peak_memory_bytes: int
    others_share: float
    on_gpu: bool
    auto_engine: str | None
    n_in_pass: int

    @classmethod
    def from_dict(cls, members: dict[str, Any]) -> Self:
        """Return what `dataclasses.asdict` made `members` of, by way of JSON."""
        views = members.pop("views")
        return cls(
            images=Pace(**members.pop("images")),
            views=Pace(**views) if views else None,
            feature_shape=tuple(members.pop("feature_shape")),
            **members,
        )
