"""The one door to OpenVINO: imported late, and without its telemetry.

OpenVINO and its quantizer NNCF report their use to a server, unless they run under continuous integration or the user
has opted out. featx sends nothing anywhere that its user did not ask for.
"""

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from featx.errors import FeatxError


def import_openvino() -> Any:
    """Return the `openvino` module.

    Raises:
        FeatxError: it is not installed, or does not load.
    """
    return _import("openvino", "choose --engine keras")


def import_nncf() -> Any:
    """Return the `nncf` module, OpenVINO's quantizer.

    Raises:
        FeatxError: it is not installed, or does not load.
    """
    return _import("nncf", "choose another --precision")


def _import(name: str, way_out: str) -> Any:
    try:
        with _no_telemetry():
            return importlib.import_module(name)
    except ImportError as error:
        if isinstance(error.__context__, KeyboardInterrupt):  # Ctrl-C while C++ code was being loaded
            raise error.__context__ from None
        raise FeatxError(
            f"{name} does not load ({error}). Install it with pip install {name}, or {way_out}."
        ) from error


@contextmanager
def _no_telemetry() -> Iterator[None]:
    """Set what openvino_telemetry takes for continuous integration: it looks once, while it is imported."""
    before = os.environ.get("CI")
    os.environ["CI"] = "true"
    try:
        yield
    finally:
        if before is None:
            del os.environ["CI"]
        else:
            os.environ["CI"] = before
