"""How much arithmetic a network is."""

import math
from typing import Any


def flops_per_image(network: Any) -> int:
    """Return the floating-point operations of the convolutions and dense layers of a Keras model, for one image.

    A multiplication and an addition are two. Each place of a layer's output takes one multiplication and addition per
    element of the kernel, be it dense, depthwise or neither; the rest of a network hardly counts.
    """
    kernels = [(layer.kernel.shape, layer.output.shape) for layer in network.layers if hasattr(layer, "kernel")]
    return sum(2 * math.prod(kernel) * math.prod(output[1:-1]) for kernel, output in kernels)
