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

from tests.chaos import victims
from tests.chaos.moments import EXTRACTION, Moment, Shot
from tests.chaos.tally import chosen
from tests.chaos.victims import Victim
from tests.chaos.world import OPTION_WORDS, Rows, World, copy_cache, extract, image_path, segment_rows, write_images

_NOBODY = 65534
_BY_TARGET = {moment.target.rpartition(":")[2]: moment for moment in EXTRACTION if moment.phase != "skipped.csv"}
_SKIPPED = next(moment for moment in EXTRACTION if moment.phase == "skipped.csv")


def at(name: str, nth: int = 1) -> tuple[Moment, int]:
    return _BY_TARGET[name], nth


def limit_files(size_bytes: int) -> None:
    """Let no file of this process grow beyond so many bytes: writing more fails, as on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, resource.RLIM_INFINITY))


def extract_words(data: Path, cache: Path) -> list[str]:
    return ["extract", str(data), "--cache-dir", str(cache), "--quiet", *OPTION_WORDS]


class Bench:
    """Runs `featx extract` in processes of its own."""

    def __init__(self, world: World, folder: Path) -> None:
        self.world = world
        self.folder = folder

    def run(self, cache: Path, *shots: Shot, prepare: Callable[[], None] | None = None) -> tuple[int, list[str]]:
        """Return the exit code and the lines on stderr."""
        words = extract_words(self.world.data, cache)
        victim = Victim(victims.command_line, words, shots, prepare, log_path=self.folder / "log")
        code = victim.wait()
        return code, victim.log.splitlines()


def errors_of(lines: list[str]) -> list[str]:
    """Return the lines that are no warnings, all of which must be featx's."""
    assert all(line.startswith("featx: ") for line in lines), "\n".join(lines)
    return [line for line in lines if not line.startswith("featx: warning: ")]


def assert_failed_in_one_line(code: int, lines: list[str], place: Path) -> None:
    assert code == 2, lines
    (line,) = errors_of(lines)
    assert str(place) in line
    assert any(advice in line for advice in ("mend this", "Free some space", "choose another")), line


@pytest.fixture
def bench(world, server, tmp_path) -> Bench:
    return Bench(world, tmp_path)


# No file may grow


#: What is written, when the limit comes, whether it goes again, and to how many bytes files are limited.
WRITES: dict[str, tuple[tuple[Moment, int], bool, list[int]]] = {
    "first segment": (at("write_segment_file", 1), True, [0, 4096, 100_000, 260_000]),
    "later segment": (at("write_segment_file", 5), True, [2048, 200_000]),
    "last segment": (at("write_segment_file", 12), True, [50_000]),
    "one segment only": (at("write_segment_file", 3), False, [50_000]),
    "features.h5": (at("write_virtual_dataset"), True, [0, 2000, 4000]),
    "recipe.json": (at("write_text", 1), True, [0, 100]),
    "timings.json": (at("write_text", 2), True, [0, 100]),
    "skipped.csv": ((_SKIPPED, 1), True, [0, 30]),
    "digests.sqlite": (at("StatCache.remember"), False, [0, 4096, 12_288]),
}
_CASES = [(name, size) for name, (_, _, sizes) in WRITES.items() for size in sizes]


@pytest.mark.parametrize(("name", "size"), _CASES if chosen(full=1, quick=0) else _CASES[::2])
def test_a_write_that_fails_leaves_nothing_wrong_and_the_next_run_completes(bench, world, cache, tally, name, size):
    (moment, nth), lasts, _ = WRITES[name]
    shots = [Shot(moment, nth, action=functools.partial(limit_files, size))]
    if not lasts:
        shots.append(Shot(moment, nth, when="after", action=functools.partial(limit_files, resource.RLIM_INFINITY)))
    code, lines = bench.run(cache, *shots)
    tally.faults[f"files must not grow: {name}"] += 1
    if name in {"skipped.csv", "digests.sqlite"}:
        assert (code, errors_of(lines)) == (0, [])
        assert any(name in line for line in lines)
    elif name == "one segment only":  # it is written once more when the run ends, and that succeeds
        assert code in {0, 2}
    else:
        assert_failed_in_one_line(code, lines, world.store_dir(cache))
    complete_and_compare(bench, world, cache, tally)


@pytest.mark.parametrize("size", [0, 1000, 10_000, 200_000, 270_000] if chosen(full=1, quick=0) else [0, 200_000])
def test_no_file_may_grow_from_the_beginning(bench, world, cache, tally, size):
    code, lines = bench.run(cache, prepare=functools.partial(limit_files, size))
    tally.faults["files must not grow: anything"] += 1
    if code:
        assert_failed_in_one_line(code, lines, world.store_dir(cache))
    else:
        assert size > 266_560
    complete_and_compare(bench, world, cache, tally)


def complete_and_compare(bench: Bench, world: World, cache: Path, tally) -> None:
    """Assert that what is on disk is right, and that the same command, run again, does the rest and no more."""
    on_disk = tally.assert_sound(world, cache, Rows())
    world.assert_nothing_damaged(cache)
    code, lines = bench.run(cache)
    assert (code, errors_of(lines)) == (0, []), lines
    tally.assert_sound(world, cache, on_disk)
    assert extract(world.data, cache).n_cached == len(world.reference)
    tally.assert_whole(world, cache)
    world.assert_no_leftovers(cache)


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
def needed_bytes(world, server, tmp_path_factory) -> int:
    """What a whole cache takes on such a disk."""
    with small_disk(tmp_path_factory.mktemp("measure") / "disk", 64 << 20) as disk:
        cache = world.new_cache(disk / "cache")
        assert Victim(victims.command_line, extract_words(world.data, cache)).wait() == 0
        status = os.statvfs(disk)
        return (status.f_blocks - status.f_bfree) * status.f_frsize


_N_SIZES = chosen(full=16, quick=4)


@pytest.mark.parametrize("number", range(_N_SIZES))
def test_a_full_disk_leaves_nothing_wrong_and_with_more_space_the_run_completes(
    bench, world, tmp_path, tally, needed_bytes, number
):
    # Half of them are full with the last files, the derived ones, the others anywhere.
    pages = 1 + number // 2 if number % 2 else random.Random(number).randrange(1, needed_bytes // 4096)
    with small_disk(tmp_path / "disk", needed_bytes - 4096 * pages) as disk:
        cache = world.new_cache(disk / "cache")
        code, lines = bench.run(cache)
        tally.faults["disk full: while extracting"] += 1
        if code:
            assert_failed_in_one_line(code, lines, cache)
        else:
            assert errors_of(lines) == []  # a warning, for the digests or for what was skipped
        remount(disk, f"size={64 << 20}")
        complete_and_compare(bench, world, cache, tally)


@pytest.mark.parametrize("size", [4096, 100_000, 160_000] if chosen(full=1, quick=0) else [100_000])
def test_no_space_for_the_converted_network_is_one_line(world, tmp_path, tally, featx, size):
    with small_disk(tmp_path / "disk", size) as disk:
        cache = disk / "cache"
        cache.mkdir()
        result = featx(*extract_words(world.data, cache), exit_code=2)
        tally.faults["disk full: network"] += 1
        assert_failed_in_one_line(2, result.stderr.splitlines(), cache)
        remount(disk, f"size={64 << 20}")
        featx(*extract_words(world.data, cache))
        tally.assert_whole(world, cache)


# The folders of stage two


@pytest.fixture
def warm(world, cache) -> Path:
    """A cache with all features."""
    extract(world.data, cache)
    return cache


STAGE_TWO_WORDS = ["--epochs", "1", "--quiet", *OPTION_WORDS[:-2]]


@pytest.mark.parametrize("size", [4096, 1 << 20, 16 << 20] if chosen(full=1, quick=0) else [1 << 20])
def test_no_space_for_the_run_folder_is_one_line_and_leaves_none(world, warm, tmp_path, tally, featx, size):
    with small_disk(tmp_path / "disk", size) as disk:
        words = ["train-top", world.data, "--cache-dir", warm, "--run-dir", disk / "run", *STAGE_TWO_WORDS]
        result = featx(*words, exit_code=2)
        tally.faults["disk full: run folder"] += 1
        (line,) = errors_of(result.stderr.splitlines())
        assert str(disk) in line
        assert list(disk.iterdir()) == []
        remount(disk, f"size={256 << 20}")
        featx(*words)
        assert {path.name for path in (disk / "run").iterdir()} >= {"metrics.json", "dense.keras", "logreg.keras"}


@pytest.mark.parametrize("size", [4096, 60_000, 150_000] if chosen(full=1, quick=0) else [60_000])
def test_no_space_for_the_report_folder_is_one_line(world, warm, tmp_path, tally, featx, size):
    with small_disk(tmp_path / "disk", size) as disk:
        words = ["compare", world.data, "--cache-dir", warm, "--report-dir", disk / "report", *STAGE_TWO_WORDS]
        result = featx(*words, exit_code=2)
        tally.faults["disk full: report folder"] += 1
        (line,) = errors_of(result.stderr.splitlines())
        assert str(disk) in line
        assert not (disk / "report" / "index.html").exists()
        remount(disk, f"size={256 << 20}")
        shutil.rmtree(disk / "report", ignore_errors=True)
        featx(*words)


def test_no_space_for_decoded_pixels_is_one_line(world, tmp_path, tally, featx):
    with small_disk(tmp_path / "disk", 100_000) as disk:
        report_dir = tmp_path / "report"
        words = ["compare", world.data, "--cache-dir", disk, "--report-dir", report_dir, "--baseline", "report-cnn"]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("featx.compare.candidates.HEADS", ())
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


def test_a_warm_run_works_on_a_read_only_disk_and_a_run_with_work_to_do_says_so(bench, world, warm, tmp_path, tally):
    with small_disk(tmp_path / "disk", 64 << 20) as disk:
        cache = copy_cache(warm, disk / "cache")
        remount(disk, "ro")
        assert_read_only_cache_is_of_use(bench, world, cache, tmp_path, tally)


def test_a_warm_run_works_for_a_user_who_may_only_read(world, server, warm, tally):
    if os.geteuid() != 0:
        pytest.skip("only root may become another user")
    folder = Path(tempfile.mkdtemp(prefix="featx-chaos-"))
    try:
        folder.chmod(0o755)
        data = Path(shutil.copytree(world.data, folder / "data"))
        networks = Path(shutil.copytree(world.networks_dir, folder / "networks"))
        other = World(data, networks, world.recipe, world.reference)
        cache = other.new_cache(folder / "cache")
        extract(data, cache)
        bench = Bench(other, folder)
        folder.chmod(0o777)  # for the log; what is in the cache stays as it is
        if Victim(_read_as_nobody, folder / "data").wait() != 0:
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
    bench: Bench, world: World, cache: Path, folder: Path, tally, prepare: Callable[[], None] | None = None
) -> None:
    tally.faults["read-only cache"] += 1
    code, lines = bench.run(cache, prepare=prepare)
    assert (code, errors_of(lines)) == (0, [])
    more = write_images(folder / "more", 8, first=1000, n_bad=0)
    code, lines = Bench(World(more, world.networks_dir, world.recipe, {}), bench.folder).run(cache, prepare=prepare)
    assert code == 2
    (line,) = errors_of(lines)
    assert str(world.store_dir(cache)) in line
    assert segment_rows(world.store_dir(cache)) == world.reference


# What goes while featx is at work


def remove(path: Path) -> None:
    """Remove a folder, however busy others are in it."""
    gone = path.with_name(f"{path.name}-gone")
    path.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


_REMOVALS = [
    at("StatCache.lookup"),
    at("FeatureStore.reload"),
    at("_compile"),
    at("_decode", 3),
    at("OpenVinoEngine.submit", 8),
    at("write_segment_file", 1),
    at("write_segment_file", 4),
    at("Group.create_dataset", 13),
    at("fsync", 3),
    at("Path.replace", 2),
    at("Path.replace", 5),
    at("FeatureStore.publish"),
    at("write_text", 1),
    at("write_virtual_dataset"),
]
_REMOVED = list(itertools.product(("cache", "store", "data"), _REMOVALS))


@pytest.mark.parametrize(
    ("what", "when"),
    _REMOVED if chosen(full=1, quick=0) else _REMOVED[::5],
    ids=lambda value: value if isinstance(value, str) else f"{value[0].target.rpartition(':')[2]}-{value[1]}",
)
def test_a_folder_that_is_removed_ends_in_no_traceback_and_no_wrong_row(
    world, server, tmp_path, cache, tally, what, when
):
    data = Path(shutil.copytree(world.data, tmp_path / "data"))
    world_of_copy = World(data, world.networks_dir, world.recipe, world.reference)
    bench = Bench(world_of_copy, tmp_path)
    (world.store_dir(cache)).mkdir()
    folder = {"cache": cache, "store": world.store_dir(cache), "data": data}[what]
    code, lines = bench.run(cache, Shot(*when, action=functools.partial(remove, folder)))
    tally.faults[f"folder removed: {what}"] += 1
    assert code in {0, 2}, lines
    assert len(errors_of(lines)) == (code == 2), lines
    assert not any("Traceback" in line for line in lines)
    if what == "data":
        assert not data.exists()
        code, lines = bench.run(cache)
        assert code == 2
        assert "data" in errors_of(lines)[0]
        shutil.copytree(world.data, data)
    cache.mkdir(exist_ok=True)
    if not (cache / "networks").exists():
        (cache / "networks").symlink_to(world.networks_dir)
    complete_and_compare(bench, world_of_copy, cache, tally)


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
    world, server, tmp_path, cache, tally, kind
):
    data = Path(shutil.copytree(world.data, tmp_path / "data"))
    bench = Bench(World(data, world.networks_dir, world.recipe, world.reference), tmp_path)
    victim_path = image_path(data, 17)
    shot = Shot(*at("FeatureStore.reload"), action=functools.partial(change, victim_path, kind))
    code, lines = bench.run(cache, shot)
    tally.faults["image changed between scan and decode"] += 1
    assert (code, errors_of(lines)) == (0, [])
    rows = tally.assert_sound(world, cache, Rows())
    assert len(rows) == len(world.reference) - 1
    skipped = (world.store_dir(cache) / "skipped.csv").read_text()
    assert f"{victim_path}," in skipped
    if victim_path.is_dir():
        victim_path.rmdir()
    else:
        victim_path.unlink(missing_ok=True)
    shutil.copy2(image_path(world.data, 17), victim_path)
    code, lines = bench.run(cache)
    assert (code, errors_of(lines)) == (0, [])
    tally.assert_whole(world, cache)
    assert victim_path.name not in (world.store_dir(cache) / "skipped.csv").read_text()
