"""What names of folders and files say: splits, annotations, parts, classes; and names that people take for one."""

import difflib
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import NamedTuple

from featx.errors import DatasetError
from featx.text import printable

_ROLES = {
    "train": {"train", "training", "trn", "trainval"},
    "validation": {"validation", "val", "valid", "dev"},
    "test": {"test", "testing", "tst", "holdout", "eval", "evaluation"},
    "unlabelled": {"pred", "predict", "prediction", "predictions", "unlabelled", "unlabeled", "submission"},
}
_ROLE_OF = {word: role for role, words in _ROLES.items() for word in words}

_PICTURES = {
    *("image", "images", "img", "imgs", "photo", "photos", "picture", "pictures", "pic", "pics"),
    *("jpg", "jpeg", "png", "jpegimages"),
}

#: Words that say no more than that there are images: `train_images` is `train`.
_FILLERS = {
    *_PICTURES,
    *("set", "data", "dataset", "datasets", "split", "folder", "raw", "all", "final", "labelled", "labeled"),
}

#: Words for pictures that tell something about other pictures; the second kind may well be of something else.
_ANNOTATIONS = {
    *("masks", "annotation", "annotations", "labels", "trimap", "trimaps", "segmentation", "segmentations"),
    *("segmentationclass", "segmentationobject", "segmaps", "segmim", "groundtruth", "gt", "gtfine", "bboxes"),
}
_MAYBE_ANNOTATIONS = {"mask", "label", "segmap", "bbox", "depth", "contour", "contours", "semantic"}
_ANNOTATION_PREFIX = re.compile(r"(?:mask|masks|seg|segmentation|label|gt|trimap|annotation)[ _-]+", re.IGNORECASE)
_ANNOTATION_SUFFIX = re.compile(
    r"[ _-]+(?:mask|masks|seg|segmentation|label|gt|trimap|annotation)(?:[ _-]*\d+)?", re.IGNORECASE
)

#: Words for one of several folders that together hold what belongs together.
_PARTS = {"part", "parts", "batch", "fold", "shard", "chunk", "volume", "vol", "disk", "disc"}

#: How cameras, phones and programs begin the names of their files.
_CAMERAS = {
    *("img", "image", "images", "im", "pic", "pics", "picture", "photo", "dsc", "dscn", "dscf", "pxl", "mvi", "dji"),
    *("canon", "nikon", "sony", "fb_img", "received", "vid", "video", "snapchat"),
    *("left", "right", "front", "back", "side"),
    *("gopr", "screenshot", "scan", "file", "frame", "download", "whatsapp image", "untitled", "sample", "copy"),
}

_CAMEL_CASE = re.compile(r"(?<=[a-z])(?=[A-Z])")
_WORD = re.compile(r"[^\W\d_]+")
_PREFIX = re.compile(r"([^\W\d_]{2,}(?:[ _-][^\W\d_]+)*)[ ._-]*\(?\d+\)?")


def words_of(name: str) -> tuple[str, ...]:
    """Return the words of a name, in lower case, without numbers and punctuation.

    >>> words_of("rps-test-set"), words_of("trainingSet"), words_of("test1"), words_of("TEST_SIMPLE")
    (('rps', 'test', 'set'), ('training', 'set'), ('test',), ('test', 'simple'))
    """
    return tuple(word.casefold() for word in _WORD.findall(_CAMEL_CASE.sub(" ", name)))


class Role(NamedTuple):
    """What part of a data set a folder's name speaks of.

    Attributes:
        name: `"train"`, `"validation"`, `"test"` or `"unlabelled"`.
        rest: its other words; none if it speaks of nothing else.
    """

    name: str
    rest: tuple[str, ...]


def role_of(name: str) -> Role | None:
    """Return the role that a folder's name speaks of; None if it speaks of none, or of several.

    >>> role_of("Training_Set"), role_of("seg_train"), role_of("train2017"), role_of("latest")
    (Role(name='train', rest=()), Role(name='train', rest=('seg',)), Role(name='train', rest=()), None)
    """
    words = words_of(name)
    roles = {_ROLE_OF[word] for word in words if word in _ROLE_OF}
    if roles == {"train", "validation"}:  # featx takes its own validation part, and that is what `trainval` is for
        roles = {"train"}
    if len(roles) != 1:
        return None
    return Role(roles.pop(), tuple(word for word in words if word not in _FILLERS and word not in _ROLE_OF))


def holds_out(name: str) -> bool:
    """Return whether a folder's name says that its images are held out from training, and no more.

    >>> holds_out("test"), holds_out("validation"), holds_out("valid"), holds_out("test tube")
    (True, True, False, False)
    """
    role = role_of(name)
    # `valid` beside `invalid` is a class, and so may be `dev`.
    return role is not None and role.name != "train" and not role.rest and not {"valid", "dev"} & {*words_of(name)}


def subject_of(name: str) -> tuple[str, ...]:
    """Return the words of a name that say what the images are of.

    >>> subject_of("rps"), subject_of("images_small")
    (('rps',), ('small',))
    """
    return tuple(word for word in words_of(name) if word not in _FILLERS)


def says_images(name: str) -> bool:
    """Return whether a folder's name says no more than that there are images in it.

    >>> says_images("images"), says_images("JPEGImages"), says_images("cats")
    (True, True, False)
    """
    return bool(words_of(name)) and not subject_of(name)


def may_be_annotations(name: str) -> bool:
    """Return whether a folder's name may speak of masks and the like.

    >>> may_be_annotations("face mask"), may_be_annotations("train_masks"), may_be_annotations("images")
    (True, True, False)
    """
    return not (_ANNOTATIONS | _MAYBE_ANNOTATIONS).isdisjoint(words_of(name))


def says_same_mask(name: str, other: str) -> bool:
    """Return whether a word for masks in one name is in another, too: then the classes are of masks.

    >>> says_same_mask("mask", "nomask"), says_same_mask("masks", "images")
    (True, False)
    """
    words = {"mask", "masks", "label", "labels"}.intersection(words_of(name))
    return any(word.removesuffix("s") in other.casefold() for word in words)


def says_pictures(name: str) -> bool:
    """Return whether a folder's name is a word for pictures, and nothing else.

    >>> says_pictures("images"), says_pictures("raw")
    (True, False)
    """
    return len(words := words_of(name)) == 1 and words[0] in _PICTURES


def says_annotations(name: str) -> bool:
    """Return whether a folder's name speaks of masks and the like, and of nothing else.

    >>> says_annotations("train_masks"), says_annotations("face masks"), says_annotations("mask")
    (True, False, False)
    """
    words = [word for word in subject_of(name) if word not in _ROLE_OF]
    return bool(words) and set(words) <= _ANNOTATIONS


def n_annotations(file_names: Collection[str]) -> int:
    """Return how many files have the name of another one with a word for masks before or behind it.

    >>> n_annotations(["a (1).png", "a (1)_mask.png", "a (1)_mask_1.png", "mask_a (1).png", "b_mask.png"])
    3
    """
    others = {stem: names for stem in map(_stem, file_names) if (names := set(_annotated(stem)))}
    wanted = set().union(*others.values())
    there = {stem for stem in map(_stem, file_names) if stem in wanted} if wanted else set()  # there may be millions
    return sum(not names.isdisjoint(there) for names in others.values())


def _stem(file_name: str) -> str:
    return file_name.rpartition(".")[0]


def _annotated(stem: str) -> Iterator[str]:
    """Yield what the file may be called that this one is a mask for, by its name."""
    before, behind = _ANNOTATION_PREFIX.match(stem), _ANNOTATION_SUFFIX.search(stem)
    if before:
        yield stem[before.end() :]
    if behind and behind.end() == len(stem):
        yield stem[: behind.start()]


def are_parts(names: Iterable[str]) -> bool:
    """Return whether names differ in a number only, and say that they are parts of something.

    >>> are_parts(["HAM10000_images_part_1", "HAM10000_images_part_2"]), are_parts(["n0", "n1"])
    (True, False)
    """
    all_words = [words_of(name) for name in names]
    return len(all_words) > 1 and len(set(all_words)) == 1 and not _PARTS.isdisjoint(all_words[0])


def class_prefixes(file_names: Collection[str]) -> list[str]:
    """Return the words that file names begin with, before a number, if these may be classes; sorted.

    That is if nine names of ten begin so, with two words or more, each of them more than once. What cameras and
    programs write is no class.

    >>> class_prefixes(["cat.0.jpg", "cat.1.jpg", "great_dane_7.jpg", "great_dane_8.png"])
    ['cat', 'great_dane']
    >>> class_prefixes(["IMG_0001.jpg", "IMG_0002.jpg", "DSC 1.jpg", "DSC 2.jpg", "1.jpg"])
    []
    """
    matches = (_PREFIX.fullmatch(name.rpartition(".")[0]) for name in file_names)
    counts = Counter(match[1] for match in matches if match and _may_be_class(match[1]))
    prefixes = sorted(prefix for prefix, count in counts.items() if count > 1)
    is_most = sum(counts.values()) >= 0.9 * len(file_names)
    return prefixes if len(prefixes) > 1 and is_most else []


def _may_be_class(prefix: str) -> bool:
    return prefix.casefold() not in _CAMERAS and role_of(prefix) is None


#: How names can differ that people take for one, and what takes the difference away.
_DIFFERENCES: dict[str, Callable[[str], str]] = {
    "Unicode form": lambda name: unicodedata.normalize("NFC", name),
    "characters that cannot be seen": lambda name: "".join(c for c in name if unicodedata.category(c) != "Cf"),
    "blanks": lambda name: "".join(name.split()),
    "letter case": str.lower,
}


def looks_of(name: str) -> str:
    r"""Return what stays of a name when what cannot be seen, or is easily mistaken, is taken off it.

    Names that people take for one are the same then: in other letter case, with blanks around, or in another
    Unicode form (é as one character or as two).

    >>> looks_of("Cafe\u0301 ") == looks_of("caf\u00e9")
    True
    """
    for simpler in _DIFFERENCES.values():
        name = simpler(name)
    return name


def difference_of(name: str, other: str) -> list[str]:
    r"""Return in what two names differ that have the same looks.

    >>> difference_of("Cats", "cats"), difference_of("cats ", "Cats"), difference_of("cafe\u0301", "caf\u00e9")
    (['letter case'], ['blanks', 'letter case'], ['Unicode form'])
    """

    def without(left_out: str, text: str) -> str:
        for what, simpler in _DIFFERENCES.items():
            text = text if what == left_out else simpler(text)
        return text

    return [what for what in _DIFFERENCES if without(what, name) != without(what, other)]


def alike_warning(names: Sequence[str]) -> str:
    """Return a warning of classes whose names differ in letter case, or in what cannot be seen.

    Raises:
        DatasetError: the names of two classes differ only in blanks or Unicode form.
    """
    known: dict[str, str] = {}
    pairs = [(other, name) for name in names if (other := known.setdefault(looks_of(name), name)) != name]
    pairs.sort(key=lambda pair: _is_mistake(*pair), reverse=True)
    if not pairs:
        return ""
    first, second = pairs[0]
    n_more = len(pairs) - 1
    more = {0: "", 1: " There is one more such pair."}.get(n_more, f" There are {n_more:,} more such pairs.")
    sentence = (
        f"Two classes are called '{printable(first)}' and '{printable(second)}': the names differ only in "
        f"{' and '.join(difference_of(first, second))}.{more}"
    )
    if _is_mistake(first, second):
        raise DatasetError(f"{sentence} Rename one of the folders, or move their images into one.")
    return sentence


def _is_mistake(name: str, other: str) -> bool:
    """Return whether nobody would call two classes by these names on purpose."""
    return not {"blanks", "Unicode form"}.isdisjoint(difference_of(name, other))


def near_match(test_only: Sequence[str], known: Sequence[str]) -> str:
    """Return which training class the first of these classes that has one like it may be; empty if none has."""
    by_looks = {looks_of(name): name for name in known}
    for name in test_only:
        if other := by_looks.get(looks_of(name)):
            return (
                f"'{printable(name)}' and the training class '{printable(other)}' differ in "
                f"{' and '.join(difference_of(name, other))}: rename one of the folders. Otherwise "
            )
        close = difflib.get_close_matches(looks_of(name), by_looks, n=1, cutoff=0.8)
        if close and _without_digits(close[0]) != _without_digits(looks_of(name)):
            return f"is '{printable(name)}' the training class '{printable(by_looks[close[0]])}'? Otherwise "
    return ""


def _without_digits(name: str) -> str:
    return "".join(char for char in name if not char.isdigit())
