"""What users give to the library's functions is understood, or refused in one sentence."""

from pathlib import Path

import numpy as np
import pytest

import featx
from featx.errors import FeatxError
from featx.heads.training_loop import Training
from featx.images.augmentation import Augmentation, Views
from featx.system.arguments import as_mask, names, whole_number

SMALL = {"weights": "random", "image_size": 32, "layer": "block1_pool"}


@pytest.fixture(scope="module")
def world(tmp_path_factory, new_cache):
    """Photographs, a cache with their features, a run on them, and a comparison; no test may change them."""
    from tests.conftest import write_photos

    folder = tmp_path_factory.mktemp("arguments")
    data = write_photos(folder / "data")
    new_cache(folder / "cache")
    how = {"cache_dir": str(folder / "cache"), **SMALL}
    featx.extract_features(str(data), **how)
    featx.train_top(str(data), run_dir=str(folder / "run"), heads="logreg", **how)
    comparison = featx.compare_approaches(
        str(data), backbones="vgg16", training=Training(epochs=1), **_without_layer(how)
    )
    return folder, comparison


def _without_layer(how):
    return {name: value for name, value in how.items() if name != "layer"}


def test_text_does_for_every_folder_and_one_name_for_a_list(world, tmp_path):
    folder, comparison = world
    run, cache, data = (str(folder / name) for name in ("run", "cache", "data"))
    featx.write_report(comparison, str(tmp_path / "report"), data)
    assert (tmp_path / "report" / "index.html").exists()
    assert {approach.name for approach in comparison.approaches} == {"vgg16 + dense", "vgg16 + logreg"}
    export = featx.export_run(run, str(tmp_path / "m.keras"), cache_dir=cache)
    assert export.path.exists()
    recipe, _ = featx.resolve_recipe(cache, **SMALL)
    store = featx.FeatureStore(cache, recipe)
    assert len(store) == 32
    assert featx.check_cache(cache, recipe.slug).is_sound
    assert list(featx.compact_cache(cache, recipe.slug)) == [recipe.slug]
    assert featx.fetch_data("sample", str(tmp_path / "sample")).n_files > 100


@pytest.mark.parametrize("image_size", [32, "32", (32, 32), [32, 32], np.int64(32), "32x32"])
def test_an_image_size_in_every_way_of_writing_it_is_one_recipe(tmp_path, image_size):
    recipe, _ = featx.resolve_recipe(tmp_path, weights="random", image_size=image_size)
    assert recipe == featx.resolve_recipe(tmp_path, weights="random", image_size=(32, 32))[0]
    assert [type(side) for side in recipe.image_size] == [int, int]


def test_options_that_are_none_mean_the_default(tmp_path):
    options = dict.fromkeys(("backbone", "layer", "pooling", "image_size", "precision", "dtype"))
    assert featx.resolve_recipe(tmp_path, weights="random", **options) == featx.resolve_recipe(
        tmp_path, weights="random"
    )


def call(function, folder, data, how):
    """Call a function of the library; `how` are its options, those of `SMALL` among them."""
    of_run = {name: value for name, value in how.items() if (name, value) not in SMALL.items()}
    match function:
        case "recipe":
            featx.resolve_recipe(**how)
        case "extractor":
            featx.FeatureExtractor(**how).transform([data / "test/sea/sea.0.jpg"])
        case "direct":
            layer = None if how["layer"] == SMALL["layer"] else how["layer"]
            featx.DirectClassifier.load(**{**how, "layer": layer})
        case "compare_approaches":
            featx.compare_approaches(data, **_without_layer(how))
        case "train_top":
            featx.train_top(data, **{"run_dir": folder / "new", **how})
        case "classifier":
            featx.Classifier.load(**{"run_dir": folder / "run", **of_run})
        case "export":
            featx.export_run(**{"run_dir": folder / "run", **of_run})
        case _:
            getattr(featx, function)(data, **how)


ON_DATA = ("extract_features", "plan_extraction", "train_top", "load_features", "compare_approaches")
OF_RECIPE = (*ON_DATA, "recipe", "extractor", "direct")
EXTRACTING = ("extract_features", "plan_extraction", "compare_approaches", "extractor")
OF_RUN = ("classifier", "export")

#: Functions, their parameters, and what does not fit there.
WRONG = [
    (OF_RECIPE, ["image_size"], [0, 1.5, "large", (64, 64, 3), (0, 4), {}, True]),
    (OF_RECIPE, ["backbone"], ["vgg17", ["vgg16"], 7]),
    (OF_RECIPE, ["dtype"], [7, "float64", np.int64]),
    (OF_RECIPE, ["precision"], [7, "float64"]),
    (OF_RECIPE, ["weights"], [7, "gone.h5"]),
    (OF_RUN, ["weights"], [7]),
    ((*OF_RECIPE, *OF_RUN), ["cache_dir"], [7, b"cache", ["cache"]]),
    (OF_RECIPE, ["pooling"], ["mean", 7]),
    (set(OF_RECIPE) - {"compare_approaches"}, ["layer"], [7, ["block1_pool"]]),
    (["direct"], ["layer"], ["block2_pool"]),
    (["direct"], ["pooling"], ["avg"]),
    ((*EXTRACTING, "direct", "classifier"), ["batch_size", "threads", "streams"], [0, -1, 1.5, "many", True]),
    ((*EXTRACTING, "direct", "classifier"), ["engine"], ["abacus", 7, ["keras"]]),
    (EXTRACTING, ["workers"], [0, -1, 1.5, "all"]),
    (ON_DATA, ["views"], [0, -1, 1.5, "8", 70000, True]),
    (["train_top", "compare_approaches"], ["training"], [{"epochs": 3}, 3, None]),
    (["train_top"], ["heads"], ["forest", ["dense", "forest"], 7, [7], []]),
    (["train_top"], ["run_dir"], [7, None, "s3://bucket/run"]),
    (["compare_approaches"], ["backbones", "baselines"], ["vgg17", 7, [7], [["vgg16"]]]),
    (["compare_approaches"], ["repeats"], [0, 1.5, "3"]),
    (["direct"], ["maps"], [7, [7], "cats"]),
    (["direct"], ["class_list"], [7, "gone.json"]),
    (OF_RUN, ["run_dir"], [7, None, "gone"]),
    (OF_RUN, ["head"], ["dense", 7]),
    (["export"], ["format"], ["pickle", 7, ["keras"]]),
    (["export"], ["to_path"], [7, "s3://bucket/model.keras"]),
    (["plan_extraction"], ["deadline_s"], ["soon", 0, -5]),
    (["extract_features"], ["ray_address"], [7, ["auto"]]),
]


@pytest.mark.parametrize(
    ("function", "wrong"),
    [
        (function, {parameter: value})
        for functions, parameters, values in WRONG
        for function in sorted(functions)
        for parameter in parameters
        for value in values
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused_in_one_sentence(world, function, wrong):
    folder, _ = world
    with pytest.raises((FeatxError, TypeError)) as caught:
        call(function, folder, folder / "data", {"cache_dir": folder / "cache", **SMALL, **wrong})
    assert caught.type is not TypeError or "raise TypeError(" in str(caught.traceback[-1].statement)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("wrong", [7, b"data", ["data"], None, "", Path("gone")])
@pytest.mark.parametrize("function", ON_DATA)
def test_data_that_is_none_is_refused_in_one_sentence(tmp_path, monkeypatch, function, wrong):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FeatxError):
        call(function, tmp_path, wrong, {"cache_dir": tmp_path / "cache", **SMALL})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Training(seed=-1), "seed is a whole number from 0"),
        (lambda: Training(seed=2**32), "seed is a whole number"),
        (lambda: Training(epochs=0), "epochs is a whole number of 1 or more"),
        (lambda: Training(epochs=2.5), r"Received: 2.5 \(float\)"),
        (lambda: Training(patience=-1), "patience"),
        (lambda: Training(batch_size="32"), "batch_size"),
        (lambda: Training(memory="plenty"), "A size is"),
        (lambda: Training(memory=-1), "memory"),
        (lambda: Views("8"), "The number of views"),
        (lambda: Views(8, "report"), "of views is an Augmentation"),
        (lambda: Augmentation(rotation="20"), "rotation goes from 0"),
        (lambda: Augmentation(zoom=float("nan")), "zoom goes from 0"),
        (lambda: featx.scan("data", "cache", test_fraction="0.2"), "test fraction"),
        (lambda: featx.list_cache(7), "named by a path"),
        (lambda: featx.check_cache("cache", 7), "list of names"),
        (lambda: featx.compact_cache("cache", [7]), "list of names"),
        (lambda: featx.fetch_data(7), "OWNER/NAME"),
        (lambda: featx.fetch_data("sample", "s3://bucket/x"), "on this machine"),
        (lambda: featx.write_report("comparison", "report"), "what compare_approaches returns"),
        (lambda: featx.FeatureStore("cache", "vgg16"), "A store needs a recipe"),
    ],
)
def test_numbers_and_names_that_do_not_fit_are_an_error(make, message):
    with pytest.raises(FeatxError, match=message):
        make()


def test_numbers_of_other_types_are_the_same_number():
    assert Training(seed=np.int64(3), memory="4GiB") == Training(seed=3, memory=4 << 30)
    assert Views(np.uint16(4)) == Views(4)
    assert whole_number("n", np.uint8(7)) == 7


@pytest.mark.parametrize("rows", [[0, 3], [True], np.ones((32, 1), bool), np.zeros(32), "all", None])
def test_a_mask_that_is_none_selects_nothing_wrong(world, rows):
    folder, _ = world
    features = featx.load_features(folder / "data", cache_dir=folder / "cache", **SMALL)
    for has_rows in (features, features.dataset):
        with pytest.raises(FeatxError, match="A mask has true or false for each of 32 images"):
            has_rows.subset(rows)
    assert features.subset([True] * 16 + [False] * 16).dataset.n_images == 16


def test_one_digest_is_not_thirty_two(world):
    folder, _ = world
    features = featx.load_features(folder / "data", cache_dir=folder / "cache", **SMALL)
    store = featx.FeatureStore(folder / "cache", features.recipe)
    digests = features.dataset.digests
    assert np.array_equal(store.read(digests[:1])[0], features.X[0])
    for wrong in (digests[0], digests.tobytes(), digests.astype(int), [digests[0]]):
        for find in (store.read, store.contains, store.cost, store.locate):
            with pytest.raises(FeatxError, match=r"\(n, 32\) uint8"):
                find(wrong)


def test_what_is_shown_of_large_things_is_short(world):
    folder, _ = world
    features = featx.load_features(folder / "data", cache_dir=folder / "cache", **SMALL)
    assert repr(features.dataset).endswith("2 classes, 24 training and 8 test images>")
    assert len(repr(features.dataset)) < 300


def test_names_and_masks():
    assert names("x", (name for name in ("a", "b"))) == ("a", "b")
    assert as_mask([True, False], 2).tolist() == [True, False]
