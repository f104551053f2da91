"""HDF5 files from others: all of their data is their own, and a copy is what its digest says."""

import hashlib
import io
import os
import resource
import threading

import h5py
import numpy as np
import pytest

from featx.errors import FeatxError
from featx.store import check_own_data, check_own_file, private_copy

DATA = np.arange(600, dtype=np.float32).reshape(20, 30)


def written(change) -> bytes:
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        file["group/data"] = DATA
        change(file)
    return content.getvalue()


def check(content: bytes, most_bytes: int = 1 << 20) -> None:
    with h5py.File(io.BytesIO(content), "r") as file:
        check_own_data(file, content, most_bytes)


SOUND = {
    "nothing more": lambda _file: None,
    "empty": lambda file: file.create_dataset("x", (0, 3)),
    "no shape": lambda file: file.create_dataset("x", data=h5py.Empty("f4")),
    "a number": lambda file: file.create_dataset("x", data=3.5),
    "texts": lambda file: file.create_dataset("x", data=["a", "bc"], dtype=h5py.string_dtype()),
    "attributes": lambda file: file.attrs.update({"names": ["a", "b" * 50], "n": 3}),
    "chunks": lambda file: file.create_dataset("x", data=DATA, chunks=(7, 11), fletcher32=True),
    "compressed": lambda file: file.create_dataset("x", data=DATA, chunks=(7, 11), compression="gzip", shuffle=True),
    "two names": lambda file: file.__setitem__("group/again", file["group/data"]),
    "a type": lambda file: file.__setitem__("type", np.dtype("f4")),
}


@pytest.mark.parametrize("change", SOUND.values(), ids=SOUND)
def test_a_file_with_all_of_its_data_is_sound(change, tmp_path):
    content = written(change)
    check(content)
    (tmp_path / "x.h5").write_bytes(content)
    check_own_file(tmp_path / "x.h5", 1 << 20)


def virtual(file):
    layout = h5py.VirtualLayout(DATA.shape, DATA.dtype)
    layout[...] = h5py.VirtualSource(".", "group/data", DATA.shape)
    file.create_virtual_dataset("x", layout)


def unknown_filter(file):
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_chunk(DATA.shape)
    plan.set_filter(32015, h5py.h5z.FLAG_OPTIONAL)
    h5py.h5d.create(file.id, b"x", h5py.h5t.NATIVE_FLOAT, h5py.h5s.create_simple(DATA.shape), plan)


FOREIGN = {
    "external link": (lambda file: file.__setitem__("x", h5py.ExternalLink("y.h5", "/")), "another file or place"),
    "soft link": (lambda file: file.__setitem__("group/x", h5py.SoftLink("/")), "another file or place"),
    "external storage": (
        lambda file: file.create_dataset("x", (3,), external=[("/etc/hostname", 0, h5py.h5f.UNLIMITED)]),
        "another file",
    ),
    "virtual": (virtual, "another file"),
    "in itself": (lambda file: file.__setitem__("group/x", file["/"]), "in itself"),
    "large": (lambda file: file.create_dataset("x", data=np.zeros(1 << 18, np.float32)), "more data than"),
    "bomb": (lambda file: file.create_dataset("x", data=np.zeros(1 << 20), compression="gzip"), "more data than"),
    "nothing": (lambda file: file.create_dataset("x", (2**20, 2**20), chunks=(1, 1024)), "never written"),
    "nothing at all": (lambda file: file.create_dataset("x", (2**40,)), "never written"),
    "a chunk less": (
        lambda file: file.create_dataset("x", (8, 8), chunks=(4, 8)).__setitem__(slice(4), 1.0),
        "never written",
    ),
    "filter": (unknown_filter, "a filter that is not part of HDF5"),
}


@pytest.mark.parametrize(("change", "reason"), FOREIGN.values(), ids=FOREIGN)
def test_a_file_that_gives_out_what_is_not_in_it_is_refused(change, reason):
    with pytest.raises(ValueError, match=reason):
        check(written(change))


def test_a_file_of_very_many_parts_is_refused_before_they_are_looked_at(monkeypatch):
    content = written(lambda file: [file.__setitem__(f"g/{i}", file["group/data"]) for i in range(50)])
    check(content)
    monkeypatch.setattr("featx.store.own_data._MAX_LINKS", 50)
    with pytest.raises(ValueError, match="it has too many parts"):
        check(content)


def test_a_heap_that_never_ends_is_refused_and_letters_among_numbers_are_no_heap():
    """Reading a text of the first would never end, in HDF5's own code."""
    texts = bytearray(written(lambda file: file.attrs.update({"name": "dense"})))
    start = texts.index(b"GCOL\x01")
    for n_bytes in (8, 16, 48):
        hostile = bytes(texts[: start + 16]) + bytes(n_bytes) + bytes(texts[start + 16 + n_bytes :])
        with pytest.raises(ValueError, match="a list of texts, names or chunks in it has no end"):
            check(hostile)
    numbers = np.frombuffer((b"GCOL\x01" + bytes(3) + b"\xff" * 8) * 500, np.uint8)
    check(written(lambda file: file.create_dataset("x", data=numbers)))


def test_names_whose_free_room_leads_round_in_a_circle_are_refused():
    """Reading the first of them would never end, in HDF5's own code."""
    content = bytearray(written(lambda file: file.create_dataset("x", data=np.zeros(3))))
    check(bytes(content))
    start = content.index(b"HEAP\x00")
    begin = int.from_bytes(content[start + 24 : start + 32], "little")
    content[start + 16 : start + 24] = (8).to_bytes(8, "little")
    content[begin + 8 : begin + 24] = (8).to_bytes(8, "little") + (16).to_bytes(8, "little")
    with pytest.raises(ValueError, match="a list of texts, names or chunks in it has no end"):
        check(bytes(content))
    numbers = np.frombuffer((b"HEAP\x00" + bytes(3) + b"\xff" * 24) * 500, np.uint8)
    check(written(lambda file: file.create_dataset("x", data=numbers)))


def many_chunks(n_dimensions: int) -> bytes:
    """A file with a tree of the old kind whose root has several leaves."""
    shape = (200, *[2] * (n_dimensions - 1))
    numbers = np.arange(np.prod(shape)).reshape(shape)
    return written(lambda file: file.create_dataset("x", data=numbers, chunks=(1, *shape[1:])))


@pytest.mark.parametrize("n_dimensions", [1, 2, 5])
def test_a_tree_that_leads_back_to_itself_is_refused(n_dimensions):
    """Looking for a chunk would fill the stack and end the process, in HDF5's own code."""
    content = bytearray(many_chunks(n_dimensions))
    check(bytes(content))
    root = content.index(b"TREE\x01\x01")
    child = root + 24 + 8 + 8 * (n_dimensions + 1)
    second = child + 16 + 8 * (n_dimensions + 1)
    for address in (root.to_bytes(8, "little"), content[second : second + 8], bytes(8)):
        hostile = content.copy()
        hostile[child : child + 8] = address
        with pytest.raises(ValueError, match="a list of texts, names or chunks in it has no end"):
            check(bytes(hostile))
    numbers = np.frombuffer((b"TREE\x01\x01\x05\0" + b"\xf0" * 56) * 500, np.uint8)
    check(written(lambda file: file.create_dataset("x", data=numbers)))


def overlapping_heaps(n_heaps: int, n_objects: int) -> bytes:
    """Each begins with an object over all the later ones, and then has the same objects."""
    end = 32 * n_heaps + 16 * n_objects
    heaps = []
    for start in range(0, 32 * n_heaps, 32):
        others = 32 * n_heaps - start - 32
        header = b"GCOL\x01\0\0\0" + (end - start).to_bytes(8, "little")
        heaps.append(header + (1).to_bytes(8, "little") + others.to_bytes(8, "little"))
    objects = ((1).to_bytes(8, "little") + bytes(8)) * n_objects
    numbers = np.frombuffer(b"".join([*heaps, objects]), np.uint8)
    return written(lambda file: file.create_dataset("x", data=numbers))


def test_heaps_that_overlap_take_no_time():
    """A few megabytes could claim a billion objects, which would take half an hour to look at."""
    check(overlapping_heaps(5, 100))
    with pytest.raises(ValueError, match="has no end"):
        check(overlapping_heaps(10_000, 100_000), most_bytes=1 << 30)


def test_a_copy_is_what_its_digest_says_whoever_writes_meanwhile(tmp_path):
    path, is_over = tmp_path / "weights.h5", threading.Event()
    contents = [bytes([number]) * (4 << 20) for number in (1, 2)]
    path.write_bytes(contents[0])

    def exchange() -> None:
        while not is_over.is_set():
            for content in contents:
                with path.open("r+b") as file:  # in place
                    file.write(content)
                path.with_name("new").write_bytes(content)
                path.with_name("new").replace(path)

    thread = threading.Thread(target=exchange)
    thread.start()
    try:
        for _ in range(30):
            with private_copy(path) as (copy, digest):
                assert hashlib.sha256(copy.read_bytes()).hexdigest() == digest
                assert copy.stat().st_mode & 0o077 == 0 or copy.parent.stat().st_mode & 0o077 == 0
    finally:
        is_over.set()
        thread.join()
    assert not copy.parent.exists()


def test_a_disk_that_is_full_under_the_copy_is_said(tmp_path, monkeypatch):
    path = tmp_path / "weights.h5"
    path.write_bytes(bytes(3 << 20))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, before[1]))
    try:
        with pytest.raises(FeatxError, match=r"A copy of .*weights\.h5 in .* cannot be written: File too large\. Free"):
            private_copy(path).__enter__()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(
        FeatxError, match=r"temporary files cannot be made: No such file or directory\. Free some space"
    ):
        private_copy(path).__enter__()


def test_a_fifo_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "weights.h5")
    with pytest.raises(OSError, match="it is not a regular file"):
        private_copy(tmp_path / "weights.h5").__enter__()
