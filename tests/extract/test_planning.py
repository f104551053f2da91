"""What a plan promises: only what is missing is counted, what it says comes true, and it leaves nothing behind."""

import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import featx
from featx.cli.plan import plan_json, plan_text
from featx.dataset.image_dataset import images_of
from featx.dataset.scanning import scan
from featx.engines.engine import EngineOptions, create_engine
from featx.errors import FeatxError, ImageError
from featx.extract.extract import extract_features
from featx.extract.options import resolve_recipe
from featx.extract.planning import plan as plan_module
from featx.extract.planning import survey as survey_module
from featx.extract.planning import trial as trial_module
from featx.extract.planning.estimate import DiskUsage, Estimate, Pace, Plan, Work
from featx.extract.planning.plan import plan_extraction
from featx.extract.planning.survey import N_SAMPLE, sample_rows, survey
from featx.extract.planning.trial import Trial, disk_usage, try_out
from featx.images.augmentation import Views
from featx.recipe import Recipe
from featx.storage import workshop
from featx.system.arguments import from_json_value, parse_duration
from tests.chaos.tally import IS_FULL

#: One configuration, so that most plans take seconds; the whole table is made once.
#: The first blocks of the network alone: the rest would take most of the time, and add nothing.
PART = {"weights": "random", "image_size": (32, 32), "layer": "block2_pool", "pooling": "avg"}
FAST = {**PART, "engine": "openvino", "precision": "float32"}
PART_WORDS = ["--weights", "random", "--image-size", "32", "--layer", "block2_pool", "--pooling", "avg"]
WORDS = [*PART_WORDS, "--engine", "openvino", "--precision", "float32"]


@pytest.fixture(scope="module", autouse=True)
def quick():
    """Time less than is good for the figures, which no test looks at."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(plan_module, "PASS_S", 0.1)
        monkeypatch.setattr(plan_module, "BUDGET_S", 600.0)  # a busy machine is no reason to try less
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    from tests.conftest import write_photos

    return write_photos(tmp_path_factory.mktemp("plan") / "data", n_train=60, n_test=20)


@pytest.fixture(scope="module")
def whole(data, networks_dir, tmp_path_factory) -> tuple[Plan, Path]:
    """A plan of every configuration, with views and a deadline; and its cache."""
    cache = tmp_path_factory.mktemp("whole")
    (cache / "networks").symlink_to(networks_dir, target_is_directory=True)
    # Converted here, where TensorFlow is loaded anyway. What a plan does about it in a process of its own, a test of a
    # network that nobody else has shows below.
    recipe, weights = resolve_recipe(cache, **PART, precision="float32")
    create_engine(recipe, weights, cache, None, EngineOptions(engine="openvino")).close()
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(plan_module, "try_out", try_out if IS_FULL else once_with_keras())
        made = plan_extraction(data, cache_dir=cache, **PART, views=Views(2), deadline_s=3600)
    return made, cache


def once_with_keras():
    """Return a `try_out` for which Keras fails in another precision than the first: each loads TensorFlow anew."""
    tried = []

    def try_out_once(trial: Trial, method: str, stop_at: float = math.inf) -> Estimate:
        if trial.options.engine == "keras":
            tried.append(trial.recipe.precision)
        if len(set(tried)) > 1:
            return replace(trial.missing, reason="This test has tried Keras.")
        return try_out(trial, method, stop_at)

    return try_out_once


@pytest.mark.usefixtures("whole")  # which has converted the network, in a process that has loaded TensorFlow
def test_what_there_is_no_time_for_is_named_and_the_rest_is_planned(data, cache, monkeypatch):
    monkeypatch.setattr(plan_module, "BUDGET_S", 0.0)
    plan = plan_extraction(data, cache_dir=cache, **PART, engine="openvino")
    assert plan.chosen.reason is None
    assert plan.chosen.time_s > 0
    others = [one for one in plan.estimates if not one.is_chosen]
    assert len(others) == 2
    assert {one.reason for one in others} == {trial_module.NOT_TRIED}
    text = " ".join(plan_text(plan).split())
    assert "Not tried, to keep the plan short: openvino" in text
    assert all(one.name in text for one in others)
    assert "cannot run here" not in text
    assert [("time_s" in one) for one in plan_json(plan)["estimates"]] == [not one.reason for one in plan.estimates]


def test_a_trial_that_goes_on_beyond_the_time_is_ended_and_counts_as_not_tried(data, cache, monkeypatch):
    tried = []

    def cut_short(trial, method, stop_at=math.inf):
        estimate = try_out(trial, method, min(stop_at, time.perf_counter() + 0.1))
        tried.append(estimate.reason)
        return estimate

    monkeypatch.setattr(plan_module, "try_out", cut_short)
    with pytest.raises(FeatxError, match="not tried"):
        plan_extraction(data, cache_dir=cache, **FAST)
    assert set(tried) == {trial_module.NOT_TRIED}


def stores(cache: Path) -> list[str]:
    """Return what lies in a cache but networks and digests, also what is hidden."""
    kept = {"networks", "digests.sqlite", ".featx-output"}
    return [path.name for path in cache.iterdir() if path.name not in kept]


def in_stores(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# The counts


def test_every_configuration_is_in_the_table_or_said_to_be_impossible(whole):
    plan, _ = whole
    configurations = [(one.engine, one.precision) for one in plan.estimates]
    assert configurations == [
        ("openvino", "float32"),
        ("openvino", "bfloat16"),
        ("openvino", "int8"),
        ("keras", "float32"),
        ("keras", "bfloat16"),
    ]
    text = plan_text(plan)
    for one in plan.estimates:
        line = next(line for line in text.splitlines() if f"{one.engine} {one.precision}" in line)
        assert ("cannot run here" in line) is (one.reason is not None)


def test_images_bytes_and_views_are_counted(data, whole):
    plan, _ = whole
    assert (plan.n_images, plan.n_train, plan.n_unread) == (160, 120, 0)
    assert plan.size_bytes == sum(path.stat().st_size for path in data.rglob("*.jpg"))
    assert plan.n_sample == N_SAMPLE
    for one in plan.estimates:
        assert (one.images.n_cached, one.images.n_missing) == (0, 160)
        assert one.views is not None
        assert (one.views.n_cached, one.views.n_missing) == (0, 240)
    assert plan.feature_shape == (128,)
    assert plan.training_bytes == (160 + 240) * 128 * 2


def test_a_plan_for_tuning_is_one_for_the_features_of_the_layer_before_the_block(data, cache):
    plan = plan_extraction(data, cache_dir=cache, tune="block2", **FAST)
    assert (plan.layer, plan.image_bytes) == ("block1_pool", 16 * 16 * 64 * 2)
    assert plan.chosen.disk.size_bytes > 160 * plan.image_bytes
    said = " ".join(plan_text(plan).split())
    assert "Features of block1_pool (16, 16, 64) float16, 32.0 KiB an image, in 1 segment." in said


def test_the_configuration_of_extract_is_marked(data, whole, tmp_path):
    plan, cache = whole
    copy = tmp_path / "cache"
    copy.mkdir()
    (copy / "networks").symlink_to(cache / "networks")
    extraction = extract_features(data, cache_dir=copy, **PART)
    assert plan.chosen.precision == extraction.recipe.precision
    marked = [line for line in plan_text(plan).splitlines() if line.startswith("* ") and "extract" not in line]
    assert [line.split()[1:3] for line in marked] == [[plan.chosen.engine, plan.chosen.precision]]


def test_only_what_is_missing_is_planned(data, cache, make_photos, tmp_path):
    mine = shutil.copytree(data, tmp_path / "mine")
    extract_features(mine, cache_dir=cache, views=Views(2), **FAST)
    nothing = plan_extraction(mine, cache_dir=cache, views=Views(2), deadline_s=60, **FAST).chosen
    assert (nothing.images.n_cached, nothing.images.n_missing, nothing.n_machines) == (160, 0, 0)
    assert nothing.disk.size_bytes == 0
    more = make_photos(tmp_path / "more", n_train=65)
    for number in range(60, 65):
        shutil.copy(more / "train" / "sea" / f"sea.{number}.jpg", mine / "train" / "sea")
    shutil.copy(mine / "train" / "sea" / "sea.64.jpg", mine / "train" / "sea" / "copy.jpg")
    (mine / "train" / "sea" / "known.jpg").write_bytes(b"no image")
    planned = plan_extraction(mine, cache_dir=cache, views=Views(3), **FAST).chosen
    assert planned.views is not None
    assert (planned.images.n_cached, planned.images.n_missing) == (160, 6)  # known.jpg is not known here
    extraction = extract_features(mine, cache_dir=cache, views=Views(3), **FAST)
    assert extraction.views is not None
    assert extraction.n_computed == 5
    assert planned.views.n_missing - 3 == extraction.views.n_computed == 120 + 15
    again = plan_extraction(mine, cache_dir=cache, views=Views(3), **FAST).chosen
    assert again.n_missing == 0  # what could not be read is known by now


# What it says comes true


def test_features_take_the_room_that_was_planned(data, whole, tmp_path):
    plan, cache = whole
    copy = tmp_path / "cache"
    copy.mkdir()
    (copy / "networks").symlink_to(cache / "networks")
    extraction = extract_features(data, cache_dir=copy, **PART, views=Views(2))
    assert extraction.views is not None
    folders = [extraction.store_dir, extraction.views.store_dir]
    taken = sum(path.stat().st_size for folder in folders for path in folder.iterdir())
    n_segments = sum(len(list(folder.glob("seg-*.h5"))) for folder in folders)
    assert plan.chosen.disk.size_bytes == pytest.approx(taken, rel=0.02)
    assert plan.chosen.disk.n_segments == n_segments == 2


def test_time_is_made_of_its_parts(whole):
    for one in whole[0].estimates:
        if one.reason:
            continue
        assert one.images.pace is not None
        assert one.views is not None
        assert one.views.pace is not None
        rows_s = 160 * one.images.pace.row_s + 240 * one.views.pace.row_s
        assert one.time_s == pytest.approx(one.listing_s + one.start_s + rows_s)
        assert 0 < one.time_low_s < one.time_s < one.time_high_s
        assert one.start_s > 0.1
        assert one.peak_memory_bytes > 50e6


def estimate(row_s: float, n_missing: int, **others: object) -> Estimate:
    pace = Pace(row_s=row_s, low_s=row_s, high_s=1.5 * row_s)
    work = Work(n_cached=0, n_missing=n_missing, pace=pace)
    return replace(Estimate(engine="openvino", precision="float32", images=work, start_s=10.0), **others)


def test_machines_share_the_images_and_each_pays_its_own_start():
    one = estimate(1.0, 1000, convert_s=20.0, listing_s=5.0)
    for deadline_s in (36, 100, 1535, 1536, 10_000):
        assert one.machines_for(deadline_s) == math.ceil(1500 / (deadline_s - 35))
    assert one.machines_for(35) is None
    assert estimate(1.0, 0).machines_for(1) == 0


def test_a_network_that_is_still_to_be_made_counts(whole):
    one = estimate(1.0, 100, convert_s=20.0)
    assert one.time_s == 110
    assert replace(one, is_converted=False).time_s == 130


def test_what_others_use_of_the_processors_widens_the_range_downwards():
    assert estimate(1.0, 100, others_share=0.5).time_low_s == pytest.approx(0.5 * (10 + 85))
    assert estimate(1.0, 100, others_share=0.5).time_high_s == 160


def test_segments_in_the_making_take_the_memory_that_was_planned(tmp_path):
    """In a process of its own, with rows for three segments of 32 MiB."""
    script = (
        "import sys; from pathlib import Path; import numpy as np\n"
        "from featx.system.machine import peak_memory_bytes, reset_peak_memory\n"
        "from featx.extract.planning.trial import disk_usage\n"
        "from featx.recipe import Recipe\n"
        "from featx.store.segment_writer import SegmentWriter\n"
        "from featx.store import FeatureStore\n"
        "from featx.system.timings import Stopwatch\n"
        "recipe = Recipe(backbone='vgg16', weights='ab', layer='x', image_size=(32, 32), preprocessing='caffe')\n"
        "folder, rng = Path(sys.argv[1]), np.random.default_rng(0)\n"
        "features, digests = np.ones((64, 4, 4, 512), np.float16), rng.integers(1, 256, (6144, 32), np.uint8)\n"
        "for n in (64, 6144):\n"
        "    reset_peak_memory(); before = peak_memory_bytes()\n"
        "    with SegmentWriter(FeatureStore(folder / str(n), recipe), Stopwatch()) as writer:\n"
        "        for start in range(0, n, 64): writer.add(features, digests[start : start + 64])\n"
        "taken = peak_memory_bytes() - before\n"
        "usage = disk_usage(6144, (4, 4, 512), 0.001, recipe, folder)\n"
        "print(taken, usage.memory_bytes)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True)
    taken, planned = map(int, done.stdout.split())
    assert planned == pytest.approx(taken, rel=0.15)


def test_segments_that_are_closed_by_their_age_are_counted_by_the_pace(tmp_path):
    recipe = Recipe(backbone="vgg16", weights="ab", layer="x", image_size=(32, 32), preprocessing="caffe")
    shape = (4, 4, 512)  # 16 KiB a row, 2048 rows in a full segment, 64 in a chunk
    usages = [disk_usage(10_000, shape, 30 / n, recipe, tmp_path) for n in (100_000, 2048, 1000, 50)]
    assert [one.n_segments for one in usages] == [5, 5, 10, 200]
    rows_bytes = 10_000 * 16 * 1024
    assert all(rows_bytes < one.size_bytes < 1.05 * rows_bytes for one in usages)
    assert disk_usage(0, shape, 1.0, recipe, tmp_path) == DiskUsage()
    assert list(tmp_path.iterdir()) == []


# What it leaves behind


def test_a_plan_leaves_networks_and_digests_and_nothing_else(whole):
    assert stores(whole[1]) == []


def test_a_plan_does_not_touch_a_store(data, cache, make_photos, tmp_path):
    few = make_photos(tmp_path / "few", n_train=8)
    extraction = extract_features(few, cache_dir=cache, **FAST)
    before = in_stores(extraction.store_dir)
    planned = plan_extraction(data, cache_dir=cache, **FAST).chosen
    assert 0 < planned.images.n_cached < 160
    assert planned.n_missing > 0
    assert in_stores(extraction.store_dir) == before
    assert stores(cache) == [extraction.store_dir.name]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_plan_leaves_nothing_behind(data, cache, number):
    command = [sys.executable, "-m", "featx", "plan", str(data), *WORDS, "--cache-dir", str(cache)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=Path(featx.__file__).parents[1])
    while process.poll() is None and not (begun := trials(process.pid)):
        time.sleep(0.02)
    process.send_signal(number)
    _, stderr = process.communicate()
    assert process.returncode == 128 + number, stderr
    *classes, stopped = stderr.splitlines()
    assert all(line.startswith("featx: 2 classes, images in ") for line in classes)
    assert stopped.startswith("featx: stopped; ")
    assert stores(cache) == []
    assert all(has_ended(pid) for pid in begun)


def has_ended(pid: int) -> bool:
    """Return whether a process ends, or waits to be buried, within half a minute."""
    for _ in range(600):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.05)
    return False


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def trials(pid: int) -> list[int]:
    """Return the trials that a process has begun; libraries start other processes while they are imported."""
    begun = []
    for child in children(pid):
        with suppress(OSError):
            if "planning.trial" in Path(f"/proc/{child}/cmdline").read_text():
                begun.append(child)
    return begun


def test_what_a_killed_plan_left_behind_goes_with_the_next(data, cache):
    old, young, killed, held = (cache / f".tmp-plan-{name}" for name in ("old", "young", "killed", "held"))
    for folder in (old, young, killed):
        folder.mkdir()
        (folder / "file").touch()
    (killed / "lock").touch()
    long_ago = time.time() - 7200
    os.utime(old, (long_ago, long_ago))
    with workshop(held):
        plan_extraction(data, cache_dir=cache, **FAST)
        assert sorted(stores(cache)) == [held.name, young.name]


def test_a_trial_ends_with_whoever_started_it(data, cache):
    """A killed plan cannot end its trial: that notices by itself."""
    command = [sys.executable, "-m", "featx", "plan", str(data), *WORDS, "--cache-dir", str(cache)]
    plan = subprocess.Popen(command, stderr=subprocess.DEVNULL, cwd=Path(featx.__file__).parents[1])
    while not (begun := children(plan.pid)):
        time.sleep(0.02)
    plan.kill()
    plan.wait()
    assert all(has_ended(pid) for pid in begun)


# The sample


def test_the_sample_is_the_same_every_time_and_from_all_over_the_data(data, cache):
    dataset = survey(data, cache).dataset
    rows = sample_rows(dataset)
    assert len(set(rows.tolist())) == N_SAMPLE
    assert np.array_equal(rows, sample_rows(dataset))
    assert 0.15 < np.mean(dataset.is_test[rows]) < 0.35
    assert 0.3 < np.mean(dataset.labels[rows]) < 0.7


def test_images_that_cannot_be_read_are_named_and_left_out(make_photos, cache, tmp_path, featx):
    data = make_photos(tmp_path / "data")
    (data / "train" / "sea" / "sea.0.jpg").write_bytes(b"no image")
    (data / "train" / "sea" / "empty.jpg").touch()
    os.mkfifo(data / "train" / "sea" / "fifo.jpg")
    plan = plan_extraction(data, cache_dir=cache, **FAST)
    assert {path: bool(reason) for path, reason in plan.unreadable} == dict.fromkeys(
        ["train/sea/sea.0.jpg", "train/sea/empty.jpg", "train/sea/fifo.jpg"], True
    )
    assert plan.n_sample == 31
    assert plan_json(plan)["warnings"] == scan(data, cache).warnings
    assert [warning for warning in plan.warnings if "train/sea/fifo.jpg" in warning]
    assert "train/sea/sea.0.jpg (" in plan_text(plan)
    with pytest.raises(ImageError, match=r"train/sea/\S+\.jpg cannot be read"):
        plan_extraction(data, cache_dir=cache, strict=True, **FAST)
    for number, path in enumerate(data.rglob("*.jpg")):
        if path.is_file():
            path.write_bytes(b"no image %d" % number)
    result = featx("plan", data, *WORDS, "--cache-dir", cache, exit_code=2)
    assert re.fullmatch(
        r"featx: None of \d+ images of \S+ can be read\. The first is .*\n", result.stderr.splitlines(True)[-1]
    )


def test_what_was_left_out_is_said_where_images_are_only_counted(make_photos, cache, tmp_path, monkeypatch, caplog):
    data = make_photos(tmp_path / "data")
    shutil.copytree(data / "test", data / "val")
    of_data = scan(data, cache).warnings
    monkeypatch.setattr(survey_module, "DIGEST_LIMIT_S", 0.0)
    monkeypatch.setattr(survey_module, "N_SAMPLE", 4)
    monkeypatch.setattr(survey_module, "N_CALIBRATION", 4)
    caplog.clear()
    found = survey(data, tmp_path / "new")
    assert found.n_unread
    assert found.dataset.warnings == of_data
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == list(of_data)
    assert len(of_data) == 1


def test_of_a_folder_that_takes_long_to_read_only_a_sample_is_read(data, cache, monkeypatch):
    monkeypatch.setattr(survey_module, "DIGEST_LIMIT_S", 0.0)
    monkeypatch.setattr(survey_module, "N_CALIBRATION", 20)
    options = {**FAST, "precision": "int8", "weights": "random:7"}
    plan = plan_extraction(data, cache_dir=cache, **options)
    assert plan.n_unread == 160 - N_SAMPLE
    assert (plan.n_images, plan.chosen.n_missing) == (160, 160)
    assert plan.chosen.listing_s > 0
    # Its calibration is that of a sample: an extraction must not find it in the cache.
    assert not plan.chosen.is_converted
    assert plan.chosen.convert_s > 0
    networks = [about(path) for path in (cache / "networks").glob("[!.]*.zip")]
    assert [json.loads(text)["precision"] for text in networks if '"random-7"' in text] == ["float32"]
    assert f"{plan.n_unread} images were only counted" in plan_text(plan)
    extract_features(data, cache_dir=cache, **{**FAST, "weights": "random:7"})
    assert plan_extraction(data, cache_dir=cache, **{**FAST, "weights": "random:7"}).n_unread == 0  # all are known


def about(path: Path) -> str:
    import zipfile

    with zipfile.ZipFile(path) as file:
        return json.loads(file.read("network.json"))["recipe"]


# What goes wrong


def some_trial(data: Path, cache: Path, work_dir: Path, **members: Any) -> Trial:
    dataset = survey(data, cache).dataset
    recipe, weights = resolve_recipe(cache, dataset, **PART, precision="float32")
    trial = Trial(
        missing=estimate(1.0, 100),
        recipe=recipe,
        weights=weights,
        options=EngineOptions(engine="openvino"),
        data_dir=data,
        sample=tuple(dataset.paths[:64]),
        calibration=tuple(dataset.paths[64:]),
        cache_dir=cache,
        work_dir=work_dir,
        workers=None,
        views=None,
        pass_s=0.1,
    )
    return replace(trial, **members)


def test_a_trial_is_the_same_after_its_journey(data, cache, tmp_path):
    trial = some_trial(data, cache, tmp_path, views=Views(3), workers=2)
    assert from_json_value(Trial, json.loads(json.dumps(asdict(trial), default=str))) == trial


@pytest.mark.parametrize(
    ("options", "n_round"),
    [
        (EngineOptions(engine="openvino", batch_size=5, streams=3), 15),
        (EngineOptions(engine="openvino", batch_size=7, threads=1), 7),
        (EngineOptions(engine="keras", batch_size=7), 7),
    ],
)
def test_no_batch_of_a_timed_pass_runs_alone(data, cache, tmp_path, options, n_round):
    trial = some_trial(data, cache, tmp_path, options=options)
    first, *timed = trial.passes(trial.recipe, images_of(survey(data, cache).dataset))
    assert first.n_images == 8
    assert timed
    assert all(one.n_images % n_round == 0 for one in timed)


def test_a_trial_that_is_killed_is_a_reason(data, cache, tmp_path):
    def kill() -> None:
        while not (begun := trials(os.getpid())):
            time.sleep(0.02)
        os.kill(begun[-1], signal.SIGKILL)

    killing = threading.Thread(target=kill)
    killing.start()
    reason = try_out(some_trial(data, cache, tmp_path), "measure").reason
    killing.join()
    assert reason == "The signal SIGKILL ended its process."


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({"pass_s": "long"}, r"Its process failed: \w+Error: [^\n]*"),
        ({"data_dir": Path("nowhere")}, r"\S+ cannot be read: [^\n]*"),
    ],
)
def test_a_trial_that_fails_has_a_reason_of_one_line(data, cache, tmp_path, members, reason):
    assert re.fullmatch(reason, try_out(some_trial(data, cache, tmp_path, **members), "measure").reason or "")


def test_a_trial_that_takes_too_long_is_given_up(data, cache, tmp_path, monkeypatch):
    monkeypatch.setattr(trial_module, "LIMIT_S", 0.1)
    assert try_out(some_trial(data, cache, tmp_path), "measure").reason == "It was stopped after 0 minutes."


def test_a_configuration_that_cannot_run_does_not_keep_the_others_from_it(data, whole, featx, monkeypatch, tmp_path):
    (tmp_path / "cache" / "networks").mkdir(parents=True)
    for path in (whole[1] / "networks").glob("vgg16-block2_pool-avg-32x32*.zip"):
        if '"int8"' not in about(path):
            shutil.copy(path, tmp_path / "cache" / "networks")
    broken = tmp_path / "site" / "nncf"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise ImportError('broken')")
    monkeypatch.setenv("PYTHONPATH", str(broken.parent))
    words = [*WORDS[:-2], "--cache-dir", tmp_path / "cache"]
    result = featx("plan", data, *words)
    assert re.search(r"openvino int8 cannot run here: nncf does not load", result.stdout)
    assert re.search(r"^[* ] openvino float32 +[\d.,]+ ", result.stdout, re.MULTILINE)
    failed = featx("plan", data, *words, "--precision", "int8", exit_code=2)
    assert "nncf does not load" in failed.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--deadline", "soon"], "A time must be a number of days, hours or minutes"),
        (["--weights", "nowhere.h5"], "There is no weights file nowhere.h5"),
        (["--layer", "nothing"], "nothing"),
        (["--engine", "keras", "--precision", "int8"], "The keras engine does not support int8"),
        (["--flip"], "Set their number per image"),
    ],
)
def test_what_cannot_be_planned_is_one_line(data, cache, featx, words, message):
    result = featx("plan", data, *WORDS, "--cache-dir", cache, *words, exit_code=2)
    assert message in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr
    assert stores(cache) == []


@pytest.mark.parametrize("text", ["", "8", "h", "-8h", "0h", "8h8h", "8x", "1h1d", "nan", "1e9h", "١h"])
def test_a_deadline_is_days_hours_minutes_in_this_order(text):
    with pytest.raises(FeatxError, match="such as 90m, 8h or 1d12h"):
        parse_duration(text)


# What it says


def test_the_text_fits_a_terminal(whole):
    assert max(map(len, plan_text(whole[0]).splitlines())) <= 90
    without = replace(whole[0], deadline_s=None, views=None)
    assert max(map(len, plan_text(without).splitlines())) <= 80


def test_json_says_the_same(data, cache, featx, whole):
    result = featx("plan", data, *WORDS, "--cache-dir", cache, "--deadline", "1d12h", "--json", "--quiet")
    said = json.loads(result.stdout)
    (one,) = said["estimates"]
    assert said["deadline_s"] == 36 * 3600
    assert (said["n_images"], one["images"]["n_missing"], one["n_machines"], one["is_chosen"]) == (160, 160, 1, True)
    assert one["time_low_s"] < one["time_s"] < one["time_high_s"]
    assert result.stderr == ""
    json.dumps(plan_json(whole[0]))
    assert featx("plan", data, *WORDS, "--cache-dir", cache, "--quiet").stdout == ""
