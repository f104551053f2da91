"""Augmented views: what they are, that they are computed once, and how heads learn from them."""

import hashlib
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from featx.compare.compare import compare_approaches
from featx.dataset import loader
from featx.dataset.scanning import scan
from featx.errors import FeaturesMissingError, FeatxError
from featx.extract.extract import extract_features
from featx.heads import training_loop
from featx.heads.dense import TrainingSet
from featx.heads.registry import train_head
from featx.heads.training_loop import Training
from featx.images.augmentation import REPORT, Augmentation, Views, choose_views, make_view, view_matrix
from featx.images.decode import decode_image
from featx.recipe import Recipe
from featx.store.feature_store import FeatureStore
from featx.train.features import load_features
from featx.train.train import train_top
from tests.conftest import SMALL

FAST = Training(epochs=2)
STRONG = Augmentation(flip=True, rotation=60, zoom=0.4, shear=30)


@pytest.fixture
def pixels() -> np.ndarray:
    """A picture of smooth waves with some noise, 40 rows and 56 columns."""
    y, x = np.mgrid[0:40, 0:56]
    waves = [np.sin(x / a + y / b) for a, b in ((3, 7), (9, 4), (5, 5))]
    noise = np.random.default_rng(0).normal(0, 10, (40, 56, 3))
    return np.clip(128 + 100 * np.stack(waves, axis=2) + noise, 0, 255).astype(np.uint8)


@pytest.fixture
def data(make_photos, tmp_path) -> Path:
    return make_photos(tmp_path / "data", n_train=12, n_test=4)


def digest_of(number: int) -> bytes:
    return hashlib.sha256(str(number).encode()).digest()


def reference_view(pixels: np.ndarray, digest: bytes, view: int, augmentation: Augmentation) -> np.ndarray:
    """Return `(h, w, 3)` float64: the view as SciPy draws it, from what docs/format.md says of it."""
    hashed = hashlib.sha256(b"featx view" + digest + view.to_bytes(2, "big")).digest()
    flip, turn, slant, zoom_rows, zoom_columns = (
        int.from_bytes(hashed[start : start + 6], "big") / 2**48 for start in range(0, 30, 6)
    )
    angle, shear = (
        math.radians(most) * (2 * u - 1) for most, u in ((augmentation.rotation, turn), (augmentation.shear, slant))
    )
    matrix = (
        np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        @ np.array([[1, -np.sin(shear)], [0, np.cos(shear)]])
        @ np.diag([1 + augmentation.zoom * (2 * u - 1) for u in (zoom_rows, zoom_columns)])
    )
    centre = (np.array(pixels.shape[:2]) - 1) / 2
    drawn = [
        ndimage.affine_transform(channel.astype(float), matrix, centre - matrix @ centre, order=1, mode="nearest")
        for channel in np.moveaxis(pixels, 2, 0)
    ]
    picture = np.stack(drawn, axis=2)
    return picture[:, ::-1] if augmentation.flip and flip < 0.5 else picture


@pytest.mark.parametrize("augmentation", [REPORT, STRONG, Augmentation(shear=45), Augmentation(zoom=0.5)], ids=str)
def test_views_are_those_of_an_independent_implementation(pixels, augmentation):
    for number in range(12):
        digest = digest_of(number)
        expected = reference_view(pixels, digest, 1 + number % 3, augmentation)
        found = make_view(pixels, digest, 1 + number % 3, augmentation)
        assert found.dtype == np.uint8
        # Rounded to the nearest level: a half, and what rounding the coefficients to 2^-20 does.
        assert np.abs(found - expected).max() < 0.51


def test_a_flip_swaps_left_and_right_of_half_of_the_views_and_nothing_else(pixels):
    views = [make_view(pixels, digest_of(1), view, Augmentation(flip=True)) for view in range(1, 41)]
    is_flipped = [np.array_equal(view, pixels[:, ::-1]) for view in views]
    assert all(flipped or np.array_equal(view, pixels) for view, flipped in zip(views, is_flipped, strict=True))
    assert 10 < sum(is_flipped) < 30


def test_a_view_is_the_same_in_every_process_and_on_every_machine():
    matrix = view_matrix(bytes(32), 1, REPORT, (64, 64))
    assert (matrix * 2**20).tolist() == [[989667, 205835, -4701632], [-242906, 857867, 13875680]]
    pixels = (np.arange(24 * 32 * 3, dtype=np.uint32) * 2654435761 % 256).astype(np.uint8).reshape(24, 32, 3)
    view = make_view(pixels, bytes(range(32)), 5, REPORT)
    found = hashlib.sha256(view.tobytes()).hexdigest()
    assert found == "6e5c2e4777589ef16b7dda3e7f28fd25a0fe4f0d04c3775650a1afeabbadf3c9"


def test_coefficients_are_multiples_of_a_step_that_leaves_no_room_for_rounding():
    for number in range(50):
        steps = view_matrix(digest_of(number), 7, STRONG, (223, 64)) * 2**20
        assert np.array_equal(steps, np.round(steps))


def test_angles_fill_their_range_evenly():
    augmentation = Augmentation(rotation=20)
    matrices = [view_matrix(digest_of(number), view, augmentation, (8, 8)) for number in range(100) for view in (1, 2)]
    angles = np.degrees([math.atan2(matrix[0, 1], matrix[0, 0]) for matrix in matrices])
    assert -20 <= angles.min() < -18
    assert 18 < angles.max() <= 20
    assert abs(angles.mean()) < 3
    assert abs(angles.std() - 20 / math.sqrt(3)) < 1.5


def test_views_of_one_image_cost_one_decoding(data, monkeypatch):
    paths = sorted((data / "train" / "sea").iterdir())[:4]
    digests = np.stack([np.frombuffer(hashlib.sha256(path.read_bytes()).digest(), np.uint8) for path in paths])
    decoded: list[Path] = []
    decode = loader._decode

    def counted(row, source, *rest):
        decoded.append(source)
        return decode(row, source, *rest)

    monkeypatch.setattr(loader, "_decode", counted)
    rows, views = np.repeat(np.arange(4), 8), np.tile(np.arange(1, 9), 4)
    batches = list(
        loader.read_batches(
            [paths[row] for row in rows], digests[rows], (32, 32), 32, 1, views=views, augmentation=STRONG
        )
    )
    assert decoded == paths
    images = np.concatenate([batch.images for batch in batches])
    for row, view, image in zip(rows, views, images, strict=True):
        pixels = decode_image(paths[row].read_bytes(), (32, 32))
        assert np.array_equal(image, make_view(pixels, digests[row].tobytes(), int(view), STRONG))


def test_more_views_later_compute_only_the_new_ones(data, tmp_path, cache):
    at_once = extract_features(data, cache_dir=tmp_path / "at once", views=Views(8), **SMALL)
    first = extract_features(data, cache_dir=cache, views=Views(4), **SMALL)
    then = extract_features(data, cache_dir=cache, views=Views(8), **SMALL)
    assert (first.views.n_computed, first.views.n_cached) == (24 * 4, 0)
    assert (then.views.n_computed, then.views.n_cached) == (24 * 4, 24 * 4)
    assert at_once.views.n_computed == 24 * 8
    assert extract_features(data, cache_dir=cache, views=Views(8), **SMALL).views.n_computed == 0
    dataset = scan(data, cache)
    digests = np.repeat(dataset.digests[~dataset.is_test], 8, axis=0)
    views = np.tile(np.arange(1, 9), 24)
    stores = [FeatureStore(tmp_path / name, then.views.recipe) for name in ("cache", "at once")]
    assert [len(store) for store in stores] == [24 * 8] * 2
    assert np.array_equal(stores[0].read(digests, views), stores[1].read(digests, views))


def test_features_of_images_are_shared_by_all_settings_and_test_images_have_no_views(data, cache):
    extract_features(data, cache_dir=cache, **SMALL)
    for augmentation in (REPORT, Augmentation(flip=True)):
        extraction = extract_features(data, cache_dir=cache, views=Views(2, augmentation), **SMALL)
        assert (extraction.n_computed, extraction.n_cached) == (0, 32)
        assert extraction.views.n_computed == 48
    dataset = scan(data, cache)
    store = FeatureStore(cache, extraction.views.recipe)
    assert not store.contains(dataset.digests[dataset.is_test], 1).any()
    assert not store.contains(dataset.digests, 0).any()
    assert extraction.views.store_dir != extraction.store_dir
    with_test = extract_features(data, cache_dir=cache, views=Views(2, REPORT, of_test=True), **SMALL)
    assert with_test.views.n_computed == 8 * 2


def test_a_view_that_only_flips_has_the_features_of_the_flipped_picture(data, tmp_path, cache):
    views = Views(6, Augmentation(flip=True))
    extract_features(data, cache_dir=cache, views=views, **SMALL)
    features = load_features(data, cache_dir=cache, views=views, **SMALL)
    train = features.X[~features.dataset.is_test]
    is_same = (features.train_views == train[:, np.newaxis]).all(axis=2)
    assert 0.25 < is_same.mean() < 0.75  # not flipped
    mirrored = tmp_path / "mirrored"
    for path in features.dataset.paths:
        (mirrored / path).parent.mkdir(parents=True, exist_ok=True)
        pixels = decode_image((data / path).read_bytes(), (32, 32))
        Image.fromarray(np.ascontiguousarray(pixels[:, ::-1])).save((mirrored / path).with_suffix(".png"))
    extract_features(mirrored, cache_dir=cache, **SMALL)
    flipped = load_features(mirrored, cache_dir=cache, **SMALL)
    of_flipped = flipped.X[~flipped.dataset.is_test]
    row, view = np.argwhere(~is_same)[0]
    assert np.array_equal(features.train_views[row, view], of_flipped[row])


def test_an_image_that_cannot_be_read_is_skipped_once_however_many_views(data, cache, featx):
    (data / "train" / "sea" / "broken.jpg").write_bytes(b"\xff\xd8\xff broken")
    words = ["extract", data, "--cache-dir", cache, "--image-size", 32, "--weights", "random", "--layer", "block2_pool"]
    for _ in range(2):
        output = featx(*words, "--views", 3).output
        assert output.count("broken.jpg") == 1
        assert "3 views of each of 24 training images (--flip --rotation 20 --zoom 0.2 --shear 0.3)" in output


def test_an_epoch_takes_one_view_of_each_image_and_in_time_all_of_them(monkeypatch):
    fed: list[np.ndarray] = []
    portions = training_loop._portions

    def recorded(*args):
        for rows, features in portions(*args):
            fed.append(rows)
            yield rows, features

    monkeypatch.setattr(training_loop, "_portions", recorded)
    X, y, digests, views = _separable(40, n_views=3)
    is_validation = np.arange(40) % 5 == 0
    train_head("dense", TrainingSet(X, y, digests, is_validation, 2, views), Training(epochs=12, patience=12))
    image_of = np.concatenate([np.arange(40), np.repeat(np.arange(40), 3)])
    assert len(fed) == 12
    for rows in fed:
        assert sorted(image_of[rows]) == np.flatnonzero(~is_validation).tolist()
    seen = set(np.concatenate(fed).tolist())
    assert not any(is_validation[image_of[row]] for row in seen)
    assert len(seen) > 0.9 * 32 * 4


def test_logistic_regression_never_has_an_image_and_its_views_on_both_sides_of_a_fold():
    rng = np.random.default_rng(0)
    X, _, digests, _ = _separable(120, n_views=1)
    X = rng.normal(size=(120, 300)).astype(np.float32)
    y = rng.integers(0, 2, 120)  # nothing to learn: whoever has seen a copy would know
    head = train_head(
        "logreg", TrainingSet(X, y, digests, np.zeros(120, bool), 2, np.stack([X, X, X], axis=1)), Training()
    )
    assert head.out_of_fold.shape == (120, 2)
    assert head.details["cv_accuracy"] < 0.65
    assert head.details["views"] == 3


def _separable(n: int, n_views: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    y = np.arange(n) % 2
    X = (rng.normal(size=(n, 16)) + 2 * y[:, np.newaxis]).astype(np.float32)
    digests = np.stack([np.frombuffer(digest_of(number), np.uint8) for number in range(n)])
    return X, y, digests, (X[:, np.newaxis] + rng.normal(0, 0.1, (n, n_views, 16))).astype(np.float32)


def test_training_uses_as_many_views_as_it_is_told_and_no_more_than_there_are(data, tmp_path, cache):
    extract_features(data, cache_dir=cache, views=Views(3), **SMALL)
    for n_views in (2, 3):
        run = train_top(
            data, run_dir=tmp_path / str(n_views), cache_dir=cache, training=FAST, views=Views(n_views), **SMALL
        )
        assert run.features.train_views.shape[:2] == (24, n_views)
        assert {result.details["views"] for result in run.results} == {n_views}
    with pytest.raises(FeaturesMissingError, match=r"24 of 96 views.*--views 4 --flip --rotation 20"):
        train_top(data, run_dir=tmp_path / "4", cache_dir=cache, training=FAST, views=Views(4), **SMALL)
    plain = train_top(data, run_dir=tmp_path / "0", cache_dir=cache, training=FAST, **SMALL)
    assert run.features.timings.n_images == plain.features.timings.n_images + 72


def test_a_comparison_has_each_head_without_views_with_them_and_averaged_over_them(data, cache):
    comparison = compare_approaches(
        data,
        backbones=["vgg16"],
        cache_dir=cache,
        training=FAST,
        views=Views(2, STRONG, of_test=True),
        repeats=3,
        **SMALL,
    )
    by_name = {approach.name: approach for approach in comparison.approaches}
    assert list(by_name) == [
        "vgg16 + dense",
        "vgg16 + logreg",
        "vgg16 + dense, 2 views",
        "vgg16 + dense, 2 views, averaged",
        "vgg16 + logreg, 2 views",
        "vgg16 + logreg, 2 views, averaged",
    ]
    for approach in comparison.approaches:
        assert len(approach.repeats) == 3
        assert approach.repeats[0] == approach.metrics.accuracy
    costs = [by_name[f"vgg16 + logreg{kind}"].representations_s for kind in ("", ", 2 views", ", 2 views, averaged")]
    assert costs == sorted(set(costs))
    assert [recipe.get("augmentation", {}).get("rotation") for recipe in comparison.recipes] == [None, 60.0]
    assert type(comparison).from_json(comparison.to_json()) == comparison


def test_averaging_is_the_mean_of_the_probabilities_of_the_image_and_its_views(data, cache):
    from featx.heads.training_loop import predict_proba
    from featx.train.train import train_on_features

    views = Views(2, STRONG, of_test=True)
    extract_features(data, cache_dir=cache, views=views, **SMALL)
    features = load_features(data, cache_dir=cache, views=views, **SMALL)
    is_test = features.dataset.is_test
    result = train_on_features(features, "logreg", FAST)
    averaged = result.averaged_over(features.test_views, features.y[is_test])
    each = [features.X[is_test], features.test_views[:, 0], features.test_views[:, 1]]
    expected = sum(predict_proba(result.model, X) for X in each) / 3
    np.testing.assert_allclose(averaged.probabilities, expected, atol=1e-12)
    assert not np.allclose(averaged.probabilities, result.probabilities)


def test_a_preview_is_a_picture_and_extracts_nothing(data, tmp_path, featx, monkeypatch):
    monkeypatch.chdir(tmp_path)
    output = featx("extract", data, "--preview", "--image-size", 48).output
    picture = Path(output.split("Views: ")[1].strip())
    with Image.open(picture) as image:
        assert image.format == "PNG"
        assert image.width > image.height
        colours = np.asarray(image.convert("RGB")).reshape(-1, 3)
    assert len(np.unique(colours, axis=0)) > 1000
    assert not list(tmp_path.rglob("seg-*.h5"))


def test_settings_go_before_the_named_ones_and_those_of_the_report_are_the_default():
    none = {"flip": None, "rotation": None, "zoom": None, "shear": None}
    assert choose_views(0, None, **none) is None
    assert choose_views(8, None, **none) == choose_views(8, "report", **none) == Views(8, REPORT)
    assert choose_views(8, "report", **{**none, "rotation": 5.0}).augmentation == replace(REPORT, rotation=5)
    assert choose_views(8, None, **{**none, "rotation": 5.0}).augmentation == Augmentation(rotation=5)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--flip"], "Set their number per image"),
        (["--test-views"], "Set their number per image"),
        (["--views", "2", "--rotation", "200"], "rotation must be from 0 to 180 degrees. Received: 200.0"),
        (["--views", "2", "--zoom", "1"], "zoom must be from 0 to 0.99. Received: 1.0"),
        (["--views", "2", "--shear", "nan"], "shear must be from 0 to 89 degrees. Received: nan"),
        (["--views", "2", "--rotation", "0"], "copies of their image"),
    ],
)
def test_settings_that_make_no_sense_are_refused(data, featx, words, message):
    assert message in featx("extract", data, *words, exit_code=2).output


def test_a_recipe_with_views_comes_back_from_json_and_a_damaged_one_is_refused():
    recipe = Recipe(
        backbone="vgg16",
        weights="random-0",
        layer="block5_pool",
        image_size=(32, 32),
        preprocessing="caffe",
        augmentation=REPORT,
    )
    assert Recipe.from_json(recipe.to_json()) == recipe
    assert recipe.of_images.key == replace(recipe, augmentation=None).key != recipe.key
    assert "-views-" in recipe.slug
    for good, bad in (("20.0", '"20"'), ('"flip":true', '"flip":1'), ("0.2", "7.0"), ('"zoom"', '"zoomed"')):
        with pytest.raises(FeatxError, match="not a featx recipe"):
            Recipe.from_json(recipe.to_json().replace(good, bad))
