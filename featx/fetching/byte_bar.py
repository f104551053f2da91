"""Progress in bytes: done and to do, rate, time left."""

from typing import TYPE_CHECKING, Any

from featx.progress import progress_bar

if TYPE_CHECKING:
    from tqdm import tqdm


def byte_bar(total: int | None, what: str, *, show: bool, n_done: int = 0) -> "tqdm[Any]":
    """Return a progress bar that counts bytes from `n_done`, which do not make the rate look better."""
    bar = progress_bar(total or 0, what, "B", show=show)
    bar.total = total
    bar.n = bar.initial = n_done
    bar.unit = "B"
    bar.unit_scale = True
    return bar
