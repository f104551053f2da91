"""What users give to the library's functions is understood, or refused in one sentence."""

from dataclasses import fields, is_dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import featx
from featx.errors import FeatxError
from featx.extract.planning import plan as plan_module
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


@pytest.fixture
def quick_plans(monkeypatch):
    """Time less than is good for the figures of a plan, which no test here looks at."""
    monkeypatch.setattr(plan_module, "PASS_S", 0.1)


def _without_layer(how):
    return {name: value for name, value in how.items() if name != "layer"}


@pytest.mark.usefixtures("without_rendering")
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
    (["train_top"], ["run_dir"], [7, "s3://bucket/run"]),
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
        (lambda: Training(seed=-1), "seed must be a whole number from 0"),
        (lambda: Training(seed=2**32), "seed must be a whole number"),
        (lambda: Training(epochs=0), "epochs must be a whole number from 1"),
        (lambda: Training(epochs=2.5), r"Received: 2.5 \(float\)"),
        (lambda: Training(patience=-1), "patience"),
        (lambda: Training(batch_size="32"), "batch_size"),
        (lambda: Training(memory="plenty"), "A size must be"),
        (lambda: Training(memory=-1), "memory"),
        (lambda: Views("8"), "The number of views"),
        (lambda: Views(8, "report"), "of views must be an Augmentation"),
        (lambda: Augmentation(rotation="20"), "rotation must be from 0"),
        (lambda: Augmentation(zoom=float("nan")), "zoom must be from 0"),
        (lambda: featx.scan("data", "cache", test_fraction="0.2"), "test fraction"),
        (lambda: featx.list_cache(7), "Give a path or an address"),
        (lambda: featx.check_cache("cache", 7), "list of names"),
        (lambda: featx.compact_cache("cache", [7]), "list of names"),
        (lambda: featx.fetch_data(7), "OWNER/NAME"),
        (lambda: featx.fetch_data("sample", "s3://bucket/x"), "on this machine"),
        (lambda: featx.write_report("comparison", "report"), "the result of compare_approaches"),
        (lambda: featx.write_explanations("why", "folder"), "the result of Classifier.explain"),
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
        with pytest.raises(FeatxError, match="A mask must have true or false for each of 32 images"):
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
            with pytest.raises(FeatxError, match=r"shape \(n, 32\) and dtype uint8"):
                find(wrong)


@pytest.mark.usefixtures("without_rendering", "quick_plans")
def test_a_data_set_does_wherever_a_folder_does(world, tmp_path):
    folder, comparison = world
    how = {"cache_dir": folder / "cache", **SMALL}
    dataset = featx.scan(folder / "data", folder / "cache")
    some = dataset.subset(np.arange(dataset.n_images) % 2 == 0)
    assert featx.scan(some, folder / "cache") is some
    assert featx.extract_features(some, **how).n_cached == 16
    assert np.array_equal(featx.load_features(some, **how).X, featx.load_features(folder / "data", **how).X[::2])
    assert featx.train_top(some, run_dir=tmp_path / "run", heads="logreg", **how).features.dataset is not None
    of_some = featx.compare_approaches(some, training=Training(epochs=1), **_without_layer(how))
    assert (of_some.n_test, comparison.n_test) == (4, 8)
    plan = featx.plan_extraction(some, engine="openvino", precision="float32", **how)
    assert (plan.n_images, plan.n_train) == (16, 12)
    assert plan.size_bytes == sum((some.root / path).stat().st_size for path in some.paths)
    classifier = featx.Classifier.load(folder / "run", cache_dir=folder / "cache")
    assert len(classifier.predict(some)) == len(featx.FeatureExtractor(**how).transform(some)) == 16
    featx.write_report(of_some, tmp_path / "report", some)
    assert (tmp_path / "report" / "index.html").read_text().count("data:image/webp") > 0


def test_features_of_a_data_set_are_advised_by_its_folder(world, tmp_path):
    folder, _ = world
    dataset = featx.scan(folder / "data", tmp_path / "cache")
    with pytest.raises(FeatxError, match=f"Make them with: featx extract {folder / 'data'} "):
        featx.train_top(dataset, run_dir=tmp_path / "run", cache_dir=tmp_path / "cache", **SMALL)


@pytest.mark.parametrize(
    ("kept", "lacks"),
    [
        (lambda dataset: dataset.is_test, "training images of sea"),
        (lambda dataset: ~dataset.is_test, "test images"),
        (lambda dataset: (dataset.labels == 0) | dataset.is_test, "training images of wood"),
    ],
)
def test_a_part_of_a_data_set_on_which_nothing_can_be_trained_is_refused(world, tmp_path, kept, lacks):
    folder, _ = world
    dataset = featx.scan(folder / "data", folder / "cache")
    some = dataset.subset(kept(dataset))
    for train in (featx.compare_approaches, partial(featx.train_top, run_dir=tmp_path / "run"), featx.load_features):
        if train is not featx.load_features:
            with pytest.raises(FeatxError, match=f"This data set lacks {lacks}"):
                train(some, cache_dir=folder / "cache", **_without_layer(SMALL))
    assert featx.extract_features(some, cache_dir=folder / "cache", **SMALL).n_cached == some.n_images


def parts_of(value):
    """Yield a public object and those that it consists of, each once: of several in a row, the first."""
    if isinstance(value, tuple | list):
        value = value[0] if value else None
    if type(value).__module__.startswith("featx."):
        yield value
        for field in fields(value) if is_dataclass(value) else ():
            yield from parts_of(getattr(value, field.name))


@pytest.mark.usefixtures("quick_plans")
def test_what_is_shown_of_anything_public_is_short(world, tmp_path):
    folder, comparison = world
    how = {"cache_dir": folder / "cache", **SMALL}
    many = tuple(f"class number {number}" for number in range(1000))
    n = 10_000
    large = featx.ImageDataset(
        root=Path("a folder with a long name/" * 50),
        class_names=many,
        paths=tuple(f"train/cats/{row}.jpg" for row in range(n)),
        labels=np.zeros(n, np.int64),
        is_test=np.zeros(n, bool),
        digests=np.zeros((n, 32), np.uint8),
        warnings=("something is wrong",) * n,
    )
    run = featx.train_top(folder / "data", run_dir=tmp_path / "run", heads="logreg", **how)
    plan = featx.plan_extraction(folder / "data", engine="openvino", precision="float32", views=None, **how)
    classifier = featx.Classifier.load(tmp_path / "run", cache_dir=folder / "cache")
    predictions = classifier.predict(folder / "data")
    extraction = featx.extract_features(folder / "data", **how)
    direct = featx.DirectClassifier.load(weights="random", cache_dir=folder / "cache")
    export = featx.export_run(tmp_path / "run", tmp_path / "m.keras", cache_dir=folder / "cache")
    photo = folder / "data" / extraction.dataset.paths[0]
    found = featx.Diagnosis(
        versions=dict.fromkeys(many, "1"),
        missing=many,
        hardware={"processor": "x" * n},
        free_memory_bytes=n,
        keras_backend="tensorflow",
        gpu=False,
        has_cuda=False,
        engine="openvino",
        fast=(),
        weights=many,
        problems=many,
        cache_dir=folder,
        cache=(),
        self_tests=(),
    )
    problems = featx.find_problems(folder / "data", kinds="suffix", cache_dir=folder / "cache")
    problem = featx.Problem("suffix", "x" * n, "", "train", "a", None, "look at", "y" * n)
    shown = [
        large,
        problem,
        replace(problems, dataset=large, found=(problem,) * n, not_checked=many),
        featx.Moved(tmp_path / ("x" * 200), tmp_path, many, tuple((name, name) for name in many)),
        found,
        featx.Rerun(tmp_path, many, dict.fromkeys(many, (0.5, 0.5)), is_same=False),
        featx.find_similar(folder / "data", [photo] * 20, **how),
        featx.export_features(folder / "data", tmp_path / "f.npz", **how),
        featx.ImageFolders(folder / "data", labels=[("a.jpg", "cat")] * n),
        featx.Labels("a table with a long name/" * 50),
        featx.list_backbones()[0],
        replace(comparison, class_names=comparison.class_names, warnings=many),
        featx.fetch_data("sample", tmp_path / "sample"),
        replace(export, class_names=many),
        replace(extraction, dataset=large),
        replace(plan, warnings=many, unreadable=tuple((name, name) for name in many)),
        featx.FeatureExtractor(**how),
        classifier,
        direct,
        replace(classifier.explain(photo), why_no_evidence="x" * n),
        replace(predictions, paths=(Path("x"),) * n, reasons=(None,) * n),
        replace(extraction.recipe, weights="0" * 64, calibration="1" * 64, augmentation=Augmentation(rotation=20)),
        featx.FeatureStore(folder / "cache", extraction.recipe),
        replace(run.features, dataset=large),
        replace(run, warnings=many),
        Training(seed=7),
    ]
    public = {name for name in featx.__all__ if isinstance(getattr(featx, name), type)} - {"FeatxError"}
    assert {type(value).__name__ for value in shown} == public
    listed = [*featx.list_cache(folder / "cache"), featx.check_cache(folder / "cache")]
    for value in (part for whole in [*shown, *listed, predictions[0], classifier.run] for part in parts_of(whole)):
        assert len(repr(value)) < 300, (type(value), len(repr(value)))
        assert "\n" not in repr(value).removeprefix("FeatureExtractor").replace(",\n", "")


@pytest.mark.filterwarnings("error")
def test_features_print_and_sum_in_pandas_without_overflow(world):
    pytest.importorskip("pandas")
    folder, _ = world
    features = featx.load_features(folder / "data", cache_dir=folder / "cache", **SMALL)
    assert features.X.dtype == np.float16
    large = replace(features, X=np.full_like(features.X[:, :2, :2, :4], 60_000))  # pandas is slow with many columns
    table = large.to_pandas()
    assert (table["f0"].dtype, table["f0"].mean()) == (np.float32, 60_000)
    assert "60000.0" in repr(table)
    assert "60000.0" in repr(table.describe())


def test_names_and_masks():
    assert names("x", (name for name in ("a", "b"))) == ("a", "b")
    assert as_mask([True, False], 2).tolist() == [True, False]
