"""Damages image files and decodes them, so many times.

`python tests/images/fuzz_decode.py SEEDS_DIR ROUNDS RESULT [SEED]`

It is a process of its own, so that a crash of a C library ends nothing else, and memory can be bounded. It writes
nothing to the terminal: whatever is there was written by the decoders. `RESULT.last` holds the bytes being decoded.

Damage that leads to a reason that was not seen before is damaged further: a cheap stand-in for coverage.
"""

import json
import os
import random
import re
import resource
import struct
import sys
import time
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from featx.errors import ImageError
from featx.images.decode import decode_image

#: `docs/images.md`: 3 GB for the worst image that is not refused; and what Python itself may need meanwhile.
MEMORY_BYTES = 3 * 10**9 + (256 << 20)

#: Processor time for one file. The largest pictures take a second; Pillow unpacks run-length BMPs in Python, where
#: they take ten.
SLOW_S = 20.0

_NUMBERS = (0, 1, 2, 3, 7, 8, 16, 127, 128, 255, 256, 9459, 30000, 32767, 32768, 65535, 2**31 - 1, 2**31, 2**32 - 1)
#: Numbers, and what a reason quotes from the file.
_WHICH = re.compile(r"b?(['\"]).*|[0-9a-f]*[0-9][0-9a-f]*|(?<=first bytes )\w+")
_WORDS = ("<H", ">H", "<I", ">I", "B")


def damaged(data: bytes, others: Sequence[bytes], draw: random.Random) -> bytes:
    """Return `data` after one to six random edits, most of them near its beginning, where its headers are."""
    edited = bytearray(data)
    for _ in range(draw.randint(1, 6)):
        at = int(len(edited) * draw.random() ** draw.choice((1, 3)))
        edit = draw.randrange(8)
        if edit == 0 and at < len(edited):
            edited[at] ^= 1 << draw.randrange(8)
        elif edit in {1, 2}:
            word = draw.choice(_WORDS)
            number = struct.pack(word, draw.choice(_NUMBERS) % 256 ** struct.calcsize(word))
            edited[at : at + len(number)] = number
        elif edit == 3:
            edited[at:at] = draw.randbytes(draw.randint(1, 4))
        elif edit == 4:
            del edited[at : at + draw.randint(1, 40)]
        elif edit == 5:
            edited[at:at] = edited[at : at + draw.randint(1, 40)]
        elif edit == 6:
            other = draw.choice(others)
            start = int(len(other) * draw.random())
            edited[at : at + 60] = other[start : start + 60]
        elif draw.random() < 0.3:
            del edited[at:]
    return with_png_sums(bytes(edited)) if draw.random() < 0.8 else bytes(edited)


def with_png_sums(data: bytes) -> bytes:
    """Return a PNG with its checksums put right, without which no damage would get past the first chunk."""
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        return data
    mended, at = bytearray(data), 8
    while at + 12 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4], "big")
        if end + 4 > len(data):
            break
        mended[end : end + 4] = struct.pack(">I", zlib.crc32(data[at + 4 : end]))
        at = end + 4
    return bytes(mended)


def outcome_of(data: bytes, image_size: tuple[int, int] = (5, 7)) -> str:
    """Return the reason for which `data` is refused, without what it quotes; `"decoded"` if it is not refused.

    Raises:
        AssertionError: it is neither decoded nor refused as promised.
    """
    started = time.thread_time()
    try:
        pixels = decode_image(data, image_size)
    except ImageError as error:
        reason = str(error)
        assert reason.isprintable(), reason
        assert 0 < len(reason) < 200, reason
        assert reason != "out of memory", "it needs more memory than documented"
        outcome = f"{type(error.__cause__).__name__}: {_WHICH.sub('#', reason)}"
    else:
        assert pixels.shape == (*image_size, 3), pixels.shape
        assert pixels.dtype == np.uint8, pixels.dtype
        outcome = "decoded"
    assert time.thread_time() - started < SLOW_S, "it takes too long"
    return outcome


def fuzz(seeds: Sequence[bytes], rounds: int, last_path: Path, seed: int = 0) -> dict[str, object]:
    """Return the outcomes that so many rounds have led to, and what broke a promise, in hexadecimal."""
    draw = random.Random(seed)
    seen = {outcome_of(data) for data in seeds}
    corpus = list(seeds)
    broken = {}
    last = os.open(last_path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    for _ in range(rounds):
        data = damaged(draw.choice(corpus), corpus, draw)
        os.ftruncate(last, os.pwrite(last, data, 0))  # not made anew: that takes longer than decoding
        try:
            outcome = outcome_of(data)
        except Exception as error:  # noqa: BLE001 - that is what is looked for
            broken.setdefault(f"{type(error).__name__}: {error}", data.hex())
            continue
        if outcome not in seen:
            seen.add(outcome)
            corpus.append(data)
    os.close(last)
    return {"outcomes": sorted(seen), "broken": broken}


def _bound_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    limit = pages * os.sysconf("SC_PAGE_SIZE") + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))


def main(seeds_dir: str, rounds: str, result: str, seed: str = "0") -> None:
    """Fuzz with all files in a folder."""
    seeds = [path.read_bytes() for path in sorted(Path(seeds_dir).iterdir())]
    _bound_memory()
    found = fuzz(seeds, int(rounds), Path(f"{result}.last"), int(seed))
    Path(result).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
