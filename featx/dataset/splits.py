"""Which images are for training, validation and testing: decided by what an image is, never by its name or place.

Identical images always get the same answer, so that no copy of a training image is among those that measure it.
"""

import hashlib

import numpy as np

# Changing either moves images between splits: results would no longer compare with older ones.
_TEST_SALT = b"featx test split"
_VALIDATION_SALT = b"featx validation part, seed %d"
_SAMPLE_SALT = b"featx sample, seed %d"


def identical_groups(digests: np.ndarray) -> np.ndarray:
    """Return `(n,)` int64: a number for each row of `digests`, `(n, 32)` uint8, the same for identical rows only.

    The numbers count up from 0 in the order of the digests.
    """
    # S32 drops trailing zeros when compared, which tells no two values of exactly 32 bytes apart wrongly.
    rows = np.ascontiguousarray(digests).view("S32").ravel()
    return np.unique(rows, return_inverse=True)[1].astype(np.int64)


def hashed_test_mask(digests: np.ndarray, fraction: float) -> np.ndarray:
    """Return `(n,)` bool: which images are the test split, about `fraction` of them and of every class.

    Depends on the one image only: adding images never moves an old one.

    Args:
        digests: `(n, 32)` uint8.
        fraction: from 0 to below 1.
    """
    return _lots(digests, _TEST_SALT) < np.uint64(int(fraction * 2**64))


def validation_mask(digests: np.ndarray, labels: np.ndarray, *, seed: int, fraction: float = 0.1) -> np.ndarray:
    """Return `(n,)` bool: the validation part of a train split, the same share of every class.

    Each class gives `round(fraction * n)` of its n images, but at least one, and keeps at least one, if it has two
    that differ. Where copies of an image make that number impossible, it gives fewer. An image that is in several
    classes is on the side that the first of them puts it on. The order of the rows makes no difference.

    Args:
        digests: `(n, 32)` uint8.
        labels: `(n,)` integers.
        seed: another seed, another part.
        fraction: from 0 to below 1.
    """
    groups = identical_groups(digests)
    lots = _lots(digests, _VALIDATION_SALT % seed)
    drawn: dict[int, bool] = {}
    by_label = np.argsort(labels, kind="stable")
    for members in np.split(by_label, np.flatnonzero(np.diff(labels[by_label])) + 1):
        distinct, first, sizes = np.unique(groups[members], return_index=True, return_counts=True)
        order = np.argsort(lots[members[first]], kind="stable")
        _draw(distinct[order].tolist(), sizes[order].tolist(), round(fraction * len(members)), drawn)
    return np.fromiter((drawn[group] for group in groups.tolist()), dtype=bool, count=len(groups))


def sample_mask(
    digests: np.ndarray, labels: np.ndarray, *, seed: int, fraction: float, at_least: int = 1
) -> np.ndarray:
    """Return `(n,)` bool: a share of the images of every class, rounded, a smaller one always within a larger one.

    Args:
        digests: `(n, 32)` uint8.
        labels: `(n,)` integers.
        seed: another seed, other images.
        fraction: from 0 to 1.
        at_least: so many of each class, or all if it has fewer.
    """
    mask = np.zeros(len(digests), bool)
    lots = _lots(digests, _SAMPLE_SALT % seed)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        n_wanted = max(at_least, round(fraction * len(members)))
        mask[members[np.argsort(lots[members], kind="stable")[:n_wanted]]] = True
    return mask


def _draw(groups: list[int], sizes: list[int], n_wanted: int, drawn: dict[int, bool]) -> None:
    """Decide for the groups of one class, in the order of their lots, until `n_wanted` images are drawn."""
    open_groups = [(group, size) for group, size in zip(groups, sizes, strict=True) if group not in drawn]
    n_drawn = sum(size for group, size in zip(groups, sizes, strict=True) if drawn.get(group))
    has_kept = any(drawn.get(group) is False for group in groups)
    n_wanted = max(n_wanted, 1)
    n_open = len(open_groups)
    for group, size in open_groups:
        must_stay = n_open == 1 and not has_kept
        drawn[group] = n_drawn + size <= n_wanted and not must_stay
        n_drawn += size * drawn[group]
        has_kept |= not drawn[group]
        n_open -= 1
    if n_drawn == 0 and len(open_groups) > 1:
        drawn[min(open_groups, key=lambda item: item[1])[0]] = True


def _lots(digests: np.ndarray, salt: bytes) -> np.ndarray:
    """Return `(n,)` uint64, evenly spread: a number that an image draws, by its digest and the salt alone.

    A digest's own bits are as good as random; SplitMix64's output function (Steele, Lea and Flood, "Fast splittable
    pseudorandom number generators", 2014) makes those of different salts independent.
    """
    start = int.from_bytes(hashlib.sha256(salt).digest()[:8], "little")
    lots = np.ascontiguousarray(digests[:, :8]).view("<u8").ravel().astype(np.uint64) ^ np.uint64(start)
    lots ^= lots >> np.uint64(30)
    lots *= np.uint64(0xBF58476D1CE4E5B9)
    lots ^= lots >> np.uint64(27)
    lots *= np.uint64(0x94D049BB133111EB)
    return lots ^ (lots >> np.uint64(31))
