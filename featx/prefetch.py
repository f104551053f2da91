"""Items that are made, or used, by other threads."""

from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from featx.machine import n_cores

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def prefetched(items: Iterator[_Item]) -> Generator[_Item, None, None]:
    """Yield `items`, none of them None, of which the next is made meanwhile: one is in use, one waits or is being made.

    What making them raises is raised here. Who stops early waits for the one that is being made.
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
