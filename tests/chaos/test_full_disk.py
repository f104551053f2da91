"""Disks that are full or read-only, and files and folders that go while featx is at work: one line says what to do."""

import functools
import itertools
import os
import random
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.chaos import fault_points as points
from tests.chaos import processes
from tests.chaos.fault_points import Fault, FaultPoint
from tests.chaos.processes import Process
from tests.chaos.scenario import (
    OPTION_WORDS,
    Rows,
    Scenario,
    copy_cache,
    extract,
    image_path,
    segment_rows,
    write_images,
)
from tests.chaos.tally import chosen

_NOBODY = 65534


def limit_files(size_bytes: int) -> None:
    """Let no file of this process grow beyond so many bytes: writing more fails, as on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, resource.RLIM_INFINITY))


def extract_words(data: Path, cache: Path) -> list[str]:
    return ["extract", str(data), "--cache-dir", str(cache), "--quiet", *OPTION_WORDS]


class Bench:
    """Runs `featx extract` in processes of its own."""

    def __init__(self, scenario: Scenario, folder: Path) -> None:
        self.scenario = scenario
        self.folder = folder

    def run(self, cache: Path, *faults: Fault, prepare: Callable[[], None] | None = None) -> tuple[int, list[str]]:
        """Return the exit code and the lines on stderr."""
        words = extract_words(self.scenario.data, cache)
        process = Process(processes.command_line, words, faults, prepare, log_path=self.folder / "log")
        code = process.wait()
        return code, process.log.splitlines()


def errors_of(lines: list[str]) -> list[str]:
    """Return the lines that are no warnings, all of which must be featx's."""
    assert all(line.startswith("featx: ") for line in lines), "\n".join(lines)
    return [line for line in lines if not line.startswith("featx: warning: ")]


def assert_failed_in_one_line(code: int, lines: list[str], place: Path) -> None:
    assert code == 2, lines
    (line,) = errors_of(lines)
    assert str(place) in line
    assert any(advice in line for advice in ("ix this", "Free some space", "choose another")), line


@pytest.fixture
def bench(scenario, server, tmp_path) -> Bench:
    return Bench(scenario, tmp_path)


# No file may grow


#: What is written, when the limit comes, whether it goes again, and to how many bytes files are limited.
WRITES: dict[str, tuple[tuple[FaultPoint, int], bool, list[int]]] = {
    "first segment": ((points.WRITE_SEGMENT, 1), True, [0, 4096, 100_000, 260_000]),
    "later segment": ((points.WRITE_SEGMENT, 5), True, [2048, 200_000]),
    "last segment": ((points.WRITE_SEGMENT, 12), True, [50_000]),
    "one segment only": ((points.WRITE_SEGMENT, 3), False, [50_000]),
    "features.h5": ((points.WRITE_VIRTUAL, 1), True, [0, 2000, 4000]),
    "recipe.json": ((points.WRITE_JSON, 1), True, [0, 100]),
    "timings.json": ((points.WRITE_JSON, 2), True, [0, 100]),
    "skipped.csv": ((points.WRITE_SKIPPED, 1), True, [0, 30]),
    "digests.sqlite": ((points.REMEMBER, 1), False, [0, 4096, 12_288]),
}
_CASES = [(name, size) for name, (_, _, sizes) in WRITES.items() for size in sizes]


@pytest.mark.parametrize(("name", "size"), _CASES if chosen(full=1, quick=0) else _CASES[::2])
def test_a_write_that_fails_leaves_nothing_wrong_and_the_next_run_completes(bench, scenario, cache, tally, name, size):
    (point, nth), lasts, _ = WRITES[name]
    faults = [Fault(point, nth, action=functools.partial(limit_files, size))]
    if not lasts:
        faults.append(Fault(point, nth, when="after", action=functools.partial(limit_files, resource.RLIM_INFINITY)))
    code, lines = bench.run(cache, *faults)
    tally.faults[f"files must not grow: {name}"] += 1
    if name in {"skipped.csv", "digests.sqlite"}:
        assert (code, errors_of(lines)) == (0, [])
        assert any(name in line for line in lines)
    elif name == "one segment only":  # it is written once more when the run ends, and that succeeds
        assert code in {0, 2}
    else:
        assert_failed_in_one_line(code, lines, scenario.store_dir(cache))
    complete_and_compare(bench, scenario, cache, tally)


@pytest.mark.parametrize("size", [0, 1000, 10_000, 200_000, 270_000] if chosen(full=1, quick=0) else [0, 200_000])
def test_no_file_may_grow_from_the_beginning(bench, scenario, cache, tally, size):
    code, lines = bench.run(cache, prepare=functools.partial(limit_files, size))
    tally.faults["files must not grow: anything"] += 1
    if code:
        assert_failed_in_one_line(code, lines, scenario.store_dir(cache))
    else:
        assert size > 266_560
    complete_and_compare(bench, scenario, cache, tally)


def complete_and_compare(bench: Bench, scenario: Scenario, cache: Path, tally) -> None:
    """Assert that what is on disk is right, and that the same command, run again, does the rest and no more."""
    on_disk = tally.assert_sound(scenario, cache, Rows())
    scenario.assert_nothing_damaged(cache)
    code, lines = bench.run(cache)
    assert (code, errors_of(lines)) == (0, []), lines
    tally.assert_sound(scenario, cache, on_disk)
    assert extract(scenario.data, cache).n_cached == len(scenario.reference)
    tally.assert_whole(scenario, cache)
    scenario.assert_no_leftovers(cache)


# A small disk


@contextmanager
def small_disk(folder: Path, size_bytes: int) -> Iterator[Path]:
    """Mount a file system of so many bytes on `folder`; skip the test where that is not allowed."""
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("only root may mount a file system")
    mounting = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", folder], capture_output=True, check=False
    )
    if mounting.returncode:
        pytest.skip(f"no file system can be mounted here: {mounting.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def remount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", folder], check=True)


@pytest.fixture(scope="module")
def needed_bytes(scenario, server, tmp_path_factory) -> int:
    """What a whole cache takes on such a disk."""
    with small_disk(tmp_path_factory.mktemp("measure") / "disk", 64 << 20) as disk:
        cache = scenario.new_cache(disk / "cache")
        assert Process(processes.command_line, extract_words(scenario.data, cache)).wait() == 0
        status = os.statvfs(disk)
        return (status.f_blocks - status.f_bfree) * status.f_frsize


_N_SIZES = chosen(full=16, quick=4)


@pytest.mark.parametrize("number", range(_N_SIZES))
def test_a_full_disk_leaves_nothing_wrong_and_with_more_space_the_run_completes(
    bench, scenario, tmp_path, tally, needed_bytes, number
):
    # Half of them are full with the last files, the derived ones, the others anywhere.
    pages = 1 + number // 2 if number % 2 else random.Random(number).randrange(1, needed_bytes // 4096)
    with small_disk(tmp_path / "disk", needed_bytes - 4096 * pages) as disk:
        cache = scenario.new_cache(disk / "cache")
        code, lines = bench.run(cache)
        tally.faults["disk full: while extracting"] += 1
        if code:
            assert_failed_in_one_line(code, lines, cache)
        else:
            assert errors_of(lines) == []  # a warning, for the digests or for what was skipped
        remount(disk, f"size={64 << 20}")
        complete_and_compare(bench, scenario, cache, tally)


@pytest.mark.parametrize("size", [4096, 100_000, 160_000] if chosen(full=1, quick=0) else [100_000])
def test_no_space_for_the_converted_network_is_one_line(scenario, tmp_path, tally, featx, size):
    with small_disk(tmp_path / "disk", size) as disk:
        cache = disk / "cache"
        cache.mkdir()
        result = featx(*extract_words(scenario.data, cache), exit_code=2)
        tally.faults["disk full: network"] += 1
        assert_failed_in_one_line(2, result.stderr.splitlines(), cache)
        remount(disk, f"size={64 << 20}")
        featx(*extract_words(scenario.data, cache))
        tally.assert_whole(scenario, cache)


@pytest.mark.parametrize("size", [4096, 100_000, 160_000] if chosen(full=1, quick=0) else [100_000])
def test_no_space_for_temporary_files_is_one_line(scenario, tmp_path, tally, featx, monkeypatch, size):
    cache = tmp_path / "cache"
    cache.mkdir()
    with small_disk(tmp_path / "disk", size) as disk:
        monkeypatch.setattr(tempfile, "tempdir", str(disk))
        result = featx(*extract_words(scenario.data, cache), exit_code=2)
        tally.faults["disk full: temporary files"] += 1
        assert result.stderr == (
            f"featx: The folder for temporary files {disk} cannot be written: No space left on device. Free some space "
            "there, or name another folder with TMPDIR.\n"
        )
        assert list(disk.iterdir()) == []
        remount(disk, f"size={64 << 20}")
        featx(*extract_words(scenario.data, cache))
        tally.assert_whole(scenario, cache)


# The folders of stage two


@pytest.fixture
def warm(scenario, cache) -> Path:
    """A cache with all features."""
    extract(scenario.data, cache)
    return cache


STAGE_TWO_WORDS = ["--epochs", "1", "--quiet", *OPTION_WORDS[:-2]]


@pytest.mark.parametrize("size", [4096, 1 << 20, 16 << 20] if chosen(full=1, quick=0) else [1 << 20])
def test_no_space_for_the_run_folder_is_one_line_and_leaves_none(scenario, warm, tmp_path, tally, featx, size):
    with small_disk(tmp_path / "disk", size) as disk:
        words = ["train-top", scenario.data, "--cache-dir", warm, "--run-dir", disk / "run", *STAGE_TWO_WORDS]
        result = featx(*words, exit_code=2)
        tally.faults["disk full: run folder"] += 1
        (line,) = errors_of(result.stderr.splitlines())
        assert str(disk) in line
        assert list(disk.iterdir()) == []
        remount(disk, f"size={256 << 20}")
        featx(*words)
        assert {path.name for path in (disk / "run").iterdir()} >= {"metrics.json", "dense.keras", "logreg.keras"}


@pytest.mark.parametrize("size", [4096, 1 << 20, 16 << 20] if chosen(full=1, quick=0) else [1 << 20])
@pytest.mark.parametrize("form", ["savedmodel", "keras", "onnx"] if chosen(full=1, quick=0) else ["savedmodel"])
def test_no_space_for_an_export_is_one_line_and_leaves_nothing(scenario, warm, tmp_path, tally, featx, size, form):
    run = tmp_path / "run"
    featx("train-top", scenario.data, "--cache-dir", warm, "--run-dir", run, *STAGE_TWO_WORDS)
    with small_disk(tmp_path / "disk", size) as disk:
        target = disk / "out" / {"savedmodel": "pets", "keras": "pets.keras", "onnx": "pets.onnx"}[form]
        result = featx("export", run, "--format", form, "--to", target, "--cache-dir", warm, "--quiet", exit_code=2)
        tally.faults["disk full: export"] += 1
        (line,) = errors_of(result.stderr.splitlines())
        assert line.startswith(f"featx: {target} cannot be written: ")
        assert "No space left on device" in line
        assert not [path for path in disk.rglob("*") if path.is_file()]


@pytest.mark.parametrize("size", [4096, 60_000, 150_000] if chosen(full=1, quick=0) else [60_000])
def test_no_space_for_the_report_folder_is_one_line(scenario, warm, tmp_path, tally, featx, size):
    with small_disk(tmp_path / "disk", size) as disk:
        words = ["compare", scenario.data, "--cache-dir", warm, "--report-dir", disk / "report", *STAGE_TWO_WORDS]
        result = featx(*words, exit_code=2)
        tally.faults["disk full: report folder"] += 1
        (line,) = errors_of(result.stderr.splitlines())
        assert str(disk) in line
        assert not (disk / "report" / "index.html").exists()
        remount(disk, f"size={256 << 20}")
        shutil.rmtree(disk / "report", ignore_errors=True)
        featx(*words)


def test_no_space_for_decoded_pixels_is_one_line(scenario, tmp_path, tally, featx):
    with small_disk(tmp_path / "disk", 100_000) as disk:
        report_dir = tmp_path / "report"
        words = ["compare", scenario.data, "--cache-dir", disk, "--report-dir", report_dir, "--baseline", "report-cnn"]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("featx.compare.compare.head_names", lambda _heads: ())
            patch.setattr(
                "featx.compare.candidates.FeatureRequest.features",
                lambda _request, dataset, _memory: (_Readable(dataset), None),
            )
            result = featx(*words, *STAGE_TWO_WORDS, exit_code=2)
        tally.faults["disk full: decoded pixels"] += 1
        (line,) = errors_of(result.stderr.splitlines())
        assert str(disk) in line
        assert "Free some space" in line
        assert not report_dir.exists()


class _Readable:
    train_views = None

    def __init__(self, dataset) -> None:
        self.dataset = dataset


# Read-only


def test_a_warm_run_works_on_a_read_only_disk_and_a_run_with_work_to_do_says_so(bench, scenario, warm, tmp_path, tally):
    with small_disk(tmp_path / "disk", 64 << 20) as disk:
        cache = copy_cache(warm, disk / "cache")
        remount(disk, "ro")
        assert_read_only_cache_is_of_use(bench, scenario, cache, tmp_path, tally)


def test_a_warm_run_works_for_a_user_who_may_only_read(scenario, server, warm, tally):
    if os.geteuid() != 0:
        pytest.skip("only root may become another user")
    folder = Path(tempfile.mkdtemp(prefix="featx-chaos-"))
    try:
        folder.chmod(0o755)
        data = Path(shutil.copytree(scenario.data, folder / "data"))
        networks = Path(shutil.copytree(scenario.networks_dir, folder / "networks"))
        other = Scenario(data, networks, scenario.recipe, scenario.reference)
        cache = other.new_cache(folder / "cache")
        extract(data, cache)
        bench = Bench(other, folder)
        folder.chmod(0o777)  # for the log; what is in the cache stays as it is
        if Process(_read_as_nobody, folder / "data").wait() != 0:
            pytest.skip("another user cannot read featx's own files here")
        assert_read_only_cache_is_of_use(bench, other, cache, folder, tally, prepare=become_nobody)
    finally:
        shutil.rmtree(folder)


def become_nobody() -> None:
    os.setgid(_NOBODY)
    os.setuid(_NOBODY)


def _read_as_nobody(folder: Path) -> None:
    become_nobody()
    import featx.engines.keras_engine  # noqa: F401 - not yet imported, so that it is read now

    list(folder.iterdir())


def assert_read_only_cache_is_of_use(
    bench: Bench, scenario: Scenario, cache: Path, folder: Path, tally, prepare: Callable[[], None] | None = None
) -> None:
    tally.faults["read-only cache"] += 1
    code, lines = bench.run(cache, prepare=prepare)
    assert (code, errors_of(lines)) == (0, [])
    more = write_images(folder / "more", 8, first=1000, n_bad=0)
    of_more = Scenario(more, scenario.networks_dir, scenario.recipe, {})
    code, lines = Bench(of_more, bench.folder).run(cache, prepare=prepare)
    assert code == 2
    (line,) = errors_of(lines)
    assert str(scenario.store_dir(cache)) in line
    assert segment_rows(scenario.store_dir(cache)) == scenario.reference


# What goes while featx is at work


def remove(path: Path) -> None:
    """Remove a folder, however busy others are in it."""
    gone = path.with_name(f"{path.name}-gone")
    path.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


_REMOVALS = [
    (points.LOOKUP, 1),
    (points.RELOAD, 1),
    (points.COMPILE, 1),
    (points.DECODE, 3),
    (points.SUBMIT, 8),
    (points.WRITE_SEGMENT, 1),
    (points.WRITE_SEGMENT, 4),
    (points.CREATE_DATASET, 13),
    (points.FSYNC, 3),
    (points.RENAME, 2),
    (points.RENAME, 5),
    (points.PUBLISH, 1),
    (points.WRITE_JSON, 1),
    (points.WRITE_VIRTUAL, 1),
]
_REMOVED = list(itertools.product(("cache", "store", "data"), _REMOVALS))


@pytest.mark.parametrize(
    ("what", "when"),
    _REMOVED if chosen(full=1, quick=0) else _REMOVED[::5],
    ids=lambda value: value if isinstance(value, str) else f"{value[0].target.rpartition(':')[2]}-{value[1]}",
)
def test_a_folder_that_is_removed_ends_in_no_traceback_and_no_wrong_row(
    scenario, server, tmp_path, cache, tally, what, when
):
    data = Path(shutil.copytree(scenario.data, tmp_path / "data"))
    scenario_of_copy = Scenario(data, scenario.networks_dir, scenario.recipe, scenario.reference)
    bench = Bench(scenario_of_copy, tmp_path)
    (scenario.store_dir(cache)).mkdir()
    folder = {"cache": cache, "store": scenario.store_dir(cache), "data": data}[what]
    code, lines = bench.run(cache, Fault(*when, action=functools.partial(remove, folder)))
    tally.faults[f"folder removed: {what}"] += 1
    assert code in {0, 2}, lines
    assert len(errors_of(lines)) == (code == 2), lines
    assert not any("Traceback" in line for line in lines)
    if what == "data":
        assert not data.exists()
        code, lines = bench.run(cache)
        assert code == 2
        assert "data" in errors_of(lines)[0]
        shutil.copytree(scenario.data, data)
    cache.mkdir(exist_ok=True)
    if not (cache / "networks").exists():
        (cache / "networks").symlink_to(scenario.networks_dir)
    complete_and_compare(bench, scenario_of_copy, cache, tally)


def change(path: Path, kind: str) -> None:
    """Do something to an image, of which featx knows the digest already."""
    if kind == "other content":
        path.write_bytes(path.with_name(path.name).read_bytes() + b"more")
    elif kind == "other image":
        shutil.copy(max(path.parent.glob("0*.jpg")), path)
    else:
        path.unlink()
        if kind == "folder":
            path.mkdir()
        elif kind == "FIFO":
            os.mkfifo(path)
        elif kind == "dangling link":
            path.symlink_to("nowhere")


@pytest.mark.parametrize("kind", ["other content", "other image", "gone", "folder", "FIFO", "dangling link"])
def test_an_image_that_changes_or_goes_between_scan_and_decode_is_skipped_and_the_next_run_is_right(
    scenario, server, tmp_path, cache, tally, kind
):
    data = Path(shutil.copytree(scenario.data, tmp_path / "data"))
    bench = Bench(Scenario(data, scenario.networks_dir, scenario.recipe, scenario.reference), tmp_path)
    image = image_path(data, 17)
    fault = Fault(points.RELOAD, action=functools.partial(change, image, kind))
    code, lines = bench.run(cache, fault)
    tally.faults["image changed between scan and decode"] += 1
    assert (code, errors_of(lines)) == (0, [])
    rows = tally.assert_sound(scenario, cache, Rows())
    assert len(rows) == len(scenario.reference) - 1
    skipped = (scenario.store_dir(cache) / "skipped.csv").read_text()
    assert f"{image}," in skipped
    if image.is_dir():
        image.rmdir()
    else:
        image.unlink(missing_ok=True)
    shutil.copy2(image_path(scenario.data, 17), image)
    code, lines = bench.run(cache)
    assert (code, errors_of(lines)) == (0, [])
    tally.assert_whole(scenario, cache)
    assert image.name not in (scenario.store_dir(cache) / "skipped.csv").read_text()
