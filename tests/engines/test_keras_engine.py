"""The keras engine: compiled, in two precisions, with batches in flight, and short of memory.

The tests run on the backend that `KERAS_BACKEND` names; the last of them runs all others on the other backends.
"""

import gc
import importlib
import importlib.util
import json
import logging
import os
import subprocess
import sys
import threading
from concurrent.futures import CancelledError
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from featx.backbones.build import build_model
from featx.backbones.weights import Weights
from featx.engines.keras_engine import KerasEngine
from featx.errors import BackboneError, FeatxError
from featx.extract.options import resolve_recipe
from featx.recipe import Recipe
from featx.system.late_imports import KERAS_BACKENDS, import_keras, keras_backend, keras_sees_gpu

#: Three layers, so that compiling them is quick on every backend.
RECIPE = Recipe(backbone="vgg16", weights="random-0", layer="block1_pool", image_size=(32, 32), preprocessing="caffe")
RANDOM = Weights("random-0", None)
#: No machine has so much memory.
TOO_MANY_FLOATS = 1 << 48


def random_images(n: int, size: int = 32) -> np.ndarray:
    return np.random.default_rng(n).integers(0, 256, (n, size, size, 3), np.uint8)


@pytest.fixture
def make_engine():
    engines: list[KerasEngine] = []

    def make(recipe: Recipe = RECIPE, weights: Weights = RANDOM, batch_size: int = 4) -> KerasEngine:
        engines.append(KerasEngine(recipe, weights, batch_size))
        return engines[-1]

    yield make
    for engine in engines:
        engine.close()


@pytest.fixture
def engine(make_engine) -> KerasEngine:
    return make_engine()


@pytest.fixture(scope="session")
def memory_error() -> Exception:
    """What the backend itself raises when it fails to allocate memory. TensorFlow tries for ten seconds."""
    ops = import_keras().ops
    with pytest.raises(Exception, match=r"(?i)memory|OOM") as caught:
        ops.convert_to_numpy(ops.zeros((TOO_MANY_FLOATS,)))
    return caught.value


def limit_batches(engine: KerasEngine, largest: int, error: Exception, step: str = "start") -> None:
    """Make batches of more than `largest` images fail with `error` when they start, or when they finish."""
    network = engine._worker._network
    whole = getattr(network, step)

    def limited(batch):
        if engine.batch_size > largest:
            raise error.with_traceback(None)
        return whole(batch)

    setattr(network, step, limited)


def test_future_is_of_what_was_submitted(engine):
    counts = [1, 4, 9, 0, 11, 2]
    futures = [engine.submit(random_images(n)) for n in counts]
    for n, future in reversed(list(zip(counts, futures, strict=True))):
        features = future.result()
        assert features.shape == (n, *engine.feature_shape) == (n, 16, 16, 64)
        assert features.dtype == np.float32
        assert np.array_equal(features, engine.features(random_images(n)))


def test_features_are_those_of_the_model(engine):
    expected = np.asarray(build_model(RECIPE, None).predict_on_batch(random_images(9)))
    np.testing.assert_allclose(engine.features(random_images(9)), expected, rtol=1e-5, atol=1e-5 * expected.max())


def test_batches_in_flight_come_back_in_order(engine):
    expected = engine.features(random_images(23))
    engine._worker.n_in_flight = 3  # as on a GPU
    futures = [engine.submit(random_images(23)) for _ in range(5)]
    assert all(np.array_equal(future.result(), expected) for future in futures)


def test_submit_does_not_wait_for_the_device(engine):
    gate = threading.Event()
    finish = engine._worker._network.finish
    engine._worker._network.finish = lambda started: gate.wait() and finish(started)
    futures = [engine.submit(random_images(4)) for _ in range(engine.depth)]
    assert not any(future.done() for future in futures)
    gate.set()
    assert all(future.result().shape[0] == 4 for future in futures)


@pytest.mark.parametrize(("backbone", "layer"), [("vgg16", "block2_pool"), ("resnet50", "conv2_block2_out")])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_an_images_features_do_not_depend_on_its_batch(make_engine, tmp_path, backbone, layer, precision):
    options = {"image_size": (32, 32), "layer": layer, "weights": "random", "precision": precision}
    engine = make_engine(*resolve_recipe(tmp_path, backbone=backbone, **options), batch_size=8)
    images = random_images(11)
    together = engine.features(images)
    alone = np.concatenate([engine.features(images[i : i + 1]) for i in range(11)])
    # The same bits on every backend, since a batch is always full; a GPU may add up in another order.
    tolerance = 1e-2 if keras_sees_gpu() else 0.0
    np.testing.assert_allclose(alone, together, rtol=tolerance, atol=tolerance * together.max())


@pytest.mark.parametrize(("backbone", "layer"), [("vgg16", "block5_pool"), ("resnet50", "conv3_block4_out")])
def test_bfloat16_features_are_near_those_of_float32(make_engine, shared, tmp_path, backbone, layer):
    paths = sorted((shared / "data" / "cats-dogs").rglob("*.jpg"))[:8]
    images = np.stack([np.asarray(Image.open(path).convert("RGB").resize((64, 64))) for path in paths])
    weights_path = shared / "weights" / f"{backbone}_tiny_imagenet_notop.h5"
    options = {"backbone": backbone, "layer": layer, "weights": str(weights_path), "image_size": (64, 64)}
    exact, near = (
        make_engine(*resolve_recipe(tmp_path, precision=precision, **options), batch_size=8).features(images)
        for precision in ("float32", "bfloat16")
    )
    error = np.linalg.norm(near - exact) / np.linalg.norm(exact)
    assert near.dtype == np.float32
    assert 1e-4 < error < 0.03  # less than that, and it was no bfloat16


@pytest.mark.parametrize(("backbone", "layer"), [("vgg16", "block1_conv1"), ("efficientnetb0", "stem_conv")])
def test_pixels_are_centred_before_they_become_bfloat16(tmp_path, backbone, layer):
    """The mean colour, centred, is nearly nothing; in bfloat16 the mean itself would be off by up to half a level."""
    options = {"backbone": backbone, "layer": layer, "image_size": (32, 32), "weights": "random"}
    images = np.full((4, 32, 32, 3), (125, 117, 104), np.uint8)

    def features(precision: str) -> np.ndarray:
        model = build_model(resolve_recipe(tmp_path, precision=precision, **options)[0], None, precision)
        (trunk,) = (layer for layer in model.layers if hasattr(layer, "layers"))
        for layer in trunk.layers:
            if type(layer).__name__ == "Normalization":  # as in the official weights; random ones centre nothing
                layer.set_weights([np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225]), np.array(1)])
                layer.finalize_state()
        return np.asarray(model.predict_on_batch(images))

    exact, near = features("float32"), features("bfloat16")
    assert 0 < np.linalg.norm(near - exact) / np.linalg.norm(exact) < 0.01


def test_keras_settings_are_put_back(make_engine):
    keras = import_keras()
    before = keras.config.dtype_policy()
    expected = make_engine().features(random_images(4))
    keras.config.set_dtype_policy("mixed_float16")
    try:
        make_engine(replace(RECIPE, precision="bfloat16"))
        with pytest.raises(BackboneError):
            make_engine(replace(RECIPE, precision="bfloat16", layer="nowhere"))
        with pytest.raises(BackboneError):
            make_engine(replace(RECIPE, precision="bfloat16", image_size=(8, 8)))
        assert keras.config.dtype_policy().name == "mixed_float16"
        assert np.array_equal(make_engine().features(random_images(4)), expected)
    finally:
        keras.config.set_dtype_policy(before)


def test_float32_is_no_tensorfloat32(engine):
    backend = importlib.import_module(keras_backend())
    if keras_backend() == "tensorflow":
        assert not backend.config.experimental.tensor_float_32_execution_enabled()
    elif keras_backend() == "jax":
        network = engine._worker._network
        program = network._forward.lower(network._weights, random_images(4)).as_text()
        assert program.count("precision HIGHEST") == 2 * program.count("convolution(") == 4
    else:
        assert not backend.backends.cudnn.allow_tf32


def test_unknown_precision_is_refused():
    with pytest.raises(FeatxError, match="float32 or bfloat16. Received: 'int8'"):
        KerasEngine(replace(RECIPE, precision="int8"), RANDOM, 4)


@pytest.mark.parametrize("step", ["start", "finish"])
@pytest.mark.parametrize("n_in_flight", [1, 2])
def test_too_little_memory_makes_batches_smaller(make_engine, caplog, memory_error, n_in_flight, step):
    caplog.set_level(logging.INFO, logger="featx")
    engine = make_engine(batch_size=8)
    expected = engine.features(random_images(21))
    engine._worker.n_in_flight = n_in_flight
    limit_batches(engine, 3, memory_error, step)
    futures = [engine.submit(random_images(21)) for _ in range(3)]
    for future in futures:
        np.testing.assert_allclose(future.result(), expected, rtol=1e-5, atol=1e-5 * expected.max())
    assert engine.batch_size == 2
    where = "GPU memory" if keras_sees_gpu() else "memory"
    assert [record.getMessage() for record in caplog.records if record.name == "featx"] == [
        f"Out of {where} at 8 images a batch: continuing with 4.",
        f"Out of {where} at 4 images a batch: continuing with 2.",
    ]


def test_too_little_memory_for_one_image_says_what_to_do(engine, memory_error):
    limit_batches(engine, 0, memory_error)
    with pytest.raises(
        FeatxError, match="vgg16 up to block1_pool at 32x32 .* smaller images, an earlier layer or more memory"
    ):
        engine.features(random_images(5))


def test_real_shortage_of_memory_makes_batches_smaller():
    """PyTorch alone lives on when the address space is at its end: TensorFlow crashes, JAX had taken what it needs."""
    if keras_backend() != "torch":
        pytest.skip("only PyTorch survives a limit of its address space")
    script = """
import logging, resource, numpy as np
from featx.engines.keras_engine import KerasEngine
from tests.engines.test_keras_engine import RANDOM, RECIPE, random_images
from pathlib import Path
logging.basicConfig(level=logging.INFO, format="%(message)s")
images = random_images(2048)
engine = KerasEngine(RECIPE, RANDOM, 8)
expected = engine.features(images)
engine.close()
size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + (700 << 20), -1))
engine = KerasEngine(RECIPE, RANDOM, 2048)
assert engine.batch_size < 2048
assert np.allclose(engine.features(images[:64]), expected[:64])
"""
    done = run_python("-c", script)
    assert "Out of memory at 2048 images a batch: continuing with 1024." in done.stderr


def test_error_in_one_job_leaves_the_others_alone(engine):
    futures = [engine.submit(images) for images in (random_images(9), random_images(3, size=20), random_images(2))]
    with pytest.raises(Exception, match="."):
        futures[1].result()
    assert np.array_equal(futures[0].result(), engine.features(random_images(9)))
    assert np.array_equal(futures[2].result(), engine.features(random_images(2)))


def test_cancelled_future_is_not_computed(engine):
    gate = threading.Event()
    start = engine._worker._network.start
    sizes = []
    engine._worker._network.start = lambda images: gate.wait() and (sizes.append(len(images)), start(images))[1]
    futures = [engine.submit(random_images(4)) for _ in range(3)]
    assert futures[2].cancel()
    gate.set()
    engine.features(random_images(4))
    assert len(sizes) == 3
    assert futures[1].result().shape[0] == 4


def test_closing_cancels_what_is_unfinished_and_ends_the_thread(engine):
    gate = threading.Event()
    finish = engine._worker._network.finish
    engine._worker._network.finish = lambda started: gate.wait() and finish(started)
    futures = [engine.submit(random_images(40)) for _ in range(3)]
    threading.Timer(0.2, gate.set).start()
    engine.close()
    assert not engine._worker._thread.is_alive()
    for future in futures:
        with pytest.raises(CancelledError):
            future.result()
    with pytest.raises(RuntimeError, match="closed"):
        engine.submit(random_images(1))
    engine.close()


def test_engine_that_nobody_closed_ends_its_thread():
    engine = KerasEngine(RECIPE, RANDOM, 4)
    thread = engine._worker._thread
    engine.features(random_images(5))
    assert thread.is_alive()
    del engine
    gc.collect()
    thread.join(60)
    assert not thread.is_alive()


@pytest.fixture(scope="module")
def with_other_settings(tmp_path_factory):
    """Features that a process computed whose user has set up Keras otherwise, and the process, ended while busy."""
    folder = tmp_path_factory.mktemp("settings")
    (folder / "keras.json").write_text('{"floatx": "float16", "image_data_format": "channels_first"}')
    script = """
import sys, numpy as np
from featx.engines.keras_engine import KerasEngine
from tests.engines.test_keras_engine import RANDOM, RECIPE, random_images
np.save(sys.argv[1], KerasEngine(RECIPE, RANDOM, 4).features(random_images(9)))
engine = KerasEngine(RECIPE, RANDOM, 64)
futures = [engine.submit(random_images(640)) for _ in range(9)]
print("busy" if not futures[-1].done() else "idle")
"""
    done = run_python("-c", script, str(folder / "features.npy"), KERAS_HOME=str(folder))
    return np.load(folder / "features.npy"), done


def test_process_can_end_while_batches_are_computed(with_other_settings):
    _, done = with_other_settings
    assert done.stdout == "busy\n"
    assert "terminate" not in done.stderr


def test_settings_of_the_users_keras_change_no_feature(with_other_settings, engine):
    features, _ = with_other_settings
    tolerance = 1e-2 if keras_sees_gpu() else 0.0
    np.testing.assert_allclose(features, engine.features(random_images(9)), rtol=tolerance)


def test_network_that_cannot_be_compiled_runs_all_the_same(tmp_path):
    if keras_backend() != "torch":
        pytest.skip("only PyTorch needs a compiler")
    script = """
import logging, sys, numpy as np
from featx.engines.keras_engine import KerasEngine
from tests.engines.test_keras_engine import RANDOM, RECIPE, random_images
logging.basicConfig(level=logging.INFO, format="%(message)s")
np.save(sys.argv[1], KerasEngine(RECIPE, RANDOM, 4).features(random_images(9)))
"""
    features = []
    for compiler in ("g++", "no-such-compiler"):
        variables = {"CXX": compiler, "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / compiler)}
        done = run_python("-c", script, str(tmp_path / "features.npy"), **variables)
        assert done.stderr.count("PyTorch cannot compile the network") == (compiler != "g++")
        features.append(np.load(tmp_path / "features.npy"))
    np.testing.assert_allclose(features[1], features[0], rtol=1e-5, atol=1e-5 * features[0].max())


def test_gpu_benchmark_compares_the_pipeline_with_the_network(
    make_photos, tmp_path, benchmark_module, capsys, monkeypatch
):
    photos = make_photos(tmp_path / "photos")
    words = ["--backbone", "vgg16", "--pixels", "32", "--rounds", "1", "--batch-size", "8", "--json"]
    words += ["--work-dir", str(tmp_path)]
    gpu = benchmark_module("gpu")
    capsys.readouterr()
    gpu.main([str(photos), *words], standalone_mode=False)
    figures = json.loads(capsys.readouterr().out)
    assert figures["backend"] == keras_backend()
    (backbone,) = figures["backbones"]
    assert (backbone["n_images"], backbone["batch_size"], backbone["precision"]) == (32, 8, "bfloat16")
    rates = backbone["images_per_second"]
    assert backbone["end_to_end_to_engine"] == pytest.approx(rates["end_to_end"] / rates["engine"])
    assert all(rate > 0 for rate in rates.values())
    # Without a folder of photographs, it makes some, and measures those in the same way.
    monkeypatch.setattr(gpu, "measure", lambda _, made, *_others: sorted(path.name for path in made.rglob("*.jpg")))
    gpu.main(["--images", "3", *words], standalone_mode=False)
    assert json.loads(capsys.readouterr().out)["backbones"] == [["000000.jpg", "000001.jpg", "000002.jpg"]]
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("backend", KERAS_BACKENDS)
def test_other_backends_keep_the_same_promises(backend):
    if backend == keras_backend() or "FEATX_TESTED_BACKEND" in os.environ:
        pytest.skip(f"this is the run on {keras_backend()}")
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    variables = {"KERAS_BACKEND": backend, "FEATX_TESTED_BACKEND": backend}
    run_python("-m", "pytest", "-q", "-p", "no:cacheprovider", __file__, **variables)


def run_python(*words: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    """Run a Python process that must succeed, from the project's root."""
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root), **variables}
    done = subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, check=False, cwd=root, env=environment
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done
