"""A place is a folder or a file, on this machine or elsewhere; nothing else in featx knows of fsspec."""

from featx.places.errors import PlaceError
from featx.places.file_system import FileState
from featx.places.members import ArchiveError, NameEncodingError, name_zip_members, text_encoding
from featx.places.place import Place, as_data, as_path, as_place, local_dir
from featx.places.redaction import redacted
from featx.places.remote_path import RemotePath
from featx.places.tree import Entry, RemoteTree

__all__ = [
    "ArchiveError",
    "Entry",
    "FileState",
    "NameEncodingError",
    "Place",
    "PlaceError",
    "RemotePath",
    "RemoteTree",
    "as_data",
    "as_path",
    "as_place",
    "local_dir",
    "name_zip_members",
    "redacted",
    "text_encoding",
]
