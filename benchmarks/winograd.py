"""VGG16 and ResNet50 in float32 by libraries that know Winograd's algorithm, and by those that do not.

    python benchmarks/winograd.py --weights-dir WEIGHTS --reference REFERENCE --image-size 150

`pip install ncnn pnnx MNN` brings the former; what is not installed is left out. Each library runs in a process of its
own and gets the same pixels, preprocessed, one image at a time. `WEIGHTS` has `vgg16*_notop.h5` and
`resnet50*_notop.h5`. `REFERENCE` has float64 features, `BACKBONE-SIZE.npz`, of the images in `images-SIZE/`.
"""

import importlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
import numpy as np
from PIL import Image

from featx.system.late_imports import import_keras

#: Of images `(n, 3, height, width)` float32, the features `(n, channels, height, width)`.
Run = Callable[[np.ndarray], np.ndarray]

#: What caffe's preprocessing takes off blue, green and red.
MEANS = np.array([103.939, 116.779, 123.68], np.float32).reshape(3, 1, 1)

N_CORES = os.cpu_count() or 1


def _openvino(base: Path) -> Run:
    ov = importlib.import_module("openvino")
    config = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "THROUGHPUT", "NUM_STREAMS": str(N_CORES)}
    compiled = ov.Core().compile_model(f"{base}.onnx", "CPU", config)
    queue = ov.AsyncInferQueue(compiled, 2 * N_CORES)

    def run(images: np.ndarray) -> np.ndarray:
        found: dict[int, np.ndarray] = {}
        queue.set_callback(lambda request, row: found.update({row: request.get_output_tensor(0).data.copy()}))
        for row in range(len(images)):
            queue.start_async({0: images[row : row + 1]}, row)
        queue.wait_all()
        return np.concatenate([found[row] for row in range(len(images))])

    return run


def _onnxruntime(base: Path) -> Run:
    session = importlib.import_module("onnxruntime").InferenceSession(f"{base}.onnx")
    return lambda images: np.concatenate([session.run(None, {"images": image[np.newaxis]})[0] for image in images])


def _keras(base: Path) -> Run:
    network = import_keras().models.load_model(f"{base}.keras")

    def run(images: np.ndarray) -> np.ndarray:
        pixels = np.ascontiguousarray(images.transpose(0, 2, 3, 1))
        features: np.ndarray = network.predict(pixels, batch_size=32, verbose=0).transpose(0, 3, 1, 2)
        return features

    return run


def _ncnn(base: Path) -> Run:
    library = importlib.import_module("ncnn")
    network = library.Net()
    network.opt.num_threads = N_CORES
    for half in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_storage"):
        setattr(network.opt, half, False)
    network.load_param(f"{base}.ncnn.param")
    network.load_model(f"{base}.ncnn.bin")

    def run_one(image: np.ndarray) -> np.ndarray:
        with network.create_extractor() as extractor:
            extractor.input("in0", library.Mat(image).clone())
            return np.array(extractor.extract("out0")[1])

    return lambda images: np.stack([run_one(image) for image in images])


def _mnn(base: Path) -> Run:
    library = importlib.import_module("MNN")
    interpreter = library.Interpreter(f"{base}.mnn")
    session = interpreter.createSession({"backend": "CPU", "numThread": N_CORES, "precision": "high"})
    source, output = interpreter.getSessionInput(session), interpreter.getSessionOutput(session)
    shape, kind, order = output.getShape(), library.Halide_Type_Float, library.Tensor_DimensionType_Caffe

    def run_one(image: np.ndarray) -> np.ndarray:
        source.copyFrom(library.Tensor((1, *image.shape), kind, image[np.newaxis], order))
        interpreter.runSession(session)
        features = np.zeros(shape, np.float32)
        host = library.Tensor(shape, kind, features, order)
        output.copyToHostTensor(host)
        return np.array(host.getNumpyData()).reshape(shape[1:])

    return lambda images: np.stack([run_one(image) for image in images])


#: Libraries by name: the package that each needs, the suffix of its network, and what starts it.
ENGINES: dict[str, tuple[str, str, Callable[[Path], Run]]] = {
    "keras": ("tensorflow", "keras", _keras),
    "openvino": ("openvino", "onnx", _openvino),
    "onnxruntime": ("onnxruntime", "onnx", _onnxruntime),
    "ncnn": ("ncnn", "ncnn.bin", _ncnn),
    "mnn": ("MNN", "mnn", _mnn),
}


def write_networks(name: str, weights_path: Path, image_size: int, base: Path) -> None:
    """Write the network without its classifier as Keras, ONNX, ncnn and MNN files, as far as the tools are there."""
    keras_module = import_keras()
    application = {"vgg16": keras_module.applications.VGG16, "resnet50": keras_module.applications.ResNet50}[name]
    network = application(include_top=False, weights=None, input_shape=(image_size, image_size, 3))
    network.load_weights(weights_path)
    network.save(f"{base}.keras")
    importlib.import_module("onnx").save(_as_onnx(network, image_size), f"{base}.onnx")
    shape = f"inputshape=[1,3,{image_size},{image_size}]"
    fp32 = ["fp16=0", "optlevel=2"]
    commands: list[list[str]] = []
    if (pnnx := find_spec("pnnx")) and pnnx.origin:  # the package itself needs PyTorch
        commands.append([str(Path(pnnx.origin).with_name("pnnx")), f"{base}.onnx", shape, *fp32])
    if find_spec("MNN"):
        code = "from MNN.tools.mnnconvert import main; main()"
        files = ["--modelFile", f"{base}.onnx", "--MNNModel", f"{base}.mnn"]
        commands.append([sys.executable, "-c", code, "-f", "ONNX", *files, "--bizCode", "featx"])
    for command in commands:
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=base.parent)
        if done.returncode:
            click.echo(f"{command[0]} failed: {done.stdout[-500:]} {done.stderr[-500:]}", err=True)


def _as_onnx(network: Any, image_size: int) -> Any:
    """Return the network as an `onnx.ModelProto`: `images` `(1, 3, height, width)`, preprocessed, to `features`."""
    onnx = importlib.import_module("onnx")
    nodes: list[Any] = []
    weights: list[Any] = []
    output_of, padded = dict[str, str](), dict[str, tuple[str, list[int]]]()

    def given(name: str, values: np.ndarray) -> str:
        weights.append(onnx.numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def add(kind: str, sources: Sequence[str], output: str, **attributes: object) -> None:
        nodes.append(onnx.helper.make_node(kind, list(sources), [output], name=output, **attributes))

    for layer in network.layers:
        kind, name = type(layer).__name__, layer.name
        output_of[name] = name
        if kind == "InputLayer":
            output_of[name] = "images"
            continue
        tensors = layer.input if isinstance(layer.input, list) else [layer.input]
        sources = [output_of[tensor._keras_history.operation.name] for tensor in tensors]  # noqa: SLF001
        source, pads = padded.get(sources[0], (sources[0], [0, 0, 0, 0]))
        if kind == "ZeroPadding2D":
            (top, bottom), (left, right) = layer.padding
            padded[name] = (source, [top, left, bottom, right])
        elif kind == "Conv2D":
            kernel, *bias = layer.get_weights()
            arguments = [source, given(f"{name}.kernel", kernel.transpose(3, 2, 0, 1))]
            arguments += [given(f"{name}.bias", values) for values in bias]
            pads = [layer.kernel_size[0] // 2] * 4 if layer.padding == "same" else pads
            is_relu = layer.activation.__name__ == "relu"
            how = {"kernel_shape": layer.kernel_size, "strides": layer.strides, "pads": pads}
            add("Conv", arguments, f"{name}.sum" if is_relu else name, **how)
            if is_relu:
                add("Relu", [f"{name}.sum"], name)
        elif kind == "BatchNormalization":
            values = [given(f"{name}.{number}", one) for number, one in enumerate(layer.get_weights())]
            add("BatchNormalization", [source, *values], name, epsilon=layer.epsilon)
        elif kind == "MaxPooling2D":
            add("MaxPool", [source], name, kernel_shape=layer.pool_size, strides=layer.strides, pads=pads)
        else:
            add({"Activation": "Relu", "Add": "Add"}[kind], sources, name)
    add("Identity", [network.layers[-1].name], "features")
    floats = onnx.TensorProto.FLOAT
    _, height, width, channels = network.output_shape
    graph = onnx.helper.make_graph(
        nodes,
        network.name,
        [onnx.helper.make_tensor_value_info("images", floats, [1, 3, image_size, image_size])],
        [onnx.helper.make_tensor_value_info("features", floats, [1, channels, height, width])],
        weights,
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    return model


def take_turn(engine: str, base: Path, n_images: int) -> dict[str, Any]:
    """Return the rate of one engine in a new process, by the clock and by the processor, and its features' file."""
    command = [sys.executable, __file__, "--turn", engine, "--base", str(base), "--images", str(n_images)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise click.ClickException(f"{engine}: {done.stderr[-1000:]}")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def _turn(engine: str, base: Path, n_images: int) -> None:
    images = np.load(base.with_name("images.npy"))
    run = ENGINES[engine][2](base)
    np.save(base.with_name(f"{engine}.npy"), run(images))
    many = np.resize(images, (n_images, *images.shape[1:]))
    run(many[: len(images)])
    cpu_s, started = time.process_time(), time.perf_counter()
    run(many)
    elapsed_s, cpu_s = time.perf_counter() - started, time.process_time() - cpu_s
    click.echo(json.dumps({"images_per_s": n_images / elapsed_s, "per_cpu_s": n_images / cpu_s}))


def _error(features: np.ndarray, reference: Path | None, name: str, image_size: int) -> str:
    """Return the largest difference from the float64 features, relative to the largest of these."""
    for stem in (f"{name}_imagenet-{image_size}", f"{name}-{image_size}"):
        path = reference and reference / f"{stem}.npz"
        if path and path.exists():
            with np.load(path) as archive:
                expected = archive["features"].transpose(0, 3, 1, 2)
            error = np.abs(features - expected).max() / np.abs(expected).max()
            if error < 0.1:  # else they are of other weights
                return f"{error:.1e}"
    return "–"


@click.command()
@click.option("--backbone", "backbones", multiple=True, default=("vgg16", "resnet50"), show_default=True)
@click.option("--image-size", type=int, default=150, show_default=True)
@click.option("--weights-dir", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--reference", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--images", "n_images", type=click.IntRange(16), default=96, show_default=True)
@click.option("--repeats", type=click.IntRange(1), default=3, show_default=True)
@click.option("--turn", hidden=True)
@click.option("--base", hidden=True, type=click.Path(path_type=Path))
def main(
    backbones: Sequence[str],
    image_size: int,
    weights_dir: Path | None,
    reference: Path | None,
    n_images: int,
    repeats: int,
    turn: str | None,
    base: Path | None,
) -> None:
    """Measure float32 networks in each library that is installed; ratios are to Keras, round by round."""
    if turn and base:
        _turn(turn, base, n_images)
        return
    if not (weights_dir and reference):
        raise click.UsageError("Give --weights-dir and --reference.")
    files = sorted((reference / f"images-{image_size}").iterdir())
    pixels = np.stack([np.asarray(Image.open(file).convert("RGB"), np.float32) for file in files])
    for name in backbones:
        with tempfile.TemporaryDirectory(prefix="featx-winograd-") as folder:
            base = Path(folder, name)
            np.save(base.with_name("images.npy"), pixels[..., ::-1].transpose(0, 3, 1, 2) - MEANS)
            write_networks(name, next(weights_dir.glob(f"{name}*_notop.h5")), image_size, base)
            engines = [
                engine
                for engine, (package, suffix, _) in ENGINES.items()
                if find_spec(package) and Path(f"{base}.{suffix}").exists()
            ]
            turns: dict[str, list[dict[str, Any]]] = {engine: [] for engine in engines}
            for number in range(repeats):
                for engine in engines if number % 2 == 0 else engines[::-1]:
                    turns[engine].append(take_turn(engine, base, n_images))
            click.echo(f"{name} at {image_size}×{image_size}, float32, {n_images} images, {repeats} rounds")
            for engine in engines:
                rates = [one["images_per_s"] for one in turns[engine]]
                pairs = list(zip(turns["keras"], turns[engine], strict=True))
                by_clock, by_cpu = (
                    statistics.median(b[key] / a[key] for a, b in pairs) for key in ("images_per_s", "per_cpu_s")
                )
                error = _error(np.load(base.with_name(f"{engine}.npy")), reference, name, image_size)
                click.echo(
                    f"  {engine:12s} {statistics.median(rates):7.1f} images/s ({min(rates):.1f}–{max(rates):.1f}), "
                    f"{by_clock:.2f} of Keras by the clock, {by_cpu:.2f} by processor time, error {error}"
                )


if __name__ == "__main__":
    main()
