"""Zip and tar files that are well-formed and hostile, or unlucky, made by chance; the same ones for the same number.

Each begins as an honest data set. Then it is told a few lies: of sizes, places, names, kinds. What is in a class folder
is an image of that class, whatever else is wrong, or no image at all: so a row that is wrong is known by its label.
"""

import bz2
import gzip
import io
import lzma
import random
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

#: What zeros are taken for where a bomb is packed: enough to be told from an honest file by time and memory.
BOMB_BYTES = 16 << 20

STORED, DEFLATED, BZIP2, LZMA = 0, 8, 12, 14
_UTF8 = 0x800


@dataclass
class Record:
    """A member of a zip file: what it is, and what is said of it instead.

    Attributes:
        name: the bytes of its name.
        content: its bytes.
        method: how they are packed.
        said: members of its entry in the list at the end, instead of the true ones: see `_FIELDS`.
        said_local: the same of the header before the bytes.
        packed: the packed bytes, if they are not those of `content`.
        place: the number of the member whose bytes are taken for these; its own if None.
        extra: the extra field, in both places.
    """

    name: bytes
    content: bytes
    method: int = DEFLATED
    said: dict[str, int | bytes] = field(default_factory=dict)
    said_local: dict[str, int | bytes] = field(default_factory=dict)
    packed: bytes | None = None
    place: int | None = None
    extra: bytes = b""


@dataclass
class Zip:
    """A zip file: its members, and lies about the whole.

    Attributes:
        records: the members.
        said: members of the record at the very end, instead of the true ones.
        before, after: bytes around it.
        comment: at the end.
    """

    records: list[Record]
    said: dict[str, int] = field(default_factory=dict)
    before: bytes = b""
    after: bytes = b""
    comment: bytes = b""

    def to_bytes(self) -> bytes:
        """Return the file, as the format says it is written."""
        body, places = self.before, []
        for record in self.records:
            places.append(len(body))
            fields = _fields(record) | record.said_local
            body += b"PK\3\4" + struct.pack("<HHHHHIIIHH", *_values(fields, _LOCAL)) + fields["name"] + fields["extra"]
            body += _packed(record)
        start = len(body)
        for number, record in enumerate(self.records):
            place = places[number if record.place is None else record.place % len(places)]
            fields = {"offset": place} | _fields(record) | record.said
            values = _values(fields, _CENTRAL)
            body += b"PK\1\2" + struct.pack("<HHHHHHIIIHHHHHII", *values) + fields["name"] + fields["extra"]
        end = {"n_here": len(self.records), "n": len(self.records), "size": len(body) - start, "start": start}
        end |= {name: value for name, value in self.said.items() if name in end}
        numbers = (end["n_here"] & 0xFFFF, end["n"] & 0xFFFF, end["size"] & _MOST, end["start"] & _MOST)
        return (
            body + struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, *numbers, len(self.comment)) + self.comment + self.after
        )


_MOST = 0xFFFFFFFF
_LOCAL = ("version", "flags", "method", "time", "date", "crc", "packed_size", "size", "n_name", "n_extra")
_CENTRAL = (*("made_by", *_LOCAL, "n_comment", "disk", "internal", "external", "offset"),)
_WIDTHS = dict.fromkeys(("crc", "packed_size", "size", "external", "offset"), _MOST)


def _packed(record: Record) -> bytes:
    if record.packed is not None:
        return record.packed
    return pack(record.content, record.method)


def pack(content: bytes, method: int) -> bytes:
    """Return bytes packed as a method of zip files says; those of a method that nobody knows as they are."""
    if method == DEFLATED:
        packer = zlib.compressobj(6, zlib.DEFLATED, -15)
        return packer.compress(content) + packer.flush()
    if method == BZIP2:
        return bz2.compress(content)
    if method == LZMA:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_LZMA) as zip_file:
            zip_file.writestr("x", content)
            info = zip_file.getinfo("x")
        return buffer.getvalue()[31 : 31 + info.compress_size]
    return content


def _fields(record: Record) -> dict[str, int | bytes]:
    return {
        "made_by": 3 << 8 | 20,
        "version": 20,
        "flags": _UTF8,
        "method": record.method,
        "time": 0,
        "date": 33,
        "crc": zlib.crc32(record.content),
        "packed_size": len(_packed(record)),
        "size": len(record.content),
        "name": record.name,
        "extra": record.extra,
        "n_comment": 0,
        "disk": 0,
        "internal": 0,
        "external": 0o100644 << 16,
    }


def _values(fields: dict[str, int | bytes], names: tuple[str, ...]) -> list[int]:
    lengths = {"n_name": len(fields["name"]), "n_extra": len(fields["extra"])}  # type: ignore[arg-type]
    return [int({**lengths, **fields}[name]) & _WIDTHS.get(name, 0xFFFF) for name in names]


# Names


def bad_names(rng: random.Random, folder: str, suffix: str = ".jpg") -> str:
    """Return a name that no honest archive has; `folder` is where the file belongs."""
    stem = f"x{rng.randrange(10**6)}"
    return rng.choice(
        [
            f"../{folder}/{stem}{suffix}",
            f"{folder}/../../{stem}{suffix}",
            f"/{folder}/{stem}{suffix}",
            f"//{folder}/{stem}{suffix}",
            f"C:/{folder}/{stem}{suffix}",
            f"..\\{folder}\\{stem}{suffix}",
            f"{folder}\\{stem}{suffix}",
            f"{folder}/{'n' * 10_000}{suffix}",
            f"{folder}/{'n' * 300}{suffix}",
            f"{folder}/{'d/' * 2000}{stem}{suffix}",
            f"{folder}/{stem}\0{suffix}",
            f"{folder}/\x1b]0;owned\x07{stem}{suffix}",
            f"{folder}/{stem}\nfeatx: all is well{suffix}",
            f"{folder}/./{stem}{suffix}",
            f"{folder}//{stem}{suffix}",
            f"{folder}/{stem}{suffix}/",
            f"{folder}/{stem} ",
            f"{folder}/{stem}.",
            f"{folder}/CON{suffix}",
            f"{folder}/{stem}\u202egpj.exe",
            f"{folder}/cafe\u0301{stem}{suffix}",
            f"{folder}/=cmd|'/c calc'!A1{suffix}",
            f"{folder}/$(touch evil){suffix}",
            f"__MACOSX/{folder}/._{stem}{suffix}",
            ".featx-output",
            f"{folder}/.featx-output",
            ".featx-fetched.json",
            f".tmp-{stem}/{folder}/{stem}{suffix}",
            "recipe.json",
            "",
            "/",
            ".",
            "..",
            "./",
            "../",
        ]
    )


# Lies about zip files

Lie = Callable[[random.Random, Zip], None]


def _any(rng: random.Random, archive: Zip) -> Record:
    return rng.choice(archive.records)


def _folder(record: Record) -> str:
    return record.name.decode("utf-8", "replace").rpartition("/")[0] or "sea"


def lie_of_size(rng: random.Random, archive: Zip) -> None:
    record = _any(rng, archive)
    said = rng.choice([record.said, record.said_local, record.said])
    size = rng.choice([0, 1, len(record.content) - 1, len(record.content) + 1, 5_000, 1 << 30, _MOST, _MOST - 1])
    said[rng.choice(["size", "packed_size"])] = size


def lie_of_checksum(rng: random.Random, archive: Zip) -> None:
    rng.choice([_any(rng, archive).said, _any(rng, archive).said_local])["crc"] = rng.randrange(1 << 32)


def lie_of_place(rng: random.Random, archive: Zip) -> None:
    record = _any(rng, archive)
    if rng.random() < 0.5:
        record.place = rng.randrange(len(archive.records))
    else:
        record.said["offset"] = rng.choice([0, 1, 30, 1000, 1 << 20, _MOST, _MOST - 5])


def lie_of_overlap(rng: random.Random, archive: Zip) -> None:
    """Many members share the bytes of one: as small as one of them, as large as all."""
    shared = rng.randrange(len(archive.records))
    model = archive.records[shared]
    model.content, model.method, model.packed = bytes(1 << 18), DEFLATED, None
    for number in range(rng.choice([2, 50, 300])):
        name = model.name if rng.random() < 0.5 else f"{_folder(model)}/o{number}.jpg".encode()
        archive.records.append(Record(name, model.content, place=shared))


def lie_of_name(rng: random.Random, archive: Zip) -> None:
    record = _any(rng, archive)
    name = bad_names(rng, _folder(record)).encode("utf-8", "surrogatepass")[:65_000]
    if rng.random() < 0.8:
        record.name = name
    else:
        rng.choice([record.said, record.said_local])["name"] = name


def lie_of_encoding(rng: random.Random, archive: Zip) -> None:
    record = _any(rng, archive)
    record.name = _folder(record).encode() + rng.choice(
        [b"/\xff\xfe.jpg", b"/\xba\xa3.jpg", b"/\x80\x81.jpg", b"/\xe6.jpg"]
    )
    if rng.random() < 0.5:
        record.said["flags"] = record.said_local["flags"] = 0


def lie_of_twice(rng: random.Random, archive: Zip) -> None:
    record = _any(rng, archive)
    for _ in range(rng.choice([1, 3, 40])):
        archive.records.append(Record(record.name, record.content, rng.choice([STORED, DEFLATED])))


def lie_of_ways(rng: random.Random, archive: Zip) -> None:
    """A file is a folder, too."""
    record = _any(rng, archive)
    archive.records.insert(rng.randrange(len(archive.records) + 1), Record(record.name + b"/in it.jpg", record.content))


def lie_of_kind(rng: random.Random, archive: Zip) -> None:
    record = _any(rng, archive)
    mode = rng.choice([0o120777, 0o020666, 0o060666, 0o010666, 0o140777, 0o104777, 0o040755, 0o170000, 0])
    record.said["external"] = mode << 16 | rng.choice([0, 0x10])
    if mode == 0o120777:
        record.content = rng.choice([b"/etc/passwd", b"../../..", record.name])


def lie_of_method(rng: random.Random, archive: Zip) -> None:
    record = _any(rng, archive)
    method = rng.choice([1, 6, 9, 97, 98, 99, 0xFFFF, STORED, DEFLATED, BZIP2, LZMA])
    rng.choice([record.said, record.said_local])["method"] = method


def lie_of_flags(rng: random.Random, archive: Zip) -> None:
    record = _any(rng, archive)
    flags = rng.choice([1, 8, 0x20, 0x40, 0x2000, 0x809, 0xFFFF])
    record.said["flags"] = flags
    if rng.random() < 0.5:
        record.said_local["flags"] = flags


def lie_of_extra(rng: random.Random, archive: Zip) -> None:
    record = _any(rng, archive)
    evil = b"../evil.jpg"
    record.extra = rng.choice(
        [
            b"\1\0",
            struct.pack("<HH", 1, 4) + b"\0" * 4,
            struct.pack("<HHQQ", 1, 16, 1 << 62, 1 << 62),
            struct.pack("<HHQQ", 1, 16, (1 << 64) - 1, (1 << 64) - 1),
            struct.pack("<HH", 0x7075, 0xFFFF),
            struct.pack("<HHBI", 0x7075, 5 + len(evil), 1, zlib.crc32(record.name)) + evil,
            struct.pack("<HHBI", 0x7075, 6, 1, zlib.crc32(record.name)) + b"\xff",
            b"\0" * 60_000,
        ]
    )
    if rng.random() < 0.5:
        record.said["size"] = record.said["packed_size"] = _MOST
    if rng.random() < 0.5:
        record.said["flags"] = record.said_local["flags"] = 0


def lie_of_end(rng: random.Random, archive: Zip) -> None:
    archive.said[rng.choice(["n", "n_here", "size", "start"])] = rng.choice([0, 1, 3, 0xFFFF, 1 << 20, _MOST])


def lie_of_surroundings(rng: random.Random, archive: Zip) -> None:
    junk = rng.choice([b"#!/bin/sh\n" * 100, b"\0" * 5000, b"PK\5\6" + bytes(18), b"PK\3\4" * 50])
    where = rng.choice(["before", "after", "comment"])
    setattr(archive, where, junk)


def lie_of_times(rng: random.Random, archive: Zip) -> None:
    record = _any(rng, archive)
    record.said["time"], record.said["date"] = rng.choice([0, 0xFFFF]), rng.choice([0, 0xFFFF, 15 << 5])


def lie_of_disk(rng: random.Random, archive: Zip) -> None:
    _any(rng, archive).said["disk"] = rng.choice([1, 0xFFFF])


def lie_of_many(rng: random.Random, archive: Zip) -> None:
    record = _any(rng, archive)
    n = rng.choice([300, 1000])
    tiny = rng.choice([b"", b"no image"])
    archive.records += [Record(f"{_folder(record)}/t{i}.jpg".encode(), tiny, STORED) for i in range(n)]


def lie_of_bomb(rng: random.Random, archive: Zip) -> None:
    record = _any(rng, archive)
    method = rng.choice([DEFLATED, DEFLATED, BZIP2, LZMA])
    bomb = Record(f"{_folder(record)}/bomb.jpg".encode(), b"", method, packed=_bomb(method))
    true = {"size": BOMB_BYTES, "crc": zlib.crc32(bytes(BOMB_BYTES)), "packed_size": len(_bomb(method))}
    claimed = rng.choice([true, true, true | {"size": 3000}])
    bomb.said |= claimed
    bomb.said_local |= claimed
    archive.records.append(bomb)


_bombs: dict[int, bytes] = {}


def _bomb(method: int) -> bytes:
    if method not in _bombs:
        _bombs[method] = pack(bytes(BOMB_BYTES), method)
    return _bombs[method]


def lie_of_nesting(rng: random.Random, archive: Zip) -> None:
    folder = _folder(_any(rng, archive))
    inner = Zip(
        [
            Record(record.name.rpartition(b"/")[2] or b"x.jpg", record.content)
            for record in archive.records
            if _folder(record) == folder
        ]
    )
    if not inner.records:
        return
    for _ in range(rng.choice([0, 1, 2])):
        rng.choice(list(ZIP_LIES.values()))(rng, inner)
    content = inner.to_bytes()
    for number in range(rng.choice([0, 0, 2, 5])):
        content = Zip([Record(f"n{number}.zip".encode(), content)]).to_bytes()
    name = rng.choice([f"{folder}/more.zip", f"{folder}.zip", "more.zip", f"{folder}/more.ZIP", f"{folder}/.zip"])
    archive.records.append(Record(name.encode(), content))


ZIP_LIES: dict[str, Lie] = {
    name.removeprefix("lie_of_"): lie for name, lie in list(globals().items()) if name.startswith("lie_of_")
}


def hostile_zip(rng: random.Random, images: dict[str, bytes]) -> tuple[bytes, tuple[str, ...]]:
    """Return a zip file of `images`, by their paths, with one to three lies; and what they are about."""
    methods = [STORED, DEFLATED]
    archive = Zip([Record(name.encode(), content, rng.choice(methods)) for name, content in images.items()])
    lies = tuple(rng.sample(sorted(ZIP_LIES), rng.choice([1, 1, 2, 3])))
    for name in lies:
        ZIP_LIES[name](rng, archive)
    return archive.to_bytes(), tuple(f"zip: {name}" for name in lies)


# Tar files

_FORMATS = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)


@dataclass
class Entry:
    """A member of a tar file: its header, and its bytes, which need not be as many as the header says.

    Attributes:
        info: the header.
        content: the bytes.
        header: raw bytes of the header instead.
    """

    info: tarfile.TarInfo
    content: bytes = b""
    header: bytes | None = None


def _entry(name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = "") -> Entry:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = len(content), kind, link
    return Entry(info, content)


def _tar_bytes(entries: list[Entry], form: int) -> bytes:
    parts = []
    for entry in entries:
        header = entry.header
        if header is None:
            header = entry.info.tobuf(form, "utf-8", "surrogateescape")
        parts.append(header + entry.content + bytes(-len(entry.content) % 512))
    return b"".join(parts) + bytes(1024)


def _raw_header(name: bytes, size: bytes, kind: bytes, rest: bytes = b"") -> bytes:
    """Return a header in the old format with these bytes in the place of its size."""
    header = name[:100].ljust(100, b"\0") + b"0000644\0" * 3 + size.ljust(12, b"\0")[:12] + b"0" * 11 + b"\0"
    header += b" " * 8 + kind + bytes(100) + b"ustar  \0"
    header = (header + rest).ljust(512, b"\0")[:512]
    checksum = b"%06o\0 " % sum(header)
    return header[:148] + checksum + header[156:]


def _any_entry(rng: random.Random, entries: list[Entry]) -> Entry:
    return rng.choice(entries)


def _entry_folder(entry: Entry) -> str:
    return entry.info.name.rpartition("/")[0] or "sea"


TarLie = Callable[[random.Random, list[Entry]], None]


def tar_of_name(rng: random.Random, entries: list[Entry]) -> None:
    entry = _any_entry(rng, entries)
    entry.info.name = bad_names(rng, _entry_folder(entry)).replace("\0", "\x01")


def tar_of_size(rng: random.Random, entries: list[Entry]) -> None:
    entry = _any_entry(rng, entries)
    sizes = [
        b"77777777777\0",
        b"\x80" + b"\xff" * 11,
        b"\xff" * 12,
        b"\x80" + (1 << 62).to_bytes(11, "big"),
        b"-1",
        b"abc",
        b"",
    ]
    entry.header = _raw_header(entry.info.name.encode()[:100], rng.choice(sizes), b"0")


def tar_of_links(rng: random.Random, entries: list[Entry]) -> None:
    folder = _entry_folder(_any_entry(rng, entries))
    others = [entry.info.name for entry in entries if _entry_folder(entry) == folder]
    kind = rng.choice([tarfile.SYMTYPE, tarfile.LNKTYPE])
    target = rng.choice(
        ["/etc/passwd", "../../../etc/passwd", f"{folder}/loop.jpg", "loop.jpg", "", "..", rng.choice(others)]
    )
    if kind == tarfile.SYMTYPE and target in others:
        target = target.rpartition("/")[2]
    entries.append(_entry(f"{folder}/loop.jpg", b"", kind, target))
    if rng.random() < 0.3:
        numbers = range(rng.choice([3, 45, 4000]))
        entries += [_entry(f"{folder}/l{n}.jpg", b"", tarfile.SYMTYPE, f"l{n + 1}.jpg") for n in numbers]


def tar_of_link_to_folder(rng: random.Random, entries: list[Entry]) -> None:
    """A link to a folder outside, and a file in it."""
    entry = _any_entry(rng, entries)
    entries.insert(0, _entry("door", b"", tarfile.SYMTYPE, rng.choice(["..", "/tmp", "../../.."])))
    entries.append(_entry("door/evil.jpg", entry.content))


def tar_of_kinds(rng: random.Random, entries: list[Entry]) -> None:
    entry = _any_entry(rng, entries)
    entry.info.type = rng.choice([b"3", b"4", b"6", b"7", b"Z", b"V", b"M", b"D", b"5", b"\0", b"g"])


def tar_of_sparse(rng: random.Random, entries: list[Entry]) -> None:
    """A file of a terabyte of zeros that takes nothing."""
    folder = _entry_folder(_any_entry(rng, entries))
    size = rng.choice([BOMB_BYTES, 1 << 40, 1 << 62])
    info = tarfile.TarInfo(f"{folder}/sparse.jpg")
    info.pax_headers = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": info.name,
        "GNU.sparse.realsize": str(size),
    }
    spans = b"1\n%d\n0\n" % size if rng.random() < 0.7 else b"999999999\n1\n1\n"
    content = spans.ljust(512, b"\0")
    info.size = len(content)
    entries.append(Entry(info, content, info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")))


def tar_of_pax(rng: random.Random, entries: list[Entry]) -> None:
    entry = _any_entry(rng, entries)
    entry.info.pax_headers = rng.choice(
        [
            {"size": str(1 << 62)},
            {"size": "-1"},
            {"size": "x"},
            {"path": "../../evil.jpg"},
            {"linkpath": "/etc/passwd"},
            {"hdrcharset": "BINARY"},
            {"mtime": "1e400"},
            {"uid": "9" * 5000},
            {"path": "a" * 100_000},
            {"comment": "c" * 1_000_000},
        ]
    )


def tar_of_chains(rng: random.Random, entries: list[Entry]) -> None:
    """Headers that announce headers that announce headers."""
    kind = rng.choice([b"L", b"K", b"x"])
    content = b"15 path=sea/x\n\n" if kind == b"x" else b"sea/x.jpg\0"
    header = _raw_header(b"././@LongLink", b"%011o\0" % len(content), kind)
    links = [Entry(tarfile.TarInfo(), content, header)] * rng.choice([2, 200, 3000])
    entries[rng.randrange(len(entries)) : 0] = links


def tar_of_twice(rng: random.Random, entries: list[Entry]) -> None:
    entry = _any_entry(rng, entries)
    entries += [_entry(entry.info.name, entry.content)] * rng.choice([1, 3, 40])


def tar_of_ways(rng: random.Random, entries: list[Entry]) -> None:
    entry = _any_entry(rng, entries)
    entries.insert(rng.randrange(len(entries) + 1), _entry(f"{entry.info.name}/in it.jpg", entry.content))


def tar_of_holes(rng: random.Random, entries: list[Entry]) -> None:
    """Zeros, or what is no header, between members."""
    hole = Entry(tarfile.TarInfo(), b"", rng.choice([bytes(512), bytes(1024), b"\xff" * 512, b"no header".ljust(512)]))
    entries.insert(rng.randrange(len(entries) + 1), hole)


def tar_of_many(rng: random.Random, entries: list[Entry]) -> None:
    folder = _entry_folder(_any_entry(rng, entries))
    entries += [_entry(f"{folder}/t{i}.jpg", rng.choice([b"", b"no image"])) for i in range(rng.choice([500, 2000]))]


def tar_of_bomb(rng: random.Random, entries: list[Entry]) -> None:
    folder = _entry_folder(_any_entry(rng, entries))
    entries.append(_entry(f"{folder}/bomb.jpg", bytes(BOMB_BYTES)))


TAR_LIES: dict[str, TarLie] = {
    name.removeprefix("tar_of_"): lie for name, lie in list(globals().items()) if name.startswith("tar_of_")
}

_PACKERS: dict[str, Callable[[bytes], bytes]] = {
    ".tar": bytes,
    ".tar.gz": lambda data: gzip.compress(data, 1),
    ".tgz": lambda data: gzip.compress(data[: len(data) // 2], 1) + gzip.compress(data[len(data) // 2 :], 1),
    ".tar.bz2": lambda data: bz2.compress(data, 1),
    ".tar.xz": lambda data: lzma.compress(data, preset=0),
}


def hostile_tar(rng: random.Random, images: dict[str, bytes]) -> tuple[bytes, str, tuple[str, ...]]:
    """Return a tar file of `images`, by their paths, with one to three lies; its suffix; and what they are about."""
    entries = [_entry(name, content) for name, content in images.items()]
    lies = tuple(rng.sample(sorted(TAR_LIES), rng.choice([1, 1, 2, 3])))
    for name in lies:
        TAR_LIES[name](rng, entries)
    data = _tar_bytes(entries, rng.choice(_FORMATS[1:]))
    suffix = rng.choice([".tar", ".tar", *_PACKERS])
    data = _PACKERS[suffix](data)
    if rng.random() < 0.1:
        data = data[: rng.randrange(len(data))]
    return data, suffix, tuple(f"tar: {name}" for name in lies)


def hostile_archive(number: int, images: dict[str, bytes], folder: Path) -> tuple[Path, tuple[str, ...]]:
    """Write the hostile archive of this number, of `images` by their paths, to `folder`; and return what is wrong."""
    rng = random.Random(number)
    if rng.random() < 0.6:
        data, lies = hostile_zip(rng, images)
        suffix = ".zip"
    else:
        data, suffix, lies = hostile_tar(rng, images)
    path = folder / f"photos{suffix}"
    path.write_bytes(data)
    return path, lies
