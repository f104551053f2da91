"""Items that threads make while others are in use, or that are made on demand."""

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent import futures
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from functools import partial
from queue import SimpleQueue
from types import TracebackType
from typing import Any, ParamSpec, TypeVar, overload

import numpy as np

from featx.system.machine import n_cores

#: Seconds that threads have to finish what they are at, when nobody wants it any more.
GRACE_S = 1.0

_P = ParamSpec("_P")
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


class DaemonThreads(Executor):
    """Threads that do not keep a process from ending, as those of a `ThreadPoolExecutor` do: they are given a second.

    Those that read may wait for a server that never answers, and a fit may take minutes.
    """

    def __init__(self, n_threads: int, name: str) -> None:
        """Start up to `n_threads` threads, whose names begin with `name`, as there is work for them."""
        self._n_threads, self._name = n_threads, name
        self._tasks: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._under_way: set[Future[Any]] = set()

    def submit(self, fn: Callable[_P, _Result], /, *args: _P.args, **kwargs: _P.kwargs) -> Future[_Result]:
        """Have a thread call `fn`."""
        future: Future[_Result] = Future()
        self._under_way.add(future)
        future.add_done_callback(self._under_way.discard)
        self._tasks.put((future, partial(fn, *args, **kwargs)))
        if len(self._threads) < self._n_threads:
            name = f"{self._name}-{len(self._threads)}"
            self._threads.append(threading.Thread(target=_do_tasks, args=(self._tasks,), name=name, daemon=True))
            self._threads[-1].start()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Let the threads end. If what waits is cancelled, those that are at work have a second for it."""
        if cancel_futures:
            for future in list(self._under_way):
                future.cancel()
        for _ in self._threads:
            self._tasks.put(None)
        if wait:
            futures.wait(list(self._under_way), GRACE_S if cancel_futures else None)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.shutdown(cancel_futures=kind is not None)


def _do_tasks(tasks: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None]) -> None:
    """Do tasks until there is a None among them."""
    while task := tasks.get():
        future, call = task
        if not future.set_running_or_notify_cancel():
            continue
        try:
            future.set_result(call())
        except BaseException as error:  # noqa: BLE001 - whoever asks for the result raises it
            future.set_exception(error)
        del task, future, call  # or the last result would live on while the thread waits


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
