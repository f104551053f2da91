"""`cache/digests.sqlite`: which digest a file had when it was last read, by (path, size, mtime_ns, ctime_ns, inode).

Everything in it can be computed again, so nothing that happens to it is an error: a damaged or foreign database is
quarantined and begun anew, and featx does without one that cannot be used. Either is logged as one warning. The
rollback journal is used, since SQLite's WAL mode does not work on network folders.
"""

import logging
import sqlite3
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import NamedTuple

from featx.dataset.folders import DATABASE_NAME, check_cache_dir
from featx.errors import FeatxError, printable
from featx.storage import StatKey, make_cache

#: How long to wait for another process that is writing.
BUSY_TIMEOUT_S = 10.0
_APPLICATION_ID = 0x66747864  # "ftxd": marks the database as ours
_FORMAT_VERSION = 1
_NAMES_PER_QUERY = 500  # SQLite before 3.32 takes at most 999 variables
_TABLE = """CREATE TABLE IF NOT EXISTS states (
    path BLOB PRIMARY KEY, size INTEGER, mtime_ns INTEGER, ctime_ns INTEGER, inode INTEGER, digest BLOB, crc32 INTEGER
) WITHOUT ROWID"""
_ROWS = "SELECT path, size, mtime_ns, ctime_ns, inode, digest, crc32 FROM states"
#: What featx kept before it knew of ctime. It is not trusted, and is only there because an older featx that uses the
#: same cache would take a database without it for a damaged one.
_OLD_TABLE = """CREATE TABLE IF NOT EXISTS digests (
    path BLOB PRIMARY KEY, size INTEGER, mtime_ns INTEGER, inode INTEGER, digest BLOB, crc32 INTEGER
) WITHOUT ROWID"""

_WHOSE = """SELECT application_id, user_version, (SELECT count(*) FROM sqlite_master)
FROM pragma_application_id, pragma_user_version"""

# SQLITE_ERROR is what our fixed statements give on tables that are not ours.
_DAMAGE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR}

_log = logging.getLogger("featx")


class StatEntry(NamedTuple):
    """A file's state when it was read, and the SHA-256 (32 bytes) of what it held."""

    key: StatKey
    digest: bytes


class _DamagedError(Exception):
    """The file is no database, a broken one, or somebody else's."""


class StatCache:
    """The digests remembered in one cache folder. Made, used and closed in one thread; any number of processes."""

    def __init__(self, cache_dir: Path) -> None:
        self._path = cache_dir / DATABASE_NAME
        self._connection: sqlite3.Connection | None = None
        self._inode: int | None = None
        self._recovered = False
        try:
            check_cache_dir(cache_dir)
            make_cache(cache_dir)
        except OSError as error:
            self._give_up(error)
        else:
            self._open()

    def lookup(self, names: Sequence[bytes]) -> dict[bytes, StatEntry]:
        """Return what is remembered of the files with these absolute paths; nothing if the cache cannot be read."""
        found: dict[bytes, StatEntry] = {}
        try:
            for start in range(0, len(names), _NAMES_PER_QUERY):
                if self._connection is None:
                    break
                portion = names[start : start + _NAMES_PER_QUERY]
                marks = ",".join("?" * len(portion))
                found |= {
                    name: entry
                    for name, entry, is_sound in _read(self._connection, f" WHERE path IN ({marks})", portion)
                    if is_sound
                }
        except (sqlite3.Error, _DamagedError, TypeError) as error:
            self._mend(error)
        return found

    def remember(self, rows: Iterable[tuple[bytes, StatKey, bytes]]) -> None:
        """Commit (absolute path, state, digest) of files that were read, if the cache can be written."""
        values = [(name, *key, digest, _crc32(name, StatEntry(key, digest))) for name, key, digest in rows]
        self._commit("INSERT OR REPLACE INTO states VALUES (?, ?, ?, ?, ?, ?, ?)", values)

    def forget(self, names: Iterable[bytes]) -> None:
        """Commit that nothing is known of the files with these absolute paths, if the cache can be written."""
        self._commit("DELETE FROM states WHERE path = ?", [(name,) for name in names])

    def _commit(self, statement: str, values: Sequence[tuple[object, ...]]) -> None:
        if self._connection is None or not values:
            return
        try:
            with self._connection:
                self._connection.execute("BEGIN IMMEDIATE")
                self._connection.executemany(statement, values)
        except sqlite3.Error as error:
            self._mend(error)

    def close(self) -> None:
        """Let go of the database. Closing twice is harmless."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _open(self) -> None:
        self._inode = _inode(self._path)
        try:
            self._connection = sqlite3.connect(self._path, timeout=BUSY_TIMEOUT_S, isolation_level=None)
            if not _is_ours(self._connection):
                _begin(self._connection)
        except (sqlite3.Error, _DamagedError) as error:
            self._mend(error)

    def _mend(self, error: Exception) -> None:
        """Begin anew if the database is damaged, and do without it if that is not what is wrong, or did not help."""
        if not _is_damage(error) or self._recovered:
            self._give_up(error)
            return
        self._recovered = True
        self.close()
        if self._inode == _inode(self._path):  # else another process has quarantined it before us
            try:
                target = quarantine_database(self._path)
            except OSError as rename_error:
                self._give_up(rename_error)
                return
            _log.warning(
                "The digest cache %s was damaged or not featx's (%s); it is now %s, and featx reads the images again.",
                printable(self._path),
                error,
                printable(target.name),
            )
        self._open()

    def _give_up(self, error: Exception) -> None:
        self.close()
        _log.warning(
            "The digest cache %s cannot be used (%s); continuing without it, which is slower.",
            printable(self._path),
            error,
        )


def _is_damage(error: Exception) -> bool:
    """Return whether an error says that the database is none of ours any more; else it is busy, or cannot be read."""
    code = getattr(error, "sqlite_errorcode", None)
    return not isinstance(error, sqlite3.Error) or (code is not None and code & 0xFF in _DAMAGE)


def check_database(path: Path) -> str | None:
    """Return what is wrong with the digest cache at `path`, in a few words; None if it is sound. Writes nothing.

    Raises:
        FeatxError: it cannot be read, or another process is writing to it for long.
    """
    try:
        address = f"{path.absolute().as_uri()}?mode=ro"
        with closing(sqlite3.connect(address, timeout=BUSY_TIMEOUT_S, uri=True)) as database:
            if not _is_ours(database):
                return None  # nothing in it is used
            (verdict,) = database.execute("PRAGMA integrity_check(1)").fetchone()
            if verdict != "ok":
                return str(verdict)
            if not all(is_sound for _, _, is_sound in _read(database)):
                return "a row does not match its checksum"
    except (sqlite3.Error, _DamagedError, TypeError) as error:
        if not _is_damage(error):
            raise FeatxError(f"The digest cache {printable(path)} cannot be read: {error}. Try again later.") from error
        return str(error)
    return None


def _read(
    connection: sqlite3.Connection, where: str = "", values: Sequence[bytes] = ()
) -> Iterator[tuple[bytes, StatEntry, bool]]:
    """Yield rows, and whether each is what was written: SQLite has no checksums, a flipped bit is a wrong digest."""
    for name, *key, digest, crc32 in connection.execute(_ROWS + where, values):
        entry = StatEntry(StatKey(*key), digest)
        yield name, entry, crc32 == _crc32(name, entry)


def _is_ours(connection: sqlite3.Connection) -> bool:
    """Return whether the database has our table; False if it is empty, or has only that of an older featx."""
    # One statement sees one state: another process may be making the tables.
    application_id, version, n_tables = connection.execute(_WHOSE).fetchone()
    if (application_id, version, n_tables) == (0, 0, 0):
        return False
    if (application_id, version) != (_APPLICATION_ID, _FORMAT_VERSION):
        raise _DamagedError("written by another program or another version of featx")
    return bool(connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'states'").fetchone())


def _begin(connection: sqlite3.Connection) -> None:
    """Make the tables, all or nothing, and empty what is there of an older featx; another process may do the same."""
    with connection:
        connection.execute("BEGIN IMMEDIATE")
        if not _is_ours(connection):
            connection.execute(_TABLE)
            connection.execute(_OLD_TABLE)
            connection.execute("DELETE FROM digests")
            connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {_FORMAT_VERSION}")


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except OSError:
        return None


def quarantine_database(path: Path) -> Path:
    """Rename the database at `path`, with its journal, so that a new one is begun; return its new path.

    A journal left behind would be played into the next database.

    Raises:
        OSError: it cannot be renamed.
    """
    target = path.with_name(f"{path.name}.damaged-{time.strftime('%Y%m%dT%H%M%S')}-{time.time_ns() % 10**9:09d}")
    path.rename(target)
    for suffix in ("-journal", "-wal", "-shm"):
        with suppress(FileNotFoundError):
            path.with_name(path.name + suffix).rename(target.with_name(target.name + suffix))
    return target


def _crc32(name: bytes, entry: StatEntry) -> int:
    return zlib.crc32(b"%d %d %d %d " % entry.key + entry.digest + name)
