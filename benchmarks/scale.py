"""What each image costs besides its features, from a thousand images to a million: does it grow with their number?

    python benchmarks/scale.py /tmp/scale

Makes data sets and stores as benchmarks/million.py does, one for each number of images, and prints microseconds of
processor time for each image and job, and the peak of the resident memory. Processor time, because other programs on
the machine do not change it; where a disk or a network is waited for, the clock shows more.
"""

import argparse
from pathlib import Path

from million import Jobs, prepare, run_all

from featx.system.arguments import size

SHAPE = (512,)
JOBS = ("digest", "scan", "open", "join", "verify", "compact", "deliver")


def main() -> None:
    """Parse, make, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where images and stores are made, and stay")
    parser.add_argument("--rows", type=int, nargs="+", default=[1000, 10_000, 100_000, 1_000_000])
    args = parser.parse_args()
    print(f"{'images':>9} " + " ".join(f"{job:>9}" for job in JOBS) + "       memory", flush=True)
    for n_rows in args.rows:
        folder = args.folder / str(n_rows)
        prepare(Jobs(folder, SHAPE, 1), folder, SHAPE, n_rows)
        figures = dict(run_all(folder, ",".join(map(str, SHAPE)), "1", JOBS))
        costs = " ".join(f"{1e6 * figures[job]['cpu_s'] / n_rows:>6.1f} µs" for job in JOBS)
        peak = max(figures.values(), key=lambda each: each["peak_memory_bytes"])["peak_memory_bytes"]
        print(f"{n_rows:>9,} {costs}   {size(peak):>10}", flush=True)


if __name__ == "__main__":
    main()
