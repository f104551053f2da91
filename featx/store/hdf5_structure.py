"""What makes HDF5 go round for ever or crash, found before HDF5 reads it: nothing stops that, not even a signal.

HDF5 follows two kinds of lists without counting: what lies in a global heap, where it keeps texts of variable length,
and what is free in a local heap, where groups of the old kind keep names. It also follows trees of the old kind, which
find names or chunks: one that leads back to itself fills the stack, and ends the process. None of them has a checksum.
featx writes none to a segment, so that in files of its own making there is nothing to look for but the headers of the
root group and of what it names.

https://docs.hdfgroup.org/archive/support/HDF5/doc/H5.format.html
"""

import io
import mmap
import struct
from collections.abc import Callable, Iterator
from functools import partial

from featx.storage import RemotePath, StoragePath, read_small

#: A larger file is not searched for heaps; a segment has some 32 MiB.
_SEARCHED_BYTES = 256 << 20

_SUPERBLOCK = struct.Struct("<8s4B4Q")
_SIGNATURE, _SUPERBLOCK_VERSIONS = b"\x89HDF\r\n\x1a\n", (2, 3)

#: Of the header of an object, version 2.
_HEADER = struct.Struct("<4s2B")
_HEADER_BYTES = _HEADER.size + 28
_HAS_TIMES, _HAS_PHASES, _HAS_ORDER, _SIZE_BITS = 0x20, 0x10, 0x04, 0x03
_LINK_INFO, _LINK, _LAYOUT, _CONTINUATION, _OLD_GROUP = 0x02, 0x06, 0x08, 0x10, 0x11
_LINK_HAS_KIND, _LINK_HAS_ORDER, _LINK_HAS_LETTERS, _UNDEFINED = 0x08, 0x04, 0x10, b"\xff" * 8
#: From this version on, the layout of a data set has one of the new ways to find chunks.
_NEW_LAYOUT = 4
_MAX_BLOCKS, _BLOCK_BYTES = 1000, 1 << 20

#: Objects in all heaps of a file: more than any has, and few enough to be looked at in a second. Heaps may overlap, so
#: that a small file could claim billions.
_MAX_STEPS = 1_000_000

_GLOBAL_HEAP, _GLOBAL_VERSION = b"GCOL", 1
_GLOBAL_HEADER_BYTES, _OBJECT_HEADER_BYTES = 16, 16

_LOCAL_HEAP, _LOCAL_VERSION = b"HEAP", 0
_NO_MORE = 1

#: A node of a tree has a kind, a level, which is 0 for a leaf, the number of children and two neighbours; then keys and
#: addresses of children take turns. A key is a number, or one for each dimension of a chunk and two more.
_TREE, _TREE_OF_NAMES, _TREE_OF_CHUNKS = b"TREE", 0, 1
_TREE_HEADER_BYTES, _MAX_DIMENSIONS = 24, 32

#: Where a file may begin, after what is not HDF5's.
_MAX_USER_BLOCK = 1 << 20

Read = Callable[[int, int], bytes]


def check_structure(path: StoragePath, source: io.RawIOBase | io.BufferedIOBase) -> None:
    """Raise ValueError if HDF5 might never come back from the root group of the file at `path`, open as `source`."""
    size = source.seek(0, io.SEEK_END)

    def read(offset: int, n_bytes: int) -> bytes:
        if offset >= size:
            return b""
        source.seek(offset)
        return source.read(n_bytes) or b""

    if not _is_new(read):
        content = _content(path)
        if not (has_sound_names(content) and has_sound_trees(content)):
            raise ValueError("its list of names or chunks has no end")


def has_sound_texts(path: StoragePath) -> bool:
    """Return whether texts of variable length in the file at `path` can be read."""
    return has_sound_heaps(_content(path))


def has_sound_heaps(content: bytes | mmap.mmap, *, beyond: bool = False) -> bool:
    """Return whether all global heaps in a file of this `content` can be read to their end.

    What ends `beyond` the file is no heap, if so wanted, but the letters of one among numbers: likely in large files.
    """
    return _are_sound(content, _GLOBAL_HEAP, partial(_is_sound_global_heap, beyond=beyond))


def has_sound_names(content: bytes | mmap.mmap, *, beyond: bool = False) -> bool:
    """Return the same of local heaps, where groups of the old kind keep names."""
    return _are_sound(content, _LOCAL_HEAP, partial(_is_sound_local_heap, beyond=beyond))


def has_sound_trees(content: bytes | mmap.mmap, *, beyond: bool = False) -> bool:
    """Return whether all trees of the old kind in a file of this `content` come to an end."""
    starts = [0, *(512 << doubled for doubled in range(_MAX_USER_BLOCK.bit_length() - 9))]
    base = next((start for start in starts if content[start : start + len(_SIGNATURE)] == _SIGNATURE), 0)
    return _are_sound(content, _TREE, partial(_is_sound_node, parents=set(), base=base, beyond=beyond))


def _content(path: StoragePath) -> bytes:
    return path.read_bytes() if isinstance(path, RemotePath) else read_small(path, _SEARCHED_BYTES)


def _are_sound(
    content: bytes | mmap.mmap, signature: bytes, is_sound: Callable[[bytes | mmap.mmap, int, Iterator[int]], bool]
) -> bool:
    steps = iter(range(_MAX_STEPS))
    start = content.find(signature)
    while start >= 0:
        if not is_sound(content, start, steps):
            return False
        start = content.find(signature, start + 1)
    return True


def _is_new(read: Read) -> bool:
    """Return whether the root group and all that it names are of the kind that has checksums; False in any doubt."""
    head = read(0, _SUPERBLOCK.size).ljust(_SUPERBLOCK.size, b"\0")
    signature, version, n_offset, n_length, _, base, _, _, root = _SUPERBLOCK.unpack(head)
    if signature != _SIGNATURE or version not in _SUPERBLOCK_VERSIONS or (n_offset, n_length, base) != (8, 8, 0):
        return False
    try:
        named = [_named_by(kind, data) for kind, data in _messages_of(read, root)]
        return all(_has_new_chunks(read, address) for address in named if address)
    except (ValueError, IndexError):
        return False


def _named_by(kind: int, data: bytes) -> int:
    """Return where the object is that a message of a group names; 0 for a message that names none.

    Raises:
        ValueError: the group keeps names elsewhere, in an old structure maybe.
    """
    if kind == _OLD_GROUP or (kind == _LINK_INFO and data[2 + 8 * (data[1] & 1) :][:8] != _UNDEFINED):
        raise ValueError("names are not in the header")
    if kind != _LINK:
        return 0
    flags = data[1]
    if flags & _LINK_HAS_KIND and data[2]:  # soft, or to another file
        return 0
    at = 2 + bool(flags & _LINK_HAS_KIND) + 8 * bool(flags & _LINK_HAS_ORDER) + bool(flags & _LINK_HAS_LETTERS)
    n_size = 1 << (flags & _SIZE_BITS)
    return _number(data, at + n_size + int.from_bytes(data[at : at + n_size], "little"))


def _has_new_chunks(read: Read, address: int) -> bool:
    """Return whether the object at `address` is a data set whose chunks no tree of the old kind finds."""
    return any(kind == _LAYOUT and data[0] >= _NEW_LAYOUT for kind, data in _messages_of(read, address))


def _messages_of(read: Read, address: int) -> Iterator[tuple[int, bytes]]:
    """Yield the kind and the content of each message in the header of the object at `address`.

    Raises:
        ValueError: it is a header of the old kind, or does not end.
    """
    header = read(address, _HEADER_BYTES).ljust(_HEADER_BYTES, b"\0")
    mark, header_version, flags = _HEADER.unpack_from(header)
    if (mark, header_version) != (b"OHDR", 2):
        raise ValueError("an object has no header of the new kind")
    at = _HEADER.size + (16 if flags & _HAS_TIMES else 0) + (4 if flags & _HAS_PHASES else 0)
    n_size = 1 << (flags & _SIZE_BITS)
    blocks = [(address + at + n_size, int.from_bytes(header[at : at + n_size], "little"))]
    for offset, n_bytes in blocks:
        block = read(offset, min(n_bytes, _BLOCK_BYTES))
        for kind, data in _messages(block, has_order=bool(flags & _HAS_ORDER)):
            yield kind, data
            if kind == _CONTINUATION:
                following, length = struct.unpack_from("<2Q", data.ljust(16, b"\0"))
                blocks.append((following + 4, max(0, length - 8)))  # without its mark and its checksum
        if len(blocks) > _MAX_BLOCKS:
            raise ValueError("a header does not end")


def _messages(block: bytes, *, has_order: bool) -> Iterator[tuple[int, bytes]]:
    """Yield the kind and the content of each message in a block of an object's header."""
    at, n_header = 0, 6 if has_order else 4
    while at + n_header <= len(block):
        kind, size = block[at], int.from_bytes(block[at + 1 : at + 3], "little")
        yield kind, block[at + n_header : at + n_header + size]
        at += n_header + size


def _is_sound_global_heap(content: bytes | mmap.mmap, start: int, steps: Iterator[int], *, beyond: bool) -> bool:
    """Return whether the global heap that begins at `start`, if it is one, can be read to its end."""
    if content[start + 4 : start + 5] != bytes([_GLOBAL_VERSION]):  # HDF5 refuses it, or it is part of a number
        return True
    end = start + _number(content, start + 8)
    if end > len(content):
        return beyond
    at = start + _GLOBAL_HEADER_BYTES
    while end - at >= _OBJECT_HEADER_BYTES:
        index, size = int.from_bytes(content[at : at + 2], "little"), _number(content, at + 8)
        # Object 0 is what is free, and counts its own header; the others are padded to eight bytes.
        needed = size if index == 0 else _OBJECT_HEADER_BYTES + (size + 7) // 8 * 8
        if not _OBJECT_HEADER_BYTES <= needed <= end - at or next(steps, None) is None:
            return False
        at += needed
    return at <= end


def _is_sound_local_heap(content: bytes | mmap.mmap, start: int, steps: Iterator[int], *, beyond: bool) -> bool:
    """Return whether the list of what is free in the local heap at `start`, if it is one, comes to an end."""
    if content[start + 4 : start + 5] != bytes([_LOCAL_VERSION]):
        return True
    size, free, data = (_number(content, start + at) for at in (8, 16, 24))
    if data + size > len(content):
        return beyond
    seen: set[int] = set()
    while free != _NO_MORE:
        if free in seen or free + 16 > size or next(steps, None) is None:
            return False
        seen.add(free)
        free = _number(content, data + free)
    return True


def _is_sound_node(
    content: bytes | mmap.mmap, start: int, steps: Iterator[int], *, parents: set[int], base: int, beyond: bool
) -> bool:
    """Return whether the children of the node at `start`, if it is one, are nodes one level below: so it has an end.

    Args:
        content: of the file.
        start: where the node is.
        steps: one for each child that is looked at.
        parents: the nodes that have a parent. Where they have two, a small file could have billions of ways.
        base: where the file begins.
        beyond: see `has_sound_heaps`.
    """
    kind, level = content[start + 4 : start + 5], content[start + 5 : start + 6]
    if kind not in {bytes([_TREE_OF_NAMES]), bytes([_TREE_OF_CHUNKS])} or level in {b"", b"\0"}:
        return True
    below = _TREE + kind + bytes([level[0] - 1])
    n_children = int.from_bytes(content[start + 6 : start + 8], "little")
    for key_bytes in [8] if kind[0] == _TREE_OF_NAMES else range(24, 16 + 8 * _MAX_DIMENSIONS + 1, 8):
        first, children = start + _TREE_HEADER_BYTES + key_bytes, set[int]()
        for number in range(n_children):
            child = base + _number(content, first + number * (key_bytes + 8))
            if beyond and not number and child >= len(content):
                return True
            if content[child : child + len(below)] != below or child in parents or child in children:
                break
            if next(steps, None) is None:
                return False
            children.add(child)
        if len(children) == n_children:
            parents |= children
            return True
    return False


def _number(content: bytes | mmap.mmap, at: int) -> int:
    return int.from_bytes(content[at : at + 8], "little")
