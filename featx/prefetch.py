"""The next item is made by another thread while this one is used."""

from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_Item = TypeVar("_Item")


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
