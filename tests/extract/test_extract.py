"""Stage one, on real JPEG files with a real network (random weights, 32×32)."""

import csv
import hashlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zlib
from contextlib import closing
from pathlib import Path

import numpy as np
import PIL
import pytest
from PIL import Image

from featx.cli.extract import SKIPPED_SHOWN
from featx.dataset import loader
from featx.dataset.scanning import scan
from featx.dataset.skipped import DECODER, SkippedImage, SkippedImages, read_skipped
from featx.dataset.statcache import StatCache
from featx.engines.openvino_engine import load_network
from featx.errors import DtypeOverflowError, ImageError
from featx.extract.extract import Extraction, extract_features
from featx.extract.options import extract_command, resolve_recipe
from featx.recipe import Recipe
from featx.storage import files
from featx.storage.stat_key import StatKeys
from featx.store.feature_store import FeatureStore
from featx.text import printable
from featx.train.features import load_features, stored_features
from tests.images.odd_images import png

#: The first blocks of the network alone: the rest would take most of the time, and add nothing.
OPTIONS = {"weights": "random", "image_size": (32, 32), "layer": "block2_pool", "pooling": "avg"}

#: The whole network, for what is to be caught while it computes.
WHOLE = {"weights": "random", "image_size": (32, 32)}


@pytest.fixture
def data(make_photos, tmp_path) -> Path:
    return make_photos(tmp_path / "data")


def features_by_digest(cache: Path, recipe: Recipe, data: Path) -> dict[bytes, bytes]:
    digests = scan(data, cache).digests
    return {bytes(d): f.tobytes() for d, f in zip(digests, FeatureStore(cache, recipe).read(digests), strict=True)}


def test_second_run_computes_nothing(data, cache):
    first = extract_features(data, cache_dir=cache, **OPTIONS)
    second = extract_features(data, cache_dir=cache, **OPTIONS)
    assert (first.n_computed, first.n_cached) == (32, 0)
    assert (second.n_computed, second.n_cached) == (0, 32)


def test_only_new_images_are_computed(data, cache, make_photos, tmp_path):
    extract_features(data, cache_dir=cache, **OPTIONS)
    more = make_photos(tmp_path / "more", n_train=15)
    for i in (12, 13, 14):
        shutil.copy(more / "train" / "sea" / f"sea.{i}.jpg", data / "train" / "sea")
    assert extract_features(data, cache_dir=cache, **OPTIONS).n_computed == 3


def test_renaming_and_relabelling_compute_nothing(data, cache):
    extract_features(data, cache_dir=cache, **OPTIONS)
    for path in list(data.rglob("*.jpg")):
        path.rename(path.with_name(f"renamed {path.name}"))
    (data / "train" / "wood" / "renamed wood.0.jpg").rename(data / "train" / "sea" / "wood after all.jpg")
    data = data.rename(data.with_name("moved"))
    assert extract_features(data, cache_dir=cache, **OPTIONS).n_computed == 0


def test_changed_image_is_computed_again_and_its_old_features_stay(data, cache, make_photos, tmp_path):
    extract_features(data, cache_dir=cache, **OPTIONS)
    path = data / "train" / "sea" / "sea.0.jpg"
    old = path.read_bytes()
    other = make_photos(tmp_path / "other", n_train=20)
    shutil.copy(other / "train" / "sea" / "sea.19.jpg", path)
    assert extract_features(data, cache_dir=cache, **OPTIONS).n_computed == 1
    path.write_bytes(old)
    assert extract_features(data, cache_dir=cache, **OPTIONS).n_computed == 0


def test_identical_images_are_computed_once(data, cache):
    shutil.copy(data / "train" / "sea" / "sea.0.jpg", data / "train" / "sea" / "copy.jpg")
    extraction = extract_features(data, cache_dir=cache, **OPTIONS)
    assert (extraction.dataset.n_images, extraction.n_computed) == (33, 32)


def test_timings_add_up(data, cache):
    extraction = extract_features(data, cache_dir=cache, **OPTIONS)
    timings = extraction.timings
    phases = timings.start_s + timings.decode_s + timings.forward_s + timings.write_s
    assert 0 < phases <= timings.elapsed_s <= extraction.elapsed_s
    assert phases > 0.9 * timings.elapsed_s
    assert timings.peak_memory_bytes > 50e6


def bad_files(data: Path) -> set[str]:
    """Put files that are no images into a data set and return their names."""
    folder = data / "train" / "wood"
    jpeg = (folder / "wood.0.jpg").read_bytes()
    (folder / "empty.jpg").touch()
    (folder / "cut.jpg").write_bytes(jpeg[: len(jpeg) // 2])
    (folder / "text.png").write_text("this is no image")
    (folder / "text copy.png").write_text("this is no image")
    os.mkfifo(folder / "fifo.jpg")
    return {"empty.jpg", "cut.jpg", "text.png", "text copy.png", "fifo.jpg"}


def listed(extraction: Extraction) -> dict[str, str]:
    """The reasons in `skipped.csv`, by path."""
    with (extraction.store_dir / "skipped.csv").open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        return {row["path"]: row["reason"] for row in csv.DictReader(file)}


def alike_bad_files(data: Path) -> set[str]:
    """Put six empty files and six error pages into each of two classes, and return their paths."""
    paths = set()
    for number, name in itertools.product(range(6), ("sea", "wood")):
        for kind, content in (("empty", b""), ("page", b"<html>Not found</html>")):
            path = data / "train" / name / f"{kind}{number}.jpg"
            path.write_bytes(content)
            paths.add(str(path))
    return paths


def test_every_bad_file_is_a_row_where_many_have_the_same_content(data, cache, featx):
    paths = alike_bad_files(data)
    words = ["extract", data, "--cache-dir", cache, "--weights", "random", "--image-size", 32, "--layer", "block1_pool"]
    text = featx(*words).stdout
    assert "32 computed, 0 from the cache, 24 skipped." in text
    assert "exact copies" not in text
    assert f"… and {24 - SKIPPED_SHOWN} more." in text
    again = json.loads(featx(*words, "--json", "--quiet").stdout)
    assert {image["path"] for image in again["skipped"]} == paths
    assert len(again["skipped"]) == 24
    extraction = extract_features(data, cache_dir=cache, **{**WHOLE, "layer": "block1_pool"})
    assert set(listed(extraction)) == paths
    assert len(set(listed(extraction).values())) == 2


def test_a_content_is_tried_once_however_many_files_have_it(data, cache, monkeypatch):
    paths = alike_bad_files(data)
    tried = []
    read = loader.read_source
    monkeypatch.setattr(loader, "read_source", lambda source: tried.append(str(source)) or read(source))
    for n_tried in (2, 0):
        tried.clear()
        extraction = extract_features(data, cache_dir=cache, **OPTIONS)
        assert len(paths & set(tried)) == n_tried
        assert set(listed(extraction)) == paths


def test_rows_of_skipped_files_follow_renames_removals_and_repairs(data, cache):
    paths = alike_bad_files(data)
    extract_features(data, cache_dir=cache, **OPTIONS)
    folder = data / "train" / "sea"
    (folder / "empty0.jpg").rename(folder / "zzz.jpg")
    (folder / "empty1.jpg").unlink()
    (folder / "page2.jpg").write_bytes((folder / "sea.0.jpg").read_bytes())
    (folder / "page3.jpg").write_bytes(b"<html>Another page</html>")
    extraction = extract_features(data, cache_dir=cache, **OPTIONS)
    gone = {str(folder / name) for name in ("empty0.jpg", "empty1.jpg", "page2.jpg")}
    assert set(listed(extraction)) == (paths - gone) | {str(folder / "zzz.jpg")}
    assert {image.path for image in extraction.skipped} == set(listed(extraction))
    for path in paths | {str(folder / "zzz.jpg")}:
        Path(path).unlink(missing_ok=True)
    assert listed(extract_features(data, cache_dir=cache, **OPTIONS)) == {}


def test_two_processes_at_once_list_every_bad_file(data, cache):
    paths = alike_bad_files(data)
    words = ["extract", data, "--cache-dir", cache, "--weights", "random", "--image-size", 32]
    command = [sys.executable, "-m", "featx", *map(str, words), "--layer", "block1_pool", "--quiet"]
    for process in [subprocess.Popen(command) for _ in range(2)]:
        assert process.wait() == 0
    assert set(listed(extract_features(data, cache_dir=cache, **{**WHOLE, "layer": "block1_pool"}))) == paths


def test_rows_of_an_older_featx_are_read_and_follow_their_files(cache, tmp_path):
    """It wrote a row for each content, and escaped names."""
    folder, digest = tmp_path / "caf\xe9\x1b", hashlib.sha256(b"").digest()
    path = cache / "skipped.csv"
    old = f"{printable(folder)}/train/a\\n.jpg,{digest.hex()},empty file,{DECODER}\n"
    path.write_text(f"path,digest,reason,decoder\n{old}", encoding="utf-8")
    memory = SkippedImages(path)
    assert memory.reason(digest) == "empty file"
    memory.remember([SkippedImage.of(folder / "train" / "a\n.jpg", digest, "empty file")], folder)
    (row,) = read_skipped(path)
    assert row.path == f"{folder}/train/a\n.jpg"


def test_bad_files_are_skipped_named_and_tried_only_once(data, cache):
    names = bad_files(data)
    first = extract_features(data, cache_dir=cache, **OPTIONS)
    assert first.n_computed == 32
    assert {Path(image.path).name for image in first.skipped} == names
    assert all(image.reason for image in first.skipped)
    assert {Path(path).name for path in listed(first)} == names
    second = extract_features(data, cache_dir=cache, **OPTIONS)
    assert second.skipped == first.skipped or set(second.skipped) == set(first.skipped)
    assert second.timings.n_images == 0


def test_what_another_featx_or_pillow_could_not_read_is_tried_again(data, cache):
    samples = np.arange(300, dtype=np.uint8).reshape(10, 10, 3)
    bomb = png(samples, 8, 2, before=[(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(2 << 20)))])
    path = data / "train" / "sea" / "long comment.png"
    path.write_bytes(bomb)
    store_dir = cache / resolve_recipe(cache, **OPTIONS)[0].slug
    store_dir.mkdir()
    reason = "unreadable: decompressed data too large for pngimageplugin.max_text_chunk"
    with (store_dir / "skipped.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["path", "digest", "reason", "decoder"])
        writer.writerow([path, hashlib.sha256(bomb).hexdigest(), reason, PIL.__version__])  # as featx wrote it before
    extraction = extract_features(data, cache_dir=cache, **OPTIONS)
    assert (extraction.n_computed, extraction.skipped) == (33, ())
    assert "long comment" not in (store_dir / "skipped.csv").read_text()


def test_what_is_skipped_for_its_content_does_not_stand_in_the_way_of_stage_two(data, cache):
    bad_files(data)
    extraction = extract_features(data, cache_dir=cache, **OPTIONS)
    features = stored_features(extraction.dataset, FeatureStore(cache, extraction.recipe), "featx extract")
    assert features.dataset.n_images == 32


def test_two_data_sets_in_one_store_do_not_forget_each_others_bad_files(data, cache, make_photos, tmp_path):
    other = make_photos(tmp_path / "other")
    for number, folder in enumerate((data, other)):
        (folder / "train" / "sea" / "bad.jpg").write_bytes(b"no image %d" % number)
    memories = [SkippedImages(cache / "skipped.csv") for _ in range(2)]  # both read before either has written
    for memory, folder in zip(memories, (data, other), strict=True):
        path = folder / "train" / "sea" / "bad.jpg"
        memory.remember([SkippedImage.of(path, hashlib.sha256(path.read_bytes()).digest(), "no image")], folder)
    assert (cache / "skipped.csv").read_text().count("bad.jpg") == 2


def test_unwritable_list_of_skipped_files_costs_a_warning_only(data, cache, caplog):
    bad_files(data)
    recipe = resolve_recipe(cache, **OPTIONS)[0]
    (cache / recipe.slug / "skipped.csv").mkdir(parents=True)
    extraction = extract_features(data, cache_dir=cache, **OPTIONS)
    assert (extraction.n_computed, len(extraction.skipped)) == (32, 5)
    assert "skipped.csv cannot be written" in caplog.text
    assert (extraction.store_dir / "features.h5").exists()


def test_a_data_set_that_is_replaced_is_computed_again_though_names_sizes_times_and_inodes_are_the_same(
    tmp_path, cache, settle
):
    """As tar leaves it: the pixels of version 2 where those of version 1 were."""
    data, rng = tmp_path / "data", np.random.default_rng(0)
    for version in (1, 2):
        for number in range(12):
            path = tmp_path / f"v{version}" / ("train" if number < 8 else "test") / "ab"[number % 2] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(path, compress_level=0)
            os.utime(path, (10**9, 10**9))
        subprocess.run(["tar", "-cf", f"v{version}.tar", "-C", f"v{version}", "."], cwd=tmp_path, check=True)
    features = []
    for version in (1, 2):
        shutil.rmtree(data, ignore_errors=True)
        data.mkdir()
        subprocess.run(["tar", "-xf", tmp_path / f"v{version}.tar", "-C", data], check=True)
        settle()
        assert extract_features(data, cache_dir=cache, **OPTIONS).n_computed == 12
        features.append(load_features(data, cache_dir=cache, **OPTIONS).X)
        expected = extract_features(tmp_path / f"v{version}", cache_dir=cache, **OPTIONS)
        assert expected.n_computed == 0
        assert np.array_equal(features[-1], load_features(tmp_path / f"v{version}", cache_dir=cache, **OPTIONS).X)
    assert not np.array_equal(*features)


def test_change_that_hid_from_the_stat_cache_is_found_and_put_right_by_the_next_run(data, cache):
    """As by a program that writes through a memory map, while the clock of the file system stands still."""
    path = data / "train" / "sea" / "sea.0.jpg"
    content = bytearray(path.read_bytes())
    before = hashlib.sha256(content).digest()
    content[15] ^= 1  # the density in JFIF's header: another file, as good an image
    path.write_bytes(content)
    with closing(StatCache(cache)) as remembered:
        remembered.remember([(os.fsencode(path), StatKeys().of(os.fsencode(path), path.stat()), before)])
    first = extract_features(data, cache_dir=cache, **OPTIONS)
    assert [Path(image.path).name for image in first.skipped] == ["sea.0.jpg"]
    second = extract_features(data, cache_dir=cache, **OPTIONS)
    assert (second.n_computed, second.skipped) == (1, ())


@pytest.mark.parametrize("moment", ["fsync", "rename"])
def test_interrupt_while_a_segment_is_written_keeps_its_rows_and_their_cost_once(data, cache, monkeypatch, moment):
    recipe, weights = resolve_recipe(cache, **OPTIONS)
    load_network(recipe, weights, cache, None)  # writes a file, too
    real = {"fsync": os.fsync, "rename": files.sync_folder}[moment]
    interrupts = []

    def interrupted(*args):
        if not interrupts:
            interrupts.append(moment)
            raise KeyboardInterrupt
        return real(*args)

    if moment == "fsync":
        monkeypatch.setattr(os, "fsync", interrupted)
    else:
        monkeypatch.setattr(files, "sync_folder", interrupted)
    with pytest.raises(KeyboardInterrupt):
        extract_features(data, cache_dir=cache, **OPTIONS)
    (segment,) = FeatureStore(cache, recipe).segments
    assert (len(segment), segment.timings.n_images) == (32, 32)
    assert segment.timings.forward_s > 0
    assert segment.timings.start_s > 0


def test_mended_file_is_computed_and_no_longer_listed(data, cache, make_photos, tmp_path):
    bad_files(data)
    extract_features(data, cache_dir=cache, **OPTIONS)
    other = make_photos(tmp_path / "other", n_train=20)
    shutil.copy(other / "train" / "wood" / "wood.19.jpg", data / "train" / "wood" / "cut.jpg")
    extraction = extract_features(data, cache_dir=cache, **OPTIONS)
    assert extraction.n_computed == 1
    assert "cut.jpg" not in (extraction.store_dir / "skipped.csv").read_text()


def test_folder_of_nothing_but_bad_files_does_not_start_the_engine(data, cache):
    for path in list(data.rglob("*.jpg")):
        path.write_bytes(b"no image " + path.name.encode())
    extraction = extract_features(data, cache_dir=cache, **OPTIONS)
    assert (extraction.n_computed, len(extraction.skipped)) == (0, 32)
    assert extraction.timings.start_s == 0


def test_strict_stops_at_the_first_bad_file_and_keeps_what_was_computed(data, cache):
    (data / "train" / "wood" / "zzz.jpg").write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"zzz\.jpg cannot be read"):
        extract_features(data, cache_dir=cache, batch_size=4, strict=True, **OPTIONS)
    assert extract_features(data, cache_dir=cache, batch_size=4, **OPTIONS).n_cached >= 12
    with pytest.raises(ImageError, match=r"zzz\.jpg cannot be read"):
        extract_features(data, cache_dir=cache, strict=True, **OPTIONS)


def test_feature_too_large_for_float16_stops_and_names_the_way_out(data, cache, tmp_path):
    from featx.backbones.build import build_model

    keras_file = tmp_path / "vgg16_loud_notop.h5"
    recipe, _ = resolve_recipe(cache, **WHOLE)
    network = build_model(recipe, None).layers[-1]
    for weight in network.weights:
        weight.assign(weight * 2.0)
    save_in_official_layout(network, keras_file)
    options = {**WHOLE, "weights": str(keras_file)}
    with pytest.raises(DtypeOverflowError, match="more than float16 holds .* Extract with --dtype float32"):
        extract_features(data, cache_dir=cache, **options)
    extraction = extract_features(data, cache_dir=cache, dtype="float32", **options)
    features = FeatureStore(cache, extraction.recipe).read(extraction.dataset.digests)
    assert np.isfinite(features).all()
    assert features.max() > np.finfo(np.float16).max


def save_in_official_layout(network, path):
    import h5py
    from keras.src.legacy.saving import legacy_h5_format

    with h5py.File(path, "w") as file:
        legacy_h5_format.save_weights_to_hdf5_group(file, network)


def test_command_names_everything_that_is_not_default(tmp_path):
    command = extract_command(Path("my data"), tmp_path, backbone="vgg16", image_size=(64, 80), layer=None)
    assert command == f"featx extract 'my data' --image-size 64x80 --cache-dir {tmp_path}"


def start_extraction(data: Path, cache: Path, pause_s: float = 0) -> subprocess.Popen:
    """Start an extraction that writes a segment for every four rows, and waits `pause_s` before each."""
    script = (
        "import sys, time, featx.store.segment_writer as w\n"
        "w.SEGMENT_BYTES = 4096\n"
        "write = w._Rows.write\n"
        f"w._Rows.write = lambda *words: time.sleep({pause_s}) or write(*words)\n"
        "from featx.cli.main import main; main(sys.argv[1:])"
    )
    words = ["extract", data, "--weights", "random", "--image-size", "32", "--cache-dir", cache, "--batch-size", "2"]
    return subprocess.Popen([sys.executable, "-c", script, *map(str, words)], stderr=subprocess.PIPE, text=True)


def n_rows(cache: Path, recipe: Recipe) -> int:
    return len(FeatureStore(cache, recipe))


def wait_for_rows(process: subprocess.Popen, cache: Path, recipe: Recipe, n: int) -> None:
    while process.poll() is None and n_rows(cache, recipe) < n:
        time.sleep(0.01)


@pytest.fixture
def recipe(cache) -> Recipe:
    return resolve_recipe(cache, **WHOLE)[0]


def test_killed_extraction_resumes_without_loss(make_photos, tmp_path, new_cache, recipe):
    data = make_photos(tmp_path / "data", n_train=60, n_test=20)
    whole = extract_features(data, cache_dir=new_cache(tmp_path / "undisturbed"), **WHOLE)
    cache = new_cache(tmp_path / "killed")
    rows_after_kill = []
    for n in (4, 60):
        process = start_extraction(data, cache, pause_s=0.2)  # or a busy machine would see the rows when all are there
        wait_for_rows(process, cache, recipe, n)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        rows_after_kill.append(n_rows(cache, recipe))
    assert 4 <= rows_after_kill[0] <= rows_after_kill[1] < 160
    last = extract_features(data, cache_dir=cache, **WHOLE)
    assert last.n_computed == 160 - rows_after_kill[1]
    undisturbed = features_by_digest(tmp_path / "undisturbed", whole.recipe, data)
    assert features_by_digest(cache, last.recipe, data) == undisturbed


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_extraction_keeps_what_is_finished_and_says_how_to_go_on(
    make_photos, tmp_path, cache, recipe, number, exit_code
):
    data = make_photos(tmp_path / "data", n_train=200, n_test=100)
    process = start_extraction(data, cache)
    wait_for_rows(process, cache, recipe, 4)
    process.send_signal(number)
    _, stderr = process.communicate()
    assert process.returncode == exit_code, stderr
    assert "Run it again to resume" in stderr
    assert "Traceback" not in stderr
    kept = n_rows(cache, recipe)
    assert 4 <= kept < 600
    assert json.loads((cache / recipe.slug / "timings.json").read_text())["n_images"] == kept


def test_two_processes_at_once_lose_no_row(make_photos, tmp_path, recipe):
    data, cache = make_photos(tmp_path / "data", n_train=40, n_test=10), tmp_path / "cache"
    processes = [start_extraction(data, cache) for _ in range(2)]
    for process in processes:
        _, stderr = process.communicate()
        assert process.returncode == 0, stderr
    assert n_rows(cache, recipe) == 100
    whole = extract_features(data, cache_dir=tmp_path / "undisturbed", **WHOLE)
    assert features_by_digest(cache, recipe, data) == features_by_digest(tmp_path / "undisturbed", whole.recipe, data)
