"""`splits-0.2.bin` in a cache: which images featx has taken for testing, so that none of them ever moves.

featx chooses the test split where the user has given none: the same share of every class. A rule that looks at one
image alone cannot keep such a share, and one that looks at all of them would move images whenever there are new ones.
So what was chosen once is recorded here, by the content of the image or the name of its group, and new images only fill
up what their class lacks.

The file is small and read as a whole: sorted digests of 32 bytes, and a byte for each. It is replaced as a whole.
"""

import hashlib
import logging
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from featx.dataset.image_dataset import ImageDataset, hashed_test_mask, identical_groups
from featx.dataset.statcache import RECORDS_SPLITS, StatCache
from featx.errors import DatasetError, FeatxError
from featx.storage import OddFileError, StoragePath, local_dir, make_cache, move, read_small, replacing, workshop
from featx.text import printable

log = logging.getLogger("featx")

#: What the records of a cache are called: one for each share of test images.
RECORD_NAME = re.compile(r"splits-\d(\.\d+)?(e-\d+)?\.bin")

#: What to do without a record.
ADVICE = "To use the split of an earlier run, name its table: --labels RUN/split.csv."

_MAGIC = b"featx splits 1\n"
_DIGEST_BYTES = 32

#: A hundred million images take half of this.
_MAX_BYTES = 8 << 30

#: The bits of a record's bytes: a test image; one that an older featx, which recorded nothing, has known.
_TEST, _OLDER = 1, 2

#: How long to wait for another process that is choosing test images, and how often to look.
_PATIENCE_S, _PAUSE_S = 20.0, 0.05

#: An object store has no locks: a record that another machine has overwritten is written again, as often as this.
_ATTEMPTS = 3


@dataclass(frozen=True, eq=False)
class _Table:
    """What a record holds.

    Attributes:
        units: `(n,)` bytes of 32, sorted, none twice.
        bits: `(n,)` uint8.
    """

    units: npt.NDArray[np.bytes_]
    bits: npt.NDArray[np.uint8]

    @classmethod
    def of(cls, units: np.ndarray, bits: np.ndarray) -> Self:
        """Return the table of units `(n, 32)` uint8; of equal ones the first counts."""
        unique, first = np.unique(_keys(units), return_index=True)
        return cls(unique, bits[first].astype(np.uint8))

    @classmethod
    def read(cls, data: bytes) -> Self:
        """Return the table in a file.

        Raises:
            ValueError: it is not such a file, or damaged.
        """
        start = len(_MAGIC) + _DIGEST_BYTES
        magic, digest, body = data[: len(_MAGIC)], data[len(_MAGIC) : start], data[start:]
        n, rest = divmod(len(body), _DIGEST_BYTES + 1)
        if magic != _MAGIC or rest or hashlib.sha256(body).digest() != digest:
            raise ValueError("it does not match its checksum" if magic == _MAGIC else "featx has not written it")
        units = np.frombuffer(body, f"S{_DIGEST_BYTES}", n)
        if not (units[1:] > units[:-1]).all():
            raise ValueError("it is not sorted")
        return cls(units, np.frombuffer(body, np.uint8, n, offset=n * _DIGEST_BYTES))

    def to_bytes(self) -> bytes:
        """Return the file."""
        body = self.units.tobytes() + self.bits.tobytes()
        return _MAGIC + hashlib.sha256(body).digest() + body

    def find(self, units: np.ndarray) -> npt.NDArray[np.int64]:
        """Return the row of each of `units`, `(n, 32)` uint8; -1 if there is none."""
        if not len(self.units):
            return np.full(len(units), -1, np.int64)
        keys, last = _keys(units), len(self.units) - 1
        # Numbers in order are found several times as fast as bytes in any order, and few digests begin with the same.
        numbers, sought = _beginnings(self.units), _beginnings(keys)
        order = np.argsort(sought)
        rows = np.empty(len(keys), np.int64)
        rows[order] = np.searchsorted(numbers, sought[order]).clip(max=last)
        is_other = self.units[rows] != keys
        is_alike = is_other & (numbers[rows] == sought)
        rows[is_alike] = np.searchsorted(self.units, keys[is_alike]).clip(max=last)
        is_other[is_alike] = self.units[rows[is_alike]] != keys[is_alike]
        return np.where(is_other, -1, rows)

    def with_rows(self, other: Self) -> Self:
        """Return both; where both have a unit, this one counts."""
        units, bits = np.concatenate([self.units, other.units]), np.concatenate([self.bits, other.bits])
        unique, first = np.unique(units, return_index=True)
        return type(self)(unique, bits[first])


def _keys(units: np.ndarray) -> npt.NDArray[np.bytes_]:
    """Return `(n,)` bytes for `(n, 32)` uint8; trailing zeros, which NumPy drops, tell no two apart wrongly."""
    keys: npt.NDArray[np.bytes_] = np.ascontiguousarray(units).view(f"S{_DIGEST_BYTES}")[:, 0]
    return keys


def _beginnings(keys: npt.NDArray[np.bytes_]) -> npt.NDArray[np.uint64]:
    """Return the first eight bytes of each key as a number, `(n,)`: in the order of the keys."""
    return _rows(keys)[:, :8].copy().view(">u8")[:, 0].astype(np.uint64)


class SplitRecord:
    """The test split that featx has chosen, of all images that it has seen with one cache.

    Attributes:
        path: of the file.
        is_lost: whether there was a file, which is gone.
        n_moved: images of this machine that the record has on another side than the older featx that knew them.
    """

    def __init__(self, cache_dir: StoragePath, fraction: float) -> None:
        """Read the record, and take over what an older featx has chosen by its own rule.

        Args:
            cache_dir: the cache, on this machine or elsewhere.
            fraction: the share of test images.

        Raises:
            DatasetError: the record is damaged, or cannot be read.
            FeatxError: another process holds it for long.
        """
        self.path = cache_dir / f"splits-{float(fraction)}.bin"
        self.fraction = fraction
        self._local = local_dir(cache_dir)
        found = self._read()
        self._table = found or _Table.of(np.empty((0, 32), np.uint8), np.empty(0))
        self.n_moved = 0
        with closing(StatCache(self._local, says_so=False)) as cache:
            self.is_lost = found is None and cache.is_noted(self._note)
            if not cache.is_noted(RECORDS_SPLITS):
                with self.held():
                    self._take_over(cache)

    @property
    def _note(self) -> bytes:
        return self.path.name.encode()

    def _read(self) -> _Table | None:
        """Return what is in the file; None if there is none."""
        where = f"The record of the test split, {printable(self.path)},"
        try:
            return _Table.read(read_small(self.path, _MAX_BYTES))
        except FileNotFoundError:
            return None
        except (ValueError, OddFileError) as error:
            reason = error.strerror if isinstance(error, OddFileError) else error
            raise DatasetError(
                f"{where} is damaged ({reason}). Without it, featx would choose other test images. Remove it "
                f"with featx cache rm to have them chosen anew. {ADVICE}"
            ) from error
        except OSError as error:
            raise DatasetError(f"{where} cannot be read: {error.strerror or error}. {ADVICE}") from error

    def _take_over(self, cache: StatCache) -> None:
        """Record the images that an older featx has known, on the side where its rule put them."""
        older = cache.digests()
        is_test = hashed_test_mask(older, self.fraction)
        rows = self._table.find(older)
        is_known = rows >= 0
        self.n_moved = int(((self._table.bits[rows[is_known]] & _TEST > 0) != is_test[is_known]).sum())
        if len(older):
            log.info(
                "%s images that an older featx has seen keep their split, training or test. New images fill up the "
                "share of their class.",
                f"{len(older):,}",
            )
            reason = self._add(_Table.of(older, _TEST * is_test + _OLDER))
            if reason:  # the next command tries again
                return
        cache.note(RECORDS_SPLITS)

    def sides(self, dataset: ImageDataset) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.bool_]]:
        """Return `(n,)`: 1 for images that are test images already, 0 for training images, -1 for new ones.

        A group of which an older featx knew an image is on the side where that featx had it. Also returns `(n,)`:
        whether that is to be recorded.
        """
        rows = self._table.find(dataset.units)
        sides = np.where(rows < 0, -1, self._bits(rows) & _TEST).astype(np.int8)
        if dataset.groups is not None and (sides < 0).any():
            is_older = self._bits(self._table.find(dataset.digests)) & _OLDER > 0
            units = identical_groups(dataset.units)
            is_older = (np.bincount(units, is_older) > 0)[units] & (sides < 0)
            sides[is_older] = hashed_test_mask(dataset.units[is_older], self.fraction)
        return sides, rows < 0

    def _bits(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        """Return the bits of rows; 0 where a row is -1."""
        return np.append(self._table.bits, np.uint8(0))[rows]

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let no other process of this machine record anything meanwhile; what others have recorded is read first.

        Raises:
            FeatxError: another process does not let go of it.
        """
        deadline = time.monotonic() + _PATIENCE_S
        with ExitStack() as stack:
            while True:
                try:
                    make_cache(self._local)
                    stack.enter_context(workshop(self._local / f".tmp-{self.path.name}"))
                    break
                except OSError:  # nothing can be written, so there is nothing to guard
                    break
                except FeatxError:
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(_PAUSE_S)
            found = self._read()
            self._table = found or self._table
            self.is_lost = self.is_lost and found is None  # another process may just have made the first
            yield

    def add(self, units: np.ndarray, is_test: np.ndarray) -> str:
        """Record the sides of units `(n, 32)` uint8; those that have one keep it.

        Returns:
            Why they could not be recorded, in few words; empty if they were.
        """
        return self._add(_Table.of(units, np.where(is_test, _TEST, 0)))

    def _add(self, new: _Table) -> str:
        self._table = self._table.with_rows(new)
        try:
            for _ in range(_ATTEMPTS):
                self._write()
                if isinstance(self.path, Path):
                    break
                there = self._read()
                if there and (there.find(_rows(self._table.units)) >= 0).all():
                    break
                self._table = there.with_rows(self._table) if there else self._table
        except OSError as error:
            return error.strerror or str(error)
        with closing(StatCache(self._local, says_so=False)) as cache:
            cache.note(self._note)
        return ""

    def _write(self) -> None:
        if isinstance(self.path, Path):
            make_cache(self.path.parent)
        with replacing(self.path) as path:
            path.write_bytes(self._table.to_bytes())


def _rows(keys: npt.NDArray[np.bytes_]) -> npt.NDArray[np.uint8]:
    """Return `(n, 32)` uint8 for `(n,)` bytes of 32."""
    return np.ascontiguousarray(keys).view(np.uint8).reshape(-1, _DIGEST_BYTES)


def check_record(path: StoragePath) -> str | None:
    """Return what is wrong with the record at `path`, in few words; None if it is sound.

    Raises:
        OSError: it cannot be read.
    """
    try:
        _Table.read(read_small(path, _MAX_BYTES))
    except ValueError as error:
        return str(error)
    return None


def quarantine_record(path: StoragePath) -> None:
    """Rename the damaged record at `path`, so that test images are chosen anew.

    Raises:
        OSError: it cannot be renamed.
    """
    move(path, path.with_name(f"{path.name}.damaged-{time.strftime('%Y%m%dT%H%M%S')}-{time.time_ns() % 10**9:09d}"))
