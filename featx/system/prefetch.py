"""Items that threads make while others are in use, or that are made on demand."""

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar, overload

import numpy as np

from featx.system.machine import n_cores

_Result = TypeVar("_Result")
_Item = TypeVar("_Item")


def prefetched(items: Iterator[_Item]) -> Generator[_Item, None, None]:
    """Yield `items`, none of them None. While one is in use, the next is made.

    Exceptions from making them are raised here. A caller that stops early waits for the one in progress.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="featx-prefetch") as thread:
        coming = thread.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = thread.submit(next, items, None)
            yield item
            del item


def in_threads(use: Callable[[_Item], _Result], items: Iterator[_Item]) -> Iterator[_Result]:
    """Yield what `use` returns of each of `items`, in their order, from a thread for each core.

    No more items are taken than threads are at work, so that few are in memory at a time.
    """
    n_threads = n_cores()
    with ThreadPoolExecutor(n_threads, thread_name_prefix="featx-use") as threads:
        under_way: deque[Future[_Result]] = deque()
        for item in items:
            under_way.append(threads.submit(use, item))
            if len(under_way) > n_threads:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()


class OnDemand(Sequence[_Item]):
    """What `make` returns for each of `keys`, made on demand, so that a million items take no memory before."""

    def __init__(self, keys: Sequence[Any] | np.ndarray, make: Callable[[Any], _Item]) -> None:
        self._keys, self._make = keys, make

    def __len__(self) -> int:
        return len(self._keys)

    @overload
    def __getitem__(self, row: int) -> _Item: ...
    @overload
    def __getitem__(self, row: slice) -> list[_Item]: ...
    def __getitem__(self, row: int | slice) -> _Item | list[_Item]:
        return list(map(self._make, self._keys[row])) if isinstance(row, slice) else self._make(self._keys[row])
