"""Network files: what is found in them, which of it is chosen, and what is refused."""

import json
import logging
import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from featx.backbones import describe_network, described, find_weights_again
from featx.backbones.onnx_messages import parse_onnx
from featx.engines import EngineOptions
from featx.errors import BackboneError, FeatxError, WeightsError
from featx.extract import check_options, resolve_recipe, split_options
from featx.recipe import Recipe
from tests.onnx_networks import POOLED, SCORES, SPATIAL, save, write_network

N = ["n", 3, 32, 32]


def info(name, shape=None, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def test_the_layers_are_those_of_the_file_with_their_shapes(tmp_path, cache):
    network = describe_network(write_network(tmp_path / "small.onnx", end="Softmax"), cache)
    shapes = {layer.name: (layer.node, layer.kind, layer.shape_text, layer.channels) for layer in network.layers}
    assert shapes["conv1_out"] == ("conv1", "Conv", "8×16×16", 0)
    assert shapes[SPATIAL] == ("relu2", "Relu", "16×7×7", 0)
    assert shapes[POOLED] == ("flatten", "Flatten", "16", None)
    assert shapes["ended"] == ("end", "Softmax", "1000", None)
    assert (network.pooled, network.spatial, network.scores) == (POOLED, SPATIAL, "ended")
    assert (network.input_name, network.input_shape, network.layouts) == ("images", (None, 3, 32, 32), ("nchw",))
    assert (network.n_classes, network.scores_kind, network.has_probabilities) == (1000, "Softmax", True)
    free = describe_network(write_network(tmp_path / "free.onnx", size="side", nhwc=True), cache)
    assert free.find_layer(SPATIAL).shape_text == "16×?×?"
    assert (free.input_shape, free.layouts) == ((None, None, None, 3), ("nhwc",))


def test_the_usual_layers_are_found_from_the_operators(tmp_path, cache):
    """In a network without a classifier, with one of a convolution, and with outputs that leave it open."""
    weights = [onnx.numpy_helper.from_array(np.ones((4, 3, 1, 1), np.float32), "w")]
    conv = helper.make_node("Conv", ["x", "w"], ["c"])
    pool = helper.make_node("GlobalAveragePool", ["c"], ["p"])
    flat = helper.make_node("Flatten", ["p"], ["f"])

    def usual(name, nodes, *outputs):
        file = save(tmp_path / name, nodes, [info("x", N)], [info(one) for one in outputs], weights)
        network = describe_network(file, cache)
        return network.pooled, network.spatial, network.scores, network.default_layer

    assert usual("no_classifier.onnx", [conv, pool, flat], "f") == ("f", "c", "f", "f")
    assert usual("spatial.onnx", [conv], "c") == (None, "c", None, "c")
    convolved = [helper.make_node("Conv", ["p", "v"], ["s"]), helper.make_node("Flatten", ["s"], ["logits"])]
    weights.append(onnx.numpy_helper.from_array(np.ones((5, 4, 1, 1), np.float32), "v"))
    assert usual("convolved.onnx", [conv, pool, *convolved], "logits") == ("p", "c", "logits", "p")
    two = [conv, pool, flat, helper.make_node("Relu", ["f"], ["r"])]
    assert usual("two.onnx", two, "f", "r") == (None, None, None, None)
    squeeze = [conv, pool, flat, helper.make_node("Softmax", ["f"], ["s"])]
    assert usual("squeeze.onnx", squeeze, "s") == (None, "c", "s", "c")


def test_a_network_with_several_outputs_needs_a_layer(tmp_path, cache):
    relu, other = helper.make_node("Relu", ["x"], ["y"], "relu"), helper.make_node("Neg", ["x"], ["z"], "neg")
    path = save(tmp_path / "two.onnx", [relu, other], [info("x", N)], [info("y"), info("z")])
    with pytest.raises(BackboneError, match="several outputs: choose one with --layer"):
        check_options(cache, backbone=path, preprocess="none")
    assert check_options(cache, backbone=path, preprocess="none", layer="neg")["layer"] == "z"
    with pytest.raises(BackboneError, match="not clear which axis has the channels"):
        check_options(cache, backbone=path, preprocess="none", layer="z", pooling="avg")


def test_the_chosen_layer_is_said_once(tmp_path, cache, caplog):
    path = write_network(tmp_path / "said.onnx", n_classes=7)
    with caplog.at_level(logging.INFO, "featx"):
        for _ in range(2):
            resolve_recipe(cache, backbone=path, preprocess="none")
    assert caplog.messages == [
        f"You gave no --layer: using {POOLED} of said.onnx (16). featx backbones said.onnx lists all layers."
    ]


def test_the_recipe_names_the_file_and_not_its_folder(tmp_path, cache):
    path = write_network(tmp_path / "My network, 2.onnx")
    recipe, weights = resolve_recipe(cache, backbone=path, preprocess="torch", precision="float32")
    assert (recipe.backbone, recipe.preprocessing, recipe.layout) == ("My network, 2.onnx", "imagenet", None)
    assert weights.path == path
    assert recipe.slug == f"My_network_2.onnx-flat_out-32x32-{recipe.key[:8]}"
    moved = path.rename(tmp_path / "moved.onnx")
    renamed, _ = resolve_recipe(cache, backbone=str(moved), preprocess="imagenet", precision="float32")
    assert (renamed.weights, renamed.layer) == (recipe.weights, recipe.layer)
    other, _ = resolve_recipe(
        cache, backbone=write_network(tmp_path / "other.onnx", seed=1), preprocess="imagenet", precision="float32"
    )
    assert other.weights != recipe.weights


def test_a_moved_file_is_found_by_its_digest(tmp_path, cache, monkeypatch):
    path = write_network(tmp_path / "small.onnx")
    digest = describe_network(path, cache).digest
    other = write_network(tmp_path / "other.onnx", seed=1)
    (tmp_path / "elsewhere").mkdir()
    with pytest.raises(WeightsError, match=r"other\.onnx is another one.*FEATX_WEIGHTS_DIR"):
        find_weights_again("small.onnx", digest, [tmp_path / "gone.onnx", other], cache)
    path.rename(tmp_path / "elsewhere" / "small.onnx")
    monkeypatch.setenv("FEATX_WEIGHTS_DIR", str(tmp_path / "elsewhere"))
    assert find_weights_again("small.onnx", digest, [path], cache).path == tmp_path / "elsewhere" / "small.onnx"


REFUSED = [
    ({}, "choose what it was trained with by --preprocess: imagenet"),
    ({"preprocess": "none", "weights": "random"}, "contains its weights: leave --weights out"),
    ({"preprocess": "none", "image_size": 64}, "takes images of 32×32 only"),
    ({"preprocess": "none", "layer": "relu3"}, "Did you mean relu[12]"),
    ({"preprocess": "none", "pooling": "avg"}, "not clear which axis has the channels"),
    ({"preprocess": "none", "layer": "predictions", "pooling": "avg"}, "no layer of this name"),
    ({"preprocess": "imagnet"}, "Did you mean imagenet"),
    ({"preprocess": "none", "layout": "hwc"}, "nchw or nhwc"),
]


@pytest.mark.parametrize(("options", "said"), REFUSED, ids=str)
def test_what_does_not_go_with_the_file_is_refused(options, said, tmp_path, cache):
    path = write_network(tmp_path / "small.onnx")
    with pytest.raises(FeatxError, match=said):
        check_options(cache, backbone=path, **options)


def test_options_of_files_are_refused_for_the_table():
    with pytest.raises(BackboneError, match="its own preprocessing, caffe"):
        check_options(backbone="vgg16", preprocess="imagenet")
    with pytest.raises(BackboneError, match="--layout is for network files"):
        check_options(backbone="vgg16", layout="nhwc")
    assert check_options(backbone="vgg16", preprocess="caffe", weights="random")["preprocess"] == "caffe"


def test_only_openvino_runs_an_onnx_file():
    with pytest.raises(FeatxError, match="choose --engine openvino"):
        split_options({"backbone": "x.onnx", "engine": "keras"})
    assert split_options({"backbone": "x.onnx"})[1] == EngineOptions()


def unfit(folder, name):
    """Write a file that cannot be a backbone."""
    path = folder / f"{name}.onnx"
    relu = helper.make_node("Relu", ["x"], ["y"])
    if name == "not_onnx":
        path.write_text("hello")
    elif name == "empty":
        path.write_bytes(b"")
    elif name == "cut":
        path.write_bytes(write_network(path).read_bytes()[:-200])
    elif name == "picture":
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 4)
    elif name == "two_inputs":
        add = helper.make_node("Add", ["x", "mask"], ["y"])
        save(path, [add], [info("x", N), info("mask", N)], [info("y")])
    elif name == "rank":
        save(path, [relu], [info("x", ["n", 10])], [info("y")])
    elif name == "gray":
        save(path, [relu], [info("x", ["n", 1, 32, 32])], [info("y")])
    elif name == "tokens":
        save(path, [relu], [info("x", N, TensorProto.INT64)], [info("y", None, TensorProto.INT64)])
    elif name == "operator":
        save(
            path,
            [helper.make_node("Turn", ["x"], ["y"], domain="my.ops")],
            [info("x", N)],
            [info("y")],
            domain="my.ops",
        )
    elif name == "external":
        model = onnx.load(write_network(path))
        onnx.save_model(model, path, save_as_external_data=True, location="data.bin", size_threshold=0)
    elif name == "nested":
        nested = b""
        for _ in range(200):
            inside = b"\x32" + varint(len(nested)) + nested  # a graph in an attribute
            attribute = b"\x2a" + varint(len(inside)) + inside  # in a node
            nested = b"\x0a" + varint(len(attribute)) + attribute  # in a graph
        path.write_bytes(b"\x3a" + varint(len(nested)) + nested)
    elif name == "inputs":
        save(path, [helper.make_node("Conv", ["x"], ["y"])], [info("x", N)], [info("y")])
    elif name == "circle":
        save(path, [helper.make_node("Add", ["x", "y"], ["y"])], [info("x", N)], [info("y")])
    elif name == "types":
        save(path, [helper.make_node("Add", ["x", "nothing"], ["y"])], [info("x", N)], [info("y")])
    return path


def varint(number):
    return bytes([number & 127 | 128 * (number > 127)]) + (varint(number >> 7) if number > 127 else b"")


UNFIT = {
    "not_onnx": "is not an ONNX file, or damaged",
    "empty": "is not an ONNX file, or damaged",
    "cut": "is not an ONNX file, or damaged: it is cut off",
    "picture": "is not an ONNX file, or damaged",
    "two_inputs": r"has 2 inputs \(x, mask\)",
    "rank": "does not take images",
    "gray": "does not take images of three colours",
    "tokens": "does not take images",
    "operator": "OpenVINO cannot read .* it does not have the operators my.ops.Turn",
    "external": "has weights in other files",
    "nested": "nested too deeply",
    "inputs": "too few inputs",
    "circle": "takes y, which no node before it gives",
    "types": "takes nothing, which no node before it gives",
}


@pytest.mark.parametrize("name", UNFIT)
def test_a_file_that_cannot_be_a_backbone_is_refused_with_the_reason(name, tmp_path, cache):
    with pytest.raises(BackboneError, match=UNFIT[name]) as refused:
        describe_network(unfit(tmp_path, name), cache)
    assert "\n" not in str(refused.value)
    assert "Exception from" not in str(refused.value)
    assert not list((cache / "networks").glob(f"{name}*.json"))


def test_every_cut_and_every_flipped_byte_is_refused_or_read(tmp_path, cache):
    """No damage of a file ends in anything but an error of featx."""
    whole = write_network(tmp_path / "whole.onnx", n_classes=3).read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(150):
        damaged = bytearray(whole)
        damaged[int(rng.integers(len(whole)))] = int(rng.integers(256))
        for content in (bytes(damaged), whole[: int(rng.integers(len(whole)))]):
            try:
                parse_onnx(content)
            except ValueError:
                continue


def test_what_is_in_a_file_is_remembered_without_openvino(tmp_path, cache, monkeypatch):
    path = write_network(tmp_path / "small.onnx", n_classes=5)
    first = describe_network(path, cache)
    monkeypatch.setattr(described, "_READERS", {})
    assert describe_network(path, cache) == first
    kept = next((cache / "networks").glob(f"small_onnx-{first.digest[:16]}.json"))
    members = json.loads(kept.read_text())
    odd = [json.dumps(members | {"network": value}) for value in (json.loads(members["network"]), 7, None, "é")]
    for damage in ("", "{}", "[1]", "7", *odd, kept.read_text().replace("Gemm", "Tanh")):
        kept.write_text(damage)
        with pytest.raises(KeyError):  # it is read again
            describe_network(path, cache)


def test_a_recipe_of_a_file_is_checked_without_the_file():
    from featx.backbones import check_recipe

    def recipe(**members):
        others = {"weights": "ab" * 32, "layer": "y", "image_size": (32, 32), "preprocessing": "mean=127,std=128"}
        return Recipe(**{"backbone": "x.onnx", **others, **members})

    check_recipe(recipe())
    for members in (
        {"backbone": "a/x.onnx"},
        {"backbone": "..\\x.onnx"},
        {"backbone": "x\n.onnx"},
        {"weights": "random-0"},
        {"preprocessing": "efficientnet"},
        {"preprocessing": "torch"},
        {"preprocessing": "mean=127.0,std=128"},
        {"layout": "hwc"},
        {"layer": "predictions", "pooling": "avg"},
        {"backbone": "vgg16", "preprocessing": "caffe", "layer": "block5_pool", "weights": "ab" * 32, "layout": "nhwc"},
    ):
        with pytest.raises(FeatxError):
            check_recipe(recipe(**members))


def test_the_command_lists_the_layers(tmp_path, cache, featx):
    path = write_network(tmp_path / "small.onnx")
    shown = featx("backbones", path, "--cache-dir", cache).output
    assert f"{SPATIAL}  Relu               16×7×7    last spatial" in shown
    assert f"Without --layer, featx takes {POOLED}." in shown
    assert json.loads(featx("backbones", path, "--cache-dir", cache, "--json").output)["scores"] == SCORES
    names = featx("backbones", path, "--cache-dir", cache, "--quiet").output.split()
    assert names[0] == "conv1_out"
    assert names[-1] == SCORES
    assert "There is no network file" in featx("backbones", tmp_path / "smal.onnx", exit_code=2).output


def test_features_of_an_onnx_file_need_neither_tensorflow_nor_keras(tmp_path, make_photos):
    """And if nothing is missing, not even OpenVINO."""
    path, photos = write_network(tmp_path / "small.onnx"), make_photos(tmp_path / "photos", 2, 1)
    words = [
        "extract",
        str(photos),
        "--backbone",
        str(path),
        "--preprocess",
        "tf",
        "--cache-dir",
        str(tmp_path / "cache"),
    ]
    for slow in ({"tensorflow", "keras", "onnx", "torch"}, {"tensorflow", "keras", "onnx", "torch", "openvino"}):
        program = (
            f"import sys\nfrom featx.cli.main import main\nmain({list(map(str, words))!r}, standalone_mode=False)\n"
            f"print('LOADED', sorted({slow!r} & set(sys.modules)))"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
        assert "LOADED []" in done.stdout, done.stdout
