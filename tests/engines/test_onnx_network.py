"""ONNX networks as backbones, held against ONNX Runtime on pixels that NumPy has preprocessed."""

import numpy as np
import onnx
import onnxruntime
import pytest

from featx.backbones import find_pixels, find_weights
from featx.dataset import scan
from featx.engines import EngineOptions, create_engine
from featx.errors import BackboneError, FeatxError
from featx.extract import resolve_recipe
from featx.images import decode_image, read_file
from featx.system.late_imports import openvino_has_bfloat16
from tests.onnx_networks import POOLED, SCORES, SPATIAL, write_network

IMAGES = np.random.default_rng(1).integers(0, 256, (5, 32, 32, 3)).astype(np.uint8)

MEAN_STD = "mean=127,std=128"

PRECISIONS = ["float32", "int8", *(["bfloat16"] if openvino_has_bfloat16() else [])]


def features_of(path, images, cache, *, dataset=None, engine=None, **options):
    """Return what featx computes for `images`, `(n, h, w, 3)` uint8."""
    options = {"preprocess": MEAN_STD, "precision": "float32", **options}
    recipe, weights = resolve_recipe(cache, dataset, backbone=path, **options)
    running = create_engine(recipe, weights, cache, dataset, engine or EngineOptions())
    try:
        return running.features(images)
    finally:
        running.close()


def expected(path, images, layer, preprocess=MEAN_STD, *, nhwc=False, batch=None):
    """Return what ONNX Runtime computes for the same, with `layer` as an output of the network."""
    model = onnx.load(path)
    if layer not in {output.name for output in model.graph.output}:
        model.graph.output.append(onnx.ValueInfoProto(name=layer))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    pixels = find_pixels(preprocess)
    ready = (images.astype(np.float32) - np.float32(pixels.mean)) / np.float32(pixels.std)
    ready = ready[..., ::-1] if pixels.is_bgr else ready
    ready = ready if nhwc else ready.transpose(0, 3, 1, 2)
    kind = session.get_inputs()[0].type
    ready = np.ascontiguousarray(ready).astype(
        {"tensor(uint8)": np.uint8, "tensor(float16)": np.float16}.get(kind, np.float32)
    )
    step = batch or len(ready)
    parts = [ready[start : start + step] for start in range(0, len(ready), step)]
    whole = [np.concatenate([part, ready[: step - len(part)]]) for part in parts]
    return np.concatenate([session.run([layer], {"images": part})[0] for part in whole])[: len(ready)]


def close(got, wanted, tolerance=1e-5):
    assert got.shape == wanted.shape
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, wanted, atol=tolerance * max(1.0, np.abs(wanted).max()))


@pytest.mark.parametrize("preprocess", ["imagenet", "caffe", "tf", "clip", "none", "mean=10,20,30,std=4,5,6"])
@pytest.mark.parametrize("nhwc", [False, True], ids=["nchw", "nhwc"])
def test_pixels_get_the_preprocessing_and_layout_of_the_network(preprocess, nhwc, tmp_path, cache):
    path = write_network(tmp_path / "small.onnx", nhwc=nhwc)
    got = features_of(path, IMAGES, cache, preprocess=preprocess)
    close(got, expected(path, IMAGES, POOLED, preprocess, nhwc=nhwc))
    assert got.shape == (5, 16)


@pytest.mark.parametrize(
    ("layer", "pooling"),
    [(None, None), (POOLED, None), ("flatten", None), (SPATIAL, None), ("relu2", "avg"), ("conv1", "max")],
)
def test_a_layer_is_named_by_its_output_or_by_its_node(layer, pooling, tmp_path, cache):
    path = write_network(tmp_path / "small.onnx")
    name = {None: POOLED, "flatten": POOLED, "relu2": SPATIAL, "conv1": "conv1_out"}.get(layer, layer)
    wanted = expected(path, IMAGES, name)
    if pooling:
        wanted = wanted.mean((2, 3)) if pooling == "avg" else wanted.max((2, 3))
    close(features_of(path, IMAGES, cache, layer=layer, pooling=pooling), wanted)
    recipe, _ = resolve_recipe(cache, backbone=path, preprocess=MEAN_STD, layer=layer, pooling=pooling)
    assert (recipe.layer, recipe.backbone, recipe.preprocessing) == (name, "small.onnx", MEAN_STD)
    assert recipe.weights == find_weights(str(path), "imagenet", cache).digest


@pytest.mark.parametrize(
    ("batch", "how", "n_at_once"),
    [
        ("n", {}, None),
        (1, {}, None),
        (4, {}, None),
        (1, {"flat_shape": (1, 16)}, None),
        (4, {"flat_shape": (4, -1)}, None),
        (1, {"after": "others"}, 1),
        (4, {"after": "rows"}, 4),
    ],
    ids=str,
)
def test_a_fixed_number_of_images_makes_no_difference(batch, how, n_at_once, tmp_path, cache):
    path = write_network(tmp_path / "small.onnx", batch=batch, **how)
    wanted = expected(path, IMAGES, POOLED, batch=None if batch == "n" else batch)
    close(features_of(path, IMAGES, cache), wanted)
    close(features_of(path, IMAGES[2:3], cache), wanted[2:3])
    recipe, weights = resolve_recipe(cache, backbone=path, preprocess=MEAN_STD, precision="float32")
    engine = create_engine(recipe, weights, cache, None, EngineOptions(batch_size=3))
    assert engine.request_size == (n_at_once or 3)
    engine.close()


@pytest.mark.parametrize("batch", ["n", 4])
def test_a_network_whose_images_depend_on_each_other_is_refused(batch, tmp_path, cache):
    path = write_network(tmp_path / "batch_norm.onnx", batch=batch, after="others")
    with pytest.raises(BackboneError, match="depend on the other images"):
        features_of(path, IMAGES, cache)


def test_int8_needs_a_network_for_one_image(tmp_path, cache, make_photos):
    path = write_network(tmp_path / "four.onnx", batch=4, after="rows")
    dataset = scan(make_photos(tmp_path / "photos"), cache)
    with pytest.raises(FeatxError, match="takes 4 images at a time"):
        features_of(path, IMAGES, cache, dataset=dataset, precision="int8")


def test_an_image_of_any_size_needs_a_size_and_gets_it(tmp_path, cache):
    path = write_network(tmp_path / "free.onnx", size="side")
    with pytest.raises(BackboneError, match="--image-size"):
        resolve_recipe(cache, backbone=path, preprocess="none")
    wide = np.random.default_rng(2).integers(0, 256, (2, 24, 40, 3)).astype(np.uint8)
    for layer in (POOLED, SPATIAL):
        close(features_of(path, wide, cache, image_size=(24, 40), layer=layer), expected(path, wide, layer))


@pytest.mark.parametrize(
    ("end", "is_scaled"), [("", True), ("Softmax", False), ("LogSoftmax", True), ("Sigmoid", False)]
)
def test_the_classes_of_the_network_get_probabilities(end, is_scaled, tmp_path, cache):
    path = write_network(tmp_path / "small.onnx", end=end)
    scores = expected(path, IMAGES, "ended" if end else SCORES).astype(np.float64)
    if is_scaled:
        scores = np.exp(scores - scores.max(1, keepdims=True))
        scores /= scores.sum(1, keepdims=True)
    close(features_of(path, IMAGES, cache, layer="predictions"), scores)


def test_an_input_of_bytes_or_of_half_floats_is_fed_what_it_takes(tmp_path, cache):
    of_bytes = write_network(tmp_path / "bytes.onnx", input_type=onnx.TensorProto.UINT8)
    close(features_of(of_bytes, IMAGES, cache, preprocess="none"), expected(of_bytes, IMAGES, POOLED, "none"))
    with pytest.raises(BackboneError, match="its own preprocessing"):
        resolve_recipe(cache, backbone=of_bytes, preprocess="imagenet")
    half = write_network(tmp_path / "half.onnx", input_type=onnx.TensorProto.FLOAT16)
    close(features_of(half, IMAGES, cache), expected(half, IMAGES, POOLED), 1e-3)


def test_an_open_layout_must_be_given_and_is_in_the_recipe(tmp_path, cache):
    path = write_network(tmp_path / "open.onnx", shape=["n", "c", "h", "w"])
    with pytest.raises(BackboneError, match="--layout nchw"):
        resolve_recipe(cache, backbone=path, preprocess="none")
    keys = [
        resolve_recipe(cache, backbone=path, preprocess="none", layout=layout, image_size=32)[0].key
        for layout in ("nchw", "nhwc")
    ]
    assert len(set(keys)) == 2
    close(
        features_of(path, IMAGES, cache, layout="nchw", image_size=32, layer=SPATIAL), expected(path, IMAGES, SPATIAL)
    )
    fixed = write_network(tmp_path / "fixed.onnx")
    assert resolve_recipe(cache, backbone=fixed, preprocess="none", layout="nchw")[0].layout is None
    with pytest.raises(BackboneError, match="Leave --layout out"):
        resolve_recipe(cache, backbone=fixed, preprocess="none", layout="nhwc")


def cosines(a, b):
    a, b = (x.reshape(len(x), -1).astype(np.float64) for x in (a, b))
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_features_are_those_of_the_reference(precision, shared, tmp_path, cache, settle):
    """EfficientNet-Lite0 against float64 features and logits that were computed elsewhere."""
    path = shared / "weights-imagenet" / "efficientnet_lite0_imagenet.onnx"
    with np.load(shared / "reference" / "efficientnet_lite0-224.npz") as reference:
        wanted = {"/Reshape_output_0": reference["features"], "logits": reference["logits"]}
    folder = shared / "reference" / "images-224"
    images = np.stack([decode_image(read_file(file), (224, 224)) for file in sorted(folder.iterdir())])
    photos = tmp_path / "photos" / "a"
    photos.mkdir(parents=True)
    for file in folder.iterdir():
        (photos / file.name).symlink_to(file)
    dataset = scan(tmp_path / "photos", cache, to_train=False) if precision == "int8" else None
    least = {"float32": 0.9999999, "bfloat16": 0.998, "int8": 0.97}[precision]
    for layer in ("/Reshape_output_0",) if precision == "int8" else wanted:
        got = features_of(path, images, cache, dataset=dataset, precision=precision, layer=layer)
        assert cosines(got, wanted[layer]).min() > least
        if precision == "float32":
            close(got, wanted[layer])
