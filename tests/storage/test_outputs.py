"""What featx makes is whole or not there, whoever else writes, and whenever it is killed."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from featx.errors import FeatxError
from featx.storage import OUTPUT_MARK, TEMPORARY_PREFIX, HeldError, is_held, new_file, new_folder, sweep, workshop
from featx.storage.files import remove_whole


def unfinished(folder: Path) -> list[Path]:
    return list(folder.glob(f"{TEMPORARY_PREFIX}*"))


def visible(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if not path.name.startswith(".")}


def stopped_half_way(target: Path, kind: str = "new_folder") -> subprocess.Popen:
    """A process that is half-way through making `target`."""
    program = (
        "import sys; from pathlib import Path; from featx.storage import new_file, new_folder\n"
        f"with {kind}(Path(sys.argv[1])) as making:\n"
        "    (making.built / 'half' if making.built.is_dir() else making.built).write_bytes(bytes(1000))\n"
        "    print('half', flush=True); sys.stdin.read()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, target], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "half\n"
    return process


@pytest.fixture
def mounted(tmp_path) -> Iterator[Path]:
    """An empty folder that is a mount point of the same disk, as in a container."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "volume").mkdir()
    mounting = subprocess.run(
        ["mount", "--bind", tmp_path / "disk", tmp_path / "volume"], capture_output=True, check=False
    )
    if mounting.returncode:
        pytest.skip("nothing can be mounted here")
    yield tmp_path / "volume"
    subprocess.run(["umount", "--lazy", tmp_path / "volume"], check=True)


def test_a_folder_is_there_when_it_is_whole_and_marked_as_featxs_own(tmp_path):
    with new_folder(tmp_path / "a" / "b" / "new") as making:
        (making.built / "x").write_text("x")
        assert visible(tmp_path / "a" / "b") == set()
    assert making.path == tmp_path / "a" / "b" / "new"
    assert visible(making.path) == {"x"}
    assert all((folder / OUTPUT_MARK).stat().st_size for folder in (making.path, *making.path.parents[:2]))
    assert not (tmp_path / OUTPUT_MARK).exists()
    assert not unfinished(making.path.parent)


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt, MemoryError])
def test_work_that_fails_leaves_nothing(tmp_path, error):
    for begin, path in ((new_folder, tmp_path / "a" / "new"), (new_file, tmp_path / "a" / "new.json")):
        with pytest.raises(error), begin(path) as making:  # noqa: PT012 - it fails at its end
            (making.built / "x" if making.built.is_dir() else making.built).write_text("x")
            raise error
    assert list(tmp_path.iterdir()) == []


def test_what_was_finished_is_kept_if_it_is_worth_it(tmp_path, caplog):
    caplog.set_level("INFO", "featx")
    with pytest.raises(MemoryError), new_folder(tmp_path / "new") as making:  # noqa: PT012 - it fails at its end
        (making.built / "trained").write_text("x")
        making.is_worth_keeping = True
        raise MemoryError
    assert (tmp_path / "new" / "trained").exists()
    assert f"Finished results are in {tmp_path}/new." in caplog.messages


@pytest.mark.parametrize("kind", ["new_folder", "new_file"])
def test_a_second_process_is_refused_at_once_and_a_killed_one_gives_way(tmp_path, kind):
    begin = {"new_folder": new_folder, "new_file": new_file}[kind]
    process = stopped_half_way(tmp_path / "new", kind)
    (left,) = unfinished(tmp_path)
    assert is_held(left)
    with (
        pytest.raises(HeldError, match="Another featx command is writing .*new; wait until it is done"),
        begin(tmp_path / "new"),
    ):
        pytest.fail("it was begun")
    with begin(tmp_path / "other") as making:  # whose sweeping touches nobody who is alive
        (making.built / "x" if making.built.is_dir() else making.built).write_text("x")
    assert list(left.iterdir())
    process.kill()
    process.communicate()
    assert not (tmp_path / "new").exists()
    assert not is_held(left)
    with begin(tmp_path / "third") as making:
        assert not left.exists(), "it was not swept by the next command that writes here"
        (making.built / "x" if making.built.is_dir() else making.built).write_text("x")
    with begin(tmp_path / "new") as making:
        (making.built / "x" if making.built.is_dir() else making.built).write_text("x")
    assert visible(tmp_path) == {"new", "other", "third"}
    assert not unfinished(tmp_path)


def test_a_process_that_goes_on_is_not_swept(tmp_path):
    process = stopped_half_way(tmp_path / "new")
    sweep(tmp_path)
    _, stderr = process.communicate("", timeout=60)
    assert process.returncode == 0, stderr
    assert visible(tmp_path / "new") == {"half"}


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_place_that_is_taken_meanwhile_costs_no_result(tmp_path, caplog, kind):
    with new_folder(tmp_path / "new") as making:
        (making.built / "x").write_text("x")
        if kind == "file":
            (tmp_path / "new").write_text("mine")
        else:
            (tmp_path / "new" / "mine").mkdir(parents=True)
    assert making.path == tmp_path / "new-2"
    assert visible(making.path) == {"x"}
    assert f"It is in {tmp_path}/new-2." in caplog.text
    with new_file(tmp_path / "new.json") as making:
        making.built.write_text("x")
        (tmp_path / "new.json").write_text("mine")
    assert (tmp_path / "new.json").read_text() == "mine"
    assert (making.path.name, making.path.read_text()) == ("new-2.json", "x")


def test_two_folders_of_one_second_have_two_names(tmp_path):
    with new_folder(None, tmp_path / "runs") as first, new_folder(None, tmp_path / "runs") as second:
        assert first.path != second.path
    assert len(visible(tmp_path / "runs")) == 2


@pytest.mark.parametrize("is_killed", [False, True])
def test_a_mount_point_is_filled_from_inside_the_last_file_last(mounted, is_killed, monkeypatch):
    """A folder cannot be renamed to a mount point, which was noticed only after the work."""
    if is_killed:
        process = stopped_half_way(mounted)
        process.kill()
        process.communicate()
    names = []
    rename = Path.rename

    def watched(path: Path, target: Path) -> Path:
        names.append(Path(target).name)
        return rename(path, target)

    with new_folder(mounted, last="metrics.json") as making:
        for name in ("z", "metrics.json", "a"):
            (making.built / name).write_text(name)
        assert visible(mounted) == set()
        monkeypatch.setattr(Path, "rename", watched)
    assert names == [OUTPUT_MARK, "a", "z", "metrics.json"]
    assert making.path == mounted
    assert {path.name for path in mounted.iterdir()} == {OUTPUT_MARK, "a", "z", "metrics.json"}


def test_the_working_folder_is_filled_and_stays_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with new_folder(Path()) as making:
        (making.built / "x").write_text("x")
    assert Path("x").read_text() == "x"


def test_a_folder_that_only_its_owner_may_enter_stays_so(tmp_path):
    (tmp_path / "mine").mkdir(mode=0o700)
    with new_folder(tmp_path / "mine"):
        pass
    assert (tmp_path / "mine").stat().st_mode & 0o777 == 0o700
    with new_folder(tmp_path / "new"):
        pass
    umask = os.umask(0)
    os.umask(umask)
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o777 & ~umask


def test_all_is_on_the_disk_before_it_gets_its_name(tmp_path, monkeypatch):
    synced: list[str] = []
    fsync, rename = os.fsync, Path.rename

    def watched_fsync(descriptor: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        fsync(descriptor)

    def watched_rename(path: Path, target: Path) -> Path:
        if Path(target).name in {"new", "new.json"}:
            expected = {str(path), *map(str, path.rglob("*"))}
            assert expected <= set(synced), expected - set(synced)
            synced.clear()
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(Path, "rename", watched_rename)
    with new_folder(tmp_path / "new") as making:
        (making.built / "deep" / "er").mkdir(parents=True)
        for name in ("a.json", "deep/b.csv", "deep/er/c.pb"):
            (making.built / name).write_text(name)
    assert synced == [str(tmp_path)]
    with new_file(tmp_path / "new.json") as making:
        making.built.write_text("x")
    assert synced == [str(tmp_path)]


def test_a_removal_that_is_killed_is_finished_by_the_next_command(tmp_path, monkeypatch):
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "seg-1.h5").write_bytes(bytes(1000))
    program = (
        "import os, shutil, signal, sys; from pathlib import Path; from featx.storage import remove_whole\n"
        "shutil.rmtree = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)\n"
        "remove_whole(Path(sys.argv[1]))\n"
    )
    subprocess.run([sys.executable, "-c", program, tmp_path / "store"], check=False)
    assert not (tmp_path / "store").exists()
    assert unfinished(tmp_path)
    (tmp_path / "other").write_text("x")
    remove_whole(tmp_path / "other")
    sweep(tmp_path)
    assert list(tmp_path.iterdir()) == []


# Workshops whose names can be guessed


def test_a_planted_link_in_the_place_of_a_workshop_is_refused(tmp_path):
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim" / "lock").write_text("precious")
    (tmp_path / ".pets-fetch").symlink_to(tmp_path / "victim")
    with pytest.raises(FeatxError, match="it is not a folder"), workshop(tmp_path / ".pets-fetch"):
        pytest.fail("it was used")
    assert (tmp_path / "victim" / "lock").read_text() == "precious"


def test_a_workshop_that_others_may_have_written_to_is_refused(tmp_path):
    (tmp_path / "victim").write_text("precious")
    shop = tmp_path / ".pets-fetch"
    shop.mkdir()
    (shop / "lock").symlink_to(tmp_path / "victim")
    shop.chmod(0o777)
    with pytest.raises(FeatxError, match="other users can write to it: remove it"), workshop(shop):
        pytest.fail("it was used")
    assert shop.stat().st_mode & 0o777 == 0o777
    shop.chmod(0o755)
    with pytest.raises(OSError, match="symbolic links"), workshop(shop):
        pytest.fail("it was used")
    assert (tmp_path / "victim").read_text() == "precious"


def test_a_workshop_of_another_user_is_refused(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("only root may give a folder away")
    shop = tmp_path / ".pets-fetch"
    shop.mkdir()
    os.chown(shop, 12345, 12345)
    with pytest.raises(FeatxError, match="belongs to another user"), workshop(shop):
        pytest.fail("it was used")


def test_only_its_owner_may_enter_a_workshop(tmp_path):
    with workshop(tmp_path / "shop") as shop:
        assert shop.stat().st_mode & 0o777 == 0o700
    assert not shop.exists()


def test_what_others_plant_among_leftovers_is_neither_followed_nor_waited_for(tmp_path):
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim" / "lock").touch()
    (tmp_path / ".tmp-link").symlink_to(tmp_path / "victim")
    (tmp_path / ".tmp-fifo").mkdir()
    os.mkfifo(tmp_path / ".tmp-fifo" / "lock")
    (tmp_path / ".tmp-linked-lock").mkdir()
    (tmp_path / ".tmp-linked-lock" / "lock").symlink_to(tmp_path / "victim" / "lock")
    sweep(tmp_path)
    assert (tmp_path / "victim" / "lock").exists()
    with new_folder(tmp_path / "new"):
        pass
    assert (tmp_path / "victim" / "lock").read_bytes() == b""
