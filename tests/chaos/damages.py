"""What can happen to the files of a cache, one kind at a time, at random."""

import os
import random
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

#: Where damage to an HDF5 file hurts most: the superblock and the first headers.
_HEAD_BYTES = 2048


@dataclass(frozen=True)
class Harm:
    """What was done to a cache.

    Attributes:
        paths: the files that are not what they were, or are new; those of the names they have now.
        lost: digests of the rows that were in damaged, missing or overwritten segments.
    """

    paths: tuple[Path, ...]
    lost: frozenset[bytes] = frozenset()


@dataclass(frozen=True)
class Cache:
    """A copy of a cache that is to be damaged.

    Attributes:
        dir: the folder.
        store_dir: its one store.
        foreign_dir: a store of another recipe, outside.
    """

    dir: Path
    store_dir: Path
    foreign_dir: Path

    @property
    def segments(self) -> list[Path]:
        """The segments, sorted."""
        return sorted(self.store_dir.glob("seg-*.h5"))

    @property
    def network(self) -> Path:
        """The converted network."""
        (path,) = (self.dir / "networks").glob("*.zip")
        return path


Rng = random.Random
Bytes = Callable[[bytearray, Rng], bytearray]


def flip_bits(data: bytearray, rng: Rng) -> bytearray:
    """One to eight flipped bits, half of the time where the file begins."""
    for _ in range(rng.choice([1, 1, 1, 2, 8])):
        end = len(data) if rng.random() < 0.5 else min(len(data), _HEAD_BYTES)
        data[rng.randrange(end)] ^= 1 << rng.randrange(8)
    return data


def truncate(data: bytearray, rng: Rng) -> bytearray:
    """A file that ends early, sometimes at once, sometimes a byte before its end."""
    return data[: rng.choice([0, len(data) - 1, rng.randrange(len(data)), rng.randrange(len(data))])]


def zero_block(data: bytearray, rng: Rng) -> bytearray:
    """A block of zeros, as a disk gives that has lost one."""
    size = rng.choice([16, 512, 4096, 65536])
    start = rng.randrange(len(data)) // size * size
    end = min(len(data), start + size)
    data[start:end] = bytes(end - start)
    return data


def overwrite(data: bytearray, rng: Rng) -> bytearray:
    """A block of noise."""
    start = rng.randrange(len(data))
    end = min(len(data), start + rng.choice([1, 16, 512, 4096]))
    data[start:end] = rng.randbytes(end - start)
    return data


def append(data: bytearray, rng: Rng) -> bytearray:
    """Noise after the end."""
    return data + rng.randbytes(rng.choice([1, 100, 5000]))


def zero_all(data: bytearray, rng: Rng) -> bytearray:
    """Nothing but zeros."""
    return bytearray(len(data))


def text(data: bytearray, rng: Rng) -> bytearray:
    """A text."""
    return bytearray(b"This is no file of featx.\n" * rng.choice([1, 100]))


def damage_file(path: Path, change: Bytes, rng: Rng) -> None:
    """Change the bytes of a file, which stays the same file."""
    data = change(bytearray(path.read_bytes()), rng)
    with path.open("r+b") as file:
        file.truncate(0)
        file.write(data)


def damaged_segment(change: Bytes) -> Callable[[Cache, Rng], Harm]:
    """Return what changes the bytes of one segment."""

    def harm(cache: Cache, rng: Rng) -> Harm:
        path = rng.choice(cache.segments)
        lost = rows_of(path)
        damage_file(path, change, rng)
        return Harm((path,), lost)

    return harm


def damaged(name: str, changes: tuple[Bytes, ...]) -> Callable[[Cache, Rng], Harm]:
    """Return what changes the bytes of a file that is no segment: nothing is to be computed again."""

    def harm(cache: Cache, rng: Rng) -> Harm:
        path = cache.network if name == "network" else cache.dir / name
        path = path if path.exists() else cache.store_dir / name
        damage_file(path, rng.choice(changes), rng)
        return Harm((path,))

    return harm


def rows_of(path: Path) -> frozenset[bytes]:
    """Return the digests in a segment."""
    with h5py.File(path, "r") as file:
        return frozenset(map(bytes, file["digest"][:]))


def exchange_names(cache: Cache, rng: Rng) -> Harm:
    """Two segments have each other's name: no row is touched."""
    one, other = rng.sample(cache.segments, 2)
    between = cache.store_dir / "between"
    one.rename(between)
    other.rename(one)
    between.rename(other)
    return Harm((one, other))


def remove_segment(cache: Cache, rng: Rng) -> Harm:
    """A segment is gone."""
    path = rng.choice(cache.segments)
    lost = rows_of(path)
    path.unlink()
    return Harm((path,), lost)


def copy_segment(cache: Cache, rng: Rng) -> Harm:
    """A segment occurs twice."""
    path = cache.store_dir / f"seg-{rng.randbytes(16).hex()}.h5"
    shutil.copy(rng.choice(cache.segments), path)
    return Harm((path,))


def add_foreign_segment(cache: Cache, rng: Rng) -> Harm:
    """A segment of another recipe comes, or takes the place of one."""
    foreign = rng.choice(sorted(cache.foreign_dir.glob("seg-*.h5")))
    return _put(cache, rng, lambda path: shutil.copy(foreign, path))


def add_foreign_hdf5(cache: Cache, rng: Rng) -> Harm:
    """An HDF5 file of another program comes, or takes the place of a segment."""

    def write(path: Path) -> None:
        path.unlink(missing_ok=True)
        with h5py.File(path, "w") as file:
            file["features"] = np.zeros((3, 4), rng.choice(["float16", "int32"]))
            if rng.random() < 0.5:
                file.attrs["format"] = rng.choice(["featx-features", "other", ""])

    return _put(cache, rng, write)


def add_text(cache: Cache, rng: Rng) -> Harm:
    """A text comes, or takes the place of a segment."""
    return _put(cache, rng, lambda path: path.write_text("This is no HDF5 file.\n"))


def _put(cache: Cache, rng: Rng, write: Callable[[Path], object]) -> Harm:
    if rng.random() < 0.5:
        path = cache.store_dir / f"seg-{rng.randbytes(16).hex()}.h5"
        lost: frozenset[bytes] = frozenset()
    else:
        path = rng.choice(cache.segments)
        lost = rows_of(path)
    write(path)
    return Harm((path,), lost)


def swap_rows(cache: Cache, rng: Rng) -> Harm:
    """Two rows of one data set of a segment are exchanged, with checksums of HDF5 that fit."""
    path = rng.choice(cache.segments)
    lost = rows_of(path)
    with h5py.File(path, "r+") as file:
        dataset = file[rng.choice(["features", "digest", "crc32"])]
        one, other = rng.sample(range(len(dataset)), 2)
        rows = dataset[:]
        rows[[one, other]] = rows[[other, one]]
        dataset[...] = rows
    return Harm((path,), lost)


def change_values(cache: Cache, rng: Rng) -> Harm:
    """A number, a digest or a view is another one, with checksums of HDF5 that fit."""
    path = rng.choice(cache.segments)
    lost = rows_of(path)
    with h5py.File(path, "r+") as file:
        dataset = file[rng.choice(["features", "digest", "view", "crc32"])]
        values = dataset[:]
        flat = values.view(np.uint8).reshape(-1)
        flat[rng.randrange(len(flat))] ^= 1 << rng.randrange(8)
        dataset[...] = values
    return Harm((path,), lost)


def change_structure(cache: Cache, rng: Rng) -> Harm:
    """A data set or an attribute of a segment is missing or another one."""
    path = rng.choice(cache.segments)
    lost = rows_of(path)
    with h5py.File(path, "r+") as file:
        kind = rng.choice(["no data set", "short data set", "no attribute", "other attribute", "other type"])
        if kind.endswith("data set"):
            name = rng.choice(["features", "digest", "view", "crc32"])
            rows = file[name][:]
            del file[name]
            if kind == "short data set":
                file[name] = rows[:-1]
        elif kind == "other type":
            rows = file["features"][:]
            del file["features"]
            file["features"] = rows.astype("float32")
        else:
            name = rng.choice(["format", "format_version", "recipe", "timings"])
            del file.attrs[name]
            if kind == "other attribute":
                file.attrs[name] = rng.choice(["", "{", "[]", "0"])
    return Harm((path,), lost)


def stale_virtual_dataset(cache: Cache, rng: Rng) -> Harm:
    """`features.h5` shows fewer segments than there are, in another order, or one that is not there."""
    path = cache.store_dir / "features.h5"
    with h5py.File(path, "r+") as file:
        names = list(file["segments"][:])
        del file["segments"]
        kind = rng.randrange(3)
        changed = [names[1:], names[::-1], [*names[:-1], b"seg-%s.h5" % rng.randbytes(16).hex().encode()]][kind]
        file["segments"] = np.array(changed)
    return Harm((path,))


def missing_file(*names: str) -> Callable[[Cache, Rng], Harm]:
    """Return what removes a file that is no segment."""

    def harm(cache: Cache, rng: Rng) -> Harm:
        name = rng.choice(names)
        path = cache.dir / name if (cache.dir / name).exists() else cache.store_dir / name
        path.unlink()
        return Harm((path,))

    return harm


def foreign_database(cache: Cache, rng: Rng) -> Harm:
    """The digest cache is another program's database, or has another table."""
    path = cache.dir / "digests.sqlite"
    path.unlink()
    with closing(sqlite3.connect(path)) as database:
        if rng.random() < 0.5:
            database.execute("CREATE TABLE states (path TEXT, digest TEXT)")
        else:
            database.execute("CREATE TABLE songs (title TEXT)")
            database.execute("INSERT INTO songs VALUES ('x')")
        database.commit()
    return Harm((path,))


def lying_database(cache: Cache, rng: Rng) -> Harm:
    """The digest cache has rows whose digest is that of another image."""
    path = cache.dir / "digests.sqlite"
    with closing(sqlite3.connect(path)) as database:
        (one, a), (other, b) = rng.sample(database.execute("SELECT path, digest FROM states").fetchall(), 2)
        database.execute("UPDATE states SET digest = ? WHERE path = ?", (b, one))
        database.execute("UPDATE states SET digest = ? WHERE path = ?", (a, other))
        database.commit()
    return Harm((path,))


def leftovers(cache: Cache, rng: Rng) -> Harm:
    """A killed process has left unfinished files, one of them long ago."""
    paths = []
    for age_s in (0, 10_000):
        path = cache.store_dir / f".tmp-{rng.randbytes(16).hex()}.h5"
        data = rng.choice(cache.segments).read_bytes()
        path.write_bytes(data[: rng.randrange(len(data))])
        os.utime(path, (path.stat().st_mtime - age_s,) * 2)
        paths.append(path)
    return Harm(tuple(paths))


ANY: tuple[Bytes, ...] = (flip_bits, flip_bits, truncate, zero_block, overwrite, append, zero_all, text)

KINDS: dict[str, Callable[[Cache, Rng], Harm]] = {
    "segment: bits flipped": damaged_segment(flip_bits),
    "segment: truncated": damaged_segment(truncate),
    "segment: block of zeros": damaged_segment(zero_block),
    "segment: block of noise": damaged_segment(overwrite),
    "segment: longer": damaged_segment(append),
    "segment: all zeros": damaged_segment(zero_all),
    "segment: names exchanged": exchange_names,
    "segment: missing": remove_segment,
    "segment: there twice": copy_segment,
    "segment: of another recipe": add_foreign_segment,
    "segment: foreign HDF5 file": add_foreign_hdf5,
    "segment: text file": add_text,
    "segment: rows exchanged": swap_rows,
    "segment: values changed": change_values,
    "segment: structure changed": change_structure,
    "features.h5: damaged": damaged("features.h5", ANY),
    "features.h5: stale": stale_virtual_dataset,
    "recipe.json: damaged": damaged("recipe.json", ANY),
    "timings.json: damaged": damaged("timings.json", ANY),
    "skipped.csv: damaged": damaged("skipped.csv", ANY),
    "digests.sqlite: bits flipped": damaged("digests.sqlite", (flip_bits, overwrite)),
    "digests.sqlite: truncated": damaged("digests.sqlite", (truncate, append)),
    "digests.sqlite: zeros": damaged("digests.sqlite", (zero_block, zero_all)),
    "digests.sqlite: foreign": foreign_database,
    "digests.sqlite: digests exchanged": lying_database,
    "network: damaged": damaged("network", ANY),
    "a file is missing": missing_file("features.h5", "recipe.json", "timings.json", "skipped.csv", "digests.sqlite"),
    "leftovers of killed processes": leftovers,
}
