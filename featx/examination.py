"""What a comparison shows image by image: mistakes, near-duplicates, doubtful labels, and a map of the features."""

from dataclasses import dataclass, fields, is_dataclass
from types import UnionType
from typing import Any, Self, get_args, get_origin, get_type_hints

from featx.metrics import ReliabilityBin


@dataclass(frozen=True)
class Mistake:
    """A test image that an approach takes for another class: `probability` is of the class it is taken for."""

    path: str
    label: str
    predicted: str
    probability: float


@dataclass(frozen=True)
class Cell:
    """Some of the test images of class `label` that an approach takes for `predicted`, the surest first."""

    label: str
    predicted: str
    paths: tuple[str, ...]


@dataclass(frozen=True)
class ApproachImages:
    """One approach, image by image.

    Attributes:
        name: of the approach.
        mistakes: the surest ones first.
        cells: one for each pair of classes that has images.
        reliability: how often it is right, by how sure it is.
        accuracy_without_duplicates: on the test images without those that have a near-duplicate in the train split;
            None if that is not known, or leaves none.
    """

    name: str
    mistakes: tuple[Mistake, ...]
    cells: tuple[Cell, ...]
    reliability: tuple[ReliabilityBin, ...]
    accuracy_without_duplicates: float | None


@dataclass(frozen=True)
class NearDuplicate:
    """A test image and the training image most like it; `cosine` of their centred features, from -1 to 1."""

    test_path: str
    train_path: str
    test_label: str
    train_label: str
    cosine: float


@dataclass(frozen=True)
class DoubtfulLabel:
    """An image whose label its features contradict; both probabilities are from a head that has not seen it."""

    path: str
    split: str
    label: str
    label_probability: float
    suggested: str
    suggested_probability: float


@dataclass(frozen=True)
class MapPoint:
    """One test image on the map, at `x` and `y` from 0 to 1, and what the best approach takes it for."""

    path: str
    label: str
    predicted: str
    x: float
    y: float


@dataclass(frozen=True)
class Examination:
    """A comparison, image by image. Paths are relative to the data set's folder.

    Attributes:
        approaches: in the comparison's order.
        backbone: whose features the rest is about; None if there were none, and then there is no rest.
        n_near_duplicates: test images with a near-duplicate in the train split.
        near_duplicates: the closest of them.
        n_doubtful: images whose label their features contradict.
        doubtful: the most doubtful of them.
        map: some of the test images.
        skipped: (path, reason) of images that could not be read.
    """

    approaches: tuple[ApproachImages, ...]
    backbone: str | None
    n_near_duplicates: int
    near_duplicates: tuple[NearDuplicate, ...]
    n_doubtful: int
    doubtful: tuple[DoubtfulLabel, ...]
    map: tuple[MapPoint, ...]
    skipped: tuple[tuple[str, str], ...]

    @classmethod
    def from_dict(cls, members: dict[str, Any]) -> Self:
        """Return the examination that `dataclasses.asdict` and JSON have made of one.

        Raises:
            TypeError, KeyError: it is none.
        """
        examination = _built(cls, members)
        assert isinstance(examination, cls)
        return examination


def _built(kind: Any, value: Any) -> Any:
    """Return `value` of JSON as a value of the type `kind`: a dataclass, a tuple, or what it is already."""
    if get_origin(kind) is UnionType:
        return None if value is None else _built(next(arg for arg in get_args(kind) if arg is not type(None)), value)
    if is_dataclass(kind):
        hints = get_type_hints(kind)
        return kind(**{field.name: _built(hints[field.name], value[field.name]) for field in fields(kind)})  # type: ignore[operator]
    if get_origin(kind) is tuple:
        inner = get_args(kind)
        return tuple(_built(inner[0 if inner[-1] is ... else i], item) for i, item in enumerate(value))
    return value
