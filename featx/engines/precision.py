"""What `--precision auto` and `fast` mean on this machine, and how much faster one precision is than another."""

import importlib.util
import logging
import platform
import time
from functools import cache
from typing import Any

import numpy as np

from featx.engines.engine import engines_for
from featx.system import (
    cpu_has_bfloat16,
    cpu_has_int8,
    cuda_capability,
    has_fast_bfloat16,
    import_openvino,
    install_command,
    kept_signal_stack,
)

log = logging.getLogger("featx")

#: Layers of the network that is timed, their channels, and the pixels of a side.
_N_LAYERS, _N_CHANNELS, _SIDE = 4, 128, 56

#: Seconds that a precision is timed.
_TIMED_S = 0.3


def auto_precision(backbone: str) -> str:
    """Return what `auto` means: bfloat16 where this machine is faster with it, else float32."""
    if engines_for("bfloat16", backbone) == ["openvino"]:  # as for ONNX; OpenVINO has it on x86 only
        is_fast = cpu_has_bfloat16() and platform.machine().lower() in {"x86_64", "amd64"}
    else:
        is_fast = has_fast_bfloat16()
    return "bfloat16" if is_fast else "float32"


def fast_precision(backbone: str) -> str:
    """Return what `fast` means: int8 without a GPU, on a processor with instructions for it; else what `auto` means."""
    has_int8 = cuda_capability() is None and cpu_has_int8() and bool(engines_for("int8", backbone))
    return "int8" if has_int8 and importlib.util.find_spec("nncf") else auto_precision(backbone)


@cache  # so that it is said once
def say_fast(precision: str) -> None:
    """Say what `--precision fast` means, and what is missing for int8."""
    log.info("--precision fast is %s on this machine.", precision)
    if precision != "int8" and cuda_capability() is None and cpu_has_int8() and not importlib.util.find_spec("nncf"):
        log.info("int8 would be faster here, but nncf is not installed: %s", install_command("featx[nncf]"))


def speedup(precision: str, than: str) -> float:
    """Return how many times as fast OpenVINO computes 3×3 convolutions here in `precision` as in `than`.

    It times four layers like those of VGG16, for about a second.
    """
    seconds = {one: _pass_s(one) for one in dict.fromkeys((precision, than))}
    return seconds[than] / seconds[precision]


def _pass_s(precision: str) -> float:
    """Return the seconds that one pass through the timed network takes."""
    openvino = import_openvino()
    ops = openvino.opset13
    shape = [1, _N_CHANNELS, _SIDE, _SIDE]
    given = ops.parameter(shape, openvino.Type.f32)
    tensor: Any = given
    weights = np.random.default_rng(0).integers(-127, 128, (_N_CHANNELS, _N_CHANNELS, 3, 3)).astype(np.int8)
    for _ in range(_N_LAYERS):
        if precision == "int8":
            tensor = ops.fake_quantize(tensor, *map(np.float32, (0, 255, 0, 255)), 256)
            kernel = ops.multiply(ops.convert(ops.constant(weights), "f32"), np.float32(1e-3))
        else:
            kernel = ops.constant(weights.astype(np.float32) * 1e-3)
        tensor = ops.relu(ops.convolution(tensor, kernel, [1, 1], [1, 1], [1, 1], [1, 1]))
    hint = "bf16" if precision == "bfloat16" else "f32"
    with kept_signal_stack():
        model = openvino.Model([tensor.output(0)], [given])
        compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": hint})
    numbers = np.ones(shape, np.float32)
    compiled(numbers)
    least, until = np.inf, time.perf_counter() + _TIMED_S
    while time.perf_counter() < until:
        started = time.perf_counter()
        compiled(numbers)
        least = min(least, time.perf_counter() - started)
    return float(least)
