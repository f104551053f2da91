"""How right a plan is: what `featx plan` says beside what `featx extract` then takes, for each engine and precision.

    python benchmarks/plan.py data/ --weights weights/vgg16_notop.h5 --image-size 64 --images 2000

Each is planned and extracted in turn, in processes of their own and into a store that is new, and again if `--repeats`
says so. Ratios are planned by actual. A machine that is busy with other things slows both, but hardly ever alike: so
the time is also compared as if each had had all processors, by the share that others used meanwhile.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from photos import choose_photos

from featx.engines.engine import ENGINES
from featx.recipe import PRECISIONS
from featx.system.machine import cpu_seconds

Figures = dict[str, Any]


def configurations(backbone: str) -> list[tuple[str, str]]:
    """Return the engines that run a backbone here, each with its precisions."""
    here = {name: entry for name, entry in ENGINES.items() if entry.runs(backbone) and entry.is_installed}
    return [(name, precision) for name in here for precision in PRECISIONS if precision in here[name].precisions]


def measure(data_dir: Path, cache_dir: Path, engine: str, precision: str, words: list[str]) -> Figures:
    """Return what was planned for an engine and precision, and what it took."""
    options = [str(data_dir), "--cache-dir", str(cache_dir), "--engine", engine, "--precision", precision, *words]
    (planned,) = _featx("plan", *options)["said"]["estimates"]
    if planned["reason"]:
        return {"planned": planned}
    actual = _featx("extract", *options)
    store_dir = Path(actual["said"]["store_dir"])
    actual["size_bytes"] = sum(path.stat().st_size for path in store_dir.iterdir())
    actual["n_segments"] = len(list(store_dir.glob("seg-*.h5")))
    actual["peak_memory_bytes"] = actual["said"]["timings"]["peak_memory_bytes"]
    shutil.rmtree(store_dir)
    return {"planned": planned, "actual": actual, "ratios": _ratios(planned, actual)}


def _featx(*words: str) -> Figures:
    """Run a command, and return what it has said, the time it took, and the share of the processors others used."""
    own_before, all_before, began = _children_cpu_s(), cpu_seconds(), time.perf_counter()
    command = [sys.executable, "-m", "featx", *words, "--json", "--quiet"]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    elapsed_s = time.perf_counter() - began
    others_s = cpu_seconds() - all_before - (_children_cpu_s() - own_before)
    others_share = max(0.0, others_s) / (elapsed_s * (os.cpu_count() or 1))
    return {"said": json.loads(done.stdout), "elapsed_s": elapsed_s, "others_share": others_share}


def _children_cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _ratios(planned: Figures, actual: Figures) -> Figures:
    time_ratio = planned["time_s"] / actual["elapsed_s"]
    return {
        "time": time_ratio,
        "time if alone": time_ratio * (1 - planned["others_share"]) / (1 - actual["others_share"]),
        "disk": planned["size_bytes"] / actual["size_bytes"],
        "memory": planned["peak_memory_bytes"] / actual["peak_memory_bytes"],
    }


def print_rounds(name: str, rounds: list[Figures]) -> None:
    """Print a line for each round, and the medians."""
    for figures in rounds:
        planned = figures["planned"]
        if planned["reason"]:
            print(f"{name:<18} {planned['reason']}")
            return
        actual = figures["actual"]
        print(
            f"{name:<18} {planned['time_s']:>7.1f} s {actual['elapsed_s']:>7.1f} s  {_line(figures['ratios'])}  "
            f"others {planned['others_share']:.0%} and {actual['others_share']:.0%}, "
            f"segments {planned['n_segments']} and {actual['n_segments']}",
            flush=True,
        )
    if len(rounds) > 1:
        medians = {key: median(figures["ratios"][key] for figures in rounds) for key in rounds[0]["ratios"]}
        print(f"{name:<18} {'median':>19}  {_line(medians)}", flush=True)


def _line(ratios: Figures) -> str:
    return "  ".join(f"{key} {ratio:.2f}" for key, ratio in ratios.items())


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_dir", type=Path, help="a folder of JPEGs in class folders")
    parser.add_argument("--backbone", default="vgg16")
    parser.add_argument("--weights", default="imagenet")
    parser.add_argument("--image-size", default="64")
    parser.add_argument("--images", type=int, default=2000, help="so many of them")
    parser.add_argument("--engine", choices=sorted(ENGINES), help="only this one")
    parser.add_argument("--precision", choices=PRECISIONS, action="append", help="only these")
    parser.add_argument("--repeats", type=int, default=1, help="rounds for each engine and precision")
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    args = parser.parse_args()
    words = ["--backbone", args.backbone, "--weights", args.weights, "--image-size", args.image_size]
    found: dict[str, list[Figures]] = {}
    print(f"{args.backbone} at {args.image_size}, {args.images:,} images; planned, actual, planned by actual")
    with tempfile.TemporaryDirectory(prefix="featx-plan-") as folder:
        data_dir = choose_photos(args.data_dir, Path(folder, "data"), args.images)
        cache_dir = Path(folder, "cache")
        for engine, precision in configurations(args.backbone):
            if args.engine not in (None, engine) or precision not in (args.precision or PRECISIONS):
                continue
            rounds = [measure(data_dir, cache_dir, engine, precision, words) for _ in range(args.repeats)]
            print_rounds(f"{engine} {precision}", rounds)
            found[f"{engine} {precision}"] = rounds
    if args.json:
        args.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
