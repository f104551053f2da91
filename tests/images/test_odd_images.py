"""Every kind of odd image is read right or refused for its reason: alone, and in a data set that a command is given."""

import json
import os
import random
import re
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from featx.errors import ImageError
from featx.images.decode import decode_image, read_file
from tests.chaos.tally import IS_FULL
from tests.conftest import write_photos
from tests.images.fuzz_decode import damaged, outcome_of
from tests.images.odd_images import (
    HEIGHT,
    UPRIGHT,
    WIDTH,
    OddImage,
    Outcome,
    gray,
    on_white,
    photo,
    png,
    table,
    tiff,
    tiles_of,
)

ROOT = Path(__file__).parents[2]


def kinds(*outcomes: Outcome) -> list[OddImage]:
    return [kind for kind in table() if kind.outcome in outcomes]


def each(*outcomes: Outcome) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("kind", kinds(*outcomes), ids=lambda kind: kind.name)


def test_the_table_has_many_kinds_each_with_its_own_name():
    assert len(table()) >= 60
    assert max(Counter(kind.name for kind in table()).values()) == 1
    assert max(Counter(kind.file_name for kind in table()).values()) == 1
    assert min(Counter(kind.outcome for kind in table()).values()) >= 5
    for kind in kinds(Outcome.SKIPPED):
        assert kind.reason, kind.name
    for kind in kinds(Outcome.DECODED):
        known = kind.pixels is not None or kind.independent_decoder
        assert known or kind.name == "jpg-with-an-end-mark-halfway", kind.name


# ---------------------------------------------------------------- files, one by one


@dataclass(frozen=True)
class Laid:
    """The whole table as a data set, with good images beside it.

    Attributes:
        root: the data set.
        paths: where the image of each kind is, by the kind's name.
        impossible: why a kind cannot be made here, by its name.
    """

    root: Path
    paths: dict[str, Path]
    impossible: dict[str, str]

    def path(self, kind: OddImage) -> Path:
        """Return where the image is; skip the test if it could not be made."""
        if kind.name in self.impossible:
            pytest.skip(f"{kind.name} cannot be made here: {self.impossible[kind.name]}")
        return self.paths[kind.name]


@pytest.fixture(scope="module")
def laid(tmp_path_factory):
    """Lay the table out in the class folders of both splits."""
    here = tmp_path_factory.mktemp("odd")
    root = write_photos(here / "data", n_train=12, n_test=4)
    (here / "outside").mkdir()
    folders = sorted(path for path in root.glob("*/*"))
    paths, impossible = {}, {}
    for number, kind in enumerate(table()):
        folder = folders[number % len(folders)]
        if kind.name.startswith("link-in-a-circle"):
            folder = folders[0]  # both in one
        try:
            kind.make(folder, here / "outside")
        except PermissionError as error:
            impossible[kind.name] = str(error)
        else:
            paths[kind.name] = kind.path_in(folder)
    for path in [*(here / "outside").rglob("*"), *root.rglob("*")]:
        os.utime(path, (1e9, 1e9), follow_symlinks=False)  # what was written just now is digested again each time
    yield Laid(root, paths, impossible)
    shutil.rmtree(here)  # devices, and names that not every program can list


def size_of(kind: OddImage) -> tuple[int, int]:
    """Return the image's own height and width, so that nothing is resized."""
    if kind.pixels is not None:
        return kind.pixels.shape[:2]
    if kind.name.endswith("one-pixel"):
        return (1, 1)
    return (HEIGHT, WIDTH) if kind.orientation < 5 else (WIDTH, HEIGHT)


def largest_difference(pixels: np.ndarray, expected: np.ndarray) -> int:
    assert pixels.shape == expected.shape
    return int(np.abs(pixels.astype(int) - expected).max())


@each(Outcome.DECODED)
def test_what_can_be_read_has_the_pixels_that_were_put_in(laid, kind):
    pixels = decode_image(read_file(laid.path(kind)), size_of(kind))
    assert pixels.shape == (*size_of(kind), 3)
    assert pixels.dtype == np.uint8
    if kind.pixels is not None:
        assert largest_difference(pixels, kind.pixels) <= kind.tolerance


@pytest.mark.parametrize("kind", [kind for kind in table() if kind.independent_decoder], ids=lambda kind: kind.name)
def test_what_can_be_read_has_the_pixels_of_another_decoder(laid, kind):
    data = read_file(laid.path(kind))
    expected = UPRIGHT[kind.orientation](pixels_by_tensorflow(data, kind.independent_decoder))
    assert largest_difference(decode_image(data, expected.shape[:2]), expected) <= kind.decoder_tolerance


def pixels_by_tensorflow(data: bytes, name: str) -> np.ndarray:
    """Return the first frame, `(height, width, 3)` uint8, transparency on white."""
    import tensorflow as tf

    options = {}
    if name == "decode_jpeg":
        options = {"channels": 3, "dct_method": "INTEGER_ACCURATE"}  # what Pillow asks libjpeg for
    elif b"tRNS" in data:
        options = {"channels": 4}  # else the transparent colour is dropped
    with tf.device("CPU"):
        pixels = getattr(tf.io, name)(data, **options).numpy()
    if pixels.ndim == 4:
        pixels = pixels[0]
    channels = pixels.shape[2]
    return {1: gray, 2: on_white, 3: np.asarray, 4: on_white}[channels](pixels)


@each(Outcome.SKIPPED)
def test_what_cannot_be_read_is_refused_with_its_reason(laid, kind):
    path = laid.path(kind)
    with pytest.raises(ImageError) as caught:
        decode_image(read_file(path), (8, 8))
    assert re.fullmatch(kind.reason, str(caught.value)), str(caught.value)


#: Pictures that are not all there, which Pillow would give black where they lack pixels.
_COLOR = {258: (8,) * 3, 262: 2, 277: 3}
HALF_PICTURES = {
    "tif-without-its-second-strip": lambda: tiff([photo("half")[:10].tobytes()], {**_COLOR, 278: 10}),
    "tif-without-its-last-tiles": lambda: tiff(tiles_of(photo("half"), 16)[:2], _COLOR, tile=16),
    "tif-without-its-last-plane": lambda: tiff(
        [photo("half")[..., channel].tobytes() for channel in range(2)], {**_COLOR, 284: 2}
    ),
}


def test_a_png_whose_pixels_end_early_is_black_from_there_on():
    """As docs/images.md says: the stream is sound, and nothing tells that a writer has forgotten half of it."""
    pixels = decode_image(png(photo("half"), 8, 2, size=(WIDTH, 2 * HEIGHT)), (2 * HEIGHT, WIDTH))
    assert np.array_equal(pixels[:HEIGHT], photo("half"))
    assert not pixels[HEIGHT:].any()


@pytest.mark.parametrize("name", HALF_PICTURES)
def test_a_picture_that_is_not_all_there_is_refused(name):
    with pytest.raises(ImageError, match=r"^(truncated|unreadable): "):
        decode_image(HALF_PICTURES[name](), (HEIGHT, WIDTH))


# ---------------------------------------------------------------- the table as a data set


@dataclass(frozen=True)
class Extract:
    """What `featx extract` has said."""

    exit_code: int
    stdout: bytes
    stderr: bytes

    @property
    def summary(self) -> dict[str, Any]:
        return json.loads(self.stdout)

    @property
    def lines(self) -> list[str]:
        return self.stderr.decode("utf-8").splitlines()


@pytest.fixture(scope="module")
def extracts(laid, tmp_path_factory) -> dict[str, Extract]:
    """Put the data set through the command three times, each a process of its own, as a user does.

    Networks of other tests are not used: what is said while one is converted matters too.
    """
    cache = tmp_path_factory.mktemp("odd cache")
    words = ["extract", laid.root, "--cache-dir", cache, "--weights", "random", "--layer", "block1_pool"]
    words += ["--image-size", "32", "--precision", "float32", "--engine", "openvino"]
    return {
        "first": run_featx(*words, "--json", cwd=laid.root.parent),
        "second": run_featx(*words, "--json", cwd=laid.root.parent),
        "for people": run_featx(*words, cwd=laid.root.parent),
    }


def run_featx(*words: object, cwd: Path) -> Extract:
    finished = subprocess.run(
        [sys.executable, "-m", "featx", *map(str, words)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=300,
        check=False,
    )
    return Extract(finished.returncode, finished.stdout, finished.stderr)


def is_harmless(letter: str) -> bool:
    return letter.isprintable()  # no control character, no half of one that UTF-8 lacks, nothing that turns text round


def image_files(laid: Laid) -> int:
    """Count what a data set's folders have of files with an image's suffix, of kinds that are opened."""
    n_good = 2 * (12 + 4)
    opened = [kind for kind in kinds(Outcome.DECODED, Outcome.SKIPPED) if kind.name in laid.paths]
    return n_good + sum(kind.n_files for kind in opened)


def refused_kinds(laid: Laid) -> list[OddImage]:
    return [kind for kind in kinds(Outcome.SKIPPED) if kind.name in laid.paths]


def test_an_extraction_of_odd_images_succeeds(extracts):
    for extract in extracts.values():
        assert extract.exit_code == 0, extract.stderr.decode()


def test_every_bad_file_is_skipped_with_its_reason_and_no_other_file_is(laid, extracts):
    skipped = {image["path"]: image["reason"] for image in extracts["first"].summary["skipped"]}
    expected = {str(laid.paths[kind.name]): kind.scan_reason or kind.reason for kind in refused_kinds(laid)}
    assert skipped.keys() == expected.keys()
    wrong = {path: reason for path, reason in skipped.items() if not re.fullmatch(expected[path], reason)}
    assert wrong == {}


def test_no_file_is_silently_missing(laid, extracts):
    first = extracts["first"].summary
    refused = refused_kinds(laid)
    n_unscanned = sum(bool(kind.scan_reason) for kind in refused)
    assert first["n_images"] + n_unscanned == image_files(laid)
    n_copies = sum(kind.n_files - 1 for kind in table())
    assert first["n_cached"] == 0
    assert first["n_computed"] == first["n_images"] - (len(refused) - n_unscanned) - n_copies
    assert first["n_computed"] == 32 + len([kind for kind in kinds(Outcome.DECODED) if kind.name in laid.paths])


def test_the_scan_warns_of_all_that_it_leaves_out(laid, extracts):
    lines = extracts["first"].lines
    n_unnamed = len(kinds(Outcome.NO_IMAGE_BY_NAME))
    (left_out,) = [
        line for line in lines if "Left out, because featx does not read files with these suffixes: " in line
    ]
    assert sum(map(int, re.findall(r"(\d+) (?:\.|without|other)", left_out))) == n_unnamed
    n_unscanned = sum(bool(kind.scan_reason) for kind in refused_kinds(laid))
    assert any(f"Left out, unreadable: {n_unscanned} files (" in line for line in lines)
    n_copies = sum(kind.n_files - 1 for kind in table())
    assert n_copies == 1
    assert any("Exact copies of other images in the same split: 1, such as " in line for line in lines)
    assert len([line for line in lines if "warning" in line]) == 3


def test_a_second_extraction_computes_nothing_and_says_the_same(extracts):
    first, second = extracts["first"], extracts["second"]
    assert second.summary["n_computed"] == 0
    assert second.summary["n_cached"] == first.summary["n_computed"] + 1  # the copy has its features too
    for member in ("n_images", "n_train", "n_test", "class_names", "store_dir", "recipe_key"):
        assert second.summary[member] == first.summary[member]
    assert as_pairs(second) == as_pairs(first)
    assert [line for line in second.lines if "warning" in line] == [line for line in first.lines if "warning" in line]


def as_pairs(extract: Extract) -> list[tuple[str, str]]:
    return sorted((image["path"], image["reason"]) for image in extract.summary["skipped"])


#: The runs that the command is put through; the first one shows progress, and says that it converts a network.
RUNS = ["first", "second", "for people"]


@pytest.mark.parametrize("run", RUNS)
def test_nothing_but_featx_speaks_on_stderr(extracts, run):
    lines = extracts[run].stderr.decode("utf-8").removesuffix("\n").split("\n")
    assert [line for line in lines if not line.startswith("featx: ")] == []


@pytest.mark.parametrize("run", RUNS)
def test_control_characters_never_reach_the_terminal(extracts, run):
    extract = extracts[run]
    text = (extract.stdout + extract.stderr).decode("utf-8")  # strict: nothing undecodable either
    assert {letter for letter in text if not is_harmless(letter)} <= {"\n"}


@pytest.mark.parametrize("run", RUNS)
def test_what_files_are_called_reaches_the_terminal_escaped(extracts, run):
    extract = extracts[run]
    text = (extract.stdout + extract.stderr).decode("utf-8")
    harmful = {letter for letter in text if not is_harmless(letter)}
    assert harmful <= {"\n"}
    assert b"Traceback" not in extract.stderr


def test_people_are_told_how_many_were_skipped_and_where_to_read_of_all(laid, extracts):
    text = extracts["for people"].stdout.decode("utf-8")
    n_skipped = len(refused_kinds(laid))
    assert f"{n_skipped:,} skipped" in text
    assert f"… and {n_skipped - 10:,} more." in text
    listed = Path(extracts["first"].summary["store_dir"]) / "skipped.csv"
    assert f"Skipped images: {listed}" in text
    assert listed.is_file()


def test_people_are_told_numbers_that_add_up(extracts):
    assert "exact copies" not in extracts["for people"].stdout.decode("utf-8").splitlines()[0]


# ---------------------------------------------------------------- any bytes at all


def seeds() -> list[bytes]:
    """Return the small files of the table that are an image, or nearly."""
    formats = {"jpg", "png", "webp", "bmp", "dib", "gif", "tif"}
    named = [kind for kind in table() if kind.name.partition("-")[0] in formats and "-cut-at-" not in kind.name]
    return [kind.content for kind in named if isinstance(kind.content, bytes) and len(kind.content) < 6000]


SEEDS = seeds()

#: What the first bytes of each format look like: without them, random bytes would not get far.
SIGNATURES = [
    *(b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\x99\0\0\0WEBP", b"GIF89a"),
    *(b"II*\0", b"MM\0*", b"II+\0", b"BM"),
]


@st.composite
def damaged_files(draw) -> bytes:
    data = draw(st.sampled_from(SEEDS))
    return damaged(data, SEEDS, draw(st.randoms(use_true_random=False)))


@settings(
    max_examples=400, derandomize=True, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)
@given(
    damaged_files()
    | st.binary(max_size=64)
    | st.tuples(st.sampled_from(SIGNATURES), st.binary(max_size=99)).map(b"".join)
)
@example(b"")
def test_any_bytes_give_an_image_or_an_image_error(data):
    assert outcome_of(data)


@pytest.mark.parametrize("signature", SIGNATURES)
@pytest.mark.parametrize("image_size", [(1, 1), (64, 3)])
def test_any_bytes_give_an_image_or_an_image_error_at_any_size(signature, image_size):
    draw = random.Random(0)
    chosen = [data for data in SEEDS if data.startswith(signature[:4])]
    assert chosen
    for _ in range(60):
        assert outcome_of(damaged(draw.choice(chosen), SEEDS, draw), image_size)


def test_damage_of_every_kind_crashes_nothing_says_nothing_and_stays_within_time_and_memory(tmp_path):
    folder = tmp_path / "seeds"
    folder.mkdir()
    for number, data in enumerate(SEEDS):
        (folder / f"{number:03}").write_bytes(data)
    script = Path(__file__).with_name("fuzz_decode.py")
    finished = subprocess.run(
        [sys.executable, "-W", "error", script, folder, "25000" if IS_FULL else "8000", tmp_path / "result"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        timeout=300,
        check=False,
    )
    assert finished.returncode == 0, (finished.stderr, (tmp_path / "result.last").read_bytes().hex())
    assert finished.stdout == b""
    assert finished.stderr == b""
    result = json.loads((tmp_path / "result").read_text(encoding="utf-8"))
    assert result["broken"] == {}
    assert len(result["outcomes"]) >= 50  # else damage no longer gets beyond the first header
    assert "decoded" in result["outcomes"]
