"""What the chaos suite has really done, counted while it does it."""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path

from featx.extract.cache import check_cache
from tests.chaos.scenario import Rows, Scenario, segment_rows, shown_rows

#: Whether the whole of it is wanted, or a selection that fits beside the other tests.
IS_FULL = os.environ.get("FEATX_CHAOS") == "full"


def chosen(*, full: int, quick: int) -> int:
    """Return one of two numbers."""
    return full if IS_FULL else quick


@dataclass
class Tally:
    """Counts of one session.

    Attributes:
        kills: SIGKILLs that ended a process, by the phase it was in.
        signals: SIGINTs and SIGTERMs, by what was interrupted.
        faults: full and read-only disks, files and folders that went, by what was hit.
        damages: damaged caches, by kind and by what came of it: `harmless`, `found`.
        recomputed: images computed again, by kind of damage.
        unsaved: after each kill of an extraction, how many rows it had computed that were not on disk.
        archives: hostile archives, by what they claim.
        n_rows_merged: rows that were merged while others read and wrote.
        n_rows_compared: rows that were compared.
        n_rows_lost: rows that were on disk and then were not.
        n_rows_wrong: rows that were not as in the reference.
    """

    kills: Counter[str] = field(default_factory=Counter)
    signals: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    damages: Counter[tuple[str, str]] = field(default_factory=Counter)
    recomputed: Counter[str] = field(default_factory=Counter)
    unsaved: list[int] = field(default_factory=list)
    archives: Counter[str] = field(default_factory=Counter)
    n_rows_merged: int = 0
    n_rows_compared: int = 0
    n_rows_lost: int = 0
    n_rows_wrong: int = 0

    def assert_sound(self, scenario: Scenario, cache: Path, before: Rows) -> Rows:
        """Assert that every row of a store is as in the reference, and that none of `before` is missing.

        Read by featx with its checksums, from the segments by HDF5 alone, and from `features.h5`. Returns the rows.
        """
        store_dir = scenario.store_dir(cache)
        rows, shown = scenario.readable_rows(cache), shown_rows(store_dir)
        wrong = scenario.wrong([*rows.items(), *segment_rows(store_dir).items(), *shown])
        lost = before.keys() - rows.keys()
        self.n_rows_compared += len(rows)
        self.n_rows_wrong += len(wrong)
        self.n_rows_lost += len(lost)
        assert not wrong
        assert not lost
        assert segment_rows(store_dir).keys() == rows.keys()
        return rows

    def assert_whole(self, scenario: Scenario, cache: Path) -> None:
        """Assert that a store is as if nothing had happened: no row missing, wrong or hidden, nothing damaged."""
        rows = self.assert_sound(scenario, cache, scenario.reference)
        assert rows == scenario.reference
        assert set(shown_rows(scenario.store_dir(cache))) == set(scenario.reference.items())
        check = check_cache(cache)
        assert check.is_sound, check

    def add(self, other: "Tally") -> None:
        """Add what another process has counted."""
        for counts in fields(self):
            setattr(self, counts.name, getattr(self, counts.name) + getattr(other, counts.name))

    def is_empty(self) -> bool:
        """Whether nothing has been done."""
        return not (self.kills or self.signals or self.faults or self.damages or self.archives)

    def lines(self) -> Iterator[str]:
        """Yield the summary."""
        counted = {"kills": self.kills, "signals": self.signals, "faults": self.faults}
        for title, counts in (counted | {"lies of archives": self.archives}).items():
            if counts:
                yield f"{title}: {counts.total()}"
                yield from (f"  {name:<44}{n:5}" for name, n in sorted(counts.items()))
        if self.unsaved:
            yield f"rows computed but not yet on disk when killed: at most {max(self.unsaved)}"
        if self.damages:
            yield f"damages: {self.damages.total()}"
            yield f"  {'':<32}{'harmless':>9}{'found':>9}{'images computed again':>23}"
            for kind in sorted({kind for kind, _ in self.damages}):
                counts = [self.damages[kind, outcome] for outcome in ("harmless", "found")]
                yield f"  {kind:<32}{counts[0]:9}{counts[1]:9}{self.recomputed[kind]:23}"
        if self.n_rows_merged:
            yield f"rows merged while others wrote and read: {self.n_rows_merged}"
        yield f"rows compared: {self.n_rows_compared}; lost: {self.n_rows_lost}; wrong: {self.n_rows_wrong}"
