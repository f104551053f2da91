"""Files and folders, on this machine, elsewhere or in archives; files are written whole or not at all.

Only this room uses fsspec. Other rooms use a `StoragePath`: a `pathlib.Path`, or a `RemotePath` with the same methods.
"""

from featx.storage.file_system import StorageError, archive_kind
from featx.storage.files import (
    OddFileError,
    check_readable,
    check_regular,
    check_writable,
    file_digest,
    move,
    nearest_folder,
    read_json,
    read_small,
    read_start,
    read_whole,
    remove_whole,
    replacing,
    write_text,
)
from featx.storage.free_space import check_reserve, check_space
from featx.storage.marks import OUTPUT_MARK, mark_folder
from featx.storage.member_names import ArchiveError, NameEncodingError, name_zip_members, text_encoding
from featx.storage.outputs import Making, check_empty, make_cache, new_file, new_folder, place, room_for
from featx.storage.paths import (
    StoragePath,
    as_cache_dir,
    as_data,
    as_path,
    as_storage_path,
    expanded,
    local_dir,
    working_folder,
)
from featx.storage.remote_path import RemotePath, is_distant
from featx.storage.scratch import scratch_array
from featx.storage.stat_key import StatKey, StatKeys
from featx.storage.windows import IS_WINDOWS, READ_FLAGS, FileHeldError, patiently, rename_folder, windows_paths
from featx.storage.workshops import (
    LOCK_NAME,
    TEMPORARY_PREFIX,
    HeldError,
    is_held,
    make_folder,
    sweep,
    sync_tree,
    temporary_path,
    workshop,
)
