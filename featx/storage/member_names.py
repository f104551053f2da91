"""Names of the members of a zip or tar file: one rule for reading an archive and for unpacking it."""

import re
import stat
import string
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Sequence
from posixpath import dirname, join, normpath
from typing import TypeVar

from featx.errors import FeatxError
from featx.text import printable

_Entry = TypeVar("_Entry", zipfile.ZipInfo, tarfile.TarInfo)

#: How all names may begin if an archive was packed with whole paths: that is then its own folder.
_ROOT = re.compile(r"(?:[A-Za-z]:)?/+")
_LEADS_OUT = re.compile(r"/|[A-Za-z]:|(?:.*/)?\.\.(?:/|$)", re.DOTALL)

_UTF8_FLAG, _ENCRYPTED_FLAG = 0x800, 0x1
_UNICODE_PATH = 0x7075  # the extra field of Info-ZIP that has a name in UTF-8


class ArchiveError(FeatxError):
    """An archive is broken, or does what no harmless archive does. Nothing of it stays unpacked."""


class NameEncodingError(ArchiveError):
    """Names in an archive are not in the encoding that the user chose."""


def text_encoding(name: str) -> str:
    """Return the name of an encoding that file names may be in.

    >>> text_encoding("gbk")
    'gbk'

    Raises:
        FeatxError: there is no such encoding, or it encodes slashes and plain letters differently.
    """
    plain = string.ascii_letters + string.digits + "/._- "
    try:
        fits = plain.encode("ascii").decode(name) == plain
    except (LookupError, ValueError):  # UnicodeError is a ValueError
        fits = False
    if not fits:
        raise FeatxError(
            f"Choose an encoding that Python supports for file names, such as gbk, shift_jis, euc_kr, cp866 or cp1252. "
            f"Received: {printable(name)}"
        )
    return name


def plain_path(name: str) -> str:
    """Return a path without its empty parts and those that are a dot.

    >>> plain_path("./a//b/")
    'a/b'
    """
    return "/".join(part for part in name.split("/") if part not in {"", "."})


def name_zip_members(zip_file: zipfile.ZipFile, encoding: str | None = None) -> list[str]:
    r"""Give the members of an open zip file the paths that they have in a folder, and drop what is not to be there.

    Backslashes separate folders, too. Kept are files, the last of several of a name, and folders, which end in a slash.
    Links, devices and what macOS adds are dropped.

    Args:
        zip_file: a file of which nothing has been changed.
        encoding: of names that do not say which they are in. Without it, they are in UTF-8 if all fit, else in CP437.

    Returns:
        What the user should know, one sentence each.

    Raises:
        ArchiveError: a name leads out of the folder, a file is in the way of another one, or something needs a
            password.
        NameEncodingError: a name is not in `encoding`.
    """
    entries = zip_file.infolist()
    names, warnings = _decoded([_zip_name(entry) for entry in entries], encoding, "cp437", "strict")
    names = [name.partition("\0")[0].replace("\\", "/") for name in names]
    kinds = [_zip_kind(name, entry.external_attr >> 16) for name, entry in zip(names, entries, strict=True)]
    kept = _kept(entries, names, kinds, warnings)
    if any(entry.flag_bits & _ENCRYPTED_FLAG for entry in kept.values()):
        raise ArchiveError("it is protected by a password.")
    for name, entry in kept.items():
        entry.filename = name
    zip_file.filelist, zip_file.NameToInfo = list(kept.values()), kept
    return warnings


def name_tar_members(tar_file: tarfile.TarFile, encoding: str | None = None) -> list[str]:
    """Give the members of an open tar file the paths that they have in a folder: as `name_zip_members` does.

    Links become the files in the archive that they lead to; others are dropped. Backslashes separate folders only where
    no name has a slash. Without `encoding`, names that are not in UTF-8 keep their bytes, as `tar` keeps them.

    Raises:
        ArchiveError: a name leads out of the folder, or a file is in the way of another one.
        NameEncodingError: a name is not in `encoding`.
    """
    entries = _with_linked(tar_file.getmembers())
    raw = [_tar_name(entry, tar_file.encoding, tar_file.errors) for entry in entries]
    names, warnings = _decoded(raw, encoding, tar_file.encoding or "utf-8", tar_file.errors)
    if not any("/" in name for name in names):
        names = [name.replace("\\", "/") for name in names]
    kinds = ["folder" if entry.isdir() else "file" if entry.isreg() else "other" for entry in entries]
    kept = _kept(entries, names, kinds, warnings)
    for name, entry in kept.items():
        entry.name = name.removesuffix("/")
    tar_file.members = list(kept.values())  # type: ignore[attr-defined] # which typeshed does not know of
    return warnings


def _zip_name(entry: zipfile.ZipInfo) -> str | bytes:
    """Return a member's name, or its bytes if it does not say which encoding they are in."""
    if entry.flag_bits & _UTF8_FLAG:
        return entry.orig_filename
    raw = entry.orig_filename.encode("cp437")  # what Python has decoded it from
    extra = entry.extra
    while len(extra) >= 4:
        kind, size = struct.unpack("<HH", extra[:4])
        field, extra = extra[4 : 4 + size], extra[4 + size :]
        # The checksum is another one where a program that does not know the field has renamed the member.
        if kind == _UNICODE_PATH and field[:1] == b"\1" and field[1:5] == struct.pack("<I", zlib.crc32(raw)):
            try:
                return field[5:].decode("utf-8")
            except UnicodeDecodeError as error:
                raise ArchiveError(
                    f"it is broken (the name {printable(entry.orig_filename)} is not valid UTF-8)."
                ) from error
    return raw


def _zip_kind(name: str, mode: int) -> str:
    if name.endswith("/") or stat.S_ISDIR(mode):
        return "folder"
    return "file" if stat.S_IFMT(mode) in {0, stat.S_IFREG} else "other"


def _tar_name(entry: tarfile.TarInfo, encoding: str | None, errors: str) -> str | bytes:
    """Return a member's name, or its bytes if it does not say which encoding they are in."""
    try:
        if "path" in entry.pax_headers:  # in UTF-8, unless it says that these are mere bytes
            entry.name.encode("utf-8")
            return entry.name
    except UnicodeEncodeError:
        pass
    return entry.name.encode(encoding or "utf-8", errors)


def _decoded(
    names: Sequence[str | bytes], encoding: str | None, fallback: str, errors: str
) -> tuple[list[str], list[str]]:
    """Return all names as text, and what to say of those that may be wrong.

    All bytes are taken to be in one encoding: a single letter of GBK may well happen to be UTF-8, too.
    """
    unsaid = [name for name in names if isinstance(name, bytes) and not name.isascii()]
    used, example = (encoding or "utf-8", "strict"), b""
    try:
        if not encoding and _may_be_chance([name.decode(*used) for name in unsaid]):
            example = unsaid[0]
        texts = [name if isinstance(name, str) else name.decode(*used) for name in names]
    except UnicodeDecodeError as error:
        example = error.object
        if encoding:
            raise NameEncodingError(
                f"the name {_escaped(example)} in it is not valid {encoding}; choose another encoding with "
                f"--zip-encoding (zip_encoding in Python)."
            ) from error
        used = (fallback, errors)
        texts = [name if isinstance(name, str) else name.decode(*used) for name in names]
    if not example:
        return texts, []
    shown = f"{printable(example.decode(*used))}, read as {used[0]}" if used[1] == "strict" else _escaped(example)
    return texts, [
        f"The archive does not say the encoding of {len(unsaid):,} of its names, such as {shown}: if they look "
        f"wrong, give the encoding with --zip-encoding (zip_encoding in Python), such as gbk, shift_jis or cp1252."
    ]


def _may_be_chance(names: Sequence[str]) -> bool:
    """Return whether names in UTF-8 may be in another encoding: `è` has the bytes of `猫` in GBK.

    Longer words than one letter, and letters of three bytes, do not come about by chance.
    """
    words = {word for name in names for word in re.findall(r"[^\W\d_]+", name) if not word.isascii()}
    return bool(words) and all(len(word) == 1 and word < "\u0800" for word in words)


def _escaped(name: bytes) -> str:
    return printable(name.decode("ascii", "backslashreplace"))


def _with_linked(entries: list[tarfile.TarInfo]) -> list[tarfile.TarInfo]:
    """Return the members of a tar file, in which links to other members have become what they lead to.

    A hard link leads to a member before it, a symbolic one to the last of a name.
    """
    found: dict[str, tarfile.TarInfo] = {}
    for entry in entries:
        if entry.islnk():
            _become(entry, found.get(normpath(entry.linkname)))
        found[normpath(entry.name)] = entry
    for entry in entries:
        target: tarfile.TarInfo | None = entry
        seen = 0
        while target is not None and target.issym() and seen < 40:  # as many as Linux follows
            target = found.get(normpath(join(dirname(target.name), target.linkname)))
            seen += 1
        if entry.issym():
            _become(entry, target)
    return entries


def _become(link: tarfile.TarInfo, target: tarfile.TarInfo | None) -> None:
    if target is not None and target.isreg():
        link.type, link.size = target.type, target.size
        link.offset_data, link.sparse = target.offset_data, target.sparse


def _kept(
    entries: Sequence[_Entry], names: Sequence[str], kinds: Sequence[str], warnings: list[str]
) -> dict[str, _Entry]:
    """Return the members that are to be in the folder by their paths there; add to `warnings` what is left out."""
    roots = {match[0] if (match := _ROOT.match(name)) else "" for name in names}
    root = roots.pop() if len(roots) == 1 else ""
    kept: dict[str, _Entry] = {}
    others, replaced = [], []
    for entry, name, kind in zip(entries, names, kinds, strict=True):
        below = name.removeprefix(root)
        if _LEADS_OUT.match(below):
            raise ArchiveError(f"{printable(name)} in it leads out of its folder.")
        path = plain_path(below)
        if not path or "__MACOSX" in path.split("/"):
            continue
        if kind == "other":
            others.append(printable(name))
            continue
        if kind == "file" and path in kept:
            replaced.append(printable(path))
        kept[f"{path}/" if kind == "folder" else path] = entry
    _check_ways(kept)
    if others:
        warnings.append(f"Left out because they are not ordinary files: {len(others):,}, such as {others[0]}.")
    if replaced:
        warnings.append(f"Left out, because a later file has the same name: {len(replaced):,}, such as {replaced[0]}.")
    return kept


def _check_ways(paths: dict[str, _Entry]) -> None:
    """Raise ArchiveError if one of the files is a folder, too."""
    folders: set[str] = set()
    for path in paths:
        above = path.rpartition("/")[0]
        while above and above not in folders:
            folders.add(above)
            above = above.rpartition("/")[0]
    if both := folders & paths.keys():
        raise ArchiveError(f"{printable(min(both))} in it is both a file and a folder.")
