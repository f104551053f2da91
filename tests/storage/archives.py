"""Zip files with whatever names and flags, which no program writes any more."""

import struct
import zlib
from collections.abc import Sequence
from typing import NamedTuple


class Member(NamedTuple):
    name: bytes
    content: bytes
    flags: int = 0
    extra: bytes = b""


def zip_bytes(members: Sequence[Member]) -> bytes:
    """Return a zip file, written as the format says, with whatever names and flags."""
    files, directory = b"", b""
    for name, content, flags, extra in members:
        record = struct.pack(
            "<HHHHHIIIHH", 20, flags, 0, 0, 33, zlib.crc32(content), *[len(content)] * 2, len(name), len(extra)
        )
        rest = struct.pack("<HHHII", 0, 0, 0, 0, len(files))
        directory += b"PK\1\2" + struct.pack("<H", 20) + record + rest + name + extra
        files += b"PK\3\4" + record + name + extra + content
    n = len(members)
    return files + directory + struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, n, n, len(directory), len(files), 0)
