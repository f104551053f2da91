"""What can go wrong, in the user's words.

Every error that featx raises on purpose is a `FeatxError` whose message is one sentence: what was wrong, where, and
what to do about it. The command line prints it on one line and exits with code 2.
"""

import os
import re
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache


class FeatxError(Exception):
    """Something the user can fix; the message says how."""


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
    return "not enough memory" if isinstance(error, MemoryError) else f"{type(error).__name__}: {printable(error)}"


#: The zero-width non-joiner and joiner.
JOINERS = "\u200c\u200d"
_EMOJI_STYLE = "\ufe0f"
_VIRAMA = 9  # its canonical combining class


def printable(name: object) -> str:
    r"""Return `name` fit for a terminal, a table or a log: one line, control and undecodable characters escaped.

    For people only: a program reads the name itself, in a file or in JSON. Joiners stay where they change how a word
    or an emoji looks.

    >>> printable("cat\n\x1b[31m.jpg")
    'cat\\n\\x1b[31m.jpg'
    >>> printable("ça va 🐈.jpg")
    'ça va 🐈.jpg'
    """
    text = os.fsdecode(name) if isinstance(name, str | bytes | os.PathLike) else str(name)
    return "".join(
        char.encode("unicode_escape", "backslashreplace").decode("ascii")
        if unicodedata.category(char) in {"Cc", "Cf", "Cs", "Zl", "Zp"} and not _is_seen_joiner(text, at)
        else char
        for at, char in enumerate(text)
    )


def _is_seen_joiner(text: str, at: int) -> bool:
    """Return whether `text[at]` is a zero-width joiner or non-joiner that shows; elsewhere it could only hide.

    As in the names of hosts (RFC 5892, A.1 and A.2): after a virama, and a non-joiner between Arabic letters that it
    keeps from joining. And a joiner between emoji.
    """
    if text[at] not in JOINERS or not 0 < at < len(text) - 1:
        return False
    before, after = text[at - 1], text[at + 1]
    if unicodedata.combining(before) == _VIRAMA:
        return True
    if text[at] == "\u200c":
        return before in _joining_letters() and after.isalpha() and unicodedata.bidirectional(after) == "AL"
    is_emoji = unicodedata.east_asian_width(before) == "W" and unicodedata.category(before) in {"So", "Sk"}
    return (is_emoji or before == _EMOJI_STYLE) and unicodedata.category(after) == "So"


@cache
def _joining_letters() -> frozenset[str]:
    """Return the Arabic letters that join the next one: Unicode has a form of each for the beginning of a word."""
    forms = (unicodedata.decomposition(chr(point)).split() for point in range(0xFB50, 0xFF00))
    return frozenset(chr(int(form[1], 16)) for form in forms if form[:1] == ["<initial>"] and len(form) == 2)


#: What stands for a credential.
STARS = "***"

# A secret may hold slashes; what follows a host and a colon may be a port.
_USER_AND_SECRET = re.compile(r"(?<=://)[^\s/:@]*:(?!\d+(?:[/?#\s]|$))[^\s@]*@")
_TOKEN = re.compile(r"(?<=\bhttp://)[^\s/@]+@|(?<=\bhttps://)[^\s/@]+@")
_QUERY = re.compile(r"(://[^\s?]*\?)[^\s:'\"]+")


def has_credentials(address: str) -> bool:
    """Return whether there are a user's name and a secret in `address`."""
    return bool(_USER_AND_SECRET.search(address))


def redacted(text: str) -> str:
    """Return `text` with stars for all credentials in the addresses that it holds.

    >>> redacted("featx extract s3://AKIA:se/cret@bucket/photos --cache-dir http://host:8080/a@b")
    'featx extract s3://***@bucket/photos --cache-dir http://host:8080/a@b'
    >>> redacted("https://token@host/photos?sig=12&exp=3 is gone"), redacted("abfs://container@account/x")
    ('https://***@host/photos?*** is gone', 'abfs://container@account/x')
    """
    text = _USER_AND_SECRET.sub(f"{STARS}@", text)
    text = _TOKEN.sub(f"{STARS}@", text)
    return _QUERY.sub(rf"\1{STARS}", text)
