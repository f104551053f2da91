"""`cache/digests.sqlite`: which digest a file had when it was last read, by (path, size, mtime_ns, ctime_ns, inode).

Everything in it can be computed again, so nothing that happens to it is an error: a damaged or foreign database is
quarantined and begun anew, and featx does without one that cannot be used. Either is logged as one warning. The
rollback journal is used, since SQLite's WAL mode does not work on network folders.

Others may write to the cache. So nothing but our tables may be in the database, for views and triggers would do what
they want; values have our sizes; and no statement takes for ever.
"""

import logging
import os
import sqlite3
import stat
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from featx.dataset.folders import DATABASE_NAME, check_cache_dir
from featx.errors import FeatxError
from featx.storage import StatKey, make_cache
from featx.text import printable

#: How long to wait for another process that is writing.
BUSY_TIMEOUT_S = 10.0
#: How long SQLite itself waits for one: it does not see Ctrl-C.
_POLL_S = 0.1
#: How long one of our short statements may take; those of `check_database`, which reads all, may take longer.
TIME_LIMIT_S = 30.0
CHECK_LIMIT_S = 300.0
#: No path or address is nearly as long.
_MAX_VALUE_BYTES = 1 << 20
_APPLICATION_ID = 0x66747864  # "ftxd": marks the database as ours
_FORMAT_VERSION = 1
_DIGEST_BYTES = 32
_NAMES_PER_QUERY = 500  # SQLite before 3.32 takes at most 999 variables
_TABLE = """CREATE TABLE IF NOT EXISTS states (
    path BLOB PRIMARY KEY, size INTEGER, mtime_ns INTEGER, ctime_ns INTEGER, inode INTEGER, digest BLOB, crc32 INTEGER
) WITHOUT ROWID"""
#: The key of a note.
_NO_FILE = StatKey(0, 0, 0, 0)
#: Noted in each database from its beginning: the featx that uses it records splits, see `featx.dataset.split_record`.
RECORDS_SPLITS = b"splits"
_ROWS = "SELECT path, size, mtime_ns, ctime_ns, inode, digest, crc32 FROM states"
_INSERT = "INSERT OR REPLACE INTO states VALUES (?, ?, ?, ?, ?, ?, ?)"
#: What featx kept before it knew of ctime. It is not trusted, and is only there because an older featx that uses the
#: same cache would take a database without it for a damaged one.
_OLD_TABLE = """CREATE TABLE IF NOT EXISTS digests (
    path BLOB PRIMARY KEY, size INTEGER, mtime_ns INTEGER, inode INTEGER, digest BLOB, crc32 INTEGER
) WITHOUT ROWID"""

# SQLITE_ERROR is what our fixed statements give on tables that are not ours, and no code what is not even text.
_DAMAGE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR, sqlite3.SQLITE_TOOBIG, None}
_IN_USE = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
#: Files that SQLite keeps beside a database.
_COMPANIONS = ("-journal", "-wal", "-shm")

_T = TypeVar("_T")

_log = logging.getLogger("featx")


class StatEntry(NamedTuple):
    """A file's state when it was read, and the SHA-256 (32 bytes) of what it held."""

    key: StatKey
    digest: bytes


class _DamagedError(Exception):
    """The file is no database, a broken one, or somebody else's."""


class StatCache:
    """The digests remembered in one cache folder. Made, used and closed in one thread; any number of processes."""

    def __init__(self, cache_dir: Path, *, says_so: bool = True) -> None:
        """Open the database in a folder; if it cannot be used, say so unless somebody else does."""
        self._says_so = says_so
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
                found |= _patiently(self._connection, partial(_entries, names[start : start + _NAMES_PER_QUERY]))
        except (sqlite3.Error, _DamagedError, TypeError) as error:
            self._mend(error)
        return found

    def remember(self, rows: Iterable[tuple[bytes, StatKey, bytes]]) -> None:
        """Commit (absolute path, state, digest) of files that were read, if the cache can be written."""
        values = [(name, *key, digest, _crc32(name, StatEntry(key, digest))) for name, key, digest in rows]
        self._commit(_INSERT, values)

    def forget(self, names: Iterable[bytes]) -> None:
        """Commit that nothing is known of the files with these absolute paths, if the cache can be written."""
        self._commit("DELETE FROM states WHERE path = ?", [(name,) for name in names])

    def digests(self) -> np.ndarray:
        """Return the digests of all files that are remembered, `(n, 32)` uint8; none if the cache cannot be read."""
        digests: set[bytes] = set()
        if self._connection is not None:
            try:
                digests = _patiently(self._connection, _all_digests)
            except (sqlite3.Error, _DamagedError, TypeError) as error:
                self._mend(error)
        return np.frombuffer(b"".join(sorted(digests)), np.uint8).reshape(-1, _DIGEST_BYTES)

    def note(self, name: bytes) -> None:
        """Remember a name that is no absolute path, and so no file's."""
        self.remember([(name, _NO_FILE, bytes(_DIGEST_BYTES))])

    def is_noted(self, name: bytes) -> bool:
        """Return whether this name was noted."""
        return name in self.lookup([name])

    def _commit(self, statement: str, values: Sequence[tuple[object, ...]]) -> None:
        if self._connection is None or not values:
            return

        def commit(connection: sqlite3.Connection) -> None:
            with connection:
                connection.execute("BEGIN IMMEDIATE")
                connection.executemany(statement, values)

        try:
            _patiently(self._connection, commit)
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
            self._connection = _connect(self._path)
            if not _patiently(self._connection, _is_ours):
                _patiently(self._connection, _begin)
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
                _words(error),
                printable(target.name),
            )
        self._open()

    def _give_up(self, error: Exception) -> None:
        self.close()
        if not self._says_so:
            return
        _log.warning(
            "The digest cache %s cannot be used (%s); continuing without it, which is slower.",
            printable(self._path),
            _words(error),
        )


def _words(error: Exception) -> str:
    if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_INTERRUPT:
        return "it takes too long"
    return printable(str(error))


def _connect(path: Path, mode: str = "rwc") -> sqlite3.Connection:
    """Return a connection on which nothing but our own statements runs, and no value is larger than ours.

    Raises:
        _DamagedError: a FIFO, a device or a folder is in the place of the database, or of its journal.
        sqlite3.Error: it cannot be opened.
    """
    for name in ("", *_COMPANIONS):
        with suppress(FileNotFoundError):
            if not stat.S_ISREG(os.stat(f"{path}{name}").st_mode):  # noqa: PTH116 - what SQLite opens is beside it
                raise _DamagedError("no regular file")
    address = f"{path.absolute().as_uri()}?mode={mode}"
    connection = sqlite3.connect(address, timeout=_POLL_S, isolation_level=None, uri=True)
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MAX_VALUE_BYTES)
    connection.execute("PRAGMA trusted_schema = OFF")
    return connection


def _patiently(connection: sqlite3.Connection, use: Callable[[sqlite3.Connection], _T]) -> _T:
    """Return what `use` returns of the connection; again and again while another process has the database locked.

    Raises:
        sqlite3.Error: it stays locked, or `use` takes too long, or whatever `use` raises.
    """
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            with _time_limit(connection, TIME_LIMIT_S):
                return use(connection)
        except sqlite3.OperationalError as error:
            code = getattr(error, "sqlite_errorcode", None)
            if code is None or code & 0xFF not in _IN_USE or time.monotonic() > deadline:
                raise


@contextmanager
def _time_limit(connection: sqlite3.Connection, seconds: float) -> Iterator[None]:
    """Have SQLite give up what takes longer in the block. A progress handler would do, but swallows Ctrl-C."""
    timer = threading.Timer(seconds, connection.interrupt)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _is_damage(error: Exception) -> bool:
    """Return whether an error says that the database is none of ours any more; else it is busy, or cannot be read."""
    code = getattr(error, "sqlite_errorcode", None)
    return not isinstance(error, sqlite3.Error) or (code if code is None else code & 0xFF) in _DAMAGE


def check_database(path: Path) -> str | None:
    """Return what is wrong with the digest cache at `path`, in a few words; None if it is sound. Writes nothing.

    Raises:
        FeatxError: it cannot be read, or another process is writing to it for long.
    """
    try:
        with closing(_connect(path, "ro")) as database, _time_limit(database, CHECK_LIMIT_S):
            if not _patiently(database, _is_ours):
                return None  # nothing in it is used
            (verdict,) = database.execute("PRAGMA integrity_check(1)").fetchone()
            if verdict != "ok":
                return str(verdict)
            if not all(is_sound for _, _, is_sound in _read(database)):
                return "a row does not match its checksum"
    except (sqlite3.Error, _DamagedError, TypeError) as error:
        if not _is_damage(error):
            raise FeatxError(
                f"The digest cache {printable(path)} cannot be read: {_words(error)}. Try again later."
            ) from error
        return _words(error)
    return None


def _entries(names: Sequence[bytes], connection: sqlite3.Connection) -> dict[bytes, StatEntry]:
    """Return what is remembered of the files called `names`, and is what was written."""
    marks = ",".join("?" * len(names))
    read = _read(connection, f" WHERE path IN ({marks})", names)
    return {name: entry for name, entry, is_sound in read if is_sound}


def _read(
    connection: sqlite3.Connection, where: str = "", values: Sequence[bytes] = ()
) -> Iterator[tuple[bytes, StatEntry, bool]]:
    """Yield rows, and whether each is what was written: SQLite has no checksums, a flipped bit is a wrong digest."""
    for name, *key, digest, crc32 in connection.execute(_ROWS + where, values):
        entry = StatEntry(StatKey(*key), digest)
        yield name, entry, len(digest) == _DIGEST_BYTES and crc32 == _crc32(name, entry)


def _all_digests(connection: sqlite3.Connection) -> set[bytes]:
    return {entry.digest for _, entry, is_sound in _read(connection) if is_sound and any(entry.digest)}


def _is_ours(connection: sqlite3.Connection) -> bool:
    """Return what `_has_table` does, of one state: another process may be making the tables."""
    with connection:
        connection.execute("BEGIN")
        return _has_table(connection)


def _has_table(connection: sqlite3.Connection) -> bool:
    """Return whether the database has our table; False if it is empty, or has only that of an older featx.

    Raises:
        _DamagedError: it has something else.
    """
    (application_id,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    made = {name: _plain(sql) for name, sql in connection.execute("SELECT name, sql FROM sqlite_master LIMIT 3")}
    if (application_id, version, len(made)) == (0, 0, 0):
        return False
    if (application_id, version) != (_APPLICATION_ID, _FORMAT_VERSION):
        raise _DamagedError("written by another program or another version of featx")
    if not made.items() <= {"states": _plain(_TABLE), "digests": _plain(_OLD_TABLE)}.items():
        raise _DamagedError("it has other tables, views or triggers than featx makes")
    return "states" in made


def _plain(sql: object) -> str:
    """Return a statement as SQLite keeps it, with single blanks."""
    return " ".join(str(sql).replace("IF NOT EXISTS ", "").split())


def _begin(connection: sqlite3.Connection) -> None:
    """Make the tables, all or nothing, and empty what is there of an older featx; another process may do the same."""
    with connection:
        connection.execute("BEGIN IMMEDIATE")
        if not _has_table(connection):
            connection.execute(_TABLE)
            connection.execute(_OLD_TABLE)
            connection.execute("DELETE FROM digests")
            note = StatEntry(_NO_FILE, bytes(_DIGEST_BYTES))
            values = (RECORDS_SPLITS, *_NO_FILE, note.digest, _crc32(RECORDS_SPLITS, note))
            connection.execute(_INSERT, values)
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
    for suffix in _COMPANIONS:
        with suppress(FileNotFoundError):
            path.with_name(path.name + suffix).rename(target.with_name(target.name + suffix))
    return target


def _crc32(name: bytes, entry: StatEntry) -> int:
    return zlib.crc32(b"%d %d %d %d " % entry.key + entry.digest + name)
