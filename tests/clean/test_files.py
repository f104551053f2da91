"""What a file is: unreadable ones are only given up if nothing is lost, and odd is what the others are not."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from featx.clean.files import FileLook, look_at, look_at_files, odd_images, unreadable_problem, wrong_suffixes


def noise(height: int, width: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def kinds_of(looks: list[FileLook]) -> dict[str, str]:
    """Return the kind of oddness of each of some images, whose names are numbers."""
    names = [str(number) for number in range(len(looks))]
    blank = [""] * len(looks)
    return {problem.path: problem.kind for problem in odd_images(names, blank, blank, looks)}


def test_a_file_is_what_its_bytes_say(tmp_path):
    noise(30, 40).save(tmp_path / "a.jpg", "PNG")
    look = look_at(tmp_path / "a.jpg")
    assert (look.format, look.height, look.width, look.reason) == ("PNG", 30, 40, "")
    assert look.n_bytes == (tmp_path / "a.jpg").stat().st_size
    assert look.spread > 30


def test_only_files_without_a_picture_are_suggested_for_removal(tmp_path):
    noise(64, 64).save(tmp_path / "whole.jpg")
    whole = (tmp_path / "whole.jpg").read_bytes()
    lost = {
        "empty": b"",
        "cut off": whole[: len(whole) // 2],
        "page": b"<html><body>404 Not Found</body></html>",
        "text": b"Access denied",
        "zeros": bytes(1000),
    }
    others = {
        "PSD": b"8BPS" + bytes(40),
        "RAW": b"FUJIFILMCCD-RAW" + bytes(40),
        "video": b"\x1a\x45\xdf\xa3" + bytes(40),
        "zip": b"PK\x03\x04" + bytes(40),
        "pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:00",
    }
    for contents, suggestion in ((lost, "remove"), (others, "look at")):
        for name, data in contents.items():
            look = look_at(write(tmp_path / f"{name}.jpg", data))
            problem = unreadable_problem(name, "", "", look)
            assert (problem.suggestion, bool(problem.reason)) == (suggestion, True), name
    gone = unreadable_problem("gone", "", "", look_at(tmp_path / "gone.jpg"))
    assert (gone.suggestion, gone.reason) == ("look at", "no such file")


def test_a_picture_that_featx_refuses_stays(tmp_path):
    Image.fromarray(np.ones((8, 8), np.float32)).save(tmp_path / "float.tif")
    problem = unreadable_problem("float.tif", "", "", look_at(tmp_path / "float.tif"))
    assert problem.suggestion == "look at"
    assert "floating-point" in problem.reason


@pytest.mark.parametrize(
    ("odd", "kind"),
    [
        (FileLook("PNG", 200, 200, 1, 0.4), "blank"),
        (FileLook("PNG", 16, 20, 1, 50), "tiny"),
        (FileLook("PNG", 6000, 5000, 1, 50), "huge"),
        (FileLook("PNG", 100, 1200, 1, 50), "shape"),
        (FileLook("PNG", 1200, 100, 1, 50), "shape"),
        (FileLook("PNG", 200, 600, 1, 50), None),
    ],
)
def test_an_image_is_odd_if_the_others_are_not_like_it(odd, kind):
    usual = [FileLook("PNG", 200, 200 + number, 1, 50) for number in range(9)]
    assert kinds_of([*usual, odd]) == ({"9": kind} if kind else {})
    assert kinds_of([odd] * 10) == {}


def test_looks_come_in_the_order_of_the_files_and_the_oddest_first(tmp_path):
    for number in range(12):
        noise(40, 40 + number, number).save(tmp_path / f"{number}.png")
    looks = look_at_files([tmp_path / f"{number}.png" for number in range(12)], 3, show=False)
    assert [look.width for look in looks] == list(range(40, 52))
    small = [FileLook("PNG", side, side, 1, 50) for side in (20, 8, 16, 99, 99, 99, 99)]
    names = list("abcdefg")
    assert [problem.path for problem in odd_images(names, names, names, small)] == ["b", "c", "a"]


def test_a_wrong_suffix_is_renamed_to_a_name_that_is_free():
    looks = [FileLook(name) for name in ("PNG", "PNG", "JPEG", "JPEG", "WebP", "AVIF")]
    paths = ["cats/a.jpg", "cats/a.png", "cats/b.JPEG", "cats/c.png", "cats/d.e.gif", "cats/f.heif"]
    found = {one.path: one.suggestion for one in wrong_suffixes(paths, paths, paths, looks)}
    assert found == {
        "cats/a.jpg": "rename to a-2.png",
        "cats/c.png": "rename to c.jpg",
        "cats/d.e.gif": "rename to d.e.webp",
    }
