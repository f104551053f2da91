"""featx as a scikit-learn transformer, and features as arrays and tables."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline

from featx import FeatureExtractor, load_features
from featx.dataset.scanning import scan
from featx.errors import FeaturesMissingError, FeatxError, ImageError
from featx.extract.extract import extract_features

OPTIONS = {"weights": "random", "image_size": (32, 32), "layer": "block2_pool"}


@pytest.fixture
def photos(make_photos, tmp_path):
    return sorted(make_photos(tmp_path / "data").rglob("*.jpg"))


@pytest.fixture
def labels(photos):
    return [photo.parent.name for photo in photos]


@pytest.fixture
def extractor(cache):
    return FeatureExtractor(**OPTIONS, cache_dir=cache)


def pixels_of(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


def n_segments(cache: Path) -> int:
    return len(list(cache.glob("*/seg-*.h5")))


def test_features_are_those_of_stage_one(extractor, photos, tmp_path, cache):
    extraction = extract_features(tmp_path / "data", cache_dir=cache, **OPTIONS)
    features = load_features(extraction.dataset, cache_dir=cache, **OPTIONS)
    X = extractor.fit_transform([tmp_path / "data" / path for path in features.paths])
    assert X.shape == (32, 8 * 8 * 128)
    assert X.dtype == np.float32
    assert np.array_equal(X, features.X.reshape(32, -1).astype(np.float32))
    unflattened = clone(extractor).set_params(flatten=False).transform([str(photos[0])])
    assert unflattened.shape == (1, 8, 8, 128)
    assert n_segments(cache) == 1


def test_arrays_are_images_too(extractor, photos, cache):
    arrays = [pixels_of(photo) for photo in photos[:5]]
    from_files = extractor.transform(photos[:5])
    from_list = extractor.transform(arrays)
    np.testing.assert_allclose(from_list, from_files, atol=1e-2)  # the same pixels, but for a JPEG's smaller scales
    assert np.array_equal(extractor.transform(np.stack(arrays)), from_list)
    before = n_segments(cache)
    mixed = extractor.transform([arrays[1], photos[0], str(photos[2])])
    assert np.array_equal(mixed, [from_list[1], from_files[0], from_files[2]])
    assert n_segments(cache) == before


def test_gray_arrays_are_images_of_three_equal_channels(extractor):
    gray = np.random.default_rng(0).integers(0, 255, (40, 30), np.uint8)
    assert np.array_equal(extractor.transform([gray]), extractor.transform([np.stack([gray] * 3, axis=-1)]))


def test_a_saved_bmp_is_the_array_that_it_holds(extractor, photos, tmp_path, cache):
    array = pixels_of(photos[0])
    Image.fromarray(array).save(tmp_path / "same.bmp")
    features = extractor.transform([array])
    before = n_segments(cache)
    assert np.array_equal(extractor.transform([tmp_path / "same.bmp"]), features)
    assert n_segments(cache) == before


@pytest.mark.parametrize("is_stored", [False, True])
def test_of_no_image_the_shape_is_that_of_features(extractor, photos, is_stored):
    if is_stored:
        extractor.fit(photos[:1])
    for nothing in ([], (), np.empty((0, 40, 48, 3), np.uint8), iter([])):
        features = extractor.fit_transform(nothing)
        assert (features.shape, features.dtype) == ((0, 8 * 8 * 128), np.float32)
    assert len(extractor.get_feature_names_out()) == 8 * 8 * 128
    assert extractor.set_params(flatten=False).transform([]).shape == (0, 8, 8, 128)


def test_one_image_is_a_list_of_one(extractor, photos):
    path, array = photos[0], pixels_of(photos[0])
    of_file, of_array = extractor.transform([path]), extractor.transform([array])
    assert of_file.shape == (1, 8 * 8 * 128)
    for one in (path, str(path), np.str_(path), np.array(str(path)), [str(path)], (path,), np.array([path])):
        assert np.array_equal(extractor.transform(one), of_file)
    for one in (array, Image.fromarray(array), [Image.fromarray(array)], array[np.newaxis]):
        assert np.array_equal(extractor.transform(one), of_array)


def test_what_goes_over_images_is_gone_over(extractor, photos, tmp_path, cache):
    features = extractor.transform(photos)
    dataset = scan(tmp_path / "data", cache)
    names = [str(photo) for photo in photos]
    pandas = pytest.importorskip("pandas")
    many = (
        iter(photos),
        (name for name in names),
        np.array(names),
        np.array(photos, dtype=object),
        pandas.Series(names, index=range(100, 132)),
        pandas.Index(names),
        pandas.DataFrame({"path": names})["path"],
        dict.fromkeys(photos, "cat").keys(),
    )
    for one in many:
        assert np.array_equal(extractor.transform(one), features)
    in_order_of_dataset = extractor.transform([dataset.root / path for path in dataset.paths])
    assert np.array_equal(extractor.transform(dataset), in_order_of_dataset)


@pytest.mark.parametrize(
    ("make", "received"),
    [
        (lambda pixels: pixels / 255, "from 0 to 1"),
        (lambda pixels: pixels.astype(np.float32), "float32, from "),
        (lambda pixels: pixels.astype(np.int64), "int64"),
        (lambda pixels: pixels > 100, r"Received: \(40, 48, 3\) of bool"),
        (lambda pixels: pixels.astype(np.int16) - 300, "from -300 to -45"),
        (lambda pixels: [pixels / 255], "float64"),
        (lambda pixels: (pixels / 255)[np.newaxis], "float64"),
        (lambda pixels: pixels[:, :, 0], r"gray images .* in a list. Received: \(40, 48\) of uint8"),
        (lambda pixels: np.stack([pixels[:, :, 0]] * 5), r"\(5, 40, 48\) of uint8"),
        (lambda pixels: pixels.transpose(2, 0, 1), r"\(3, 40, 48\) of uint8"),
        (lambda pixels: pixels.transpose(2, 0, 1)[np.newaxis], r"\(1, 3, 40, 48\) of uint8"),
        (lambda pixels: np.dstack([pixels, pixels[:, :, :1]]), r"\(40, 48, 4\) of uint8"),
        (list, r"\(48, 3\) of uint8"),
        (lambda pixels: pixels.tolist(), r"Received: .*\(list\)"),
        (lambda pixels: pixels.tobytes(), "Received: bytes"),
        (lambda pixels: [pixels.tobytes()], r"Received: .*\(bytes\)"),
        (lambda pixels: {"cat": pixels}, "Received: dict"),
        (lambda pixels: Image.fromarray(pixels[:, :, 0] / np.float32(255)), "in mode F"),
        (lambda pixels: Image.fromarray(pixels[:, :, 0].astype(np.int32)), "in mode I "),
    ],
)
def test_what_may_mean_something_else_is_refused_with_what_it_is(extractor, photos, make, received):
    with pytest.raises(FeatxError, match=received):
        extractor.transform(make(pixels_of(photos[0])))


@pytest.mark.parametrize(
    ("X", "received"),
    [
        (np.array([b"cat.jpg"]), "bytes_"),
        ({"cat.jpg"}, "set"),
        ([["cat.jpg"]], "list"),
        (np.array([["cat.jpg"]]), r"\(1, 1\) of <U7"),
        ([None], "NoneType"),
        (None, "NoneType"),
        (7, "int"),
    ],
    ids=str,
)
def test_what_names_no_image_is_refused_with_what_it_is(extractor, X, received):
    with pytest.raises(FeatxError, match=f"Received: .*{received}"):
        extractor.transform(X)


def test_a_table_is_refused_and_not_taken_for_the_names_of_its_columns(extractor):
    table = pytest.importorskip("pandas").DataFrame({"cat.jpg": [1], "dog.jpg": [2]})
    with pytest.raises(FeatxError, match="Received: DataFrame"):
        extractor.transform(table)


def in_mode(photo: Path, mode: str) -> Image.Image:
    """Return a photograph in a mode of Pillow, half transparent where the mode knows that."""
    with Image.open(photo) as image:
        image.putalpha(Image.linear_gradient("L").resize(image.size))
        if mode == "I;16":
            return Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
        return image.convert({"PA": "P", "LAB": "RGB"}.get(mode, mode)).convert(mode)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "CMYK", "YCbCr"])
def test_a_pillow_image_is_what_its_file_is(extractor, photos, tmp_path, mode):
    image = in_mode(photos[0], mode)
    path = tmp_path / ("same.tif" if mode in {"CMYK", "YCbCr"} else "same.png")
    image.save(path)
    np.testing.assert_allclose(extractor.transform(image), extractor.transform(path), atol=1e-2)


@pytest.mark.parametrize("mode", ["PA", "RGBa", "La", "F", "I"])
def test_a_pillow_image_whose_values_mean_nothing_certain_is_refused(extractor, photos, mode):
    with pytest.raises(FeatxError, match=f"in mode {mode} cannot be used: .*; convert it to RGB"):
        extractor.transform(in_mode(photos[0], {"La": "LA", "RGBa": "RGBA"}.get(mode, mode)).convert(mode))


def test_a_pillow_image_lies_as_its_file_says(extractor, photos, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90°
    path = tmp_path / "turned.png"
    with Image.open(photos[0]) as photo:
        photo.save(path, exif=exif)
    with Image.open(path) as turned:
        upright = np.asarray(ImageOps.exif_transpose(turned))
        assert np.array_equal(extractor.transform(turned), extractor.transform(upright))


def test_a_pillow_image_that_is_cut_off_is_an_error(extractor, photos, tmp_path):
    path = tmp_path / "cut.jpg"
    path.write_bytes(photos[0].read_bytes()[:-400])
    with Image.open(path) as image, pytest.raises(FeatxError, match="cannot be used"):
        extractor.transform(image)


def test_pooled_features_are_those_of_stage_one(extractor, photos, tmp_path, cache):
    extraction = extract_features(tmp_path / "data", cache_dir=cache, pooling="avg", **OPTIONS)
    before = n_segments(cache)
    pooled = extractor.set_params(pooling="avg").transform(extraction.dataset)
    assert pooled.shape == (32, 128)
    assert n_segments(cache) == before


@pytest.mark.parametrize(
    ("X", "error", "message"),
    [
        ([np.zeros((4, 4, 3))], FeatxError, r"of uint8, from 0 to 255. Received: \(4, 4, 3\) of float64"),
        ([np.zeros((4, 4, 4), np.uint8)], FeatxError, r"Received: \(4, 4, 4\) of uint8"),
        ([np.zeros((0, 4), np.uint8)], FeatxError, r"Received: \(0, 4\) of uint8"),
        ([7], FeatxError, r"An image is a path, an array or a Pillow image. Received: 7 \(int\)"),
        (["gone.jpg"], ImageError, "gone.jpg cannot be read: No such file"),
        ([__file__], ImageError, "test_transformer.py cannot be read"),
    ],
)
def test_what_is_no_image_is_an_error(extractor, X, error, message):
    with pytest.raises(error, match=message):
        extractor.fit(X)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "int8"}, "needs a data set"),
        ({"image_size": (0, 4)}, "An image size must be"),
        ({"backbone": "vgg-16"}, "There is no backbone of this name.* Did you mean vgg16?"),
        ({"engine": "abacus"}, "An engine must be one of"),
    ],
)
def test_options_that_do_not_fit_are_an_error(extractor, photos, options, message):
    with pytest.raises(FeatxError, match=message):
        extractor.set_params(**options).transform(photos)


def test_a_pipeline_learns_and_can_be_cloned(extractor, photos, labels):
    pipeline = clone(make_pipeline(extractor, LogisticRegression(max_iter=200)))
    assert pipeline.fit(photos, labels).score(photos, labels) == 1
    assert clone(extractor).get_params() == extractor.get_params()
    assert list(extractor.fit(photos[:2]).get_feature_names_out()[:2]) == ["featureextractor0", "featureextractor1"]


def test_folds_and_grids_cost_nothing_once_all_is_cached(extractor, photos, labels, cache, monkeypatch):
    extractor.fit(photos)
    before = n_segments(cache)
    monkeypatch.setattr("featx.extract.pipeline.StageOne", None)  # whoever would compute a feature now would fail
    pipeline = make_pipeline(extractor, LogisticRegression(max_iter=200))
    scores = cross_val_score(pipeline, photos, labels, cv=4)
    assert (scores >= 0.5).all()
    grid = GridSearchCV(pipeline, {"logisticregression__C": [1e-4, 1e-2], "featureextractor__flatten": [True]}, cv=2)
    assert grid.fit(np.array(list(map(str, photos))), labels).best_score_ >= 0.5
    assert n_segments(cache) == before


# Features as arrays


def test_features_of_a_folder_as_arrays_and_as_a_table(photos, tmp_path, cache):
    extract_features(tmp_path / "data", cache_dir=cache, **OPTIONS)
    features = load_features(tmp_path / "data", cache_dir=cache, **OPTIONS)
    assert features.X.shape == (32, 8, 8, 128)
    assert features.class_names == ("sea", "wood")
    assert [features.class_names[label] for label in features.y] == [Path(path).parent.name for path in features.paths]
    assert features.split.tolist() == [Path(path).parts[0] for path in features.paths]
    table = features.to_pandas()
    assert table.shape == (32, 3 + 8 * 8 * 128)
    assert np.array_equal(table.loc[:, "f0":].to_numpy(), features.X.reshape(32, -1))
    assert set(table["split"]) == {"train", "test"}


def test_features_that_are_missing_name_the_command(photos, tmp_path, cache):
    scanned = scan(tmp_path / "data", cache)
    with pytest.raises(FeaturesMissingError, match=r"featx extract .*--layer block2_pool"):
        load_features(scanned, cache_dir=cache, **OPTIONS)
