"""Writes the features of a data set with their labels, for other tools: Parquet, NumPy or CSV.

Features are written some megabytes at a time, so they need not fit in memory; read back, they have the same bits.
"""

import json
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, Unpack

import numpy as np
import numpy.typing as npt

from featx.dataset import UNLABELLED, Data, ImageDataset, label_texts, scan
from featx.errors import FeatxError, system_errors
from featx.extract import (
    DEFAULT_CACHE_DIR,
    RecipeOptions,
    check_options,
    extract_command,
    readable_images,
    resolve_recipe,
)
from featx.recipe import Recipe
from featx.similar import feature_map
from featx.storage import StoragePath, as_cache_dir, as_path, check_writable, new_file
from featx.store import FeatureArray, FeatureStore, row_bytes, stored_rows
from featx.system import brief, csv_lines, import_pyarrow, progress_bar, size, waiting
from featx.text import printable

#: Bytes of features that are held at a time.
_SLAB_BYTES = 64 << 20

#: A map of more images would take hours.
MAX_ON_MAP = 20_000


@dataclass(frozen=True)
class FeatureExport:
    """Features that were written for other tools.

    Attributes:
        paths: the files; of `.npy`, also the table beside it.
        recipe: what the features are.
        n_images: how many images there are, a row for each.
        feature_shape: of one image.
        size_bytes: of all files.
        elapsed_s: seconds that it took.
    """

    paths: tuple[Path, ...]
    recipe: Recipe
    n_images: int
    feature_shape: tuple[int, ...]
    size_bytes: int
    elapsed_s: float

    def __repr__(self) -> str:
        return f"<FeatureExport {brief(self.paths[0])}: {self.n_images:,} images, {size(self.size_bytes)}>"


@dataclass(frozen=True)
class _Table:
    """What is written: a row for each image.

    Attributes:
        columns: `path`, `label`, `split`, `digest`, and perhaps `projection_x` and `projection_y`.
        X: the features, on disk.
        recipe: what they are.
        done: called with the number of rows that were written since the last call.
    """

    columns: dict[str, list[Any]]
    X: FeatureArray
    recipe: Recipe
    done: Callable[[int], object] = lambda _: None

    def slabs(self) -> Iterator[tuple[slice, npt.NDArray[Any]]]:
        """Yield all features in the order of the rows: which, and `(k, …)`."""
        step = max(1, _SLAB_BYTES // row_bytes(self.X))
        for start in range(0, len(self.X), step):
            rows = slice(start, min(start + step, len(self.X)))
            yield rows, self.X[rows]
            self.done(rows.stop - rows.start)


def export_features(
    data: Data,
    to: Path | str,
    *,
    projection: bool = False,
    cache_dir: StoragePath | str = DEFAULT_CACHE_DIR,
    show: bool = False,
    **options: Unpack[RecipeOptions],
) -> FeatureExport:
    """Write the cached features of a data set into a file that other tools read.

    Each image is a row: its path relative to the data set's folder, label, split, and SHA-256 of its file, and its
    features. The rows are in the order of the data set. An image without a label has an empty one.

    Args:
        data: as for `extract_features`. It needs no labels.
        to: the file, which must not exist. `.parquet`: a column `features` with lists of float32, which hold float16
            exactly. `.npz`: NumPy arrays `features`, `path`, `label`, `split` and `digest`. `.npy`: the features, and
            beside it a table with the rest, whose name ends in `.csv` instead. `.csv`: a column for each feature,
            `f0`, `f1` and so on, each with as many digits as give the same number again.
        projection: add the columns `projection_x` and `projection_y`, a map from 0 to 1 on which images that are alike
            lie close together. It is computed from features averaged over positions: see `feature_map`.
        cache_dir: where the feature stores are.
        show: show progress on stderr.
        options: the recipe, see `featx.extract.options.RecipeOptions`.

    Raises:
        FeaturesMissingError: the store lacks features; the message names the command that computes them.
        FeatxError: the file exists or cannot be written, or a package is missing.
    """
    start_s = time.perf_counter()
    path, cache_dir = as_path(to), as_cache_dir(cache_dir)
    write = _WRITERS.get(path.suffix.lower())
    if write is None:
        raise FeatxError(f"The file's name ends in {', '.join(_WRITERS)}. Received: {printable(path)}")
    paths = (path, path.with_suffix(".csv")) if write is _write_npy else (path,)
    for one in paths:
        if one.exists() or one.is_symlink():
            raise FeatxError(f"{printable(one)} already exists: remove it, or choose another path with --to.")
    with system_errors(printable(path), "written"):
        check_writable(path.parent)
    if write is _write_parquet:
        import_pyarrow()
    check_options(cache_dir, **options)
    dataset = scan(data, cache_dir, to_train=False, show=show)
    recipe, _ = resolve_recipe(cache_dir, dataset, **options)
    store = FeatureStore(cache_dir, recipe)
    command = extract_command(dataset.folders, cache_dir, None, **options)
    dataset, why = readable_images(dataset, store, command)
    if not dataset.n_images:
        raise FeatxError(f"There are no features to export{why}.")
    table = _Table(_columns(dataset), stored_rows(store, dataset.digests), recipe)
    if projection:
        table.columns.update(_projection(table, show=show))
    with progress_bar(dataset.n_images, "export", "images", show=show) as bar:
        made = write(replace(table, done=bar.update), paths)
    n_bytes = sum(one.stat().st_size for one in made)
    return FeatureExport(made, recipe, dataset.n_images, table.X.shape[1:], n_bytes, time.perf_counter() - start_s)


def _columns(dataset: ImageDataset) -> dict[str, list[Any]]:
    labels = ["" if name == UNLABELLED else name for name in dataset.class_names]
    return {
        "path": list(dataset.paths),
        "label": label_texts(dataset.labels, labels),
        "split": ["test" if is_test else "train" for is_test in dataset.is_test],
        "digest": [digest.tobytes().hex() for digest in dataset.digests],
    }


def _projection(table: _Table, *, show: bool) -> dict[str, list[Any]]:
    """Return the two columns of the map."""
    n, shape = len(table.X), table.X.shape
    if n > MAX_ON_MAP:
        raise FeatxError(
            f"A map of more than {MAX_ON_MAP:,} images takes hours: leave out --projection, and let the other tool "
            f"make one from the features. Received: {n:,} images"
        )
    rows = np.empty((n, shape[-1]), np.float32)
    for which, features in table.slabs():
        rows[which] = features.reshape(len(features), -1, shape[-1]).mean(axis=1, dtype=np.float32)
    with waiting("map", show=show):
        places = feature_map(rows, seed=0)
    return {"projection_x": places[:, 0].tolist(), "projection_y": places[:, 1].tolist()}


def _write_parquet(table: _Table, paths: tuple[Path, ...]) -> tuple[Path, ...]:
    pa = import_pyarrow()
    from pyarrow import parquet

    width, dtype = int(np.prod(table.X.shape[1:])), table.X.dtype
    for name in ("path", "label"):
        if bad := [text for text in table.columns[name] if any("\ud800" <= char <= "\udfff" for char in text)]:
            raise FeatxError(
                f"The {name} {printable(bad[0])} is not valid UTF-8, which Parquet needs: rename it, or export to .npz "
                f"or .csv."
            )
    kinds = {name: pa.float32() if name.startswith("projection") else pa.string() for name in table.columns}
    notes = {"recipe": json.loads(table.recipe.to_json()), "feature_shape": table.X.shape[1:], "dtype": dtype.name}
    schema = pa.schema([*kinds.items(), ("features", pa.list_(pa.float32(), width))], {"featx": json.dumps(notes)})
    with (
        new_file(paths[0]) as making,
        system_errors(printable(paths[0]), "written"),
        parquet.ParquetWriter(making.built, schema, compression="zstd") as writer,
    ):
        for rows, features in table.slabs():
            flat = pa.array(features.astype(np.float32).reshape(-1))
            columns = [pa.array(column[rows], kinds[name]) for name, column in table.columns.items()]
            columns.append(pa.FixedSizeListArray.from_arrays(flat, width))
            writer.write_batch(pa.record_batch(columns, schema=schema))
    return (making.path,)


def _write_npz(table: _Table, paths: tuple[Path, ...]) -> tuple[Path, ...]:
    with (
        new_file(paths[0]) as making,
        system_errors(printable(paths[0]), "written"),
        zipfile.ZipFile(making.built, "w") as file,
    ):
        for name, column in table.columns.items():
            with file.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.array(column))
        with file.open("features.npy", "w", force_zip64=True) as member:
            _write_array(member, table)
    return (making.path,)


def _write_npy(table: _Table, paths: tuple[Path, ...]) -> tuple[Path, ...]:
    with new_file(paths[1]) as beside, new_file(paths[0]) as making:
        _write_rows(beside.built, list(table.columns), zip(*table.columns.values(), strict=True))
        with system_errors(printable(paths[0]), "written"), making.built.open("wb") as file:
            _write_array(file, table)
    return making.path, beside.path


def _write_csv(table: _Table, paths: tuple[Path, ...]) -> tuple[Path, ...]:
    width = int(np.prod(table.X.shape[1:]))

    def lines() -> Iterator[list[Any]]:
        for rows, features in table.slabs():
            columns = [column[rows] for column in table.columns.values()]
            for *cells, row in zip(*columns, features.reshape(len(features), width), strict=True):
                # As text, a NumPy number has the fewest digits that give the same number again.
                yield [*cells, *row.astype(str).tolist()]

    with new_file(paths[0]) as making:
        _write_rows(making.built, [*table.columns, *(f"f{number}" for number in range(width))], lines())
    return (making.path,)


def _write_rows(path: Path, header: list[str], rows: Iterator[Any]) -> None:
    with (
        system_errors(printable(path), "written"),
        path.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file,
    ):
        file.writelines(csv_lines(header, rows))


def _write_array(file: IO[bytes], table: _Table) -> None:
    """Write the features as an array in NumPy's own format."""
    header = {"descr": np.lib.format.dtype_to_descr(table.X.dtype), "fortran_order": False, "shape": table.X.shape}
    np.lib.format.write_array_header_1_0(file, header)
    for _, features in table.slabs():
        file.write(features.tobytes())


_WRITERS: dict[str, Callable[[_Table, tuple[Path, ...]], tuple[Path, ...]]] = {
    ".parquet": _write_parquet,
    ".npy": _write_npy,
    ".npz": _write_npz,
    ".csv": _write_csv,
}
