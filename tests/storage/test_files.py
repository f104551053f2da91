"""The one door for files that are read as a whole: regular ones of bounded size, without waiting."""

import os
from pathlib import Path

import pytest

from featx.engines.networks import check_network, network_path, read_network
from featx.errors import FeatxError, StoreError
from featx.heads.inference import read_head
from featx.storage.files import OddFileError, check_readable, check_regular, read_small
from featx.train.run_folder import read_run
from tests.store.test_feature_store import RECIPE

pytestmark = pytest.mark.timeout(60)


def put_fifo(path: Path) -> None:
    os.mkfifo(path)


def put_link_to_fifo(path: Path) -> None:
    os.mkfifo(path.with_name("fifo"))
    path.symlink_to("fifo")


def put_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def put_folder(path: Path) -> None:
    path.mkdir()


def put_terabyte(path: Path) -> None:
    path.touch()
    os.truncate(path, 1 << 40)


ODD = [put_fifo, put_link_to_fifo, put_device, put_folder, put_terabyte]


def test_a_file_of_the_largest_size_is_read_and_a_larger_one_is_not(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert read_small(path, 5) == b"12345"
    with pytest.raises(OddFileError, match="larger than"):
        read_small(path, 4)


@pytest.mark.parametrize("put", ODD)
def test_what_is_no_small_regular_file_is_refused_without_waiting(tmp_path, put):
    put(tmp_path / "file")
    with pytest.raises(OddFileError):
        read_small(tmp_path / "file")
    with pytest.raises(OddFileError):
        check_regular(tmp_path / "file", 1000)


def test_holes_of_a_sparse_file_are_not_read_to_see_whether_the_system_can(tmp_path):
    path = tmp_path / "file"
    put_terabyte(path)
    with path.open("r+b") as file:
        file.seek(1 << 30)
        file.write(b"x" * 10_000)
    check_readable(path)


def test_a_fifo_is_nothing_that_can_be_read(tmp_path):
    put_fifo(tmp_path / "file")
    with pytest.raises(StoreError, match="not a regular file"):
        check_readable(tmp_path / "file")


RUN = {
    "metrics.json": '{"format": "featx-run", "format_version": 1}',
    "class_names.json": '["sea", "wood"]',
    "recipe.json": RECIPE.to_json(),
    "dense.keras": "",
}


@pytest.mark.parametrize("put", ODD)
@pytest.mark.parametrize("name", ["metrics.json", "class_names.json", "recipe.json"])
def test_a_run_with_an_odd_file_is_one_sentence(tmp_path, name, put):
    for other, text in RUN.items():
        (tmp_path / other).write_text(text)
    assert read_run(tmp_path).class_names == ("sea", "wood")
    (tmp_path / name).unlink()
    put(tmp_path / name)
    with pytest.raises(FeatxError, match=r"cannot be read|There is no run"):
        read_run(tmp_path)


@pytest.mark.parametrize("put", ODD)
def test_an_odd_head_is_one_sentence(tmp_path, put):
    put(tmp_path / "dense.keras")
    with pytest.raises(FeatxError):
        read_head(tmp_path / "dense.keras")


@pytest.mark.parametrize("put", ODD)
def test_an_odd_network_is_damaged(tmp_path, put, caplog):
    path = network_path(RECIPE, tmp_path)
    path.parent.mkdir()
    put(path)
    assert check_network(path)
    assert read_network(RECIPE, tmp_path) is None
    assert "is damaged" in caplog.text
