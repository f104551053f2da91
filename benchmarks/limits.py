"""How fast this machine multiplies matrices: what no network can be expected to exceed."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from turns import Figures, Task

from featx.engines.openvino_import import import_openvino
from featx.machine import cpu_has_bfloat16

#: Each product is computed so often in a turn; the fastest counts.
TRIES = 3


class MatrixProducts:
    """Square matrix products on all cores: float32 with NumPy's BLAS; float32, bfloat16 and int8 with OpenVINO."""

    def __init__(self, task: Task) -> None:
        size = task.matrix_size
        rng = np.random.default_rng(0)
        a, b = rng.standard_normal((2, size, size), np.float32)
        self._flops = 2 * size**3
        out = np.empty_like(a)
        self._products: dict[str, Callable[[], object]] = {
            "float32, NumPy": lambda: np.matmul(a, b, out=out),
            "float32": _openvino_product(a, b, "f32"),
            "int8": _openvino_product(a, b, "f32", quantized=True),
        }
        if cpu_has_bfloat16():
            self._products["bfloat16"] = _openvino_product(a, b, "bf16")
        self.turn("limits")
        self.facts: Figures = {"matrix_size": size}

    def turn(self, what: str) -> Figures:
        """Return floating-point operations (with int8, as many on integers) a second, by precision."""
        assert what == "limits"
        best = {name: min(_elapsed_s(product) for _ in range(TRIES)) for name, product in self._products.items()}
        return {"flop_per_s": {name: self._flops / elapsed_s for name, elapsed_s in best.items()}}


def limit_of(figures: Figures, precision: str) -> float:
    """Return the limit of a precision from the figures of one turn: whichever library was faster."""
    flop_per_s: dict[str, float] = figures["flop_per_s"]
    return max(value for name, value in flop_per_s.items() if name.split(",")[0] == precision)


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
    request.set_input_tensor(openvino.Tensor(a, shared_memory=True))
    infer: Callable[[], Any] = request.infer
    return infer


def _fake_quantized(ops: Any, node: Any) -> Any:
    low, high = (ops.constant(np.float32(edge)) for edge in (-4.0, 4.0 * 127 / 128))
    return ops.fake_quantize(node, low, high, low, high, 256)
