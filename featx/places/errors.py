"""What goes wrong with a file system elsewhere, as the `OSError`s that featx handles for the disk.

Every library has exceptions of its own: botocore's, aiohttp's, those of zip files. Here they become two, so that nobody
else has to know them: `FileNotFoundError`, and `PlaceError` for all other trouble, with one line that says what to do.
"""

import errno
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager

from featx.errors import FeatxError, printable
from featx.places.redaction import redacted

#: Packages for file systems, by the beginning of an address, as one would type them after `pip install`.
PACKAGES = {
    "s3": "'featx[s3]'",
    "s3a": "'featx[s3]'",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "hf": "huggingface_hub",
    "abfs": "adlfs",
    "abfss": "adlfs",
    "az": "adlfs",
    "http": "aiohttp",
    "https": "aiohttp",
}

_CREDENTIALS = {
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a profile with AWS_PROFILE",
    "s3a": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a profile with AWS_PROFILE",
    "gs": "set GOOGLE_APPLICATION_CREDENTIALS",
    "gcs": "set GOOGLE_APPLICATION_CREDENTIALS",
    "hf": "set HF_TOKEN",
}

_MAX_WORDS = 240  # characters of what a library says


class PlaceError(FeatxError, OSError):
    """A file system elsewhere cannot do what was asked for. `strerror` says why and what to do, the message where, too.

    It is an `OSError` to whoever handles those of the disk, and a sentence to the user where nobody does.
    """

    def __init__(self, reason: str, where: str) -> None:
        super().__init__(f"{printable(where)}: {reason}.")
        self.strerror = reason
        self.filename = where


@contextmanager
def told(protocol: str, where: str) -> Iterator[None]:
    """Let nothing out of the block but `FileNotFoundError`, with a `strerror`, and `PlaceError`.

    Args:
        protocol: the beginning of the address, such as `s3`.
        where: what the file is called in messages.
    """
    try:
        yield
    except PlaceError:
        raise
    except FeatxError as error:
        raise PlaceError(str(error).removesuffix("."), where) from error
    except FileNotFoundError as error:
        raise FileNotFoundError(errno.ENOENT, _missing(error), where) from error
    except Exception as error:  # of any library
        raise PlaceError(_reason(error, protocol), where) from error


def _missing(error: FileNotFoundError) -> str:
    """Return what is missing: libraries say it of a bucket, and else give the path alone."""
    return "the bucket does not exist" if "bucket" in str(error) and "not exist" in str(error) else "no such file"


def _reason(error: Exception, protocol: str) -> str:
    """Return in one line why, and what to do."""
    words = textwrap.shorten(redacted(printable(" ".join(str(error).split()))), _MAX_WORDS, placeholder=" …")
    kind = type(error).__name__
    if isinstance(error, ImportError):
        package = f"pip install {PACKAGES[protocol]}" if protocol in PACKAGES else words
        return f"{protocol}:// needs a package that is not installed: {package}"
    if isinstance(error, ValueError) and "Protocol not known" in words:
        return f"there is no kind of file system called {protocol}"
    how = _CREDENTIALS.get(protocol, "see the documentation of its fsspec package")
    if "Credential" in kind or "credentials" in words.lower():
        return f"no valid credentials were found; {how}"
    if isinstance(error, PermissionError):
        return f"permission denied ({words}); other credentials may help: {how}"
    if isinstance(error, TimeoutError) or "Timeout" in kind or "Connect" in kind:
        return f"no connection ({words or kind}); check the network and the address, and run it again"
    return f"{words or kind}" if isinstance(error, OSError) else f"{kind}: {words}"
