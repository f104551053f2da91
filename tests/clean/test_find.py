"""`featx clean` and `find_problems`: each kind of problem is found, once, and nothing else is suggested for removal."""

import csv
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

import featx
from featx.clean.problems import KINDS, KINDS_OF_FEATURES
from featx.errors import FeatxError, ImageError
from tests.conftest import SMALL

WORDS = ("--weights", "random", "--image-size", 32, "--layer", "block2_pool", "--pooling", "avg")
WORDS = (*WORDS, "--precision", "float32")


def draw(folder: Path, name: str, label: int, seed: int) -> Image.Image:
    """Save a picture of a class, which its colour tells, and return it."""
    pattern = (
        np.random.default_rng([label, seed]).integers(0, 120, (9, 9, 3)) + np.array([[0, 60, 130], [130, 60, 0]])[label]
    )
    picture = Image.fromarray(pattern.astype(np.uint8)).resize((90, 80))
    folder.mkdir(parents=True, exist_ok=True)
    picture.save(folder / name)
    return picture


@pytest.fixture(scope="module")
def world(tmp_path_factory, new_cache):
    """Pictures of two classes with one problem of each kind, and what was found; no test may change them."""
    folder = tmp_path_factory.mktemp("clean")
    data = folder / "data"
    for label, name in enumerate("ab"):
        for split, n in (("train", 12), ("test", 4)):
            for number in range(n):
                draw(data / split / name, f"{number}.png", label, number + 100 * (split == "test"))
    a, b, tmp = data / "train/a", data / "train/b", folder / "drawn"
    shutil.copy(a / "0.png", a / "0 (1).png")
    shutil.copy(a / "1.png", data / "test/a/leak.png")
    Image.open(a / "2.png").save(a / "near.jpg", quality=60)
    ImageOps.mirror(Image.open(a / "3.png")).save(data / "test/a/near.jpg", quality=90)
    draw(b, "wrong.png", 0, 777)
    (a / "page.jpg").write_text("<html><body>404 Not Found</body></html>")
    (a / "cut.png").write_bytes((a / "4.png").read_bytes()[:200])
    Image.new("RGB", (90, 80), (200, 200, 200)).save(b / "blank.png")
    draw(b, "tiny.png", 1, 800).resize((12, 10)).save(b / "tiny.png")
    draw(b, "long.png", 1, 801).resize((900, 80)).save(b / "long.png")
    draw(tmp, "huge.png", 1, 802).resize((5000, 4100)).save(b / "huge.jpg", quality=30)
    draw(b, "png.jpg", 1, 803).save(b / "png.jpg", "PNG")
    cache = new_cache(folder / "cache")
    return data, cache, featx.find_problems(data, cache_dir=cache, **SMALL)


def test_each_kind_is_found_with_its_suggestion(world):
    _, _, problems = world
    suggested = {(problem.kind, problem.path): problem.suggestion for problem in problems}
    assert (
        suggested.items()
        >= {
            ("unreadable", "train/a/page.jpg"): "remove",
            ("unreadable", "train/a/cut.png"): "remove",
            ("copy", "train/a/0 (1).png"): "remove",
            ("copy", "train/a/1.png"): "remove",
            ("near-copy", "train/a/near.jpg"): "remove",
            ("near-copy", "train/a/3.png"): "look at",
            ("blank", "train/b/blank.png"): "look at",
            ("tiny", "train/b/tiny.png"): "look at",
            ("huge", "train/b/huge.jpg"): "look at",
            ("shape", "train/b/long.png"): "look at",
            ("suffix", "train/b/png.jpg"): "rename to png.png",
        }.items()
    )
    assert ("label", "train/b/wrong.png") in suggested
    assert set(problems.counts) == set(KINDS)
    assert all(problems.counts.values())
    assert {problem.path for problem in problems.to_remove} == {
        *("train/a/page.jpg", "train/a/cut.png", "train/a/0 (1).png", "train/a/1.png", "train/a/near.jpg")
    }
    n_others = sum(problem.kind != "label" for problem in problems)
    assert n_others == 11
    assert {problem.split for problem in problems} == {"train"} | {one.split for one in problems if one.kind == "label"}


def test_a_file_to_remove_is_in_one_row_only(world):
    _, _, problems = world
    removed = [problem.path for problem in problems.to_remove]
    assert len(removed) == len(set(removed))
    assert all(problem.suggestion == "remove" for problem in problems if problem.path in removed)


def test_the_command_writes_what_the_function_finds(world, featx, tmp_path):
    data, cache, problems = world
    report = tmp_path / "report"
    words = ["clean", data, "--cache-dir", cache, *WORDS]
    found = json.loads(featx(*words, "--to", report, "--json").stdout)
    rows = list(csv.DictReader(io.StringIO((report / "problems.csv").read_text(encoding="utf-8"))))
    assert [row["path"] for row in rows] == [one["path"] for one in found["problems"]] == [one.path for one in problems]
    assert [row["suggestion"] for row in rows] == [problem.suggestion for problem in problems]
    assert found["counts"] == problems.counts
    assert found["moved"] is None
    page = (report / "index.html").read_text(encoding="utf-8")
    assert page.count("<img src=") == sum(
        1 + bool(problem.other_path) for problem in problems if problem.kind != "unreadable"
    )
    for problem in problems:
        assert problem.path in page
    said = featx(*words, "--to", tmp_path / "again").stdout
    assert "Add --apply to move the 5 files" in said
    assert "very long images" in said


def test_the_table_of_kept_images_is_one_for_labels(world, featx, tmp_path):
    data, cache, problems = world
    featx("clean", data, "--cache-dir", cache, "--kind", "copy", "--to", tmp_path / "report", "--quiet")
    labelled = featx("extract", data, "--labels", tmp_path / "report/kept.csv", "--cache-dir", cache, "--json", *WORDS)
    assert json.loads(labelled.stdout)["n_images"] == problems.dataset.n_images - 2


def test_kinds_without_features_need_no_network(world, featx, tmp_path, monkeypatch):
    data, _, problems = world
    monkeypatch.setattr("featx.clean.find.resolve_recipe", None)
    kinds = [kind for kind in KINDS if kind not in KINDS_OF_FEATURES]
    words = [word for kind in kinds for word in ("--kind", kind)]
    found = json.loads(featx("clean", data, *words, "--cache-dir", tmp_path, "--to", tmp_path / "r", "--json").stdout)
    assert found["counts"] == {kind: problems.counts[kind] for kind in kinds}


def test_apply_moves_the_files_and_undo_brings_them_back(world, featx, tmp_path, monkeypatch):
    data, cache, problems = world
    monkeypatch.chdir(tmp_path)
    shutil.copytree(data, "data")
    words = ["clean", "data", "--cache-dir", cache, *WORDS]
    done = featx(*words, "--apply")
    assert "Moving to" in done.stderr
    assert "2 files that cannot be read, 2 exact copies, 1 near-copies" in done.stderr
    assert "Moved 5 files to" in done.stdout
    assert all((Path("data-removed") / problem.path).exists() for problem in problems.to_remove)
    assert not [path for path in Path("data").rglob("*") if str(path).endswith(("page.jpg", "near.jpg"))][1:]
    left = featx(*words, "--kind", "copy", "--kind", "unreadable", "--apply", "--quiet", "--json").stdout
    assert json.loads(left)["moved"]["paths"] == []
    assert "Moved 5 files back" in featx("clean", "data", "--undo").stdout
    names = [sorted(path.relative_to(root) for path in root.rglob("*")) for root in (data, Path("data"))]
    assert names[0] == names[1]
    assert not Path("data-removed").exists()
    assert "There are no removed files" in featx("clean", "data", "--undo", exit_code=2).stderr


def test_files_that_could_not_be_moved_are_named_and_the_command_fails(featx, tmp_path, make_photos, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = make_photos(tmp_path / "data", n_train=3, n_test=0)
    shutil.copy(data / "train/sea/sea.0.jpg", data / "train/sea/copy of it.jpg")
    (tmp_path / "bin").mkdir()
    words = ["clean", data, "--kind", "copy", "--cache-dir", "cache", "--apply"]
    featx(*words, "--removed-dir", "bin")
    shutil.copy(data / "train/sea/sea.0.jpg", data / "train/sea/copy of it.jpg")
    failed = featx("clean", "bin", "--undo", exit_code=1)
    assert "Not moved: train/sea/copy of it.jpg, because there is a file" in failed.stdout


@pytest.mark.parametrize("words", [["--apply", "--undo"], ["--removed-dir", "x"], ["--undo", "--removed-dir", "x"]])
def test_options_that_do_not_go_together_are_refused(featx, tmp_path, words):
    assert "Error: --" in featx("clean", tmp_path, *words, exit_code=2).stderr


def test_apply_on_an_archive_is_refused_before_anything_long(featx, tmp_path, make_photos):
    archive = shutil.make_archive(str(tmp_path / "photos"), "zip", make_photos(tmp_path / "data", 2, 0))
    refused = featx("clean", archive, "--cache-dir", tmp_path / "cache", "--apply", exit_code=2)
    assert "featx moves only files in a folder on this machine" in refused.stderr
    assert "classes" not in refused.stderr


def test_what_cannot_be_checked_is_said(tmp_path, new_cache):
    for number in range(6):
        draw(tmp_path / "data", f"{number}.png", 0, number)
    shutil.copy(tmp_path / "data/0.png", tmp_path / "data/0 copy.png")
    problems = featx.find_problems(tmp_path / "data", cache_dir=new_cache(tmp_path / "cache"), **SMALL)
    assert [(problem.path, problem.split, problem.label) for problem in problems] == [("0 copy.png", "", "")]
    assert [sentence.split(":")[0] for sentence in problems.not_checked] == ["featx did not check the labels"]


def test_a_class_never_loses_all_its_files(tmp_path, make_photos):
    data = make_photos(tmp_path / "data", n_train=2, n_test=2)
    for number in range(2):
        shutil.copy(data / f"train/sea/sea.{number}.jpg", data / f"test/sea/copy {number}.jpg")
    (data / "test/broken").mkdir()
    (data / "test/broken/page.jpg").write_text("<html></html>")
    problems = featx.find_problems(data, kinds=["copy", "unreadable"], cache_dir=tmp_path / "cache")
    assert {problem.suggestion for problem in problems} == {"look at"}
    assert all("but its class would lose all its files in this split" in problem.reason for problem in problems)
    (data / "train/sea/one more.jpg").write_bytes((data / "train/wood/wood.0.jpg").read_bytes() + b"\0")
    problems = featx.find_problems(data, kinds="copy", cache_dir=tmp_path / "cache")
    assert {problem.suggestion for problem in problems} == {"remove"}


def test_copies_in_both_splits_of_a_table_are_found_not_refused(tmp_path, make_photos):
    data = make_photos(tmp_path / "data", n_train=3, n_test=2)
    shutil.copy(data / "train/sea/sea.0.jpg", data / "test/sea/leak.jpg")
    rows = [(str(path.relative_to(data)), path.parts[-2], path.parts[-3]) for path in sorted(data.rglob("*.jpg"))]
    labelled = featx.ImageFolders(data, labels=rows)
    (problem,) = featx.find_problems(labelled, kinds="copy", cache_dir=tmp_path / "cache")
    assert (problem.path, problem.other_path) == ("train/sea/sea.0.jpg", "test/sea/leak.jpg")


def test_hostile_names_do_no_harm_on_the_page_and_are_exact_in_the_table(featx, tmp_path, make_photos):
    data = make_photos(tmp_path / "data", n_train=2, n_test=0)
    hostile = "<script>alert(1)<\u2215script> \x1b[2J \u202e.jpg"
    shutil.copy(data / "train/sea/sea.0.jpg", data / "train/sea" / hostile)
    report = tmp_path / "report"
    shown = featx("clean", data, "--kind", "copy", "--cache-dir", tmp_path / "cache", "--to", report)
    page = (report / "index.html").read_text(encoding="utf-8")
    assert "<script>" not in page
    assert not set("\x1b\u202e") & set(page + shown.stdout)
    (row,) = csv.DictReader(io.StringIO((report / "problems.csv").read_text(encoding="utf-8")))
    assert row["path"] == f"train/sea/{hostile}"


def test_strict_stops_at_the_first_file_that_cannot_be_read(world):
    data, cache, _ = world
    with pytest.raises(ImageError, match=r"train/a/(page|cut)\.\w+ cannot be read"):
        featx.find_problems(data, kinds="copy", strict=True, cache_dir=cache)


def test_a_kind_that_is_none_is_refused_with_the_nearest(world):
    data, cache, _ = world
    with pytest.raises(FeatxError, match=r"A kind of problem must be one of .*Did you mean label\?"):
        featx.find_problems(data, kinds=["labels"], cache_dir=cache)


def test_problems_of_photographs(shared, tmp_path, cache):
    """Of 200 photographs, 8 are in the wrong class, and 8 are there twice, saved again."""
    rows, wrong, copies = [], set(), set()
    for name, other in (("cats", "dogs"), ("dogs", "cats")):
        (tmp_path / "data" / name).mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / other).mkdir(parents=True, exist_ok=True)
        for number, path in enumerate(sorted((shared / "data/cats-dogs/train" / name).iterdir())[:100]):
            label = other if number < 4 else name
            link = tmp_path / "data" / label / f"{len(rows)}.jpg"  # its name must not tell its class
            link.symlink_to(path)
            rows.append(link)
            if number < 4:
                wrong.add(f"{label}/{link.name}")
            elif number < 8:
                copies.add(f"{label}/a copy of {link.name}")
                Image.open(path).save(tmp_path / "data" / label / f"a copy of {link.name}", quality=70)
    weights = shared / "weights-imagenet/vgg16_imagenet_notop.h5"
    problems = featx.find_problems(
        tmp_path / "data", weights=str(weights), image_size=64, pooling="avg", precision="float32", cache_dir=cache
    )
    doubted = [problem.path for problem in problems if problem.kind == "label"]
    assert len(wrong & set(doubted)) >= 5
    assert set(doubted[:3]) <= wrong
    assert len(doubted) <= 16
    moved = {problem.path: problem.suggestion for problem in problems if problem.suggestion.startswith("move to ")}
    assert moved.items() <= {path: f"move to {'dogs' if path.startswith('cats') else 'cats'}" for path in wrong}.items()
    assert moved
    assert {problem.path for problem in problems.to_remove} == copies


def test_a_folder_that_cannot_take_the_files_is_refused_before_anything_long(featx, tmp_path, make_photos):
    data = make_photos(tmp_path / "data", 2, 0)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    words = ["clean", data, "--cache-dir", tmp_path / "cache", "--apply", "--removed-dir", tmp_path / "full"]
    refused = featx(*words, exit_code=2)
    assert "full is not empty: choose another one with --removed-dir." in refused.stderr
    assert "classes" not in refused.stderr


def test_who_cleans_an_archive_is_told_how_to_train_without_the_files(featx, tmp_path, make_photos):
    data = make_photos(tmp_path / "data", 3, 0)
    shutil.copy(data / "train/sea/sea.0.jpg", data / "train/sea/copy.jpg")
    archive = shutil.make_archive(str(tmp_path / "photos"), "zip", data)
    words = ["clean", archive, "--kind", "copy", "--cache-dir", tmp_path / "cache", "--to", tmp_path / "report"]
    said = featx(*words).stdout
    assert f"To train without the file with the suggestion remove: --labels {tmp_path}/report/kept.csv" in said
    assert "--apply" not in said
