import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from featx.dataset.sample import default_data, write_sample
from featx.dataset.scanning import scan
from featx.errors import FeatxError


@pytest.fixture(scope="module")
def sample_dir(tmp_path_factory):
    return write_sample(tmp_path_factory.mktemp("cache") / "sample-digits")


def content(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_sample_is_a_data_set_of_50_training_images_per_class(sample_dir, tmp_path):
    dataset = scan(sample_dir, tmp_path)
    assert dataset.class_names == tuple("0123456789")
    assert np.bincount(dataset.labels[~dataset.is_test]).tolist() == [50] * 10
    assert dataset.n_images == 1797
    assert dataset.warnings == ()


def test_sample_is_scikit_learns_digits(sample_dir):
    digits = load_digits()
    for path in sample_dir.rglob("*.png"):
        with Image.open(path) as image:
            assert image.mode == "L"
            pixels = np.asarray(image)
        number = int(path.stem)
        assert path.parent.name == str(digits.target[number])
        assert np.abs(pixels / 255 * 16 - digits.images[number]).max() < 0.04


def test_sample_is_the_same_every_time(sample_dir, tmp_path):
    assert content(write_sample(tmp_path / "again")) == content(sample_dir)
    assert [path.name for path in tmp_path.iterdir()] == ["again"]


def test_finished_sample_is_not_written_again(sample_dir):
    before = {path: path.stat().st_mtime_ns for path in sample_dir.rglob("*")}
    program = (
        "import sys; from pathlib import Path; from featx.dataset.sample import write_sample\n"
        "write_sample(Path(sys.argv[1])); sys.exit('sklearn' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program, sample_dir], check=False).returncode == 0
    assert {path: path.stat().st_mtime_ns for path in sample_dir.rglob("*")} == before


def test_sample_goes_into_an_empty_folder_and_makes_its_parents(tmp_path):
    (tmp_path / "a").mkdir()
    assert write_sample(tmp_path / "a") == tmp_path / "a"
    assert len(list(write_sample(tmp_path / "b/c/d").rglob("*.png"))) == 1797


def test_something_else_is_never_overwritten(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    (tmp_path / "file").write_text("mine too")
    for name in ("mine", "file"):
        with pytest.raises(FeatxError, match="is not the complete sample"):
            write_sample(tmp_path / name)
    assert content(tmp_path).keys() == {"mine/notes.txt", "file"}


def test_a_sample_that_lacks_images_is_an_error(tmp_path):
    sample_dir = write_sample(tmp_path / "sample")
    next(sample_dir.rglob("*.png")).unlink()
    with pytest.raises(FeatxError, match="is not the complete sample"):
        write_sample(sample_dir)


def test_two_processes_may_write_the_sample_at_once(tmp_path):
    program = (
        "import sys; from pathlib import Path; from featx.dataset.sample import write_sample as w; w(Path(sys.argv[1]))"
    )
    processes = [subprocess.Popen([sys.executable, "-c", program, tmp_path / "sample"]) for _ in range(2)]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    assert [path.name for path in tmp_path.iterdir()] == ["sample"]
    assert len(list((tmp_path / "sample").rglob("*.png"))) == 1797


def test_a_sample_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").write_text("a file where a folder should be")
    with pytest.raises(FeatxError, match="cannot be written"):
        write_sample(tmp_path / "file" / "sample")


def test_data_is_used_if_there_is_anything_in_it(tmp_path):
    (tmp_path / "data" / "cats").mkdir(parents=True)
    folder, line = default_data(tmp_path / "cache", tmp_path / "data")
    assert folder == tmp_path / "data"
    assert str(tmp_path / "data") in line
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("data", ["missing", "empty", "hidden", "file"])
def test_sample_is_used_if_there_is_no_data(tmp_path, data):
    data_dir = tmp_path / "data"
    if data == "file":
        data_dir.write_text("no folder")
    elif data != "missing":
        data_dir.mkdir()
    if data == "hidden":
        (data_dir / ".gitkeep").touch()
    folder, line = default_data(tmp_path / "cache", data_dir)
    assert folder == tmp_path / "cache" / "sample-digits"
    assert (folder / "train" / "7").is_dir()
    assert "built-in sample" in line
    assert "\n" not in line
