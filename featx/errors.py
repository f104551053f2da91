"""What can go wrong, in the user's words.

Every error that featx raises on purpose is a `FeatxError` whose message is one sentence: what was wrong, where, and
what to do about it. The command line prints it on one line and exits with code 2.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from featx.text import one_line

#: Characters of an error: what a file claims may be of any length, and the advice comes last.
_MAX_CHARACTERS = 4000


class FeatxError(Exception):
    """Something the user can fix; the message says how.

    It is one line without control characters and secrets, whatever it was made of. The middle of a very long one is
    left out.
    """

    def __init__(self, message: str) -> None:
        text, half = one_line(message), _MAX_CHARACTERS // 2
        super().__init__(text if len(text) <= _MAX_CHARACTERS else f"{text[:half]}…{text[-half:]}")


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
    """The weights cannot be found, or are not what they claim to be."""


class BackboneError(FeatxError):
    """The backbone, layer or image size asked for does not exist or does not fit."""


class StoreError(FeatxError):
    """The feature store cannot be read or written."""


class FeaturesMissingError(StoreError):
    """Features that stage two needs are not in the store."""


class DamagedSegmentError(StoreError):
    """A segment failed its checksum; it has been quarantined, and its rows have to be computed again."""


class DtypeOverflowError(StoreError):
    """A feature is too large for the storage dtype."""


class TrainingError(FeatxError):
    """Stage two cannot train on what it was given."""


class NotEnoughMemoryError(TrainingError, MemoryError):
    """A head would take more memory than is free."""


@contextmanager
def system_errors(what: str, done: str, advice: str = "", kind: type[FeatxError] = FeatxError) -> Iterator[None]:
    """Raise `kind` when the system refuses something inside: `what` cannot be `done`, for its reason; then `advice`."""
    try:
        yield
    except OSError as error:
        raise kind(f"{what} cannot be {done}: {error.strerror or error}.{advice}") from error


def reason_of(error: BaseException) -> str:
    """Return why something failed, whatever error it was, as the end of a sentence.

    >>> reason_of(MemoryError("Unable to allocate 91.6 MiB")), reason_of(ValueError("no such colour"))
    ('not enough memory', 'ValueError: no such colour')
    """
    if isinstance(error, FeatxError):
        return str(error).removesuffix(".")
    return "not enough memory" if isinstance(error, MemoryError) else f"{type(error).__name__}: {one_line(error)}"
