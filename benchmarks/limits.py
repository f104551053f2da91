"""How fast this machine multiplies matrices: what no network can be expected to exceed."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from turns import Figures, Task

from featx.system.late_imports import import_openvino
from featx.system.machine import cpu_has_bfloat16

#: Each product is computed so often in a turn; the fastest counts.
TRIES = 10


class MatrixProducts:
    """Square matrix products on all cores: float32 with NumPy's BLAS; float32, bfloat16 and int8 with OpenVINO."""

    def __init__(self, task: Task) -> None:
        # Larger ones leave the processor's caches and are slower, smaller ones are over too soon.
        self._sizes = (task.matrix_size // 2, task.matrix_size)
        self._products = {size: _products(size) for size in self._sizes}
        self.turn("limits")
        self.facts: Figures = {"matrix_sizes": self._sizes}

    def turn(self, what: str) -> Figures:
        """Return floating-point operations (with int8, as many on integers) a second, by precision."""
        assert what == "limits"
        best: dict[str, float] = {}
        for size, products in self._products.items():
            for name, product in products.items():
                elapsed_s = min(_elapsed_s(product) for _ in range(TRIES))
                best[name] = max(best.get(name, 0.0), 2 * size**3 / elapsed_s)
        return {"flop_per_s": best}


def limit_of(turns: Sequence[Figures], precision: str) -> float:
    """Return the limit of a precision, in operations a second: the fastest of all turns, with whichever library."""
    rates: list[tuple[str, float]] = [item for turn in turns for item in turn["flop_per_s"].items()]
    return max(rate for name, rate in rates if name.split(",")[0] == precision)


def _products(size: int) -> dict[str, Callable[[], object]]:
    """Return functions that multiply two matrices, by the precision."""
    a, b = np.random.default_rng(0).standard_normal((2, size, size), np.float32)
    out = np.empty_like(a)
    products: dict[str, Callable[[], object]] = {
        "float32, NumPy": lambda: np.matmul(a, b, out=out),
        "float32": _openvino_product(a, b, "f32"),
        "int8": _openvino_product(a, b, "f32", quantized=True),
    }
    if cpu_has_bfloat16():
        products["bfloat16"] = _openvino_product(a, b, "bf16")
    return products


def _elapsed_s(product: Callable[[], object]) -> float:
    started = time.perf_counter()
    product()
    return time.perf_counter() - started


def _openvino_product(a: np.ndarray, b: np.ndarray, precision: str, *, quantized: bool = False) -> Callable[[], Any]:
    """Return a function that multiplies `a` by the constant `b`, as a network multiplies images by its weights."""
    openvino = import_openvino()
    from openvino import opset13 as ops

    left = ops.parameter(a.shape, np.float32)
    # Between fake quantizations, OpenVINO computes with 8-bit integers: so do networks that NNCF has quantized.
    x, y = (_fake_quantized(ops, node) if quantized else node for node in (left, ops.constant(b)))
    model = openvino.Model([ops.matmul(x, y, transpose_a=False, transpose_b=False)], [left])
    hints = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": precision}
    request = openvino.Core().compile_model(model, "CPU", hints).create_infer_request()
    request.set_input_tensor(openvino.Tensor(a))  # a copy: OpenVINO would not keep `a` alive
    infer: Callable[[], Any] = request.infer
    return infer


def _fake_quantized(ops: Any, node: Any) -> Any:
    low, high = (ops.constant(np.float32(edge)) for edge in (-4.0, 4.0 * 127 / 128))
    return ops.fake_quantize(node, low, high, low, high, 256)
