"""The test split that featx chooses: the same share of every class, and no image ever moves."""

import hashlib
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featx.dataset import ImageFolders, scan
from featx.dataset.image_dataset import hashed_test_mask, identical_groups, stratified_test_mask
from featx.dataset.split_record import SplitRecord, _Table
from featx.dataset.statcache import RECORDS_SPLITS, StatCache
from featx.errors import DatasetError, FeatxError
from tests.dataset.test_image_dataset import as_rows, counts, fill, random_digests, sides

FLOWERS = ("daisy", "dandelion", "rose", "sunflower", "tulip")
RECORD = "splits-0.2.bin"


@pytest.fixture
def flowers(tmp_path) -> Path:
    """Five classes of 120 images."""
    fill(tmp_path / "flowers", **dict.fromkeys(FLOWERS, 120))
    return tmp_path / "flowers"


@pytest.fixture(autouse=True)
def _all_is_logged(caplog):
    caplog.set_level("INFO", "featx")


def older(cache: Path) -> None:
    """Make a cache that of a featx that recorded no splits."""
    (cache / RECORD).unlink(missing_ok=True)
    with closing(sqlite3.connect(cache / "digests.sqlite")) as database, database:
        database.execute("DELETE FROM states WHERE path IN (?, ?)", [RECORDS_SPLITS, RECORD.encode()])


# The same share of every class


def test_each_class_has_its_share_and_two_people_the_same_split(flowers, tmp_path, caplog):
    mine, yours = scan(flowers, tmp_path / "my cache"), scan(flowers, tmp_path / "your cache")
    assert counts(mine) == dict.fromkeys(FLOWERS, (96, 24))
    assert (mine.is_test == yours.is_test).all()
    assert mine.digest == yours.digest
    said = f"Chose 120 of 600 images for testing, the same share of every class. {tmp_path / 'my cache' / RECORD} keeps"
    assert sum(said in message for message in caplog.messages) == 1
    assert scan(flowers, tmp_path / "my cache").digest == mine.digest
    assert sum(said in message for message in caplog.messages) == 1


@st.composite
def classes(draw):
    """Units of images, their labels, and sides of some of the units."""
    n = draw(st.integers(1, 80))
    pool = random_digests(draw(st.integers(1, 80)), seed=draw(st.integers(0, 99)))
    units = pool[draw(st.lists(st.integers(0, len(pool) - 1), min_size=n, max_size=n))]
    labels = np.array(draw(st.lists(st.integers(0, 3), min_size=n, max_size=n)))
    groups = identical_groups(units)
    of_group = np.array(draw(st.lists(st.sampled_from([-1, -1, 0, 1]), min_size=n, max_size=n)), np.int8)
    return units, labels, of_group[groups]


@given(classes(), st.sampled_from([0.05, 0.2, 0.5, 0.9]), st.randoms())
def test_units_stay_whole_sides_stay_and_order_is_nothing(found, fraction, random):
    units, labels, before = found
    mask = stratified_test_mask(units, labels, before, fraction=fraction)
    assert (mask[before >= 0] == (before[before >= 0] == 1)).all()
    for group in np.unique(groups := identical_groups(units)):
        assert len(set(mask[groups == group].tolist())) == 1
    order = list(range(len(labels)))
    random.shuffle(order)
    assert (stratified_test_mask(units[order], labels[order], before[order], fraction=fraction) == mask[order]).all()


@given(st.lists(st.integers(1, 90), min_size=1, max_size=6), st.integers(0, 99), st.sampled_from([0.1, 0.2, 0.3]))
def test_the_share_is_exact_where_no_two_images_are_alike(sizes, seed, fraction):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    new = np.full(len(labels), -1, np.int8)
    mask = stratified_test_mask(random_digests(len(labels), seed), labels, new, fraction=fraction)
    for label, n in enumerate(sizes):
        assert mask[labels == label].sum() == (max(round(fraction * n), 1) if n > 2 else 0)


# No image moves


def test_new_images_fill_up_the_share_of_their_class_and_move_none(flowers, tmp_path, caplog):
    before = sides(scan(flowers, tmp_path / "cache"))
    for step in range(1, 8):
        for number in range(5):
            (flowers / f"rose/new {step} {number}.gif").write_bytes(
                (flowers / "rose/0.jpg").read_bytes() + b"%d %d" % (step, number)
            )
        dataset = scan(flowers, tmp_path / "cache")
        after = sides(dataset)
        assert before.items() <= after.items()
        assert counts(dataset)["rose"] == (96 + 4 * step, 24 + step)
        before = after
    assert "New images: 5, of which 1 are test images. The others stay in their split." in caplog.messages


def test_removed_images_are_remembered(flowers, tmp_path):
    before = sides(scan(flowers, tmp_path / "cache"))
    aside = tmp_path / "aside"
    aside.mkdir()
    for path in sorted((flowers / "rose").iterdir())[:60]:
        path.rename(aside / path.name)
    scan(flowers, tmp_path / "cache")
    for path in aside.iterdir():
        path.rename(flowers / "tulip" / f"again {path.name}")
    assert sides(scan(flowers, tmp_path / "cache")) == before


def test_groups_are_recorded_by_their_names(flowers, tmp_path):
    paths = [f"{name}/{number}.jpg" for name in FLOWERS for number in range(120)]
    rows = [(path, path.split("/")[0], "", f"plant {number // 6}") for number, path in enumerate(paths)]
    labels = [(path, label, group) for path, label, _, group in rows]
    table = tmp_path / "labels.csv"

    def write(some: list[tuple[str, str, str]]) -> ImageFolders:
        table.write_text("\n".join(["path,label,group", *map(",".join, some)]))
        return ImageFolders(flowers, labels=table)

    before = scan(write(labels), tmp_path / "cache")
    assert counts(before) == dict.fromkeys(FLOWERS, (96, 24))
    of_group = {name: bool(side) for name, side in zip(before.group_names, before.is_test, strict=True)}
    again = scan(write([row for row in labels if row[2] != "plant 3"][::-1]), tmp_path / "cache")
    for name, side in zip(again.group_names, again.is_test, strict=True):
        assert of_group[name] == side


def test_an_extraction_and_cross_validation_record_nothing(flowers, tmp_path):
    chosen = scan(flowers, tmp_path / "cache", to_train=False)
    scan(flowers, tmp_path / "cache", to_test=False)
    assert not (tmp_path / "cache" / RECORD).exists()
    assert (scan(flowers, tmp_path / "cache").is_test == chosen.is_test).all()


def test_each_share_of_test_images_has_its_own_record(flowers, tmp_path):
    assert counts(scan(flowers, tmp_path / "cache", test_fraction=0.3)) == dict.fromkeys(FLOWERS, (84, 36))
    assert counts(scan(flowers, tmp_path / "cache")) == dict.fromkeys(FLOWERS, (96, 24))
    names = sorted(path.name for path in (tmp_path / "cache").glob("splits-*"))
    assert names == [RECORD, "splits-0.3.bin"]


PROGRAM = """
import sys
from featx.dataset import scan
print(int(scan(sys.argv[1], sys.argv[2]).n_test))
"""


def test_two_commands_at_once_agree(tmp_path):
    """Each sees other images of one class, and copies of ten of them are in both."""
    for name in ("one", "other"):
        fill(tmp_path / name, **{f"{name} a": 300, f"{name} b": 300})
        fill(tmp_path / name, common=10)
    words = [sys.executable, "-c", PROGRAM]
    both = [
        subprocess.Popen([*words, tmp_path / name, tmp_path / "cache"], stdout=subprocess.PIPE)
        for name in ("one", "other")
    ]
    for process in both:
        out, _ = process.communicate(timeout=120)
        assert process.returncode == 0
        assert int(out) == 122
    table = _Table.read((tmp_path / "cache" / RECORD).read_bytes())
    assert len(table.units) == 1210
    assert not list((tmp_path / "cache").glob(".tmp-*"))


# What an older featx chose


def test_images_that_an_older_featx_knew_stay_where_it_had_them(flowers, tmp_path, caplog, settle):
    settle()
    dataset = scan(flowers, tmp_path / "cache", to_train=False)
    older(tmp_path / "cache")
    by_hash = hashed_test_mask(dataset.digests, 0.2)
    dataset = scan(flowers, tmp_path / "cache")
    assert (dataset.is_test == by_hash).all()
    assert set(counts(dataset).values()) != {(96, 24)}
    assert (
        sum("600 images that an older featx has seen keep their split" in message for message in caplog.messages) == 1
    )
    before = sides(dataset)
    fill(flowers, lily=50)
    dataset = scan(flowers, tmp_path / "cache")
    assert before.items() <= sides(dataset).items()
    assert counts(dataset)["lily"] == (40, 10)
    assert (
        sum("600 images that an older featx has seen keep their split" in message for message in caplog.messages) == 1
    )


def test_groups_that_an_older_featx_knew_stay_too(flowers, tmp_path, settle):
    settle()
    paths = [f"{name}/{number}.jpg" for name in FLOWERS for number in range(120)]
    rows = [(path, path.split("/")[0], None, f"plant {number // 6}") for number, path in enumerate(paths)]
    (tmp_path / "labels.csv").write_text(
        "\n".join(["path,label,group", *(f"{path},{label},{group}" for path, label, _, group in rows)])
    )
    data = ImageFolders(flowers, labels=tmp_path / "labels.csv")
    dataset = scan(data, tmp_path / "cache", to_train=False)
    older(tmp_path / "cache")
    for _ in range(2):
        assert (scan(data, tmp_path / "cache").is_test == hashed_test_mask(dataset.units, 0.2)).all()
    assert not SplitRecord(tmp_path / "cache", 0.2).sides(dataset)[1].any()


def test_a_record_made_elsewhere_that_contradicts_is_said(flowers, tmp_path, caplog, settle):
    """Such as of a cache on an object store, which one machine used before there were records, and another since."""
    settle()
    scan(flowers, tmp_path / "cache")
    record = (tmp_path / "cache" / RECORD).read_bytes()
    older(tmp_path / "cache")
    (tmp_path / "cache" / RECORD).write_bytes(record)
    dataset = scan(flowers, tmp_path / "cache")
    assert counts(dataset) == dict.fromkeys(FLOWERS, (96, 24))
    assert [warning for warning in dataset.warnings if "images on another side than an older featx had" in warning]
    assert not scan(flowers, tmp_path / "cache").warnings


# Trouble


def test_a_lost_record_is_said_once_and_never_replaced_in_silence(flowers, tmp_path):
    scan(flowers, tmp_path / "cache")
    (tmp_path / "cache" / RECORD).unlink()
    (warning,) = scan(flowers, tmp_path / "cache").warnings
    assert "is gone, so featx has chosen test images anew" in warning
    assert "--labels RUN/split.csv" in warning
    assert scan(flowers, tmp_path / "cache").warnings == ()


@pytest.mark.parametrize("damage", ["flipped", "cut", "foreign", "folder", "unsorted"])
def test_a_damaged_record_is_an_error_that_says_what_to_do(flowers, tmp_path, damage):
    scan(flowers, tmp_path / "cache")
    path = tmp_path / "cache" / RECORD
    data = path.read_bytes()
    if damage == "folder":
        path.unlink()
        path.mkdir()
    elif damage == "unsorted":
        table = _Table.read(data)
        path.write_bytes(_Table(table.units[::-1], table.bits).to_bytes())
    else:
        path.write_bytes({"flipped": data[:-1] + bytes([data[-1] ^ 1]), "cut": data[:-9], "foreign": b"x"}[damage])
    for to_train in (True, False):
        with pytest.raises(
            DatasetError, match=r"The record of the test split, .* is damaged .*Remove it with featx cache"
        ):
            scan(flowers, tmp_path / "cache", to_train=to_train)


def test_a_cache_that_cannot_be_written_gives_the_split_and_a_warning(flowers, tmp_path, monkeypatch):
    expected = scan(flowers, tmp_path / "other").is_test

    def refuse(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(SplitRecord, "_write", refuse)
    dataset = scan(flowers, tmp_path / "cache")
    assert (dataset.is_test == expected).all()
    (warning,) = dataset.warnings
    assert "cannot be recorded" in warning
    assert "(Read-only file system): it stays the same only as long as the images do." in warning


def test_a_record_that_another_process_holds_for_long_is_an_error(flowers, tmp_path, monkeypatch):
    monkeypatch.setattr("featx.dataset.split_record._PATIENCE_S", 0.1)
    with SplitRecord(tmp_path / "cache", 0.2).held(), pytest.raises(FeatxError, match="Another featx command is using"):
        scan(flowers, tmp_path / "cache")


def test_a_split_that_is_refused_is_not_recorded(tmp_path):
    fill(tmp_path / "pets", cats=2, dogs=2)
    with pytest.raises(DatasetError, match="none of 4 images"):
        scan(tmp_path / "pets", tmp_path / "cache")
    assert not (tmp_path / "cache" / RECORD).exists()


def test_the_record_is_small_and_as_documented(tmp_path):
    """`docs/format.md`: the name of the format, a SHA-256 of the rest, sorted digests, and a byte for each."""
    units = random_digests(1000)
    SplitRecord(tmp_path / "cache", 0.2).add(units, np.arange(1000) % 5 == 0)
    data = (tmp_path / "cache" / RECORD).read_bytes()
    assert len(data) == 15 + 32 + 1000 * 33
    assert data[:15] == b"featx splits 1\n"
    assert hashlib.sha256(data[47:]).digest() == data[15:47]
    digests = [data[47 + 32 * row : 79 + 32 * row] for row in range(1000)]
    assert digests == sorted(unit.tobytes() for unit in units)
    bits = dict(zip(digests, data[47 + 32_000 :], strict=True))
    assert [bits[unit.tobytes()] for unit in units] == [int(row % 5 == 0) for row in range(1000)]


beginnings = st.sampled_from([bytes(8), b"\1" * 8, b"\xff" * 8])
digests_alike = st.tuples(beginnings, st.binary(min_size=24, max_size=24)).map(b"".join)


@given(st.lists(digests_alike, max_size=30), st.lists(digests_alike, max_size=9))
def test_a_table_finds_what_is_in_it(inside, others):
    units = as_rows(inside)
    table = _Table.read(_Table.of(units, np.arange(len(inside)) % 4).to_bytes())
    rows = table.find(as_rows(inside + others))
    assert all((row >= 0) == (unit in set(inside)) for row, unit in zip(rows, inside + others, strict=True))
    first = {unit: inside.index(unit) % 4 for unit in inside}
    assert [table.bits[row] for row, unit in zip(rows, inside, strict=False)] == [first[unit] for unit in inside]


def test_notes_are_no_files(tmp_path):
    with closing(StatCache(tmp_path / "cache")) as cache:
        assert cache.is_noted(RECORDS_SPLITS)
        assert not cache.is_noted(b"other")
        cache.note(b"other")
        assert cache.is_noted(b"other")
        assert len(cache.digests()) == 0
