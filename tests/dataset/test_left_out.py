"""Which folders of a data set are featx's own, and left out: by its mark, or by what an earlier featx left in them."""

import logging
import shutil
import zipfile
from pathlib import Path

import pytest

from featx.dataset.scanning import scan
from featx.errors import DatasetError
from featx.storage import OUTPUT_MARK, mark_folder

#: What earlier versions have left in folders: files without content are enough to tell.
CACHE = (
    "digests.sqlite",
    "networks/vgg16.zip",
    "sample-digits/train/0/0001.png",
    "vgg16-block5_pool-150x150-1f3a9c02/recipe.json",
    "vgg16-block5_pool-150x150-1f3a9c02/seg-1.h5",
)
REPORT = ("results.json", "index.html", "accuracy.png", "runs/vgg16-dense/metrics.json", "runs/vgg16-dense/dense.keras")
RUN = ("metrics.json", "class_names.json", "recipe.json", "dense.keras")


@pytest.fixture
def data(make_photos, tmp_path) -> Path:
    """Two classes, without splits."""
    root = make_photos(tmp_path / "data", n_train=40, n_test=0)
    for name in ("sea", "wood"):
        (root / "train" / name).rename(root / name)
    for name in ("train", "test"):
        shutil.rmtree(root / name)
    return root


def fill(folder: Path, names: tuple[str, ...], content: bytes = b"") -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def photo(data: Path) -> bytes:
    return (data / "sea" / "sea.0.jpg").read_bytes()


@pytest.mark.parametrize("is_marked", [False, True])
@pytest.mark.parametrize("is_packed", [False, True])
def test_what_earlier_versions_have_left_is_known_by_what_is_in_it(data, tmp_path, caplog, is_marked, is_packed):
    caplog.set_level(logging.INFO, "featx")
    made = [
        fill(data / "cache", CACHE),
        fill(data / "sea" / "cache", CACHE),  # started in a class folder
        fill(data / "my report", REPORT),
        fill(data / "reports" / "2025-01-02-030405", REPORT),
        fill(data / "runs" / "2025-01-02-030405", RUN),
        fill(data / "run-1", RUN),
        fill(data / "vgg16-block5_pool-150x150-1f3a9c02", ("recipe.json", "seg-1.h5", "features.h5")),
    ]
    if is_marked:
        made.append(fill(data / "reports" / "2025-01-03-030405", ("views.png",)))
        fill(data / "reports", ("notes/to myself.txt",))
        for folder in (*made, data / "reports", data / "runs"):
            (folder / OUTPUT_MARK).touch()
    root = data
    if is_packed:
        root = tmp_path / "data.zip"
        with zipfile.ZipFile(root, "w") as file:
            for path in sorted(data.rglob("*")):
                file.write(path, path.relative_to(data))
    dataset = scan(root, tmp_path / "cache")
    assert (dataset.class_names, dataset.n_images) == (("sea", "wood"), 80)
    assert dataset.warnings == ()
    (said,) = [message for message in caplog.messages if "featx made" in message]
    assert said.startswith("Left out, because featx made them: 7 folders (cache, my report, ")


@pytest.mark.parametrize("is_marked", [False, True])
@pytest.mark.parametrize("name", ["cache", "reports", "runs", "networks", "sample-digits"])
def test_a_folder_with_images_of_others_is_a_class_whatever_it_is_called(data, tmp_path, name, is_marked):
    fill(data / name, ("1.jpg",), photo(data) + b"1")
    fill(data / name, ("2.png", "deep/3.jpg"), photo(data) + b"2")
    fill(data / name / "2025-01-02-030405", (OUTPUT_MARK, *REPORT))  # of a featx that was started in DATA
    fill(data / name, ("digests.sqlite",))
    if is_marked:
        (data / name / OUTPUT_MARK).touch()
    dataset = scan(data, tmp_path / "elsewhere", to_train=False)
    assert dataset.class_names == tuple(sorted(("sea", "wood", name)))
    assert [path for path in dataset.paths if path.startswith(name)] == [
        f"{name}/1.jpg",
        f"{name}/2.png",
        f"{name}/deep/3.jpg",
    ]


def test_a_folder_that_featx_has_made_is_left_out_and_images_of_others_in_it_are_said(data, tmp_path, caplog):
    caplog.set_level(logging.INFO, "featx")
    fill(data / "mine", ("1.jpg",), photo(data))
    mark_folder(data / "mine")
    dataset = scan(data, tmp_path / "cache")
    assert (dataset.class_names, dataset.n_images) == (("sea", "wood"), 80)
    assert "Left out, because featx made it: 1 folder (mine)." in caplog.messages
    own = f"because featx made it, although there are images in it: 1 folder (mine). To read them, remove {OUTPUT_MARK}"
    assert [warning for warning in dataset.warnings if own in warning]
    (data / "mine" / OUTPUT_MARK).unlink()
    assert scan(data, tmp_path / "cache", to_train=False).class_names == ("mine", "sea", "wood")


def test_an_empty_folder_of_featxs_is_no_class_that_is_shown_and_left_out_then(data, tmp_path, caplog):
    caplog.set_level(logging.INFO, "featx")
    mark_folder(fill(data / "mine" / "0", REPORT))
    dataset = scan(data, tmp_path / "cache")
    assert "mine" not in "".join(message for message in caplog.messages if "classes" in message)
    assert dataset.warnings == ()


def test_a_cache_is_not_put_into_a_folder_of_images(data, tmp_path):
    before = sorted(data.rglob("*"))
    with pytest.raises(DatasetError, match=r"cannot be in .*/sea, where images lie, such as sea\.0\.jpg"):
        scan(data, data / "sea")
    assert sorted(data.rglob("*")) == before
    (data / "sea" / OUTPUT_MARK).touch()  # as an earlier featx did
    with pytest.raises(DatasetError, match="where images lie"):
        scan(data, data / "sea")
    assert scan(data, data / "cache").n_images == 80
    assert (data / "cache" / OUTPUT_MARK).stat().st_size
