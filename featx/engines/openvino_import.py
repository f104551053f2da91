"""The one door to OpenVINO: imported late, and without its telemetry.

OpenVINO and its quantizer NNCF report their use to a server where they find the package `openvino_telemetry`, which
comes with them. featx sends nothing anywhere that its user did not ask for.
"""

import importlib
import sys
from functools import cache
from typing import Any

from featx.errors import FeatxError
from featx.interrupts import insistent_interrupts


def import_openvino() -> Any:
    """Return the `openvino` module.

    Raises:
        FeatxError: it is not installed, or does not load.
    """
    return _import("openvino", "choose --engine keras, which computes all but int8")


@cache
def openvino_has_bfloat16() -> bool:
    """Return whether OpenVINO multiplies bfloat16 on this processor.

    Only OpenVINO knows: some processors have bfloat16 that it does not use. Where it has none, it computes in float32
    whatever it is asked for, and does not say so.
    """
    return "BF16" in import_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def import_nncf() -> Any:
    """Return the `nncf` module, OpenVINO's quantizer.

    Raises:
        FeatxError: it is not installed, or does not load.
    """
    return _import("nncf", "choose another --precision")


def _import(name: str, way_out: str) -> Any:
    # Both fall back on a silent stand-in where this package is missing. They ask for it again when they convert, and
    # so it stays away for good, unless the program featx runs in has loaded it first.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # None: not to be found
    try:
        with insistent_interrupts():
            return importlib.import_module(name)
    except ImportError as error:
        raise FeatxError(
            f"{name} does not load ({error}). Install it with pip install {name}, or {way_out}."
        ) from error
