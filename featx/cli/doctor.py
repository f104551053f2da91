"""`featx doctor`: what featx finds on this machine, and whether it works."""

from dataclasses import asdict
from typing import Any

import click

from featx.cli import options as opt
from featx.extract import Diagnosis, SelfTest, diagnose
from featx.storage import StoragePath
from featx.system import duration, size
from featx.text import Shown, printable, shown_text


@click.command()
@opt.CACHE_DIR
@opt.OUTPUT
def doctor(cache_dir: StoragePath, output: opt.Output) -> None:
    """Check the installation on this machine: versions, engine, GPU, precision, weights, cache, and some features.

    It takes a few seconds and changes nothing. If something does not work, the exit code is 1.

    \b
    Example:
      featx doctor
    """
    found = diagnose(cache_dir, show=output.show)
    output.say(found, diagnosis_text, diagnosis_json)
    if not found.is_sound:
        click.get_current_context().exit(1)


def diagnosis_text(found: Diagnosis) -> Shown:
    """Return what was found, in about ten lines."""
    machine, versions = found.hardware, dict(found.versions)
    own, python = versions.pop("featx"), versions.pop("python")
    memory = f"{size(int(machine['memory_bytes']))} of memory, {size(found.free_memory_bytes)} free"
    lines = [
        f"featx {own}, Python {python} on {machine['system']}",
        f"Machine: {machine['cores']} cores of {machine['processor']}; {memory}",
        f"Packages: {', '.join(f'{name} {version}' for name, version in versions.items())}",
        f"Not installed: {', '.join(f'featx[{extra}]' for extra in found.missing) or 'nothing that featx can use'}",
        f"GPU: {_gpu(found)}",
        f"Engine: {found.engine or 'none'}; {_fast(found)}",
        f"ImageNet's weights on this machine: {', '.join(found.weights) or 'none; Keras downloads them when needed'}",
        f"Cache: {_cache(found)}",
        *map(_self_test, found.self_tests),
        *(f"Problem: {problem}" for problem in found.problems),
    ]
    return shown_text(lines)


def _gpu(found: Diagnosis) -> str:
    if found.gpu is None:
        return "unknown, since Keras does not start"
    if found.gpu:
        return f"Keras uses it, by {found.keras_backend}"
    return f"there is one, but Keras cannot use it by {found.keras_backend}" if found.has_cuda else "none"


def _fast(found: Diagnosis) -> str:
    auto = "bfloat16" if "bfloat16" in found.fast else "float32"
    are = "is" if len(found.fast) == 1 else "are"
    return f"{' and '.join(found.fast)} {are} faster than float32; --precision auto means {auto}"


def _cache(found: Diagnosis) -> str:
    stores = [
        one.store for one in found.cache if one.store and not (one.store.recipe and one.store.recipe.is_of_pixels)
    ]
    n_rows, n_bytes = sum(store.n_images for store in stores), sum(entry.size_bytes for entry in found.cache)
    if not found.cache:
        return f"{printable(found.cache_dir)} is empty"
    what = "1 store" if len(stores) == 1 else f"{len(stores):,} stores"
    return f"{what} with {n_rows:,} rows of features in {printable(found.cache_dir)}, {size(n_bytes)}"


def _self_test(test: SelfTest) -> str:
    name = f"Self-test in {test.precision}"
    if test.problem:
        return f"{name}: FAILED. {test.problem}"
    verdict = "passed" if test.is_passed else "FAILED: these features are wrong"
    return f"{name}: {verdict}; they differ from stored ones by {test.deviation:.1e}, in {duration(test.elapsed_s)}"


def diagnosis_json(found: Diagnosis) -> dict[str, Any]:
    """Return what was found, as JSON values."""
    return {
        "sound": found.is_sound,
        "versions": found.versions,
        "missing": found.missing,
        "hardware": found.hardware,
        "free_memory_bytes": found.free_memory_bytes,
        "keras_backend": found.keras_backend,
        "gpu": found.gpu,
        "engine": found.engine,
        "fast_precisions": found.fast,
        "weights": found.weights,
        "cache_dir": str(found.cache_dir),
        "n_stores": sum(entry.store is not None for entry in found.cache),
        "problems": found.problems,
        "self_tests": [
            {**asdict(test), "deviation": None if test.problem else test.deviation, "passed": test.is_passed}
            for test in found.self_tests
        ],
    }
