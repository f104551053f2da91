"""The one door to pandas, which few need: imported late."""

import importlib
from collections.abc import Mapping
from typing import Any

from featx.errors import FeatxError


def data_frame(columns: Mapping[Any, Any]) -> Any:
    """Return a `pandas.DataFrame` with these columns.

    Raises:
        FeatxError: pandas is not installed.
    """
    try:
        pandas = importlib.import_module("pandas")
    except ImportError as error:
        raise FeatxError(f"pandas does not load ({error}). Install it with pip install 'featx[pandas]'.") from error
    return pandas.DataFrame(dict(columns))
