"""Images and stores elsewhere: on a real S3 server, behind HTTP, in archives."""

import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import uuid
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
from click.testing import Result
from PIL import Image

import featx.dataset.digests as digests_module
from featx.dataset.scanning import scan
from featx.dataset.statcache import StatCache
from featx.errors import DatasetError, FeatxError, StoreError
from featx.extract.cache import check_cache, list_cache
from featx.extract.extract import extract_features
from featx.storage import mark_folder
from featx.storage.paths import as_data, as_storage_path, local_dir
from featx.storage.remote_path import RemotePath
from featx.store.feature_store import FeatureStore
from featx.system.commands import command_line
from featx.text import redacted
from featx.train.features import load_features
from tests.storage.elsewhere import ENVIRONMENT, Bucket, s3_server, web_server

ROOT = Path(__file__).parents[2]
FEW = {"weights": "random", "image_size": (32, 32), "layer": "block2_pool", "pooling": "avg"}
FEW_WORDS = ("--weights", "random", "--image-size", "32", "--layer", "block2_pool", "--pooling", "avg")

Featx = Callable[..., Result]


@pytest.fixture(scope="session")
def server() -> Iterator[tuple[str, list[str]]]:
    with pytest.MonkeyPatch.context() as patch, s3_server() as (endpoint, requests):
        for name, value in (ENVIRONMENT | {"AWS_ENDPOINT_URL": endpoint}).items():
            patch.setenv(name, value)
        yield endpoint, requests


@pytest.fixture
def bucket(server: tuple[str, list[str]]) -> Bucket:
    """A new bucket."""
    return Bucket(f"bucket-{uuid.uuid4().hex}", *server)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where what belongs to caches elsewhere is kept on this machine."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "featx"


@pytest.fixture
def store_address(bucket: Bucket, home: Path, networks_dir: Path) -> str:
    """The address of an empty cache; the converted networks of other tests are there."""
    address = f"s3://{bucket.name}/features"
    local = local_dir(as_storage_path(address))
    local.mkdir(parents=True)
    (local / "networks").symlink_to(networks_dir, target_is_directory=True)
    return address


@pytest.fixture(autouse=True)
def settled_soon(settle: Callable[[], None]) -> None:
    """What `aged` and `pack` return is settled."""


@pytest.fixture
def photos(tmp_path: Path, make_photos: Callable[..., Path]) -> Path:
    return aged(make_photos(tmp_path / "photos", n_train=4, n_test=2))


def aged(folder: Path) -> Path:
    """Return the folder, its files dated long ago and settled: one that has just been written may change again."""
    for path in folder.rglob("*"):
        os.utime(path, (1e9, 1e9))
    time.sleep(0.03)
    return folder


def rows(folder: Path, cache_dir: Path | str) -> tuple[np.ndarray, np.ndarray]:
    features = load_features(folder, cache_dir=cache_dir, **FEW)
    return features.dataset.digests, features.X


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python code with featx in a process of its own."""
    environment = {"AWS_EC2_METADATA_DISABLED": "true", **environment}
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=kept | environment, cwd=ROOT, check=False
    )


# A store and images on S3


def test_features_from_s3_in_s3_equal_those_of_the_same_images_on_disk_bit_for_bit(
    photos, bucket, store_address, cache
):
    address = bucket.upload(photos, "photos")
    elsewhere = extract_features(address, cache_dir=store_address, **FEW)
    here = extract_features(photos, cache_dir=cache, **FEW)
    assert elsewhere.n_computed == here.n_computed == 12
    asked = [request for request in bucket.requests if f"{bucket.name}/photos/train/sea/sea.0.jpg" in request]
    assert len([request for request in asked if '"PUT' not in request]) == 2, (
        "an image is read for its digest, then for its pixels, in one request each"
    )
    assert elsewhere.dataset.paths == here.dataset.paths
    assert elsewhere.dataset.digest == here.dataset.digest
    stores = [FeatureStore(as_storage_path(folder), here.recipe) for folder in (cache, store_address)]
    assert np.array_equal(*(store.read(here.dataset.digests) for store in stores))


def test_a_warm_run_computes_nothing_and_reads_no_image_and_no_features(photos, bucket, store_address):
    address = bucket.upload(photos, "photos")
    extract_features(address, cache_dir=store_address, **FEW)
    before = len(bucket.requests)
    again = extract_features(address, cache_dir=store_address, **FEW)
    asked = bucket.requests[before:]
    assert (again.n_computed, again.n_cached) == (0, 12)
    assert asked
    assert not [request for request in asked if ".jpg" in request or '"PUT' in request]
    assert len([request for request in asked if "prefix=photos" in request]) == 1, "one listing, not one for each file"


def test_new_and_changed_objects_are_computed_and_no_others(photos, bucket, store_address):
    address = bucket.upload(photos, "photos")
    extract_features(address, cache_dir=store_address, **FEW)
    bucket.put("photos/train/sea/sea.0.jpg", (photos / "train" / "wood" / "wood.0.jpg").read_bytes() + b"\0")
    bucket.put("photos/train/sea/renamed.jpg", (photos / "train" / "sea" / "sea.1.jpg").read_bytes())
    again = extract_features(address, cache_dir=store_address, **FEW)
    assert (again.n_computed, again.n_cached) == (1, 12)


def test_an_object_that_vanishes_after_the_scan_is_skipped_with_its_reason(photos, bucket, store_address, monkeypatch):
    address = bucket.upload(photos, "photos")
    find_layout = sys.modules["featx.dataset.scanning"].find_layout

    def then_gone(*args: object, **options: object) -> object:
        layout = find_layout(*args, **options)
        bucket.remove("photos/train/sea/sea.2.jpg")
        return layout

    monkeypatch.setattr("featx.dataset.scanning.find_layout", then_gone)
    extraction = extract_features(address, cache_dir=store_address, **FEW)
    assert extraction.n_computed == 11
    assert [(image.path, image.reason) for image in extraction.skipped] == [
        (f"{address}/train/sea/sea.2.jpg", "no such file")
    ]


KILLED = f"""
import sys
import featx.store.segment_writer as writer
writer.SEGMENT_BYTES = 1  # a segment for every row
from featx.extract.extract import extract_features
extract_features(sys.argv[1], cache_dir=sys.argv[2], batch_size=1, **{FEW})
"""


def test_a_killed_extraction_leaves_whole_objects_and_the_next_computes_what_is_missing(
    tmp_path, make_photos, bucket, store_address, cache
):
    photos = aged(make_photos(tmp_path / "many", n_train=30, n_test=10))
    address = bucket.upload(photos, "photos")
    process = subprocess.Popen([sys.executable, "-c", KILLED, address, store_address], cwd=ROOT)
    while len(bucket.segments("features")) < 3:
        assert process.poll() is None, "it was to be killed while it wrote"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    time.sleep(0.5)  # what was under way at the server
    n_there = len(bucket.segments("features"))
    assert 3 <= n_there < 80
    assert all(".tmp-" not in key for key in bucket.keys("features"))
    again = extract_features(address, cache_dir=store_address, **FEW)
    assert (again.n_cached, again.n_computed) == (n_there, 80 - n_there)
    extract_features(photos, cache_dir=cache, **FEW)
    assert all(map(np.array_equal, rows(address, store_address), rows(photos, cache)))


def test_a_store_elsewhere_is_listed_verified_compacted_and_removed(featx: Featx, photos, bucket, store_address):
    address = bucket.upload(photos / "train", "photos/train")
    extract_features(address.removesuffix("/train"), cache_dir=store_address, **FEW)
    bucket.upload(photos / "test", "photos/test")
    extract_features(address.removesuffix("/train"), cache_dir=store_address, **FEW)
    before = rows(photos, store_address)
    assert len(bucket.segments("features")) == 2
    listing = featx("cache", "ls", "--cache-dir", store_address).output
    assert "vgg16-block2_pool-avg-32x32" in listing
    assert "networks" in listing
    assert "No damage found." in featx("cache", "verify", "--cache-dir", store_address).output
    assert "2 segments, now 1" in featx("cache", "compact", "--cache-dir", store_address).output
    (segment,) = bucket.segments("features")
    assert all(map(np.array_equal, before, rows(photos, store_address)))
    name = segment.split("/")[1]
    featx("cache", "rm", name, "--yes", "--cache-dir", store_address)
    assert [key for key in bucket.keys("features") if name in key] == []


def test_the_virtual_dataset_of_a_store_elsewhere_works_once_the_folder_is_here(
    tmp_path, photos, bucket, store_address
):
    extraction = extract_features(photos, cache_dir=store_address, **FEW)
    for key in bucket.keys("features"):
        path = tmp_path / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bucket.get(key))
    with h5py.File(tmp_path / "features" / extraction.recipe.slug / "features.h5") as file:
        shown = {digest.tobytes(): row.tobytes() for digest, row in zip(file["digest"], file["features"], strict=True)}
    expected = zip(*rows(photos, store_address), strict=True)
    assert shown == {digest.tobytes(): row.tobytes() for digest, row in expected}


def test_a_damaged_object_is_found_quarantined_and_computed_again(featx: Featx, photos, bucket, store_address):
    extract_features(photos, cache_dir=store_address, **FEW)
    before = rows(photos, store_address)
    (segment,) = bucket.segments("features")
    content = bytearray(bucket.get(segment))
    content[len(content) // 3] ^= 1  # in the features: only their checksum can tell
    bucket.put(segment, bytes(content))
    assert "DAMAGED" in featx("cache", "verify", "--cache-dir", store_address, exit_code=1).output
    assert bucket.segments("features") == [segment], "looking changes nothing"
    featx("cache", "verify", "--mend", "--cache-dir", store_address, exit_code=1)
    assert bucket.segments("features") == []
    assert extract_features(photos, cache_dir=store_address, **FEW).n_computed == 12
    (segment,) = bucket.segments("features")
    bucket.put(segment, b"garbage")
    again = featx("extract", photos, *FEW_WORDS, "--cache-dir", store_address).output
    assert "12 computed" in again
    names = [key.rpartition("/")[2] for key in bucket.keys("features")]
    assert f"damaged-{segment.rpartition('/')[2]}" in names
    assert segment not in bucket.segments("features")
    assert all(map(np.array_equal, before, rows(photos, store_address)))


def test_the_index_of_a_large_segment_is_read_without_its_features(photos, bucket, store_address):
    recipe = extract_features(photos, cache_dir=store_address, **FEW).recipe
    store = FeatureStore(as_storage_path(store_address), recipe)
    rng = np.random.default_rng(0)
    features = rng.normal(size=(3000, 128)).astype(np.float16)
    digests = rng.integers(1, 256, (3000, 32), np.uint8)
    store.write_segment(f"seg-{1:032x}.h5", features, digests, lambda: store.segments[0].timings)
    before = len(bucket.requests)
    opened = FeatureStore(as_storage_path(store_address), recipe)
    asked = [request for request in bucket.requests[before:] if f"seg-{1:032x}" in request and '"GET' in request]
    assert len(opened) == 3012
    assert asked
    assert all(" 206 " in request for request in asked), "parts of it, never the whole"
    assert np.array_equal(opened.read(digests), features)


@pytest.mark.usefixtures("without_rendering")
def test_stage_two_and_prediction_work_on_images_and_stores_elsewhere(
    featx: Featx, photos, bucket, store_address, tmp_path
):
    address = bucket.upload(photos, "photos")
    where = ("--cache-dir", store_address)
    report = tmp_path / "report"
    featx("compare", address, *FEW_WORDS, *where, "--epochs", 2, "--report-dir", report)
    assert "data:image/webp" in (report / "index.html").read_text()
    featx("train-top", address, *FEW_WORDS, *where, "--epochs", 2, "--run-dir", tmp_path / "run")
    words = (f"{address}/test/sea", f"{address}/train/wood/wood.1.jpg", f"{address}/gone.jpg")
    table = featx("predict", tmp_path / "run", *words, *where, "--format", "csv").stdout
    lines = [line for line in table.splitlines() if line.startswith("s3://")]
    assert len(lines) == 4
    assert lines[-1] == f"{address}/gone.jpg,,,no such file,"


def test_a_cache_beside_the_images_is_not_taken_for_a_class(photos, bucket, home, networks_dir):
    address = bucket.upload(photos / "train", "photos")
    local = local_dir(as_storage_path(f"{address}/cache"))
    local.mkdir(parents=True)
    (local / "networks").symlink_to(networks_dir, target_is_directory=True)
    extract_features(address, cache_dir=f"{address}/cache", **FEW)
    dataset = scan(address, f"{address}/cache")
    assert dataset.class_names == ("sea", "wood")
    assert not [warning for warning in dataset.warnings if "cache" in warning]


def test_the_record_of_the_test_split_is_in_the_cache_on_s3_for_all_machines(photos, bucket, home, monkeypatch):
    address, cache = bucket.upload(photos / "train", "photos"), f"s3://{bucket.name}/features"
    first = scan(address, cache)
    assert 0 < first.n_test < first.n_images
    assert [entry.kind for entry in list_cache(cache) if entry.name == "splits-0.2.bin"] == ["splits"]
    assert check_cache(cache, ["splits-0.2.bin"]).is_sound
    bucket.put("photos/sea/more.jpg", (photos / "train/sea/sea.0.jpg").read_bytes() + b"\0")
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "of another machine"))
    again = scan(address, cache)
    of_path = dict(zip(again.paths, again.is_test, strict=True))
    assert [of_path[path] for path in first.paths] == first.is_test.tolist()
    assert not again.warnings


# The rules of folders


def test_folders_on_s3_are_understood_as_they_are_on_disk(tmp_path, photos, bucket):
    for name in ("train/sea/.hidden.jpg", "__MACOSX/sea/x.jpg", "train/notes.txt", "train/stray.jpg", "other/a.jpg"):
        path = photos / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    for name in ("train/sea/deep/er/y.jpg", "reports/pictures/z.jpg"):
        (photos / name).parent.mkdir(parents=True)
        shutil.copy(photos / "train" / "sea" / "sea.0.jpg", photos / name)
    mark_folder(photos / "reports")
    nested = tmp_path / "nest"
    nested.mkdir()
    photos.rename(nested / "inner")
    here = scan(nested, tmp_path / "cache")
    elsewhere = scan(bucket.upload(nested, "nest"), tmp_path / "cache")
    assert elsewhere.paths == here.paths
    assert elsewhere.digest == here.digest
    assert elsewhere.warnings == here.warnings
    assert "inner/train/sea/deep/er/y.jpg" in here.paths


def test_keys_that_no_disk_can_have_lose_no_image(photos, bucket, tmp_path):
    address = bucket.upload(photos, "photos")
    image = (photos / "train" / "sea" / "sea.0.jpg").read_bytes()
    bucket.put("photos/train/sea//two slashes.jpg", image + b"\0")
    bucket.put("photos/train/sea/", b"")  # what some tools make of a folder
    bucket.put("photos/train/sea", image)  # a file, and a folder
    dataset = scan(address, tmp_path / "cache")
    assert dataset.n_images == 13
    assert "train/sea//two slashes.jpg" in dataset.paths


# Archives


def pack(folder: Path, path: Path) -> Path:
    """Pack what is in a folder, and return the archive, dated long ago."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            for image in sorted(folder.rglob("*")):
                file.write(image, image.relative_to(folder))
    else:
        with tarfile.open(path, f"w:{path.suffix[1:].removeprefix('tar')}") as file:
            file.add(folder, ".")  # as `tar -C folder .` names them
    os.utime(path, (1e9,) * 2)
    time.sleep(0.03)
    return path


@pytest.mark.parametrize("name", ["photos.zip", "photos.tar", "photos.tar.gz"])
def test_an_archive_gives_the_rows_of_the_folder_in_it(photos, cache, tmp_path, name):
    archive = pack(photos, tmp_path / name)
    packed = extract_features(archive, cache_dir=cache, **FEW)
    unpacked = extract_features(photos, cache_dir=cache, **FEW)
    assert (packed.n_computed, unpacked.n_computed, unpacked.n_cached) == (12, 0, 12)
    assert packed.dataset.paths == unpacked.dataset.paths
    assert packed.dataset.digest == unpacked.dataset.digest
    assert all(map(np.array_equal, rows(archive, cache), rows(photos, cache)))


def test_images_in_an_archive_are_read_again_only_when_the_archive_has_changed(photos, tmp_path, monkeypatch):
    read: list[str] = []
    hash_remote = digests_module._hash_remote
    monkeypatch.setattr(
        digests_module, "_hash_remote", lambda file, known: (read.append(str(file)), hash_remote(file, known))[1]
    )
    archive = pack(photos, tmp_path / "photos.zip")
    first = scan(archive, tmp_path / "cache")
    assert len(read) == 12
    scan(archive, tmp_path / "cache")
    assert len(read) == 12
    (photos / "train" / "sea" / "sea.0.jpg").write_bytes((photos / "test" / "sea" / "sea.0.jpg").read_bytes() + b"\0")
    archive.unlink()
    changed = scan(pack(photos, archive), tmp_path / "cache")
    assert len(read) == 24
    assert changed.digest != first.digest


@pytest.mark.parametrize("name", ["photos.zip", "photos.tar"])
@pytest.mark.parametrize("form", ["{}", "file://{}", "local://{}", "zip://::file://{}", "tar://::local://{}"])
def test_an_archive_that_is_replaced_by_one_of_same_size_and_time_is_read_again(photos, tmp_path, name, form):
    if "://::" in form and not form.startswith(name[-3:]):
        pytest.skip("the address is of the other kind")
    archive, image = tmp_path / name, photos / "train" / "sea" / "sea.0.jpg"
    content = bytearray(image.read_bytes())
    states = []
    for density in (1, 2):
        content[15] = density  # in JFIF's header
        image.write_bytes(content)
        if name.endswith("tar"):
            pack(aged(photos), archive)
        else:  # in place: the inode stays
            pack(aged(photos), tmp_path / "new.zip")
            archive.write_bytes((tmp_path / "new.zip").read_bytes())
            os.utime(archive, (1e9,) * 2)
        time.sleep(0.03)
        states.append((archive.stat().st_size, archive.stat().st_mtime_ns))
        dataset = scan(form.format(archive), tmp_path / "cache")
        assert bytes(dataset.digests[dataset.paths.index("train/sea/sea.0.jpg")]) == hashlib.sha256(content).digest()
    if name.endswith("tar"):
        assert states[0] == states[1]


@pytest.mark.parametrize("form", ["file://{}", "local://{}"])
def test_a_folder_named_by_an_address_of_this_machine_is_read_as_its_path_is(photos, tmp_path, form):
    assert as_storage_path(form.format(photos)) == photos


def test_a_zip_file_on_s3_is_opened_like_a_folder(photos, bucket, tmp_path):
    bucket.put("photos.zip", pack(photos, tmp_path / "photos.zip").read_bytes())
    plain = scan(f"s3://{bucket.name}/photos.zip", tmp_path / "cache")
    chained = scan(f"zip://train::s3://{bucket.name}/photos.zip", tmp_path / "cache")
    assert plain.digest == scan(photos, tmp_path / "cache").digest
    assert plain.name == "photos.zip"
    assert chained.digest == scan(photos / "train", tmp_path / "cache").digest


def test_a_tar_file_on_s3_is_opened_like_a_folder(photos, bucket, tmp_path):
    bucket.put("photos.tar.gz", pack(photos, tmp_path / "photos.tar.gz").read_bytes())
    dataset = scan(f"s3://{bucket.name}/photos.tar.gz", tmp_path / "cache")
    assert dataset.digest == scan(photos, tmp_path / "cache").digest


def test_names_in_an_archive_on_s3_are_those_of_one_here(photos, bucket, tmp_path):
    expected = scan(photos / "train", tmp_path / "cache").digest
    backslashes, dots = tmp_path / "backslashes.zip", tmp_path / "dots.tar"
    with zipfile.ZipFile(backslashes, "w") as file:
        for image in sorted(photos.rglob("*.jpg")):
            file.write(image, f"./{image.relative_to(photos)}".replace("/", "\\"))
    for archive in (backslashes, pack(photos, dots)):
        bucket.put(archive.name, archive.read_bytes())
        kind = archive.suffix[1:]
        for inside in ("train", "./train/"):
            assert scan(f"{kind}://{inside}::s3://{bucket.name}/{archive.name}", tmp_path / "cache").digest == expected


def test_an_encoding_of_names_on_s3_can_be_named(photos, bucket, tmp_path):
    for split in ("train", "test"):
        (photos / split / "sea").rename(photos / split / "海")
    with tarfile.open(tmp_path / "photos.tar", "w", format=tarfile.GNU_FORMAT, encoding="gbk") as file:
        file.add(photos, "照片")
    bucket.put("photos.tar", (tmp_path / "photos.tar").read_bytes())
    for address in (f"s3://{bucket.name}/photos.tar", f"tar://照片::s3://{bucket.name}/photos.tar"):
        dataset = scan(as_data(address, "gbk"), tmp_path / "cache")
        assert dataset.digest == scan(photos, tmp_path / "cache").digest


def test_hostile_names_in_an_archive_reach_nothing_and_no_terminal(featx: Featx, photos, tmp_path, cache):
    archive = tmp_path / "hostile.zip"
    before = {path for path in tmp_path.rglob("*") if cache not in path.parents} | {archive}
    evil = ("../escaped.jpg", "/absolute.jpg", "train/../../up.jpg", "C:\\x.jpg", "..\\\x1b[31mred\n.jpg")
    for name in (*evil, "train/sea/\x1b[31mred\n.jpg"):
        with zipfile.ZipFile(archive, "w") as file:
            for image in sorted(photos.rglob("*.jpg")):
                file.write(image, image.relative_to(photos))
            file.writestr(name, b"no image")
        result = featx("extract", archive, *FEW_WORDS, "--cache-dir", cache, exit_code=2 if name in evil else 0)
        assert "\x1b" not in result.output
        assert ("\\x1b[31mred\\n.jpg" in result.output) == ("red" in name)
        assert ("leads out of its folder" in result.output) == (name in evil)
        assert {path for path in tmp_path.rglob("*") if cache not in path.parents} == before


def test_a_broken_archive_is_one_sentence(tmp_path):
    for name, content in (("a.zip", b"PK no"), ("b.tar", b"\1" * 1000), ("c.tar.gz", b"\x1f\x8bnot")):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(DatasetError, match=name) as caught:
            scan(path, tmp_path / "cache")
        assert "\n" not in str(caught.value)


# HTTP


def test_a_folder_behind_a_password_is_read_and_the_password_is_nowhere(
    featx: Featx, photos, cache, tmp_path, monkeypatch, caplog
):
    monkeypatch.chdir(tmp_path)
    with web_server(tmp_path, "user:hush-hush") as (host, asked):
        address = f"http://user:hush-hush@{host}/photos"
        outputs = [
            featx("train-top", address, *FEW_WORDS, "--cache-dir", cache, "--run-dir", tmp_path / "r", exit_code=2)
        ]
        outputs.append(featx("extract", address, *FEW_WORDS, "--cache-dir", cache, "--verbose"))
        assert "12 computed" in outputs[-1].output
        before = len(asked)
        words = ["train-top", address, *FEW_WORDS, "--cache-dir", str(cache), "--run-dir", str(tmp_path / "run")]
        monkeypatch.setattr(sys, "argv", ["featx", *words])
        outputs.append(featx(*words, "--epochs", 2))
        assert not [request for request in asked[before:] if request.startswith("GET") and ".jpg" in request]
        outputs.append(featx("extract", f"{address}/train/nothing", exit_code=2))
    assert "***@" in outputs[0].output, "the command that extracts them"
    assert f"http://***@{host}/photos" in (tmp_path / "run" / "metrics.json").read_text()
    files = [path for folder in ("run", "cache", "home") for path in (tmp_path / folder).rglob("*") if path.is_file()]
    assert files
    for text in [*(result.output for result in outputs), caplog.text]:
        assert "hush" not in text
    assert not [path for path in files if b"hush" in path.read_bytes()]


def test_images_of_a_server_that_tells_only_their_times_are_read_every_time(photos, tmp_path):
    """Whoever writes a file may set its time, as `rsync -t` does."""
    image = photos / "train" / "sea" / "sea.0.jpg"
    content = bytearray(image.read_bytes())
    with web_server(tmp_path, "me:word", etags=False) as (host, _):
        for density in (1, 2):
            content[15] = density  # in JFIF's header
            image.write_bytes(content)
            os.utime(image, (1e9,) * 2)
            dataset = scan(f"http://me:word@{host}/photos", tmp_path / "cache")
            digest = bytes(dataset.digests[dataset.paths.index("train/sea/sea.0.jpg")])
            assert digest == hashlib.sha256(content).digest()


@pytest.mark.parametrize("address", ["s3://KEYID:sec/ret@bucket/photos", "zip://::s3://KEYID:sec/ret@bucket/p.zip"])
def test_credentials_in_an_address_of_s3_are_refused_and_not_repeated(featx: Featx, address):
    for words in (("extract", address), ("cache", "ls", "--cache-dir", address), ("extract", "x", address)):
        output = featx(*words, exit_code=2).output
        assert "sec" not in output
        assert "KEYID" not in output


def test_the_command_in_results_has_no_credentials(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["featx", "compare", "https://me:pass@host/photos?sig=abc", "--seed", "1"])
    assert command_line() == "featx compare 'https://***@host/photos?***' --seed 1"


# Trouble


def test_a_bucket_that_is_not_there_is_one_sentence(featx: Featx, server, photos, cache):
    output = featx("extract", "s3://no-such-bucket/photos", "--cache-dir", cache, exit_code=2).output
    assert output.startswith("featx: There is no folder s3://no-such-bucket/photos.")
    with pytest.raises(StoreError, match=r"s3://no-such-bucket/x/.* failed: the bucket does not exist\."):
        extract_features(photos, cache_dir="s3://no-such-bucket/x", **FEW)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, "no valid credentials were found; set AWS_ACCESS_KEY_ID"),
        (ENVIRONMENT | {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "no connection"),
    ],
)
def test_no_credentials_and_no_server_are_one_line(tmp_path, environment, expected):
    code = "from featx.__main__ import run; import sys; sys.argv[1:] = ['extract', 's3://bucket/photos']; run()"
    result = python(code, HOME=str(tmp_path), **environment)
    assert result.returncode == 2
    assert result.stderr.startswith("featx: The folder s3://bucket/photos cannot be read: ")
    assert expected in result.stderr
    assert result.stderr.count("\n") == 1
    assert "testing-only-secret" not in result.stderr + result.stdout


@pytest.mark.parametrize(
    ("address", "module", "package"),
    [("s3://b/x", "s3fs", "featx[s3]"), ("gs://b/x", "gcsfs", "gcsfs"), ("hf://b/x", "huggingface_hub", "hugging")],
)
def test_a_package_that_is_missing_is_named(address, module, package):
    code = (
        f"import sys; sys.modules[{module!r}] = None; sys.argv[1:] = ['extract', {address!r}]\n"
        "from featx.__main__ import run; run()"
    )
    result = python(code)
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert re.search(f'pip install (--python \\S+ )?"{re.escape(package)}', result.stderr)


def test_pixels_of_a_cache_elsewhere_stay_on_this_machine(photos, store_address, home, featx):
    extract_features(photos, cache_dir=store_address, keep_pixels=True, **FEW)
    other = extract_features(photos, cache_dir=store_address, **{**FEW, "layer": "block1_pool"})
    assert (other.n_computed, other.timings.n_kept) == (12, 12)
    (entry,) = [one for one in list_cache(store_address) if one.store and one.store.recipe.is_of_pixels]
    assert home in entry.path.parents
    featx("cache", "compact", "--cache-dir", store_address)
    (segment,) = entry.path.glob("seg-*.h5")
    segment.write_bytes(segment.read_bytes()[:-1000])
    featx("cache", "verify", "--mend", "--cache-dir", store_address, exit_code=1)
    assert [path.name for path in entry.path.glob("*seg-*")] == [f"damaged-{segment.name}"]
    featx("cache", "rm", entry.name, "--yes", "--cache-dir", store_address)
    assert not entry.path.exists()


def test_a_store_is_kept_only_where_files_are_written_whole(photos, cache):
    with pytest.raises(StoreError, match="only to object stores"):
        extract_features(photos, cache_dir="memory://features", **FEW)


def test_a_path_that_has_lost_a_slash_is_not_taken_for_a_folder():
    with pytest.raises(FeatxError, match="Give an address as text"):
        as_storage_path(Path("s3://bucket/photos"))


# What stays as it was


def test_a_warm_run_on_this_machine_loads_no_library_for_others(photos, cache):
    extract_features(photos, cache_dir=cache, **FEW)
    code = (
        "import sys; from pathlib import Path; from featx.extract.extract import extract_features\n"
        f"done = extract_features(Path({str(photos)!r}), cache_dir=Path({str(cache)!r}), **{FEW})\n"
        "assert done.n_cached == 12; print({'fsspec', 'upath', 's3fs', 'tensorflow'} & set(sys.modules))"
    )
    assert python(code).stdout == "set()\n"


def test_what_cannot_lie_on_an_object_store_is_kept_here_for_each_cache(home):
    one, other = (local_dir(as_storage_path(f"s3://bucket/{name}")) for name in ("a", "b"))
    assert one != other
    assert one.parent == other.parent == home
    assert local_dir(Path("cache")) == Path("cache")


def test_digests_are_looked_up_and_read_a_portion_at_a_time(tmp_path, monkeypatch):
    paths = []
    for number in range(20):
        Image.new("L", (2, 2), number).save(tmp_path / f"{number}.png")
        paths.append(tmp_path / f"{number}.png")
    aged(tmp_path)
    expected, _ = digests_module.digest_files(paths, tmp_path / "one")
    looked_up: list[int] = []
    lookup = StatCache.lookup
    monkeypatch.setattr(StatCache, "lookup", lambda self, names: (looked_up.append(len(names)), lookup(self, names))[1])
    monkeypatch.setattr(digests_module, "PORTION", 7)
    for _ in range(2):
        found, reasons = digests_module.digest_files([*paths, tmp_path / "gone.png"], tmp_path / "two")
        assert np.array_equal(found[:20], expected)
        assert list(reasons) == [20]
    assert looked_up == [7, 7, 7] * 2


@pytest.mark.parametrize(
    "named", ["s3://bucket/photos", "https://host/a b", "zip://in::s3://b/x.zip", "hf://datasets/a/b"]
)
def test_a_place_is_shown_as_it_was_named(named):
    path = as_data(named)
    assert isinstance(path, RemotePath)
    assert str(path) == redacted(named) == named
    assert (path / "x").parent == path
