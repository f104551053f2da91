"""A store of ten million rows: how fast it opens, what memory a process needs for it, how fast rows are found.

    python benchmarks/many_rows.py /tmp/many --rows 10000000

Makes a store of random digests with eight features each, which stays in the folder for the next time. Each measurement
is a process of its own: opening with the index file, and without it, and finding every row in another order. Private
memory is what a further process on the same machine would need; the index file is shared.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from million import recipe_of

from featx.store.feature_store import FeatureStore
from featx.store.index_file import INDEX_NAME
from featx.store.segment_file import new_segment_name
from featx.system.arguments import size
from featx.system.timings import Timings

SHAPE = (8,)
ROWS_EACH = 200_000


def make_store(folder: Path, n_rows: int) -> FeatureStore:
    """Return the store, made if it is not there yet."""
    store = FeatureStore(folder, recipe_of(SHAPE))
    rng = np.random.default_rng(0)
    features = rng.standard_normal((ROWS_EACH, *SHAPE), np.float32).astype(np.float16)
    for _ in range(len(store), n_rows, ROWS_EACH):
        digests = rng.integers(0, 256, (ROWS_EACH, 32), np.uint8)
        store.write_segment(new_segment_name(), features, digests, lambda: Timings(ROWS_EACH, elapsed_s=1.0))
    started = time.perf_counter()
    store.publish()
    print(f"publish            {time.perf_counter() - started:6.2f} s", flush=True)
    return store


def private_bytes() -> int:
    """Return the memory that this process alone has written: parts of files that it has only mapped do not count."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_Dirty")) << 10


def measure(folder: Path, *, join: bool) -> dict[str, float]:
    """Return the seconds that opening and finding all rows take, and the private memory that opening adds."""
    before = private_bytes()
    started = time.perf_counter()
    store = FeatureStore(folder, recipe_of(SHAPE))
    figures = {"open_s": time.perf_counter() - started, "private_bytes": private_bytes() - before, "rows": len(store)}
    if join:
        digests = np.concatenate([segment.digests for segment in store.segments])
        digests = digests[np.random.default_rng(1).permutation(len(digests))]
        started = time.perf_counter()
        assert store.contains(digests).all()
        figures["join_s"] = time.perf_counter() - started
    return figures


def main() -> None:
    """Parse, make, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the store is made, and stays")
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--job", choices=["open", "join"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.job:
        print(json.dumps(measure(args.folder, join=args.job == "join")))
        return
    index_path = make_store(args.folder, args.rows).dir / INDEX_NAME
    print(f"index file         {size(index_path.stat().st_size)}")
    hidden = index_path.with_suffix(".hidden")
    for job, has_index in (("open", True), ("open", False), ("open", True), ("join", True), ("join", False)):
        if not has_index:
            index_path.rename(hidden)
        try:
            words = [sys.executable, __file__, str(args.folder), "--job", job]
            done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
        finally:
            if not has_index:
                hidden.rename(index_path)
        found = json.loads(done.stdout)
        rest = f", join {found['join_s']:.1f} s" if "join_s" in found else ""
        how = "with index" if has_index else "without"
        print(
            f"{how:<12} {found['rows']:>12,} rows  open {found['open_s']:6.2f} s, "
            f"private {size(found['private_bytes'])}{rest}",
            flush=True,
        )


if __name__ == "__main__":
    main()
