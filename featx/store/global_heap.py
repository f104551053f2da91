"""Whether HDF5 can read a file's global heaps, in which it keeps what a virtual data set shows.

They have no checksum, and HDF5 goes through a damaged one for ever (seen with 1.14.6): a piece of free space whose size
has become zero is followed by itself. "HDF5 File Format Specification", III.E, says how they are laid out.
"""

_SIGNATURE, _VERSION = b"GCOL", 1
_HEAP_HEADER_BYTES, _OBJECT_HEADER_BYTES = 16, 16


def heaps_are_sound(content: bytes) -> bool:
    """Return whether all global heaps in the bytes of an HDF5 file can be gone through from end to end."""
    at = content.find(_SIGNATURE)
    while at >= 0:
        if not _is_sound(content, at):
            return False
        at = content.find(_SIGNATURE, at + len(_SIGNATURE))
    return True


def _is_sound(content: bytes, start: int) -> bool:
    """Return whether the heap that begins at `start` can be gone through."""
    size = _number(content, start + 8, 8)
    end = start + size
    if content[start + 4] != _VERSION or size < _HEAP_HEADER_BYTES or end > len(content):
        return False
    at = start + _HEAP_HEADER_BYTES
    while end - at >= _OBJECT_HEADER_BYTES:
        index, size = _number(content, at, 2), _number(content, at + 8, 8)
        # Object 0 is what is free, and counts its own header; the others are padded to eight bytes.
        needed = size if index == 0 else _OBJECT_HEADER_BYTES + (size + 7) // 8 * 8
        if not _OBJECT_HEADER_BYTES <= needed <= end - at:
            return False
        at += needed
    return True


def _number(content: bytes, at: int, n_bytes: int) -> int:
    return int.from_bytes(content[at : at + n_bytes], "little")
