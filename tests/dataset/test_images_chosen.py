"""Images and choices of them: what they cost in memory, and what travels to another process."""

import pickle
import tracemalloc
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from featx.dataset.image_dataset import ImageDataset, images_of, views_of
from featx.dataset.loader import as_source, images_in, images_of_arrays
from featx.errors import FeatxError


def dataset(n: int) -> ImageDataset:
    digests = np.random.default_rng(0).integers(0, 256, (n, 32), np.uint8)
    names = tuple(f"train/cats/cat.{number}.jpg" for number in range(n))
    return ImageDataset(Path("data"), ("cats", "dogs"), names, np.zeros(n, np.int64), np.zeros(n, bool), digests)


def test_views_of_many_images_cost_their_digests_and_no_paths():
    images = dataset(20_000)
    tracemalloc.start()
    wanted = views_of(images, 8)[np.arange(160_000)]
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(wanted.sources) == 160_000
    assert held / 160_000 < 80  # 32 of the digest, 2 of the view, 8 of the row; a Path alone takes more than 100


def test_chosen_images_are_the_chosen_ones_however_often_one_chooses():
    images = images_of(dataset(10))[np.array([7, 2, 9, 2])][np.array([3, 0, 2])]
    paths = [Path(f"data/train/cats/cat.{number}.jpg") for number in (2, 7, 9)]
    assert list(images.sources) == paths
    assert list(images.sources[1:]) == paths[1:]
    assert images.sources[-1] == paths[-1]
    assert np.array_equal(images.digests, dataset(10).digests[[2, 7, 9]])


def test_another_process_is_sent_the_chosen_images_alone():
    images = images_of(dataset(50_000))[np.array([40_000, 3])]
    sent = pickle.dumps(images)
    assert len(sent) < 1000
    assert list(pickle.loads(sent).sources) == list(images.sources)


def test_arrays_can_be_chosen_too():
    arrays = [np.full((2, 3, 3), value, np.uint8) for value in (10, 20, 30)]
    images = images_of_arrays(arrays)[np.array([2, 0])]
    assert [source[0, 0, 0] for source in images.sources] == [30, 10]


SIDES = st.integers(0, 6)
SHAPES = st.lists(SIDES, max_size=5).map(tuple)
DTYPES = st.sampled_from([np.uint8] * 4 + [np.int64, np.float32, np.float64, np.bool_, np.uint16])


def images_or_refusal(given: object) -> list[np.ndarray] | str:
    try:
        return list(images_of_arrays([as_source(item) for item in images_in(given)]).sources)
    except FeatxError as error:
        return str(error)


@given(SHAPES.flatmap(lambda shape: DTYPES.flatmap(lambda dtype: st_numpy.arrays(dtype, shape))), st.booleans())
def test_an_array_is_the_images_that_it_plainly_is_or_refused(array, is_listed):
    found = images_or_refusal([array] if is_listed else array)
    if isinstance(found, str):
        assert "Received: " in found
        assert "\n" not in found
    elif found:
        has_channels = array.ndim in {3, 4} and array.shape[-1] in {1, 3}
        assert has_channels or (is_listed and array.ndim == 2 and array.shape[1] not in {3, 4})
        assert array.dtype == np.uint8
        expected = array if array.ndim == 4 else [array]
        assert len(found) == len(expected)
        assert all(np.array_equal(np.ravel(one), np.ravel(other)) for one, other in zip(found, expected, strict=True))
    else:
        assert array.shape[0] == 0
