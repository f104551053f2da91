"""What people would pick instead of Keras: ONNX Runtime and PyTorch, as their own guides have them."""

import importlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from baselines import keras_network
from PIL import Image
from turns import Figures, Task, measuring

from featx.export.graph import keras_to_onnx
from featx.system.late_imports import import_keras

BATCH_SIZE = 32

#: Images that set the ranges of the integers, as many as featx takes at most.
CALIBRATION_IMAGES = 300

#: Pixels `(n, height, width, 3)` uint8 RGB in, features `(n, height, width, channels)` float32 out.
Network = Callable[[np.ndarray], np.ndarray]


def alternatives(task: Task) -> Iterator[tuple[str, str, str]]:
    """Yield the name of each alternative that is installed, its contender, and its precision."""
    if all(map(find_spec, ("onnx", "onnxruntime", "tf2onnx"))):
        yield "ONNX RT float32", "onnxruntime", "float32"
        yield "ONNX RT int8", "onnxruntime", "int8"
    if find_spec("torch") and find_spec("torchvision") and task.backbone in {"vgg16", "resnet50"}:
        yield "PyTorch float32", "pytorch", "float32"


class _Alternative:
    """A network that has run before the time is taken; its features stay in memory."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._network = self._made()
        self._network(np.load(task.pixels_path)[:BATCH_SIZE])
        self.facts: Figures = {"batch_size": BATCH_SIZE}

    def _made(self) -> Network:
        raise NotImplementedError

    def _from_files(self) -> Iterator[np.ndarray]:
        """Yield the features of all images, in batches."""
        raise NotImplementedError

    def turn(self, what: str) -> Figures:
        """Do the whole of it, or let the network alone run; or write its features of the pixels in memory."""
        if what == "end_to_end":
            with measuring() as figures:
                features = np.concatenate(list(self._from_files()))
            return {**figures, "n_images": len(features)}
        pixels = np.load(self._task.pixels_path)
        with measuring() as figures:
            parts = [self._network(pixels[start : start + BATCH_SIZE]) for start in range(0, len(pixels), BATCH_SIZE)]
        if what == "features":
            np.save(self._task.features_path, np.concatenate(parts))
            return {}
        return {**figures, "n_images": len(pixels)}


class OnnxRuntime(_Alternative):
    """The Keras application as an ONNX file, in ONNX Runtime; threads decode with Pillow."""

    def _made(self) -> Network:
        runtime = importlib.import_module("onnxruntime")
        folder = Path(self._task.work_dir, f"onnxruntime-{self._task.precision}")
        folder.mkdir()
        keras = import_keras()
        self._preprocess = getattr(keras.applications, self._task.backbone).preprocess_input
        path = folder / "float32.onnx"
        importlib.import_module("onnx").save(
            keras_to_onnx(keras_network(keras, self._task), "images", "features"), path
        )
        if self._task.precision == "int8":
            path = self._quantized(path)
        session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
        return lambda pixels: session.run(["features"], {"images": self._inputs(pixels)})[0]

    def _inputs(self, pixels: np.ndarray) -> np.ndarray:
        preprocessed: np.ndarray = self._preprocess(pixels.astype(np.float32))
        return preprocessed

    def _quantized(self, path: Path) -> Path:
        quantization = importlib.import_module("onnxruntime.quantization")
        files = _files(self._task)[:: max(1, len(_files(self._task)) // CALIBRATION_IMAGES)]
        examples = ({"images": self._inputs(_pixels(file, self._task.image_size)[np.newaxis])} for file in files)

        class Reader(quantization.CalibrationDataReader):  # type: ignore[misc, name-defined]
            def get_next(self) -> dict[str, np.ndarray] | None:
                return next(examples, None)

        prepared, quantized = path.with_name("prepared.onnx"), path.with_name("int8.onnx")
        quantization.quant_pre_process(path, prepared, skip_symbolic_shape=True)
        quantization.quantize_static(prepared, quantized, Reader(), per_channel=True)
        return quantized

    def _from_files(self) -> Iterator[np.ndarray]:
        size = self._task.image_size
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            batch: list[np.ndarray] = []
            for pixels in pool.map(lambda file: _pixels(file, size), _files(self._task)):
                batch.append(pixels)
                if len(batch) == BATCH_SIZE:
                    yield self._network(np.stack(batch))
                    batch = []
            if batch:
                yield self._network(np.stack(batch))


class PyTorch(_Alternative):
    """torchvision's network of that name, and a `DataLoader` whose processes decode.

    Its VGG16 has the weights that Keras has. Its ResNet50 strides in other layers, so that Keras's weights do not fit:
    random ones are as fast.
    """

    def _made(self) -> Network:
        self._torch = torch = importlib.import_module("torch")
        models = importlib.import_module("torchvision.models")
        if self._task.backbone == "vgg16":
            network = models.vgg16(weights=None).features
            keras = import_keras()
            kernels = iter(keras_network(keras, self._task).get_weights())
            with torch.no_grad():
                for layer in (layer for layer in network if hasattr(layer, "weight")):
                    layer.weight.copy_(torch.from_numpy(next(kernels).transpose(3, 2, 0, 1).copy()))
                    layer.bias.copy_(torch.from_numpy(next(kernels)))
        else:
            network = torch.nn.Sequential(*list(models.resnet50(weights=None).children())[:-2])
        network = network.eval().to(memory_format=torch.channels_last)
        means = torch.tensor([103.939, 116.779, 123.68]).reshape(3, 1, 1)

        def run(pixels: np.ndarray) -> np.ndarray:
            with torch.inference_mode():
                inputs = torch.from_numpy(pixels).permute(0, 3, 1, 2).flip(1).float() - means
                features = network(inputs.contiguous(memory_format=torch.channels_last))
                return np.asarray(features.permute(0, 2, 3, 1).contiguous())

        return run

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self.facts["own_weights"] = task.backbone != "vgg16"

    def _from_files(self) -> Iterator[np.ndarray]:
        data = importlib.import_module("torch.utils.data")
        loader = data.DataLoader(
            _Photos(_files(self._task), self._task.image_size), BATCH_SIZE, num_workers=os.cpu_count()
        )
        for batch in loader:
            yield self._network(np.asarray(batch))


class _Photos:
    """A data set as PyTorch knows it."""

    def __init__(self, files: list[Path], size: int) -> None:
        self._files, self._size = files, size

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, number: int) -> np.ndarray:
        return _pixels(self._files[number], self._size)


def _files(task: Task) -> list[Path]:
    return sorted(path for path in Path(task.data_dir).rglob("*") if path.is_file())


def _pixels(path: Path, size: int) -> np.ndarray:
    with Image.open(path) as image:
        return np.array(image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR))
