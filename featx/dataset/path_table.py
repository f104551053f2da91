"""The paths of many images in one block of bytes: a Python string takes 50 bytes more than its characters."""

import operator
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, pairwise
from operator import index
from typing import Self, SupportsIndex, overload

import numpy as np
import numpy.typing as npt

#: Paths that are Python strings at a time.
_SLAB_ROWS = 65_536


class PathTable(Sequence[str]):
    """Paths, as a tuple of strings would hold them, in about a third of the memory. It never changes.

    >>> paths = PathTable(["cats/1.jpg", "cats/2.jpg", "dogs/1.jpg"])
    >>> paths[-1], paths[:2], paths == ("cats/1.jpg", "cats/2.jpg", "dogs/1.jpg")
    ('dogs/1.jpg', <2 paths: 'cats/1.jpg', 'cats/2.jpg'>, True)

    Attributes:
        block: all paths, one after the other, as UTF-8.
        starts: `(n + 1,)`, where each begins in it, and where the last one ends.
    """

    __hash__ = None  # type: ignore[assignment]  # it is equal to tuples and lists, which have different hashes

    def __init__(self, paths: Iterable[str] = ()) -> None:
        """Hold `paths`: any text, also names of files that are not Unicode."""
        blocks: list[bytes] = []
        lengths: list[npt.NDArray[np.int64]] = []
        rest = iter(paths)
        while encoded := [path.encode("utf-8", "surrogatepass") for path in islice(rest, _SLAB_ROWS)]:
            blocks.append(b"".join(encoded))
            lengths.append(np.fromiter(map(len, encoded), np.int64, len(encoded)))
        self._set(b"".join(blocks), np.concatenate([np.zeros(1, np.int64), *lengths]).cumsum())

    def _set(self, block: bytes, starts: npt.NDArray[np.int64]) -> None:
        self.block = block
        # Four bytes are enough for 100 million short paths.
        self.starts = starts.astype(np.uint32 if len(block) < 1 << 32 else np.int64)

    @classmethod
    def joined(cls, tables: "Iterable[PathTable]") -> Self:
        """Return the paths of several tables, one table after the other."""
        parts = list(tables)
        table = cls()
        ends = np.cumsum([0, *(len(part.block) for part in parts)])
        starts = [part.starts[:-1].astype(np.int64) + end for part, end in zip(parts, ends, strict=False)]
        table._set(b"".join(part.block for part in parts), np.concatenate([*starts, ends[-1:]]))
        return table

    def __len__(self) -> int:
        return len(self.starts) - 1

    @overload
    def __getitem__(self, row: SupportsIndex) -> str: ...
    @overload
    def __getitem__(self, row: slice) -> "PathTable": ...
    def __getitem__(self, row: SupportsIndex | slice) -> "str | PathTable":
        if isinstance(row, slice):
            return self.take(np.arange(len(self))[row])
        number = index(row)
        if not -len(self) <= number < len(self):
            raise IndexError(f"There are {len(self):,} paths. Received: {number}")
        at = number % len(self)
        return self.block[self.starts[at] : self.starts[at + 1]].decode("utf-8", "surrogatepass")

    def __iter__(self) -> Iterator[str]:
        for first in range(0, len(self), _SLAB_ROWS):
            starts = self.starts[first : first + _SLAB_ROWS + 1].tolist()
            for start, end in pairwise(starts):
                yield self.block[start:end].decode("utf-8", "surrogatepass")

    def __eq__(self, other: object) -> bool:
        if isinstance(other, PathTable):
            return self.block == other.block and np.array_equal(self.starts, other.starts)
        return isinstance(other, tuple | list) and len(self) == len(other) and all(map(operator.eq, self, other))

    def __repr__(self) -> str:
        shown = ", ".join(map(repr, islice(self, 3)))
        return f"<{len(self):,} paths: {shown}{', …' if len(self) > 3 else ''}>"

    def take(self, rows: npt.NDArray[np.int64]) -> "PathTable":
        """Return the paths with these numbers, `(k,)`."""
        if len(rows) == len(self) and (np.diff(rows) == 1).all() and (not len(rows) or rows[0] == 0):
            return self
        table = PathTable()
        starts, ends = self.starts[rows].astype(np.int64), self.starts[np.asarray(rows) + 1].astype(np.int64)
        blocks = []
        for first in range(0, len(rows), _SLAB_ROWS):
            some = slice(first, first + _SLAB_ROWS)
            places = zip(starts[some].tolist(), ends[some].tolist(), strict=True)
            blocks.append(b"".join([self.block[start:end] for start, end in places]))
        table._set(b"".join(blocks), np.concatenate([np.zeros(1, np.int64), ends - starts]).cumsum())
        return table
