import itertools

import numpy as np
import pytest
from sklearn.datasets import load_digits

from featx.compare.baselines import BASELINES
from featx.heads.inference import save_model
from featx.heads.training_loop import Training, count_parameters, predict_proba
from tests.conftest import load_model


def digit_pixels(n_classes, n, side):
    """The first `n` digits below `n_classes` as `(n, side, side, 3)` uint8, and their labels."""
    data = load_digits()
    rows = np.flatnonzero(data.target < n_classes)[:n]
    pixels = (data.images[rows] * 15).astype(np.uint8)
    index = np.arange(side) * 8 // side
    return np.repeat(pixels[:, index][:, :, index, None], 3, axis=3), data.target[rows].astype(np.int64)


def train(name, pixels, y, n_classes, **options):
    is_validation = np.arange(len(y)) % 4 == 0
    return BASELINES[name].train(pixels, y, is_validation, Training(patience=50, **options), n_classes=n_classes)


#: The fewest pixels that a side may have: less, and the convolutions leave nothing.
SMALLEST_SIDE = {"report-cnn": 22, "report-cnn-gray": 190, "report-dnn": 1}


def conv(channels_in, channels_out):
    return 9 * channels_in * channels_out + channels_out


def dense(*widths):
    return sum((a + 1) * b for a, b in itertools.pairwise(widths))


COUNTS = {
    # 64 → 62 → 31 → 29 → 14 → 12 → 6 pixels a side
    ("report-cnn", 2): conv(3, 32) + conv(32, 32) + conv(32, 64) + dense(6 * 6 * 64, 64, 1),
    ("report-cnn", 4): conv(3, 32) + conv(32, 32) + conv(32, 64) + dense(6 * 6 * 64, 64, 4),
    # 256 → 127 → 62 → 30 → 14 → 6 → 2 pixels a side, one channel
    ("report-cnn-gray", 2): conv(1, 32)
    + conv(32, 64)
    + conv(64, 128)
    + 2 * conv(128, 128)
    + conv(128, 256)
    + dense(2 * 2 * 256, 1000, 800, 600, 400, 100, 50, 2),
    ("report-dnn", 2): dense(64 * 64 * 3, 128, 64, 1),
    ("report-dnn", 3): dense(64 * 64 * 3, 128, 64, 3),
}


@pytest.mark.parametrize(("name", "n_classes"), COUNTS)
def test_baselines_have_the_report_s_parameters(name, n_classes):
    baseline = BASELINES[name]
    assert count_parameters(baseline.build(baseline.image_size, n_classes, seed=0)) == COUNTS[name, n_classes]


@pytest.mark.parametrize(("name", "n_classes"), [("report-cnn", 2), ("report-dnn", 3)])
def test_baselines_learn_the_digits(name, n_classes):
    pixels, y = digit_pixels(n_classes, 400, 24)
    trained = train(name, pixels[:300], y[:300], n_classes, epochs=12)
    accuracy = (predict_proba(trained.model, pixels[300:]).argmax(axis=1) == y[300:]).mean()
    assert accuracy > 0.9
    assert trained.history[trained.kept_epoch - 1].val_loss == min(epoch.val_loss for epoch in trained.history)


def test_the_gray_baseline_learns_to_tell_dark_from_light():
    y = np.arange(40) // 4 % 2
    pixels = np.full((40, 190, 190, 3), 55 + y[:, None, None, None] * 200, np.uint8)
    trained = train("report-cnn-gray", pixels, y, 2, epochs=4)
    blind = np.log(2)  # the lowest loss of a network that does not see the image
    assert trained.history[trained.kept_epoch - 1].val_loss < blind - 0.05


@pytest.mark.parametrize(
    ("name", "side", "epochs"), [("report-cnn", 24, 2), ("report-cnn-gray", 190, 1), ("report-dnn", 8, 2)]
)
def test_the_same_seed_gives_the_same_baseline_bit_for_bit(name, side, epochs):
    pixels, y = digit_pixels(2, 8, side)
    first, second = (train(name, pixels, y, 2, epochs=epochs, seed=3).model.get_weights() for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    one, other = (BASELINES[name].build((side, side), 2, seed=seed).get_weights() for seed in (3, 4))
    assert not np.array_equal(one[0], other[0])


@pytest.mark.parametrize("name", BASELINES)
def test_saved_baselines_give_the_same_probabilities(name, tmp_path):
    side = max(24, SMALLEST_SIDE[name])
    model = BASELINES[name].build((side, side), 3, seed=0)
    pixels, _ = digit_pixels(3, 3, side)
    save_model(model, tmp_path / "baseline.keras")
    loaded = load_model(tmp_path / "baseline.keras")
    np.testing.assert_array_equal(predict_proba(loaded, pixels), predict_proba(model, pixels))


def test_the_gray_baseline_sees_no_colour_and_alters_images_only_in_training():
    model = BASELINES["report-cnn-gray"].build((190, 190), 2, seed=0)
    pixels, _ = digit_pixels(2, 2, 190)
    red = np.zeros_like(pixels)
    red[..., 0] = 100
    gray = np.full_like(pixels, round(100 * 0.2989))
    np.testing.assert_allclose(predict_proba(model, red), predict_proba(model, gray), atol=1e-3)
    still, again = (np.asarray(model(pixels, training=False)) for _ in range(2))
    moved, elsewhere = (np.asarray(model(pixels, training=True)) for _ in range(2))
    np.testing.assert_array_equal(still, again)
    assert not np.array_equal(moved, elsewhere)


def test_a_memory_map_of_pixels_is_enough(tmp_path):
    pixels, y = digit_pixels(2, 24, 24)
    np.save(tmp_path / "pixels.npy", pixels)
    mapped = np.load(tmp_path / "pixels.npy", mmap_mode="r")
    weights = [train("report-cnn", array, y, 2, epochs=1).model.get_weights() for array in (pixels, mapped)]
    assert all(np.array_equal(a, b) for a, b in zip(*weights, strict=True))


@pytest.mark.parametrize("name", BASELINES)
def test_images_are_larger_than_the_smallest_that_keras_can_build_the_network_for(name):
    side = SMALLEST_SIDE[name]
    assert min(BASELINES[name].image_size) >= side
    assert BASELINES[name].build((side, side), 2, seed=0).input_shape == (None, side, side, 3)
    if side > 1:
        with pytest.raises(ValueError, match=r"dimension|size"):
            BASELINES[name].build((side - 1, side - 1), 2, seed=0)
