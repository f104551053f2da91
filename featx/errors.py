"""What can go wrong, in the user's words.

Every error that featx raises on purpose is a `FeatxError` whose message is one sentence: what was wrong, where, and
what to do about it. The command line prints it on one line and exits with code 2.
"""

import os
import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from featx.places import RemotePath


class FeatxError(Exception):
    """Something the user can mend; the message says how."""


class DatasetError(FeatxError):
    """The folder is not a data set that can be trained on."""


class ImageError(FeatxError):
    """One file could not be turned into pixels. The message is the reason alone; who raises it knows the path.

    Attributes:
        is_content: whether the file's bytes are to blame, so that the same bytes will fail every time.
    """

    def __init__(self, reason: str, *, is_content: bool = True) -> None:
        super().__init__(reason)
        self.is_content = is_content


class WeightsError(FeatxError):
    """The weights asked for are not to be had, or are not what they claim to be."""


class BackboneError(FeatxError):
    """The backbone, layer or image size asked for does not exist or does not fit."""


class StoreError(FeatxError):
    """The feature store cannot be read or written."""


class FeaturesMissingError(StoreError):
    """Features that stage two needs are not in the store."""


class DamagedSegmentError(StoreError):
    """A segment failed its checksum; it has been set aside, and its rows have to be computed again."""


class DtypeOverflowError(StoreError):
    """A feature is too large for the storage dtype."""


class TrainingError(FeatxError):
    """Stage two cannot train on what it was given."""


def printable(name: "str | bytes | os.PathLike[str] | RemotePath") -> str:
    r"""Return `name` fit for a terminal, a table or a log: one line, control and undecodable characters escaped.

    >>> printable("cat\n\x1b[31m.jpg")
    'cat\\n\\x1b[31m.jpg'
    >>> printable("ça va 🐈.jpg")
    'ça va 🐈.jpg'
    """
    text = os.fsdecode(name) if isinstance(name, str | bytes | os.PathLike) else str(name)
    return "".join(
        char.encode("unicode_escape", "backslashreplace").decode("ascii")
        if unicodedata.category(char) in {"Cc", "Cf", "Cs", "Zl", "Zp"}
        else char
        for char in text
    )
