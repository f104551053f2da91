"""Sequences whose items are made only when they are asked for: a million of them take no room before."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import TypeVar, overload

_Item = TypeVar("_Item")


class OnDemand(Sequence[_Item]):
    """A sequence that makes its items; who inherits says how many there are, and makes one."""

    @abstractmethod
    def _make(self, row: int) -> _Item:
        """Return the item `row`, from 0 to below `len(self)`."""

    @overload
    def __getitem__(self, row: int) -> _Item: ...
    @overload
    def __getitem__(self, row: slice) -> list[_Item]: ...
    def __getitem__(self, row: int | slice) -> _Item | list[_Item]:
        rows = range(len(self))[row]
        return self._make(rows) if isinstance(rows, int) else [self._make(one) for one in rows]
