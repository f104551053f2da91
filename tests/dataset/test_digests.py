import hashlib
import mmap
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import zlib
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from featx.dataset import digests as digests_module
from featx.dataset import statcache
from featx.dataset.statcache import DATABASE_NAME, StatCache, check_database
from featx.storage import stat_key
from featx.storage.stat_key import StatKey, StatKeys

STRANGE_NAMES = [
    b"line\nbreak.jpg",
    b'it\'s "quoted".jpg',
    "🐈 ça.jpg".encode(),
    b"\xff\xfe undecodable.jpg",
    b"-rf.jpg",
]


def sha256(content: bytes) -> list[int]:
    return list(hashlib.sha256(content).digest())


def old_file(path, content: bytes):
    """Write a file that was last changed an hour ago, so that its digest may be remembered."""
    Path(os.fsdecode(path)).write_bytes(content)
    an_hour_ago = time.time_ns() - 3600 * 10**9
    os.utime(path, ns=(an_hour_ago, an_hour_ago))
    return path


@pytest.fixture(autouse=True)
def settled_soon(settle):
    """Files are settled as soon as `digest_files` looks at them."""


def digest_files(*args, **options):
    time.sleep(0.03)
    return digests_module.digest_files(*args, **options)


@pytest.fixture
def files_read(monkeypatch):
    """The names of the files that were read, in place of trusting that the cache was used."""
    names: list[bytes] = []
    hash_file = digests_module._hash_file
    monkeypatch.setattr(digests_module, "_hash_file", lambda name, keys: (names.append(name), hash_file(name, keys))[1])
    return names


def test_digest_is_the_sha256_of_the_files_bytes(tmp_path):
    contents = [b"", b"a", b"cat" * 2_000_000]
    paths = [tmp_path / str(number) for number in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    digests, reasons = digest_files(paths, tmp_path / "cache")
    assert digests.dtype == np.uint8
    assert digests.tolist() == [sha256(content) for content in contents]
    assert reasons == {}


def test_no_files_give_no_digests(tmp_path):
    digests, reasons = digest_files([], tmp_path / "cache")
    assert digests.shape == (0, 32)
    assert reasons == {}


def test_known_files_are_not_read_again(tmp_path, files_read):
    paths = [old_file(tmp_path / f"{number}.jpg", b"%d" % number) for number in range(1200)]
    first, _ = digest_files(paths, tmp_path / "cache")
    assert len(files_read) == 1200
    files_read.clear()
    second, _ = digest_files(paths, tmp_path / "cache")
    assert files_read == []
    assert (first == second).all()


@pytest.mark.parametrize("name", STRANGE_NAMES)
def test_any_file_name_is_remembered(tmp_path, files_read, name):
    path = old_file(os.fsencode(tmp_path) + b"/" + name, b"content")
    for _ in range(2):
        digests, reasons = digest_files([path], tmp_path / "cache")
        assert digests.tolist() == [sha256(b"content")]
        assert reasons == {}
    assert files_read == [path]


def test_a_relative_path_is_the_same_file_only_in_the_same_folder(tmp_path, files_read, monkeypatch):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        old_file(tmp_path / name / "cat.jpg", name.encode())
        monkeypatch.chdir(tmp_path / name)
        digests, _ = digest_files([Path("cat.jpg")], tmp_path / "cache")
        assert digests.tolist() == [sha256(name.encode())]
    digest_files(["cat.jpg", b"cat.jpg"], tmp_path / "cache")
    assert len(files_read) == 2


def test_renaming_an_image_keeps_its_digest(tmp_path):
    path = old_file(tmp_path / "cat.jpg", b"cat")
    before, _ = digest_files([path], tmp_path / "cache")
    after, _ = digest_files([path.rename(tmp_path / "tom.jpg")], tmp_path / "cache")
    assert (before == after).all()


def test_a_change_of_content_is_noticed(tmp_path):
    path = old_file(tmp_path / "cat.jpg", b"cat")
    digest_files([path], tmp_path / "cache")
    path.write_bytes(b"dog")  # same size, new mtime
    assert digest_files([path], tmp_path / "cache")[0].tolist() == [sha256(b"dog")]


def rewritten(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def rewritten_in_a_map(path: Path, content: bytes) -> None:
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as view:
        view[:] = content


def renamed_over(path: Path, content: bytes) -> None:
    path.with_suffix(".new").write_bytes(content)
    os.utime(path.with_suffix(".new"), ns=(0, path.stat().st_mtime_ns))
    path.with_suffix(".new").replace(path)


def copied(path: Path, content: bytes) -> None:
    source = path.parent / "elsewhere"
    source.write_bytes(content)
    os.utime(source, ns=(0, path.stat().st_mtime_ns))
    subprocess.run(["cp", "-p", source, path], check=True)


def touched(path: Path, content: bytes) -> None:
    subprocess.run(["touch", "-r", path, path.parent / "reference"], check=True)
    path.write_bytes(content)
    subprocess.run(["touch", "-r", path.parent / "reference", path], check=True)


def synchronized(path: Path, content: bytes) -> None:
    source = path.parent / "elsewhere"
    source.write_bytes(content)
    os.utime(source, ns=(0, path.stat().st_mtime_ns))
    subprocess.run(["rsync", "-t", "--checksum", "--inplace", source, path], check=True)


CHANGES = [rewritten, rewritten_in_a_map, renamed_over, copied, touched, synchronized]


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_same_size_and_mtime_is_noticed(tmp_path, change):
    if change is synchronized and not shutil.which("rsync"):
        pytest.skip("needs rsync")
    path = old_file(tmp_path / "cat.jpg", b"cat")
    before = path.stat()
    digest_files([path], tmp_path / "cache")
    change(path, b"dog")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = path.stat()
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert digest_files([path], tmp_path / "cache")[0].tolist() == [sha256(b"dog")]


def test_a_data_set_that_is_replaced_is_read_again_though_names_sizes_times_and_inodes_are_the_same(
    tmp_path, files_read
):
    """As tar unpacks version 2 over where version 1 was: the file system gives its files the inodes that were freed."""
    paths = [tmp_path / f"{number}.jpg" for number in range(20)]
    inodes: list[set[int]] = []
    for version in (b"1", b"2"):
        for path in paths:
            path.unlink(missing_ok=True)
        for path in paths:
            path.write_bytes(b"%b of %b" % (path.name.encode(), version))
            os.utime(path, ns=(10**18, 10**18))
        inodes.append({path.stat().st_ino for path in paths})
        digests, _ = digest_files(paths, tmp_path / "cache")
        assert digests.tolist() == [sha256(path.read_bytes()) for path in paths]
    assert len(files_read) == 40
    if not inodes[0] & inodes[1]:
        pytest.skip("the file system of the tests uses no inode again")


@pytest.mark.parametrize("change", ["chmod", "link", "rename and back"])
def test_what_changes_the_ctime_costs_one_reading(tmp_path, files_read, change):
    path = old_file(tmp_path / "cat.jpg", b"cat")
    digest_files([path], tmp_path / "cache")
    if change == "chmod":
        path.chmod(0o600)
    elif change == "link":
        (tmp_path / "other.jpg").hardlink_to(path)
    else:
        path.rename(tmp_path / "x").rename(path)
    for _ in range(3):
        assert digest_files([path], tmp_path / "cache")[0].tolist() == [sha256(b"cat")]
    assert len(files_read) == 2


def test_an_mtime_in_the_future_is_no_reason_to_read_a_file_again(tmp_path, files_read):
    path = old_file(tmp_path / "cat.jpg", b"cat")
    in_a_year = time.time_ns() + 365 * 86_400 * 10**9
    os.utime(path, ns=(in_a_year, in_a_year))
    for _ in range(2):
        digest_files([path], tmp_path / "cache")
    assert len(files_read) == 1


@pytest.mark.parametrize(
    ("mtime_ns", "ctime_ns", "is_settled"),
    [
        (1, 10**10, True),
        (1, 10**10 + 1, False),
        (1, 9 * 10**10, False),  # the clock of the file server is ahead
        (12 * 10**9, 1, False),
        (14 * 10**9, 1, True),
        (1, 0, False),  # no ctime to rely on
    ],
)
def test_only_settled_files_are_remembered(monkeypatch, mtime_ns, ctime_ns, is_settled):
    monkeypatch.setattr(stat_key, "RACY_NS", 2 * 10**9)
    assert StatKey(1, mtime_ns, ctime_ns, 1).is_settled(12 * 10**9) == is_settled


MOUNTS = """\
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime shared:1 - {root} /dev/vda rw
60 27 0:50 / {folder}/photo\\040album rw - fuse.sshfs me@host:/ rw
61 27 0:51 / {folder}/hidden rw - fuse.rclone x rw
62 27 0:52 / {folder}/hidden rw - nfs4 host:/ rw
"""


@pytest.mark.parametrize(
    ("name", "root", "is_relied_on"),
    [
        ("cat.jpg", "ext4", True),
        ("cat.jpg", "vfat", False),
        ("photo album/cat.jpg", "ext4", False),
        ("photo albums/cat.jpg", "ext4", True),
        ("link.jpg", "ext4", False),
        ("hidden/cat.jpg", "vfat", True),
        ("gone/cat.jpg", "xfs", True),
    ],
)
def test_ctime_is_relied_on_where_the_file_system_keeps_it(tmp_path, monkeypatch, name, root, is_relied_on):
    folder = Path(os.path.realpath(tmp_path))
    for below in ("photo album", "photo albums", "hidden"):
        (folder / below).mkdir()
        (folder / below / "cat.jpg").touch()
    (folder / "cat.jpg").touch()
    (folder / "link.jpg").symlink_to("photo album/cat.jpg")
    table = tmp_path / "mountinfo"
    table.write_text(MOUNTS.format(root=root, folder=folder))
    monkeypatch.setattr(stat_key, "_MOUNTS", table)
    key = StatKeys().of(os.fsencode(folder / name), (folder / "cat.jpg").stat())
    assert (key.ctime_ns != 0) == is_relied_on


@pytest.mark.parametrize("mounts", ["27 1 254:0 / / rw,relatime - fuse.rclone x rw\n", None])
def test_without_a_ctime_to_rely_on_files_are_read_every_time(tmp_path, files_read, monkeypatch, mounts):
    """As on network file systems that repeat the mtime as ctime, and where the system does not say what is mounted."""
    monkeypatch.setattr(stat_key, "_MOUNTS", tmp_path / "mountinfo")
    if mounts:
        (tmp_path / "mountinfo").write_text(mounts)
    path = old_file(tmp_path / "cat.jpg", b"cat")
    for content in (b"cat", b"dog", b"dog"):
        old_file(path, content)
        os.utime(path, ns=(10**18, 10**18))
        assert digest_files([path], tmp_path / "cache")[0].tolist() == [sha256(content)]
    assert len(files_read) == 3


def test_nothing_is_trusted_that_was_remembered_where_ctime_told(tmp_path, files_read, monkeypatch):
    path = old_file(tmp_path / "cat.jpg", b"cat")
    digest_files([path], tmp_path / "cache")
    monkeypatch.setattr(stat_key, "_MOUNTS", tmp_path / "nowhere")
    digest_files([path], tmp_path / "cache")
    assert len(files_read) == 2


def test_a_file_written_just_now_is_read_again(tmp_path, monkeypatch):
    monkeypatch.setattr(stat_key, "RACY_NS", 2_000_000_000)
    path = tmp_path / "cat.jpg"
    path.write_bytes(b"cat")
    status = path.stat()
    digest_files([path], tmp_path / "cache")
    path.write_bytes(b"dog")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # as within one tick of a coarse clock
    assert path.stat().st_mtime_ns == status.st_mtime_ns
    assert digest_files([path], tmp_path / "cache")[0].tolist() == [sha256(b"dog")]


def test_a_file_written_to_while_it_is_read_is_read_again(tmp_path, monkeypatch):
    path = old_file(tmp_path / "cat.jpg", b"cat")
    read = digests_module._sha256
    writes = iter([b"half a do", b"dog"])

    def read_while_writing(descriptor: int) -> bytes:
        digest = read(descriptor)
        for content in writes:
            path.write_bytes(content)
            break
        return digest

    monkeypatch.setattr(digests_module, "_sha256", read_while_writing)
    assert digest_files([path], tmp_path / "cache")[0].tolist() == [sha256(b"dog")]


def test_a_file_that_never_stops_changing_has_no_digest(tmp_path, monkeypatch):
    path = old_file(tmp_path / "cat.jpg", b"cat")
    read = digests_module._sha256

    def read_while_writing(descriptor: int) -> bytes:
        with path.open("ab") as file:
            file.write(b"!")
        return read(descriptor)

    monkeypatch.setattr(digests_module, "_sha256", read_while_writing)
    digests, reasons = digest_files([path], tmp_path / "cache")
    assert not digests.any()
    assert reasons == {0: "it is being written to"}


def test_what_is_no_file_has_a_reason_and_zeros(tmp_path):
    cat = old_file(tmp_path / "cat.jpg", b"cat")
    os.mkfifo(tmp_path / "fifo.jpg")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    (tmp_path / "zero.jpg").symlink_to("/dev/zero")
    names = ["fifo", "folder", "loop", "zero", "missing"]
    digests, reasons = digest_files([*(tmp_path / f"{name}.jpg" for name in names), cat], tmp_path / "cache")
    assert reasons[0] == "a FIFO, not a file"
    assert reasons[1] == "a folder, not a file"
    assert "symbolic links" in reasons[2]
    assert reasons[3] == "a device, not a file"
    assert reasons[4] == "No such file or directory"
    assert sorted(reasons) == [0, 1, 2, 3, 4]
    assert not digests[:5].any()
    assert digests[5].tolist() == sha256(b"cat")


def test_a_socket_has_a_reason(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the path of a socket is short
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket.jpg")
        assert digest_files(["socket.jpg"], tmp_path / "cache")[1] == {0: "a socket, not a file"}


def test_a_fifo_that_takes_a_files_place_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "fifo.jpg")
    assert digests_module._hash_file(os.fsencode(tmp_path / "fifo.jpg"), StatKeys()).reason == "a FIFO, not a file"


@pytest.mark.parametrize("damage", ["text", "truncated", "overwritten", "foreign", "other version", "other columns"])
def test_a_damaged_cache_is_quarantined_and_begun_anew(tmp_path, files_read, caplog, damage):
    paths = [old_file(tmp_path / f"{number}.jpg", b"%d" % number) for number in range(500)]
    expected, _ = digest_files(paths, tmp_path / "cache")
    database = tmp_path / "cache" / DATABASE_NAME
    content = database.read_bytes()
    if damage == "text":
        database.write_bytes(b"This is no database, however long one looks at it. " * 100)
    elif damage == "truncated":
        database.write_bytes(content[: len(content) // 2])
    elif damage == "overwritten":
        database.write_bytes(content[:4096] + b"\x5a" * (len(content) - 4096))
    else:
        if damage == "foreign":
            database.unlink()
        statement = {
            "foreign": "CREATE TABLE bookmarks (url TEXT)",
            "other version": "PRAGMA user_version = 99",
            "other columns": "ALTER TABLE states DROP COLUMN ctime_ns",
        }[damage]
        connection = sqlite3.connect(database)
        connection.execute(statement)
        connection.close()
    files_read.clear()
    digests, reasons = digest_files(paths, tmp_path / "cache")
    assert (digests == expected).all()
    assert reasons == {}
    assert len(caplog.messages) == 1
    assert "damaged" in caplog.messages[0]
    assert len(list((tmp_path / "cache").glob("digests.sqlite.damaged-*"))) == 1
    files_read.clear()
    assert (digest_files(paths, tmp_path / "cache")[0] == expected).all()
    assert files_read == []
    assert len(caplog.messages) == 1


#: How featx made its database before it knew of ctime.
OF_OLD = """
CREATE TABLE IF NOT EXISTS digests (
    path BLOB PRIMARY KEY, size INTEGER, mtime_ns INTEGER, inode INTEGER, digest BLOB, crc32 INTEGER
) WITHOUT ROWID;
PRAGMA application_id = 0x66747864;
PRAGMA user_version = 1;
"""


def test_a_database_of_an_older_featx_is_not_trusted_not_complained_of_and_goes_on(tmp_path, files_read, caplog):
    path = old_file(tmp_path / "cat.jpg", b"cat")
    database = tmp_path / "cache" / DATABASE_NAME
    database.parent.mkdir()
    status, name, wrong = path.stat(), os.fsencode(path), hashlib.sha256(b"dog").digest()
    crc32 = zlib.crc32(b"%d %d %d " % (status.st_size, status.st_mtime_ns, status.st_ino) + wrong + name)
    connection = sqlite3.connect(database)
    connection.executescript(OF_OLD)
    row = (name, status.st_size, status.st_mtime_ns, status.st_ino, wrong, crc32)
    with connection:
        connection.execute("INSERT INTO digests VALUES (?, ?, ?, ?, ?, ?)", row)
    assert check_database(database) is None
    for _ in range(2):
        assert digest_files([path], tmp_path / "cache")[0].tolist() == [sha256(b"cat")]
    assert len(files_read) == 1
    assert connection.execute("SELECT count(*) FROM digests").fetchall() == [(0,)], "it only takes up room"
    with connection:  # the older featx is still used
        connection.execute("INSERT INTO digests VALUES (?, ?, ?, ?, ?, ?)", row)
    digest_files([path], tmp_path / "cache")
    assert connection.execute("SELECT count(*) FROM digests").fetchall() == [(1,)], "nor is its work undone every time"
    connection.close()
    assert len(files_read) == 1
    assert check_database(database) is None
    assert caplog.messages == []


def test_an_older_featx_can_use_the_database(tmp_path):
    digest_files([old_file(tmp_path / "cat.jpg", b"cat")], tmp_path / "cache")
    connection = sqlite3.connect(tmp_path / "cache" / DATABASE_NAME)
    before = (
        connection.execute("PRAGMA user_version").fetchall(),
        connection.execute("PRAGMA application_id").fetchall(),
    )
    assert before == ([(1,)], [(0x66747864,)])
    assert connection.execute("SELECT path, size, mtime_ns, inode, digest, crc32 FROM digests").fetchall() == []
    connection.close()


def test_a_flipped_bit_in_a_remembered_digest_is_noticed(tmp_path, files_read):
    path = old_file(tmp_path / "cat.jpg", b"cat")
    digest_files([path], tmp_path / "cache")
    database = tmp_path / "cache" / DATABASE_NAME
    good = hashlib.sha256(b"cat").digest()
    bad = bytes([good[0] ^ 1]) + good[1:]
    assert good in database.read_bytes()
    database.write_bytes(database.read_bytes().replace(good, bad))
    assert digest_files([path], tmp_path / "cache")[0].tolist() == [sha256(b"cat")]
    assert len(files_read) == 2


def test_a_database_quarantined_by_another_process_is_not_quarantined_again(tmp_path):
    cache = StatCache(tmp_path)
    (tmp_path / DATABASE_NAME).rename(tmp_path / "elsewhere")
    StatCache(tmp_path).close()  # another process begins anew
    damage = sqlite3.DatabaseError("malformed")
    damage.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    cache._mend(damage)
    cache.remember([(b"/cat.jpg", StatKey(1, 2, 3, 4), bytes(32))])
    cache.close()
    assert list(tmp_path.glob("*.damaged-*")) == []
    cache = StatCache(tmp_path)
    assert b"/cat.jpg" in cache.lookup([b"/cat.jpg"])
    cache.close()


def test_a_cache_folder_that_cannot_be_made_only_costs_time(tmp_path, caplog):
    (tmp_path / "cache").write_text("a file where the folder should be")
    path = old_file(tmp_path / "cat.jpg", b"cat")
    assert digest_files([path], tmp_path / "cache")[0].tolist() == [sha256(b"cat")]
    assert len(caplog.messages) == 1
    assert "continuing without it" in caplog.messages[0]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_cache_only_costs_time(tmp_path, caplog, files_read):
    old, new = old_file(tmp_path / "old.jpg", b"old"), old_file(tmp_path / "new.jpg", b"new")
    digest_files([old], tmp_path / "cache")
    (tmp_path / "cache" / DATABASE_NAME).chmod(0o444)
    (tmp_path / "cache").chmod(0o555)
    files_read.clear()
    assert digest_files([old, new], tmp_path / "cache")[0].tolist() == [sha256(b"old"), sha256(b"new")]
    assert files_read == [os.fsencode(new)]
    assert len(caplog.messages) == 1


def test_a_locked_cache_is_done_without(tmp_path, caplog, monkeypatch):
    path = old_file(tmp_path / "cat.jpg", b"cat")
    digest_files([path], tmp_path / "cache")
    monkeypatch.setattr(statcache, "BUSY_TIMEOUT_S", 0.05)
    other = sqlite3.connect(tmp_path / "cache" / DATABASE_NAME, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    assert digest_files([path], tmp_path / "cache")[0].tolist() == [sha256(b"cat")]
    other.close()
    assert len(caplog.messages) == 1
    assert "locked" in caplog.messages[0]


HOSTILE = {
    "view": "ALTER TABLE states RENAME TO real; CREATE VIEW states AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT"
    " i + 1 FROM n) SELECT x'00' AS path, i AS size, 0 AS mtime_ns, 0 AS ctime_ns, 0 AS inode, x'00' AS digest,"
    " 0 AS crc32 FROM n;",
    "trigger": "CREATE TRIGGER more AFTER INSERT ON states BEGIN INSERT OR REPLACE INTO digests WITH RECURSIVE n(i) AS"
    " (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i, 0, 0, 0, x'00', 0 FROM n; END;",
    "index": "CREATE UNIQUE INDEX one_digest ON states (digest);",
    "more tables": "CREATE TABLE bookmarks (url TEXT);",
    "generated column": "DROP TABLE states; CREATE TABLE states (path BLOB PRIMARY KEY, size INTEGER, mtime_ns INTEGER,"
    " ctime_ns INTEGER, inode INTEGER, digest AS (zeroblob(32)), crc32 INTEGER) WITHOUT ROWID;",
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_database_that_does_more_than_remember_is_quarantined(tmp_path, files_read, caplog, what):
    path = old_file(tmp_path / "cat.jpg", b"cat")
    digest_files([path], tmp_path / "cache")
    database = tmp_path / "cache" / DATABASE_NAME
    connection = sqlite3.connect(database)
    connection.executescript(HOSTILE[what])
    connection.close()
    assert check_database(database) == "it has other tables, views or triggers than featx makes"
    assert digest_files([path], tmp_path / "cache")[0].tolist() == [sha256(b"cat")]
    (said,) = caplog.messages
    assert "it has other tables, views or triggers than featx makes" in said
    files_read.clear()
    assert digest_files([path], tmp_path / "cache")[0].tolist() == [sha256(b"cat")]
    assert files_read == []


@pytest.mark.parametrize("change", ["digest = x'00'", "digest = 5", "size = 'much'", "digest = zeroblob(1 << 28)"])
def test_values_that_are_none_of_ours_are_not_used_even_with_the_right_checksum(tmp_path, files_read, change):
    path = old_file(tmp_path / "cat.jpg", b"cat")
    digest_files([path], tmp_path / "cache")
    database = tmp_path / "cache" / DATABASE_NAME
    connection = sqlite3.connect(database)
    with connection:
        connection.execute(f"UPDATE states SET {change}")
        if change == "digest = x'00'":
            name, *key, digest, _ = connection.execute("SELECT * FROM states").fetchone()
            right = statcache._crc32(name, statcache.StatEntry(StatKey(*key), digest))
            connection.execute("UPDATE states SET crc32 = ?", (right,))
    connection.close()
    assert check_database(database)
    files_read.clear()
    assert digest_files([path], tmp_path / "cache")[0].tolist() == [sha256(b"cat")]
    assert len(files_read) == 1


@pytest.mark.parametrize("suffix", ["", "-journal", "-wal"])
@pytest.mark.parametrize("kind", ["FIFO", "folder", "device"])
def test_what_is_no_file_in_the_place_of_the_database_or_its_journal_is_not_opened(tmp_path, caplog, suffix, kind):
    path = old_file(tmp_path / "cat.jpg", b"cat")
    digest_files([path], tmp_path / "cache")
    place = tmp_path / "cache" / f"{DATABASE_NAME}{suffix}"
    place.unlink(missing_ok=True)
    if kind == "FIFO":
        os.mkfifo(place)
    elif kind == "folder":
        place.mkdir()
    else:
        place.symlink_to("/dev/zero")
    assert check_database(tmp_path / "cache" / DATABASE_NAME) == "no regular file"
    for _ in range(2):
        assert digest_files([path], tmp_path / "cache")[0].tolist() == [sha256(b"cat")]
    (said,) = caplog.messages
    assert "no regular file" in said


def test_a_sparse_file_of_a_terabyte_is_quarantined(tmp_path, caplog):
    path = old_file(tmp_path / "cat.jpg", b"cat")
    (tmp_path / "cache").mkdir()
    with (tmp_path / "cache" / DATABASE_NAME).open("wb") as file:
        file.truncate(1 << 40)
    assert check_database(tmp_path / "cache" / DATABASE_NAME)
    assert digest_files([path], tmp_path / "cache")[0].tolist() == [sha256(b"cat")]
    (said,) = caplog.messages
    assert "damaged or not featx's" in said


def test_a_statement_that_takes_for_ever_is_given_up(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(statcache, "TIME_LIMIT_S", 0.2)
    cache = StatCache(tmp_path)
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)"
    rows = f"{endless} SELECT path, 0, 0, 0, 0, 0, 0 FROM (SELECT count(*) AS path FROM n)"
    monkeypatch.setattr(statcache, "_ROWS", rows)
    assert cache.lookup([b"/cat.jpg"]) == {}
    (said,) = caplog.messages
    assert "it takes too long" in said
    assert "continuing without it" in said
    assert cache.lookup([b"/cat.jpg"]) == {}
    cache.close()


def test_ctrl_c_does_not_wait_for_a_database_that_is_locked(tmp_path):
    """SQLite itself would wait to the end of its time-out, and not see the signal."""
    path = old_file(tmp_path / "cat.jpg", b"cat")
    digest_files([path], tmp_path / "cache")
    program = (
        "import sys; from pathlib import Path; from featx.dataset import digests, statcache\n"
        "statcache.BUSY_TIMEOUT_S = 600.0\n"
        "print('asking', flush=True)\n"
        "digests.digest_files([Path(sys.argv[1])], Path(sys.argv[2]))\n"
    )
    with closing(sqlite3.connect(tmp_path / "cache" / DATABASE_NAME, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        process = subprocess.Popen(
            [sys.executable, "-c", program, path, tmp_path / "cache"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert process.stdout.readline() == b"asking\n"
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)  # ten times less than the lock would be waited for
    assert b"KeyboardInterrupt" in errors


def test_two_processes_at_once_remember_all(tmp_path, files_read):
    paths = [old_file(tmp_path / f"{number:03d}.jpg", b"%d" % number) for number in range(400)]
    program = (
        "import sys; from pathlib import Path; from featx.dataset import digests; from featx.storage import stat_key\n"
        "digests.COMMIT_EVERY_S, stat_key.RACY_NS = 0, 1\n"
        "root, half = Path(sys.argv[1]), sys.argv[2]\n"
        "files = sorted(root.glob('*.jpg'))\n"
        "files = files[:250] if half == 'first' else files[150:]\n"
        "found, reasons = digests.digest_files(files, root / 'cache')\n"
        "assert not reasons and found.any(axis=1).all()"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", program, tmp_path, half], stderr=subprocess.PIPE)
        for half in ("first", "second")
    ]
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert (process.returncode, errors) == (0, b"")
    digests, _ = digest_files(paths, tmp_path / "cache")
    assert files_read == []
    assert digests.tolist() == [sha256(b"%d" % number) for number in range(400)]


def test_an_interrupted_run_keeps_what_it_has_read(tmp_path, files_read, monkeypatch):
    paths = [old_file(tmp_path / f"{number:03d}.jpg", b"%d" % number) for number in range(200)]
    read = digests_module._sha256

    def interrupt_at_the_150th(descriptor: int) -> bytes:
        if len(files_read) == 150:
            os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.001)
        return read(descriptor)

    monkeypatch.setattr(digests_module, "_sha256", interrupt_at_the_150th)
    monkeypatch.setattr(digests_module, "_THREADS", 1)
    with pytest.raises(KeyboardInterrupt):
        digest_files(paths, tmp_path / "cache")
    monkeypatch.setattr(digests_module, "_sha256", read)
    files_read.clear()
    digest_files(paths, tmp_path / "cache")
    assert len(files_read) < 100


def test_an_inode_beyond_63_bits_fits_the_database(tmp_path):
    times = {"st_mtime_ns": 1, "st_ctime_ns": 2}
    key = StatKeys().of(b"/cat.jpg", os.stat_result((0o100644, 2**64 - 5, 0, 1, 0, 0, 7, 0, 0, 0), times))
    cache = StatCache(tmp_path)
    cache.remember([(b"/cat.jpg", key, bytes(32))])
    assert cache.lookup([b"/cat.jpg"])[b"/cat.jpg"].key == key
    cache.close()
