"""Stage one on a Ray cluster: the same rows as on one machine, and nothing lost whatever is killed."""

import hashlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks.ray_nodes import TIMEOUT_S, LocalCluster, free_port, kill, wait_until
from featx.backbones.weights import Weights
from featx.dataset.skipped import SkippedImage
from featx.engines.engine import EngineOptions
from featx.errors import DtypeOverflowError, FeatxError, ImageError
from featx.extract.cluster import run
from featx.extract.cluster.driver import CORES_PER_WORKER, ClusterFound, cluster_engine, worker_slots
from featx.extract.cluster.scheduler import MAX_IMAGES, Task, TaskQueue
from featx.extract.cluster.worker import Outcome, WorkerConfig, WorkerSlot, check_node, digest_of
from featx.extract.extract import Extraction, extract_features
from featx.extract.pipeline import StageOne
from featx.images.augmentation import AUGMENTATIONS, Views
from featx.recipe import Recipe
from featx.store.feature_store import FeatureStore
from featx.system.machine import versions
from tests.onnx_networks import write_network

needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs featx[ray]")

#: Each takes some ten seconds: real nodes, real kills.
in_full = pytest.mark.skipif(os.environ.get("FEATX_CHAOS") != "full", reason="runs in make chaos")

#: Slow enough to be killed half-way: a few seconds for the two nodes.
SLOW: dict[str, Any] = {"weights": "random", "image_size": (96, 96), "precision": "float32", "batch_size": 4}
SLOW |= {"engine": "openvino"}
SLOW_WORDS = ["--weights", "random", "--image-size", "96", "--precision", "float32", "--batch-size", "4"]
SLOW_WORDS += ["--engine", "openvino"]
QUICK: dict[str, Any] = {"weights": "random", "image_size": (32, 32), "layer": "block2_pool", "precision": "float32"}

GO_ON = "featx: stopped; finished work is kept. Run it again to resume.\n"


@pytest.fixture(scope="module")
def running_cluster() -> Iterator[LocalCluster]:
    cluster = LocalCluster()
    yield cluster
    cluster.remove()


@pytest.fixture
def cluster(running_cluster) -> LocalCluster:
    """Two nodes that nobody works on."""
    running_cluster.complete()
    wait_until(lambda: not running_cluster.workers(), "the end of the workers of the test before")
    return running_cluster


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """96 images, one of which is nearly black, and two that cannot be read."""
    from tests.conftest import write_photos

    root = write_photos(tmp_path_factory.mktemp("data") / "data", n_train=36, n_test=12)
    dim = Image.fromarray(np.arange(100, dtype=np.uint16).reshape(10, 10))
    dim.save(root / "train" / "wood" / "wood.0.jpg", "PNG")
    for number in range(2):
        (root / "train" / "wood" / f"bad.{number}.jpg").write_bytes(b"no image %d" % number)
    return root


N_IMAGES = 96


@pytest.fixture(scope="module")
def alone(data, tmp_path_factory, networks_dir) -> Extraction:
    """The extraction of `data` by a single process."""
    cache = tmp_path_factory.mktemp("alone")
    (cache / "networks").symlink_to(networks_dir, target_is_directory=True)
    return extract_features(data, cache_dir=cache, **SLOW)


def rows(cache: Path, recipe: Recipe) -> dict[tuple[bytes, int], bytes]:
    """Return all rows of a store as they are on disk, by digest and view; fail if a row occurs twice."""
    store = FeatureStore(cache, recipe)
    names = [np.concatenate([getattr(s, name) for s in store.segments]) for name in ("digests", "views")]
    features = store.read(*names)
    found = {(bytes(d), int(v)): f.tobytes() for d, v, f in zip(*names, features, strict=True)}
    assert len(found) == len(features) == len(store)
    return found


def assert_same(cache: Path, alone: Extraction) -> None:
    """Assert that a store has the rows of a single process, bit for bit, and all that belongs to a store."""
    assert rows(cache, alone.recipe) == rows(alone.store_dir.parent, alone.recipe)
    store_dir = cache / alone.recipe.slug
    assert json.loads((store_dir / "timings.json").read_text())["n_images"] == N_IMAGES
    assert list(store_dir.glob("damaged-*")) == []


def n_stored(cache: Path, recipe: Recipe) -> int:
    return len(FeatureStore(cache, recipe))


@contextmanager
def once_some_are_stored(cache: Path, action: Any) -> Iterator[None]:
    """While the block runs, do something as soon as a segment is there."""
    errors: list[BaseException] = []

    def wait_and_act() -> None:
        try:
            wait_until(lambda: list(cache.glob("*/seg-*.h5")), "a segment")
            action()
        except BaseException as error:  # noqa: BLE001 - the test is to fail, not the thread
            errors.append(error)

    thread = threading.Thread(target=wait_and_act)
    thread.start()
    yield
    thread.join()
    assert not errors, errors


def start(*words: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "featx", "extract", *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


# The same features


@needs_ray
def test_a_cluster_stores_the_rows_of_a_single_process_bit_for_bit_and_skips_the_same(
    cluster, data, cache, alone, caplog
):
    (data / "train" / "wood" / "gone.jpg").symlink_to(data / "nowhere.jpg")
    try:
        extraction = extract_features(data, cache_dir=cache, ray_address=cluster.address, **SLOW)
    finally:
        (data / "train" / "wood" / "gone.jpg").unlink()
    assert extraction.n_computed == extraction.timings.n_images == N_IMAGES
    assert "1 image has 16 bits a sample but no value above 99 of 65,535" in caplog.text
    assert_same(cache, alone)
    assert len(FeatureStore(cache, alone.recipe).segments) > 1
    skipped = {Path(image.path).name: image.reason for image in extraction.skipped}
    assert skipped.pop("gone.jpg")
    assert skipped == {Path(image.path).name: image.reason for image in alone.skipped}
    assert set(skipped) == {"bad.0.jpg", "bad.1.jpg"}
    again = extract_features(data, cache_dir=cache, ray_address="127.0.0.1:1", **SLOW)  # nobody is asked
    assert (again.n_computed, again.n_cached) == (0, N_IMAGES)


@needs_ray
def test_an_onnx_network_runs_on_all_nodes(cluster, data, tmp_path):
    path = write_network(tmp_path / "small.onnx")
    options = {"backbone": path, "preprocess": "tf", "precision": "float32"}
    here = extract_features(data, cache_dir=tmp_path / "here", **options)
    there = extract_features(data, cache_dir=tmp_path / "there", ray_address=cluster.address, **options)
    assert there.n_computed == here.n_computed == N_IMAGES
    assert rows(tmp_path / "there", here.recipe) == rows(tmp_path / "here", here.recipe)


@needs_ray
@in_full
def test_views_and_int8_are_the_same_too(cluster, data, tmp_path):
    options = {**QUICK, "precision": "int8", "views": Views(2, AUGMENTATIONS["report"])}
    here = extract_features(data, cache_dir=tmp_path / "here", **options)
    there = extract_features(data, cache_dir=tmp_path / "there", ray_address=cluster.address, **options)
    assert there.views
    assert here.views
    assert there.views.n_computed == here.views.n_computed == 2 * N_IMAGES * 3 // 4
    for recipe in (here.recipe, here.views.recipe):
        assert rows(tmp_path / "there", recipe) == rows(tmp_path / "here", recipe)


@needs_ray
@in_full
def test_nothing_but_results_is_printed(cluster, data, cache):
    words = [data, "--cache-dir", cache, "--ray", cluster.address, "--json", "--quiet"]
    process = start(*words, "--weights", "random", "--image-size", "32", "--layer", "block2_pool")
    stdout, stderr = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0
    assert stderr.startswith("featx: warning: 1 image has 16 bits a sample")
    assert stderr.count("\n") == 1
    assert json.loads(stdout)["n_computed"] == N_IMAGES  # Ray prints to standard output, too, if it is let


# Kills


@needs_ray
def test_a_killed_worker_costs_what_it_had_not_written(cluster, data, cache, alone, caplog):
    with once_some_are_stored(cache, lambda: kill(cluster.workers()[:1])):
        extraction = extract_features(data, cache_dir=cache, ray_address=cluster.address, **SLOW)
    assert extraction.n_computed == N_IMAGES
    assert_same(cache, alone)
    assert sum("was lost" in record.getMessage() for record in caplog.records) == 1


@needs_ray
def test_a_node_that_dies_loses_nothing(cluster, data, cache, alone, caplog):
    with once_some_are_stored(cache, cluster.nodes[0].kill):
        extraction = extract_features(data, cache_dir=cache, ray_address=cluster.address, **SLOW)
    assert extraction.n_computed == N_IMAGES
    assert_same(cache, alone)
    assert sum("was lost" in record.getMessage() for record in caplog.records) == 1


@needs_ray
@in_full
def test_a_node_that_comes_later_helps(cluster, data, cache, alone):
    """The only node dies; the work waits for another, and is finished there."""
    cluster.nodes[1].kill()

    def replace_the_other() -> None:
        cluster.nodes[0].kill()
        cluster.complete()

    with once_some_are_stored(cache, replace_the_other):
        extraction = extract_features(data, cache_dir=cache, ray_address=cluster.address, **SLOW)
    assert extraction.n_computed == N_IMAGES
    assert_same(cache, alone)


@needs_ray
def test_without_any_worker_left_it_ends_with_one_line(cluster, data, cache, alone, monkeypatch):
    monkeypatch.setattr("featx.extract.cluster.run.PATIENCE_S", 3.0)

    def kill_all() -> None:
        for node in cluster.nodes:
            node.kill()

    with once_some_are_stored(cache, kill_all), pytest.raises(FeatxError, match="no worker is left") as raised:
        extract_features(data, cache_dir=cache, ray_address=cluster.address, **SLOW)
    assert "\n" not in str(raised.value)
    assert_the_rest_is_computed(cache, data, alone)


@needs_ray
def test_a_killed_driver_takes_its_workers_along_and_the_next_run_goes_on(cluster, data, cache, alone):
    process = start(data, "--cache-dir", cache, "--ray", cluster.address, *SLOW_WORDS, "--quiet")
    with once_some_are_stored(cache, process.kill):
        process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == -signal.SIGKILL
    wait_until(lambda: not cluster.workers(), "the end of the workers")
    n = n_stored(cache, alone.recipe)
    extraction = extract_features(data, cache_dir=cache, ray_address=cluster.address, **SLOW)
    assert extraction.n_computed == N_IMAGES - n < N_IMAGES
    assert_same(cache, alone)


@needs_ray
@in_full
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["SIGINT", "SIGTERM"])
def test_a_signal_is_one_line_and_keeps_what_is_finished(cluster, data, cache, alone, number, code):
    process = start(data, "--cache-dir", cache, "--ray", cluster.address, *SLOW_WORDS, "--quiet")
    with once_some_are_stored(cache, lambda: process.send_signal(number)):
        stdout, stderr = process.communicate(timeout=TIMEOUT_S)
    assert (process.returncode, stdout, stderr) == (code, "", GO_ON)
    assert (cache / alone.recipe.slug / "features.h5").exists()
    assert_the_rest_is_computed(cache, data, alone)


def test_a_signal_does_not_forget_what_was_skipped(data, cache, monkeypatch):
    """The driver is none of Ray's: it has done some work when the signal comes."""

    class Driver:
        def __init__(self, _address: str) -> None:
            pass

        def find_cluster(self, _stage: StageOne) -> ClusterFound:
            return ClusterFound("keras", "a cluster")

        def send(self, message: Any) -> None:
            self.images = message[0]

        def outcome(self, _count: Any, interrupted: Callable[[], bool]) -> Outcome:
            signal.raise_signal(signal.SIGINT)
            assert interrupted()
            path = Path(self.images.sources[0])
            return Outcome(skipped=[SkippedImage.of(path, hashlib.sha256(path.read_bytes()).digest(), "no image")])

        def close(self) -> None:
            pass

    monkeypatch.setattr(run, "_Driver", Driver)
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: True)
    with pytest.raises(KeyboardInterrupt):
        extract_features(data, cache_dir=cache, ray_address="auto", **{**SLOW, "engine": "keras"})
    (skipped,) = cache.glob("*/skipped.csv")
    assert "no image" in skipped.read_text()


def assert_the_rest_is_computed(cache: Path, data: Path, alone: Extraction) -> None:
    """Assert that what was stored is kept, and that another run, without a cluster, computes nothing but the rest."""
    n = n_stored(cache, alone.recipe)
    assert 0 < n < N_IMAGES
    assert extract_features(data, cache_dir=cache, **SLOW).n_computed == N_IMAGES - n
    assert_same(cache, alone)


# Errors are one line


@needs_ray
@in_full
def test_strict_stops_at_the_first_bad_image_and_keeps_the_rest(cluster, data, cache):
    with pytest.raises(ImageError, match=r"bad\.[01]\.jpg cannot be read: text, not an image.* Without --strict"):
        extract_features(data, cache_dir=cache, ray_address=cluster.address, strict=True, **{**QUICK, "batch_size": 4})
    assert list(cache.glob("*/seg-*.h5"))


@needs_ray
@in_full
def test_a_feature_that_does_not_fit_is_said_as_on_one_machine(cluster, data, cache, vgg16_weights):
    import h5py

    path = vgg16_weights / "vgg16_mine_notop.h5"
    with h5py.File(path, "r+") as file:
        file["block1_conv1"]["block1_conv1"]["kernel"][...] *= 1e6
    options = {**QUICK, "weights": str(path)}
    messages = []
    for address in (None, cluster.address):
        with pytest.raises(DtypeOverflowError, match="Extract with --dtype float32") as raised:
            extract_features(data, cache_dir=cache, ray_address=address, **options)
        messages.append(str(raised.value))
    assert "node" not in messages[1]


@needs_ray
@pytest.mark.parametrize("address", ["a closed port", "nonsense", "nowhere.invalid:6379", "ray://nowhere.invalid:1"])
def test_a_wrong_address_is_one_line(featx, data, cache, address):
    address = f"127.0.0.1:{free_port()}" if address == "a closed port" else address
    result = featx("extract", data, "--cache-dir", cache, "--ray", address, "--weights", "random", exit_code=2)
    _classes, error = result.output.splitlines()
    assert error.startswith("featx: ")
    assert address in error


def test_without_ray_the_error_says_what_to_install(featx, data, cache, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)  # as if it were not installed
    result = featx("extract", data, "--cache-dir", cache, "--ray", "auto", "--weights", "random", exit_code=2)
    assert "\nfeatx: Ray is not installed. Install it with " in result.output
    assert result.output.endswith('pip install "featx[ray]".\n')


# What a node must have


@pytest.fixture
def config(tmp_path) -> WorkerConfig:
    """One that fits this machine."""
    (tmp_path / "mark").touch()
    (tmp_path / "image").write_bytes(b"an image")
    recipe = Recipe(
        backbone="vgg16", weights="random-0", layer="block1_pool", image_size=(32, 32), preprocessing="caffe"
    )
    return WorkerConfig(
        recipe=recipe,
        weights=Weights("random-0", None),
        cache_dir=tmp_path,
        engine_options=EngineOptions(engine="keras"),
        workers=None,
        strict=False,
        keep_pixels=False,
        keras_backend="tensorflow",
        versions={name: version for name, version in versions().items() if name in {"featx", "pillow", "keras"}},
        mark=tmp_path / "mark",
        sample=(tmp_path / "image", digest_of(tmp_path / "image") or ""),
    )


HERE = WorkerSlot("0", "here", 1, 0)


def test_a_node_like_this_one_is_fit(config):
    check_node(HERE, config)


@pytest.mark.parametrize(
    ("what", "why"),
    [
        ({"versions": {"pillow": "0.1"}}, r"pillow is [\d.]+, but 0\.1 where you ran the command: install the same"),
        ({"versions": {"no-such-package": "1"}}, "no-such-package is not installed, but 1 where you ran the command"),
        ({"mark": Path("/nowhere/mark")}, "--cache-dir must be a folder that all nodes share"),
        ({"sample": (Path("/nowhere/image"), "0" * 64)}, "DATA must be a folder that all nodes share"),
        ({"weights": Weights("0" * 64, Path("/nowhere/weights.h5"))}, "does not have the same weights"),
        ({"recipe": {"pixels_version": 2}}, "cannot compute features with pixels_version 2: it knows 3"),
    ],
    ids=["version", "package", "cache", "image", "weights", "recipe"],
)
def test_a_node_that_differs_is_not(config, what, why):
    if "recipe" in what:
        what = {"recipe": replace(config.recipe, **what["recipe"])}
    with pytest.raises(FeatxError, match=why) as raised:
        check_node(HERE, replace(config, **what))
    assert "\n" not in str(raised.value)


def test_an_image_with_other_bytes_on_a_node_is_found(config, tmp_path):
    (tmp_path / "image").write_bytes(b"another image")
    with pytest.raises(FeatxError, match="is not the same image"):
        check_node(HERE, config)


# How work is shared out


def ray_node(name: str, *, alive: bool = True, **resources: float) -> dict[str, Any]:
    """Return a node as `ray.nodes()` does."""
    about = {"NodeID": name * 8, "NodeManagerHostname": name, "NodeManagerAddress": "10.0.0.1"}
    return {**about, "Alive": alive, "Resources": {"memory": 1e9, **resources}}


def test_every_few_cores_have_a_worker_and_dead_nodes_have_none():
    nodes = [ray_node("a", CPU=2.0), ray_node("b", CPU=2.0 * CORES_PER_WORKER), ray_node("c"), ray_node("d", CPU=1)]
    nodes[3]["Alive"] = False
    slots = worker_slots(nodes, "openvino", None)
    assert [(slot.node[0], slot.n_cores) for slot in slots] == [("a", 2), *[("b", CORES_PER_WORKER)] * 2]


@pytest.mark.parametrize(
    ("n_cores", "threads", "shares"),
    [(5, 2, [2, 2, 1]), (10, None, [4, 3, 3]), (2, None, [2]), (3, 1, [1, 1, 1]), (0, 2, [])],
)
def test_threads_are_the_cores_of_each_worker(n_cores, threads, shares):
    slots = worker_slots([ray_node("a", CPU=n_cores)], "openvino", threads)
    assert [slot.n_cores for slot in slots] == shares


def test_each_gpu_has_a_worker_with_its_share_of_the_cores():
    nodes = [ray_node("a", CPU=16, GPU=2), ray_node("b", CPU=64)]
    recipe = Recipe(backbone="vgg16", weights="random-0", layer="x", image_size=(32, 32), preprocessing="caffe")
    assert cluster_engine(EngineOptions(), recipe, nodes) == "keras"
    assert [(slot.node[0], slot.n_cores, slot.n_gpus) for slot in worker_slots(nodes, "keras", None)] == [
        ("a", 8, 1),
        ("a", 8, 1),
    ]


@pytest.mark.parametrize(
    ("engine", "precision", "resources", "chosen"),
    [
        ("auto", "float32", {}, "openvino"),
        ("auto", "int8", {"GPU": 1}, "openvino"),
        ("openvino", "float32", {"GPU": 1}, "openvino"),
        ("keras", "float32", {}, "keras"),
    ],
)
def test_all_workers_run_one_engine(engine, precision, resources, chosen):
    recipe = Recipe(
        backbone="vgg16",
        weights="random-0",
        layer="x",
        image_size=(32, 32),
        preprocessing="caffe",
        precision=precision,
        calibration="0" * 64 if precision == "int8" else None,
    )
    assert cluster_engine(EngineOptions(engine=engine), recipe, [ray_node("a", CPU=8, **resources)]) == chosen


@pytest.mark.parametrize("n_rows", [1, 31, 1000, 30_000])
def test_tasks_are_every_row_once_whatever_is_lost(n_rows):
    rng = np.random.default_rng(n_rows)
    queue = TaskQueue(n_rows, batch_size=32)
    done: list[np.ndarray] = []
    while queue.n_left:
        task = queue.take(rng.choice([None, 3.0, 200.0, 5000.0]), n_workers=3)
        assert 0 < len(task.rows) <= MAX_IMAGES
        kept = rng.integers(len(task.rows) + 1) if rng.random() < 0.3 else len(task.rows)
        done.append(task.rows[:kept])
        queue.give_back(Task(task.rows[kept:], task.n_lost + 1))
    assert np.array_equal(np.sort(np.concatenate(done)), np.arange(n_rows))


def test_tasks_get_smaller_towards_the_end():
    queue = TaskQueue(10_000, batch_size=32)
    sizes = []
    while queue.n_left:
        sizes.append(len(queue.take(150.0, n_workers=4).rows))
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-2] <= 150
    assert len(sizes) < 40


@needs_ray
@in_full
def test_images_and_the_store_may_lie_on_an_object_store(data, alone, networks_dir, tmp_path, monkeypatch):
    """Which is the folder that machines share most often."""
    from featx.storage.paths import as_storage_path, local_dir
    from tests.storage.elsewhere import ENVIRONMENT, Bucket, s3_server

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    with s3_server() as (endpoint, requests):
        for name, value in (ENVIRONMENT | {"AWS_ENDPOINT_URL": endpoint}).items():
            monkeypatch.setenv(name, value)
        bucket = Bucket("shared", endpoint, requests)
        address = "s3://shared/features"
        local = local_dir(as_storage_path(address))
        local.mkdir(parents=True)
        (local / "networks").symlink_to(networks_dir, target_is_directory=True)
        cluster = LocalCluster()
        try:
            images = bucket.upload(data, "images")
            extraction = extract_features(images, cache_dir=address, ray_address=cluster.address, **SLOW)
        finally:
            cluster.remove()
        assert (extraction.n_computed, len(extraction.skipped)) == (N_IMAGES, 2)
        assert rows(as_storage_path(address), alone.recipe) == rows(alone.store_dir.parent, alone.recipe)
        assert len(bucket.segments(f"features/{alone.recipe.slug}")) > 1
