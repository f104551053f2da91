"""Where commands write: taken before the work, and no result lost after it."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from featx.report import folder as report_folder
from featx.storage import OUTPUT_MARK, new_file, new_folder

FAST = ["--weights", "random", "--image-size", "32", "--layer", "block1_pool", "--pooling", "avg", "--epochs", 1]
#: The head that takes least, for tests that need a comparison of something.
ONE_HEAD = ["--head", "knn"]


@pytest.fixture
def volume(tmp_path) -> Iterator[Path]:
    """A mount point, as of a container."""
    (tmp_path / "volume").mkdir()
    mounting = subprocess.run(["mount", "-t", "tmpfs", "tmpfs", tmp_path / "volume"], capture_output=True, check=False)
    if mounting.returncode:
        pytest.skip("nothing can be mounted here")
    yield tmp_path / "volume"
    subprocess.run(["umount", "--lazy", tmp_path / "volume"], check=True)


@pytest.mark.parametrize("words", [["compare", "--report-dir"], ["train-top", "--run-dir"]], ids=lambda words: words[0])
def test_the_second_command_for_a_folder_is_refused_before_it_begins(data, here, featx, words):
    with new_folder(Path("taken")):
        result = featx(words[0], data, *FAST, words[1], "taken", exit_code=2)
    assert "Another featx command is writing" in result.stderr
    assert "classes" not in result.stderr


@pytest.mark.usefixtures("without_rendering")
def test_runs_reports_and_exports_are_written_to_a_mount_point(data, here, featx, volume):
    featx("compare", data, *FAST, "--report-dir", volume)
    assert {"index.html", "results.json", "runs", OUTPUT_MARK} <= {path.name for path in volume.iterdir()}
    assert not list(volume.glob(".tmp-*"))
    assert {path.name for path in (volume / "runs").iterdir()} == {"vgg16-dense", "vgg16-logreg"}
    with new_file(volume / "taken.keras") as making:
        making.built.touch()
        assert "Another featx" in featx("export", volume, "--to", volume / "taken.keras", exit_code=2).stderr


@pytest.mark.usefixtures("without_rendering")
def test_a_folder_that_is_taken_meanwhile_and_a_page_that_fails_lose_nothing(data, here, featx, monkeypatch):
    page_html = report_folder.page_html

    def taken_meanwhile(*args: object, **options: object) -> str:
        (here / "report").mkdir()
        (here / "report" / "mine.txt").touch()
        return page_html(*args, **options)

    monkeypatch.setattr(report_folder, "page_html", taken_meanwhile)
    result = featx("compare", data, *FAST, *ONE_HEAD, "--report-dir", "report")
    assert f"(directory not empty). It is in {here}/report-2." in result.stderr
    assert f"Report: {here}/report-2" in result.stdout
    assert [path.name for path in (here / "report").iterdir()] == ["mine.txt"]
    assert (here / "report-2" / "index.html").exists()

    def too_large(*_: object, **__: object) -> str:
        raise MemoryError("a page of 68 MB")

    monkeypatch.setattr(report_folder, "page_html", too_large)
    result = featx("compare", data, *FAST, *ONE_HEAD, "--report-dir", "large", exit_code=2)
    assert "not enough memory" in result.stderr
    assert "Finished results are in large." in result.stderr
    assert len(json.loads((here / "large" / "results.json").read_text())["approaches"]) == 1

    def too_many(*_: object, **__: object) -> None:
        raise MemoryError("too many classes")

    monkeypatch.setattr("featx.compare.compare._analyse_errors", too_many)
    featx("compare", data, *FAST, *ONE_HEAD, "--report-dir", "many", exit_code=2)
    assert {path.name for path in (here / "many" / "runs").iterdir()} == {"vgg16-knn"}
    photo = next((data / "test" / "sea").iterdir())
    featx("predict", "large", photo)
